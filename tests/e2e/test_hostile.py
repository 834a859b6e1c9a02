#!/usr/bin/env python3
# Hostile targets behind a server: nothing crashes, hangs, grows or leaks, and
# other clients do not notice.
# SPDX-License-Identifier: MIT
import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdclient import *
from kdlib import *

COMMANDS = ("vertarget; lmf; r; k; db nt L20; bp nt+1100; g; r; t; .sleep 50; .break; s nt L100 41; "
            ".writemem /dev/null nt L2000; .servers; .echo end")


def kinds():
    out = subprocess.run([PROGRAMS["kdtarget"], "--help"], capture_output=True, text=True).stdout
    # Those of KDNET and of USB are no matter of a serial line.
    found = re.findall(r"(?m)^ {6}(\S+) +(?!KDNET:|USB:)\w", out[out.index("--hostile KIND"):])
    check(len(found) > 10, "kinds of hostile targets: %s" % found)
    return found


@cases(["amd64", "x86"])
def every_kind(lab, machine):
    """kd's main commands against each kind: an end in time, others undisturbed"""
    server, good = lab.server(), lab.target()
    c = lab.closing(Client(server))
    c.attach(good)
    before, began = server.resident_kib(), lab.clock()
    running, waiting = [], kinds()
    while running or waiting:
        while waiting and len(running) < 6:
            kind = waiting.pop(0)
            target = lab.target("--hostile", kind, "--machine", machine, "--print-every", "20",
                                expect=None)
            running.append((kind, target, lab.start_kd(server, target, COMMANDS, "--timeout", "1"),
                            time.monotonic()))
        kind, target, kd, since = running.pop(0)
        while kd.running() and time.monotonic() < since + 30:
            equal(c.read(c.base, 2), b"MZ", "another client during " + kind)
            c.ok(PING)
            time.sleep(0.02)
        status = kd.wait(1)
        check(status in (0, 1, 3, 5), "%s: exit status %d: %s" % (kind, status, kd.err[-500:]))
        if status != 3:
            check("end" in kd.out.splitlines(), "%s: the script did not end" % kind)
        check(not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", kd.out), "%s: raw control characters" % kind)
        target.kill()
    check(lab.clock() - began < 50, "took %g s" % (lab.clock() - began))
    grown = server.resident_kib() - before
    check(grown < 32 * 1024, "the server has grown by %d KiB" % grown)
    equal(c.call(END_SERVER).err, OK, "END_SERVER")
    equal(server.wait(5), 0, "kdsrv's exit status")


if __name__ == "__main__":
    main(needs=("kdsrv", "kdtarget", "kd"))
