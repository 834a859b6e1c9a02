#!/usr/bin/env python3
# The program kd: its options and exit statuses, JSON, the console on a real
# terminal, files, and targets that misbehave.
# SPDX-License-Identifier: MIT
import json
import os
import pty
import select
import signal
import sys
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdlib import *

CTRL_C, CTRL_D = b"\x03", b"\x04"


# ---- options -------------------------------------------------------------------

BAD_USAGE = [
    [],
    ["-k"],
    ["-k", "bogus:x"],
    ["-k", "com:port=a,port=b"],
    ["-k", "kdsrv:server=@{tcp:port=1"],
    ["-k", "com:pipe,port=/x", "-c", "q", "--script", "y"],
    ["-k", "com:pipe,port=/x", "--timeout", "0"],
    ["-k", "com:pipe,port=/x", "--timeout", "soon"],
    ["-k", "com:pipe,port=/x", "more"],
    ["-k", "com:pipe,port=/x", "-cf", "/nonexistent"],
    ["--nope"],
]


@cases(BAD_USAGE, " ".join)
def bad_usage(lab, args):
    """exit 2, and a text"""
    p = lab.run("kd", *args)
    equal(p.status, 2, "exit status")
    equal(p.out, "", "stdout")
    check(p.err, "nothing on stderr")


@test
def version_and_help(lab):
    """--version and --help"""
    for option, text in ("--version", r"^kd \d"), ("--help", r"^Usage: kd -k "):
        p = lab.run("kd", option)
        equal((p.status, p.err), (0, ""), option)
        matches(text, p.out, option)


@test
def nobody_there(lab):
    """exit 3 when the server or the device is not there"""
    p = lab.kd("npipe:pipe=nobody", None, ".servers", status=3)
    matches("cannot reach the server: nobody listens on .*/kdsrv/nobody; ", p.err, "stderr")
    lab.kd(None, "com:pipe,port=%s" % lab.path("none"), "r", status=3)


@test
def silent_target(lab):
    """a target that never answers: exit 3, and once only is it waited for"""
    began = lab.clock()
    p = lab.kd(None, lab.target("--silent"), "r; db nt; lm; .echo end", "--timeout", "2",
               status=3)
    check(lab.clock() - began < 4, "it took too long")
    matches("it never answered", p.err, "stderr")
    equal(p.out, "end\n", "stdout")


@test
def first_failure_counts(lab):
    """all commands run; the exit status is that of the first failure"""
    target = lab.target("--no-reply-to", "3152")
    p = lab.kd(None, target, "? 1; rdmsr 10; nosuch; .echo end", "--timeout", "2", status=5)
    matches(r"timed out after 2 s", p.err, "stderr")
    matches(r"(?m)^end$", p.out, "stdout")


@test
def scripts(lab):
    """-cf FILE, and standard input, are scripts"""
    target = lab.target()
    script = lab.path("script")
    with open(script, "w") as f:
        f.write("* a comment; .echo no\r\n.echo one; .echo \"two; three\"\n\n$$ x; .echo four\n")
    want = r"(?m)^one$.*^two; three$.*^four$"  # the target may print in between
    matches(want, lab.kd(None, target, None, "-cf", script).out, "stdout")
    with open(script) as f:
        matches(want, lab.kd(None, target, None, stdin=f).out, "stdout")


@test
def endpsrv_without_server(lab):
    """.endpsrv is refused in-process"""
    p = lab.kd(None, lab.target(), ".endpsrv; ? 2", status=1)
    matches("not connected through a server", p.err, "stderr")
    matches("= 00000000`00000002", p.out, "stdout")


