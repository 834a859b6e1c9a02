#!/usr/bin/env python3
# kdsrv in a Linux guest, on debug cables behind a real xHCI driver, usbfs and
# libusb. The devices are emulated, their debuggees are kdtarget.
# SPDX-License-Identifier: MIT
import json
import os
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import guestlab
from kdclient import *
from kdlib import *

KIB, MIB = 1 << 10, 1 << 20
NET_KEY = "2steg4fzbj2sz.23418vzkd4ko3.1g34ou07z4pev.1sp3yo9yz874p"
PORTS = 2  # of the guest's xHCI: 2-1 and 2-2
REBOOT = 0x313B
# A device that leaves while the kernel asks for its descriptors costs 5 s each time: QEMU's xHCI
# drops the request, and the kernel waits for it in vain.
ENUMERATION_S = 60
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
    """A debuggee on a debug cable in one of the guest's ports."""

    def __init__(self, lab, *options, name="rack5", port=1, net=None, redir=()):
        self.guest = guestlab.shared(lab, make)
        self.path = "2-%d" % port
        self.device = guestlab.UsbDevice(lab, self.guest.sockets[port - 1], *redir)
        self.trans = "usb:targetname=" + name
        who = ["--name", name]
        if net:
            who = ["-k", "net:port=%d,key=%s" % (net, NET_KEY), "--poke-every", "100"]
            self.trans = "net:port=%d,key=%s,usb" % (net, NET_KEY)
        self.target = Proc(lab, "kdtarget", [PROGRAMS["kdtarget"], "--usb", self.device.cable] +
                           who + ["--print-every", "300"] + list(options), expect=None)
        self.target.wait_text("^kdtarget: ready")

    def there(self):
        """Waits until the guest's kernel knows it."""
        self.guest.eventually("test -s /sys/bus/usb/devices/%s/product" % self.path,
                              "the device at %s comes" % self.path, ENUMERATION_S)
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


def client(lab, server):
    return lab.closing(Client(server))


def attached(lab, cable, *options):
    return client(lab, cable.guest.server(lab, *options)).attach(cable, timeout_s=30)


def reads(c, length=256 * KIB):
    """The region for bulk reads is what it must be."""
    check(c.read(c.stats()["region"], length) == region(0, length), "the contents are wrong")


def end(c, server):
    equal(c.call(END_SERVER).err, OK, "END_SERVER")
    equal(server.wait(30), 0, "kdsrv's exit status")


def objects_of(kd, kind):
    return [o for o in map(json.loads, kd.out.splitlines()) if o["type"] == kind]


@test
def session(lab):
    """a whole session: reads, breakpoint, step, prints, break-in, reboot, .endpsrv"""
    cable = Cable(lab).there()
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
    equal(server.wait(30), 0, "kdsrv's exit status")
    equal(cable.driver(), "none", "who has the interface afterwards")
    status = cable.device.status()
    equal((status["plugs"], status["stray_clear_halts"]), (2, 0), "the device: %s" % status)


@test
def faults(lab):
    """stalls, transaction errors, overflow: the session survives each, and halts nothing twice"""
    cable = Cable(lab).there()
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


@test
def unplugged(lab):
    """unplugged in the middle of a read, and back with a new address: the session goes on"""
    cable = Cable(lab).there()
    before = cable.number()
    c = attached(lab, cable)
    start = c.stats()["region"]
    number = c.send(READ, c.read_request((start, 16 * MIB)))
    while not c.parts.get(number):
        c.receive(time.monotonic() + 20)
    cable.device.command("unplug")
    why = c.wait_link(WAITING, 20)
    matches(r"2-1 \(3495:00e0\): unplugged", why, "why the link is down")
    check(c.wait_reply(number, 30).err != OK, "the read succeeded")
    cable.device.command("plug")
    c.wait_link(UP, ENUMERATION_S)
    c.wait_event(EV_STOPPED, 20)
    check(cable.there().number() != before, "it has the same address")
    reads(c)


def reboot(c):
    c.send(MANIPULATE, struct.pack("<IHHII40x", REBOOT, 0, 0, 0x103, 0))
    c.wait_event(EV_REBOOT, 20)


def works_again(c):
    """The machine may have booted while its device was away: then only a break-in is answered."""
    c.send(BREAK)
    c.wait_event(EV_STOPPED, ENUMERATION_S)
    c.version()
    reads(c)


@test
def reboot_storm(lab):
    """ten re-enumerations in a reboot, each with a new address: the user's session stays"""
    cable = Cable(lab).there()
    c = attached(lab, cable)
    before = cable.number()
    reboot(c)
    for _ in range(10):
        cable.device.command("unplug")
        cable.gone()
        cable.device.command("plug")
        cable.there()
    works_again(c)
    check(cable.number() >= before + 10, "address %d, then %d" % (before, cable.number()))


@test
def impatient(lab):
    """a target that leaves while the kernel still asks for its descriptors, twice a boot"""
    cable = Cable(lab, "--replug", "2").there()
    c = attached(lab, cable)
    reboot(c)
    works_again(c)
    plugs = cable.device.status()["plugs"]
    check(plugs >= 6, "it came %d times" % plugs)


