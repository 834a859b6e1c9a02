#!/usr/bin/env python3
# The program kdcap: capture files good and bad, keys, filters, output, live
# capture, replay. The datagrams are the vectors that openssl made.
# SPDX-License-Identifier: MIT
import json
import os
import re
import resource
import socket
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import kdpcap
from kdlib import *

PROGRAMS["kdcap"] = os.path.join(TOP_BUILD, "kdcap/kdcap")
KEY = "1.2.3.4"
RECORDED = os.path.join(TOP_SRC, "../shared/captures/kdnet-win81-key-1.1.1.1.pcapng")
TARGET, HOST = b"\x0a\x09\x00\x02", b"\x0a\x09\x00\x01"


# ---- capture files made here ------------------------------------------------------

def vectors(session="short"):
    """(name, from_host, datagram) of one session of the vectors."""
    out, wanted = [], False
    with open(os.path.join(TOP_SRC, "tests/vectors/kdnet/vectors.txt")) as f:
        for line in f:
            words = line.split()
            if words[0] == "session":
                wanted = words[1] == session
            elif wanted and words[0] != "#" and not words[0].startswith("lie-"):
                out.append((words[0], words[4] == "80", bytes.fromhex(words[6])))
    check(len(out) > 20, "the vectors are there")
    return out


def ip_packet(from_host, payload):
    src, dst = (HOST, TARGET) if from_host else (TARGET, HOST)
    udp = struct.pack(">HHHH", 50000, 50000, 8 + len(payload), 0) + payload
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0x4000, 16, 17, 0) + src + dst + udp


def pcap(packets, linktype=101, snaplen=262144):
    out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, snaplen, linktype)
    for n, p in enumerate(packets):
        out += struct.pack("<IIII", 1700000000, 1000 * n, min(len(p), snaplen), len(p)) + p[:snaplen]
    return out


def session_packets(session="short"):
    return [ip_packet(h, d) for _, h, d in vectors(session)]


def save(lab, name, data):
    path = lab.path(name)
    with open(path, "wb") as f:
        f.write(data)
    return path


def session_file(lab, session="short"):
    return save(lab, session + ".pcap", pcap(session_packets(session)))


def objects(text):
    return [json.loads(line) for line in text.splitlines()]


def decode(lab, path, *options, status=0):
    p = lab.run("kdcap", "-r", path, "--json", *options)
    equal(p.status, status, "exit status (%s)" % p.err)
    return objects(p.out)


# ---- decoding ------------------------------------------------------------------------

@test
def json_lines(lab):
    """one JSON object a datagram, with all that is promised"""
    got = decode(lab, session_file(lab), "--key", KEY)
    equal(len(got), len(vectors()), "objects")
    for n, (o, (name, from_host, _)) in enumerate(zip(got, vectors()), 1):
        for field in ("frame", "time", "dir", "channel", "seq", "type", "id", "len"):
            check(field in o, "%s: no %s" % (name, field))
        equal(o["frame"], n, "frame")
        equal(o["dir"], "host" if from_host else "target", name)
        check(o["type"] not in ("sealed", "malformed"), "%s: %s" % (name, o))
    equal([o["type"] for o in got[:6]],
          ["poke", "response", "host-poke", "ping", "break-in", "RESEND"], "types")
    equal([o["channel"] for o in got[:4]], ["control"] * 3 + ["data"], "channels")
    equal(got[0]["fields"]["target"], "10.9.0.2:1", "an address in the poke")
    equal(got[1]["answers"], 1, "what the response answers")


@test
def lines_for_people(lab):
    """a line a packet, all fields with -v, no colour into a pipe"""
    path = session_file(lab)
    p = lab.run("kdcap", "-r", path, "--key", KEY)
    equal(len(p.out.splitlines()), len(vectors()), "lines")
    check("\033" not in p.out, "colour in a pipe")
    matches(r"poke +- +10\.9\.0\.2:1 for 10\.9\.0\.1:50000, no session", p.out, "the poke")
    long = lab.run("kdcap", "-r", path, "--key", KEY, "-v").out
    check(len(long.splitlines()) > 2 * len(vectors()), "-v says no more")
    matches(r"host_nonce +[0-9a-f]{64}", long, "-v")
    check("\033[" in lab.run("kdcap", "-r", path, "--key", KEY, "--colour", "always").out, "colour")


