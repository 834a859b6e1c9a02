#!/usr/bin/env python3
# kdsrv in a Linux guest, on a true 8250 and on an FTDI adapter as their drivers
# show them, with the bare-metal debuggee at the other end of the cable.
# SPDX-License-Identifier: MIT
import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import guestlab
from guestlab import WAIT_S
from kdclient import *
from kdlib import *
from seriallab import Line
from stocklink import DEBUG_IO, ID_FIRST, ID_SYNC, data

KIB = 1024
FIRST_PRINT = struct.pack("<IHHII", 0x3230, 6, 0, 24, 0) + b"kernel debugger on COM1\n"


def make(lab):
    lines = {name: Line(lab) for name in ("uart", "ftdi")}
    options = []
    for name, line in lines.items():
        options += ["-chardev", "serial,id=%s,path=%s" % (name, line.device)]
    guest = guestlab.Guest(lab, [PROGRAMS["kdsrv"]], options + ["-serial", "chardev:uart"])
    guest.lines = lines
    return guest


class Port:
    """A serial port of the guest, the debuggee at the other end of its cable."""

    def __init__(self, lab, name, boot=True):
        self.guest = guestlab.shared(lab, make)
        self.line = self.guest.lines[name]
        self.device = {"uart": "/dev/ttyS1", "ftdi": "/dev/ttyUSB0"}[name]
        if name == "ftdi" and self.guest.sh("test -c " + self.device)[0]:
            self.plug()
        self.trans = "com:port=%s,baud=115200" % self.device
        if boot:
            self.line.machine(lab)

    def plug(self):
        self.guest.monitor.plug("usb-serial", "adapter", chardev="ftdi")
        self.guest.eventually("test -c " + self.device, self.device + " comes")

    def unplug(self):
        self.guest.monitor.unplug("adapter")

    def settings(self):
        return self.guest.ok("stty -F %s -a 2>/dev/null" % self.device)

    def is_free(self):
        """Nobody has it open, and no lock file is left."""
        self.guest.ok("! ls -l /proc/[0-9]*/fd | grep -q '%s$'" % self.device)
        equal(self.guest.ok("ls /var/lock").strip(), "", "lock files")


class Cat:
    """A program of the guest that reads the port, and locks nothing."""

    def __init__(self, lab, port):
        self.guest = port.guest
        self.pid = self.guest.ok(
            "cat %s </dev/null >/dev/null 2>&1 & echo $!" % port.device).strip()
        lab.closing(self)
        self.guest.eventually("ls -l /proc/%s/fd | grep -q %s" % (self.pid, port.device),
                              "cat has it open")

    def close(self):
        self.guest.sh("kill -9 " + self.pid)
        self.guest.eventually("! test -e /proc/%s/fd/0" % self.pid, "cat ends")


def client(lab, server):
    return lab.closing(Client(server))


def objects_of(kd, kind):
    return [o for o in map(json.loads, kd.out.splitlines()) if o["type"] == kind]


@cases(["uart", "ftdi"])
def session(lab, name):
    """a whole session at 115200: reads, breakpoint, step, prints, break-in, reboot, .endpsrv"""
    port = Port(lab, name)
    port.guest.ok("stty -F %s 19200 -echo parenb cstopb" % port.device)
    before = port.settings()
    server = port.guest.server(lab)
    kd = lab.kd(server, port, "vertarget; db nt L2; bp nt+1100; g; g; t; bc *; g; .sleep 1500; "
                ".break; k; .reboot; .break; vertarget; bl; db nt L2", "--json", wait_s=120)
    stops = [(o["reason"], int(o["pc"], 16) & 0xFFFF) for o in objects_of(kd, "stop")]
    equal(stops.count(("breakpoint", 0x1100)), 2, "hits in %s" % stops)
    equal([reason for reason, _ in stops].count("step"), 1, "steps in %s" % stops)
    check(objects_of(kd, "print"), "no prints while it ran")
    check(objects_of(kd, "reboot"), "nobody was told of the reboot")
    dumps = [o["values"] for o in objects_of(kd, "command") if o["command"] == "db nt L2"]
    equal(dumps, [[0x4D, 0x5A]] * 2, "db, before and after the reboot")
    lab.kd(server, None, ".endpsrv")
    equal(server.wait(WAIT_S), 0, "kdsrv's exit status")
    port.is_free()
    equal(port.settings(), before, "settings afterwards")


