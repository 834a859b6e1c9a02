#!/usr/bin/env python3
# kdloop usb: on the emulated debug devices of kdusb-mock. The debuggee's end of
# the cable is here. SPDX-License-Identifier: MIT
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdlib import *
from usblab import UsbTarget

PROGRAMS["kdloop"] = os.path.join(TOP_BUILD, "kdloop/kdloop")
MOCK = os.path.join(TOP_BUILD, "kdusb-mock")
REDIR = os.path.join(TOP_BUILD, "kdusb-redir")
PACKET = b"0000" + bytes(12)


class Debuggee:
    """What the target does with each transfer: behave(bytes) gives a list of
    transfers to send back."""

    def __init__(self, path, behave, plugged=True):
        self.path, self.behave, self.sock = path, behave, None
        self.got = []
        self.ending = False
        self.thread = None
        if plugged:
            self.plug()

    def plug(self):
        """Connects as soon as somebody listens."""
        self.ending = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def unplug(self):
        self.ending = True
        if self.sock:
            self.sock.shutdown(socket.SHUT_RDWR)
        if self.thread:
            self.thread.join(10)

    close = unplug

    def _run(self):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        while not self.ending:
            try:
                s.connect(self.path)
                break
            except OSError:
                time.sleep(0.01)
        self.sock = s
        try:
            while not self.ending:
                message = s.recv(20000)
                if not message:
                    break
                self.got.append(message[1:])
                for transfer in self.behave(message[1:]):
                    s.send(b"I" + transfer)
        except OSError:
            pass
        self.sock = None
        s.close()


def silent(transfer):
    return []


def echo(transfer):
    return [transfer]


def named(name, before=()):
    def behave(transfer):
        if transfer == b"NAME?":
            return list(before) + [b"NAME=" + name + b"\0\0"]
        return []
    return behave


LINUX = ("--id", "1d6b:0010")


class Run(Proc):
    """kdloop on a machine with a device for each debuggee; mock has options of the first one, mocks
    of each."""

    def __init__(self, lab, debuggees, where, *args, mock=(), mocks=None, rig=None, as_json=True,
                 plugged=True):
        argv = [MOCK]
        for debuggee, options in zip(debuggees, mocks or [mock] + [()] * len(debuggees)):
            argv += ["--cable", debuggee.path] + list(options)
        if debuggees and plugged:
            argv.append("--wait")
        link = ["--rig", rig] if rig else [where]
        super().__init__(lab, "kdloop", argv + ["--", PROGRAMS["kdloop"]] + link + list(args) +
                         (["--json"] if as_json else []), expect=None)

    def result(self, wait_s=50):
        self.status = self.wait(wait_s)
        check(self.out, "no JSON: " + self.err)
        got = json.loads(self.out)
        self.link = got["links"][0]
        self.checks = {c["name"]: c for c in self.link["checks"]}
        for c in self.link["checks"]:
            print("# %-4s %-11s %s" % (c["verdict"], c["name"], c["what"]))
        return self

    def says(self, name, verdict, what, advice=""):
        check(name in self.checks, "no check %s, but %s; %s" %
              (name, sorted(self.checks), self.link["error"]))
        equal(self.checks[name]["verdict"], verdict, "verdict of " + name)
        matches(what, self.checks[name]["what"], name)
        matches(advice, self.checks[name]["advice"], "advice of " + name)


def cable(lab, behave=silent, n="", **kw):
    return lab.closing(Debuggee(lab.path("cable%s" % n), behave, **kw))


# ---- looking -------------------------------------------------------------------

@test
def good(lab):
    """a good device passes, and nothing is sent to it"""
    d = cable(lab)
    p = Run(lab, [d], "usb:").result()
    equal(p.status, 0, "exit code (%s)" % p.err)
    p.says("speed", "PASS", "5000 Mbit/s")
    p.says("interface", "PASS", "dc/02/ff")
    p.says("bos", "PASS", "2 capabilities, SuperSpeed among them")
    p.says("endpoints", "PASS", "in: packets of 1024, bursts of 16; out: packets of 1024")
    p.says("access", "PASS", "may be opened")
    matches("3495:00e0 at .*Windows USB 3 debug target", p.link["facts"]["device"], "the device")
    equal(d.got, [], "what was sent")


@test
def no_usb(lab):
    """no USB on the machine"""
    p = Run(lab, [], "usb:").result()
    equal(p.status, 3, "exit code")
    matches("no USB", p.link["error"], "the error")


