#!/usr/bin/env python3
# kdsrv in a Linux guest, on debug cables behind a real xHCI driver, usbfs and
# libusb. The devices are emulated, their debuggees are kdtarget.
# SPDX-License-Identifier: MIT
import json
import os
import re
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import guestlab
from guestlab import WAIT_S
from kdclient import *
from usblab import *

KIB, MIB = 1 << 10, 1 << 20
PORTS = 2  # of the guest's xHCI: 2-1 and 2-2
REBOOT = 0x313B
RULES = os.path.join(TOP_SRC, "hw-fixtures/rig/70-kdsrv.rules")


def make(lab):
    if not has_driver("usb"):
        raise Skip("built without the usb driver")
    sockets, options = [], []
    for n in range(PORTS):
        sockets.append(lab.path("redir"))
        options += ["-chardev", "socket,id=redir%d,path=%s,server=on,wait=off" % (n, sockets[n]),
                    "-device", "usb-redir,chardev=redir%d,bus=xhci.0,port=%d" % (n, n + 1)]
    guest = guestlab.Guest(lab, [PROGRAMS["kdsrv"]], options)
    guest.sockets = sockets
    return guest


class Cable:
    """A debuggee on a debug cable in one of the guest's ports. kind: KDUSB or EEM."""

    def __init__(self, lab, kind, *options, at=1, redir=(), **who):
        self.guest = guestlab.shared(lab, make)
        self.path = "2-%d" % at
        self.device = guestlab.UsbDevice(lab, self.guest.sockets[at - 1], *kind.port, *redir)
        self.target = kind.target(lab, self.device.cable, "--print-every", "300", *options, **who)
        self.trans = self.target.trans

    def by_path(self):
        """As where nothing else tells devices apart."""
        self.trans += {"usb": ",path=", "net": "="}[self.trans[:3]] + self.path
        return self

    def there(self):
        """Waits until the guest's kernel knows it."""
        self.guest.eventually("test -s /sys/bus/usb/devices/%s/product" % self.path,
                              "the device at %s comes" % self.path)
        return self

    def gone(self):
        self.guest.eventually("test ! -e /sys/bus/usb/devices/%s" % self.path,
                              "the device at %s goes" % self.path)

    def number(self):
        """Its address on the bus."""
        return int(self.guest.ok("cat /sys/bus/usb/devices/%s/devnum" % self.path))

    def driver(self):
        """Of the kernel, at its interface."""
        return self.guest.ok("basename $(readlink /sys/bus/usb/devices/%s:1.0/driver || echo none)"
                             % self.path).strip()


class Uevents:
    """What the guest's kernel does about a cable's device, from now on. "bind" comes when it is
    configured."""

    def __init__(self, lab, cable):
        self.path, self.seen = cable.path, 0
        self.monitor = cable.guest.start(lab, "udevadm", "monitor", "--kernel",
                                         "--subsystem-match=usb/usb_device")
        self.monitor.wait_text("^KERNEL", WAIT_S)

    def wait(self, action):
        event = self.monitor.wait_text(r"^KERNEL\S* %s +\S*/%s \(usb\)\n" % (action, self.path),
                                       WAIT_S, start=self.seen)
        self.seen += event.end()


def client(lab, server):
    return lab.closing(Client(server))


def attached(lab, cable, *options):
    return client(lab, cable.guest.server(lab, *options)).attach(cable, timeout_s=WAIT_S)


def reads(c, length=64 * KIB):
    """The region for bulk reads is what it must be."""
    check(c.read(c.stats()["region"], length) == region(0, length), "the contents are wrong")


def end(c, server):
    equal(c.call(END_SERVER).err, OK, "END_SERVER")
    equal(server.wait(WAIT_S), 0, "kdsrv's exit status")


def objects_of(kd, kind):
    return [o for o in map(json.loads, kd.out.splitlines()) if o["type"] == kind]


@cases(BOTH)
def session(lab, kind):
    """a whole session: reads, breakpoint, step, prints, break-in, reboot, .endpsrv"""
    cable = Cable(lab, kind).there()
    server = cable.guest.server(lab)
    kd = lab.kd(server, cable, "vertarget; db nt L2; bp nt+1100; g; g; t; bc *; g; .sleep 1500; "
                ".break; k; .reboot; .break; vertarget; bl; db nt L2", "--json", wait_s=120)
    stops = [(o["reason"], int(o["pc"], 16) & 0xFFFF) for o in objects_of(kd, "stop")]
    equal(stops.count(("breakpoint", 0x1100)), 2, "hits in %s" % stops)
    equal([reason for reason, _ in stops].count("step"), 1, "steps in %s" % stops)
    check(objects_of(kd, "print"), "no prints while it ran")
    check(objects_of(kd, "reboot"), "nobody was told of the reboot")
    dumps = [o["values"] for o in objects_of(kd, "command") if o["command"] == "db nt L2"]
    equal(dumps, [[0x4D, 0x5A]] * 2, "db, before and after the reboot")
    equal(cable.guest.ok("cat /sys/bus/usb/devices/2-1/speed").strip(), "5000", "Mb/s")
    lab.kd(server, None, ".endpsrv")
    equal(server.wait(WAIT_S), 0, "kdsrv's exit status")
    equal(cable.driver(), "none", "who has the interface afterwards")
    status = cable.device.status()
    equal((status["plugs"], status["stray_clear_halts"]), (2, 0), "the device: %s" % status)


