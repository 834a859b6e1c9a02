#!/usr/bin/env python3
# The client protocol: what docs/client-protocol.md promises, and peers that
# break it. Whatever one peer does, the others go on.
# SPDX-License-Identifier: MIT
import os
import re
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdclient import *
from kdlib import *

MIB = 1 << 20


def read_to_end(s, timeout_s=5):
    """All that the server sends until it hangs up."""
    data = b""
    end = time.monotonic() + timeout_s
    while True:
        s.settimeout(max(0.01, end - time.monotonic()))
        try:
            piece = s.recv(65536)
        except ConnectionError:
            return data
        except socket.timeout:
            raise Failure("the server does not hang up; it sent %r" % data) from None
        if not piece:
            return data
        data += piece


# ---- first lines -------------------------------------------------------------

@test
def greeting(lab):
    """the server's line is as documented; what is appended to ours is ignored"""
    server = lab.server()
    c = lab.closing(Client(server, greet=False))
    line = c.line()
    check(re.fullmatch(r"KDSRV 1 kdsrv/[!-~]{1,41} auth=none", line), line)
    for byte in b"KDCLIENT 1 e2e/1 later=words more\n":
        c.s.sendall(bytes([byte]))
    c.ok(PING)


STRANGERS = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(190),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "noise": bytes(range(256)) * 16,
    "zeros": bytes(4096),
    "endless line": b"KDCLIENT 1 " + b"a" * 300,
    "no version": b"KDCLIENT\n",
    "odd version": b"KDCLIENT 01 kd/1\n",
    "version 2": b"KDCLIENT 2 kd/9\n",
    "huge version": b"KDCLIENT 4294967297 kd/9\n",
    "KD packets": bytes.fromhex("69696969060000000000000000000000"),
}


@test
def strangers(lab):
    """other protocols and versions: hung up on, told why, nobody else notices"""
    server, target = lab.server(), lab.target()
    c = lab.closing(Client(server))
    c.attach(target)
    for name, data in STRANGERS.items():
        s = dial(server)
        s.sendall(data)
        got = read_to_end(s)
        matches(rb"^KDSRV 1 \S+ auth=none\nKDSRV-ERROR [ -~]+\n$", got, name)
        if name.startswith("version"):
            matches(rb"version 1 of its protocol", got, name)
        s.close()
        equal(c.read(c.base, 2), b"MZ", "another client after " + name)
    server.wait_text("127.0.0.1:[0-9]+: ", stream="err")


# ---- frames ------------------------------------------------------------------

@cases([MAX_BODY + 1, 1 << 24, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFF4], hex)
def too_long(lab, length):
    """a body beyond the limit: the server hangs up"""
    server = lab.server()
    c, other = lab.closing(Client(server)), lab.closing(Client(server))
    c.s.sendall(struct.pack("<IHHI", length, PING, 0, 1) + b"x" * 100)
    c.wait_closed(5)
    other.ok(PING)


@test
def longest(lab):
    """a body of exactly the limit is read, byte by byte frames too"""
    c = lab.closing(Client(lab.server()))
    equal(c.call(0x77, bytes(MAX_BODY)).err, UNSUPPORTED, "an unknown request")
    raw, number = c.frame(LIST)
    for byte in raw:
        c.s.sendall(bytes([byte]))
    equal(c.wait_reply(number).err, OK, "LIST")
    # The reserved field is ignored.
    c.s.sendall(struct.pack("<IHHI", 0, PING, 0xFFFF, 0xFFFFFFFF))
    equal(c.wait_reply(0xFFFFFFFF).err, OK, "PING")


@test
def without_a_target(lab):
    """requests that lack their condition are answered with KD_ERR_STATE"""
    c = lab.closing(Client(lab.server()))
    message = struct.pack("<I", 0x3146).ljust(56, b"\0")
    for kind, body in ((CLOSE, b""), (MANIPULATE, message), (READ, c.read_request((0, 1))),
                       (WRITE, bytes(17)), (BREAK, b""), (ANSWER, b"y"), (SET_FLAGS, bytes(4)),
                       (RESYNC, b"")):
        reply = c.call(kind, body)
        equal(reply.err, STATE, "request %x: %s" % (kind, reply.text))
    for kind in AUTH_START, AUTH_PROOF:
        equal(c.call(kind, bytes(32)).err, UNSUPPORTED, "request %x" % kind)