@test
def two(lab):
    """two devices at once, alike but for their names: each client has its own"""
    cables = [Cable(lab, "--seed", str(n), name="rack%d" % n, port=n).there() for n in (1, 2)]
    server = cables[0].guest.server(lab)
    clients = [client(lab, server) for _ in cables]
    for c, cable in zip(clients, reversed(cables)):
        c.attach(cable, timeout_s=30)
    for c, seed in zip(clients, (2, 1)):
        start = c.stats()["region"]
        check(c.read(start, MIB) == region(0, MIB, seed), "rack%d: wrong contents" % seed)
    end(clients[0], server)


@test
def wrong_name(lab):
    """another name than the one asked for: it says which there is, and waits"""
    cable = Cable(lab, name="rack6").there()
    server = cable.guest.server(lab)
    c = client(lab, server)
    equal(c.open("usb:targetname=rack5").err, OK, "OPEN")
    notice = c.wait_event(EV_NOTICE, 20)
    matches(r"2-1 \(3495:00e0\) calls itself rack6; waiting for rack5", notice.decode("latin-1"),
            "notice")
    equal(c.call(CLOSE).err, OK, "CLOSE")
    c.attach(cable, timeout_s=30)


@test
def busy(lab):
    """another kdsrv has the device: who it is; when that has ended, the device is free"""
    cable = Cable(lab).there()
    first = cable.guest.server(lab)
    a = client(lab, first).attach(cable, timeout_s=30)
    b = client(lab, cable.guest.server(lab, port=5006))
    reply = b.open(cable)
    equal(reply.err, BUSY, "OPEN: %s" % reply.text)
    matches(r"2-1: busy, held by kdsrv \(pid \d+\)", reply.text, "why")
    end(a, first)
    b.attach(cable, timeout_s=30)


@test
def listed(lab):
    """kdsrv --list-ports: one device in use, and by whom, and one that is free"""
    cables = [Cable(lab, name="rack%d" % n, port=n).there() for n in (1, 2)]
    attached(lab, cables[0])
    ports = json.loads(cables[0].guest.ok("kdsrv --list-ports --json"))
    keys = ("path", "usb_id", "speed_mbps", "usable", "product", "trans", "state", "holder")
    equal([tuple(p[k] for k in keys) for p in ports["usb"]],
          [("2-1", "3495:00e0", 5000, True, "KDUSB USB3 XHCI Debug",
            "usb:targetname=NAME,path=2-1", "busy", "kdsrv"),
           ("2-2", "3495:00e0", 5000, True, "KDUSB USB3 XHCI Debug",
            "usb:targetname=NAME,path=2-2", "free", None)], "USB devices")
    equal(ports["errors"], {"serial": None, "usb": None, "network": None}, "errors")


@test
def driver(lab):
    """the kernel's usb_debug has the device: it is detached for the session, and attached again"""
    guestlab.shared(lab, make).load("usb_debug")
    cable = Cable(lab, redir=["--id", "1d6b:0010"])
    cable.guest.eventually("test -c /dev/ttyUSB0", "usb_debug makes a tty")
    equal(cable.driver(), "usb_debug", "the driver before")
    server = cable.guest.server(lab)
    c = client(lab, server).attach(cable.trans + ",id=1d6b:0010", timeout_s=30)
    equal(cable.driver(), "usbfs", "the driver in a session")
    reads(c)
    end(c, server)
    equal(cable.driver(), "usb_debug", "the driver after it")


@test
def eem(lab):
    """KDNET over a debug cable, in Ethernet frames"""
    cable = Cable(lab, net=50005, redir=["--descriptors", "eem"]).there()
    server = cable.guest.server(lab)
    c = client(lab, server).attach(cable, timeout_s=30)
    reads(c, MIB)
    c.go()
    c.wait_event(EV_PRINT, 20)
    cable.device.command("unplug")
    c.wait_link(WAITING, 20)
    cable.device.command("plug")
    c.wait_link(UP, ENUMERATION_S)
    end(c, server)


@test
def permission(lab):
    """no right to the node: the missing udev rule is named; with that rule in place it works"""
    cable = Cable(lab).there()
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
        c.attach(cable, timeout_s=30)
        reads(c)
    finally:
        cable.guest.ok("rm /etc/udev/rules.d/*; udevadm control --reload")


@test
def descriptors(lab):
    """our id, other descriptors: refused with the reason; served if only the names are bad"""
    server = guestlab.shared(lab, make).server(lab)
    c = client(lab, server)
    for kind in "no-bulk", "other-class":
        cable = Cable(lab, redir=["--descriptors", kind]).there()
        reply = c.open(cable)
        equal(reply.err, INVALID, "OPEN, %s: %s" % (kind, reply.text))
        matches("not a debug device", reply.text, kind)
        cable.device.kill()
        cable.gone()
    cable = Cable(lab, redir=["--descriptors", "endless-names"]).there()
    c.attach(cable, timeout_s=30)
    reads(c)


if __name__ == "__main__":
    try:
        main(needs=("kdsrv", "kd", "kdtarget"))
    finally:
        guestlab.close_shared()