@test
def json_lines(lab):
    """--json: each line is an object with a type"""
    target = lab.target("--print-every", "50", "--int3-every", "200")
    p = lab.kd(None, target, "r; db nt-2 L4; lm; k; bl; .servers; g; g; nosuch; "
               "s nt L2 4d", "--json", "-v", status=1)
    objects = [json.loads(line) for line in p.out.splitlines()]
    check({"command", "attached", "stop", "print", "running"} <= {o["type"] for o in objects},
          "some types are missing")
    results = {o["command"].split()[0]: o for o in objects if o["type"] == "command"}
    equal(results["db"]["values"], [None, None, 0x4D, 0x5A], "db")
    equal(results["lm"]["modules"][0]["name"], "nt", "lm")
    equal((results["nosuch"]["ok"], results["nosuch"]["code"]), (False, 1), "nosuch")
    equal(results["s"]["matches"], ["0xfffff80000100000"], "s")
    check(all(o["ok"] for name, o in results.items() if name != "nosuch"), "one failed")


def runs_on(lab, target):
    """The next one hears it print."""
    p = lab.start_kd(None, target, "g; .sleep 20000")
    p.wait_text(r"line \d")
    p.signal(signal.SIGTERM)
    p.wait()


@test
def interrupted_script(lab):
    """SIGINT ends a script, and the target runs on"""
    target = lab.target("--print-every", "50")
    p = lab.start_kd(None, target, ".echo ready; .sleep 20000; .echo never")
    p.wait_text("^ready")
    p.signal(signal.SIGINT)
    equal(p.wait(), 1, "exit status")
    check("never" not in p.out, "the script went on")
    runs_on(lab, target)


@cases([signal.SIGTERM, signal.SIGHUP, signal.SIGINT], lambda s: s.name)
def signalled_group(lab, sig):
    """a signal to the whole process group, as of a terminal that closes: the target runs on"""
    target = lab.target("--print-every", "50")
    p = lab.start_kd(None, target, "bp nt+1180; .echo ready; .sleep 20000; .echo never",
                     start_new_session=True)
    p.wait_text("^ready")
    os.killpg(p.pid, sig)
    equal(p.wait(), 1, "exit status")
    equal(p.err, "kd: interrupted\n" if sig == signal.SIGINT else "kd: ended by a signal\n",
          "stderr")
    runs_on(lab, target)


def io_of(pid):
    """How many bytes it has read."""
    with open("/proc/%d/io" % pid) as f:
        return int(f.readline().split()[1])


@test
def suspended(lab):
    """Ctrl-Z stops kd only: what the target says is acknowledged, and shown afterwards"""
    p = lab.start_kd(None, lab.target("--print-every", "50"), "g; .sleep 20000",
                     process_group=0)
    p.wait_text(r"line \d")
    with open("/proc/%d/task/%d/children" % (p.pid, p.pid)) as f:
        server = int(f.read())
    os.killpg(p.pid, signal.SIGTSTP)
    os.waitid(os.P_PID, p.pid, os.WSTOPPED)
    before = io_of(server)
    eventually(lambda: io_of(server) > before + 500, "the server serves the target")
    start = len(p.out)
    os.killpg(p.pid, signal.SIGCONT)
    p.wait_text(r"line \d+\n.*line \d+\n", start=start)
    p.signal(signal.SIGINT)
    equal(p.wait(), 1, "exit status")


@test
def closed_output(lab):
    """nobody reads standard output any more: kd ends"""
    r, w = os.pipe()
    os.close(r)
    target = lab.target()
    argv = [PROGRAMS["kd"], "-k", target.trans, "-c", "r; .sleep 20000"]
    try:
        p = subprocess.Popen(argv, stdout=w, stderr=subprocess.DEVNULL, env=lab.env,
                             stdin=subprocess.DEVNULL)
    finally:
        os.close(w)
    equal(p.wait(10), 1, "exit status")


# ---- files ----------------------------------------------------------------------

@test
def memory_to_file_and_back(lab):
    """.writemem, .readmem: 1 MiB there and back"""
    target = lab.target()
    one, two = lab.path("one"), lab.path("two")
    where = "poi(nt+840)"
    lab.kd(None, target, "? %s; .writemem %s %s L100000; eq %s+4321 1 2 3; .readmem %s %s L100000;"
           ".writemem \"%s\" %s L100000" % (where, one, where, where, one, where, two, where))
    with open(one, "rb") as a, open(two, "rb") as b:
        first = a.read()
        equal(len(first), 0x100000, "the file's length")
        check(any(first), "the file holds zeros only")
        check(first == b.read(), "it came back different")