@test
def lines(lab):
    """in a session DTR and RTS are on, another kdsrv finds it busy; lock file"""
    port = Port(lab, "uart")

    def on():
        line = port.guest.ok("grep ^1: /proc/tty/driver/serial")
        return {name for name in ("RTS", "DTR") if name in line}
    equal(on(), set(), "lines before")
    server = port.guest.server(lab)
    c = client(lab, server).attach(port, timeout_s=WAIT_S)
    equal(on(), {"RTS", "DTR"}, "lines in a session")
    reply = client(lab, port.guest.server(lab, port=5006)).open(port)
    equal(reply.err, BUSY, "OPEN by another kdsrv: %s" % reply.text)
    matches(r"ttyS1\S*: busy, held by kdsrv \(pid \d+\)", reply.text, "why")
    holder = port.guest.ok("cat /proc/$(tr -d ' ' </var/lock/LCK..ttyS1)/comm").strip()
    equal(holder, "kdsrv", "the holder of the lock file")
    equal(c.call(END_SERVER).err, OK, "END_SERVER")
    equal(server.wait(WAIT_S), 0, "kdsrv's exit status")
    equal(on(), set(), "lines after")
    port.is_free()


@cases(["uart", "ftdi"])
def read_by_another(lab, name):
    """a program reads the port and locks nothing: busy, until it ends"""
    port = Port(lab, name, boot=False)
    c = client(lab, port.guest.server(lab))
    cat = Cat(lab, port)
    reply = c.open(port)
    equal(reply.err, BUSY, "OPEN: %s" % reply.text)
    matches(r"%s\S*: busy, held by cat \(pid %s\)$" % (port.device, cat.pid), reply.text, "why")
    cat.close()
    equal(c.open(port).err, OK, "OPEN of the free port")


@test
def open_in_the_shell(lab):
    """the shell that started kdsrv has the port open: the client is warned, and has its session"""
    port = Port(lab, "uart")
    shell = ["sh", "-c", 'exec 3<>%s; shift; kdsrv "$@"; exit $?' % port.device, "sh"]
    server = Server(lab, "--allow", "*", transports=["tcp:port=5005"], ready_s=WAIT_S,
                    wrap=port.guest.wrap + shell)
    server.port = port.guest.port_of(5005)
    c = client(lab, server).attach(port, timeout_s=WAIT_S)
    warned = c.wait_event(EV_NOTICE, WAIT_S, since=0)
    matches(r"^sh \(pid \d+\), from which this program was started, has /dev/ttyS1 open, too; "
            r"if it reads, bytes of the target are lost$", take_text(warned, 1)[0], "the warning")
    server.wait_text(r"^kdsrv: target: .* sh \(pid .*has /dev/ttyS1 open, too", WAIT_S, "err")
    equal(c.call(END_SERVER).err, OK, "END_SERVER")
    equal(server.wait(WAIT_S), 0, "kdsrv's exit status")


@test
def read_by_another_when_back(lab):
    """the adapter comes back, and another program is faster: the client is told, and waits"""
    port = Port(lab, "ftdi")
    c = client(lab, port.guest.server(lab)).attach(port.trans + ",reconnect", timeout_s=WAIT_S)
    port.unplug()
    c.wait_link(WAITING, WAIT_S)
    port.guest.eventually("test ! -e /dev/ttyUSB0", "/dev/ttyUSB0 goes")
    port.guest.ok("killall -STOP kdsrv")
    port.plug()
    cat = Cat(lab, port)
    port.guest.ok("killall -CONT kdsrv")
    matches(r"^busy, held by cat \(pid %s\)$" % cat.pid, c.wait_link(WAITING, WAIT_S), "why")
    cat.close()
    c.wait_link(UP, WAIT_S)


@cases(["uart", "ftdi"])
def bulk(lab, name):
    """16 KiB at 115200 are right, and few packets damaged"""
    port = Port(lab, name)
    c = client(lab, port.guest.server(lab)).attach(port, timeout_s=WAIT_S)
    equal(port.line.guest_baud(), 115200, "the speed on the line")
    s = c.stats()
    check(c.read(s["region"], 16 * KIB) == region(0, 16 * KIB), "the contents are wrong")
    # A packet that pauses is given up: where nobody gets a processor, that happens to some. A
    # line that loses bytes damages most of them.
    t = c.stats()
    bad, got = t["bad"] - s["bad"], t["received"] - s["received"]
    check(bad * 4 <= got, "%d bad packets of %d" % (bad, got))