@test
def other_link_types(lab):
    """Ethernet with VLAN, Linux cooked, loopback: the same packets"""
    want = [o["type"] for o in decode(lab, session_file(lab), "--key", KEY)]
    for name, linktype, head in (("ethernet", 1, bytes(12) + b"\x81\0\0\5\x08\0"),
                                 ("cooked", 113, bytes(14) + b"\x08\0"),
                                 ("cooked2", 276, b"\x08\0" + bytes(18)),
                                 ("null", 0, b"\2\0\0\0"), ("loop", 108, b"\0\0\0\2")):
        path = save(lab, name, pcap([head + p for p in session_packets()], linktype))
        equal([o["type"] for o in decode(lab, path, "--key", KEY)], want, name)


def usb_step(event, endpoint, data=b"", status=0, length=None, old=False, device=7):
    """A bulk transfer's step as usbmon records it."""
    has_data = data and (event == "S") == (endpoint < 0x80)
    head = struct.pack("<QcBBBHBBqiiII8x", 64, event.encode(), 3, endpoint, device, 2, 45,
                       0 if has_data else 60, 0, 0, status, length or len(data),
                       len(data) if has_data else 0)
    return head + bytes(0 if old else 16) + (data if has_data else b"")


def kd_packet(kind, number, payload=b""):
    return struct.pack("<IHHII", 0x30303030 if payload else 0x69696969, kind, len(payload), number,
                       sum(payload)) + payload


@test
def usb_debug_cables(lab):
    """usbmon captures, old and new: KDUSB among other devices, a stall"""
    printed = struct.pack("<IHHII", 0x3230, 6, 0, 3, 0) + b"abc"
    version = struct.pack("<IHHII", 0x3146, 0, 0, 0x103, 0) + bytes(40)
    steps = [("S", 1, b"NAME?"), ("C", 1, b"NAME?"), ("S", 0x81, b"", -115, 4096),
             ("C", 0x81, b"NAME=rack3\0\0"), ("S", 1, b"b"),
             ("C", 0x81, kd_packet(3, 0x80800800, printed)), ("S", 1, kd_packet(4, 0x80800000)),
             ("S", 1, kd_packet(2, 0x80800000, version)), ("C", 0x81, b"", -32)]
    for old in (False, True):
        frames = [usb_step(*s, old=old) for s in steps]
        frames.insert(0, usb_step("S", 2, b"USBC" + bytes(27), old=old, device=3))
        got = decode(lab, save(lab, "usb", pcap(frames, 189 if old else 220)))
        equal([(o["frame"], o["dir"], o["type"], o.get("api")) for o in got],
              [(2, "host", "name-question", None), (5, "target", "name", None),
               (6, "host", "break-in", None), (7, "target", "DEBUG_IO", "PrintString"),
               (8, "host", "ACKNOWLEDGE", None), (9, "host", "STATE_MANIPULATE", "GetVersion"),
               (10, "target", "failed-transfer", None)], "what is on the cable")
        equal({(o["channel"], o["link"]) for o in got}, {("usb", 1)}, "channel and link")
        equal((got[1]["fields"]["name"], got[1]["src"], got[1]["dst"]), ("rack3", "usb:2.7.1", "host"),
              "the name")
        matches("stall", got[-1]["why"], "why it failed")


@test
def kdnet_over_usb(lab):
    """KDNET in EEM framing, several datagrams a transfer, in a usbmon capture"""
    want = [o["type"] for o in decode(lab, session_file(lab), "--key", KEY)]

    def eem(packet):
        frame = bytes(12) + b"\x08\0" + packet + b"\xde\xad\xbe\xef"
        return struct.pack("<H", len(frame)) + frame
    packets = [(h, eem(p)) for (_, h, _), p in zip(vectors(), session_packets())]
    frames = [usb_step("S" if h else "C", 1 if h else 0x81, b"\0\0" + p) for h, p in packets]
    path = save(lab, "eem", pcap(frames, 220))
    equal([o["type"] for o in decode(lab, path, "--key", KEY)], want, "one a transfer")
    # Neighbours of one sender in one transfer.
    joined = []
    for h, p in packets:
        if joined and joined[-1][0] == h:
            joined[-1][1] += p
        else:
            joined.append([h, p])
    check(len(joined) < len(packets), "none are joined")
    frames = [usb_step("S" if h else "C", 1 if h else 0x81, p) for h, p in joined]
    got = decode(lab, save(lab, "joined", pcap(frames, 220)), "--key", KEY)
    equal([o["type"] for o in got], want, "joined")
    equal({o["type"] for o in decode(lab, path)}, {"sealed"}, "without the key")


