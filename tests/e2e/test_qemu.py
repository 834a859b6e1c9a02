#!/usr/bin/env python3
# kd and kdsrv against the bare-metal debuggee: a real CPU's traps and a real
# UART's timing, in QEMU.
# SPDX-License-Identifier: MIT
import json
import os
import shutil
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdclient import *
from kdlib import *

MIB = 1 << 20
ELF = os.path.join(TOP_BUILD, "kdtarget.elf")


class Machine(Proc):
    """QEMU with the debuggee, its COM1 on a Unix socket."""

    def __init__(self, lab):
        if not shutil.which("qemu-system-x86_64"):
            raise Skip("no qemu-system-x86_64 here")
        if not os.path.exists(ELF):
            raise Skip("kdtarget.elf is not in this build")
        self.path = lab.path("com1.sock")
        run = os.path.join(TOP_SRC, "hw-fixtures/target/run-qemu.sh")
        super().__init__(lab, "qemu", [run, self.path], expect=None,
                         env=dict(lab.env, KDTARGET_ELF=ELF))
        self.trans = "com:pipe,port=" + self.path
        eventually(lambda: is_listening(self.path) or not self.running(), "QEMU starts")
        check(self.running(), "QEMU ended: " + self.err)


@test
def contract(lab):
    """the contract line, booting and running for a while; then the line is free"""
    machine = Machine(lab)
    for _ in range(2):
        server = lab.server()
        kd = lab.kd(server, machine, "vertarget; db nt L10; lm; .endpsrv", wait_s=25)
        equal(server.wait(5), 0, "kdsrv's exit status")
        with socket.socket() as s:
            check(s.connect_ex(("127.0.0.1", server.port)) != 0, "the port is open")
        matches(r"Kernel Version", kd.out, "vertarget")
        matches(r"fffff800`00100000  4d 5a ", kd.out, "db")
        matches(r"(?m)^fffff800`00100000 \S+ +nt ", kd.out, "lm")


@test
def debugging(lab):
    """breakpoints, steps, registers, prints, a hard-coded int3, break-in, reboot"""
    server, machine = lab.server(), Machine(lab)
    kd = lab.kd(server, machine,
                "bp nt+1100; g; g; r; t; t; p; bc *; r rax; ? nt; .echo FREE; g; .sleep 1500; "
                ".break; k; ed nt+850 3; g; r rip; g; .sleep 100; .break; .reboot; .break; "
                "vertarget; db nt L2; bl", "--json", wait_s=40)
    objects = [json.loads(line) for line in kd.out.splitlines()]
    stops = [(o["reason"], int(o["pc"], 16) & 0xFFFFF) for o in objects if o["type"] == "stop"]
    check(stops.count(("breakpoint", 0x101100 & 0xFFFFF)) == 2, "hits: %s" % stops)
    steps = [pc for reason, pc in stops if reason == "step"]
    equal(len(steps), 3, "steps: %s" % stops)
    check(len(set(steps)) == 3 and all(0x1100 < pc < 0x1200 for pc in steps),
          "steps: %s" % ["%x" % pc for pc in steps])
    check(any(pc == 0x1220 for _, pc in stops), "the hard-coded int3: %s" % stops)
    free = [o.get("command") for o in objects].index(".echo FREE")
    check([o for o in objects[free:] if o["type"] == "print"], "no prints while it ran")
    check([o for o in objects if o["type"] == "reboot"], "nobody was told of the reboot")
    done = {o["command"]: o for o in objects if o["type"] == "command"}
    check(done["vertarget"]["ok"] and done["db nt L2"]["values"] == [0x4D, 0x5A], "after the reboot")
    lab.kd(server, None, ".endpsrv")
    equal(server.wait(5), 0, "kdsrv's exit status")


@test
def teardown(lab):
    """a client that is killed: its breakpoint goes, it runs, the next attaches"""
    server, machine = lab.server(), Machine(lab)
    c = lab.closing(Client(server))
    c.attach(machine)
    byte = c.read(c.work(), 1)
    c.set_breakpoint(c.work())
    c.go()
    c.wait_event(EV_STOPPED)
    c.close()
    d = lab.closing(Client(server))
    d.attach(machine, 0)
    d.wait_event(EV_PRINT, 10)
    d.send(BREAK)
    d.wait_event(EV_STOPPED)
    d.version()
    equal(d.read(d.work(), 1), byte, "where the breakpoint was")
    equal(d.call(END_SERVER).err, OK, "END_SERVER")
    equal(server.wait(5), 0, "kdsrv's exit status")


@test
def bulk(lab):
    """1 MiB over the UART: right, and few packets damaged"""
    server, machine = lab.server(), Machine(lab)
    c = lab.closing(Client(server))
    c.attach(machine)
    s = c.stats()
    data = c.read(s["region"], MIB, timeout_s=60)
    check(data == region(0, MIB), "the contents are wrong")
    # A packet that pauses for 100 ms is given up: where QEMU or the server gets no processor,
    # that happens to some. A UART that loses bytes damages most of them.
    t = c.stats()
    bad, got = t["bad"] - s["bad"], t["received"] - s["received"]
    check(bad * 4 <= got, "%d bad packets of %d" % (bad, got))


if __name__ == "__main__":
    main(needs=("kdsrv", "kd"))
