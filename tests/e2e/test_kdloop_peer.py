#!/usr/bin/env python3
# Two kdloops at the ends of a null-modem cable, with every fault a cable has;
# and one kdloop whose peer is hostile. SPDX-License-Identifier: MIT
import json
import os
import re
import signal
import struct
import sys
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdlib import *
from looplab import *

TIMED = ("throughput-out", "throughput-in", "latency")
FAST = ("--max-baud", "9600")       # few speeds
SPEED = ((",baud=9600",), (",baud=9600",))


def peers(lab, *faults, a=SPEED[0], b=SPEED[1], **kw):
    return Peers(lab, *FAST, *faults, a=a, b=b, **kw)


def leader(a, b):
    return a if "this end leads" in a.checks["peer"]["what"] else b


def last(r):
    return r.link["checks"][-1]["name"]


# ---- two of them ------------------------------------------------------------------

@test
def good_cable(lab):
    """a good cable passes everything, and both ends tell the same"""
    p = Peers(lab, "--max-baud", "115200")
    a, b = p.reports()
    lead = leader(a, b)
    others = [c for n, c in lead.checks.items() if n not in TIMED]
    for c in others:
        equal(c["verdict"], "PASS", "verdict of %s (%s)" % (c["name"], c["what"]))
    for name in ("rts-cts-out", "rts-cts-in", "dtr-dsr-dcd-out", "dtr-dsr-dcd-in", "byte-values",
                 "baud-1200-out", "baud-115200-in", "throughput-out", "throughput-in", "latency",
                 "break-out", "break-in"):
        check(name in lead.checks, "there is " + name)
    equal([(c["name"], c["verdict"]) for c in a.link["checks"]],
          [(c["name"], c["verdict"]) for c in b.link["checks"]], "both ends")
    equal(p.status[0], p.status[1], "exit codes")
    check(lead.link["latency"][0]["count"] >= 20, "round trips")
    equal([s["name"] for s in lead.link["series"]],
          ["throughput by speed, out", "throughput by speed, in"], "series")
    equal([f for f in os.listdir(lab.dir) if f.startswith("LCK")], [], "no lock file is left")


@cases([("3", "rts-cts-out", "WARN", "at the other end RTS does not reach CTS"),
        ("no-dtr", "dtr-dsr-dcd-in", "WARN", "DTR reaches neither"),
        ("crossed", "rts-cts-in", "FAIL", "CTS follows DTR"),
        ("local", "handshake", "WARN", "joins each end's RTS and DTR with its own")],
       lambda c: " ".join(c[:2]))
def wires(lab, case):
    """how the cable is wired is told at both ends"""
    for r in peers(lab, "--wires", case[0]).reports():
        r.says(*case[1:])
        equal(r.verdict("byte-values"), "PASS", "the bytes are well")


@test
def lost_bytes(lab):
    """lost bytes are counted per direction"""
    a, b = Peers(lab, "--max-baud", "115200", "--lose-each", "900").reports()
    failed = [c["what"] for c in leader(a, b).checks.values() if c["verdict"] == "FAIL"]
    check(any(re.search(r"[1-9]\d* lost, 0 changed", what) for what in failed),
          "losses are counted: %s" % failed)
    check(not any(re.search(r"[1-9]\d* (changed|added)", what) for what in failed),
          "and are nothing else: %s" % failed)


@test
def bad_above(lab):
    """a speed at which the ends do not hear each other: both go back and go on"""
    a, b = Peers(lab, "--max-baud", "38400", "--garble-above", "19200", a=(",baud=9600",),
                 b=(",baud=9600",)).reports()
    for r in (a, b):
        r.says("baud-38400", "FAIL", "do not understand each other", "do not use 38400 baud")
        equal(r.verdict("baud-19200-out"), "PASS", "the speed below")
        equal(r.verdict("break-in"), "PASS", "what comes after")


@test
def wrong_baud(lab):
    """different speeds at the ends"""
    a, b = Peers(lab, a=(",baud=115200",), b=(",baud=57600",),
                 both=("--json", "--wait", "5")).reports()
    for r in (a, b):
        r.says("peer", "FAIL", "all garbage: another baud", "same baud")
        equal(list(r.checks), ["peer"], "nothing else was tried")


