#!/usr/bin/env python3
# How sessions and servers end: each row of the table in kdsrv(8), TEARDOWN.
# SPDX-License-Identifier: MIT
import os
import signal
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdclient import *
from kdlib import *

END_S = 5  # the bound of .endpsrv and of signals


def expect_clean(lab, server, target, address, byte):
    """The next client attaches at once, finds no breakpoint, and it runs."""
    began = time.monotonic()
    c = lab.closing(Client(server, who="next"))
    c.attach(target, 0)
    c.wait_event(EV_PRINT, 5)  # so it runs
    c.send(BREAK)
    c.wait_event(EV_STOPPED, 5)
    check(time.monotonic() - began < 5, "attaching took %g s" % (time.monotonic() - began))
    c.version()
    equal(c.read(address, 1), byte, "where the breakpoint was")
    c.go()
    c.wait_event(EV_PRINT, 5)
    equal(c.call(CLOSE).err, OK, "CLOSE")


UNUSED = 0x3000  # a place in the kernel image that no program comes by


def stopped_with_breakpoint(lab, server, target, offset=None):
    """The client, the address of the breakpoint, and the byte that was there."""
    c = lab.closing(Client(server, who="first"))
    c.attach(target)
    address = c.work() if offset is None else c.base + offset
    byte = c.read(address, 1)
    c.set_breakpoint(address)
    equal(c.read(address, 1), b"\xcc", "the breakpoint in memory")
    return c, address, byte


@test
def close_while_stopped(lab):
    """CLOSE of a stopped target: breakpoints out, it runs, the next attaches"""
    server, target = lab.server(), lab.target("--print-every", "50")
    c, address, byte = stopped_with_breakpoint(lab, server, target)
    c.ok(CLOSE)
    quiet = len(c.events)
    expect_clean(lab, server, target, address, byte)
    c.ok(PING)
    equal(c.event_names()[quiet:], [], "events after CLOSE")
    equal(c.open(target, 0).err, OK, "OPEN after CLOSE")


def hang_up(c):
    c.close()


def hit_breakpoint(c):
    c.go()
    c.wait_event(EV_STOPPED)
    equal(c.pc()[0], c.work(), "pc at the breakpoint")


def in_bulk_read(c):
    region_at = c.stats()["region"]
    c.send(READ, c.read_request((region_at, 8 << 20)))
    while not c.parts:
        c.receive(time.monotonic() + 10)


def in_many_requests(c):
    for _ in range(300):
        c.send(READ, c.read_request((c.base, 64)))


def in_half_a_frame(c):
    c.s.sendall(c.frame(READ, c.read_request((c.base, 64)))[0][:17])


def running(c):
    c.go()


def breaking_in(c):
    c.go()
    c.send(BREAK)


@cases([hang_up, hit_breakpoint, in_bulk_read, in_many_requests, in_half_a_frame, running,
        breaking_in], lambda f: f.__name__)
def killed(lab, moment):
    """client dies with breakpoints set"""
    server, target = lab.server(), lab.target("--print-every", "50")
    c, address, byte = stopped_with_breakpoint(
        lab, server, target, UNUSED if moment in (running, breaking_in) else None)
    moment(c)
    c.close()
    expect_clean(lab, server, target, address, byte)


if __name__ == "__main__":
    main()
