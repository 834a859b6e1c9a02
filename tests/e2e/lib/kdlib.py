# What every end-to-end test needs: TAP, a laboratory that starts the real
# programs and cleans up after them, and bounded waits.
# SPDX-License-Identifier: MIT
import ctypes
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

TOP_BUILD = os.environ.get("top_builddir") or os.getcwd()
TOP_SRC = os.environ.get("top_srcdir") or os.path.join(os.path.dirname(__file__), "../../..")
PROGRAMS = {
    "kdsrv": os.path.join(TOP_BUILD, "kdsrv/kdsrv"),
    "kd": os.path.join(TOP_BUILD, "kd/kd"),
    "kdtarget": os.path.join(TOP_BUILD, "kdtarget"),
}
TEST_LIMIT_S = 120  # a test that takes longer hangs

# What is ignored here (by nohup, or in a shell's background) would be ignored by
# the programs, too; what is caught is not.
for _signal in signal.SIGHUP, signal.SIGINT, signal.SIGQUIT:
    if signal.getsignal(_signal) == signal.SIG_IGN:
        signal.signal(_signal, lambda *_: None)
SANITIZER = re.compile(r"(Address|Leak|Memory|Thread)Sanitizer|runtime error:|== ERROR")


class Failure(Exception):
    pass


class Skip(Exception):
    pass


def check(condition, what):
    if not condition:
        raise Failure(what)


def equal(got, want, what):
    if got != want:
        raise Failure("%s: got %r, want %r" % (what, got, want))


def matches(pattern, text, what):
    if not re.search(pattern, text, re.S):
        raise Failure("%s: no %r in %r" % (what, pattern, text))


# ---- processes ---------------------------------------------------------------

def _schedstat_s(pid, columns):
    total = 0
    try:
        for thread in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/schedstat" % (pid, thread)) as f:
                total += sum(int(ns) for ns in f.read().split()[columns])
    except OSError:  # not on this kernel, or it has just ended
        pass
    return total / 1e9


def processor_s(pid):
    """The seconds that a process ran, or could not because others did."""
    return _schedstat_s(pid, slice(0, 2))


def held_up_s(*procs):
    """The seconds that these could not run because others did."""
    return sum(_schedstat_s(p.pid, slice(1, 2)) for p in procs)


PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Proc:
    """A program whose output is read as it comes."""
    end_s = 20  # so long it may take to end, however busy this machine is

    def __init__(self, lab, name, argv, stdin=subprocess.DEVNULL, env=None, expect=0, limits=(),
                 **kw):
        def prepare():
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            for which, value in limits:
                resource.setrlimit(which, (value, value))

        self.name, self.lab, self.expect = name, lab, expect
        self.out, self.err = "", ""
        self._changed = threading.Condition()
        self._open = 2
        self.p = subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, env=env or lab.env,
                                  preexec_fn=prepare, **kw)
        self.pid, self.busy_s = self.p.pid, 0
        self.threads = []
        for attr in ("out", "err"):
            pipe = self.p.stdout if attr == "out" else self.p.stderr
            t = threading.Thread(target=self._read, args=(pipe, attr), daemon=True)
            t.start()
            self.threads.append(t)
        lab.procs.append(self)

    def _read(self, pipe, attr):
        while True:
            piece = os.read(pipe.fileno(), 65536)
            with self._changed:
                setattr(self, attr, getattr(self, attr) + piece.decode("utf-8", "replace"))
                if not piece:
                    self._open -= 1
                self._changed.notify_all()
            if not piece:
                pipe.close()
                return

    def wait_text(self, pattern, timeout_s=10, stream="out", start=0):
        """Until the pattern is in the output; returns the match."""
        found = [None]

        def look():
            found[0] = re.search(pattern, getattr(self, stream)[start:], re.M)
            return found[0] or not self._open

        with self._changed:
            self._changed.wait_for(look, timeout_s)
        if not found[0]:
            raise Failure("%s: no %r on std%s in %g s: %r" %
                          (self.name, pattern, stream, timeout_s, getattr(self, stream)[-500:]))
        return found[0]

    def wait(self, timeout_s=10):
        """Until it ends; returns the exit status."""
        eventually(self._ended, "%s ends" % self.name, timeout_s)
        status = self.p.wait()
        for t in self.threads:
            t.join(5)
        return status

    def _ended(self):
        if self.p.returncode is None:
            if not os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
                return False
            self.busy_s = processor_s(self.pid)  # the last chance to ask
            self.p.wait()
        return True

    def running(self):
        return not self._ended()

    def signal(self, sig):
        self.p.send_signal(sig)

    def stop(self):
        """SIGSTOP, and returns when it has stopped."""
        self.signal(signal.SIGSTOP)

        def stopped():
            with open("/proc/%d/stat" % self.pid) as f:
                return f.read().rsplit(")", 1)[1].split()[0] == "T"
        eventually(stopped, "%s stops" % self.name)

    def kill(self):
        if self.running():
            self.p.kill()
        self.expect = None
        self.wait()

    def resident_kib(self):
        with open("/proc/%d/status" % self.pid) as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))


