#!/usr/bin/env python3
# KDNET between machines that are network namespaces: whole sessions over good
# and bad networks, takeover, wrong keys, replays, floods, restarts.
#
#   KD_NETNS_FULL=1   reads 16 MiB over the bad networks, too
# SPDX-License-Identifier: MIT
import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdclient import *
from kdlib import *
from netlab import *

KEY, OTHER_KEY = "1m770ts6ru0p.3671pemyie4i.2b8djy3wt5et.1p99ir125v4q", "5.6.7.8"
PORT = 50000
FULL = bool(os.environ.get("KD_NETNS_FULL"))
KIB, MIB = 1 << 10, 1 << 20


def figure(text):
    print("# " + text)


class Timer:
    def __init__(self):
        self.began = self.last = time.monotonic()
        self.laps = []

    def lap(self, name):
        now = time.monotonic()
        self.laps.append("%s %.2f s" % (name, now - self.last))
        self.last = now

    def __str__(self):
        return "%s; in all %.2f s" % (", ".join(self.laps), time.monotonic() - self.began)


# ---- whole sessions ----------------------------------------------------------

class Path:
    """What lies between host and target."""

    def __init__(self, name, kib=16 * 1024, patience_s=20, **bad):
        self.name, self.patience_s, self.bad = name, patience_s, bad
        self.bytes = (16 * MIB if FULL else kib * KIB)


PATHS = [
    Path("straight"),
    Path("a proxy that does no harm", 1024, seed=1),
    Path("5 % lost each way", 128, loss=0.05),
    Path("20 % lost each way", 64, patience_s=60, loss=0.20),
    Path("10 % doubled, up to 5 ms late and so out of order", 256, dup=0.10,
         delay_s=(0.0, 0.005)),
    Path("1 to 200 ms late", 16, patience_s=60, delay_s=(0.001, 0.2)),
    Path("20 % lost, 10 % doubled, 1 to 20 ms late", 32, patience_s=90, loss=0.20, dup=0.10,
         delay_s=(0.001, 0.02)),
]


