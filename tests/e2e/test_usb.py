#!/usr/bin/env python3
# USB 3 debug cables end to end: unmodified kdsrv and kd on a machine with
# emulated debug devices, against kdtarget.
# SPDX-License-Identifier: MIT
import json
import os
import re
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdclient import *
from usblab import *


def attached(lab, kind, *target_options):
    """A machine, its server, what is on its port 1, and a client that has stopped it."""
    machine = Machine(lab, kind.port)
    server = machine.server()
    target = kind.target(lab, machine.cables[0], *target_options)
    client = lab.closing(Client(server))
    client.attach(target)
    return machine, server, target, client


def read_begins(client, length=8 << 20):
    """A long read that is under way; returns its number."""
    at = client.stats()["region"]
    number = client.send(READ, client.read_request((at, length)))
    end = time.monotonic() + 10
    while not client.parts.get(number):
        client.receive(end)
    return number


# ---- whole sessions ----------------------------------------------------------

@cases(BOTH)
def whole_session(lab, kind):
    """reads, a breakpoint, a prompt, a bug check, and letting go"""
    machine, server, target, c = attached(lab, kind)
    still_works(c, 1 << 18)
    before = c.read(c.work(), 1)
    handle = c.set_breakpoint(c.work())
    c.go()
    c.wait_event(EV_STOPPED, match=lambda b: b[24:32] == struct.pack("<Q", c.work()))
    c.manipulate(0x3135, struct.pack("<I", handle))
    c.command("prompt")
    c.go()
    c.wait_event(EV_PROMPT)
    c.ok(ANSWER, b"yes")
    c.wait_event(EV_PRINT, match=lambda b: b.startswith(b"yes"))
    c.ok(BREAK)
    c.wait_event(EV_STOPPED)
    c.set_breakpoint(c.work())
    d = lab.closing(Client(server))
    reply = d.open(target)
    equal(reply.err, BUSY, "OPEN by another: %s" % reply.text)
    matches("in use by test", reply.text, "who has it")
    c.ok(CLOSE)
    d.attach(target)
    equal(d.read(d.work(), 1), before, "where the breakpoint was")
    d.command("crash")
    d.go(expect_break=True)
    d.wait_event(EV_STOPPED)
    d.ok(CLOSE)
    stats = machine.do("status")
    equal((stats["stray_clear_halts"], stats["plugs"]), (0, 1), "what the device saw")


@cases(BOTH)
def in_process(lab, kind):
    """kd -k usb:... and kd -k net:...,usb with no server"""
    machine = Machine(lab, kind.port, options=["--wait"])
    target = kind.target(lab, machine.cables[0])
    kd = machine.run("kd", "-k", target.trans, "-c", "db nt l2; q", expect=None)
    equal(kd.wait(20), 0, "kd's exit status: %s" % kd.err)
    matches("4d 5a", kd.out, "memory")
    matches("Connected to build 9600", kd.out, "the banner")


@cases(BOTH)
def end_server(lab, kind):
    """.endpsrv takes out the breakpoints and lets the target run"""
    machine, server, target, c = attached(lab, kind)
    c.set_breakpoint(c.work())
    c.ok(END_SERVER)
    equal(server.wait(), 0, "kdsrv's exit status")
    check(target.running(), "the target")


@test
def end_server_slowly(lab):
    """.endpsrv is answered although the device takes long to be let go of"""
    machine = Machine(lab, (), options=["--ioctl-us", "50000"])
    server = machine.server()
    target = UsbTarget(lab, machine.cables[0])
    plugged(machine)
    c = lab.closing(Client(server))
    equal(c.open(target, 0).err, OK, "OPEN")
    c.ok(END_SERVER, timeout_s=30)
    equal(server.wait(), 0, "kdsrv's exit status")


# ---- a target that comes, goes and comes back --------------------------------