@cases(BOTH)
def faults(lab, kind):
    """stalls, transaction errors, overflow: the session survives each, and halts nothing twice"""
    cable = Cable(lab, kind).there()
    c = attached(lab, cable)
    halts = 0
    for command in ("stall in", "stall out", "ioerror in", "ioerror out", "ioerror in 3",
                    "overflow", "stall in"):
        cable.device.command("wait reading")
        cable.device.command(command)
        reads(c)
        halts += command.startswith("stall")
        status = cable.device.status()
        equal((status["plugs"], status["clear_halts"], status["stray_clear_halts"]),
              (1, halts, 0), "after %s: %s" % (command, status))


@cases(BOTH)
def unplugged(lab, kind):
    """unplugged in the middle of a read, and back with a new address: the session goes on"""
    cable = Cable(lab, kind).there()
    before = cable.number()
    c = attached(lab, cable)
    start = c.stats()["region"]
    number = c.send(READ, c.read_request((start, 16 * MIB)))
    while not c.parts.get(number):
        c.receive(time.monotonic() + WAIT_S)
    cable.device.command("unplug")
    why = c.wait_link(WAITING, WAIT_S)
    matches(r"2-1 \(%s\): unplugged" % kind.id, why, "why the link is down")
    check(c.wait_reply(number, WAIT_S).err != OK, "the read succeeded")
    cable.device.command("plug")
    c.wait_link(UP, WAIT_S)
    c.wait_event(EV_STOPPED, WAIT_S)
    check(cable.there().number() != before, "it has the same address")
    reads(c)


def reboot(c):
    c.send(MANIPULATE, struct.pack("<IHHII40x", REBOOT, 0, 0, 0x103, 0))
    c.wait_event(EV_REBOOT, WAIT_S)


def works_again(c):
    """The machine may have booted while its device was away: then only a break-in is answered."""
    c.send(BREAK)
    c.wait_event(EV_STOPPED, WAIT_S)
    c.version()
    reads(c)


@cases(BOTH)
def reboot_storm(lab, kind):
    """ten re-enumerations in a reboot, each with a new address: the user's session stays"""
    cable = Cable(lab, kind).there()
    c = attached(lab, cable)
    before = cable.number()
    bus = Uevents(lab, cable)
    reboot(c)
    for _ in range(10):
        cable.device.command("unplug")
        bus.wait("remove")
        cable.device.command("plug")
        bus.wait("bind")
    works_again(c)
    check(cable.number() >= before + 10, "address %d, then %d" % (before, cable.number()))


@test
def impatient(lab):
    """a target that leaves while the kernel still asks for its descriptors, twice a boot"""
    # QEMU's xHCI drops the request, and the kernel waits 5 s for it, in vain.
    cable = Cable(lab, KDUSB, "--replug", "2").there()
    c = attached(lab, cable)
    reboot(c)
    works_again(c)
    plugs = cable.device.status()["plugs"]
    check(plugs >= 6, "it came %d times" % plugs)


@cases(BOTH)
def two(lab, kind):
    """two devices at once, alike but for names or keys: each client has its own"""
    cables = [Cable(lab, kind, "--seed", str(n), at=n, **kind.who(n)).there() for n in (1, 2)]
    server = cables[0].guest.server(lab)
    clients = [client(lab, server) for _ in cables]
    for c, cable in zip(clients, reversed(cables)):
        c.attach(cable if kind is KDUSB else cable.by_path(), timeout_s=WAIT_S)
    for c, seed in zip(clients, (2, 1)):
        start = c.stats()["region"]
        check(c.read(start, 64 * KIB) == region(0, 64 * KIB, seed), "%d: wrong contents" % seed)
    end(clients[0], server)


@cases(((KDUSB, "usb:targetname=rack5", r"2-1 \(3495:00e0\) calls itself rack1; waiting for rack5"),
        (EEM, "net:port=50005,key=a.b.c.9,usb", "the key is not the target's.*usb=PATH")),
       name=lambda case: str(case[0]))
def wrong_who(lab, case):
    """another name or key than the target's: it is said, and nothing else comes of it"""
    kind, trans, said = case
    cable = Cable(lab, kind, **kind.who(1)).there()
    server = cable.guest.server(lab)
    c = client(lab, server)
    equal(c.open(trans).err, OK, "OPEN")
    c.wait_event(EV_NOTICE, WAIT_S, lambda body: re.search(said, body.decode("latin-1")))
    equal(c.call(CLOSE).err, OK, "CLOSE")
    c.attach(cable, timeout_s=WAIT_S)


