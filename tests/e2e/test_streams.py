#!/usr/bin/env python3
# Standard input and output that are full or closed, with every program: it is
# told, and what is printed reaches nothing but standard output.
# SPDX-License-Identifier: MIT
import errno
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdlib import *

PROGRAMS["kdcap"] = os.path.join(TOP_BUILD, "kdcap/kdcap")
PROGRAMS["kdloop"] = os.path.join(TOP_BUILD, "kdloop/kdloop")
FULL, BAD_FD = os.strerror(errno.ENOSPC), os.strerror(errno.EBADF)


def shell(command, *args):
    """A command with redirections; "$@" are the arguments."""
    return subprocess.run(["sh", "-c", command, "sh", *args], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30)


@cases([(p, o) for p in ("kdsrv", "kd", "kdcap", "kdloop", "kdtarget")
        for o in ("--help", "--version")], " ".join)
def told(lab, what):
    """output that does not fit, or has nowhere to go, is told: exit 1"""
    program, option = what
    for where, why in ("> /dev/full", FULL), (">&-", BAD_FD):
        p = shell('"$@" ' + where, PROGRAMS[program], option)
        equal((p.returncode, p.stderr), (1, "%s: standard output: %s\n" % (program, why)), where)


@cases(["--list-ports", "--list-drivers"])
def lists(lab, option):
    """kdsrv's lists that do not fit: exit 1"""
    p = shell('"$@" > /dev/full', PROGRAMS["kdsrv"], option)
    equal((p.returncode, p.stderr), (1, "kdsrv: standard output: %s\n" % FULL), option)


@cases([[], ["--json"]], " ".join)
def debugger(lab, options):
    """kd says once why it stops"""
    argv = [PROGRAMS["kd"], "-k", lab.target().trans, "-c", "r; r; r", *options]
    for where, why in ("> /dev/full", FULL), (">&-", BAD_FD):
        p = shell('"$@" ' + where, *argv)
        equal((p.returncode, p.stderr), (1, "kd: standard output: %s\n" % why), where)


@test
def reader_leaves(lab):
    """a reader that has seen enough hears no complaint"""
    p = shell('"$@" | head -n 1', PROGRAMS["kd"], "-k", lab.target("--wait").trans,
              "-c", "db nt L10000")
    equal((len(p.stdout.splitlines()), p.stderr), (1, ""), "output")


@test
def closed_for_all(lab):
    """kdtarget, kdsrv and kd without any standard stream: a pty and sockets get other numbers"""
    link, name = lab.path("pty"), "streams"
    for argv in ([PROGRAMS["kdtarget"], "--pty=" + link],
                 [PROGRAMS["kdsrv"], "-t", "npipe:pipe=" + name, "-v"]):
        Proc(lab, "without streams", ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *argv], expect=0)
    socket = os.path.join(lab.env["XDG_RUNTIME_DIR"], "kdsrv", name)
    eventually(lambda: os.path.exists(link) and is_listening(socket), "both are ready")
    trans, out = "com:pipe,port=" + link, lab.path("out")
    k = "kdsrv:server=@{npipe:pipe=%s},trans=@{%s}" % (name, trans)
    p = Proc(lab, "kd", ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", PROGRAMS["kd"], "-k", k,
                         "-c", ".writemem %s nt L4000" % out], expect=None)
    equal(p.wait(), 1, "exit status")
    p = Proc(lab, "kd", ["sh", "-c", 'exec "$@" <&- 2>&-', "sh", PROGRAMS["kd"], "-k", k,
                         "-c", ".servers; .endpsrv"], expect=None)
    equal(p.wait(), 0, "exit status")
    matches("bad 0; link lost 0 times", p.out, "what crossed the line")


main(needs=("kdsrv", "kd", "kdtarget"))