# ---- the console ------------------------------------------------------------------

class Console:
    """kd on a terminal."""

    def __init__(self, lab, target, *options):
        self.text, self.at = "", 0
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            env = dict(lab.env, HOME=lab.dir, TERM="dumb")
            env.pop("XDG_STATE_HOME", None)
            os.execve(PROGRAMS["kd"], ["kd", "-k", target.trans, *options], env)
        lab.closing(self)
        self.status = None

    def read(self, timeout_s):
        if not select.select([self.fd], [], [], max(0, timeout_s))[0]:
            return False
        try:
            piece = os.read(self.fd, 65536)
        except OSError:  # what a pty says when the other side is closed
            return False
        self.text += piece.decode("utf-8", "replace").replace("\r", "")
        return bool(piece)

    def expect(self, pattern, timeout_s=10):
        """What comes next has the pattern in it."""
        end = time.monotonic() + timeout_s
        while True:
            m = re.compile(pattern, re.M).search(self.text, self.at)
            if m:
                self.at = m.end()
                return m
            if not self.read(end - time.monotonic()):
                raise Failure("no %r in %r" % (pattern, self.text[self.at:]))

    def type(self, keys):
        os.write(self.fd, keys)

    def wait(self, timeout_s=10):
        end = time.monotonic() + timeout_s
        while self.read(end - time.monotonic()):
            pass
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        while not pid and time.monotonic() < end:
            time.sleep(0.01)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        check(pid, "kd still runs: %r" % self.text[-300:])
        self.pid = None
        return os.waitstatus_to_exitcode(status)

    def close(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@test
def closed_terminal(lab):
    """the terminal goes away: breakpoints go, and the target runs on"""
    target = lab.target("--print-every", "50")
    c = Console(lab, target, "-b")
    c.expect("^kd> ")
    c.type(b"bp nt+1180\r")
    c.expect("^kd> ")
    os.close(c.fd)
    c.fd = os.open("/dev/null", os.O_RDONLY)
    c.wait()
    runs_on(lab, target)


class Terminal(Console):
    """The same, but the terminal stays when kd is gone, and kd is a job of a shell: no session."""

    def __init__(self, lab, target, *options):
        self.text, self.at, self.status = "", 0, None
        self.fd, self.tty = pty.openpty()
        self.before = termios.tcgetattr(self.tty)
        p = subprocess.Popen([PROGRAMS["kd"], "-k", target.trans, *options], stdin=self.tty,
                             stdout=self.tty, stderr=self.tty, process_group=0,
                             env=dict(lab.env, HOME=lab.dir, TERM="dumb"))
        self.pid, p.returncode = p.pid, 0  # it is waited for here, not there
        lab.closing(self)

    def is_as_it_was(self):
        return termios.tcgetattr(self.tty) == self.before

    def close(self):
        super().close()
        os.close(self.tty)


@cases([signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP], lambda s: s.name)
def terminal_is_given_back(lab, sig):
    """a signal at the prompt: the terminal is as it was, and the target runs on"""
    target = lab.target("--print-every", "50")
    c = Terminal(lab, target, "-b")
    c.expect("^kd> ")
    eventually(lambda: not c.is_as_it_was(), "the line editor begins")
    os.killpg(c.pid, sig)
    os.waitid(os.P_PID, c.pid, os.WEXITED | os.WNOWAIT)
    check(c.is_as_it_was(), "the terminal was changed")
    runs_on(lab, target)


@test
def suspended_prompt(lab):
    """Ctrl-Z at the prompt gives the terminal back; afterwards the line is there again"""
    c = Terminal(lab, lab.target(), "-b")
    c.expect("^kd> ")
    c.type(b"? 12")
    c.expect("[?] 12")
    os.killpg(c.pid, signal.SIGTSTP)
    os.waitid(os.P_PID, c.pid, os.WSTOPPED)
    check(c.is_as_it_was(), "the terminal was changed")
    os.killpg(c.pid, signal.SIGCONT)
    c.expect("kd> [?] 12")
    c.type(b"34\r")
    c.expect("= 00000000`00001234")
    c.expect("^kd> ")


@test
def console(lab):
    """break in, commands, Ctrl-C at the prompt, go, Ctrl-D; history is kept"""
    target = lab.target("--print-every", "100")
    c = Console(lab, target)
    c.expect("^Waiting to reconnect")
    c.expect(r"line \d")
    c.type(CTRL_C)
    c.expect("^Connected to build 9600 x64 target")
    c.expect("^Break instruction exception")
    c.expect("kd> $")
    c.type(b"? 2*3\n")
    c.expect("= 00000000`00000006")
    c.expect("kd> $")
    c.type(b"garbage")
    c.expect("garbage")
    c.type(CTRL_C)
    c.expect("kd> $")
    c.type(b"nosuch\n")
    c.expect("no such command")
    c.expect("kd> $")
    c.type(b"g\n")
    c.expect(r"line \d")
    c.type(CTRL_C)
    c.expect("^Break instruction exception")
    c.expect("kd> $")
    c.type(CTRL_D)
    equal(c.wait(), 0, "exit status")
    with open(os.path.join(lab.dir, ".local/state/kd/history")) as f:
        history = f.read()
    check("nosuch" in history and "garbage" not in history, "history: %r" % history)
    runs_on(lab, target)


@test
def console_prompt(lab):
    """a question of the target is answered at the console"""
    # Else it asks nobody when kd comes late.
    c = Console(lab, lab.target("--prompt-once", "--tries", "1000"))
    c.expect(r"what now\? $")
    c.type(b"an answer\n")
    c.expect("the answer was: an answer")
    c.type(CTRL_C)
    c.expect("kd> $")
    c.type(b"q\n")
    equal(c.wait(), 0, "exit status")


@test
def console_without_answer(lab):
    """a second Ctrl-C gives a prompt though the target is silent"""
    c = Console(lab, lab.target("--silent"))
    c.expect("^Waiting to reconnect")
    c.type(CTRL_C)
    c.expect(r"\^C\n")  # it was taken: two at once would be one signal
    c.type(CTRL_C)
    c.expect(r"^The target has not stopped yet")
    c.expect(r"\*BUSY\* kd> $")
    c.type(b"r\n")
    c.expect("the target runs; break in first")
    c.expect(r"\*BUSY\* kd> $")
    c.type(b"q\n")
    equal(c.wait(), 0, "exit status")


@test
def console_target_dies(lab):
    """the target's end is told above the line that is being typed"""
    target = lab.target()
    c = Console(lab, target, "-b")
    c.expect("kd> $")
    c.type(b"? 1+1")
    c.expect(r"\? 1\+1")
    target.kill()
    c.expect("link gone")
    c.expect(r"kd> \? 1\+1")
    c.type(b"\n")
    c.expect("= 00000000`00000002")
    c.expect(r"\*GONE\* kd> $")
    c.type(CTRL_D)
    equal(c.wait(), 0, "exit status")


# ---- misbehaviour ----------------------------------------------------------------------

HOSTILE = ["huge-lengths", "endless-strings", "bad-counts", "wrong-api", "short-replies",
           "long-replies", "failures", "noise", "unknown-state", "list-loop", "list-wild",
           "long-names", "frame-loop", "repeats", "babble"]


@cases(HOSTILE)
def hostile(lab, kind):
    """an end in time, an exit status that is documented, no crash"""
    p = lab.kd(None, lab.target("--hostile", kind, expect=None),
               "vertarget; lmf; r; k; db nt L20; bp nt+1230; t; g; .sleep 50; .break; .echo end",
               "--timeout", "1", "--json", status=None, wait_s=40)
    check(p.p.returncode in (0, 1, 3, 5), "exit status %s" % p.p.returncode)
    objects = [json.loads(line) for line in p.out.splitlines()]
    check(any(o.get("command") == ".echo end" for o in objects), "the script did not end")
    check(not SANITIZER.search(p.err), p.err)


main(needs=("kdsrv", "kdtarget", "kd"))
