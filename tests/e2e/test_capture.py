#!/usr/bin/env python3
# kdsrv --capture and kd --capture: what was recorded is what kdcap and tshark read.
# SPDX-License-Identifier: MIT
import fcntl
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdclient import *
from kdlib import *
from usblab import *

PROGRAMS["kdcap"] = os.path.join(TOP_BUILD, "kdcap/kdcap")
LUA = os.path.join(TOP_SRC, "hw-fixtures/wireshark/kd.lua")
NO_PACKETS = {"unknown", "sealed", "malformed", "damaged", "noise", "cut-off"}
# What the target answers, whatever the session is.
COMMANDS = "vertarget; r; db nt L100; lm; bp nt+1180; g; bc *; q"
APIS = {"ExceptionStateChange", "GetVersion", "ReadVirtualMemory", "WriteBreakPoint",
        "RestoreBreakPoint", "Continue2"}


def decode(lab, path, *options, status=(0,)):
    p = lab.run("kdcap", "-r", path, "--json", *options)
    check(p.status in status, "kdcap's exit status %d (%s)" % (p.status, p.err))
    return [json.loads(line) for line in p.out.splitlines()]


def is_a_session(got, dirs=("target", "host")):
    """Everything is named, requests have their replies, both sides are there."""
    strange = [o for o in got if o["type"] in NO_PACKETS]
    check(not strange, "not named: %r" % strange[:3])
    equal({o["dir"] for o in got}, set(dirs), "senders")
    missing = APIS - {o.get("api") for o in got}
    check(not missing, "messages that are missing: %s" % missing)
    replies = [o for o in got if o["type"] == "STATE_MANIPULATE" and o["dir"] == "target"]
    check(len(replies) > 20, "only %d replies" % len(replies))
    for o in replies:
        check("answers" in o or "retransmission" in o, "answers nothing: %r" % o)
        check(o.get("latency_ms", 0) >= 0, "before its request: %r" % o)
    times = [float(o["time"]) for o in got]
    equal(times, sorted(times), "times")


def end(server):
    """From here on all that was recorded is in the file."""
    server.signal(signal.SIGTERM)
    equal(server.wait(), 0, "kdsrv's exit status")


def wait_written(path):
    """kd may end before its server process, which has a lock on the file until it does."""
    with open(path) as f:
        fcntl.flock(f, fcntl.LOCK_EX)


def contents(path):
    with open(path, "rb") as f:
        return f.read()


def no_key(path, key=NetTarget.KEY):
    data = contents(path)
    for word in key.split("."):
        check(word.encode() not in data, "the text of the key")
        check(int(word, 36).to_bytes(8, "little") not in data, "bytes of the key")


# ---- whole sessions --------------------------------------------------------------------

@test
def serial(lab):
    """a session on a serial line: each packet, with its sender and its reply"""
    path = lab.path("com.pcapng")
    target = lab.target("--print-every", "50", "--stats")
    server = lab.server("--capture", path)
    for _ in range(2):
        lab.kd(server, target, COMMANDS)
    end(server)
    got = decode(lab, path)
    is_a_session(got)
    equal({(o["channel"], o["dir"], o["src"], o["dst"]) for o in got},
          {("stream", "target", "com:1", "host"), ("stream", "host", "host", "com:1"),
           ("stream", "target", "com:2", "host"), ("stream", "host", "host", "com:2")},
          "a number for each session")
    equal([(l["target"], l["host"]) for l in decode(lab, path, "--stats")[0]["links"]],
          [("com:1", "host"), ("com:2", "host")], "the ends in the statistics")
    shown = [lab.run("kdcap", "-r", path, *options).out for options in ([], ["-v"], ["--stats"])]
    check("::" not in "".join(shown), "an address where there is none")
    matches(r"\n +com:1 > host, \d+ bytes", shown[1], "-v")
    matches(r"\nLink 2: target com:2, byte stream", shown[2], "--stats")
    equal(stat.S_IMODE(os.stat(path).st_mode), 0o600, "mode of the file")
    for number, direction in enumerate(("target", "host")):
        bytes_ = sum(o["wire_len"] for o in got if o["dir"] == direction)
        equal(bytes_, sum(len(r) - 64 for r in raw_records(path) if r[7] == number),
              "bytes of the %s in packets" % direction)
    equal(bytes_, target.stats()["bytes_received"], "bytes that the target got")