@cases(BOTH)
def busy(lab, kind):
    """another kdsrv has the device: who it is; when that has ended, the device is free"""
    cable = Cable(lab, kind).there()
    first = cable.guest.server(lab)
    a = client(lab, first).attach(cable, timeout_s=WAIT_S)
    b = client(lab, cable.guest.server(lab, port=5006))
    reply = b.open(cable)
    equal(reply.err, BUSY, "OPEN: %s" % reply.text)
    matches(r"2-1: busy, held by kdsrv \(pid \d+\)", reply.text, "why")
    end(a, first)
    b.attach(cable, timeout_s=WAIT_S)


@test
def listed(lab):
    """kdsrv --list-ports: one device in use, and by whom, and one that is free"""
    cables = [Cable(lab, kind, at=n).there() for n, kind in enumerate(BOTH, 1)]
    attached(lab, cables[0])
    ports = json.loads(cables[0].guest.ok("kdsrv --list-ports --json"))
    keys = ("path", "usb_id", "speed_mbps", "usable", "product", "trans", "state", "holder")
    equal([tuple(p[k] for k in keys) for p in ports["usb"]],
          [("2-1", KDUSB.id, 5000, True, "KDUSB USB3 XHCI Debug",
            "usb:targetname=NAME,path=2-1", "busy", "kdsrv"),
           ("2-2", EEM.id, 5000, True, "KDUSB USB3 XHCI Debug",
            "net:port=N,key=KEY,usb=2-2", "free", None)], "USB devices")
    equal(ports["errors"], {"serial": None, "usb": None, "network": None}, "errors")


@test
def driver(lab):
    """the kernel's usb_debug has the device: it is detached for the session, and attached again"""
    guestlab.shared(lab, make).load("usb_debug")
    cable = Cable(lab, KDUSB, redir=["--id", "1d6b:0010"])
    cable.guest.eventually("test -c /dev/ttyUSB0", "usb_debug makes a tty")
    equal(cable.driver(), "usb_debug", "the driver before")
    server = cable.guest.server(lab)
    c = client(lab, server).attach(cable.trans + ",id=1d6b:0010", timeout_s=WAIT_S)
    equal(cable.driver(), "usbfs", "the driver in a session")
    reads(c)
    end(c, server)
    equal(cable.driver(), "usb_debug", "the driver after it")


@test
def permission(lab):
    """no right to the node: the missing udev rule is named; with that rule in place it works"""
    cable = Cable(lab, KDUSB).there()
    server = cable.guest.server(lab, user="guest")
    c = client(lab, server)
    reply = c.open(cable)
    equal(reply.err, DENIED, "OPEN: %s" % reply.text)
    matches(r"70-kdsrv.rules.*3495.*00e0", reply.text, "what to do")
    with open(RULES, "rb") as f:
        cable.guest.put("/etc/udev/rules.d/70-kdsrv.rules", f.read())
    try:
        cable.guest.ok("udevadm control --reload")
        cable.device.command("unplug")
        cable.device.command("plug")
        cable.guest.eventually("ls -l /dev/bus/usb/002 | grep -q dialout", "the rule works")
        c.attach(cable, timeout_s=WAIT_S)
        reads(c)
    finally:
        cable.guest.ok("rm /etc/udev/rules.d/*; udevadm control --reload")


@test
def descriptors(lab):
    """our id, other descriptors: refused with the reason"""
    server = guestlab.shared(lab, make).server(lab)
    c = client(lab, server)
    for kind in "no-bulk", "other-class", "wrong-lengths":
        cable = Cable(lab, KDUSB, redir=["--descriptors", kind]).there()
        reply = c.open(cable)
        equal(reply.err, INVALID, "OPEN, %s: %s" % (kind, reply.text))
        matches("2-1 .*not a debug device", reply.text, kind)
        cable.device.kill()
        cable.gone()


@test
def names_without_end(lab):
    """names that fill all that a descriptor can hold: listed as they are, and served"""
    cable = Cable(lab, KDUSB, redir=["--descriptors", "endless-names"]).there()
    port, = json.loads(cable.guest.ok("kdsrv --list-ports --json"))["usb"]
    equal((port["usable"], port["product"]), (True, "A" * 126), "in the list")
    reads(attached(lab, cable))


@test
def kernel_refuses(lab):
    """a configuration of 65535 bytes: the kernel gives the device up, and kdsrv waits for one"""
    guest = guestlab.shared(lab, make)
    guest.ok("dmesg -c")
    cable = Cable(lab, KDUSB, redir=["--descriptors", "absurd-lengths"])
    guest.eventually("dmesg | grep -q 'usb2-port1: unable to enumerate'", "the kernel gives up")
    c = client(lab, guest.server(lab))
    equal(c.open(cable).err, OK, "OPEN")
    matches("no USB debug device 3495:00e0", c.wait_link(WAITING, WAIT_S), "what is waited for")


if __name__ == "__main__":
    try:
        main(needs=("kdsrv", "kd", "kdtarget"))
    finally:
        guestlab.close_shared()
