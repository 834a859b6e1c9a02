#!/usr/bin/env python3
# The commands of kd, its exit codes and its output, through kdsrv and
# in-process.
# SPDX-License-Identifier: MIT
import json
import os
import re
import resource
import signal
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdclient import *
from kdlib import *

BASE = {"amd64": 0xFFFFF80000100000, "x86": 0x80400000}
MACHINES = ("amd64", "x86")


def address(n, machine):
    return "%08x`%08x" % (n >> 32, n & 0xFFFFFFFF) if machine == "amd64" else "%08x" % n


def json_run(lab, server, target, commands, **kw):
    """kd --json: every line an object; returns them all, and commands by text."""
    kd = lab.kd(server, target, commands, "--json", **kw)
    objects = [json.loads(line) for line in kd.out.splitlines()]
    for o in objects:
        check(isinstance(o, dict) and isinstance(o.get("type"), str), "no type in %r" % o)
    done = {}
    for o in objects:
        if o["type"] == "command":
            check({"command", "ok", "text"} <= set(o), "members of %r" % o)
            check(o["ok"] or {"error", "code"} <= set(o), "members of %r" % o)
            done.setdefault(o["command"], o)
    return objects, done


# ---- commands ----------------------------------------------------------------

@test
def machine_level(lab):
    """!db !dd !dq, ib iw id after ob ow od, rdmsr after wrmsr, gn"""
    virtual = "db fffffa80`00000000 L8"
    values = json_run(lab, None, lab.target("--wait"), "; ".join((
        virtual, "!db 1000000 L8", "!dd 1000000 L2", "!dq 1000000 L1",
        "ob 80 5a", "ib 80", "ow 80 1234", "iw 80", "od 80 12345678", "id 80",
        "wrmsr c0000082 1234567890", "rdmsr c0000082", ".help", "gn")))[1]
    data = bytes(values[virtual]["values"])
    check(any(data), "the region is empty")
    equal(bytes(values["!db 1000000 L8"]["values"]), data, "!db")
    for command, form in (("!dd 1000000 L2", "<2I"), ("!dq 1000000 L1", "<Q")):
        equal(tuple(int(str(v), 0) for v in values[command]["values"]),
              struct.unpack(form, data), command)
    for command, value in (("ib 80", 0x5A), ("iw 80", 0x1234), ("id 80", 0x12345678),
                           ("rdmsr c0000082", 0x1234567890)):
        equal(int(str(values[command]["value"]), 0), value, command)
    # Whether it runs when gn is shown depends on a break-in that is left over.
    check("gn" in values[".help"]["commands"] and values["gn"]["ok"], ".help or gn")


@test
def no_sign_in_the_machine(lab):
    """x86: physical addresses and values of registers are not sign-extended"""
    values = json_run(lab, None, lab.target("--machine", "x86", "--wait"), "; ".join((
        "!db 80000000 L4", "!dd fee00000 fee00003", "wrmsr c0000082 80001234",
        "rdmsr c0000082")))[1]
    equal(values["!db 80000000 L4"]["address"], "0x80000000", "!db")
    equal(values["!dd fee00000 fee00003"]["address"], "0xfee00000", "!dd")
    equal(values["rdmsr c0000082"]["value"], "0x80001234", "rdmsr after wrmsr")