@test
def strangers(lab):
    """other traffic brings no lines, and is counted"""
    dns = ip_packet(False, b"\x12\x34" + bytes(30))
    path = save(lab, "mixed", pcap([dns] + session_packets() + [dns, b"\x45"]))
    equal(len(decode(lab, path, "--key", KEY)), len(vectors()), "objects")
    stats = decode(lab, path, "--key", KEY, "--stats")[0]
    equal((stats["foreign"], stats["opened"]), (3, len(vectors())), "counts")


@test
def statistics(lab):
    """--stats, for people and as JSON"""
    path = session_file(lab)
    stats = decode(lab, path, "--key", KEY, "--stats")[0]
    link = stats["links"][0]
    equal((link["pokes"], link["responses"], link["host_pokes"], link["pings"]), (1, 1, 1, 1),
          "counts")
    equal(link["latency_ms"]["poke_response"]["median"], 1.0, "poke to response")
    p = lab.run("kdcap", "-r", path, "--key", KEY, "--stats")
    matches(r"Link 1: target 10\.9\.0\.2:50000, host 10\.9\.0\.1:50000, KDNET version 2", p.out,
            "--stats")


@test
def filters(lab):
    """--only takes kinds and names, and says which there are"""
    path = session_file(lab)
    equal([o["type"] for o in decode(lab, path, "--key", KEY, "--only", "poke,break-in")],
          ["poke", "break-in"], "--only poke,break-in")
    got = decode(lab, path, "--key", KEY, "--only", "resend", "--only", "PING")
    equal([o["type"] for o in got], ["ping", "RESEND"], "--only twice")
    equal(lab.run("kdcap", "-r", path, "--only", "").status, 2, "no kind at all")
    p = lab.run("kdcap", "-r", path, "--only", "pokes")
    equal(p.status, 2, "a bad word")
    matches("no such kind.*exception.*api=NAME", p.err, "its error")


# ---- keys ----------------------------------------------------------------------------

@test
def where_keys_come_from(lab):
    """option, file, environment, several: the one that authenticates is used"""
    long = session_file(lab, "long")
    want = decode(lab, long, "--key", "3w5e11264sgsf.0.z.10")
    check(all(o["type"] != "sealed" for o in want), "the key opens all")
    equal(decode(lab, long, "--key", "3W5E11264SGSF.0.Z.10"), want, "capitals")
    path = save(lab, "keys", b"# two targets\n%s  # lab\n3w5e11264sgsf.0.z.10\n" % KEY.encode())
    got = decode(lab, long, "--key", "@" + path)
    equal([o["key"] for o in got], [2] * len(want), "which key of the file")
    p = lab.run("kdcap", "-r", long, "--json", env=dict(lab.env, KDCAP_KEY="3w5e11264sgsf.0.z.10"))
    equal(objects(p.out), want, "KDCAP_KEY")
    p = lab.run("kdcap", "-r", long, "--json", "-q", env=dict(lab.env, KDCAP_KEY="@" + path))
    equal((p.status, p.out), (0, ""), "KDCAP_KEY=@FILE, and -q")


@test
def two_targets(lab):
    """two targets with two keys in one capture"""
    second = [p.replace(TARGET, b"\x0a\x09\x00\x07") for p in session_packets("random")]
    path = save(lab, "two", pcap([p for pair in zip(session_packets(), second) for p in pair]))
    got = decode(lab, path, "--key", KEY, "--key", "1q2w3e4r5t6y7.9o8i7u6y5t4r.0zz.2steg4fzbj2sz")
    equal({(o["link"], o["key"]) for o in got}, {(1, 1), (2, 2)}, "links and keys")
    check(all(o["type"] not in ("sealed", "malformed") for o in got), "all opens")


@test
def wrong_key(lab):
    """exit 4 when no key opens anything; without a key the sealed ones are listed"""
    path = session_file(lab)
    got = decode(lab, path, "--key", "4.3.2.1", status=4)
    check(all(o["type"] == "sealed" and o["why"] for o in got), "all sealed, each with a reason")
    got = decode(lab, path)
    equal(({o["type"] for o in got}, {o["why"] for o in got}), ({"sealed"}, {"no key was given"}),
          "no key")


