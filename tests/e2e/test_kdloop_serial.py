#!/usr/bin/env python3
# kdloop on serial ports: each verdict, with plugs and cables that have the
# fault. What depends on the speed of this machine (throughput, latency of a
# good line) is measured and not judged. SPDX-License-Identifier: MIT
import fcntl
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdlib import *
from looplab import *

PORT = "com:port=/dev/ttyS4"
SLOW = {"port": PORT + ",baud=1200", "max_baud": 1200}     # one speed, few bytes
TIMED = ("throughput", "latency")   # their verdict is this machine's, too


def plug(lab, *faults, port=PORT, max_baud=115200, args=(), **kw):
    """A test with a loopback plug that has faults; its report."""
    p = kdloop_on(lab, [CABLE, "--plug", "--max-baud", str(max_baud)] + list(faults), port,
                  "--mode", "plug", "--duration", "1", "--json", *args, **kw)
    r = Report(p.out)
    r.status, r.err = p.status, p.err
    return r


def others_pass(r, *names):
    for name, c in r.checks.items():
        if name not in names + TIMED:
            equal(c["verdict"], "PASS", "verdict of %s (%s)" % (name, c["what"]))


# ---- a plug -----------------------------------------------------------------------

@test
def good_plug(lab):
    """a good plug passes everything, at the speeds that the port has"""
    r = plug(lab)
    others_pass(r)
    equal(r.status, 0, "exit code")
    bauds = [n for n in r.checks if n.startswith("baud-")]
    equal(bauds, ["baud-%d" % b for b in (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200)],
          "speeds")
    matches(r"^230400, 460800.* 4000000$", r.link["facts"]["not its speeds"], "speeds refused")
    for name in ("silence", "rts-cts", "dtr-dsr-dcd", "tx-rx", "byte-values", "break"):
        equal(r.verdict(name), "PASS", name)
    check(r.verdict("throughput") in ("PASS", "WARN", "FAIL"), "throughput was measured")
    check(r.value("throughput", "sent") >= 2880, "throughput over more than a burst")
    latency, = r.link["latency"]
    check(latency["count"] >= 20, "enough round trips")
    check(latency["min_us"] <= latency["median_us"] <= latency["p99_us"] <= latency["max_us"],
          "percentiles are in order")
    equal(sum(b[2] for b in latency["bars"]), latency["count"], "bars hold all samples")
    equal([p[0] for p in r.link["series"][0]["points"]], [int(b[5:]) for b in bauds], "series")
    equal(os.listdir(lab.dir), [], "no lock file is left")


@test
def all_bauds(lab):
    """a port that has all speeds is tested at all"""
    r = plug(lab, max_baud=0)
    others_pass(r)
    for baud in (230400, 921600, 4000000):
        equal(r.verdict("baud-%d" % baud), "PASS", "at %d" % baud)


@test
def three_wires(lab):
    """a plug with TX and RX only is good enough, with warnings"""
    r = plug(lab, "--wires", "3")
    r.says("rts-cts", "WARN", r"RTS does not reach CTS \(always off\)", "KD does without")
    r.says("dtr-dsr-dcd", "WARN", "neither DSR")
    others_pass(r, "rts-cts", "dtr-dsr-dcd")
    equal(r.status, 0 if all(r.verdict(n) != "FAIL" for n in TIMED) else 1, "exit code")


@cases([("no-rts", "rts-cts", "WARN", "RTS does not reach CTS"),
        ("no-dtr", "dtr-dsr-dcd", "WARN", "DTR reaches neither"),
        ("crossed", "rts-cts", "FAIL", "CTS follows DTR"),
        ("crossed", "dtr-dsr-dcd", "FAIL", "DSR follows RTS")], lambda c: " ".join(c[:2]))
