# A client of kdsrv, written from docs/client-protocol.md.
# SPDX-License-Identifier: MIT
import hashlib
import hmac
import os
import socket
import struct
import time

from kdlib import Failure, check, equal

AUTH_START, AUTH_PROOF = 0x01, 0x02
LIST, OPEN, CLOSE, MANIPULATE, READ, WRITE, BREAK, ANSWER = range(0x10, 0x18)
SET_FLAGS, END_SERVER, CANCEL, PING, RESYNC = range(0x18, 0x1D)
REPLY, DATA, GAP = 0x80, 0x81, 0x82
(EV_STOPPED, EV_PRINT, EV_PROMPT, EV_LINK, EV_MODULE, EV_REBOOT, EV_RUNNING, EV_ENDING,
 EV_NOTICE) = range(0x90, 0x99)

OK = 0
(AGAIN, BUSY, NOMEM, INVALID, TOO_BIG, TRUNCATED, MALFORMED, UNSUPPORTED, NOT_FOUND, DENIED,
 GONE, TIMEOUT, IO, STATE, PROTOCOL, CANCELLED) = range(-1, -17, -1)

BREAK_IN, LEAVE_STOPPED, STOP_ON_LOAD = 1, 2, 4
CONNECTING, UP, LOST, LINK_GONE, WAITING = range(5)

MAX_BODY = 66048


class Closed(Exception):
    """The server hung up."""


def text(s):
    raw = s.encode()
    return struct.pack("<H", len(raw)) + raw


def take_text(body, at=0):
    n, = struct.unpack_from("<H", body, at)
    return body[at + 2:at + 2 + n].decode(), at + 2 + n