@cases(BOTH)
def waits_for_target(lab, kind):
    """a device that is not there is waited for, and the client is told so"""
    machine = Machine(lab, kind.port)
    server = machine.server()
    c = lab.closing(Client(server))
    target = kind.target(lab, machine.cables[0])
    trans = target.trans
    target.kill()
    machine.do("wait unplugged")
    equal(c.open(trans).err, OK, "OPEN")
    matches("no USB debug device (3495:00e0|045e:0656):", c.wait_link(WAITING),
            "what is waited for")
    equal(c.call(READ, c.read_request((0, 1))).err, GONE, "READ while there is none")
    if kind.target is UsbTarget:
        kind.target(lab, machine.cables[0])
    else:
        kind.target(lab, machine.cables[0], port=int(re.search(r"port=(\d+)", trans).group(1)))
    matches("2-1", c.wait_link(CONNECTING), "what came")
    c.wait_link(UP)
    stopped_again(c)


@cases(BOTH)
def unplugged_in_read(lab, kind):
    """the plug falls out in the middle of a read: it fails, and the session goes on"""
    machine, server, target, c = attached(lab, kind)
    c.set_breakpoint(c.work())
    number = read_begins(c)
    machine.do("unplug")
    equal(c.wait_reply(number).err, GONE, "the read")
    matches("2-1.*unplugged", c.wait_link(WAITING), "the link")
    machine.do("plug")
    c.wait_link(UP, 20)
    stopped_again(c)
    equal(machine.do("status")["plugs"], 2, "times that it was plugged in")
    # What was known before the plug fell out is cleaned up at the end.
    c.ok(CLOSE)
    d = lab.closing(Client(server))
    d.attach(target)
    check(d.read(d.work(), 1) != b"\xcc", "a breakpoint is left")


@cases(BOTH)
def reboot_storm(lab, kind):
    """a target that leaves ten times in its boot: one session, and no flood of messages"""
    machine, server, target, c = attached(lab, kind, "--replug", "10")
    start, before = time.monotonic(), len(links(c))
    c.manipulate(0x313B)
    c.wait_event(EV_REBOOT, 50)
    c.ok(BREAK)
    stopped_again(c)
    # One who is away for 2 s is told of.
    told = len(links(c)) - before
    check(told <= 3 + time.monotonic() - start, "%d messages about the link" % told)
    equal(c.call(PING).err, OK, "the session")
    stats = target.stats()
    equal((stats["boots"], stats["usb"]["plugged_in"]), (2, 1 + 2 * 10 + 1), "boots")


# ---- devices that are odd ----------------------------------------------------

@cases(("endless-name", "trailers", "halves"))
def hostile(lab, kind):
    """a target that breaks a rule of the cable is debugged all the same"""
    machine = Machine(lab, ())
    server = machine.server()
    target = UsbTarget(lab, machine.cables[0], "--hostile", kind)
    c = lab.closing(Client(server))
    c.attach(target, timeout_s=30)
    still_works(c)


@cases(("noise", "babble", "repeats", "huge-lengths", "short-replies", "long-replies"))
def nonsense(lab, kind):
    """what is no KD packet, and floods of it, end no session and no server"""
    machine = Machine(lab, ())
    server = machine.server()
    UsbTarget(lab, machine.cables[0], "--hostile", kind, "--print-every", "20")
    c = lab.closing(Client(server))
    equal(c.open("usb:targetname=lab1").err, OK, "OPEN")
    c.wait_event(EV_LINK, 20, lambda b: b[0] == UP)
    equal(c.call(PING).err, OK, "PING")
    c.call(CLOSE, timeout_s=30)
    d = lab.closing(Client(server))
    equal(d.open("usb:targetname=lab1").err, OK, "OPEN again")
    equal(d.call(PING).err, OK, "PING")


@test
def flood_on_a_slow_machine(lab):
    """a flood that takes the server longer than it lasts does not keep clients waiting"""
    machine = Machine(lab, (), options=["--ioctl-us", "2000"])
    server = machine.server()
    UsbTarget(lab, machine.cables[0], "--hostile", "repeats", "--print-every", "20")
    c = lab.closing(Client(server))
    equal(c.open("usb:targetname=lab1").err, OK, "OPEN")
    c.wait_event(EV_LINK, 60, lambda b: b[0] == UP)
    for _ in range(5):
        equal(c.call(PING).err, OK, "PING")


