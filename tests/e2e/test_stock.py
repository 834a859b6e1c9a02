#!/usr/bin/env python3
# kdsrv and kd with a target that is not ours: an independent simulation of a
# 32-bit NT-like kernel behind an emulated UART, with its oddities.
# SPDX-License-Identifier: MIT
import os
import re
import socket
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdlib import *
import stocktarget
from stocktarget import COUNTER, HARD_INT3, HOLE, KERNEL, REGION, WORK, Stock

CONTRACT = "vertarget; db nt L10; lm; .endpsrv"
PATIENT = 80  # as patient as that, it repeats nothing, however busy this machine is
NO_CAUSE = ("repeats", "resend_out", "duplicates_in", "wrong_type_in", "abandoned", "acks_ignored",
            "set_context_refused", "symbol_range_set")


def stock(lab, **options):
    options.setdefault("byte_us", 10)
    log = os.environ.get("STOCK_LOG")  # where to keep every byte: this, and the socket's folder
    path = lab.path("stock.sock")
    log = open(log + path.replace("/", "-"), "w") if log else None
    return lab.closing(Stock(path, log, **options))


def patient(t):
    """A target that boots alone must not take long to give up; from here on it
    repeats nothing, however busy this machine is."""
    t.link.patience = PATIENT
    t.link.counters.clear()
    return t


def running(t):
    eventually(lambda: t.kernel.where == "running", "the target runs")


def runs_on(t):
    """It is running and stays so, alone or not."""
    t.link.patience = 1
    running(t)
    ticks = t.kernel.ticks
    eventually(lambda: t.kernel.ticks > ticks + 20, "the target goes on running")
    equal(t.kernel.where, "running", "the target's state")


def needless(t, **allowed):
    """Nothing that the protocol gives no cause for."""
    equal(t.error, None, "the simulation")
    c = t.counters()
    for name in NO_CAUSE:
        equal(min(c.get(name, 0), max(allowed.get(name, 0), 0)), c.get(name, 0),
              "%s of %s" % (name, c))
    check(c.get("resets_in", 0) <= allowed.get("resets_in", 0), "RESETs: %s" % c)
    return c


def contract(lab, t, modules=32, line=CONTRACT, runs=True):
    server = lab.server()
    p = lab.kd(server, t, line, "--timeout", "40", wait_s=45)
    matches(r"Kernel Version 3790 UP \(1 procs\) Checked x86", p.out, "vertarget")
    matches(r"80400000  4d 5a 00 00", p.out, "db nt")
    got = len(re.findall(r"^[0-9a-f]{8} [0-9a-f]{8}   \S+ ", p.out, re.M))
    check(got >= modules, "lm shows %d of %d" % (got, modules))
    matches(r"80400000 8090a000   nt ", p.out, "lm")
    equal(server.wait(), 0, "kdsrv's exit status")
    if runs:
        runs_on(t)
        equal(t.counters()["breakpoints"], 0, "breakpoints left")
    return p


# ---- the line that must attach to all ------------------------------------------

FIRMWARE = b"SeaBIOS (version 1.16)\r\nBooting from DVD/CD... 0%\r\n(i000)"


@cases([0, 10, 60], lambda us: "%d us a byte" % us)
def power_on(lab, byte_us):
    """The host listens from power-on, firmware talks first"""
    t = stock(lab, byte_us=byte_us, patience=PATIENT, noise=FIRMWARE, boot_ticks=150)
    contract(lab, t, modules=1)  # stopped in its first print, perhaps
    c = needless(t, resets_in=12, acks_ignored=12, repeats=12)
    equal(c["boots"], 1, "boots")


@cases([0, 60], lambda us: "%d us a byte" % us)
def power_on_impatient(lab, byte_us):
    """The host listens from power-on, 25 ms patience"""
    t = stock(lab, byte_us=byte_us, noise=FIRMWARE, boot_ticks=50)
    contract(lab, t, modules=30)
    equal(t.counters().get("abandoned", 0), 0, "abandoned")


@test
def first_print(lab):
    """The host comes while the first print waits for its ACK"""
    t = stock(lab, patience=PATIENT)
    eventually(lambda: t.link.unacknowledged, "the first print waits")
    contract(lab, t, modules=1)
    needless(t, resets_in=1, repeats=1)