def wires(lab, case):
    """a wire of the plug that is missing or in the wrong place is named"""
    r = plug(lab, "--wires", case[0], **SLOW)
    r.says(case[1], case[2], case[3])
    equal(r.status == 1, any(c["verdict"] == "FAIL" for c in r.checks.values()), "exit code")
    equal(r.verdict("byte-values"), "PASS", "the bytes are well")


@test
def no_plug(lab):
    """nothing in the port"""
    p = kdloop_on(lab, [CABLE], PORT, "--mode", "plug", "--json")
    r = Report(p.out)
    equal(p.status, 1, "exit code")
    r.says("tx-rx", "FAIL", "nothing came back", "put a loopback plug in")
    check("byte-values" not in r.checks, "nothing else was tried")


@test
def lost_bytes(lab):
    """lost bytes are counted, and are no bit errors"""
    r = plug(lab, "--lose-each", "4000")
    equal(r.status, 1, "exit code")
    r.says("throughput", "FAIL", "lost", "bytes are lost")
    sent = r.value("throughput", "sent")
    check(abs(r.value("throughput", "lost") - sent / 4000) <= 1, "one of 4000 is lost")
    equal(r.value("throughput", "changed"), 0, "none is changed")


@test
def flipped_bits(lab):
    """changed bits are counted, and are no lost bytes"""
    r = plug(lab, "--flip-each", "1000")
    r.says("throughput", "FAIL", "changed", "bits change on the way")
    sent = r.value("throughput", "sent")
    check(abs(r.value("throughput", "changed") - sent / 1000) <= 1, "one of a thousand is changed")
    equal(r.value("throughput", "bit errors"), r.value("throughput", "changed"), "a bit each")
    equal(r.value("throughput", "lost"), 0, "none is lost")


@test
def overruns(lab):
    """overruns that the kernel counts are told from other losses"""
    r = plug(lab, "--overrun-each", "4000")
    r.says("throughput", "FAIL", r"\d+ overruns", "not emptied in time")
    equal(r.value("throughput", "overruns"), r.value("throughput", "lost"), "a byte each")


@test
def removed_plug(lab):
    """the plug is taken out in the middle of the test"""
    r = plug(lab, "--cut-at", "3000")
    equal(r.status, 1, "exit code")
    r.says("plug", "FAIL", "nothing comes back any more", "put it back in")
    equal(list(r.checks)[-1], "plug", "nothing was tried after that")


@test
def unplugged_adapter(lab):
    """the adapter is unplugged in the middle of the test"""
    r = plug(lab, "--hang-up-at", "3000")
    equal(r.status, 1, "exit code")
    name = list(r.checks)[-1]
    r.says(name, "FAIL", "/dev/ttyS4 hung up", "plug the adapter in")


# 350 bytes cross before throughput, which has at least 30; latency has at least 100.
@cases([("throughput", 365, r"\d+ lost"),
        ("latency", 450, r"after \d+ round trips a byte did not come back")], lambda case: case[0])
def removed_later(lab, case):
    """the plug is taken out late in the test"""
    name, at, what = case
    r = plug(lab, "--cut-at", str(at), **SLOW)
    r.says(name, "FAIL", what)
    r.says("plug", "FAIL", "nothing comes back any more", "put it back in")
    equal(list(r.checks)[-2:], [name, "plug"], "nothing was tried after that")


@test
def talker(lab):
    """a device that talks is left alone"""
    p = kdloop_on(lab, [CABLE, "--plug", "--count", "--talk", "iiii"], PORT, "--mode", "plug",
                  "--json")
    r = Report(p.out)
    equal(p.status, 1, "exit code")
    r.says("silence", "FAIL", "KD packets", "nothing was sent")
    matches("serial_cable: 0 0 bytes", p.err, "nothing was sent")


@test
def look_sends_nothing(lab):
    """without --mode nothing is sent"""
    p = kdloop_on(lab, [CABLE, "--count", "--plug"], PORT)
    equal(p.status, 0, "exit code")
    matches("serial_cable: 0 0 bytes", p.err, "nothing was sent")


