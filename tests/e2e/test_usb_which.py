#!/usr/bin/env python3
# Which of several USB 3 debug devices a server takes: by name, by port, by key.
# SPDX-License-Identifier: MIT
import os
import re
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdclient import *
from usblab import *


def mark(client, text):
    """In memory, for the others not to see."""
    at = client.stats()["region"]
    before = client.read(at, 8)
    equal(before, region(0, 8), "not marked yet")
    client.write(at, text)


@test
def two_by_name(lab):
    """two devices at once are told apart by the names of their targets"""
    machine = Machine(lab, (), ())
    server = machine.server()
    targets = [UsbTarget(lab, machine.cables[i], name="lab%d" % i) for i in (0, 1)]
    plugged(machine, 1, 2)
    clients = [lab.closing(Client(server)) for _ in targets]
    for i in (1, 0):
        clients[i].attach(targets[i], timeout_s=30)
        mark(clients[i], b"marked %d" % i)
    for i in (0, 1):
        equal(clients[i].read(clients[i].stats()["region"], 8), b"marked %d" % i, "memory")
        clients[i].ok(CLOSE)
    equal([t.stats()["boots"] for t in targets], [1, 1], "boots")


@test
def two_by_path(lab):
    """two devices of one name are told apart by their ports"""
    machine = Machine(lab, (), ())
    server = machine.server()
    targets = [UsbTarget(lab, cable) for cable in machine.cables]
    plugged(machine, 1, 2)
    clients = [lab.closing(Client(server)) for _ in targets]
    for i in (0, 1):
        clients[i].attach("usb:targetname=lab1,path=2-%d" % (i + 1))
        mark(clients[i], b"marked %d" % i)
    machine.do("unplug", 1)
    clients[0].wait_link(WAITING)
    equal(clients[1].read(clients[1].stats()["region"], 8), b"marked 1", "memory")
    d = lab.closing(Client(server))
    reply = d.open("usb:targetname=lab1")
    equal(reply.err, BUSY, "OPEN of the same: %s" % reply.text)


@test
def two_cables(lab):
    """KDUSB and KDNET side by side"""
    machine = Machine(lab, (), EEM.port)
    server = machine.server()
    usb, eem = UsbTarget(lab, machine.cables[0]), EemTarget(lab, machine.cables[1])
    c, d = lab.closing(Client(server)), lab.closing(Client(server))
    c.attach(usb)
    d.attach(eem)
    still_works(c)
    still_works(d)


@test
def wrong_name(lab):
    """a target of another name is let alone, and named; the right one is taken"""
    machine = Machine(lab, ())
    server = machine.server()
    other = UsbTarget(lab, machine.cables[0], name="Other-1")
    plugged(machine)
    c = lab.closing(Client(server))
    equal(c.open("usb:targetname=LAB1").err, OK, "OPEN")
    matches(r"2-1 .*calls itself Other-1; waiting for lab1", wait_notice(c, "calls itself"),
            "the notice")
    c.wait_link(WAITING)
    equal(other.stats()["usb"]["transfers_received"], 1, "transfers to the other target")
    UsbTarget(lab, machine.cables[0], name="lab1")
    stopped_again(c)
    equal(len([n for n in notices(c) if "calls itself" in n]), 1, "notices")


def two_keys(lab, *ports):
    """A machine with targets at 2-1 and 2-2, each with its own key, and its server."""
    machine = Machine(lab, EEM.port, EEM.port)
    server = machine.server()
    targets = [EemTarget(lab, cable, port=port, key=EEM.who(i)["key"])
               for i, (cable, port) in enumerate(zip(machine.cables, ports))]
    plugged(machine, 1, 2)
    return machine, server, targets


@test
def key_of_another(lab):
    """KDNET: a device whose target has another key makes way for the next, and is named"""
    machine, server, targets = two_keys(lab, 50005, 50005)
    for i in (0, 1):
        c = lab.closing(Client(server))
        c.attach(targets[i], timeout_s=60)
        mark(c, b"marked %d" % i)
        said = notices(c)
        c.ok(CLOSE)
        # What is wrong with it depends on what came in time.
        wanted = r"^2-%d \(045e:0656\) .*; other debug devices: 2-%d, trying the next " \
                 r"\(usb=PATH says which is meant\)$" % (2 - i, 1 + i)
        if any(re.search(wanted, text) for text in said):
            return
    # One of the two is the first to be looked at.
    check(False, "nobody was told: %r" % said)