@cases(MACHINES)
def memory(lab, machine):
    """eb ew ed eq, db dw dd dq dp da du, s, ? agree with each other"""
    server, target = lab.server(), lab.target("--machine", machine)
    base = BASE[machine]
    at = "nt+3000"
    kd = lab.kd(server, target, "; ".join((
        "eb %s 11 22 33 44" % at, "ew %s+4 5566 7788" % at, "ed %s+8 99aabbcc" % at,
        "eq %s+10 1122334455667788" % at, "db %s L18" % at, "dw %s L2" % at, "dd %s L3" % at,
        "dq %s+10 L1" % at, "dp %s+10 L1" % at,
        'eb %s+20 68 65 6c 6c 6f 0' % at, "da %s+20" % at,
        'eb %s+30 68 0 69 0 0 0' % at, "du %s+30" % at,
        "s nt+2f00 L200 99 aa", "s nt+2f00 L200 cc bb aa 99", "s -d nt+2f00 L200 99aabbcc",
        's -a nt+2f00 L200 "hello"', "? nt+0n16*2", "? poi(%s+10)" % at, "? by(%s)+1" % at)))
    a = base + 0x3000
    for line in (
            address(a, machine) + "  11 22 33 44 66 55 88 77-cc bb aa 99 00 00 00 00 ",
            address(a + 16, machine) + "  88 77 66 55 44 33 22 11 ",
            address(a, machine) + "  2211 4433",
            address(a, machine) + "  44332211 77885566 99aabbcc",
            address(a + 16, machine) + "  11223344`55667788", '"hello"', '"hi"',
            address(a + 8, machine) + "  cc bb aa 99",
            address(a + 0x20, machine) + "  68 65 6c 6c 6f",
            " = " + ("%08x`%08x" % ((base + 32) >> 32, base + 32 & 0xFFFFFFFF)
                     if machine == "amd64" else "%08x" % (base + 32)),
            " = " + ("11223344`55667788" if machine == "amd64" else "55667788")):
        check(line in kd.out, "no %r in\n%s" % (line, kd.out))
    matches(r"Evaluate expression: 18 = ", kd.out, "by()")
    equal(kd.err, "", "stderr")


@cases(MACHINES)
def registers(lab, machine):
    """r shows and sets; what is set is there in the next session's target"""
    server, target = lab.server(), lab.target("--machine", machine)
    a, ip = ("rax", "rip") if machine == "amd64" else ("eax", "eip")
    _, done = json_run(lab, server, target,
                       "r %s; r %s=1234; r %s; r; ? @%s+1; r %s=nt+1000; r %s" %
                       (ip, a, a, a, ip, ip))
    equal(int(done["r " + a][a], 16), 0x1234, "after r %s=1234" % a)
    shown = done["r"]["registers"]
    equal(int(shown[a], 16), 0x1234, "in the list of all")
    check({"efl", ip} <= set(shown), "r shows %s" % sorted(shown))
    matches("4661 = ", done["? @%s+1" % a]["text"], "?")


@cases(MACHINES)
def breakpoints(lab, machine):
    """bp is hit again and again, bd and bc stop that; bl counts"""
    server, target = lab.server(), lab.target("--machine", machine)
    objects, done = json_run(lab, server, target,
                             "bp nt+1100; bp nt+1180; g; g; bc 1; g; g; r; bl; bd 0; bp nt+1180; "
                             "g; r; be 0; bc *; bl; .echo end")
    stops = [o for o in objects if o["type"] == "stop" and o["reason"] == "breakpoint"]
    base = BASE[machine]
    got = [(int(o["pc"], 16) - base & 0xFFFFFFFF, o["breakpoint"]) for o in stops]
    equal(got, [(0x1100, 0), (0x1180, 1), (0x1100, 0), (0x1100, 0), (0x1180, 1)], "stops")
    equal(done["bl"]["breakpoints"][0]["hits"], 3, "hits")
    equal(done[".echo end"]["text"].strip(), "end", ".echo")
    last = [o for o in objects if o.get("command") == "bl"][-1]
    equal(last["breakpoints"], [], "after bc *")
    # Nothing is left in the target, and it runs.
    c = lab.closing(Client(server))
    c.attach(target)
    check(b"\xcc" not in c.read(c.work(), 0x100), "a breakpoint is left")


@cases(MACHINES)
def steps(lab, machine):
    """t goes into a call, p over it, also with a breakpoint at the start"""
    server, target = lab.server(), lab.target("--machine", machine)
    objects, _ = json_run(lab, server, target, "bp nt+1100; g; t; t; t; t; bc *; bp nt+1100; g; "
                                               "p 3; p; p")
    pcs = [int(o["pc"], 16) - BASE[machine] & 0xFFFFFFFF for o in objects if o["type"] == "stop"]
    start = pcs.index(0x1100)
    into = pcs[start:start + 5]
    equal(into[4], 0x1180, "t into the call: %s" % ["%x" % p for p in into])
    over = pcs[start + 5:]
    equal(over[0], 0x1100, "hit again")
    check(0x1180 not in over and all(0x1100 <= p < 0x1180 for p in over),
          "p over the call: %s" % ["%x" % p for p in over])
    equal(len(over), 6, "steps")