@cases(PATHS, lambda path: path.name)
@slow(10800 if FULL else 240)
def session(lab, path):
    """a whole session"""
    net = Net(lab)
    host, machine = net.node("host"), net.node("target")
    proxy = net.proxy(host, machine, PORT, **path.bad) if path.bad else None
    target = NetTarget(lab, machine, proxy or host, PORT, KEY, "--print-every", "100")
    server = net.server(host)
    timer, wait = Timer(), path.patience_s
    c = lab.closing(Client(server))
    c.attach(target, timeout_s=wait)
    timer.lap("attach")
    at = c.stats()["region"]
    equal(c.read(at, path.bytes, timeout_s=9000), region(0, path.bytes), "the region")
    timer.lap("read %d KiB" % (path.bytes // KIB))
    c.set_breakpoint(c.work())
    c.go()
    c.wait_event(EV_STOPPED, wait)
    equal(c.pc()[0], c.work(), "pc at the breakpoint")
    timer.lap("breakpoint")
    c.go()
    for _ in range(3):
        c.wait_event(EV_PRINT, wait)
    timer.lap("three prints")
    c.call(BREAK)
    c.wait_event(EV_STOPPED, wait)
    timer.lap("break-in")
    c.manipulate(0x313B, timeout_s=wait)
    c.wait_event(EV_REBOOT, wait)
    c.wait_event(EV_PRINT, wait, lambda body: b"boot complete" in body)
    timer.lap("reboot")
    c.call(BREAK)
    c.wait_event(EV_STOPPED, wait)
    equal(c.read(at, 8), region(0, 8), "memory after the reboot")
    equal(c.call(CLOSE, timeout_s=wait).err, OK, "CLOSE")
    timer.lap("detach")
    equal(c.call(END_SERVER, timeout_s=wait).err, OK, "END_SERVER")
    equal(server.wait(), 0, "kdsrv's exit status")
    timer.lap("endpsrv")
    figure(str(timer))
    if proxy:
        figure("%d datagrams passed, %d lost, %d doubled" %
               (proxy.passed, proxy.lost, proxy.doubled))
        check(proxy.lost > 0 or not path.bad.get("loss"), "the proxy lost nothing")
    stats = target.stats()
    equal(stats["boots"], 2, "boots")
    # What is late, or asks for what may be lost, comes under the key of a session that is over.
    if "delay_s" not in path.bad and "loss" not in path.bad:
        equal(stats["net"]["denied"], 0, "datagrams denied")


@test
def over_ipv6(lab):
    """a session over IPv6, kd in one process"""
    net = Net(lab)
    host, machine = net.node("host"), net.node("target")
    target = NetTarget(lab, machine, host.address6, PORT, KEY, "--wait")
    p = Proc(lab, "kd", host.wrap + [PROGRAMS["kd"], "-k", target.trans, "-c", "vertarget; r; q"],
             expect=None)
    equal(p.wait(20), 0, "kd's exit status")
    matches("rip=", p.out, "registers")


@test
def several_targets(lab):
    """several targets on several ports of one server"""
    net = Net(lab)
    host, machine = net.node("host"), net.node("target")
    targets = [NetTarget(lab, machine, host, PORT + i, "%d.2.3.4z" % i, "--seed", str(i),
                         "--wait") for i in range(4)]
    server, clients = net.server(host), []
    for i, target in enumerate(targets):
        c = lab.closing(Client(server))
        c.send(OPEN, struct.pack("<I", BREAK_IN) + text(target.trans) + text("c%d" % i))
        clients.append(c)
    for i, c in enumerate(clients):
        c.wait_event(EV_STOPPED)
        c.version()
        at = c.stats()["region"]
        equal(c.read(at, 64 * KIB), region(0, 64 * KIB, i), "region of target %d" % i)


# ---- who has the target ------------------------------------------------------

def talking(lab, server, target):
    c = lab.closing(Client(server))
    c.attach(target)
    return c


@test
def takeover(lab):
    """target= takes the target from another host, which is told"""
    net = Net(lab)
    first, second, machine = net.node("first"), net.node("second"), net.node("target")
    target = NetTarget(lab, machine, first, PORT, KEY, "--poke-configured")
    c = talking(lab, net.server(first), target)
    timer = Timer()
    d = lab.closing(Client(net.server(second)))
    d.attach(target.trans + ",target=" + machine.address)
    timer.lap("takeover")
    figure(str(timer))
    equal(d.read(d.base, 2), b"MZ", "memory, read by the second host")
    said = c.wait_link(LOST)
    matches("another debugger", said, "what the first host is told")
    figure("the first host says: " + said)
    equal(d.read(d.base, 2), b"MZ", "memory, later")
    matches("another debugger", c.ok(CLOSE).text, "what the first host's CLOSE says")
    equal(d.read(d.base, 2), b"MZ", "memory, after the first host let go")


@test
def two_that_call(lab):
    """two hosts with target= at once: one has it, the other is told, and may take it back"""
    net = Net(lab)
    nodes, machine = [net.node("first"), net.node("second")], net.node("target")
    target = NetTarget(lab, machine, None, PORT, KEY, "--no-configured-host", "--wait")
    where = target.trans + ",target=" + machine.address
    servers = [net.server(node) for node in nodes]
    clients = [lab.closing(Client(server)) for server in servers]
    for c in clients:
        c.send(OPEN, struct.pack("<I", BREAK_IN) + text(where) + text("kd"))

    def told():
        for c in clients:
            try:
                c.receive(time.monotonic() + 0.05)
            except Failure:
                pass
        return [c for c in clients if any(b"another debugger" in body for kind, body in c.events
                                          if kind in (EV_NOTICE, EV_LINK))]
    timer = Timer()
    eventually(told, "one of the two is told", 30)
    timer.lap("one is told")
    loser, = told()
    holder = clients[1 - clients.index(loser)]
    holder.wait_event(EV_STOPPED, 30, since=0)
    holder.version()
    at = holder.stats()["region"]
    equal(holder.read(at, 64 * KIB), region(0, 64 * KIB), "the region, read by the holder")
    # For twice as long as it takes to miss a poke nothing changes hands.
    since, end = len(holder.events), time.monotonic() + 8
    while time.monotonic() < end:
        equal(holder.read(holder.base, 2), b"MZ", "memory, read by the holder")
    no_news(holder, since)
    equal(told(), [loser], "who is told")
    timer.lap("reads")
    # Its user wants it back, and opens it anew.
    matches("another debugger", loser.ok(CLOSE).text, "what the loser's CLOSE says")
    again = lab.closing(Client(servers[clients.index(loser)]))
    again.attach(where)
    matches("another debugger", holder.wait_link(LOST), "what the holder is told")
    equal(again.read(again.base, 2), b"MZ", "memory, read by the one who took it back")
    timer.lap("taken back")
    figure(str(timer))


@test
def unconfigured(lab):
    """a target without a configured host waits for target=, also after a reboot"""
    net = Net(lab)
    host, machine = net.node("host"), net.node("target")
    target = NetTarget(lab, machine, None, PORT, KEY, "--no-configured-host", "--wait")
    c = lab.closing(Client(net.server(host)))
    c.attach(target.trans + ",target=" + machine.address)
    c.manipulate(0x313B)
    timer = Timer()
    c.wait_event(EV_REBOOT)
    c.wait_event(EV_STOPPED, 30)
    timer.lap("back after a reboot")
    figure(str(timer))


@test
def wrong_key(lab):
    """a wrong key is called a wrong key"""
    net = Net(lab)
    host, machine = net.node("host"), net.node("target")
    target = NetTarget(lab, machine, host, PORT, KEY, "--wait")
    c = lab.closing(Client(net.server(host)))
    c.open("net:port=%d,key=%s" % (PORT, OTHER_KEY))
    notice = c.wait_event(EV_NOTICE, 30, lambda body: b"key" in body and b"authentic" in body)
    figure("kdsrv says: " + take_text(notice, 1)[0])
    equal([k for k, _ in c.events if k == EV_STOPPED], [], "stops")
    equal(target.stats()["net"]["responses"], 0, "answers that the target took")


# ---- what must not disturb ---------------------------------------------------

def is_control(datagram):
    return datagram[5] & 1


def no_news(c, since):
    """That nothing but prints and modules came after so many events."""
    odd = [k for k, _ in c.events[since:] if k not in (EV_PRINT, EV_MODULE)]
    equal(["%x" % k for k in odd], [], "events")


@test
def old_pokes(lab):
    """pokes and data replayed from an earlier boot change nothing"""
    net = Net(lab)
    host, machine = net.node("host"), net.node("target")
    proxy = net.proxy(host, machine, PORT)
    first = NetTarget(lab, machine, proxy, PORT, KEY, "--wait")
    server = net.server(host)
    c = talking(lab, server, first)
    c.read(c.base, 4096)
    c.ok(CLOSE)
    first.stats()
    old = list(proxy.recorded)
    # A server that comes to it late answers another poke.
    target = NetTarget(lab, machine, proxy, PORT, KEY, "--wait", "--poke-every", "1000")
    c = talking(lab, server, target)
    since = len(c.events)
    check(sum(map(is_control, old)) > 1 and not all(map(is_control, old)), "nothing recorded")
    for _ in range(20):
        for datagram in old:
            proxy.to_host(datagram)
        equal(c.read(c.base, 2), b"MZ", "memory")
    no_news(c, since)
    c.ok(CLOSE)
    equal(target.stats()["net"]["responses"], 1, "answers that the target took")


@test
def flood(lab):
    """a flood of datagrams without a key does not end the session"""
    net = Net(lab)
    host, machine, stranger = net.node("host"), net.node("target"), net.node("stranger")
    target = NetTarget(lab, machine, host, PORT, KEY, "--wait")
    c = talking(lab, net.server(host), target)
    at, since = c.stats()["region"], len(c.events)
    sock = lab.closing(stranger.socket(stranger.address, PORT))
    pieces = [b"MDBG\5" + bytes([kind]) + os.urandom(n) for kind in (0, 1) for n in (32, 1200)]
    pieces += [b"", b"x", b"GBDM" + bytes(34), os.urandom(1472), b"MDBG\5\0" + bytes(4064)]
    sent, stop = [0], threading.Event()

    def send():
        while not stop.is_set():
            for p in pieces:
                sock.sendto(p, (host.address, PORT))
            sent[0] += len(pieces)
    thread = threading.Thread(target=send, daemon=True)
    began = time.monotonic()
    thread.start()
    try:
        equal(c.read(at, MIB, timeout_s=50), region(0, MIB), "the region")
    finally:
        stop.set()
        thread.join()
    took = time.monotonic() - began
    figure("1 MiB in %.2f s beside %d datagrams a second" % (took, sent[0] / took))
    no_news(c, since)


@cases(["bad-tags", "reflected", "replayed", "truncated"])
def hostile(lab, kind):
    """a target with a hostile network card is debugged nevertheless"""
    net = Net(lab)
    host, machine = net.node("host"), net.node("target")
    target = NetTarget(lab, machine, host, PORT, KEY, "--wait", "--hostile", kind)
    c = talking(lab, net.server(host), target)
    at = c.stats()["region"]
    equal(c.read(at, 64 * KIB), region(0, 64 * KIB), "the region")
    c.go()
    c.call(BREAK)
    c.wait_event(EV_STOPPED)


@test
def restarted(lab):
    """a target that is restarted in mid-session gets a new key and goes on"""
    net = Net(lab)
    host, machine = net.node("host"), net.node("target")
    first = NetTarget(lab, machine, host, PORT, KEY, "--wait")
    c = talking(lab, net.server(host), first)
    c.set_breakpoint(c.work())
    first.kill()
    timer = Timer()
    NetTarget(lab, machine, host, PORT, KEY, "--wait", "--seed", "7")
    c.wait_event(EV_REBOOT, 20)
    c.wait_event(EV_STOPPED, 20)
    timer.lap("back")
    figure(str(timer))
    c.version()
    at = c.stats()["region"]
    equal(c.read(at, 4096), region(0, 4096, 7), "the region")
    check(c.read(c.work(), 1) != b"\xcc", "a breakpoint outlived the restart")


main()