@test
def while_it_runs(lab):
    """requests for a stopped target are refused while it runs"""
    server, target = lab.server(), lab.target("--print-every", "50")
    c = lab.closing(Client(server))
    c.attach(target)
    equal(c.open(target).err, STATE, "a second OPEN")
    equal(c.call(ANSWER, b"y").err, STATE, "ANSWER without a prompt")
    c.go()
    for kind, body in ((MANIPULATE, struct.pack("<I", 0x3146).ljust(56, b"\0")),
                       (READ, c.read_request((c.base, 1))), (WRITE, bytes(17))):
        equal(c.call(kind, body).err, STATE, "request %x" % kind)


@test
def malformed_bodies(lab):
    """each request with each kind of bad body: an error reply, and it goes on"""
    server, target = lab.server(), lab.target()
    c = lab.closing(Client(server))
    many = b"".join(struct.pack("<QQ", 0, 1) for _ in range(1025))
    long_text = struct.pack("<H", 2049) + b"a" * 2049
    for body in (b"", bytes(3), bytes(4), struct.pack("<IH", 0, 50) + b"com:",
                 bytes(4) + long_text + text("x"),
                 bytes(4) + text("com:port=com1") + long_text,
                 bytes(4) + text("com:pipe,port=/tmp/\0x") + text("x"),
                 bytes(4) + text("com:pipe,port=/tmp/x") + text("\x1b[31m"),
                 bytes(4) + text("com:pipe,port=/tmp/x") + text("\x9b31m")):
        equal(c.call(OPEN, body).err, INVALID, "OPEN %r" % body[:40])
    c.attach(target)
    for kind, body, want in (
            (READ, b"", INVALID), (READ, bytes(3), INVALID),
            (READ, struct.pack("<BBH", 0, 0, 0), INVALID),
            (READ, struct.pack("<BBH", 0, 0, 1025) + many, INVALID),
            (READ, struct.pack("<BBH", 3, 0, 1) + bytes(16), INVALID),
            (READ, struct.pack("<BBH", 0, 0, 2) + bytes(16), INVALID),
            (READ, c.read_request(((1 << 64) - 16, 17)), INVALID),
            (WRITE, b"", INVALID), (WRITE, bytes(15), INVALID),
            (WRITE, b"\3" + bytes(16), INVALID), (WRITE, bytes(16 + 65537), INVALID),
            (MANIPULATE, b"", INVALID), (MANIPULATE, bytes(55), INVALID),
            (MANIPULATE, struct.pack("<I", 0x3146).ljust(4001, b"\0"), INVALID),
            (MANIPULATE, struct.pack("<I", 0x9999).ljust(56, b"\0"), INVALID),
            (MANIPULATE, struct.pack("<I", 0x3147).ljust(56, b"\0"), UNSUPPORTED),
            (CANCEL, b"", INVALID), (CANCEL, struct.pack("<I", 4711), NOT_FOUND),
            (SET_FLAGS, b"\0", INVALID)):
        reply = c.call(kind, body)
        equal(reply.err, want, "request %x %r (%s)" % (kind, body[:24], reply.text))
    equal(c.ok(READ, c.read_request((c.base, 2))).data, b"MZ", "a READ after all that")


@test
def noise_in_frames(lab):
    """10000 frames of seeded noise: each has one reply, the server lives"""
    server, target = lab.server(), lab.target()
    c = lab.closing(Client(server))
    c.attach(target)
    rnd = random.Random(1)
    kinds = [LIST, MANIPULATE, READ, WRITE, ANSWER, CANCEL, PING, 0, 0x1D, 0x80, 0x90, 0xFFFF]
    sent = []
    for n in range(10000):
        kind = rnd.choice(kinds)
        body = rnd.randbytes(rnd.choice((0, 1, 3, 4, 16, 20, 56, 60, 200)))
        if kind == READ and len(body) >= 20:
            # Not for ever: lengths of less than 64 KiB.
            body = struct.pack("<BBHQQ", body[0] % 4, 0, 1, rnd.getrandbits(64), body[1] * 256)
        if kind == MANIPULATE and len(body) >= 4:
            # What makes it run is another test.
            api = rnd.choice((0x3130, 0x3132, 0x3137, 0x3146, 0x3156))
            body = struct.pack("<I", api) + body[4:]
        sent.append(c.send(kind, body))
        if n % 100 == 99:
            for number in sent:
                c.wait_reply(number, 30)
            sent = []
    equal(c.read(c.base, 2), b"MZ", "memory after that")