@test
def list_not_ready(lab):
    """The module list is not set up when the boot drivers are reported"""
    t = stock(lab, patience=PATIENT, boot_ticks=20, early_list=False)
    contract(lab, t, modules=30)


@test
def booted_alone(lab):
    """Booted alone long ago, and runs"""
    t = patient_and_ready(lab)
    check(not t.link.present, "the target believes in a debugger")
    contract(lab, t)
    c = t.counters()
    equal(c.get("abandoned", 0), 0, "abandoned")
    equal(c["stops"], 1, "stops")
    needless(t)


@test
def in_bugcheck(lab):
    """Booted alone, and stopped in a bug check"""
    t = stock(lab)
    running(t)
    t.do(t.kernel.bugcheck)
    eventually(lambda: t.kernel.in_bugcheck, "the bug check")
    p = contract(lab, t, line="r eax; " + CONTRACT, runs=False)
    matches(r"eax=0*4\b", p.out, "r eax")
    equal(t.kernel.where, "stopped", "left as it was found")


def leave_stopped(lab, t):
    """A host that breaks in, and vanishes."""
    server = lab.server()
    p = lab.start_kd(server, t, "r eax; .echo here; .sleep 60000", "--timeout", "70")
    p.wait_text("here", 20)
    server.kill()
    p.kill()
    eventually(lambda: not t.port.conn, "the host vanishes")
    equal(t.kernel.where, "stopped", "the target")


@test
def left_stopped(lab):
    """Left stopped by a host that vanished"""
    t = ready(lab)
    patient(t)
    leave_stopped(lab, t)
    stops = t.counters()["stops"]
    contract(lab, t, modules=1)
    equal(t.counters()["stops"], stops, "stops")
    needless(t, resets_in=1)


def unanswered(lab, t, request):
    """A host of our own that leaves a reply unacknowledged."""
    s = lab.closing(socket.socket(socket.AF_UNIX))
    s.connect(t.path)
    s.settimeout(5)
    packets, rx = stocktarget.Packets(), []

    def next_packet(kind):
        while True:
            while rx:
                p = rx.pop(0)
                if len(p) >= 16 and p[4] == kind:
                    return p
            rx.extend(packets.feed(s.recv(4096)))

    s.send(b"\x62")
    got = next_packet(stocktarget.STATE_CHANGE)
    s.send(stocktarget.control(stocktarget.ACK, stocktarget.ID_FIRST |
                               struct.unpack_from("<I", got, 8)[0] & 1))
    s.send(stocktarget.data(stocktarget.MANIPULATE, stocktarget.ID_FIRST, request))
    next_packet(stocktarget.MANIPULATE)
    s.close()


@cases([0, 9, 17, 18, 19, 20], lambda n: "%d times repeated" % n)
def reply_outstanding(lab, times):
    """Left stopped with a reply unacknowledged"""
    t = ready(lab)
    before = t.link.counters["ack_timeouts"]
    unanswered(lab, t, struct.pack("<I", 0x3146).ljust(56, b"\0"))
    eventually(lambda: t.link.counters["ack_timeouts"] >= before + times, "repeats")
    contract(lab, t)


@test
def reply_outstanding_for_long(lab):
    """Left stopped with a reply unacknowledged, of a patient target"""
    t = patient_and_ready(lab)
    unanswered(lab, t, struct.pack("<I", 0x3146).ljust(56, b"\0"))
    contract(lab, t)
    needless(t, resets_in=2, repeats=1)


@test
def after_a_session(lab):
    """Runs and is present, from a session that ended properly"""
    t = patient_and_ready(lab, print_every=0)
    contract(lab, t)
    needless(t)
    check(t.link.present, "the target believes in a debugger")
    c = t.counters()
    t.link.patience = PATIENT  # that it runs on was seen with less
    contract(lab, t)
    d = t.counters()
    equal(d["stops"], c["stops"] + 1, "stops")
    needless(t, resets_in=1)


# ---- sessions ---------------------------------------------------------------------

STALLS = [None, (0.1, 0.02, 0.06)]


def stalls_name(stall):
    return "20-60 ms stalls" if stall else "no stalls"