class Server(Proc):
    """kdsrv, ready. where is what a client puts into server=@{}."""

    def __init__(self, lab, *options, transports=None, wrap=(), ready_s=10, **kw):
        if transports is None:
            transports = ["tcp:port=%s" % port_range()]
        argv = list(wrap) + [PROGRAMS["kdsrv"]]
        for t in transports:
            argv += ["-t", t]
        super().__init__(lab, "kdsrv", argv + list(options), **kw)
        line = self.wait_text(r"^listening (.*)\n", ready_s).group(1)
        self.listening = line
        self.ports = [int(p) for p in re.findall(r"tcp:port=(\d+)", line)]
        self.port = self.ports[0] if self.ports else None
        self.pipes = re.findall(r"npipe:pipe=([^ ,]+)", line)

    @property
    def where(self):
        if self.port:
            return "tcp:server=127.0.0.1,port=%d" % self.port
        return "npipe:pipe=%s" % self.pipes[0]


def _own_ports():
    """Those that no other test program has: what one closes another must not open. Who has which
    is told by names in the abstract namespace of Unix sockets: it is one for each network, as
    ports are, and names go with who has them."""
    for n in range(240):
        first = 20000 + (os.getpid() + n) % 240 * 50  # below the ephemeral ones
        holder = socket.socket(socket.AF_UNIX)
        try:
            holder.bind("\0ports-of-a-kdsrv-test-%d" % first)
        except OSError:
            holder.close()
            continue
        return holder, range(first, first + 50)
    raise Failure("all ports for tests are taken")


_ports_holder, PORTS = _own_ports()  # nobody listens on the last
_udp_ports = itertools.cycle(PORTS[::2])


def port_range():
    """kdsrv takes the first free one."""
    return "%d:%d" % (random.choice(PORTS[:25]), PORTS[-1])


def udp_port():
    """Another each time; the one above it is free, too."""
    return next(_udp_ports)


class Target(Proc):
    """kdtarget, ready. trans is what goes into trans=@{}."""

    def __init__(self, lab, *options, on="unix", path=None, **kw):
        argv = [PROGRAMS["kdtarget"]]
        if on == "unix":
            path = path or lab.path("serial.sock")
            argv += ["--unix", path]
        elif on == "tcp":
            argv += ["--tcp", path or "127.0.0.1:0"]
        else:
            argv += ["--pty"]
        super().__init__(lab, "kdtarget", argv + list(options), **kw)
        name = self.wait_text(r"^kdtarget: ready on (\S+)").group(1)
        if on == "tcp":
            host, self.port = name.rsplit(":", 1)
            self.trans = "com:ipport=%s,port=%s" % (self.port, host)
        else:
            self.path = name
            self.trans = "com:pipe,port=%s" % name

    def stats(self):
        """Ends it, and returns what --stats printed."""
        self.signal(signal.SIGTERM)
        equal(self.wait(), 0, "kdtarget's exit status")
        return json.loads(self.out.strip().splitlines()[-1])