@cases(["amd64", "x86"])
def break_behind_continue(lab, machine):
    """BREAK right behind a continue stops that run, in this order"""
    server, target = lab.server(), lab.target("--machine", machine)
    c = lab.closing(Client(server))
    c.attach(target)
    c.go()
    c.send(BREAK)
    c.wait_event(EV_STOPPED)
    pc, context = c.pc()
    changed = bytearray(context)
    size = 8 if machine == "amd64" else 4
    at = c.pc_offset()
    changed[at:at + size] = (pc + 1 & (1 << 8 * size) - 1).to_bytes(size, "little")
    c.manipulate(0x3133, b"", bytes(changed))
    c.seen = len(c.events)
    body = struct.pack("<IHHII", 0x313C, 0, 0, 0, 0) + struct.pack(
        "<IIQQQ" if size == 8 else "<IIIII", 0x10002, 0, 0x400, 1, 0).ljust(40, b"\0")
    first, number = c.frame(MANIPULATE, body)
    second, broken = c.frame(BREAK)
    c.s.sendall(first + second)
    equal((c.wait_reply(number).err, c.wait_reply(broken).err), (OK, OK), "replies")
    c.wait_event(EV_RUNNING)
    c.wait_event(EV_STOPPED)
    c.version()


@test
def events(lab):
    """prompt and ANSWER, a request for a file, RESYNC, SET_FLAGS, module loads"""
    server, target = lab.server(), lab.target("--print-every", "50")
    c = lab.closing(Client(server))
    c.attach(target)
    c.command("prompt")
    c.go()
    body = c.wait_event(EV_PROMPT)
    longest, = struct.unpack_from("<I", body)
    check(0 < longest <= 1024 and body[4:], "the prompt: %r" % body)
    equal(c.call(ANSWER, b"yes").err, OK, "ANSWER")
    equal(c.call(ANSWER, b"again").err, STATE, "a second ANSWER")
    c.wait_event(EV_PRINT, match=lambda b: b.startswith(b"yes"))
    for name in "file", "module":
        c.send(BREAK)
        c.wait_event(EV_STOPPED)
        c.command(name)
        c.go()
        if name == "module":
            equal(struct.unpack_from("<I", c.wait_event(EV_MODULE))[0] & 0xFFFF, 0x3031, "kind")
        c.wait_event(EV_PRINT)
    # The same load is a stop once flag 4 is set.
    c.send(BREAK)
    c.wait_event(EV_STOPPED)
    c.command("module")
    c.ok(SET_FLAGS, struct.pack("<I", STOP_ON_LOAD))
    c.go()
    equal(struct.unpack_from("<I", c.wait_event(EV_STOPPED))[0] & 0xFFFF, 0x3031, "kind of stop")
    equal(c.read(c.base, 2), b"MZ", "memory in a load stop")
    for kind in RESYNC, BREAK:
        c.ok(kind)
        c.wait_event(EV_STOPPED)
        equal(c.read(c.base, 2), b"MZ", "memory after it")
    c.ok(CLOSE)


# ---- flow --------------------------------------------------------------------