def session(lab, t, line, timeout=40, **kw):
    server = lab.server()
    p = lab.kd(server, t, line + "; .endpsrv", "--timeout", str(timeout), wait_s=timeout + 5, **kw)
    equal(server.wait(), 0, "kdsrv's exit status")
    return p


def ready(lab, **options):
    """One that runs, and that no host has met."""
    t = stock(lab, **options)
    running(t)
    return t


def patient_and_ready(lab, **options):
    return patient(ready(lab, **options))


def count(text, pattern):
    return len(re.findall(pattern, text, re.M))


def waits(n):
    return "; ".join(["g; ? @eip"] * n)


@cases(STALLS, stalls_name)
def breakpoint_in_a_loop(lab, stall):
    """A breakpoint in a loop is hit again and again"""
    t = ready(lab, stall=stall, print_every=20)
    p = session(lab, t, "bp %x; %s; bl; bc *; db %x L8" % (WORK, waits(6), WORK))
    equal(count(p.out, r"^Breakpoint 0 hit"), 6, "hits")
    equal(count(p.out, r"Evaluate expression: .* = %x$" % WORK), 6, "? @eip")
    matches(r"%x  55 8b ec 41 41 90 5d c3" % WORK, p.out, "code afterwards")
    runs_on(t)
    equal(t.counters()["breakpoints"], 0, "breakpoints left")
    equal(t.memory_at(WORK, 1), b"\x55", "the byte below the breakpoint")


@cases(STALLS, stalls_name)
def steps(lab, stall):
    """t and p, with registers set"""
    t = ready(lab, stall=stall)
    p = session(lab, t, "bp %x; g; bc *; ? @eip; t; ? @eip; t 2; ? @eip; r ebx=12345678; r ebx; "
                "g; .break; r ebx" % WORK)
    pcs = re.findall(r"Evaluate expression: .* = (8\w+)$", p.out, re.M)
    equal(pcs, ["%x" % a for a in (WORK, WORK + 1, WORK + 4)], "program counters")
    equal(count(p.out, r"ebx=12345678"), 2, "ebx")
    runs_on(t)


@test
def step_over_a_call(lab):
    """p over a call runs it"""
    t = ready(lab)
    p = session(lab, t, "bp %x; g; bc *; ? @eip; p; ? @eip" % stocktarget.LOOP)
    pcs = re.findall(r"Evaluate expression: .* = (8\w+)$", p.out, re.M)
    equal(pcs, ["%x" % stocktarget.LOOP, "%x" % (stocktarget.LOOP + 5)], "program counters")
    runs_on(t)
    equal(t.counters()["breakpoints"], 0, "breakpoints left")


@cases(STALLS, stalls_name)
def hard_int3(lab, stall):
    """g over a compiled-in int3"""
    t = ready(lab, stall=stall)
    p = session(lab, t, "r eip=%x; g; ? @eip; r eip=%x; g; .break; ? @eip" %
                (HARD_INT3, stocktarget.LOOP))
    matches(r"= %x\n" % HARD_INT3, p.out, "stop on it")
    runs_on(t)


@test
def memory_with_holes(lab):
    """Reads across pages that are not there, and long ones"""
    t = patient_and_ready(lab, byte_us=0)
    out = lab.path("mem")
    p = session(lab, t, "db %x L20; eb %x 11 22; db %x L2; .writemem %s %x L%x" %
                (HOLE - 0x10, REGION, REGION, out, REGION, 64 * 1024))
    matches(r"%x  (00[ -]){16}.*\n%x  (\?\?[ -]){16}" % (HOLE - 0x10, HOLE), p.out, "the hole")
    matches(r"%x  11 22" % REGION, p.out, "eb")
    with open(out, "rb") as f:
        equal(f.read(), t.memory_at(REGION, 64 * 1024), "64 KiB")
    needless(t)


@test
def unknown_api(lab):
    """An API that the target prints about before it refuses it"""
    t = ready(lab)
    p = session(lab, t, "s %x L100 de ad be ef; rdmsr 10; r eax" % REGION, status=None)
    matches(r"eax=", p.out, "what comes after")
    runs_on(t)


