#!/usr/bin/env python3
# The program kdloop: its command line, and what it sees of a serial port that
# it must not write to. SPDX-License-Identifier: MIT
import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdlib import *
from looplab import *

MOCK = ["hw-fixtures/serial/serial_mock"]


def mocked(lab, *args, **kw):
    return kdloop_on(lab, MOCK, *args, **kw)


# ---- command line -----------------------------------------------------------------

@cases([([], "which link"),
        (["com:port=/dev/ttyS4", "x"], "one link at a time"),
        (["--no-such", "x"], "lists the options"),
        (["--duration", "0", "com:port=x"], "duration"),
        (["--duration", "1x", "com:port=x"], "duration"),
        (["--wait", "1000000000", "com:port=x"], "wait"),
        (["--colour", "red", "com:port=x"], "colour"),
        (["ftp:port=1"], "ftp"),
        (["com:"], "port"),
        (["com:port=/dev/ttyS4,baud=1"], "baud"),
        (["com:port=/dev/ttyS4,speed=9600"], "speed"),
        (["com:pipe,port=/x"], "socket"),
        (["com:port=/dev/null"], "/dev/null is a character device, not a serial port"),
        (["--mode", "read", "com:port=/dev/ttyS4"], "read")],
       lambda c: " ".join(c[0]) or "nothing")
def usage(lab, case):
    """what is wrong on the command line is named, with exit code 2"""
    args, text = case
    if "com:" in str(args) and not has_driver("serial"):
        raise Skip("built without the serial driver")
    p = lab.run("kdloop", *args)
    equal(p.status, 2, "exit code (%s)" % p.err)
    check(text in p.err, "the error names it: %r" % p.err)


@test
def not_there(lab):
    """a port that is not there: exit code 3, also in JSON"""
    if not has_driver("serial"):
        raise Skip("built without the serial driver")
    p = lab.run("kdloop", "com:port=/dev/ttyNONE", "--json")
    equal(p.status, 3, "exit code")
    matches("no such device: /dev/ttyNONE", p.err, "the error")
    got = json.loads(p.out)
    equal(got["exit"], 3, "exit code in JSON")
    equal(got["links"][0]["verdict"], "FAIL", "verdict")
    matches("com:port=/dev/ttyNONE: no such device", got["links"][0]["error"], "error in JSON")


@test
def help_and_version(lab):
    """--help and --version"""
    matches(r"Usage: kdloop", lab.run("kdloop", "--help").out, "help")
    matches(r"^kdloop \d", lab.run("kdloop", "--version").out, "version")


def in_manual(begin, end):
    """Lines of kdloop(1), as a reader sees them."""
    with open(os.path.join(TOP_SRC, "docs/kdloop.1")) as f:
        text = f.read()
    return text.split(begin, 1)[1].split(end, 1)[0].replace("\\-", "-")


def in_sandbox(text):
    """No port and no host of this machine's surroundings."""
    return text.replace("/dev/ttyUSB0", "/dev/ttyNONE").replace("192.168.0.12", "127.0.0.1")


MOCK_USB = os.path.join(TOP_BUILD, "kdusb-mock")
EXAMPLES = [line for line in in_manual(".SH EXAMPLES\n.nf\n", ".fi").splitlines() if line]


@cases(EXAMPLES)
def examples(lab, line):
    """the examples of the manual"""
    words = in_sandbox(line).split()
    wrap = []
    if words[1].startswith("usb:"):
        if not os.access(MOCK_USB, os.X_OK):
            raise Skip("built without the usb driver or umockdev")
        wrap = [MOCK_USB, "--"]     # a machine without USB
    if words[1].startswith("com:") and not has_driver("serial"):
        raise Skip("built without the serial driver")
    with open(os.path.join(lab.dir, "rig.conf"), "w") as f:
        f.write(in_sandbox(in_manual(".SH \"RIG FILES\"", "\n.fi").split(".nf\n", 1)[1]))
    p = subprocess.run(wrap + [PROGRAMS["kdloop"]] + words[1:] + ["--duration", "1", "--wait", "1"],
                       cwd=lab.dir, capture_output=True, text=True, timeout=60)
    check(p.returncode in (0, 1, 3), "exit code %d: %s" % (p.returncode, p.stderr))
    if "--html" in words:
        check(os.path.getsize(os.path.join(lab.dir, words[words.index("--html") + 1])), "a report")


