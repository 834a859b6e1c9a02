# Networks for end-to-end tests: machines that are network namespaces on one
# switch, and a UDP proxy that treats datagrams as bad networks do.
# SPDX-License-Identifier: MIT
import ctypes
import heapq
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import threading
import time

from kdlib import PROGRAMS, Failure, Proc, Skip, equal

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Node:
    """A namespace. It lives as long as the process that holds it."""

    def __init__(self, lab, name, number, switch=None):
        self.name = name
        self.address, self.address6 = "10.77.0.%d" % number, "fd77::%x" % number
        self.holder = Proc(lab, "netns " + name,
                           ["unshare", "--net", "sh", "-c", "echo up; exec sleep 1000"],
                           expect=None)
        self.holder.wait_text("^up")
        self.wrap = ["nsenter", "-t", str(self.holder.pid), "--net", "--"]
        device = "br0" if switch is None else "eth0"
        if switch is None:
            self.ip("link add br0 type bridge forward_delay 0")
        else:
            switch.ip("link add port%d type veth peer name eth0 netns %d" %
                      (number, self.holder.pid), "link set port%d master br0 up" % number)
        self.ip("link set lo up", "address add %s/24 dev %s" % (self.address, device),
                "address add %s/64 dev %s nodad" % (self.address6, device),
                "link set %s up" % device)

    def ip(self, *commands):
        p = subprocess.run(self.wrap + ["ip", "-batch", "-"], input="\n".join(commands) + "\n",
                           capture_output=True, text=True, timeout=10)
        if p.returncode:
            raise Failure("ip %s: %s" % ("; ".join(commands), p.stderr))

    def socket(self, address, port):
        """A UDP socket in the namespace."""
        made = []

        def make():
            fd = os.open("/proc/%d/ns/net" % self.holder.pid, os.O_RDONLY)
            if _libc.setns(fd, CLONE_NEWNET) == 0:
                s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET,
                                  socket.SOCK_DGRAM)
                s.bind((address, port))
                made.append(s)
            os.close(fd)
        # A namespace is a thread's own affair.
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if not made:
            raise Failure("no socket in %s" % self.name)
        return made[0]


class Net:
    """A switch, with an address of its own for proxies, and machines on it."""

    def __init__(self, lab):
        if os.geteuid() != 0:
            raise Skip("network namespaces need root")
        for tool in "ip", "nsenter", "unshare":
            if not shutil.which(tool):
                raise Skip("%s is missing" % tool)
        try:
            socket.socket(socket.AF_INET6).close()
        except OSError:
            raise Skip("no IPv6 here") from None
        probe = subprocess.run(["unshare", "--net", "ip", "link", "add", "br0", "type", "bridge"],
                               capture_output=True, text=True, timeout=10)
        if probe.returncode:
            raise Skip("no namespaces or no bridges here: " + probe.stderr.strip())
        self.lab = lab
        self.count = 1
        self.switch = Node(lab, "switch", 1)

    def node(self, name):
        self.count += 1
        return Node(self.lab, name, self.count, self.switch)

    def server(self, node, *options, **kw):
        return self.lab.server(*options, transports=["npipe:pipe=" + node.name], wrap=node.wrap,
                               **kw)

    def proxy(self, host, target, port, **kw):
        return self.lab.closing(UdpProxy(self.switch, host, target, port, **kw))


class NetTarget(Proc):
    """kdtarget, calling host. trans is what goes into trans=@{} there. Start it
    before the server: the server then ends first, and finds it alive."""

    def __init__(self, lab, node, host, port, key, *options):
        where = "net:port=%d,key=%s" % (port, key)
        self.trans = where
        if host:
            where += ",host=" + (host if isinstance(host, str) else host.address)
        super().__init__(lab, "kdtarget", node.wrap +
                         [PROGRAMS["kdtarget"], "-k", where, "--stats",
                          "--poke-every", "200"] + list(options))
        self.wait_text(r"^kdtarget: ready on net:")

    def stats(self):
        """Ends it, and returns what --stats printed."""
        self.signal(signal.SIGTERM)
        equal(self.wait(), 0, "kdtarget's exit status")
        return json.loads(self.out.strip().splitlines()[-1])


class UdpProxy:
    """Stands between host and target, on the switch. Each sees the proxy as the
    other. loss, dup: shares of one; delay_s: from, to; what is delayed by
    different times is reordered."""

    def __init__(self, switch, host, target, port, loss=0.0, dup=0.0, delay_s=(0.0, 0.0), seed=1):
        self.address, self.port = switch.address, port
        self.host, self.target = (host.address, port), (target.address, port)
        self.loss, self.dup, self.delay_s = loss, dup, delay_s
        self.random = random.Random(seed)
        self.sock = switch.socket(switch.address, port)
        self.wake_r, self.wake_w = socket.socketpair()
        self.lock = threading.Lock()
        self.waiting, self.number = [], 0  # (due, number, datagram, to)
        self.recorded = []                 # of the target
        self.passed = self.lost = self.doubled = 0
        self.stop = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def close(self):
        self.stop = True
        self.wake_w.send(b"x")
        self.thread.join(10)
        for s in self.sock, self.wake_r, self.wake_w:
            s.close()

    def to_host(self, datagram):
        """As if it came from the target."""
        self._later(datagram, self.host)
        self.wake_w.send(b"x")

    def _later(self, datagram, to):
        with self.lock:
            self.number += 1
            due = time.monotonic() + self.random.uniform(*self.delay_s)
            heapq.heappush(self.waiting, (due, self.number, datagram, to))

    def _take(self):
        datagram, sender = self.sock.recvfrom(65536)
        to = self.host if sender == self.target else self.target
        if sender == self.target:
            self.recorded.append(datagram)
        if self.random.random() < self.loss:
            self.lost += 1
            return
        self.passed += 1
        self._later(datagram, to)
        if self.random.random() < self.dup:
            self.doubled += 1
            self._later(datagram, to)

    def _send_due(self):
        """Returns how long to wait for the next."""
        while True:
            with self.lock:
                if not self.waiting:
                    return None
                left = self.waiting[0][0] - time.monotonic()
                if left > 0:
                    return left
                _, _, datagram, to = heapq.heappop(self.waiting)
            try:
                self.sock.sendto(datagram, to)
            except OSError:
                self.lost += 1

    def _run(self):
        while not self.stop:
            ready, _, _ = select.select([self.sock, self.wake_r], [], [], self._send_due())
            if self.wake_r in ready:
                self.wake_r.recv(4096)
            if self.sock in ready:
                self._take()
