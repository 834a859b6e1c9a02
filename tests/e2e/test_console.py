#!/usr/bin/env python3
# kd at a terminal. SPDX-License-Identifier: MIT
import os
import select
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdlib import *  # noqa: E402,F403


class Console:
    """kd with a terminal of its own."""

    def __init__(self, lab, server, target):
        self.master, slave = os.openpty()
        where = "kdsrv:server=@{%s},trans=@{%s}" % (server.where, target.trans)
        self.p = subprocess.Popen([PROGRAMS["kd"], "-k", where], stdin=slave, stdout=slave,
                                  stderr=slave, env=dict(lab.env, TERM="dumb", HOME=lab.dir),
                                  start_new_session=True)
        os.close(slave)
        self.text, self.at = "", 0
        lab.closing(self)

    def type(self, text):
        os.write(self.master, text.encode())

    def expect(self, pattern, timeout_s=10):
        """Until the pattern comes behind what was expected before; moves behind it."""
        end = time.monotonic() + timeout_s
        while True:
            found = re.search(pattern, self.text[self.at:])
            if found:
                self.at += found.end()
                return found
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.master], [], [], left)[0]:
                raise Failure("no %r on the terminal: %r" % (pattern, self.text[self.at:]))
            self.text += os.read(self.master, 65536).decode("utf-8", "replace")

    def interrupt(self):
        os.kill(self.p.pid, signal.SIGINT)

    def close(self):
        self.p.kill()
        self.p.wait()
        os.close(self.master)


@test
def stops_are_shown(lab):
    """a stop is shown when it happens, before the prompt, with no key pressed"""
    server, target = lab.server(), lab.target("--wait")
    c = Console(lab, server, target)
    c.expect("Break instruction exception")
    c.expect("kd> ")
    c.type("bp nt+1180\n")
    c.expect("kd> ")
    c.type("g\n")
    c.expect(r"g\s+Breakpoint 0 hit")
    c.expect("kd> ")


@test
def breaks_in(lab):
    """Ctrl-C stops a running target, whose prints are shown meanwhile; q ends"""
    server, target = lab.server(), lab.target("--wait", "--print-every", "50")
    c = Console(lab, server, target)
    c.expect("kd> ")
    c.type("g\n")
    c.expect("line 3")
    c.interrupt()
    c.expect("Break instruction exception")
    c.expect("kd> ")
    c.type("q\n")
    equal(c.p.wait(10), 0, "kd's exit status")


if __name__ == "__main__":
    main(needs=("kdsrv", "kdtarget", "kd"))