@cases([("1.2.3.4.5", "more than four"), ("1..3.4", "word 2 is empty"), ("", "nothing"),
        ("zzzzzzzzzzzzz.1.1.1", "too large"), ("1.2.secret!.4", "word 3"), ("0.0.0.0", "all zero"),
        ("@/nonexistent", "No such file"), (" ", "no key in it")], lambda c: c[0] or "(empty)")
def bad_keys(lab, case):
    """exit 2, what is wrong is said, the key is not"""
    if not case[0]:
        path = save(lab, "empty", b"# none\n")
        p = lab.run("kdcap", "-r", "-", "--key", "@" + path)
        matches("no key in it", p.err, "stderr")
    else:
        p = lab.run("kdcap", "-r", "-", "--key", case[0])
        matches(case[1], p.err, "stderr")
    equal(p.status, 2, "exit status")
    check("secret" not in p.err, "the key is told")


@test
def the_key_leaves_argv(lab):
    """the key is gone from /proc/PID/cmdline and environ"""
    read, write = os.pipe()
    p = Proc(lab, "kdcap", [PROGRAMS["kdcap"], "-r", "-", "--json", "--key",
                            "1z.2y.3x.4w,9a.8b.7c.6d"],
             stdin=read, env=dict(lab.env, KDCAP_KEY="5e.4f.3g.2h"), expect=None)
    os.close(read)

    def contents(name):
        with open("/proc/%d/%s" % (p.pid, name), "rb") as f:
            return f.read()
    eventually(lambda: b"kdcap" in contents("cmdline") and b"1z.2y" not in contents("cmdline") and
               b"9a.8b" not in contents("cmdline"), "both keys are gone from argv")
    eventually(lambda: b"5e.4f" not in contents("environ"), "the key is gone from the environment")
    os.write(write, pcap(session_packets()))
    os.close(write)
    equal(p.wait(), 4, "exit status")


# ---- bad files -------------------------------------------------------------------------

@test
def cut_short(lab):
    """a file cut inside a packet: what came before is shown, and exit 3"""
    whole = pcap(session_packets())
    for cut in (1, 200):
        path = save(lab, "cut.pcap", whole[:-cut])
        p = lab.run("kdcap", "-r", path, "--json", "--key", KEY)
        equal(p.status, 3, "exit status")
        equal(len(objects(p.out)), len(vectors()) - 1, "objects")
        matches("cut short in packet %d; the %d before" % (len(vectors()), len(vectors()) - 1),
                p.err, "stderr")
    ng = lab.path("whole.pcapng")
    lab.run("kdcap", "-r", session_file(lab), "-q", "-w", ng)
    with open(ng, "rb") as f:
        path = save(lab, "cut.pcapng", f.read()[:-9])
    p = lab.run("kdcap", "-r", path, "--json", "--key", KEY)
    equal((p.status, len(objects(p.out))), (3, len(vectors()) - 1), "pcapng")


@test
def no_packets(lab):
    """a recording without a packet: where those of USB cables are is told"""
    path = save(lab, "none", pcap([]))
    p = lab.run("kdcap", "-r", path)
    equal((p.status, p.out), (0, ""), "exit status and output")
    matches("none: no packets in it.*USB.*a file with .usb in its name", p.err, "stderr")


@cases([("empty", b"", "empty"), ("text", b"not a capture, just text\n" * 9, "not a capture file"),
        ("link", None, "link type 105"), ("missing", None, "No such file"),
        ("directory", None, "a directory"), ("unreadable", None, "Permission denied")],
       lambda c: c[0])
def bad_files(lab, case):
    """exit 1, and what is wrong with which file"""
    name, data, text = case
    path = lab.path(name)
    options = {}
    if name == "directory":
        os.mkdir(path)
    elif name == "link":
        path = save(lab, name, pcap(session_packets(), 105))
    elif data is not None:
        path = save(lab, name, data)
    elif name == "unreadable":
        if os.geteuid() == 0:
            raise Skip("root may read everything")
        path = save(lab, name, b"x")
        os.chmod(path, 0)
    p = lab.run("kdcap", "-r", path, "--key", KEY, **options)
    equal((p.status, p.out), (1, ""), "exit status, stdout")
    matches(text, p.err, "stderr")
    matches(path, p.err, "stderr")


@test
def snapped(lab):
    """packets cut by the snapshot length are named, and no error"""
    path = save(lab, "snapped", pcap(session_packets(), snaplen=80))
    got = decode(lab, path, "--key", KEY)
    cut = [o for o in got if o["type"] == "cut-off"]
    check(0 < len(cut) < len(got), "some are cut, some whole")