def proof_of(password, client_nonce, server_nonce, salt, iterations):
    """Section 3: the proof, and the signature that the server must give."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)

    def mac(key, message):
        return hmac.new(key, message, "sha256").digest()
    client_key, server_key = mac(salted, b"Client Key"), mac(salted, b"Server Key")
    message = (b"kdsrv-auth-1" + client_nonce + server_nonce + salt +
               struct.pack("<I", iterations))
    signature = mac(hashlib.sha256(client_key).digest(), message)
    return bytes(a ^ b for a, b in zip(client_key, signature)), mac(server_key, message)


class Reply:
    def __init__(self, body):
        self.err, = struct.unpack_from("<i", body)
        self.text, at = take_text(body, 4)
        self.body = body[at:]
        self.parts = []  # of a READ: (address, bytes) or (address, length, status)

    def __repr__(self):
        return "reply %d %r" % (self.err, self.text)

    @property
    def data(self):
        return b"".join(p[1] for p in self.parts if len(p) == 2)


def dial(server):
    """server: a Server of kdlib, a port number, or the path of a socket."""
    if not isinstance(server, (int, str)):
        if server.port:
            server = server.port
        else:
            server = os.path.join(server.lab.dir, "kdsrv", server.pipes[0])
    if isinstance(server, int):
        s = socket.create_connection(("127.0.0.1", server), 10)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10)
    s.connect(server)
    return s


class Client:
    def __init__(self, server, password=None, greet=True, who="test"):
        self.s = server if isinstance(server, socket.socket) else dial(server)
        self.buf = b""
        self.next_id = 1
        self.replies, self.parts, self.events = {}, {}, []
        self.seen = 0  # events before this one were waited for already
        self.who = who
        self.machine = None
        self.break_expected = True
        if greet:
            self.greet(password)

    def close(self):
        self.s.close()

    # -- bytes and frames

    def _fill(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0:
            raise Failure("the server sent nothing in time")
        self.s.settimeout(left)
        try:
            piece = self.s.recv(262144)
        except socket.timeout:
            raise Failure("the server sent nothing in time") from None
        except ConnectionError as e:
            raise Closed(str(e)) from None
        if not piece:
            raise Closed("hung up")
        self.buf += piece

    def line(self, timeout_s=10):
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self.buf:
            self._fill(deadline)
        line, self.buf = self.buf.split(b"\n", 1)
        return line.decode("ascii")

    def greet(self, password=None):
        words = self.line().split(" ")
        equal(words[:2], ["KDSRV", "1"], "greeting")
        self.software, self.auth = words[2], words[3]
        self.s.sendall(b"KDCLIENT 1 e2e/1\n")
        if self.auth != "auth=none":
            equal(self.auth, "auth=scram-sha-256", "greeting")
            if password is not None:
                reply = self.login(password)
                equal(reply.err, OK, "log-in")

    def login(self, password, timeout_s=30):
        nonce = os.urandom(32)
        reply = self.call(AUTH_START, nonce)
        equal(reply.err, OK, "AUTH_START")
        server_nonce, salt, iterations = struct.unpack("<32s16sI", reply.body)
        check(4096 <= iterations <= 1000000, "iterations out of bounds")
        proof, signature = proof_of(password, nonce, server_nonce, salt, iterations)
        reply = self.call(AUTH_PROOF, proof, timeout_s=timeout_s)
        if not reply.err:
            equal(reply.body, signature, "the server's signature")
        return reply

    def frame(self, kind, body=b"", number=None):
        """The bytes of a request, and its id."""
        if number is None:
            number = self.next_id
            self.next_id += 1
        return struct.pack("<IHHI", len(body), kind, 0, number) + body, number

    def send(self, kind, body=b"", number=None):
        if kind in (BREAK, OPEN):
            self.break_expected = True
        raw, number = self.frame(kind, body, number)
        self.s.settimeout(30)
        try:
            self.s.sendall(raw)
        except ConnectionError as e:
            raise Closed(str(e)) from None
        return number

    def receive(self, deadline):
        """Takes one frame and puts it where it belongs."""
        while len(self.buf) < 12:
            self._fill(deadline)
        length, kind, _, number = struct.unpack_from("<IHHI", self.buf)
        check(length <= MAX_BODY, "a frame of %d bytes" % length)
        while len(self.buf) < 12 + length:
            self._fill(deadline)
        body, self.buf = self.buf[12:12 + length], self.buf[12 + length:]
        if kind == REPLY:
            check(number not in self.replies, "two replies with id %d" % number)
            reply = Reply(body)
            reply.parts = self.parts.pop(number, [])
            self.replies[number] = reply
        elif kind == DATA:
            self.parts.setdefault(number, []).append(
                (struct.unpack_from("<Q", body)[0], body[8:]))
        elif kind == GAP:
            self.parts.setdefault(number, []).append(struct.unpack_from("<QQI", body))
        else:
            equal(number, 0, "id of event %x" % kind)
            self.events.append((kind, body))
        return kind

    # -- requests

    def wait_reply(self, number, timeout_s=15):
        deadline = time.monotonic() + timeout_s
        while number not in self.replies:
            self.receive(deadline)
        return self.replies.pop(number)

    def call(self, kind, body=b"", timeout_s=15):
        return self.wait_reply(self.send(kind, body), timeout_s)

    def ok(self, kind, body=b"", timeout_s=15):
        reply = self.call(kind, body, timeout_s)
        equal(reply.err, OK, "request %x: %s" % (kind, reply.text))
        return reply

    def wait_event(self, kind, timeout_s=10, match=None, since=None):
        """The next event of this kind that has not been waited for."""
        deadline = time.monotonic() + timeout_s
        at = self.seen if since is None else since
        while True:
            while at < len(self.events):
                k, body = self.events[at]
                at += 1
                if k == EV_STOPPED and not self.break_expected and self._is_break(body):
                    self.go()
                    at = self.seen
                    continue
                if k == kind and (match is None or match(body)):
                    self.seen = at
                    return body
            try:
                self.receive(deadline)
            except Failure:
                raise Failure("no event %x in %g s; had %s" %
                              (kind, timeout_s, self.event_names())) from None

    @staticmethod
    def _is_break(body):
        """A stop by break-in. A slow target is sent more than one byte for it,
        and may stop once more for each: a client goes on from such stops."""
        state, pc = struct.unpack_from("<I20xQ", body)
        return state & 0xFFFF == 0x3030 and pc & 0xFFFF == 0x1200

    def event_names(self):
        return ["%x" % k for k, _ in self.events]

    def wait_link(self, state, timeout_s=10):
        body = self.wait_event(EV_LINK, timeout_s, lambda b: b[0] == state)
        return take_text(body, 1)[0]

    def wait_closed(self, timeout_s=10):
        """Reads on until the server hangs up."""
        deadline = time.monotonic() + timeout_s
        try:
            while True:
                self.receive(deadline)
        except Closed:
            return

    # -- targets

    def open(self, target, flags=BREAK_IN, timeout_s=15):
        trans = target if isinstance(target, str) else target.trans
        return self.call(OPEN, struct.pack("<I", flags) + text(trans) + text(self.who), timeout_s)

    def attach(self, target, flags=BREAK_IN, timeout_s=15):
        """Opens the target and waits until it is stopped."""
        reply = self.open(target, flags, timeout_s)
        equal(reply.err, OK, "OPEN: %s" % reply.text)
        if flags & BREAK_IN:
            self.wait_event(EV_STOPPED, timeout_s)
            self.version()
        return self

    def manipulate(self, api, union=b"", data=b"", timeout_s=15):
        message = struct.pack("<IHHII", api, 0, 0, 0x103, 0) + union.ljust(40, b"\0") + data
        reply = self.ok(MANIPULATE, message, timeout_s)
        if reply.body:
            equal(struct.unpack_from("<I", reply.body)[0], api, "API of a reply")
        return reply.body

    def version(self):
        body = self.manipulate(0x3146)
        self.machine, = struct.unpack_from("<H", body, 0x18)
        self.base, = struct.unpack_from("<Q", body, 0x20)
        return body

    def read_request(self, *ranges, space=0):
        return struct.pack("<BBH", space, 0, len(ranges)) + b"".join(
            struct.pack("<QQ", *r) for r in ranges)

    def read(self, address, length, space=0, timeout_s=30):
        reply = self.ok(READ, self.read_request((address, length), space=space), timeout_s)
        check(all(len(p) == 2 for p in reply.parts), "gaps in %x" % address)
        equal(struct.unpack("<Q", reply.body)[0], length, "bytes read at %x" % address)
        return reply.data

    def write(self, address, data, space=0):
        reply = self.ok(WRITE, struct.pack("<B7xQ", space, address) + data)
        equal(struct.unpack("<QI", reply.body), (len(data), 0), "WRITE at %x" % address)

    def set_breakpoint(self, address):
        body = self.manipulate(0x3134, struct.pack("<Q", address))
        equal(struct.unpack_from("<I", body, 8)[0], 0, "status of WriteBreakPoint")
        return struct.unpack_from("<I", body, 0x18)[0]

    def pc_offset(self):
        return 0xF8 if self.machine == 0x8664 else 0xB8

    def pc(self):
        context = self.manipulate(0x3132)[56:]
        if self.machine == 0x8664:
            return struct.unpack_from("<Q", context, 0xF8)[0], context
        pc, = struct.unpack_from("<i", context, 0xB8)
        return pc & (1 << 64) - 1, context

    def go(self, expect_break=False):
        """Continues, over a hard-coded breakpoint, and waits until it runs."""
        pc, context = self.pc()
        if self.read(pc, 1) == b"\xcc":
            size = "<Q" if self.machine == 0x8664 else "<I"
            mask = (1 << 8 * struct.calcsize(size)) - 1
            at = self.pc_offset()
            changed = bytearray(context)
            struct.pack_into(size, changed, at, pc + 1 & mask)
            self.manipulate(0x3133, b"", bytes(changed))
        self.seen = len(self.events)
        dr7 = struct.pack("<IIQQQ" if self.machine == 0x8664 else "<IIIII",
                          0x10002, 0, 0x400, 1, 0)
        self.manipulate(0x313C, dr7)
        self.break_expected = True  # nothing is a leftover before it runs
        self.wait_event(EV_RUNNING)
        self.break_expected = expect_break

    # -- kdtarget

    COMMANDS = {"crash": 1, "prompt": 2, "int3": 3, "file": 4, "module": 5}

    def stats(self):
        """The counters in its memory (hw-fixtures/target/README.md)."""
        raw = self.read(self.base + 0x800, 0x60)
        equal(raw[:4], b"KDTS", "magic of the counters")
        names = ("repeated", "received", "sent", "bad", "duplicate", "stops", "ticks", "region",
                 "region_len")
        return dict(zip(names, struct.unpack_from("<9Q", raw, 8)))

    def command(self, name):
        """Takes effect when it runs again."""
        self.write(self.base + 0x850, struct.pack("<I", self.COMMANDS[name]))

    def work(self):
        """Where its idle loop comes by all the time."""
        return self.base + 0x1100


def region(offset, length, seed=0):
    """What kdtarget's big region holds; offset and length in units of 8."""
    mask = (1 << 64) - 1
    k = 0x9E3779B97F4A7C15
    words = []
    word = (offset // 8 + 1 + seed) * k & mask
    for _ in range(length // 8):
        words.append(word ^ word >> 29)
        word = word + k & mask
    return struct.pack("<%dQ" % len(words), *words)
