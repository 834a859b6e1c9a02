# kdloop on mock serial ports. SPDX-License-Identifier: MIT
import json
import os
import re
import subprocess

from kdlib import *

PROGRAMS["kdloop"] = os.path.join(TOP_BUILD, "kdloop/kdloop")
CABLE = "tests/unit/serial_cable"


def start_on(lab, mock, argv, **kw):
    """Runs a command with the ports of a mock: serial_mock, or serial_cable and options."""
    program = os.path.join(TOP_BUILD, mock[0])
    if not os.access(program, os.X_OK):
        raise Skip("built without the serial driver or umockdev")
    # A sanitizer's library wants to be the first.
    needs = subprocess.run(["ldd", PROGRAMS["kdloop"]], stdout=subprocess.PIPE, text=True).stdout
    asan = re.findall(r"=> (\S*libasan\S*)", needs)
    env = dict(lab.env, LD_PRELOAD=":".join(asan + ["libumockdev-preload.so.0"]))
    return Proc(lab, "kdloop", [program] + list(mock[1:]) + list(argv), env=env, expect=None, **kw)


def start_kdloop(lab, mock, *args, **kw):
    return start_on(lab, mock, [PROGRAMS["kdloop"], "--lock-dir", lab.dir] + list(args), **kw)


def kdloop_on(lab, mock, *args, wait_s=40, **kw):
    """kdloop, run to its end."""
    p = start_kdloop(lab, mock, *args, **kw)
    p.status = p.wait(wait_s)
    return p


class Report:
    """What --json said of one link."""

    def __init__(self, text):
        self.all = json.loads(text)
        self.link = self.all["links"][0]
        self.checks = {c["name"]: c for c in self.link["checks"]}

    def verdict(self, name):
        check(name in self.checks, "there is a check %s in %s" % (name, sorted(self.checks)))
        return self.checks[name]["verdict"]

    def says(self, name, verdict, what=None, advice=None):
        c = self.checks.get(name)
        check(c, "there is a check %s in %s" % (name, sorted(self.checks)))
        equal(c["verdict"], verdict, "verdict of %s (%s)" % (name, c["what"]))
        if what:
            matches(what, c["what"], "what %s found" % name)
        if advice:
            matches(advice, c["advice"], "advice of %s" % name)

    def value(self, name, value):
        return self.checks[name]["values"][value]["value"]