@test
def hard_coded_int3(lab):
    """g steps over a breakpoint instruction of the target's own"""
    server, target = lab.server(), lab.target("--int3-every", "100")
    objects, _ = json_run(lab, server, target, "g; g; g; r; .echo x")
    pcs = [int(o["pc"], 16) - BASE["amd64"] for o in objects
           if o["type"] == "stop" and o["code"] == "0x80000003"]
    equal(pcs.count(0x1220), 3, "stops at it: %s" % ["%x" % p for p in pcs])


@test
def prints_and_modules(lab):
    """prints appear while it runs; lm knows modules that were loaded later"""
    server = lab.server()
    # It stops by itself; before each stop it has printed, and loaded a module.
    target = lab.target("--wait", "--print-every", "50", "--module-every", "200", "--int3-every",
                        "300")
    objects, done = json_run(lab, server, target, "lm; g; g; lmf")
    after = objects[[o["type"] for o in objects].index("running"):]
    lines = [o["text"] for o in after if o["type"] == "print"]
    check(len([t for t in lines if re.match(r"kdtarget: line \d+\n", t)]) >= 2,
          "prints: %s" % lines)
    names = {m["name"] for m in done["lm"]["modules"]}
    check({"nt", "hal", "disk"} <= names, "modules: %s" % names)
    later = {m["name"]: m for m in done["lmf"]["modules"]}
    check("demo0" in later, "modules later: %s" % sorted(later))
    told = [o for o in objects if o["type"] == "module" and "demo0" in o["path"]]
    equal(int(told[0]["base"], 16), int(later["demo0"]["base"], 16), "base of demo0")


@test
def stops_at_loads(lab):
    """sxe ld stops when a module is loaded"""
    server, target = lab.server(), lab.target("--module-every", "100")
    objects, _ = json_run(lab, server, target, "sxe ld; g; lm; sxd ld; g; .sleep 300; .break; r")
    loads = [o for o in objects if o["type"] == "stop" and o["reason"] == "load"]
    equal(len(loads), 1, "stops at loads")
    matches("demo", loads[0]["path"], "what was loaded")


@test
def bug_check(lab):
    """a crash shows the target's text, and the target stays for the next one"""
    server, target = lab.server(), lab.target()
    kd = lab.kd(server, target, "ed nt+850 1; g; k; r")
    matches(r"\*\*\* Fatal System Error: 0xDEADDEAD", kd.out, "the text")
    kd = lab.kd(server, target, "r; .reboot; .break; vertarget; .crash; r")
    equal(kd.out.count("Break instruction exception"), 3, "stops in\n" + kd.out)


@test
def prompt(lab):
    """a target that asks does not wait for ever: a script answers with nothing"""
    server, target = lab.server(), lab.target("--prompt-once", "--tries", "1000")
    kd = lab.kd(server, target, "vertarget; g; .sleep 200; .break; r")
    matches("what now", kd.out + kd.err, "the question")


@test
def file_request(lab):
    """a target that asks for a file gets an answer and goes on"""
    server, target = lab.server(), lab.target("--file-io-once", "--tries", "1000")
    lab.kd(server, target, "vertarget; g; .sleep 200; .break; r")


@cases(MACHINES)
def files(lab, machine):
    """.writemem and .readmem: 1 MiB there and back"""
    server, target = lab.server(), lab.target("--machine", machine, "--seed", "3")
    c = lab.closing(Client(server))
    c.attach(target)
    at = c.stats()["region"] & ((1 << 64) - 1 if machine == "amd64" else 0xFFFFFFFF)
    c.ok(CLOSE)
    out, back = lab.path("out"), lab.path("back")
    mib = 1 << 20
    kd = lab.kd(server, target, ".writemem %s %x L%x" % (out, at, mib))
    with open(out, "rb") as f:
        data = f.read()
    check(data == region(0, mib, 3), "the file is wrong: %d bytes" % len(data))
    with open(back, "wb") as f:
        f.write(bytes(reversed(data[:300000])))
    lab.kd(server, target, ".readmem %s %x L%x" % (back, at + 4096, 300000))
    c.attach(target)
    check(c.read(at + 4096, 300000) == bytes(reversed(data[:300000])), "memory is wrong")
    check(c.read(at, 4096) == data[:4096], "memory before it is wrong")
    equal(c.read(at + 4096 + 300000, 8), data[4096 + 300000:][:8], "memory after it")