@test
def network(lab):
    """a session over KDNET with a reboot: sealed as it was on the wire, no key in the file"""
    path = lab.path("net.pcapng")
    target = NetTarget(lab)
    server = lab.server("--capture", path)
    kd = lab.kd(server, target, COMMANDS)
    c = lab.closing(Client(server))
    c.attach(target)
    c.manipulate(0x313B)
    c.wait_event(EV_REBOOT)
    c.close()
    lab.kd(server, target, COMMANDS)
    end(server)
    got = decode(lab, path, "--key", target.KEY)
    is_a_session(got)
    equal({o["link"] for o in got}, {1}, "links")
    check(any(o.get("restarted") for o in got), "the reboot is not seen")
    check(sum(o["type"] == "response" for o in got) >= 3, "responses")
    equal({o["src"] for o in got if o["dir"] == "target"}, {"127.0.0.1:%d" % target.own},
          "the target's address")
    no_key(path)
    matches("4d 5a 90|4d 5a", kd.out, "what kd showed")
    check(b"MZ\0\0" not in contents(path), "memory in clear")
    equal({o["type"] for o in decode(lab, path)}, {"sealed"}, "without the key")
    equal({o["dir"] for o in decode(lab, path)}, {"target", "host"}, "senders without the key")


@cases([("KDUSB", (), UsbTarget, ()),
        ("KDNET in EEM frames", ("--descriptors", "eem"), EemTarget, ("--key", NetTarget.KEY))],
       lambda c: c[0])
def usb_cable(lab, case):
    """a USB debug cable: each transfer, in a second file, a stall and a reboot as well"""
    if not has_driver("usb") or not os.access(PROGRAMS["kdusb-mock"], os.X_OK):
        raise Skip("built without the usb driver or its mock")
    _, port, kind, options = case
    path = lab.path("lab.pcapng")
    machine = Machine(lab, port)
    server = machine.server("--capture", path)
    target = kind(lab, machine.cables[0])
    lab.kd(server, target, COMMANDS)
    c = lab.closing(Client(server))
    c.attach(target)
    machine.do("stall in")
    c.manipulate(0x313B)
    c.wait_event(EV_REBOOT)
    c.close()
    lab.kd(server, target, COMMANDS)
    end(server)
    usb = path[:-len(".pcapng")] + ".usb.pcapng"
    equal(stat.S_IMODE(os.stat(usb).st_mode), 0o600, "mode of the file")
    equal(decode(lab, path), [], "packets in the other file")
    got = decode(lab, usb, *options)
    is_a_session([o for o in got if o["type"] != "failed-transfer"])
    if kind == UsbTarget:
        check(any("stall" in o.get("why", "") for o in got), "the stall is not seen")
        equal({o["fields"]["name"] for o in got if o["type"] == "name"}, {"lab1"}, "names")
        check(len({o["link"] for o in got}) > 1, "the reboot is not seen")
    else:
        check(any(o.get("restarted") for o in got), "the reboot is not seen")
        no_key(usb)


@test
def several_targets(lab):
    """targets of both kinds in one file are told apart"""
    path = lab.path("both.pcapng")
    com, net = lab.target(), NetTarget(lab)
    server = lab.server("--capture", path)
    clients = [lab.start_kd(server, t, COMMANDS) for t in (com, net, lab.target())]
    for kd in clients:
        equal(kd.wait(30), 0, "kd's exit status")
    end(server)
    got = decode(lab, path, "--key", net.KEY)
    equal({o["link"] for o in got}, {1, 2, 3}, "links")
    for link in (1, 2, 3):
        is_a_session([o for o in got if o["link"] == link])