@test
def nobody(lab):
    """no kdloop at the other end"""
    p = kdloop_on(lab, [CABLE], "com:port=/dev/ttyS4", "--mode", "peer", "--wait", "1", "--json")
    equal(p.status, 1, "exit code")
    Report(p.out).says("peer", "FAIL", "nobody was heard in 1 s", "null-modem cable")


@test
def plug(lab):
    """a loopback plug is no peer"""
    p = kdloop_on(lab, [CABLE, "--plug"], "com:port=/dev/ttyS4", "--mode", "peer", "--wait", "5",
                  "--json")
    equal(p.status, 1, "exit code")
    Report(p.out).says("peer", "FAIL", "loopback plug", "--mode plug")


@test
def one_way(lab):
    """a broken TX wire: one end hears, and is not heard"""
    a, b = Peers(lab, "--one-way", both=("--json", "--wait", "5")).reports()
    a.says("peer", "FAIL", "nobody was heard")
    b.says("peer", "FAIL", "is heard, and does not hear this one", "TX here to RX there")


@test
def debuggee(lab):
    """a machine that waits for its debugger is not disturbed"""
    p = kdloop_on(lab, [CABLE, "--count", "--talk", "0000"], "com:port=/dev/ttyS4", "--mode",
                  "peer", "--json")
    equal(p.status, 1, "exit code")
    Report(p.out).says("peer", "FAIL", "KD packets came")
    matches("serial_cable: 0 0 bytes", p.err, "nothing was sent")


@test
def cable_removed(lab):
    """the cable is taken out in the middle"""
    p = peers(lab, "--cut-at", "1500")
    a, b = p.reports()
    equal(p.status, [1, 1], "exit codes")
    for r in (a, b):
        r.says(last(r), "FAIL", "not heard any more", "cable is in at both ends")


@test
def adapter_removed(lab):
    """both adapters are unplugged in the middle"""
    p = peers(lab, "--hang-up-at", "1500")
    for r in p.reports():
        r.says(last(r), "FAIL", "hung up")


@test
def interrupted(lab):
    """Ctrl-C at one end: the other end is told"""
    p = peers(lab, "--pace", "100", both=("--duration", "600"))
    eventually(lambda: "baud-1200-out" in p.text("a"), "the test runs", 30)
    os.kill(p.pids[0], signal.SIGINT)
    p.wait()
    equal(p.status, [130, 1], "exit codes")
    # In the middle of a burst the word is not understood.
    matches("the other kdloop (was ended|is not heard any more)", p.text("b"), "the other end")
    matches("interrupted, not all was tried", p.text("a"), "this end")


# ---- a hostile peer ---------------------------------------------------------------

HOSTILE = r'''
import os, random, select, struct, sys, termios, time, tty, zlib
fd = os.open("/dev/ttyS5", os.O_RDWR | os.O_NOCTTY)
tty.setraw(fd)
mode = termios.tcgetattr(fd)
mode[4] = mode[5] = termios.B115200
termios.tcsetattr(fd, termios.TCSANOW, mode)

def frame(kind, seq, body=b"", version=1, length=None):
    head = struct.pack("<BBBH", version, kind, seq, len(body) if length is None else length)
    head += bytes([(255 - sum(head)) % 256]) + body
    return b"KL" + head + struct.pack("<I", zlib.crc32(head))

def heard(wanted, seconds=10):
    """Reads until a frame of that kind came; returns its body."""
    data, end = b"", time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([fd], [], [], 0.05)[0]:
            data += os.read(fd, 4096)
        at = data.find(b"KL\x01" + bytes([wanted]))
        if at >= 0 and len(data) >= at + 12:
            size = struct.unpack_from("<H", data, at + 5)[0]
            if len(data) >= at + 12 + size:
                return data[at + 8:at + 8 + size]
    sys.exit("never heard %d" % wanted)

def hello(nonce):
    theirs = struct.unpack_from("<Q", heard(1))[0]
    os.write(fd, frame(1, 0, struct.pack("<QQI", nonce, theirs, 0xFFFFFFFF)))

def ask(kind, seq, body=b"", **kw):
    os.write(fd, frame(kind, seq, body, **kw))
    return heard(kind | 0x80)

LEAD, FOLLOW = 2**64 - 1, 1
'''