def segment(seq, payload=b"", snap=None, flags=0x18):
    """A TCP segment of a target that serves port 4444, and its length on the wire."""
    tcp = struct.pack(">HHIIBBHHH", 4444, 50000, seq, 0, 0x50, flags, 1000, 0, 0) + payload
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0) + TARGET + HOST + tcp
    return ip[:snap], len(ip)


@test
def snapped_streams(lab):
    """TCP: what is cut is named, what is whole is read, strangers are none of it"""
    def line(text):
        return kd_packet(3, 0x80800000, struct.pack("<IHHIQ", 0x3230, 0, 0, len(text), 0)[:16] +
                         text.encode()) + b"\xaa"
    long, short = line("x" * 200), line("short")
    pieces = [("cut", segment(1000, long, snap=100))]
    at = 1000 + len(long)
    for n in range(3):
        pieces += [("short", segment(at, short)), ("cut", segment(at + len(short), long, snap=100)),
                   ("cut", segment(at + len(short) + len(long), b"y" * 50, snap=60))]
        at += len(short) + len(long) + 50
    pieces += [("short", segment(at, short))]
    packets = [p for _, p in pieces]
    packets += [(p[:20] + struct.pack(">H", 80) + p[22:], n) for p, n in
                (segment(5, b"GET / HTTP/1.0", snap=50), segment(19, b"Host: none"))]
    data = pcap([])
    for n, (p, wire) in enumerate(packets):
        data += struct.pack("<IIII", 1700000000, n, len(p), wire) + p
    got = decode(lab, save(lab, "snapped", data))
    equal([(o["frame"], "cut" if o["type"] == "cut-off" else o["fields"]["text"]) for o in got],
          [(n, what) for n, (what, _) in enumerate(pieces, 1)], "what is shown")
    equal({(o["dir"], o["channel"], o["link"]) for o in got[1:]}, {("target", "stream", 1)}, "who")


def has_sanitizer():
    """Which keeps much memory of its own."""
    ldd = subprocess.run(["ldd", PROGRAMS["kdcap"]], stdout=subprocess.PIPE, text=True)
    return os.environ.get("ASAN_OPTIONS") or "asan" in ldd.stdout


@test
def memory_stays_small(lab):
    """64 MiB through standard input in little memory"""
    head, packets = pcap([]), pcap(session_packets())[24:]
    read, write = os.pipe()
    p = Proc(lab, "kdcap", [PROGRAMS["kdcap"], "-r", "-", "--key", KEY, "--stats"], stdin=read,
             expect=None)
    os.close(read)
    os.write(write, head)
    sent = 0
    while sent < 64 << 20:
        sent += os.write(write, packets)  # shorter than a pipe's buffer
    half = p.resident_kib()
    if not has_sanitizer():
        check(half < 32 << 10, "%d KiB resident" % half)
    os.close(write)
    status = p.wait(60)
    check(status in (0, 3), "exit status %d" % status)


def on_terminal(lab, args, **kw):
    """(exit status, what kdcap put out, what it said on a terminal)."""
    master, slave = os.openpty()
    p = subprocess.run([PROGRAMS["kdcap"]] + args, stdout=subprocess.PIPE, stderr=slave,
                       env=lab.env, **kw)
    os.close(slave)
    shown = b""
    try:
        while True:
            shown += os.read(master, 4096)
    except OSError:  # that is how it ends
        os.close(master)
    return p.returncode, p.stdout.decode(), shown.decode()


@test
def progress(lab):
    """a large file's progress is shown on a terminal, wiped at the end, and not shown elsewhere"""
    one = pcap([bytes(20)])
    path = save(lab, "large", one[:24] + one[24:] * 200000)
    status, _, shown = on_terminal(lab, ["-r", path, "--stats"])
    equal(status, 0, "exit status")
    steps = ["%3d %%, %d packets" % step for step in ((32, 65536), (65, 131072), (98, 196608))]
    equal(shown.split("\r"), ["", *steps, "\x1b[K"], "on a terminal")
    equal(lab.run("kdcap", "-r", path, "--stats").err, "", "into a pipe")


GIB = 1 << 30


def has_holes(directory):
    """Whether files there need not have all their bytes on the disk."""
    with tempfile.TemporaryFile(dir=directory) as f:
        f.truncate(16 << 20)
        os.pwrite(f.fileno(), b"x", 8 << 20)
        return os.fstat(f.fileno()).st_blocks * 512 < 1 << 20