@test
def in_process(lab):
    """kd --capture records without a server, and refuses with one"""
    for target, options in ((lab.target(), ()), (NetTarget(lab), ("--key", NetTarget.KEY))):
        path = lab.path("kd.pcapng")
        lab.kd(None, target, COMMANDS, "--capture", path)
        wait_written(path)
        is_a_session(decode(lab, path, *options))
    server = lab.server()
    kd = lab.kd(server, target, "q", "--capture", lab.path("no"), status=2)
    matches("kdsrv --capture", kd.err, "what to do instead")
    kd = lab.kd(None, lab.target(), "q", "--capture", "/nonexistent/x", status=2)
    matches("--capture /nonexistent/x: cannot record there", kd.err, "kd's error")


@test
def replayed(lab):
    """kdcap plays what was recorded to another debugger, who sees the same"""
    path = lab.path("again.pcapng")
    target = NetTarget(lab)

    def shown(kd):
        return re.findall(r"^(?:Windows 8|rip=|fffff800`0(?:0100|1)).*", kd.out, re.M)
    first = shown(lab.kd(None, target, "vertarget; r rip; db nt L40; lm; g", "--capture", path))
    check(len(first) > 6, "kd shows what it read: %r" % first)
    target.kill()
    wait_written(path)
    replay = Proc(lab, "kdcap", [PROGRAMS["kdcap"], "--replay", path, "--key", target.KEY, "--as",
                                 "target", "--port", str(target.own)], expect=None)
    replay.wait_text("playing", stream="err")
    kd = lab.start_kd(None, target, "vertarget; r rip; db nt L40; lm; g; .sleep 15000")
    check(replay.wait(40) in (0, 5), "kdcap's exit status")
    matches(r"(\d+) of \1 steps played", replay.err, "what was played")
    kd.signal(signal.SIGTERM)
    kd.wait(20)
    equal(shown(kd), first, "what kd shows of the replay")


@test
def wireshark(lab):
    """tshark with the dissector shows both carriers"""
    if not shutil.which("tshark"):
        raise Skip("no tshark")
    path = lab.path("shark.pcapng")
    server = lab.server("--capture", path)
    lab.kd(server, lab.target(), COMMANDS)
    lab.kd(server, NetTarget(lab), COMMANDS)
    end(server)
    env = dict(lab.env, HOME=lab.dir, XDG_CONFIG_HOME=lab.dir, LC_ALL="C.UTF-8")
    done = subprocess.run(["tshark", "-n", "-X", "lua_script:" + LUA, "-r", path], env=env, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=50)
    equal(done.returncode, 0, "tshark's status (%s)" % done.stderr)
    lines = done.stdout.splitlines()
    equal(len(lines), len(raw_records(path)), "lines")
    check("Malformed" not in done.stdout and "Lua Error" not in done.stdout, "it is malformed")
    for text in ("line 1 → host", "host: GetVersion request", "GetVersion reply: x64 build 9600", "KDNET"):
        check(text in done.stdout, "nowhere is %r" % text)


# ---- while it is written ---------------------------------------------------------------

def raw_records(path):
    """The packet blocks of a pcapng file that are whole."""
    data, at, out = contents(path), 0, []
    while at + 8 <= len(data):
        kind, n = struct.unpack_from("<II", data, at)
        if at + n > len(data):
            break
        if kind == 6:
            out.append(data[at + 28:at + 28 + struct.unpack_from("<I", data, at + 20)[0]])
        at += n
    return out