@test
def json_in_manual(lab):
    """the manual names what is in the JSON object"""
    text = in_manual(".SH JSON", ".SH \"RIG")
    with open(os.path.join(TOP_SRC, "kdloop/json.c")) as f:
        names = set(re.findall(r'\\"(\w+)\\":|put_member\(out, "(\w+)"', f.read()))
    names = {a or b for a, b in names} - {"value", "unit"}
    check(len(names) > 20, "names were found: %s" % names)
    equal([n for n in sorted(names) if not re.search(r"\b%s\b" % n, text)], [], "not told")


@test
def full_disk(lab):
    """output that cannot be written is no success"""
    with open("/dev/full", "w") as full:
        p = subprocess.run([PROGRAMS["kdloop"], "--json", "com:port=/dev/ttyNONE"], stdout=full,
                           stderr=subprocess.PIPE, text=True, timeout=20)
    equal(p.returncode, 1, "exit code")
    matches("standard output", p.stderr, "the error")


# ---- looking ----------------------------------------------------------------------

@test
def look(lab):
    """without --mode the port is described"""
    p = mocked(lab, "com:port=/dev/ttyS4")
    equal(p.status, 0, "exit code (%s)" % p.err)
    check(p.out.startswith("com:port=/dev/ttyS4\n"), "the link")
    matches(r"settings +\d+ baud, 8N1", p.out, "settings")
    matches(r"lines +DTR off, RTS on, CTS on, DSR on, DCD on, RI off", p.out, "modem lines")
    matches(r"PASS  port +free; nothing was sent", p.out, "verdict")
    check("\033" not in p.out, "no colours in a file")


@test
def look_ftdi(lab):
    """an adapter with its latency timer; as JSON"""
    p = mocked(lab, "com:port=/dev/ttyUSB0", "--json", "--colour", "always")
    equal(p.status, 0, "exit code (%s)" % p.err)
    facts = json.loads(p.out)["links"][0]["facts"]
    equal(facts["latency timer"], "16 ms", "latency timer")
    equal(facts["device"], "/dev/ttyUSB0", "device")


@test
def look_locked(lab):
    """a port that is locked is not opened, and who has it is told"""
    holder = subprocess.Popen(["sleep", "60"])
    try:
        with open(os.path.join(lab.dir, "LCK..ttyS4"), "w") as f:
            f.write("%10d\n" % holder.pid)
        p = mocked(lab, "com:port=/dev/ttyS4")
        equal(p.status, 0, "exit code (%s)" % p.err)
        matches(r"WARN  port +busy, held by sleep \(pid %d\)" % holder.pid, p.out, "the holder")
        check("settings" not in p.out, "it was not opened")
    finally:
        holder.kill()
        holder.wait()


@test
def colours(lab):
    """colours when they are asked for"""
    matches("\033\\[32mPASS\033\\[0m", mocked(lab, "com:port=/dev/ttyS4", "--colour", "always").out,
            "a green PASS")


@test
def html(lab):
    """the report is one file, and what it shows of us is escaped"""
    path = lab.path("<report>.html")
    p = mocked(lab, "com:port=/dev/ttyS4", "--html", path)
    equal(p.status, 0, "exit code (%s)" % p.err)
    with open(path) as f:
        page = f.read()
    check(page.startswith("<!DOCTYPE html>") and page.endswith("</html>\n"), "a whole page")
    check("http" not in page and "<script" not in page, "it loads nothing")
    check("Seen</h3>" in page, "what was seen")
    p = lab.run("kdloop", 'com:port=/dev/<b>&"x', "--html", path)
    equal(p.status, 3, "exit code")
    with open(path) as f:
        page = f.read()
    check("com:port=/dev/&lt;b&gt;&amp;&quot;x" in page and "<b>" not in page, "escaped")
    check("Seen" not in page, "nothing was")
    p = lab.run("kdloop", "com:port=/dev/ttyNONE", "--html", "/nonexistent/x.html")
    equal((p.status, p.out), (2, ""), "exit code, and what was tried")
    equal(p.err, "kdloop: --html /nonexistent/x.html: No such file or directory\n", "the error")


main(needs=("kdloop",))