class NetTarget(Proc):
    """kdtarget that calls port of this machine. Its own is another, or one
    socket would hear both."""
    KEY = "zsecret1.2steg4fzbj2sz.23418vzkd4ko3.1sp3yo9yz874p"

    def __init__(self, lab, *options, key=KEY, port=None):
        self.port = port or udp_port()
        own = self.port + 1
        super().__init__(lab, "kdtarget", [
            PROGRAMS["kdtarget"], "-k", "net:host=127.0.0.1,port=%d,key=%s,bind=127.0.0.1,"
            "bindport=%d" % (self.port, key, own), "--poke-every", "100", "--stats", *options])
        self.wait_text(r"^kdtarget: ready on")
        self.own = own
        self.net = "net:port=%d" % self.port
        self.trans = "%s,key=%s" % (self.net, key)

    stats = Target.stats


class Lab:
    """One test's programs, files and sockets. All are gone after the test."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="kd-")  # short: socket paths end at 107 bytes
        self.procs, self.closers = [], []
        self.names = 0
        self.env = dict(os.environ, XDG_RUNTIME_DIR=self.dir, LC_ALL="C")
        for name in ("_NT_DEBUG_PORT", "_NT_DEBUG_BAUD_RATE", "NOTIFY_SOCKET"):
            self.env.pop(name, None)

    def path(self, name):
        self.names += 1
        return os.path.join(self.dir, "%d-%s" % (self.names, name))

    def server(self, *options, **kw):
        return Server(self, *options, **kw)

    def target(self, *options, **kw):
        return Target(self, *options, **kw)

    def kd(self, server, target, commands, *options, wait_s=20, status=0, **kw):
        """Runs kd to its end, and returns it."""
        p = self.start_kd(server, target, commands, *options, **kw)
        got = p.wait(wait_s)
        if status is not None and got != status:
            raise Failure("kd -c %r: exit status %s, want %s\n%s%s" %
                          (commands, got, status, p.out[-1500:], p.err[-1500:]))
        return p

    def start_kd(self, server, target, commands, *options, **kw):
        trans = target if target is None or isinstance(target, str) else target.trans
        if server is None:
            where = trans
        else:
            where = "kdsrv:server=@{%s}" % (server if isinstance(server, str) else server.where)
            if trans is not None:
                where += ",trans=@{%s}" % trans
        argv = [PROGRAMS["kd"], "-k", where]
        if commands is not None:
            argv += ["-c", commands]
        return Proc(self, "kd", argv + list(options), expect=None, **kw)

    def run(self, program, *args, wait_s=10, **kw):
        p = Proc(self, program, [PROGRAMS[program]] + list(args), expect=None, **kw)
        p.status = p.wait(wait_s)
        return p

    def clock(self):
        """Seconds, less those in which the test or one of its programs ran or waited for a
        processor. What is left is spent waiting: how long does not depend on the machine."""
        busy = processor_s(os.getpid()) + sum(p.busy_s if p.p.returncode is not None else
                                              processor_s(p.pid) for p in self.procs)
        return time.monotonic() - busy

    def closing(self, thing):
        self.closers.append(thing)
        return thing

    def close(self, failed):
        """Ends what still runs. A server must end cleanly."""
        problems = []
        for thing in reversed(self.closers):
            thing.close()
        for p in reversed(self.procs):
            if p.running():
                p.signal(signal.SIGCONT)
                p.signal(signal.SIGTERM if p.expect is not None else signal.SIGKILL)
            try:
                status = p.wait(p.end_s)
            except Failure as e:
                problems.append(str(e))
                p.kill()
                continue
            if p.expect is not None and status != p.expect:
                problems.append("%s: exit status %s, want %s" % (p.name, status, p.expect))
            if SANITIZER.search(p.err):
                problems.append("%s: the sanitizer found something" % p.name)
        left = [os.path.join(d, f) for d, _, files in os.walk(os.path.join(self.dir, "kdsrv"))
                for f in files]
        killed = any(p.name == "kdsrv" and p.expect is None for p in self.procs)
        if left and not killed:
            problems.append("left over in the runtime directory: %s" % left)
        shutil.rmtree(self.dir, ignore_errors=True)
        if problems or failed:
            for p in self.procs:
                for stream in ("out", "err"):
                    for line in getattr(p, stream)[-3000:].splitlines():
                        print("# %s[%d] std%s: %s" % (p.name, p.pid, stream, line))
        return problems


def eventually(condition, what, timeout_s=10):
    """For what cannot be waited for otherwise, such as a port being closed."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise Failure("not within %g s: %s" % (timeout_s, what))
        time.sleep(0.01)