@cases((("usb:targetname=lab1,id=045e:0656", EEM.port, "no KD packets"),
        ("net:port=50000,key=%s,usb,id=3495:00e0" % KEY, (), "no Ethernet frames")),
       name=lambda v: v[0].split(",")[0])
def wrong_framing(lab, case):
    """a string for the other kind of debug device: the client is told what comes"""
    trans, port, said = case
    machine = Machine(lab, port)
    server = machine.server()
    (EemTarget if port else UsbTarget)(lab, machine.cables[0], *([] if port else
                                                                 ["--print-every", "20"]))
    plugged(machine)
    c = lab.closing(Client(server))
    equal(c.open(trans).err, OK, "OPEN")
    wait_notice(c, said, 20)


@test
def other_id(lab):
    """a device of another vendor is found by id= alone"""
    machine = Machine(lab, ("--id", "1234:5678"))
    server = machine.server()
    UsbTarget(lab, machine.cables[0])
    plugged(machine)
    c, d = lab.closing(Client(server)), lab.closing(Client(server))
    equal(c.open("usb:targetname=lab1").err, OK, "OPEN")
    c.wait_link(WAITING)
    c.ok(CLOSE)
    d.attach("usb:targetname=lab1,id=1234:5678")
    still_works(d)


@cases(("no-bulk", "other-class", "absurd-lengths"))
def wrong_descriptors(lab, kind):
    """the right id, and nothing to debug over: OPEN says so"""
    machine = Machine(lab, ("--descriptors", kind))
    server = machine.server()
    UsbTarget(lab, machine.cables[0])
    plugged(machine)
    c = lab.closing(Client(server))
    reply = c.open("usb:targetname=lab1")
    equal(reply.err, INVALID, "OPEN: %s" % reply.text)
    matches("2-1", reply.text, "which device")
    equal(c.call(PING).err, OK, "PING")


@test
def endless_strings(lab):
    """names in the descriptors that have no end disturb nobody"""
    machine = Machine(lab, ("--descriptors", "endless-names"), options=["--wait"])
    UsbTarget(lab, machine.cables[0])
    kd = machine.run("kd", "-k", "usb:targetname=lab1", "-c", "db nt l2; q", expect=None)
    equal(kd.wait(20), 0, "kd's exit status: %s" % kd.err)


# ---- faults ------------------------------------------------------------------

FAULTS = ("stall in", "stall out", "ioerror in", "ioerror out", "ioerror in 5", "overflow",
          "overflow 3")


@cases([(KDUSB, fault) for fault in FAULTS] + [(EEM, fault) for fault in FAULTS[::2]],
       name=lambda v: "%s, %s" % v)
def faults(lab, case):
    """a fault of the bus in the middle of a read: the session survives it"""
    kind, fault = case
    machine, server, target, c = attached(lab, kind)
    number = read_begins(c, 1 << 19)
    machine.do(fault)
    reply = c.wait_reply(number, 40)
    if reply.err:
        equal(reply.err, GONE, "the read: %s" % reply.text)
        stopped_again(c)
    else:
        equal(reply.data, region(0, 1 << 19), "what was read")
    still_works(c)
    stats = machine.do("status")
    equal((stats["stray_clear_halts"], stats["plugs"]), (0, 1), "what the device saw")
    equal(stats["clear_halts"] > 0, fault.startswith("stall"), "halts were cleared")


@test
def deaf(lab):
    """a device that takes nothing any more is lost, and found when it does again"""
    machine, server, target, c = attached(lab, KDUSB)
    machine.do("deaf")
    number = c.send(READ, c.read_request((c.base, 16)))
    reply = c.wait_reply(number, 40)
    check(reply.err in (GONE, TIMEOUT), "READ: %s" % reply)
    machine.do("hear")
    c.wait_event(EV_STOPPED, 40)
    still_works(c)


# ---- what stands in the way --------------------------------------------------

@test
def busy(lab):
    """a device that somebody else has claimed: OPEN says so; a free one is taken"""
    machine = Machine(lab, ())
    server = machine.server()
    target = UsbTarget(lab, machine.cables[0])
    plugged(machine)
    machine.do("busy")
    c = lab.closing(Client(server))
    reply = c.open(target)
    equal(reply.err, BUSY, "OPEN: %s" % reply.text)
    matches("2-1.*busy", reply.text, "what is busy")
    machine.do("free")
    c.attach(target)
    still_works(c)