@cases(STALLS, stalls_name)
def prints(lab, stall):
    """Prints while it runs and from within a stop's requests"""
    t = ready(lab, print_every=2, stall=stall)
    p = session(lab, t, "g; .sleep 1500; .break; r eax; g; .sleep 500; .break")
    ticks = [int(n) for n in re.findall(r"^tick (\d+)$", p.out, re.M)]
    check(len(ticks) > 5, "prints: %s" % ticks)
    equal(ticks, sorted(set(ticks)), "each print once, in order")
    runs_on(t)


@cases([1, 50], lambda n: "a print every %d ticks" % n)
def break_twice(lab, every):
    """Broken into again and again"""
    t = ready(lab, print_every=every)
    p = session(lab, t, "; ".join(["g; .break; ? @eip"] * 5))
    equal(count(p.out, r"Evaluate expression: .* = 8059cece$"), 5, "break-ins")
    runs_on(t)


@test
def reboot(lab):
    """.reboot, and the same session goes on"""
    t = patient_and_ready(lab)
    p = session(lab, t, "bp %x; .reboot; .sleep 500; .break; vertarget; lm; bl" % WORK)
    equal(t.counters()["boots"], 2, "boots")
    check(count(p.out, r"^[0-9a-f]{8} [0-9a-f]{8}   \S+ ") >= 1, "lm")
    runs_on(t)


@test
def crash(lab):
    """.crash stops in a bug check that nothing leads out of"""
    t = ready(lab)
    p = session(lab, t, ".crash; r eax; g; r eax; r eip")
    equal(count(p.out, r"eax=0*4\b"), 2, "r eax")
    equal(t.kernel.where, "stopped", "the target")
    check(t.kernel.in_bugcheck, "the bug check")


@test
def killed(lab):
    """kd is killed: its breakpoints go, the target runs, the next attaches"""
    t = ready(lab)
    server = lab.server()
    p = lab.start_kd(server, t, "bp %x; g; .echo here; .sleep 60000" % WORK)
    p.wait_text("here", 10)
    p.kill()
    runs_on(t)
    equal(t.counters()["breakpoints"], 0, "breakpoints left")
    lab.kd(server, t, "vertarget; .endpsrv")
    equal(server.wait(), 0, "kdsrv's exit status")


@test
def quit_while_running(lab):
    """q with a breakpoint in a running target"""
    t = ready(lab)
    server = lab.server()
    lab.kd(server, t, "bp %x; g; q" % stocktarget.HARD_INT3)
    runs_on(t)
    equal(t.counters()["breakpoints"], 0, "breakpoints left")


FAULTS = ["%s:%s:%d:%s" % (way, kind, n, what)
          for way, kind, n, what in [
              ("in", "ack", 5, "lose"), ("out", "ack", 5, "lose"),
              ("in", "data", 5, "cut"), ("out", "data", 5, "cut"),
              ("in", "data", 5, "corrupt"), ("out", "data", 5, "corrupt"),
              ("in", "data", 5, "lose"), ("out", "data", 5, "lose"),
              ("out", "data", 5, "double"), ("out", "data", 5, "noise"),
              ("out", "data", 5, "shift")]] + [
    "out:any:every=3:noise", "in:ack:every=7:lose", "out:data:every=6:corrupt"]


@cases(FAULTS)
def faults(lab, fault):
    """A session with a fault on the line"""
    t = stock(lab)
    running(t)
    t.port.faults.append(stocktarget.Fault(fault))
    p = session(lab, t, "bp %x; g; g; bc *; db %x L10; lm; r ebx=77; r ebx; g; .break; r ebx" %
                (WORK, REGION))
    equal(count(p.out, r"^Breakpoint 0 hit"), 2, "hits")
    matches(r"%x  00 07 0e 15" % REGION, p.out, "db")
    equal(count(p.out, r"ebx=0*77\b"), 2, "ebx")
    check(count(p.out, r"^[0-9a-f]{8} [0-9a-f]{8}   \S+ ") >= 32, "lm")
    check(t.port.faults[0].done, "the fault never came")
    runs_on(t)
    equal(t.counters()["breakpoints"], 0, "breakpoints left")
    equal(t.counters().get("abandoned", 0), 0, "abandoned")


main(needs=("kdsrv", "kd"))