def is_listening(path):
    """Whether the Unix socket takes connections: for a moment it is there, and refuses them."""
    with open("/proc/net/unix") as f:
        return any(words[3] == "00010000" and words[7:] == [path]
                   for words in (line.split() for line in f))


# ---- tests -------------------------------------------------------------------

_tests = []


def test(fn):
    """Marks a test. Its doc string, or its name, is what TAP shows."""
    _tests.append(fn)
    return fn


def slow(limit_s):
    """For a test that may take longer than others."""
    def decorate(fn):
        fn.slow_s = limit_s
        return fn
    return decorate


def cases(values, name=None):
    """A test for each value, passed as second argument."""
    def decorate(fn):
        for value in values:
            label = name(value) if name else str(value)

            def one(lab, value=value):
                return fn(lab, value)
            one.__name__ = fn.__name__
            one.__doc__ = "%s: %s" % (fn.__doc__ or fn.__name__, label)
            one.slow_s = getattr(fn, "slow_s", TEST_LIMIT_S)
            _tests.append(one)
        return fn
    return decorate


def _alarm(signum, frame):
    raise Failure("the test hangs")


def _run(fn):
    lab = Lab()
    problem = skip = None
    signal.alarm(getattr(fn, "slow_s", TEST_LIMIT_S))
    try:
        fn(lab)
    except Skip as e:
        skip = str(e)
    except Exception as e:
        problem = str(e) if isinstance(e, Failure) else traceback.format_exc()
        where = traceback.extract_tb(e.__traceback__)
        problem += "\n  at " + ", ".join("%s:%d" % (os.path.basename(f.filename), f.lineno)
                                          for f in where[1:])
    finally:
        signal.alarm(0)
    problems = lab.close(problem is not None)
    return skip, ([problem] if problem else []) + problems


def has_driver(name):
    with open(os.path.join(TOP_BUILD, "config.h")) as f:
        return "#define KD_DRIVER_%s 1" % name.upper() in f.read()


def main(needs=("kdsrv", "kdtarget")):
    wanted = sys.argv[1:]
    chosen = [t for t in _tests if not wanted or any(w in t.__name__ for w in wanted)]
    missing = [n for n in needs if not os.access(PROGRAMS[n], os.X_OK)]
    if missing:
        print("1..0 # SKIP not in this build: %s" % ", ".join(missing))
        return
    if not has_driver("stream"):
        print("1..0 # SKIP built without the stream driver")
        return
    print("1..%d" % len(chosen))
    signal.signal(signal.SIGALRM, _alarm)
    for number, fn in enumerate(chosen, 1):
        label = (fn.__doc__ or fn.__name__).strip().replace("\n", " ").replace("#", "no.")
        start = time.monotonic()
        skip, problems = _run(fn)
        for p in problems:
            for line in p.splitlines():
                print("# " + line)
        print("# %.1f s" % (time.monotonic() - start))
        print("%s %d - %s%s" % ("not ok" if problems else "ok", number, label,
                                " # SKIP " + skip if skip and not problems else ""))
        sys.stdout.flush()