@cases(["uart", "ftdi"])
def break_signal(lab, name):
    """a break signal on the line does a session no harm"""
    port = Port(lab, name)
    c = client(lab, port.guest.server(lab)).attach(port, timeout_s=WAIT_S)
    s = c.stats()
    for _ in range(3):
        port.guest.monitor.human("chardev-send-break " + name)
        check(c.read(s["region"], KIB) == region(0, KIB), "the contents are wrong")
    number = c.send(READ, c.read_request((s["region"], 8 * KIB)))
    port.guest.monitor.human("chardev-send-break " + name)
    reply = c.wait_reply(number, WAIT_S)
    check(reply.data == region(0, 8 * KIB), "contents, read during a break: %s" % reply)


@test
def unplugged(lab):
    """the adapter leaves in the middle of a read and comes back: the session goes on"""
    port = Port(lab, "ftdi")
    c = client(lab, port.guest.server(lab)).attach(port.trans + ",reconnect", timeout_s=WAIT_S)
    s = c.stats()
    number = c.send(READ, c.read_request((s["region"], 64 * KIB)))
    while not c.parts.get(number):
        c.receive(time.monotonic() + WAIT_S)
    port.unplug()
    why = c.wait_link(WAITING, WAIT_S)
    matches("/dev/ttyUSB0", why, "why the link is down")
    check(c.wait_reply(number).err != OK, "the read succeeded")
    port.guest.eventually("test ! -e /dev/ttyUSB0", "/dev/ttyUSB0 goes")
    port.plug()
    c.wait_link(UP, WAIT_S)
    c.send(BREAK)
    c.wait_event(EV_STOPPED, WAIT_S)
    check(c.read(s["region"], KIB) == region(0, KIB), "the contents are wrong")


@test
def unplugged_for_good(lab):
    """the adapter leaves and nobody asked to wait for it: the target is gone, the server stays"""
    port = Port(lab, "ftdi")
    server = port.guest.server(lab)
    c = client(lab, server).attach(port, timeout_s=WAIT_S)
    port.unplug()
    matches("/dev/ttyUSB0", c.wait_link(LINK_GONE, WAIT_S), "why the link is down")
    equal(c.call(CLOSE).err, OK, "CLOSE")
    reply = c.open(port)
    equal(reply.err, NOT_FOUND, "OPEN without the adapter: %s" % reply.text)
    equal(c.call(END_SERVER).err, OK, "END_SERVER")
    equal(server.wait(WAIT_S), 0, "kdsrv's exit status")
    equal(port.guest.ok("ls /var/lock").strip(), "", "lock files")


@cases(["uart", "ftdi"])
def wrong_baud(lab, name):
    """the wrong baud rate: no session, no harm; the right one: a session"""
    port = Port(lab, name, boot=False)
    server = port.guest.server(lab)
    c = client(lab, server)
    reply = c.open("com:port=%s,baud=38400" % port.device)
    equal(reply.err, OK, "OPEN: %s" % reply.text)
    equal(port.line.guest_baud(), 38400, "the speed of our end")
    # A machine that boots with nobody to answer talks for an eighth of a second only.
    with port.line.plug() as target:
        target.settimeout(WAIT_S)
        target.sendall(data(DEBUG_IO, ID_FIRST | ID_SYNC, FIRST_PRINT) * 20)
        server.wait_text("the target sends bytes that are no KD packets: wrong baud rate", WAIT_S,
                         "err")
    equal([n for n in c.event_names() if n in ("90", "91")], [], "what was understood")
    equal(c.call(CLOSE).err, OK, "CLOSE")
    port.guest.eventually("test ! -e /var/lock/LCK..%s" % os.path.basename(port.device),
                          "the port is free")
    port.line.machine(lab)
    c.attach(port, timeout_s=WAIT_S)
    equal(port.line.guest_baud(), 115200, "the speed of our end")


@test
def impossible_baud(lab):
    """a speed that the UART does not have is refused; the message says which it took"""
    port = Port(lab, "uart")
    port.guest.ok("stty -F /dev/ttyS1 57600")
    c = client(lab, port.guest.server(lab))
    reply = c.open("com:port=/dev/ttyS1,baud=921600")
    equal(reply.err, INVALID, "OPEN: %s" % reply.text)
    matches("wanted baud=921600, but the port does 57600", reply.text, "what it says")
    port.is_free()


if __name__ == "__main__":
    try:
        main(needs=("kdsrv", "kd"))
    finally:
        guestlab.close_shared()