@test
def disk_full(lab):
    """.writemem on a full disk fails with the reason, and leaves no half file"""
    server, target = lab.server(), lab.target()
    kd = lab.kd(server, target, ".writemem /dev/full nt L4000; .echo on", status=1)
    matches("No space left on device", kd.err, "the reason")
    matches("(?m)^on$", kd.out, "the next command")
    kd = lab.kd(server, target, ".writemem %s/no/such nt L4000" % lab.dir, status=1)
    matches("No such file or directory", kd.err, "the reason")
    kd = lab.kd(server, target, ".readmem %s/missing nt+3000 L10" % lab.dir, status=1)
    matches("No such file or directory", kd.err, "the reason")
    # A file that cannot grow beyond 64 KiB stands for a disk of that size.
    name = lab.path("big")
    kd = lab.kd(server, target, ".writemem %s fffffa8000000000 L100000" % name, status=None,
                limits=[(resource.RLIMIT_FSIZE, 65536)])
    check(kd.p.returncode == 1, "exit status %d" % kd.p.returncode)
    check(not os.path.exists(name), "half a file was left")
    lab.kd(server, target, "db nt L2")


@test
def memory_that_is_not_there(lab):
    """what cannot be read or written: ??, and a failure with the address"""
    server, target = lab.server(), lab.target()
    kd = lab.kd(server, target, "db 10 L4; dd 1000 L2; db nt+fffe L4")
    matches(r"00000000`00000010  \?\? \?\? \?\? \?\?", kd.out, "db")
    matches(r"00000000`00001000  \?{8} \?{8}", kd.out, "dd")
    matches(r"nt|0010fffe  [0-9a-f]{2} [0-9a-f]{2} \?\? \?\?", kd.out, "db over the edge")
    for command in ("eb 10 1", "? poi(10)", ".writemem %s/x 10 L10" % lab.dir):
        kd = lab.kd(server, target, command, status=1)
        matches("10", kd.err, command)


# ---- exit codes --------------------------------------------------------------

@test
def usage(lab):
    """exit 2: options and connection strings, with a text that names the key"""
    good = "kdsrv:server=@{tcp:server=127.0.0.1,port=1},trans=@{com:port=com1}"
    for args, text_wanted in (
            ((), "-k"), (("-k", good, "--nosuch"), "nosuch"), (("-k", good, "extra"), "argument"),
            (("-k", good, "--timeout", "0"), "timeout"),
            (("-k", good, "--timeout", "x"), "timeout"),
            (("-k", ""), ""), (("-k", "frobnicate:x=1"), "frobnicate"),
            (("-k", "kdsrv:server=@{tcp:server=h,port=1,colour=red}"), "colour"),
            (("-k", "kdsrv:server=@{tcp:server=h,port=1,port=2}"), "port"),
            (("-k", "kdsrv:server=@{tcp:server=h}"), "port"),
            (("-k", "kdsrv:server=@{tcp:server=h,port=70000}"), "70000"),
            (("-k", "kdsrv:server=@{tcp:server=h,port=1"), "}"),
            (("-k", "kdsrv:server=@{tcp:server=h,port=1}},trans=@{}"), "}"),
            (("-k", "com:port=com1,baud=1"), "baud"), (("-k", "com:pipe,port=rel/ative"), "port"),
            (("-k", "com:pipe,ipport=3,port=h"), "ipport"),
            (("-k", "net:port=50000,key=1.2.3"), "3 words"), (("-k", "net:key=1.2.3.4"), "port="),
            (("-k", "net:port=50000,key=@/nowhere"), "/nowhere"),
            (("-k", "usb:targetname=a.b"), "a.b"), (("-k", "com:" + "x" * 2000), "")):
        kd = lab.run("kd", *args)
        equal(kd.status, 2, "kd %r: %s" % (args, kd.err))
        matches(re.escape(text_wanted), kd.err, "kd %r" % (args,))
        equal(kd.out, "", "stdout of kd %r" % (args,))
    equal(lab.run("kd", "--help").status, 0, "--help")
    matches(r"^kd \d", lab.run("kd", "--version").out, "--version")