@test
def software_flow(lab):
    """XON and XOFF that are swallowed"""
    r = plug(lab, "--drop-flow", **SLOW)
    r.says("byte-values", "FAIL", r"XON and XOFF \(11 and 13\) are swallowed", "flow control")


@test
def seven_bits(lab):
    """a line with 7 data bits"""
    r = plug(lab, "--strip", **SLOW)
    r.says("byte-values", "FAIL", "highest bit", "7 data bits")


@test
def ftdi_latency(lab):
    """the latency timer of an FTDI adapter is named, with the way to change it"""
    r = plug(lab, "--ftdi", "--latency-ms", "16", port="com:port=/dev/ttyUSB0")
    r.says("latency", "WARN", "latency timer 16 ms",
           "latency timer is 16 ms.*/sys/bus/usb-serial/devices/ttyUSB0/latency_timer")
    check(r.value("latency", "median") >= 10, "the median shows it")
    equal(r.link["facts"]["latency timer"], "16 ms", "fact")
    equal(r.link["facts"]["adapter"], "0403:6001 FT232R USB UART", "adapter")


@test
def latency_elsewhere(lab):
    """a latency of 16 ms without such a timer here is named as well"""
    r = plug(lab, "--latency-ms", "16")
    r.says("latency", "WARN", "median", "16 ms is what the latency timer of an FTDI adapter makes"
           if r.value("latency", "median") < 22 else None)


@test
def breaks(lab):
    """a break that is noticed in one way or the other, or not at all"""
    plug(lab, **SLOW).says("break", "PASS", "sent and noticed")
    plug(lab, "--no-counts", **SLOW).says("break", "PASS", "received as a NUL")
    plug(lab, "--no-break", **SLOW).says("break", "WARN", "not noticed", "KD does not need it")


@test
def bad_above(lab):
    """a cable that is too long for the higher speeds"""
    r = plug(lab, "--garble-above", "500000", max_baud=0)
    r.says("baud-500000", "PASS")
    r.says("baud-921600", "FAIL", "garbage", "do not use 921600 baud")


@test
def slow_line(lab):
    """a line that keeps below its rate"""
    r = plug(lab, "--pace", "40", max_baud=9600, port=PORT + ",baud=9600")
    r.says("throughput", "FAIL", "of the line rate", "do not keep up|does not keep up")
    check(r.value("throughput", "of line rate") < 50, "a part of the line rate")


@test
def timed_line(lab):
    """a line that takes its time: no byte is there before line and FIFO could bring it"""
    line_us = (1 + 4) * 10 * 1e6 / 9600
    for _ in range(4):
        r = plug(lab, "--pace", "100", max_baud=9600, port=PORT + ",baud=9600")
        latency, = r.link["latency"]
        check(latency["min_us"] >= int(line_us), "%.0f us, line and FIFO take %.0f" %
              (latency["min_us"], line_us))
        rate = r.value("throughput", "of line rate")
        if rate < 100.5:
            return
    # Once in a while the first bytes are late, and the others seem fast.
    raise Failure("the line is faster than itself: %g %%" % rate)


@test
def line_alone(lab):
    """what is timed is the line: reads and writes do not pass the mock"""
    lab.env.update(LD_DEBUG="bindings", LD_DEBUG_OUTPUT=lab.path("bindings"))
    plug(lab, **SLOW)
    found = set()
    for name in os.listdir(lab.dir):
        if "bindings" in name:
            with open(os.path.join(lab.dir, name)) as f:
                # A sanitizer's library stands between.
                found |= set(re.findall(
                    r"(?:libserialport|libasan)\S* \[0\] to \S*/([^/ ]*) \[0\]: normal symbol "
                    r"`(read|write|ioctl)'", f.read()))
    check(("libumockdev-preload.so.0", "ioctl") in found, "ioctls are the mock's: %s" % found)
    for symbol in ("read", "write"):
        check(("serial_direct.so", symbol) in found, "%s is not: %s" % (symbol, found))


