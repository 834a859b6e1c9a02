# A Linux guest in QEMU, with real drivers for emulated hardware, where programs
# of this build run. One guest serves all tests of a file.
# SPDX-License-Identifier: MIT
import base64
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys

import kdlib
from kdlib import PROGRAMS, TOP_BUILD, TOP_SRC, Failure, Lab, Proc, Server, Skip, check, equal

GUEST = os.path.join(TOP_SRC, "hw-fixtures/guest")
CACHE = os.environ.get("KD_GUEST_CACHE") or os.path.join(TOP_BUILD, "guest")
RUN = [sys.executable, os.path.join(GUEST, "guestrun.py")]
# Its processor is emulated: booting takes four seconds of ours, and we may have a tenth of it.
# All else takes a second at most.
BOOT_LIMIT_S, WAIT_S = 180, 60
kdlib.TEST_LIMIT_S = 360
AGENT_PORT, SERVER_PORT = 10, 5005


class Monitor:
    """QEMU's control socket (QMP)."""

    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(WAIT_S)
        self.s.connect(path)
        self.lines = self.s.makefile("r")
        self.events = []
        json.loads(self.lines.readline())
        self.command("qmp_capabilities")

    def _next(self):
        line = self.lines.readline()
        if not line:
            raise Failure("QEMU's monitor hung up")
        message = json.loads(line)
        if "event" in message:
            self.events.append(message)
        return message

    def command(self, name, **arguments):
        self.s.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        while True:
            message = self._next()
            if "error" in message:
                raise Failure("QEMU: %s: %s" % (name, message["error"]["desc"]))
            if "return" in message:
                return message["return"]

    def human(self, line):
        return self.command("human-monitor-command", **{"command-line": line})

    def plug(self, driver, name, **properties):
        self.command("device_add", driver=driver, id=name, bus="xhci.0", **properties)

    def unplug(self, name):
        """Returns when the device is gone."""
        self.command("device_del", id=name)
        while not any(e["event"] == "DEVICE_DELETED" and e["data"].get("device") == name
                      for e in self.events):
            self._next()
        self.events.clear()

    def close(self):
        self.lines.close()
        self.s.close()


def require():
    """Skips where there is no guest."""
    if not shutil.which("qemu-system-x86_64"):
        raise Skip("no qemu-system-x86_64 here")
    if not os.path.exists(os.path.join(CACHE, "kernel")):
        raise Skip("no guest kernel in %s: run hw-fixtures/guest/mkguest.py fetch %s" %
                   (CACHE, CACHE))
    with open(PROGRAMS["kdsrv"], "rb") as f:
        if b"__asan_init" in f.read() and not os.environ.get("KD_GUEST_SANITIZERS"):
            raise Skip("left to builds without sanitizers, to save time; "
                       "KD_GUEST_SANITIZERS=1 runs it all the same")


def make_initramfs(path, programs):
    p = subprocess.run([sys.executable, os.path.join(GUEST, "mkguest.py"), "initramfs", CACHE,
                        path] + list(programs), capture_output=True, text=True, timeout=WAIT_S)
    if p.returncode:
        raise Skip(p.stderr.strip())