@test
def not_there(lab):
    """no device at the port that is asked for"""
    p = Run(lab, [cable(lab)], "usb:path=9-1").result()
    equal(p.status, 3, "exit code")
    matches("no debug device at 9-1: is the target on", p.link["error"], "the error")
    p = Run(lab, [cable(lab)], "usb:id=1234:5678").result()
    equal(p.status, 3, "exit code")


@test
def several(lab):
    """with several devices, path= says which; they are listed in the order of their ports"""
    p = Run(lab, [cable(lab, n=n) for n in range(3)], "usb:").result()
    equal(p.status, 2, "exit code")
    matches("3 debug devices, at 2-1, 2-2, 2-3; say which with path=", p.link["error"], "the error")
    for path in ("2-1", "2-3"):
        p = Run(lab, [cable(lab, n=n) for n in range(3)], "usb:path=" + path).result()
        equal(p.status, 0, "exit code")
        matches("at %s:" % path, p.link["facts"]["device"], "the device")


@test
def several_only_looked_at(lab):
    """the name of a target is not asked for without a mode"""
    d = [cable(lab, named(b"A"), n=1), cable(lab, named(b"B"), n=2)]
    p = Run(lab, d, "usb:targetname=B").result()
    equal(p.status, 2, "exit code")
    matches("at 2-1, 2-2; which is b only they can tell.*--mode name", p.link["error"], "the error")
    equal([x.got for x in d], [[], []], "what was sent")


@cases([("no-bulk", "interface", "FAIL", "one bulk endpoint each way"),
        ("other-class", "interface", "FAIL", "class 03/02/ff"),
        ("absurd-lengths", "bos", "WARN", "the BOS descriptor"),
        ("endless-names", "speed", "PASS", "")],
       lambda case: case[0])
def descriptors(lab, case):
    """bad descriptors are told"""
    kind, name, verdict, what = case
    mode = [] if kind == "endless-names" else ["--mode", "name"]
    p = Run(lab, [cable(lab)], "usb:", *mode, mock=["--descriptors", kind]).result()
    p.says(name, verdict, what)
    check("name" not in p.checks, "it was opened")


@test
def denied(lab):
    """a node that may not be opened: the rule that is missing is named"""
    if os.geteuid() != 0:
        raise Skip("needs root")
    os.chmod(lab.dir, 0o777)
    p = Run(lab, [cable(lab)], "usb:", mock=["--mode", "0600", "--user", "65534"]).result()
    p.says("access", "FAIL", "not permitted", "70-kdsrv.rules")
    equal(p.checks["bos"]["verdict"], "SKIP", "verdict of bos")


# ---- its name ------------------------------------------------------------------

@cases([("RACK1", [], "PASS", "says RACK1", ""), ("rack1", [PACKET], "PASS", "says rack1", ""),
        ("RACK2", [], "FAIL", "says RACK2, not rack1", "targetname:rack1")],
       lambda case: "%s %d" % (case[0], len(case[1])))
def name(lab, case):
    """the target says its name"""
    name, before, verdict, what, advice = case
    p = Run(lab, [cable(lab, named(name.encode(), before))], "usb:targetname=RACK1", "--mode",
            "name").result()
    p.says("name", verdict, what, advice)
    equal(p.checks["name"]["values"]["KD packets"]["value"], len(before), "KD packets")


@cases([("nothing", lambda t: [], "FAIL"), ("KD packets", lambda t: [PACKET], "WARN"),
        ("a name without end", lambda t: [b"NAME=" + b"x" * 500], "FAIL"),
        ("a name without a zero", lambda t: [b"NAME=" + b"x" * 32], "FAIL"),
        ("noise", lambda t: [bytes(range(200)), b"", b"N"], "FAIL")], lambda case: case[0])
def no_name(lab, case):
    """no answer to the question for the name"""
    _, behave, verdict = case
    d = cable(lab, behave)
    p = Run(lab, [d], "usb:", "--mode", "name").result()
    p.says("name", verdict, r"no answer to NAME\? in 5 s")
    check(d.got and set(d.got) == {b"NAME?"}, "what was sent: %r" % d.got)


