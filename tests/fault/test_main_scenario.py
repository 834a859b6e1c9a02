#!/usr/bin/env python3
# The main scenario again and again: in run N the N-th allocation or system call
# of the server fails. It must end in time, without a crash, a leak, or a socket
# left behind, and whoever could not do his work must say why.
# SPDX-License-Identifier: MIT
import concurrent.futures
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e/lib"))
from kdlib import *  # noqa: E402,F403

SCRIPT = "vertarget; r; db nt L40; bp nt+1180; g; t; bc *; eb nt+3000 1; .endpsrv"
SHORT = "vertarget; .endpsrv"
EXIT_CODES = {0: "done", 1: "a command failed", 3: "no server or target", 5: "timed out"}
WALK_LIMIT_S = 900
RUN_LIMIT_S = 30
RUNS_MAX = 5000
AT_ONCE = 4


class FaultyServer(Proc):
    """kdsrv that may fail before it is ready."""

    def __init__(self, lab, n, report, transport):
        env = dict(lab.env, KD_FAULT=str(n), KD_FAULT_REPORT=report)
        super().__init__(lab, "kdsrv", [PROGRAMS["kdsrv"], "-t", transport], env=env, expect=None)

    def ready(self):
        """True when it listens, False when it has ended instead."""
        try:
            self.wait_text(r"^listening ")
            return True
        except Failure:
            self.wait()
            return False


def read_report(path):
    """What failed: its name, or None when no call was the N-th."""
    if not os.path.exists(path):
        return None
    with open(path) as f:
        return f.read().split(" ", 1)[1].strip()


def check_said_why(p, status, what):
    refused = status == 2 and "--capture" in p.err  # a file that was asked for
    check(status in EXIT_CODES or refused, "%s: %s ended with status %s" % (what, p.name, status))
    if status:
        check(p.err.strip(), "%s: %s failed (%d) and did not say why" % (what, p.name, status))
    check(not SANITIZER.search(p.err), "%s: the sanitizer found something in %s:\n%s" %
          (what, p.name, p.err[-3000:]))


def through_server(lab, n, transport, where, script):
    """One run. Returns what failed in it."""
    report = lab.path("report")
    kd = None
    server = FaultyServer(lab, n, report, transport)
    if server.ready():
        kd = lab.kd(where, lab.target("--print-every", "50"), script, "--timeout", "8",
                    wait_s=RUN_LIMIT_S, status=None)
        # kd may have failed before it came to .endpsrv.
        if "Server ended." not in kd.out:
            check(kd.p.returncode, "kd did all, and yet did not end the server")
            server.signal(signal.SIGTERM)
    status = server.wait()
    failed = read_report(report)
    what = "call %d (%s)" % (n, failed)
    check_said_why(server, status, what)
    if kd:
        check_said_why(kd, kd.p.returncode, what)
        if failed is None:
            equal(kd.p.returncode, 0, "no call failed, and yet kd ended with")
    check(not os.path.exists(os.path.join(lab.dir, "kdsrv", "lab")), what + ": the socket is left")
    return failed


def in_process(lab, n):
    """The same without a server: kd's own server process counts."""
    report = lab.path("report")
    env = dict(lab.env, KD_FAULT=str(n), KD_FAULT_REPORT=report)
    kd = lab.kd(None, lab.target("--print-every", "50"), "vertarget; q", "--timeout", "8",
                "--capture", lab.path("capture"), wait_s=RUN_LIMIT_S, status=None, env=env)
    failed = read_report(report)
    check_said_why(kd, kd.p.returncode, "call %d (%s)" % (n, failed))
    if failed is None:
        equal(kd.p.returncode, 0, "no call failed, and yet kd ended with")
    return failed


def checked(one_run, n):
    """Run n in a laboratory of its own; returns what failed in it."""
    lab = Lab()
    failure = None
    try:
        name = one_run(lab, n)
    except Failure as e:
        failure = "KD_FAULT=%d: %s" % (n, e)
    problems = lab.close(failure is not None)
    check(not failure, failure)
    check(not problems, "KD_FAULT=%d: %s" % (n, "; ".join(problems)))
    return name


def walk(one_run):
    """N = 1, 2, 3 ... until nothing fails any more."""
    seen = {}
    # The runs spend their time waiting.
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for first in range(1, RUNS_MAX, AT_ONCE):
            batch = range(first, first + AT_ONCE)
            for name in pool.map(lambda n: checked(one_run, n), batch):
                if name is None:
                    print("# %s" % ", ".join("%s %d" % i for i in sorted(seen.items())))
                    return seen
                seen[name] = seen.get(name, 0) + 1
    raise Failure("more than %d calls" % RUNS_MAX)


@test
def over_unix_socket(lab):
    """the server on a Unix socket, each of its calls failing once"""
    seen = walk(lambda lab, n: through_server(lab, n, "npipe:pipe=lab", "npipe:pipe=lab",
                                              SCRIPT))
    for name in ("event base", "bind", "client", "target", "connect", "read", "write", "request"):
        check(name in seen, "the scenario no longer comes by %r" % name)


@test
def over_tcp(lab):
    """the server on TCP, each of its calls failing once"""
    low = int(port_range().split(":")[0])

    def one(lab, n):
        port = low + n % AT_ONCE
        return through_server(lab, n, "tcp:port=%d" % port,
                              "tcp:server=127.0.0.1,port=%d" % port, SHORT)
    seen = walk(one)
    check("listen" in seen, "the scenario no longer comes by listen")


@test
def without_a_server(lab):
    """kd with the link in its own hands, each of its server's calls failing once"""
    seen = walk(in_process)
    for name in ("socketpair", "fork", "target", "recorder", "capture open", "capture write"):
        check(name in seen, "the scenario no longer comes by %r" % name)


for fn in (over_unix_socket, over_tcp, without_a_server):
    fn.slow_s = WALK_LIMIT_S


def can_fail():
    with open(os.path.join(TOP_BUILD, "config.h")) as f:
        return "#define KD_FAULT_INJECTION 1" in f.read()


if __name__ == "__main__":
    if not can_fail():
        print("1..0 # SKIP configured without --enable-fault-injection")
    else:
        main(needs=("kdsrv", "kdtarget", "kd"))