@test
def failed(lab):
    """exit 1: a command failed; those behind it run all the same"""
    server, target = lab.server(), lab.target()
    kd = lab.kd(server, target, ".nosuch; .echo still; db nosuch; bc 7; r nosuch", status=1)
    matches("(?m)^still$", kd.out, "the next command")
    for word in ".nosuch", "nosuch", "7":
        matches(re.escape(word), kd.err, "the errors")
    _, done = json_run(lab, server, target, ".nosuch; .echo still", status=1)
    equal((done[".nosuch"]["ok"], done[".nosuch"]["code"]), (False, 1), ".nosuch")


@test
def unreachable(lab):
    """exit 3, in time: no server, no device, no answer, a lost server"""
    kd = lab.kd("tcp:server=127.0.0.1,port=%d" % PORTS[-1], None, ".servers", status=3)
    matches("port=%d.*nobody listens" % PORTS[-1], kd.err, "no server")
    kd = lab.kd("npipe:pipe=nobody", None, ".servers", status=3)
    matches("nobody", kd.err, "no server")
    kd = lab.kd("tcp:server=no.such.host.invalid,port=1", None, ".servers", status=3)
    matches("no.such.host.invalid", kd.err, "no host")
    server = lab.server()
    kd = lab.kd(server, "com:pipe,port=/no/such.sock", "r", status=3)
    matches("/no/such.sock.*no such socket", kd.err, "no device")
    began = lab.clock()
    kd = lab.kd(server, lab.target("--silent"), "vertarget", "--timeout", "3", status=3)
    check(lab.clock() - began < 6, "took %g s" % (lab.clock() - began))
    kd = lab.kd(server, lab.target("--wrong-baud", "--tries", "1000"), "vertarget",
                "--timeout", "3", status=3)
    matches("baud", kd.out + kd.err, "what is wrong")
    # Its server is killed while it waits.
    target = lab.target()
    p = lab.start_kd(server, target, "r; .echo waits; .sleep 20000; r")
    p.wait_text("^waits$")
    server.kill()
    equal(p.wait(), 3, "exit status without a server")
    # Something that is not kdsrv.
    with socket.create_server(("127.0.0.1", 0)) as s:
        p = lab.start_kd("tcp:server=127.0.0.1,port=%d" % s.getsockname()[1], None, ".servers")
        c, _ = s.accept()
        c.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        equal(p.wait(), 3, "exit status with a web server")
        c.close()
        p = lab.start_kd("tcp:server=127.0.0.1,port=%d" % s.getsockname()[1], None, ".servers",
                         "--timeout", "1")
        c, _ = s.accept()
        check(p.wait() in (3, 5), "exit status with a mute server")
        c.close()


@test
def refused(lab):
    """exit 4: wrong password, none, target in use"""
    server = lab.server(transports=["tcp:port=%s,password=right" % port_range()])
    target = lab.target()
    for password in (",password=wrong", ""):
        kd = lab.kd(server.where + password, target, "r", status=4)
        matches("password", kd.err, "why")
    secret = lab.path("password")
    with open(secret, "w") as f:
        f.write("right\nsecond line\n")
    kd = lab.kd(server.where + ",password=@" + secret, target, "db nt L2")
    c = lab.closing(Client(server, password="right", who="ann@lab"))
    c.attach(target)
    kd = lab.kd(server.where + ",password=right", target, "r", status=4)
    matches("in use by ann@lab", kd.err, "who")