@test
def live(lab):
    """a reader sees what has happened while the session goes on"""
    path = lab.path("live.pcapng")
    server = lab.server("--capture", path)
    target = lab.target()
    c = lab.closing(Client(server))
    c.attach(target)
    c.read(c.base, 0x1234)
    eventually(lambda: any(o.get("api") == "ReadVirtualMemory" and o["reply"]
                           for o in decode(lab, path, status=(0, 3))), "the read is in the file")
    before = len(decode(lab, path, status=(0, 3)))
    c.version()
    eventually(lambda: len(decode(lab, path, status=(0, 3))) > before, "the file grows")
    c.ok(CLOSE)


@test
def killed(lab):
    """SIGKILL in the middle of a read leaves a file that can be read"""
    path = lab.path("killed.pcapng")
    server = lab.server("--capture", path, expect=None)
    target = lab.target()
    c = lab.closing(Client(server))
    c.attach(target)
    at = c.stats()["region"]
    c.send(READ, c.read_request((at, 8 << 20)))
    eventually(lambda: os.path.getsize(path) > 1 << 20, "the read is under way")
    server.kill()
    got = decode(lab, path, status=(0, 3))
    check(sum(o.get("api") == "ReadVirtualMemory" for o in got) > 100, "reads")
    equal({o["type"] for o in got} & NO_PACKETS, set(), "packets without a name")


# ---- what can go wrong -----------------------------------------------------------------

@test
def full_disk(lab):
    """a file that cannot grow: told once, the session goes on, the file is whole"""
    path = lab.path("full.pcapng")
    server = lab.server("--capture", path, limits=[(resource.RLIMIT_FSIZE, 50000)])
    target = lab.target()
    for _ in range(3):
        kd = lab.kd(server, target, COMMANDS)
        matches("4d 5a", kd.out, "what kd shows")
    end(server)
    equal(server.err.count("cannot write"), 1, "complaints")
    matches("full.pcapng: cannot write: File too large; the recording ends here", server.err,
            "the complaint")
    got = decode(lab, path)
    check(len(got) > 20, "%d packets" % len(got))
    check(len(raw_records(path)) > 20 and os.path.getsize(path) <= 50000, "size of the file")


@cases(["directory", "fifo", "device", "no folder", "no right", "in use"])
def bad_files(lab, case):
    """kdsrv does not start, and says why"""
    path, want = lab.path("x"), "it is no regular file"
    if case == "directory":
        os.mkdir(path)
    elif case == "fifo":
        os.mkfifo(path)
    elif case == "device":
        path = "/dev/null"
    elif case == "no folder":
        path, want = path + "/y", "No such file"
    elif case == "no right":
        if os.geteuid() == 0:
            raise Skip("root may write everything")
        os.mkdir(path, 0o500)
        path, want = path + "/y", "Permission denied"
    else:
        lab.server("--capture", path)
        want = "another program records there"
    p = lab.run("kdsrv", "-t", "tcp:port=%s" % port_range(), "--capture", path)
    equal(p.status, 1, "exit status")
    matches("--capture %s: cannot record there: .*%s" % (path, want), p.err, "the error")
    check(case != "device" or stat.S_ISCHR(os.stat(path).st_mode), "the device")


@test
def written_anew(lab):
    """an older file is replaced, and becomes private"""
    path = lab.path("old")
    with open(path, "wb") as f:
        f.write(b"x" * 100000)
    os.chmod(path, 0o644)
    server = lab.server("--capture", path)
    equal(stat.S_IMODE(os.stat(path).st_mode), 0o600, "mode of the file")
    equal(decode(lab, path), [], "packets before any session")
    lab.kd(server, lab.target(), COMMANDS)
    end(server)
    is_a_session(decode(lab, path))


if "left out of this build" in subprocess.run([PROGRAMS["kdcap"], "-r", "-"], text=True,
                                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                               stderr=subprocess.PIPE).stderr:
    print("1..0 # SKIP this build has no libpcap")
else:
    main(needs=("kdsrv", "kd", "kdcap", "kdtarget"))
