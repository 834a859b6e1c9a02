# kdloop on mock serial ports. SPDX-License-Identifier: MIT
import json
import os
import re
import subprocess

from kdlib import *

PROGRAMS["kdloop"] = os.path.join(TOP_BUILD, "kdloop/kdloop")
CABLE = "hw-fixtures/serial/serial_cable"


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


class Peers:
    """Two kdloops at the ends of a null-modem cable: a at /dev/ttyS4, b at /dev/ttyS5."""

    def __init__(self, lab, *faults, a=(), b=(), both=("--json", "--duration", "1")):
        self.paths = {end: lab.path(end) for end in "ab"}
        script, pids = "ASAN_OPTIONS=; export ASAN_OPTIONS\n", []
        for end, port, args in (("a", "ttyS4", a), ("b", "ttyS5", b)):
            link = "com:port=/dev/" + port
            words = [w for w in args if not w.startswith(",")]
            link += "".join(w for w in args if w.startswith(","))
            script += "%s --lock-dir %s %s --mode peer %s >%s 2>%s.err &\necho $!\n" % (
                PROGRAMS["kdloop"], lab.dir, link, " ".join(list(both) + words),
                self.paths[end], self.paths[end])
            script += "%s=$!\n" % end
        script += "wait $a; a=$?; wait $b; echo $a $?\n"
        env = {"ASAN_OPTIONS": "detect_leaks=0"}
        lab.env.update(env)
        self.p = start_on(lab, [CABLE] + list(faults), ["sh", "-c", script])
        self.pids = [int(self.p.wait_text(r"(?:\d+\n){%d}(\d+)\n" % n, 10).group(1))
                     for n in (0, 1)]

    def wait(self, wait_s=45):
        equal(self.p.wait(wait_s), 0, "exit code of the mock (%s)" % self.p.err)
        self.status = [int(w) for w in self.p.out.splitlines()[-1].split()]
        check(not SANITIZER.search(self.error("a") + self.error("b")), "no sanitizer's finding")
        return self

    def error(self, end):
        with open(self.paths[end] + ".err") as f:
            return f.read()

    def text(self, end):
        """What it has printed; the file may not be there yet."""
        if not os.path.exists(self.paths[end]):
            return ""
        with open(self.paths[end]) as f:
            return f.read()

    def reports(self):
        """Of a and of b; both have ended."""
        self.wait()
        return Report(self.text("a")), Report(self.text("b"))