@test
def timed_out(lab):
    """exit 5: a command that waits in vain, and the target runs afterwards"""
    server, target = lab.server(), lab.target("--print-every", "50")
    began, clock = time.monotonic(), lab.clock()
    lab.kd(server, target, "bp nt+3000; g; r", "--timeout", "2", status=5)
    check(time.monotonic() - began >= 2, "took %g s" % (time.monotonic() - began))
    check(lab.clock() - clock < 6, "took %g s" % (lab.clock() - clock))
    c = lab.closing(Client(server))
    c.attach(target, 0)
    c.wait_event(EV_PRINT)


@test
def killed(lab):
    """kd is killed, or interrupted, in the middle: breakpoints go, the next attaches"""
    for sig in signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
        server, target = lab.server(), lab.target("--print-every", "50")
        p = lab.start_kd(server, target, "bp nt+1100; g; g; r; .echo here; .sleep 20000")
        p.wait_text("^here$")
        p.signal(sig)
        p.wait()
        c = lab.closing(Client(server))
        c.attach(target, 0)
        c.wait_event(EV_PRINT)
        c.send(BREAK)
        c.wait_event(EV_STOPPED)
        c.version()
        check(c.read(c.work(), 1) != b"\xcc", "%s: the breakpoint is left" % sig.name)


@test
def end_server_refused(lab):
    """.endpsrv without a server: refused, nothing ends"""
    target = lab.target("--print-every", "50")
    kd = lab.kd(None, target, "vertarget; .endpsrv; db nt L2", status=1)
    matches("not connected through a server|no server", kd.err, "why")
    matches("4d 5a", kd.out, "the command behind it")


@test
def end_server_only(lab):
    """kd without trans= reaches the server alone: .servers, .endpsrv"""
    server, target = lab.server(), lab.target()
    c = lab.closing(Client(server, who="ann@lab"))
    c.attach(target)
    kd = lab.kd(server, None, ".servers; r; .echo on", status=1)
    matches("%s.*held by ann@lab" % re.escape(target.trans), kd.out, ".servers")
    matches("no target", kd.err, "r")
    lab.kd(server, None, ".endpsrv")
    c.wait_event(EV_ENDING)
    equal(server.wait(5), 0, "kdsrv's exit status")


# ---- in-process --------------------------------------------------------------

@cases([(m, on) for m in MACHINES for on in ("unix", "pty", "tcp")], " ".join)
def in_process(lab, kind):
    """kd -k com:... without a server: commands work, and it runs again after q"""
    target = lab.target("--machine", kind[0], "--print-every", "50", on=kind[1])
    kd = lab.kd(None, target, "vertarget; db nt L10; lm; bp nt+1100; g; r; k; t; q")
    matches("Breakpoint 0 hit", kd.out, "bp")
    matches("4d 5a", kd.out, "db")
    server = lab.server()
    c = lab.closing(Client(server))
    c.attach(target, 0)
    c.wait_event(EV_PRINT, 5)
    c.send(BREAK)
    c.wait_event(EV_STOPPED)
    c.version()
    check(c.read(c.work(), 1) != b"\xcc", "the breakpoint is left")


@test
def in_process_killed(lab):
    """an in-process kd that is killed leaves the target as it should be"""
    target = lab.target("--print-every", "50")
    p = lab.start_kd(None, target, "bp nt+1100; g; r; .echo here; .sleep 20000")
    p.wait_text("^here$")
    p.kill()
    c = lab.closing(Client(lab.server()))
    c.attach(target, 0)
    c.wait_event(EV_PRINT, 8)


@test
def script_files(lab):
    """-cf FILE, and a script on standard input"""
    server, target = lab.server(), lab.target()
    name = lab.path("script")
    with open(name, "w") as f:
        f.write("* a comment; r nosuch\n.echo one\n\n$$ another\ndb nt L2; .echo \"two; three\"\n")
    kd = lab.kd(server, target, None, "-cf", name)
    matches("(?m)^one$", kd.out, "the first line")
    matches("(?m)two; three", kd.out, "quotes")
    with open(name) as f:
        kd = lab.kd(server, target, None, stdin=f)
    matches("(?m)^one$", kd.out, "from standard input")


if __name__ == "__main__":
    main(needs=("kdsrv", "kdtarget", "kd"))