@test
def name_of_kdtarget(lab):
    """the name of a whole debuggee, which goes on afterwards"""
    class Cable:
        path = lab.path("cable")
    target = UsbTarget(lab, Cable.path, name="lab7")
    for _ in range(2):
        p = Run(lab, [Cable], "usb:targetname=LAB7", "--mode", "name").result()
        p.says("name", "PASS", "the target says lab7")
    check(target.running(), "kdtarget has ended")


@cases([("first", b"RACK1", "2-1"), ("last", b"RACK3", "2-3")], lambda case: case[0])
def name_of_several(lab, case):
    """the name alone says which of several devices is meant; those that have none are not asked"""
    _, name, path = case
    d = [cable(lab, named(b"RACK1"), n=1), cable(lab, echo, n=2), cable(lab, named(b"rack3"), n=3)]
    p = Run(lab, d, "usb:targetname=" + name.decode(), "--mode", "name",
            mocks=[(), LINUX, ()]).result()
    equal(p.status, 0, "exit code (%s)" % p.link["error"])
    p.says("name", "PASS", "says (?i:%s)" % name.decode())
    matches("at %s:" % path, p.link["facts"]["device"], "the device")
    equal(p.link["facts"]["2-1"].lower(), "says rack1", "who was asked")
    equal(d[1].got, [], "what was sent to Linux")


@test
def name_of_none(lab):
    """none of several devices has the name: what each says"""
    d = [cable(lab, named(b"A"), n=1), cable(lab, lambda t: [PACKET], n=2)]
    p = Run(lab, d, "usb:targetname=C", "--mode", "replug").result()
    equal(p.status, 1, "exit code")
    p.says("name", "FAIL", "none of 2 debug devices says c", "targetname:c sets the name")
    equal([p.link["facts"][path] for path in ("2-1", "2-2")], ["says A", "says no name"],
          "what they say")


@cases([(LINUX, "1d6b:0010 is a Linux"), (("--descriptors", "eem"), "045e:0656 is a Windows KDNET"),
        (("--id", "1234:5678"), "1234:5678 is a device that nobody knows")], lambda case: case[1])
def nameless(lab, case):
    """what has no name is not asked for it"""
    d = cable(lab, echo)
    p = Run(lab, [d], "usb:", "--mode", "name", mock=case[0]).result()
    equal(p.status, 1, "exit code")
    p.says("name", "FAIL", case[1] + ".*; nothing was sent", "bcdedit")
    equal(d.got, [], "what was sent")


@test
def named_by_id(lab):
    """a device that id= asks for is asked for its name"""
    p = Run(lab, [cable(lab, named(b"A"))], "usb:targetname=A,id=1234:5678", "--mode", "name",
            mock=["--id", "1234:5678"]).result()
    p.says("name", "PASS", "says A")


# ---- waiting -------------------------------------------------------------------

@cases(["name", "replug"], lambda case: case)
def waits(lab, mode):
    """a device that comes later is waited for"""
    d = cable(lab, named(b"A"), plugged=False)
    p = Run(lab, [d], "usb:targetname=A", "--mode", mode, "--duration", "100", as_json=False,
            plugged=False)
    p.wait_text(r"waiting +for a debug device, \d+ s: plug the cable in, start the target", 20)
    d.plug()
    p.wait_text(r"PASS  device +there after", 20)
    if mode == "replug":
        p.wait_text("replug +pull the cable out", 20)
        p.signal(signal.SIGINT)
    equal(p.wait(20), 130 if mode == "replug" else 0, "exit code")
    matches("PASS  name +the target says A" if mode == "name" else "SKIP  replug", p.out, "verdict")


@cases([("name", "usb:", ("--duration", "1"), r"no debug device within \d+ s"),
        ("replug", "usb:path=2-7", ("--duration", "1"), r"no debug device at 2-7 within \d+ s"),
        ("echo", "usb:", ("--wait", "1"), r"no debug device within \d+ s")], lambda case: case[0])
def waits_in_vain(lab, case):
    """a device that does not come: what to do"""
    mode, where, args, what = case
    p = Run(lab, [cable(lab, plugged=False)], where, "--mode", mode, *args, plugged=False).result()
    equal(p.status, 1, "exit code")
    p.says("device", "FAIL", what, "is the target on.*debug cable")
    equal(list(p.checks), ["device"], "what was tried")


@test
def wait_ended(lab):
    """Ctrl-C ends the waiting"""
    d = cable(lab, plugged=False)
    p = Run(lab, [d], "usb:", "--mode", "name", as_json=False, plugged=False)
    p.wait_text(r"waiting +for a debug device, \d+ s", 20)
    p.signal(signal.SIGINT)
    equal(p.wait(20), 130, "exit code")
    matches("SKIP  device +interrupted", p.out, "the verdict")