class Guest(Proc):
    """Boots, with these programs in its /bin. options: of QEMU."""

    def __init__(self, lab, programs, options=()):
        require()
        image, control = lab.path("initramfs"), lab.path("qmp")
        make_initramfs(image, programs)
        super().__init__(lab, "guest", [os.path.join(GUEST, "run-guest.sh"),
                                        os.path.join(CACHE, "kernel"), image, control] +
                         list(options), expect=None)
        self.wait_text(r"^guest: ready", BOOT_LIMIT_S)
        os.unlink(image)
        self.monitor = lab.closing(Monitor(control))
        self.ports = {}
        self.wrap = RUN + [str(self.port_of(AGENT_PORT))]

    def port_of(self, port):
        """Where a TCP port of the guest is reached on our loopback."""
        if port not in self.ports:
            self.monitor.human("hostfwd_add net tcp:127.0.0.1:0-127.0.0.1:%d" % port)
            for ours, theirs in re.findall(r"TCP\[HOST_FORWARD\]\s+\S+\s+127\.0\.0\.1\s+(\d+)"
                                           r"\s+\S+\s+(\d+)", self.monitor.human("info usernet")):
                self.ports[int(theirs)] = int(ours)
        return self.ports[port]

    def sh(self, script, timeout_s=WAIT_S):
        """Runs it with the guest's shell. Returns exit status and output."""
        p = subprocess.run(self.wrap + ["sh", "-c", script], capture_output=True, text=True,
                           timeout=timeout_s)
        return p.returncode, p.stdout + p.stderr

    def ok(self, script, timeout_s=WAIT_S):
        status, out = self.sh(script, timeout_s)
        equal(status, 0, "exit status of %r in the guest, which wrote %r" % (script, out))
        return out

    def start(self, lab, program, *args, **kw):
        """A program that goes on running, as a Proc of the lab."""
        p = Proc(lab, program, self.wrap + [program] + list(args), **kw)
        p.end_s = WAIT_S
        return p

    def put(self, path, data):
        """A file in the guest."""
        self.ok("echo %s | base64 -d >%s" % (base64.b64encode(data).decode(), path))

    def load(self, module):
        """One that is in the initramfs, but not loaded at the start."""
        self.ok("lsmod | grep -q ^%s || insmod /lib/modules/%s.ko" % (module, module))

    def server(self, lab, *options, **kw):
        return GuestServer(lab, self, *options, **kw)

    def eventually(self, script, what, timeout_s=WAIT_S):
        """Until the script's exit status is 0."""
        loop = "until %s; do usleep 20000; done" % script
        status, _ = self.sh("timeout %d sh -c %s" % (timeout_s, shlex.quote(loop)),
                            timeout_s + WAIT_S)
        if status:
            raise Failure("not within %g s in the guest: %s; it has %s" %
                          (timeout_s, what, self.sh("lsmod; dmesg | tail -n 20")[1]))


class GuestServer(Server):
    """kdsrv in the guest, ready. It allows any target to all, and listens on the guest's loopback:
    elsewhere it wants a password, and the key that it derives of one costs a second here."""
    end_s = WAIT_S

    def __init__(self, lab, guest, *options, port=SERVER_PORT, user=None, **kw):
        run = RUN + (["--user", user] if user else [])
        super().__init__(lab, "--allow", "*", *options, transports=["tcp:port=%d" % port],
                         wrap=run + guest.wrap[len(RUN):], ready_s=WAIT_S, **kw)
        self.port = guest.port_of(port)


class UsbDevice(Proc):
    """kdusb-redir: a device at one of the guest's ports; cable is for kdtarget --usb."""

    def __init__(self, lab, socket_path, *options):
        program = os.path.join(TOP_BUILD, "kdusb-redir")
        if not os.access(program, os.X_OK):
            raise Skip("kdusb-redir is not in this build")
        self.cable = lab.path("cable")
        super().__init__(lab, "kdusb-redir", [program] + list(options) + [self.cable, socket_path],
                         stdin=subprocess.PIPE)
        self.wait_text("^kdusb-redir: ready")

    def command(self, line, timeout_s=WAIT_S):
        """Returns the answer, without its "ok"."""
        start = len(self.out)
        self.p.stdin.write(line.encode() + b"\n")
        self.p.stdin.flush()
        answer = self.wait_text(r"^(ok|error)(.*)\n", timeout_s, start=start)
        equal(answer.group(1), "ok", "%s: %s" % (line, answer.group(2)))
        return answer.group(2).strip()

    def status(self):
        return {k: int(v) for k, v in (w.split("=") for w in self.command("status").split())}


_lab = _guest = _problem = _user = None


def shared(lab, make):
    """The guest of this test program: made by make(lab of its own) for the first who asks. What
    an earlier test left running in it has ended."""
    global _lab, _guest, _problem, _user
    if _problem:
        raise type(_problem)(str(_problem))
    if not _guest:
        _lab = Lab()
        try:
            _guest = make(_lab)
        except (Failure, Skip) as e:
            _problem = e
            raise
    check(_guest.running(), "the guest has ended: " + _guest.out[-2000:])
    if _user is not lab:
        _user = lab
        _guest.sh("killall -9 kdsrv")
    return _guest


def close_shared(failed=False):
    if _lab:
        _lab.close(failed or _problem is not None)