@test
def interrupted(lab):
    """Ctrl-C ends the test, tells what was measured, and leaves the port as it was"""
    p = start_kdloop(lab, [CABLE, "--plug", "--pace", "100", "--max-baud", "115200"],
                     PORT, "--mode", "plug", "--duration", "600")
    p.wait_text(r"^\w+  baud-115200", 30)
    p.signal(signal.SIGINT)
    equal(p.wait(), 130, "exit code")
    matches("interrupted, not all was tried", p.out, "the last line")
    matches(r"SKIP|throughput", p.out, "what was going on")
    equal(os.listdir(lab.dir), [], "no lock file is left")


@test
def busy(lab):
    """a port that someone uses is not touched"""
    holder = subprocess.Popen(["sleep", "60"])
    try:
        with open(os.path.join(lab.dir, "LCK..ttyS4"), "w") as f:
            f.write("%10d\n" % holder.pid)
        p = kdloop_on(lab, [CABLE, "--plug", "--count"], PORT, "--mode", "plug", "--json")
    finally:
        holder.kill()
        holder.wait()
    equal(p.status, 3, "exit code")
    matches(r"busy, held by sleep \(pid %d\)" % holder.pid, p.err, "the holder")
    matches("serial_cable: 0 0 bytes", p.err, "nothing was sent")
    equal(json.loads(p.out)["exit"], 3, "exit code in JSON")


@test
def shown(lab):
    """lines, a histogram in the terminal's width, and plots in the report"""
    path = lab.path("report.html")
    p = kdloop_on(lab, [CABLE, "--plug", "--max-baud", "9600"], PORT + ",baud=9600", "--mode",
                  "plug", "--duration", "1", "--html", path)
    matches(r"PASS  baud-9600 +240 bytes intact", p.out, "a line")
    matches(r"round trip of a byte at 9600 baud\n +\d.*\|#+ \d+", p.out, "a histogram")
    matches(r"median .*, 95 % within", p.out, "percentiles")
    check(max(len(line) for line in p.out.splitlines()) <= 160, "no endless lines")
    check("\033" not in p.out + p.err and "\r" not in p.out + p.err, "no terminal codes in a file")
    with open(path) as f:
        page = f.read()
    equal(page.count("<svg"), 2, "plots")
    equal(page.count("<svg"), page.count("</svg>"), "plots end")
    check("nan" not in page and "inf\"" not in page, "only numbers in plots")


@test
def on_a_terminal(lab):
    """on a terminal: colours, lines that fit, a live line that is gone when a verdict is shown"""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 70, 0, 0))
    p = start_on(lab, [CABLE, "--plug", "--pace", "100", "--max-baud", "9600"],
                 ["sh", "-c", 'exec "$@" >%s 2>&1' % os.ttyname(slave), "sh", PROGRAMS["kdloop"],
                  "--lock-dir", lab.dir, PORT + ",baud=9600", "--mode", "plug", "--duration", "2"])
    text = b""
    while not re.search(rb"passed.* in [0-9.]+ s", text):
        check(select.select([master], [], [], 20)[0], "there is more to come: %r" % text[-200:])
        text += os.read(master, 4096)
    p.wait()
    os.close(slave)
    os.close(master)
    text = text.decode()
    matches("\033\\[32mPASS\033\\[0m  baud-9600 ", text, "a green PASS")
    matches("\r\033\\[K *\\d+ % throughput", text, "the live line")
    for line in text.split("\n"):
        shown = line.rstrip("\r").split("\r\033[K")[-1]
        check(" % throughput" not in shown and " % burst" not in shown, "it is cleared: %r" % line)
        shown = re.sub("\033\\[[\\d;]*m", "", shown)
        check(len(shown) <= 70 or "      median" in shown, "it fits: %r" % shown)
    matches(r"not its speeds +19200, .*\n {23}\d+, ", text.replace("\r", ""), "a line that goes on")


main(needs=("kdloop",))