@test
def busy_later(lab):
    """a device that comes and is claimed by somebody else is told of, and taken when free"""
    machine = Machine(lab, ())
    server = machine.server()
    machine.do("busy")
    c = lab.closing(Client(server))
    equal(c.open("usb:targetname=lab1").err, OK, "OPEN")
    c.wait_link(WAITING)
    UsbTarget(lab, machine.cables[0])
    c.wait_event(EV_LINK, 15, lambda b: b[0] == WAITING and b"busy" in b)
    machine.do("free")
    stopped_again(c)


@test
def denied(lab):
    """a node that may not be opened: OPEN names the udev rule that is missing"""
    user = ["--user", "65534"] if os.geteuid() == 0 else []
    machine = Machine(lab, (), options=["--mode", "0", *user])
    os.chmod(lab.dir, 0o755)
    server = machine.server()
    target = UsbTarget(lab, machine.cables[0])
    plugged(machine)
    c = lab.closing(Client(server))
    reply = c.open(target)
    equal(reply.err, DENIED, "OPEN: %s" % reply.text)
    matches("2-1.*udev.*3495.*00e0", reply.text, "what to do")


@test
def no_usb(lab):
    """a machine without USB: OPEN and the list say so"""
    machine = Machine(lab)
    server = machine.server()
    c = lab.closing(Client(server))
    reply = c.open("usb:targetname=lab1")
    equal(reply.err, NOT_FOUND, "OPEN: %s" % reply.text)
    matches("no USB", reply.text, "why")


@test
def nobody_listens(lab):
    """without udevd nothing is told of a device, not even where a monitor has just gone"""
    machine = Machine(lab, ())
    p = Proc(lab, "sh", machine.wrap + [
        "sh", "-c", 'ln -s gone "$UMOCKDEV_DIR/event99" && echo ready && read -r end'],
        stdin=subprocess.PIPE)
    p.wait_text("ready")
    UsbTarget(lab, machine.cables[0])
    plugged(machine)
    machine.do("unplug")
    p.p.stdin.write(b"end\n")
    p.p.stdin.close()
    equal(p.wait(), 0, "exit status")


@test
def listed(lab):
    """kdsrv --list-ports shows the devices, what they are, and how to open them"""
    machine = Machine(lab, (), ("--descriptors", "eem", "--serial", "x"),
                      ("--descriptors", "no-bulk"), options=["--wait"])
    p = machine.run("kdsrv", "--list-ports", "--json")
    for cable in machine.cables:
        UsbTarget(lab, cable)
    equal(p.wait(), 0, "exit status")
    usb = json.loads(p.out)["usb"]
    equal([(d["path"], d["usb_id"], d["usable"], d["state"]) for d in usb],
          [("2-1", "3495:00e0", True, "free"), ("2-2", "045e:0656", True, "free"),
           ("2-3", "3495:00e0", False, "free")], "devices")
    equal([d["trans"] for d in usb],
          ["usb:targetname=NAME,path=2-1", "net:port=N,key=KEY,usb=2-2", None], "strings")
    equal([d["serial"] for d in usb], ["123456789", "x", "123456789"], "serial numbers")
    equal(len({d["node"] for d in usb}), 3, "nodes")


@test
def files_of_others_stay(lab):
    """kdusb-mock: a plain file at the path of a socket is no socket of ours"""
    path = lab.path("notes")
    with open(path, "w") as f:
        f.write("mine")
    for option in "--cable", "--control":
        p = lab.run("kdusb-mock", option, path, "--", "true")
        check(p.status, "%s: it went on" % option)
        matches("notes: Address already in use", p.err, option)
        with open(path) as f:
            equal(f.read(), "mine", option)


if not has_driver("usb"):
    print("1..0 # SKIP built without the usb driver")
else:
    main(needs=("kdsrv", "kd", "kdtarget", "kdusb-mock"))