@test
def keys_at_once(lab):
    """KDNET: two who got each other's device change places"""
    machine, server, targets = two_keys(lab, 50005, 50006)
    clients = [lab.closing(Client(server)) for _ in targets]
    for c, target in zip(clients, targets):
        equal(c.open(target).err, OK, "OPEN")
    for i in (0, 1):
        clients[i].wait_event(EV_STOPPED, 60)
        clients[i].version()
        mark(clients[i], b"marked %d" % i)
    for i in (0, 1):
        equal(clients[i].read(clients[i].stats()["region"], 8), b"marked %d" % i, "memory")
@test
def key_of_nobody(lab):
    """KDNET: devices that say nothing, or have another key, have their turns until ours comes"""
    machine = Machine(lab, EEM.port, EEM.port)
    server = machine.server()
    silent = lab.closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    eventually(lambda: is_listening(machine.cables[0]), "the cable's socket")
    silent.connect(machine.cables[0])
    EemTarget(lab, machine.cables[1], **EEM.who(1))
    plugged(machine, 1, 2)
    c = lab.closing(Client(server))
    equal(c.open("net:port=50005,key=%s,usb" % EEM.who(0)["key"]).err, OK, "OPEN")
    for text in (b"2-1 (045e:0656) says nothing; other debug devices: 2-2, trying the next",
                 b"2-2 (045e:0656) sends KDNET datagrams, but none with our key; other debug "
                 b"devices: 2-1, trying the next"):
        c.wait_event(EV_NOTICE, 60, lambda b: text in b, since=0)
    silent.close()
    machine.do("wait unplugged")
    EemTarget(lab, machine.cables[0], **EEM.who(0))
    stopped_again(c)
    told = [n for n in notices(c) if "trying the next" in n]
    equal(len(told), len(set(told)), "each is told once")


@test
def other_in_use(lab):
    """KDNET: the device has another key, and the other one is in use: it stays there, and both are
    told of"""
    machine, server, targets = two_keys(lab, 50005, 50006)
    c, d = lab.closing(Client(server)), lab.closing(Client(server))
    c.attach(targets[0], timeout_s=60)
    equal(d.open("net:port=50006,key=%s,usb" % EEM.who(2)["key"]).err, OK, "OPEN")
    equal(wait_notice(d, "2-2 .*other debug devices", 60),
          "2-2 (045e:0656) sends KDNET datagrams, but none with our key; other debug devices: 2-1, "
          "but none that can be tried now (usb=PATH says which is meant)", "what was told")
    still_works(c)


@test
def no_name(lab):
    """a target that does not say its name is taken when it is the only one"""
    machine = Machine(lab, ())
    server = machine.server()
    UsbTarget(lab, machine.cables[0], "--hostile", "no-name")
    plugged(machine)
    c = lab.closing(Client(server))
    equal(c.open("usb:targetname=lab1").err, OK, "OPEN")
    wait_notice(c, "2-1 .*does not say its name.*only debug device")
    stopped_again(c)


@test
def no_name_and_another(lab):
    """a target that does not say its name is passed over when there is another"""
    machine = Machine(lab, (), ())
    server = machine.server()
    silent = UsbTarget(lab, machine.cables[0], "--hostile", "no-name", name="lab2")
    UsbTarget(lab, machine.cables[1])
    plugged(machine, 1, 2)
    c = lab.closing(Client(server))
    equal(c.open("usb:targetname=lab1").err, OK, "OPEN")
    stopped_again(c)
    equal(silent.stats()["stops"], 0, "stops of the other")


@test
def no_name_and_a_known_one(lab):
    """nor does another target's device keep it from being taken"""
    machine = Machine(lab, (), ())
    server = machine.server()
    known = UsbTarget(lab, machine.cables[0])
    c, d = lab.closing(Client(server)), lab.closing(Client(server))
    c.attach(known)
    UsbTarget(lab, machine.cables[1], "--hostile", "no-name", name="lab2")
    plugged(machine, 2)
    equal(d.open("usb:targetname=lab2").err, OK, "OPEN")
    wait_notice(d, "2-2 .*does not say its name.*only debug device")
    stopped_again(d)
    still_works(c)


@cases((1, 2))
def no_name_and_a_wrong_one(lab, silent):
    """when the other one turns out to be somebody else's, it is taken: port"""
    machine = Machine(lab, (), ())
    server = machine.server()
    UsbTarget(lab, machine.cables[silent - 1], "--hostile", "no-name")
    other = UsbTarget(lab, machine.cables[2 - silent], name="other")
    plugged(machine, 1, 2)
    c = lab.closing(Client(server))
    equal(c.open("usb:targetname=lab1").err, OK, "OPEN")
    wait_notice(c, "calls itself other")
    stopped_again(c)
    equal(other.stats()["stops"], 0, "stops of the other")


if not has_driver("usb"):
    print("1..0 # SKIP built without the usb driver")
else:
    main(needs=("kdsrv", "kdtarget", "kdusb-mock"))
