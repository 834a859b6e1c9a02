#!/usr/bin/env python3
# The contract for scripts: one line of kd attaches, looks, and ends the server,
# whatever state the target is in and whatever it hangs on.
# SPDX-License-Identifier: MIT
import os
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdlib import *

COMMANDS = "vertarget; db nt L10; lm; .endpsrv"
AGE_S = 3


def contract(lab, target, machine):
    server = lab.server()
    kd = lab.kd("tcp:server=127.0.0.1,port=%d" % server.port, target, COMMANDS)
    equal(server.wait(5), 0, "kdsrv's exit status")
    with socket.socket() as s:
        check(s.connect_ex(("127.0.0.1", server.port)) != 0, "the port is open")
    matches(r"Kernel Version 9600 .* (x86|x64)", kd.out, "vertarget")
    base = r"fffff800`00100000" if machine == "amd64" else "80400000"
    matches(r"(?m)^%s  4d 5a [0-9a-f ]{17}-[0-9a-f ]+  MZ" % base, kd.out, "db")
    matches(r"(?m)^%s [0-9a-f`]+ +nt " % base, kd.out, "lm")
    matches(r"(?m)^\S+ \S+ +hal ", kd.out, "lm")
    equal(kd.err, "", "kd's stderr")
    equal(server.err, "", "kdsrv's stderr")
    # The link is free for someone else.
    again = lab.server()
    lab.kd(again, target, "db nt L2; q")


KINDS = [(m, on) for m in ("amd64", "x86") for on in ("unix", "pty", "tcp")]


@cases(KINDS, " ".join)
def booting(lab, kind):
    """a target that boots and waits for the debugger"""
    contract(lab, lab.target("--wait", "--machine", kind[0], on=kind[1]), kind[0])


@test
def running(lab):
    """targets that have run for a while, and gave up on a debugger"""
    began = time.monotonic()
    targets = [(m, on, lab.target("--print-every", "200", "--module-every", "500", "--machine", m,
                                  on=on)) for m, on in KINDS]
    # Their age is what is tested; there is nothing else to wait for.
    time.sleep(max(0, began + AGE_S - time.monotonic()))
    for machine, on, target in targets:
        try:
            contract(lab, target, machine)
        except Failure as e:
            raise Failure("%s on %s: %s" % (machine, on, e)) from None


@cases(["reactos", "bootloader"])
def quirks(lab, quirk):
    """targets with other habits"""
    target = lab.target("--wait", "--quirk", quirk)
    server = lab.server()
    lab.kd(server, target, "vertarget; db nt L10; .endpsrv")
    equal(server.wait(5), 0, "kdsrv's exit status")


@test
def noise_before(lab):
    """a line with noise on it before the first packet, and lost acknowledgements"""
    target = lab.target("--wait", "--garbage-first", "5000", "--drop-acks", "3")
    contract(lab, target, "amd64")


@test
def over_a_unix_socket(lab):
    """the same through npipe:"""
    server, target = lab.server(transports=["npipe:pipe=lab_%d"]), lab.target("--wait")
    equal(server.pipes, ["lab_%d" % server.pid], "the name of the socket")
    lab.kd(server, target, COMMANDS)
    equal(server.wait(5), 0, "kdsrv's exit status")


@test
def from_the_environment(lab):
    """_NT_DEBUG_PORT in kdsrv's environment is the default of trans=@{com:pipe}"""
    target = lab.target("--wait")
    server = lab.server(env=dict(lab.env, _NT_DEBUG_PORT=target.path))
    kd = lab.kd(server, "com:pipe", "db nt L2; .servers; .endpsrv")
    matches("com:pipe,port=" + target.path, kd.out, ".servers")


if __name__ == "__main__":
    main(needs=("kdsrv", "kdtarget", "kd"))