@test
def pipelining(lab):
    """5000 requests at once, beyond those that may be in flight: all answered, in order"""
    server, target = lab.server(), lab.target()
    c = lab.closing(Client(server))
    c.attach(target)
    base = c.stats()["region"]
    data = region(0, 4096)
    raw, ids = b"", {}
    for n in range(5000):
        at = n * 7 % 4000
        frame, number = c.frame(READ, c.read_request((base + at, 16)))
        raw += frame
        ids[number] = at
    t = threading.Thread(target=c.s.sendall, args=(raw,), daemon=True)
    c.s.settimeout(60)
    t.start()
    order = []
    deadline = time.monotonic() + 40
    while len(c.replies) < len(ids):
        before = len(c.replies)
        c.receive(deadline)
        if len(c.replies) > before:
            order.append(next(reversed(c.replies)))
    t.join(5)
    equal(order, sorted(order), "the order of the replies")
    for number, at in ids.items():
        equal(c.replies[number].data, data[at:at + 16], "what was read at %x" % at)


@test
def read_after_write(lab):
    """a READ sent after a WRITE sees what was written; gaps and ranges in order"""
    server, target = lab.server(), lab.target()
    c = lab.closing(Client(server))
    c.attach(target)
    at = c.stats()["region"]
    for n in range(50):
        c.send(WRITE, struct.pack("<B7xQ", 0, at + 8) + struct.pack("<I", n))
        equal(c.ok(READ, c.read_request((at + 8, 4))).data, struct.pack("<I", n), "round %d" % n)
    reply = c.ok(READ, c.read_request((at + 16, 8), (0x10, 8), (at + 24, 0), (at + 32, 8)))
    equal([p[0] for p in reply.parts], [at + 16, 0x10, at + 32], "addresses")
    equal(reply.parts[0][1] + reply.parts[2][1],
          region(16, 8) + region(32, 8), "data")
    equal(reply.parts[1][1:], (8, 0xC0000001), "the gap")
    equal(reply.body, struct.pack("<Q", 16), "bytes read")
    reply = c.ok(WRITE, struct.pack("<B7xQ", 0, 0x10) + b"1234")
    equal(struct.unpack("<QI", reply.body), (0, 0xC0000001), "a WRITE to nowhere")


@cases(["amd64", "x86"])
def bulk(lab, machine):
    """16 MiB are what the target documents"""
    server, target = lab.server(), lab.target("--machine", machine, "--seed", "7")
    c = lab.closing(Client(server))
    c.attach(target)
    s = c.stats()
    data = c.read(s["region"], s["region_len"], timeout_s=40)
    equal(len(data), 16 * MIB, "length")
    check(data == region(0, 16 * MIB, 7), "the contents are wrong")


@test
def cancel(lab):
    """CANCEL ends a long read, and those behind it go on"""
    server, target = lab.server(), lab.target()
    c = lab.closing(Client(server))
    c.attach(target)
    at = c.stats()["region"]
    long_one = c.send(READ, c.read_request((at, 16 * MIB)))
    queued = c.send(READ, c.read_request((at, 16 * MIB)))
    after = c.send(READ, c.read_request((at, 8)))
    while not c.parts:
        c.receive(time.monotonic() + 5)
    equal(c.call(CANCEL, struct.pack("<I", long_one)).err, OK, "CANCEL")
    equal(c.call(CANCEL, struct.pack("<I", queued)).err, OK, "CANCEL of a queued one")
    reply = c.wait_reply(long_one)
    equal(reply.err, CANCELLED, "the long read")
    check(reply.data == region(0, len(reply.data) & ~7) + reply.data[len(reply.data) & ~7:],
          "what came before the end is good")
    check(len(reply.data) < 16 * MIB, "it was not cut short")
    equal(c.wait_reply(queued).err, CANCELLED, "the queued read")
    equal(c.wait_reply(after).data, region(0, 8), "the one behind them")
    equal(c.call(CANCEL, struct.pack("<I", long_one)).err, NOT_FOUND, "CANCEL again")


