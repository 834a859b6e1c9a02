#!/usr/bin/env python3
# kdloop in a Linux guest: on a true 8250 as its driver shows it, with a loopback
# plug, and at both ends of a null-modem cable. SPDX-License-Identifier: MIT
import os
import socket
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import guestlab
from kdlib import *
from looplab import *


class Plug:
    """A socket that returns what it gets: a loopback plug for QEMU's UART."""

    def __init__(self, path):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        threading.Thread(target=self.carry, daemon=True).start()

    def carry(self):
        try:
            s = self.listener.accept()[0]
            while data := s.recv(4096):
                s.sendall(data)
        except OSError:
            pass

    def close(self):
        self.listener.close()


def make(lab):
    plug, cable = lab.path("plug"), lab.path("cable")
    lab.closing(Plug(plug))
    return guestlab.Guest(lab, [PROGRAMS["kdloop"]], [
        "-chardev", "socket,id=plug,path=" + plug, "-serial", "chardev:plug",
        "-chardev", "socket,id=here,path=%s,server=on,wait=off" % cable, "-serial", "chardev:here",
        "-chardev", "socket,id=there,path=" + cable, "-serial", "chardev:there"])


def until_well(run, names):
    """The reports of the first run in which these checks pass. On a busy machine the emulated
    processor stands still for longer than kdloop waits for a byte, but not each time."""
    for _ in range(3):
        reports = run()
        if all(r.checks.get(name, {}).get("verdict") == "PASS" for r in reports for name in names):
            break
    for r in reports:
        for name in names:
            equal(r.verdict(name), "PASS", "%s (%s)" % (name, r.checks[name]["what"]))
    return reports


@test
@slow(240)
def plug(lab):
    """a true 8250 with a loopback plug"""
    guest = guestlab.shared(lab, make)

    def run():
        _, out = guest.sh("kdloop com:port=/dev/ttyS1 --mode plug --duration 6 --json", 50)
        return [Report(out)]
    r, = until_well(run, ["silence", "tx-rx", "byte-values", "baud-9600", "baud-115200"])
    check(r.link["facts"]["driver"] in ("serial", "serial8250"), "its driver is known")
    # QEMU's UART has its modem inputs always on.
    r.says("rts-cts", "WARN", r"RTS does not reach CTS \(always on\)")
    matches(r"230400", r.link["facts"]["not its speeds"], "a 16550A ends at 115200")
    check(r.link["latency"][0]["count"] >= 100, "round trips")
    equal(guest.ok("ls /var/lock").strip(), "", "lock files")


@test
def look(lab):
    """what is seen of it, and who has it open"""
    guest = guestlab.shared(lab, make)
    out = guest.ok("kdloop com:port=/dev/ttyS1")
    matches(r"free; nothing was sent", out, "a free port")
    holder = "exec 3</dev/ttyS1; sleep 60 & p=$!; exec 3<&-; "  # has it before kdloop looks
    out = guest.ok(holder + "kdloop com:port=/dev/ttyS1; kill $p")
    matches(r"WARN  port +busy, held by \S+ \(pid \d+\)", out, "one that locks nothing")
    status, out = guest.sh(holder + "kdloop com:port=/dev/ttyS1 --mode plug; s=$?; kill $p; "
                           "exit $s")
    equal(status, 3, "exit status of %s" % out)


@test
@slow(240)
def peer(lab):
    """two of them at the ends of a cable"""
    guest = guestlab.shared(lab, make)

    def run():
        out = guest.ok("kdloop com:port=/dev/ttyS2 --mode peer --duration 6 --json >/tmp/a & "
                       "kdloop com:port=/dev/ttyS3 --mode peer --duration 6 --json >/tmp/b; wait; "
                       "cat /tmp/a; echo SPLIT; cat /tmp/b", 55)
        return [Report(text) for text in out.split("SPLIT")]
    until_well(run, ["peer", "byte-values", "baud-115200-out", "baud-115200-in"])


if __name__ == "__main__":
    try:
        main(needs=("kdloop",))
    finally:
        guestlab.close_shared()