@cases([(kdpcap.SparsePcap, (GIB, 2 * GIB, 4 * GIB)), (kdpcap.SparsePcapng, (2 * GIB,))],
       lambda case: "%s, %d GiB" % (case[0].__name__[6:].lower(), case[1][-1] // GIB))
def huge(lab, case):
    """datagrams behind 2 GiB of others, in little memory, and progress is shown"""
    make, marks = case
    if not has_holes(lab.dir):
        raise Skip("the file system of %s has no sparse files" % lab.dir)
    path, frames, wanted = lab.path("huge"), 0, []
    packets = [bytes(12) + b"\x08\0" + p for p in session_packets()]
    share = -(-len(packets) // (len(marks) + 1))
    out = make(path)
    for i, mark in enumerate((0, *marks)):
        frames += out.fill(mark)
        for p in packets[i * share:(i + 1) * share]:
            frames += 1
            wanted.append(frames)
            out.packet(p)
    out.close()
    check(os.stat(path).st_size > marks[-1] and os.stat(path).st_blocks * 512 < 256 << 20,
          "the file is large, and its holes are holes")
    check(wanted[-1] > marks[-1] // kdpcap.MAX_RECORD, "large packets")
    want = [o["type"] for o in decode(lab, session_file(lab), "--key", KEY)]

    def little_memory():
        if not has_sanitizer():
            resource.setrlimit(resource.RLIMIT_AS, (128 << 20, 128 << 20))
    status, said, shown = on_terminal(lab, ["-r", path, "--json", "--key", KEY],
                                      preexec_fn=little_memory)
    got = objects(said)
    equal(status, 0, "exit status (%r)" % shown)
    equal([o["type"] for o in got], want, "types")
    equal([o["frame"] for o in got], wanted, "frames")
    percents = [int(n) for n in re.findall(r"\r *(\d+) %, \d+ packets", shown)]
    check(len(percents) > 20 and percents == sorted(percents) and percents[-1] > 90 and
          shown.endswith("\r\x1b[K"), "on a terminal: %r" % shown)


for one in [t for t in sys.modules["kdlib"]._tests if t.__name__ == "huge"]:
    one.slow_s = 300


@cases([["--nope"], [], ["-r", "a", "-i", "lo"], ["-r", "a", "-f", "udp"], ["-r", "a", "--decrypted"],
        ["-r", "a", "b"], ["--replay", "a"], ["--replay", "a", "--as", "host"], ["-r", "a", "-c", "0"],
        ["-r", "a", "--colour", "red"], ["--replay", "a", "--port", "65536"],
        ["-r", "a", "--port", "5"], ["-r", "a", "--host", "b:5"]] +
       [["--replay", "a", "--key", KEY] + more for more in
        [["-w", "b"], ["--json"], ["--stats"], ["--only", "print"], ["-c", "1"]]] +
       [["--replay", "a", "--key", KEY, "--host", host] for host in
        ["", ":5", "b:", "b:0", "b:65536", "b:4294967297", "b:5x", "b:-5", "[::1", "[::1]5",
         "[::1]:5x", "[]:5", "b" * 300]], lambda args: " ".join(args)[:60])
def bad_usage(lab, args):
    """exit 2, and a text"""
    p = lab.run("kdcap", *args)
    equal((p.status, p.out), (2, ""), "exit status, stdout")
    check(p.err, "nothing on stderr")


# ---- writing ---------------------------------------------------------------------------

@test
def written_files_read_back(lab):
    """-w copies packets; --decrypted writes records that need no key"""
    path, copy, clear = session_file(lab), lab.path("copy"), lab.path("clear")
    want = decode(lab, path, "--key", KEY, "-w", copy)
    equal(decode(lab, copy, "--key", KEY), want, "the copy")
    equal(decode(lab, path, "--key", KEY, "-w", clear, "--decrypted"), want, "while writing")
    got = decode(lab, clear)
    for a, b in zip(got, want):
        for field in ("frame", "time", "dir", "channel", "seq", "type", "id", "len", "src", "fields"):
            equal(a[field], b[field], "%s of packet %d" % (field, b["frame"]))
    equal(len(got), len(want), "records")
    few = lab.path("few")
    lab.run("kdcap", "-r", path, "--key", KEY, "-q", "-w", few, "--only", "poke,response")
    equal([o["type"] for o in decode(lab, few, "--key", KEY)], ["poke", "response"], "filtered")
    p = lab.run("kdcap", "-r", path, "-q", "-w", "/nonexistent/x")
    equal(p.status, 1, "exit status")
    matches("/nonexistent/x: cannot write", p.err, "stderr")


@test
def a_full_disk_is_told(lab):
    """writing to a full disk: exit 1"""
    p = lab.run("kdcap", "-r", session_file(lab), "-q", "-w", "/dev/full")
    equal(p.status, 1, "exit status")
    matches("No space left", p.err, "stderr")


@test
def the_capture_is_not_overwritten(lab):
    """-w with the file that -r reads, under whatever name: exit 2, and it is unharmed"""
    path, other = session_file(lab), lab.path("other")
    os.link(path, other)
    with open(path, "rb") as f:
        before = f.read()
    for read, write in (path, path), (path, other), ("-", path):
        with open(path, "rb") as f:
            p = lab.run("kdcap", "-r", read, "-q", "-w", write, stdin=f)
        equal((p.status, p.err), (2, "kdcap: %s: that is the file that is read; give -w another "
                                  "name\n" % write), "%s to %s" % (read, write))
        with open(path, "rb") as f:
            check(f.read() == before, "it was changed")


# ---- live ------------------------------------------------------------------------------

@test
def live_capture(lab):
    """-i lo sees the datagrams of a session, and -w keeps them"""
    if os.geteuid() != 0:
        raise Skip("only root may capture")
    kept = lab.path("live.pcapng")
    a, b = (lab.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in "ab")
    a.bind(("127.0.0.1", 0))
    b.bind(("127.0.0.2", 0))
    p = Proc(lab, "kdcap", [PROGRAMS["kdcap"], "-i", "lo", "-f", "udp port %d" % a.getsockname()[1],
                            "--json", "--key", KEY, "-w", kept], expect=0)
    p.wait_text("capturing on lo", stream="err")
    for _, from_host, datagram in vectors():
        src, dst = (a, b) if from_host else (b, a)
        src.sendto(datagram, dst.getsockname())
    p.wait_text('"frame":%d,' % len(vectors()))
    p.signal(signal.SIGINT)
    equal(p.wait(), 0, "exit status")
    equal([o["type"] for o in objects(p.out)[:3]], ["poke", "response", "host-poke"], "types")
    equal(len(decode(lab, kept, "--key", KEY)), len(vectors()), "packets kept")


@test
def any_interface(lab):
    """-i any, whose packets have another link type and no VLAN tags"""
    if os.geteuid() != 0:
        raise Skip("only root may capture")
    a = lab.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    a.bind(("127.0.0.1", 0))
    p = Proc(lab, "kdcap", [PROGRAMS["kdcap"], "-i", "any", "-f", "udp port %d" %
                            a.getsockname()[1], "--json", "--key", KEY, "--only", "poke"], expect=0)
    p.wait_text("capturing on any", stream="err")
    a.sendto(vectors()[0][2], a.getsockname())
    p.wait_text('"type":"poke"')


@test
def no_right_to_capture(lab):
    """without the right to capture: exit 1, and which one is missing"""
    argv = [PROGRAMS["kdcap"], "-i", "lo"]
    if os.geteuid() == 0:
        argv = ["setpriv", "--reuid=65534", "--clear-groups", "--bounding-set=-all",
                "--inh-caps=-all"] + argv
        if not shutil.which("setpriv"):
            raise Skip("no setpriv")
    p = Proc(lab, "kdcap", argv, expect=None)
    status = p.wait()
    if "setpriv" in p.err:
        raise Skip("cannot become nobody here: " + p.err.strip())
    equal(status, 1, "exit status")
    matches("CAP_NET_RAW", p.err, "stderr")


@test
def no_such_interface(lab):
    """an interface that is not there"""
    if os.geteuid() != 0:
        raise Skip("only root may capture")
    p = lab.run("kdcap", "-i", "nosuch0")
    equal(p.status, 1, "exit status")
    matches("nosuch0", p.err, "stderr")


# ---- replay ----------------------------------------------------------------------------

@test
def a_recorded_windows_is_attached_to(lab):
    """--replay of a recorded Windows target: kd attaches, reads, and lets it go"""
    if not os.path.exists(RECORDED):
        raise Skip("no recordings beside the source tree (../shared/captures)")
    port = udp_port()
    replay = Proc(lab, "kdcap", [PROGRAMS["kdcap"], "--replay", RECORDED, "--as", "target", "--key",
                                 "1.1.1.1", "--host", "127.0.0.1:%d" % port, "--port",
                                 str(port + 1)], expect=0)
    replay.wait_text("playing", stream="err")
    p = Proc(lab, "kd", [PROGRAMS["kd"], "-k", "net:port=%d,key=1.1.1.1" % port, "-b", "-c",
                         "vertarget; r rip; db fffff8026bc19c10 L10; g"], expect=None)
    equal(p.wait(40), 0, "kd's exit status (%s)" % p.err)
    matches("Windows 8.1 Kernel Version 9600", p.out, "vertarget")
    matches("rip=fffff8026bd72b90", p.out, "r rip")
    matches(r"9600\.17085\.amd64", p.out, "db")
    equal(replay.wait(20), 0, "kdcap's exit status")
    matches("2 of 2 steps played.*0 unheard of", replay.err, "what was played")


@test
def record_and_replay(lab):
    """a session of kd and kdtarget, captured, then replayed to kd: the same answers"""
    if os.geteuid() != 0:
        raise Skip("only root may capture")
    port, other = udp_port(), udp_port()
    recording = lab.path("recording.pcapng")

    def kd(then=""):
        return Proc(lab, "kd", [PROGRAMS["kd"], "-k", "net:port=%d,key=1a.2b.3c.4d" % port, "-b", "-c",
                                "vertarget; r; lm; db nt L100; g" + then], expect=None)

    def shown(p):
        # What was asked for; prints and stray stops come when they come.
        return sorted(set(re.findall(r"^(?:Windows 8|rip=|fffff800`0(?:0100|1)).*", p.out, re.M)))

    capture = Proc(lab, "kdcap", [PROGRAMS["kdcap"], "-i", "lo", "-f", "udp port %d" % port, "--json",
                                  "--key", "1a.2b.3c.4d", "-w", recording], expect=0)
    capture.wait_text("capturing on lo", stream="err")
    target = Proc(lab, "kdtarget", [PROGRAMS["kdtarget"], "-k",
                                    "net:host=127.0.0.1,port=%d,key=1a.2b.3c.4d,bindport=%d"
                                    % (port, other), "--net-version", "4", "--file-io-once",
                                    "--poke-every", "200", "--tries", "1000"], expect=None)
    p = kd()
    equal(p.wait(40), 0, "kd's exit status (%s)" % p.err)
    first = shown(p)
    check(len(first) > 20, "kd shows what it read: %r" % first)
    target.kill()
    capture.wait_text('"api":"Continue2".*\n')
    capture.signal(signal.SIGINT)
    equal(capture.wait(), 0, "kdcap's exit status")
    got = decode(lab, recording, "--key", "1a.2b.3c.4d")
    check(all(o["type"] not in ("unknown", "sealed", "malformed") for o in got), "all is named")
    check({"CreateFile", "PrintString", "GetVersion"} <= {o.get("api") for o in got}, "messages")

    replay = Proc(lab, "kdcap", [PROGRAMS["kdcap"], "--replay", recording, "--as", "target", "--key",
                                 "1a.2b.3c.4d", "--host", "127.0.0.1:%d" % port, "--port",
                                 str(other)], expect=None)
    replay.wait_text("playing", stream="err")
    # It stays until all was played: the recording may go on after the last command.
    p = kd("; .sleep 15000")
    # When a stray break-in takes effect, the two runs may differ by a request.
    check(replay.wait(40) in (0, 5), "kdcap's exit status")
    p.signal(signal.SIGTERM)
    p.wait(20)
    equal(shown(p), first, "what kd shows of the replay")
    matches(r"(\d+) of \1 steps played", replay.err, "what was played")


@test
def nothing_to_replay(lab):
    """a recording without a target in it, or with another key"""
    empty = save(lab, "none", pcap([]))
    for path, key in ((empty, KEY), (session_file(lab), "4.3.2.1")):
        p = lab.run("kdcap", "--replay", path, "--key", key, "--as", "target")
        equal(p.status, 1, "exit status")
        matches("nothing to play", p.err, "stderr")


if "left out of this build" in subprocess.run([PROGRAMS["kdcap"], "-r", "-"], text=True,
                                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                               stderr=subprocess.PIPE).stderr:
    print("1..0 # SKIP this build has no libpcap")
else:
    main(needs=("kdcap", "kd", "kdtarget"))