@test
def slow_reader(lab):
    """a client that does not read: paused, memory bounded, nobody else waits"""
    server, target, other = lab.server(), lab.target(), lab.target()
    c, d = lab.closing(Client(server)), lab.closing(Client(server))
    c.attach(target)
    d.attach(other)
    at = c.stats()["region"]
    before = server.resident_kib()
    repeated, held_up = c.stats()["repeated"], held_up_s(server, target)
    ids = [c.send(READ, c.read_request((at, 16 * MIB))) for _ in range(8)]
    for _ in range(200):
        equal(d.read(d.base, 2, timeout_s=5), b"MZ", "another client")
    used = server.resident_kib() - before
    check(used < 12 * 1024, "%d KiB for one slow reader" % used)
    # It was only paused: all comes when it reads.
    for number in ids[:2]:
        equal(len(c.wait_reply(number, 40).data), 16 * MIB, "bytes read")
    for number in ids[2:]:
        c.ok(CANCEL, struct.pack("<I", number))
    # Each is 250 ms without an acknowledgement: that the server paused is no cause for it.
    repeated, held_up = c.stats()["repeated"] - repeated, held_up_s(server, target) - held_up
    check(repeated <= held_up / 0.25, "%d retransmissions, held up for %g s" % (repeated, held_up))


@test
def floods_without_reading(lab):
    """a client that sends and never reads comes to a halt; memory stays bounded"""
    server, target = lab.server(), lab.target()
    c, d = lab.closing(Client(server)), lab.closing(Client(server))
    d.attach(target)
    before = server.resident_kib()
    raw = b"".join(c.frame(LIST)[0] for _ in range(20000))
    c.s.settimeout(1)
    sent = 0
    try:
        while sent < 200 * MIB:
            sent += c.s.send(raw)
    except (socket.timeout, ConnectionError):
        pass
    used = server.resident_kib() - before
    check(used < 40 * 1024, "%d KiB after %d bytes of requests" % (used, sent))
    check(sent < 100 * MIB, "%d bytes were taken" % sent)
    equal(d.read(d.base, 2), b"MZ", "another client")
    # It was only paused: all is answered when it reads.
    answered = 0
    while answered < sent // 12:
        c.receive(time.monotonic() + 10)
        answered += len(c.replies)
        c.replies.clear()


@test
def close_cancels(lab):
    """CLOSE ends what is under way, and OPEN is possible at once"""
    server, target = lab.server(), lab.target()
    c = lab.closing(Client(server))
    c.attach(target)
    at = c.stats()["region"]
    ids = [c.send(READ, c.read_request((at, 16 * MIB))) for _ in range(3)]
    closing = c.send(CLOSE)
    again = c.send(CLOSE)
    late = c.send(READ, c.read_request((at, 1)))
    for number in ids:
        equal(c.wait_reply(number).err, CANCELLED, "a read under way")
    equal(c.wait_reply(closing).err, OK, "CLOSE")
    check(c.wait_reply(again).err in (BUSY, STATE), "a second CLOSE")
    equal(c.wait_reply(late).err, STATE, "a read after CLOSE")
    c.attach(target)


@test
def listing(lab):
    """LIST: every field"""
    server, target = lab.server(), lab.target()
    c, d = lab.closing(Client(server, who="ann@lab")), lab.closing(Client(server))
    c.attach(target)
    before = c.stats()
    body = d.ok(LIST).body
    after = c.stats()
    software, at = take_text(body)
    pid, uptime, clients, count = struct.unpack_from("<IQIH", body, at)
    equal((software, pid, clients, count), (d.software, server.pid, 2, 1), "the server")
    check(uptime < 60000, "uptime %d" % uptime)
    trans, at = take_text(body, at + 18)
    holder, at = take_text(body, at)
    equal(trans, target.trans, "trans")
    matches(r"^ann@lab \(127\.0\.0\.1:\d+\)$", holder, "holder")
    link, stopped, rx, tx, rx_rep, tx_rep, bad, losses, ack_us = struct.unpack_from(
        "<BB7Q", body, at)
    equal((link, stopped, bad, losses), (UP, 1, 0, 0), "the target")
    # What the target repeated before anybody listened was not received.
    check(before["duplicate"] <= tx_rep <= after["duplicate"] and rx_rep <= after["repeated"],
          "%d sent and %d received twice; the target: %s, %s" % (tx_rep, rx_rep, before, after))
    check(rx > 0 and tx > 0 and ack_us < 1000000, "counters: %d %d %d" % (rx, tx, ack_us))
    equal(at + 58, len(body), "length of the reply")


if __name__ == "__main__":
    main()