def hostile(lab, script, *args):
    """kdloop at /dev/ttyS4 with a Python script at the other end; kdloop's report."""
    path = lab.path("hostile.py")
    with open(path, "w") as f:
        f.write(HOSTILE + script)
    out = lab.path("out")
    shell = ("%s %s & p=$!\nASAN_OPTIONS= %s --lock-dir %s com:port=/dev/ttyS4 --mode peer --json "
             "--wait 10 --duration 1 %s >%s\ns=$?\nwait $p || echo script failed\necho exit $s\n" %
             (sys.executable, path, PROGRAMS["kdloop"], lab.dir, " ".join(args), out))
    lab.env["ASAN_OPTIONS"] = "detect_leaks=0"
    p = start_on(lab, [CABLE], ["sh", "-c", shell])
    equal(p.wait(50), 0, "exit code of the mock (%s)" % p.err)
    check("script failed" not in p.out, "the script: %s" % p.err)
    with open(out) as f:
        r = Report(f.read())
    r.status = int(p.out.split()[-1])
    return r


@test
def other_version(lab):
    """a peer of another version"""
    r = hostile(lab, "heard(1)\nos.write(fd, frame(1, 0, b'x' * 700, version=2))\n")
    r.says("peer", "FAIL", "of another version", "same version")
    equal(r.status, 1, "exit code")


@test
def hostile_leader(lab):
    """a leader that asks for nonsense is answered or passed over, and ends the session"""
    r = hostile(lab, r'''
hello(LEAD)
hello(LEAD)
for seq, (kind, body) in enumerate([
        (2, b""), (2, bytes(768)), (3, b""), (3, b"\xff"), (3, b"\x07"),
        (4, b""), (4, struct.pack("<I", 0)), (4, struct.pack("<I", 12345)),
        (5, b""), (5, struct.pack("<II", 1, 0)), (5, struct.pack("<II", 1, 0xFFFFFFFF)),
        (6, b"\x01"), (6, struct.pack("<II", 1, 0xFFFFFFFF)),
        (8, b""), (7, b"junk"), (8, b"junk"),
        (10, b""), (10, b"\x00"), (10, b"\x09a\0b\0c\0"), (10, b"\x00abc"), (10, b"\x00" * 768),
        (10, b"\x01" + b"%s%n\x1b[31m" * 60), (10, b"\x00ok\0all <b>is</b> \x1b[2J well\0\0")]):
    ask(kind, seq + 1, body)
os.write(fd, frame(12, 99))                       # GO, with nothing to send
os.write(fd, frame(200, 100, b"unknown"))
os.write(fd, frame(2, 101, b"abc", length=65535))
os.write(fd, b"KL\x01" * 300 + b"K" * 900)
random.seed(5)
os.write(fd, bytes(random.randrange(256) for _ in range(3000)))
os.write(fd, b"\0" * 800)                         # ends whatever looked like a frame
ask(2, 102, b"alive")
ask(11, 103, b"\x00")
''')
    r.says("peer", "PASS", "the other end leads")
    r.says("ok", "PASS", r"^all <b>is</b> \?\[2J well$")
    check(all(" " <= ch <= "~" for c in r.link["checks"] for ch in c["what"] + c["advice"]),
          "no control bytes")


@test
def many_checks(lab):
    """a leader with checks without end"""
    r = hostile(lab, r'''
hello(LEAD)
hello(LEAD)
for seq in range(200):
    ask(10, seq, b"\x00check\0%d\0\0" % seq)
ask(11, 201, b"\x00")
''')
    check(len(r.link["checks"]) <= 64, "a limit")


@test
def hostile_follower(lab):
    """a follower with answers too short, for something else, without end"""
    r = hostile(lab, r'''
hello(FOLLOW)
hello(FOLLOW)
os.set_blocking(fd, False)
end = time.monotonic() + 4
seq = 0
while time.monotonic() < end:
    for kind in (0x80 | 3, 0x80 | 2, 13, 1, 2, 0x80 | 3):
        if select.select([], [fd], [], 0.1)[1]:
            try:
                os.write(fd, frame(kind, seq % 256, b""))
            except BlockingIOError:
                pass
    if select.select([fd], [], [], 0)[0]:
        os.read(fd, 4096)
    seq += 1
''')
    r.says(last(r), "FAIL", "not heard any more")


@test
def silent_leader(lab):
    """a leader that says nothing after the greeting"""
    r = hostile(lab, "hello(LEAD)\nhello(LEAD)\n")
    r.says(last(r), "FAIL", "not heard any more")


main(needs=("kdloop",))