@test
def wait_on_a_terminal(lab):
    """while waiting, the live line says for what"""
    master, slave = os.openpty()
    try:
        p = Proc(lab, "kdloop", [
            MOCK, "--cable", lab.path("cable"), "--", "sh", "-c", 'exec "$@" 2>%s' %
            os.ttyname(slave), "sh", PROGRAMS["kdloop"], "usb:", "--mode", "name", "--duration",
            "1"], expect=None)
        equal(p.wait(30), 1, "exit code")
        text = os.read(master, 65536).decode()
    finally:
        os.close(slave)
        os.close(master)
    matches(r"\r\033\[Kwaiting for a debug device, \d+ s left: plug the cable in", text, "the line")


# ---- echo ----------------------------------------------------------------------

@test
def good_echo(lab):
    """what an echoing target sends back is compared"""
    p = Run(lab, [cable(lab, echo)], "usb:", "--mode", "echo", "--duration", "2",
            mock=LINUX).result()
    p.says("echo", "PASS", "came back intact")
    check(p.checks["echo"]["values"]["transfers"]["value"] >= 8, "transfers")
    check(p.link["latency"][0]["count"] >= 8, "latencies")


@test
def cut_echo(lab):
    """a terminal at the other end may cut it in other places"""
    def behave(t):
        return [t[:len(t) // 2], t[len(t) // 2:]]
    p = Run(lab, [cable(lab, behave)], "usb:", "--mode", "echo", "--duration", "1",
            mock=LINUX).result()
    p.says("echo", "PASS", "came back intact")


@cases([("nothing", silent, "nothing came back within a second", "stty raw"),
        ("changed", lambda t: [t.replace(b"\x1f", b"\r\n"[:1])],
         "^1040 bytes were sent, 1040 came back, 4 of them wrong", "raw"),
        ("more", lambda t: [t + b"!"], "^1 bytes were sent, 2 came back, 1 of them wrong", "raw"),
        ("KD packets", lambda t: [PACKET], "KD packets came", "--mode name"),
        ("less", lambda t: [t[1:]], "nothing came back", "")], lambda case: case[0])
def bad_echo(lab, case):
    """what comes back is not what was sent"""
    _, behave, what, advice = case
    p = Run(lab, [cable(lab, behave)], "usb:", "--mode", "echo", "--duration", "3",
            mock=LINUX).result()
    equal(p.status, 1, "exit code")
    p.says("echo", "FAIL", what, advice)


@cases([((), "3495:00e0 is a Windows USB 3 debug target"),
        (("--descriptors", "eem"), "045e:0656 is a Windows KDNET"),
        (("--id", "1234:5678"), "1234:5678 is a device that nobody knows")], lambda case: case[1])
def no_echo(lab, case):
    """nothing is sent to a target that does not echo, by its descriptors"""
    d = cable(lab, echo)
    p = Run(lab, [d], "usb:", "--mode", "echo", mock=case[0]).result()
    equal(p.status, 1, "exit code")
    p.says("echo", "FAIL", case[1] + ".*, which does not echo; nothing was sent", "--mode name")
    equal(d.got, [], "what was sent")


@test
def echo_of_several(lab):
    """of several devices the one that echoes is meant; or one that id= asks for"""
    d = [cable(lab, n=1), cable(lab, echo, n=2)]
    p = Run(lab, d, "usb:", "--mode", "echo", "--duration", "1", mocks=[(), LINUX]).result()
    p.says("echo", "PASS", "came back intact")
    equal(d[0].got, [], "what was sent to Windows")
    p = Run(lab, [cable(lab, echo)], "usb:id=1234:5678", "--mode", "echo", "--duration", "1",
            mock=("--id", "1234:5678")).result()
    p.says("echo", "PASS", "came back intact")


# ---- unplugging ----------------------------------------------------------------

class Control:
    """Commands to the device."""

    def __init__(self, lab, path):
        eventually(lambda: is_listening(path), "the mock is there")
        self.sock = lab.closing(socket.socket(socket.AF_UNIX))
        self.sock.connect(path)
        self.lines = self.sock.makefile("rw")

    def tell(self, line):
        self.lines.write(line + "\n")
        self.lines.flush()
        equal(self.lines.readline(), "ok\n", line)


@test
def replug(lab):
    """each time that the device leaves and comes back is counted"""
    d, path = cable(lab), lab.path("control")
    p = Run(lab, [d], "usb:", "--mode", "replug", "--duration", "100", as_json=False,
            mock=["--control", path])
    control = Control(lab, path)
    control.tell("wait reading")
    for i in range(3):
        d.unplug()
        control.tell("wait unplugged")
        d.plug()
        p.wait_text("replug-%d +came back after" % (i + 1), 20)
    p.signal(signal.SIGINT)
    p.wait(20)
    matches(r"PASS  replug +left and came back 3 times", p.out, "the verdict")
    matches(r"PASS  speed-after +5000", p.out, "the speed afterwards")


@test
def stays_away(lab):
    """a device that does not come back is a failure"""
    d = cable(lab)
    control = lab.path("control")
    p = Run(lab, [d], "usb:", "--mode", "replug", "--duration", "6", mock=["--control", control])
    Control(lab, control).tell("wait reading")
    d.unplug()
    p.result()
    equal(p.status, 1, "exit code")
    p.says("replug", "FAIL", "left 1 times, came back 0 times, and is away", "restart the target")


@test
def nobody_pulls(lab):
    """a device that was not unplugged is no failure"""
    p = Run(lab, [cable(lab)], "usb:", "--mode", "replug", "--duration", "1").result()
    equal(p.status, 0, "exit code")
    p.says("replug", "SKIP", "was not unplugged", "pull the cable out")


# ---- in a rig, and usage -------------------------------------------------------

@test
def other_device(lab):
    """the device is not the one of the rig"""
    rig = lab.path("rig.conf")
    with open(rig, "w") as f:
        f.write("[a]\ntrans = usb:targetname=A\nmode = name\ncable = usb\nadapter = 045e:0656\n")
    d = cable(lab)
    p = Run(lab, [d], None, rig=rig).result()
    equal(p.status, 1, "exit code")
    p.says("adapter", "FAIL", "3495:00e0 .* is there; the rig says 045e:0656")
    equal((list(p.checks), d.got), (["adapter"], []), "checks, and what was sent")
    d = [cable(lab, n=1), cable(lab, n=2)]
    p = Run(lab, d, None, rig=rig).result()
    p.says("adapter", "FAIL", "3495:00e0 .* is there; the rig says 045e:0656")
    equal([x.got for x in d], [[], []], "what was sent to several")


@cases([("usb:path=x", "path"), ("usb:id=1", "id"), ("usb:name=x", "name"),
        ("usb:targetname=a b", "targetname")], lambda case: case[0])
def usage(lab, case):
    """what is wrong is named, with exit code 2"""
    p = lab.run("kdloop", case[0])
    equal(p.status, 2, "exit code")
    check(case[1] in p.err, "the error names it: %r" % p.err)


@cases([(["--help"], 0, ""), (["--no-such", "a", "b"], 2, "unrecognized option '--no-such'"),
        (["--id", "x", "a", "b"], 2, "--id: not VVVV:PPPP"), (["--id"], 2, "requires an argument"),
        (["--descriptors", "odd", "a", "b"], 2, "--descriptors: no such kind"),
        (["a"], 2, "PATH and REDIR: missing"), (["a", "b", "c"], 2, "too many words")],
       lambda case: " ".join(case[0]))
def redir_usage(lab, case):
    """the fixture for QEMU: --help, and what is wrong on its command line"""
    args, status, error = case
    if not os.access(REDIR, os.X_OK):
        raise Skip("built without libusbredirparser")
    p = subprocess.run([REDIR] + args, capture_output=True, text=True, timeout=20)
    equal(p.returncode, status, "exit code")
    check(error in p.stderr, "the error: %r" % p.stderr)
    equal(len(p.stderr.splitlines()), 1 if error else 0, "lines of error")
    if not status:
        with open(os.path.join(TOP_SRC, "hw-fixtures/usb/kdusb-redir.c")) as f:
            options = re.findall(r'\{ "([a-z-]+)", \w+_argument', f.read())
        equal([o for o in options if "  --" + o not in p.stdout], [], "options not told")
        check("help" in options, "options were found")


if has_driver("usb") and os.access(MOCK, os.X_OK):
    main(needs=("kdloop",))
else:
    print("1..0 # SKIP built without the usb driver or umockdev")
