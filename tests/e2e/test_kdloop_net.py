#!/usr/bin/env python3
# kdloop net: between machines that are network namespaces: good paths, bad ones,
# and none. SPDX-License-Identifier: MIT
import json
import os
import re
import signal
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdlib import *
from netlab import *

PROGRAMS["kdloop"] = os.path.join(TOP_BUILD, "kdloop/kdloop")
PORT = 50000
ASK, ANSWER, VERSION_ERROR = 1, 2, 3


# ---- the two ends --------------------------------------------------------------

class Loop(Proc):
    """kdloop in a namespace."""

    def __init__(self, lab, node, where, *args):
        super().__init__(lab, "kdloop", node.wrap + [PROGRAMS["kdloop"], where, "--json"] +
                         list(args), expect=None)

    def result(self, wait_s=40):
        """What it found, with its checks by name."""
        self.status = self.wait(wait_s)
        got = json.loads(self.out)
        self.link = got["links"][0]
        self.checks = {c["name"]: c for c in self.link["checks"]}
        for c in self.link["checks"]:
            print("# %-4s %-11s %s" % (c["verdict"], c["name"], c["what"]))
        equal(got["exit"], self.status, "the exit code")
        return self

    def verdict(self, name):
        check(name in self.checks, "no check %s, but %s" % (name, sorted(self.checks)))
        return self.checks[name]["verdict"]

    def value(self, name, which):
        return self.checks[name]["values"][which]["value"]

    def says(self, name, verdict, what, advice=""):
        equal(self.verdict(name), verdict, "verdict of " + name)
        matches(what, self.checks[name]["what"], name)
        matches(advice, self.checks[name]["advice"], "advice of " + name)


def serve(lab, node, duration=100):
    p = Loop(lab, node, "net:port=%d" % PORT, "--mode", "serve", "--duration", str(duration))
    eventually(lambda: ":%04X " % PORT in node_file(node, "net/udp6"), "kdloop serves")
    return p


def probe(lab, node, target, *args):
    host = target if isinstance(target, str) else target.address
    if "--wait" not in args:
        args += ("--wait", "20")
    return Loop(lab, node, "net:port=%d,target=%s" % (PORT, host), "--mode", "probe", *args)


def node_file(node, name):
    with open("/proc/%d/%s" % (node.holder.pid, name)) as f:
        return f.read()


def two(lab):
    net = Net(lab)
    return net, net.node("here"), net.node("there")


def ended(serving):
    """Ctrl-C, and what it found."""
    serving.signal(signal.SIGINT)
    serving.result()
    equal(serving.status, 130, "the exit code after Ctrl-C")
    return serving


# ---- paths ---------------------------------------------------------------------

@cases([4, 6], lambda version: "IPv%d" % version)
def good(lab, version):
    """a good path passes"""
    net, here, there = two(lab)
    serving = serve(lab, there)
    target = there if version == 4 else "[%s]" % there.address6
    p = probe(lab, here, target, "--duration", "4").result()
    equal(p.status, 0, "the exit code")
    for name in "reach", "loss", "order", "duplicates", "size", "lock-step":
        equal(p.verdict(name), "PASS", name)
    for way in "there", "back":
        equal(p.value("size", way), 1500 - (28 if version == 4 else 48), "bytes " + way)
    check(p.value("latency", "median") > 0 and p.link["latency"][0]["count"] > 50, "latency")
    check(p.value("lock-step", "throughput") > 0, "throughput")
    ended(serving).says("peer-1", "PASS", r"asks came \(0 of them twice, 0 late\)")
    matches(re.escape(here.address if version == 4 else here.address6),
            serving.link["facts"]["peer-1"], "who asked")


# name, proxy, check, the verdicts that it may have
BAD = [
    ("10 % lost each way", {"loss": 0.10}, "loss", ["FAIL"]),
    ("2 % lost each way", {"loss": 0.02}, "loss", ["WARN", "FAIL"]),
    ("5 % doubled", {"dup": 0.05}, "duplicates", ["WARN"]),
    ("up to 20 ms late, and so out of order", {"delay_s": (0.0, 0.02)}, "order", ["FAIL"]),
    ("60 ms late", {"delay_s": (0.06, 0.06)}, "latency", ["WARN"]),
]


@cases(BAD, lambda case: case[0])
def bad(lab, case):
    """a bad path is found out"""
    _, how, name, verdicts = case
    net, here, there = two(lab)
    serving = serve(lab, there)
    proxy = net.proxy(here, there, PORT, **how)
    p = probe(lab, here, proxy, "--duration", "4").result()
    check(p.verdict(name) in verdicts, "%s: %s" % (name, p.verdict(name)))
    check(p.checks[name]["advice"], "no advice")
    if "loss" in how:
        lost = p.value("loss", "there") + p.value("loss", "back")
        check(0 < lost < how["loss"] * 600, "%g %% lost both ways" % lost)
    else:
        equal(p.verdict("loss"), "PASS", "loss")
    if "dup" in how:
        check(p.value(name, "there") > 0 and p.value(name, "back") > 0, "each way")
    if name == "latency":
        check(p.value(name, "minimum") >= 120, "the least latency")
    if not {"delay_s"} & set(how):
        equal(p.verdict("order"), "PASS", "order")
    equal(p.status, 1 if "FAIL" in [c["verdict"] for c in p.checks.values()] else 0, "exit code")
    ended(serving)


# ---- sizes ---------------------------------------------------------------------

@cases([(1400, "WARN", 1372), (1420, "WARN", 1392), (1280, "FAIL", 1252), (9000, "PASS", 1472)],
       lambda case: "MTU %d" % case[0])
def own_mtu(lab, case):
    """the MTU of this machine's interface"""
    mtu, verdict, size = case
    net, here, there = two(lab)
    serve(lab, there)
    here.ip("link set eth0 mtu %d" % mtu)
    p = probe(lab, here, there, "--duration", "1").result()
    equal(p.verdict("size"), verdict, "verdict of size")
    equal((p.value("size", "there"), p.value("size", "back")), (size, size), "sizes")
    matches("this machine takes %d bytes" % mtu if mtu < 1500 else "^$",
            p.checks["size"]["advice"], "advice")


@test
def silent_mtu(lab):
    """longer datagrams vanish without a word"""
    net, here, there = two(lab)
    serve(lab, there)
    there.ip("link set eth0 mtu 1400")
    p = probe(lab, here, there, "--duration", "1").result()
    p.says("size", "WARN", r"137[26] bytes pass there and 1372 back \(MTU 1400\)",
           "vanish without a word")


def routed(lab):
    """here - router - there, over the address that is returned."""
    net = Net(lab)
    here, router, there = net.node("here"), net.node("router"), net.node("there")
    router.ip("link add rt0 type veth peer name rt1 netns %d" % there.holder.pid,
              "address add 10.88.0.1/24 dev rt0", "link set rt0 up")
    there.ip("address add 10.88.0.2/24 dev rt1", "link set rt1 up",
             "route add %s/32 via 10.88.0.1" % here.address)
    here.ip("route add 10.88.0.0/24 via %s" % router.address)
    subprocess.run(router.wrap + ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"],
                   check=True, timeout=10)
    return here, router, there, "10.88.0.2"


@test
def router_mtu(lab):
    """a router with a smaller MTU behind it says so"""
    here, router, there, target = routed(lab)
    serve(lab, there)
    router.ip("link set rt0 mtu 1300")
    there.ip("link set rt1 mtu 1300")
    p = probe(lab, here, target, "--duration", "1").result()
    p.says("size", "FAIL", r"1272 bytes pass there and 1272 back",
           r"%s says that the link behind it takes 1300 bytes" % re.escape(router.address))


# ---- nothing comes back --------------------------------------------------------

@test
def nobody(lab):
    """nothing listens at the other end"""
    net, here, there = two(lab)
    p = probe(lab, here, there, "--wait", "2").result()
    equal(p.status, 1, "the exit code")
    p.says("reach", "FAIL", "%s says about datagrams to %s: port unreachable" %
           (there.address, there.address), "start kdloop net:port=50000 --mode serve")
    equal(list(p.checks), ["reach"], "checks")


@test
def late_server(lab):
    """the other end may start later"""
    net, here, there = two(lab)
    p = probe(lab, here, there, "--duration", "2")
    eventually(lambda: ":%04X " % PORT in node_file(here, "net/udp6"), "kdloop asks")
    serve(lab, there)
    equal(p.result().verdict("reach"), "PASS", "reach")


@test
def no_machine(lab):
    """there is no machine of that address"""
    net, here, there = two(lab)
    p = probe(lab, here, "10.77.0.200", "--wait", "5").result()
    p.says("reach", "FAIL", "%s says .* host unreachable" % here.address, "the cable")


@test
def no_route(lab):
    """this machine knows no way there"""
    net, here, there = two(lab)
    p = probe(lab, here, "192.0.2.1", "--wait", "1").result()
    p.says("reach", "FAIL", "Network is unreachable", "this machine's routes")


@cases([("prohibit", "forbidden, by a firewall", "let UDP port 50000 through on ROUTER"),
        ("unreachable", "host unreachable", "the route"),
        ("blackhole", "nothing comes back", "what kdloop --mode serve says")],
       lambda case: case[0])
def firewall(lab, case):
    """a router on the way does not let through"""
    how, what, advice = case
    here, router, there, target = routed(lab)
    serving = serve(lab, there)
    router.ip("route add %s %s/32" % (how, target))
    p = probe(lab, here, target, "--wait", "2").result()
    equal(p.status, 1, "the exit code")
    p.says("reach", "FAIL", what, advice.replace("ROUTER", router.address))
    if how != "blackhole":
        matches(r"^%s says" % re.escape(router.address), p.checks["reach"]["what"], "who")
    ended(serving).says("asked", "FAIL", "nobody asked", "let UDP port 50000 in")


@test
def one_way(lab):
    """asks arrive, answers do not"""
    net, here, there = two(lab)
    serving = serve(lab, there)
    there.ip("route add blackhole %s/32" % here.address)
    p = probe(lab, here, there, "--wait", "2").result()
    p.says("reach", "FAIL", "nothing comes back", "if it is asked")
    serving = ended(serving)
    matches("no answer has reached it", serving.link["facts"]["one-way-1"], "the live line")
    serving.says("peer-1", "FAIL", "no answer reached it",
                 "let UDP port 50000 in on %s" % re.escape(here.address))


@test
def nobody_asks(lab):
    """serving ends by itself, and nobody asked"""
    net, here, there = two(lab)
    p = serve(lab, there, duration=1).result()
    equal(p.status, 1, "the exit code")
    p.says("asked", "FAIL", "nobody asked")


@test
def server_leaves(lab):
    """the other end ends in the middle"""
    net, here, there = two(lab)
    serving = serve(lab, there)
    p = probe(lab, here, there, "--duration", "8")
    eventually(lambda: datagrams_sent(there) > 20, "answers")
    ended(serving)
    p.result()
    equal(p.status, 1, "the exit code")
    p.says("loss", "FAIL", "does not answer any more", "has it ended")
    equal(list(p.checks), ["reach", "loss"], "checks")


def datagrams_sent(node):
    return int(re.search(r"^Udp: \d+ \d+ \d+ (\d+)", node_file(node, "net/snmp"), re.M).group(1))


# ---- others on the port --------------------------------------------------------

def fnv(data):
    h = 2166136261
    for b in data:
        h = (h ^ b) * 16777619 & 0xffffffff
    return h


def datagram(length=102, answer_len=102, version=1, kind=ASK, session=7, number=1, claim=None):
    head = struct.pack("<4sBBHHHIIIIII", b"KDLP", version, kind, claim or length, answer_len, 0,
                       session, number, 0, 0, 0, 0)
    rest = bytes(i & 255 for i in range(length - 40))
    return head + struct.pack("<I", fnv(head + rest)) + rest


def exchange(sock, data, there, replies=True):
    sock.sendto(data, (there.address, PORT))
    sock.settimeout(10 if replies else 0.2)
    try:
        return sock.recv(65536)
    except TimeoutError:
        check(not replies, "no answer")
        return None


@test
def hostile(lab):
    """answers are never longer than asks, and only asks are answered"""
    net, here, there = two(lab)
    serving = serve(lab, there)
    s = lab.closing(here.socket(here.address, PORT))
    equal(len(exchange(s, datagram(40, 9000), there)), 40, "the answer to a short ask")
    equal(len(exchange(s, datagram(1000, 65535, number=2), there)), 1000, "to a long one")
    equal(len(exchange(s, datagram(1000, 0, number=3), there)), 40, "to one that wants none")
    damaged = bytearray(datagram(number=4))
    damaged[60] ^= 1
    silent = [b"", b"x", b"KDLP", b"\xff" * 1472, bytes(damaged), datagram()[:60],
              datagram() + b"x", datagram(claim=40), datagram(claim=9999), datagram(kind=ANSWER),
              datagram(kind=VERSION_ERROR), datagram(kind=0), datagram(kind=ANSWER, version=9),
              datagram(kind=99, version=9)]
    for data in silent:
        s.sendto(data, (there.address, PORT))
    # What comes next is the answer to what was sent last.
    answer = exchange(s, datagram(number=5), there)
    equal(struct.unpack_from("<I", answer, 16)[0], 5, "the only answer")
    for session in range(100):
        exchange(s, datagram(session=session, number=0xffffffff), there)
    # None of these has had an answer, as far as they say.
    ended(serving).says("peer-100", "SKIP", "1 ask came.* too few")


@test
def other_version_there(lab):
    """an ask of another version is told so, briefly"""
    net, here, there = two(lab)
    serving = serve(lab, there)
    s = lab.closing(here.socket(here.address, PORT))
    answer = exchange(s, datagram(version=9), there)
    equal((len(answer), answer[4], answer[5]), (40, 1, VERSION_ERROR), "the answer")
    ended(serving).says("version", "WARN", "%s:50000 speaks version 9" % re.escape(here.address),
                        "same release")


@cases([("another version", lambda data: datagram(40, kind=VERSION_ERROR, version=3),
         "speaks version 3", "same release"),
        ("KDNET", lambda data: b"MDBG\x02\x01" + bytes(368), "KDNET", "use kdsrv or kd"),
        ("an echo", lambda data: data, "the asks themselves come back", "target="),
        ("answers to others", lambda data: datagram(40, kind=ANSWER), "nothing comes back", ""),
        ("noise", lambda data: bytes(range(200)), "nothing comes back", "")],
       lambda case: case[0])
def strange_server(lab, case):
    """what answers is no kdloop of this version"""
    _, make, what, advice = case
    net, here, there = two(lab)
    s = lab.closing(there.socket(there.address, PORT))
    p = probe(lab, here, there, "--wait", "2")
    s.settimeout(10)
    data, sender = s.recvfrom(65536)
    for _ in range(3):
        s.sendto(make(data), sender)
    p.result()
    equal(p.status, 1, "the exit code")
    p.says("reach", "FAIL", what, advice)


@test
def own_address(lab):
    """target= is this machine itself"""
    net, here, there = two(lab)
    p = probe(lab, here, here, "--wait", "1").result()
    equal(p.status, 1, "the exit code")
    p.says("reach", "FAIL", "target= is this machine", "the address of the other machine")


def answer_to(ask, arrived):
    """The number of an ask, and an answer to it that says how many have arrived."""
    session, number = struct.unpack_from("<II", ask, 12)
    length = struct.unpack_from("<H", ask, 8)[0]
    head = struct.pack("<4sBBHHHIIIIII", b"KDLP", 1, ANSWER, length, 0, 0, session, number, 0,
                       arrived, 0, 0)
    rest = bytes(length - 40)
    return number, head + struct.pack("<I", fnv(head + rest)) + rest


@test
def late_first_answer(lab):
    """an answer to one of the first asks that comes during the measurement is no loss"""
    net, here, there = two(lab)
    s = lab.closing(there.socket(there.address, PORT))
    p = probe(lab, here, there, "--duration", "2")
    s.settimeout(0.5)
    held, arrived = None, 0
    while p.running():
        try:
            ask, sender = s.recvfrom(65536)
        except TimeoutError:
            continue
        arrived += 1
        number, answer = answer_to(ask, arrived)
        if number == 1:
            held = answer
            continue
        s.sendto(answer, sender)
        if held and number > 4:
            s.sendto(held, sender)
            held = None
    p.result()
    equal(p.verdict("loss"), "PASS", "loss")
    equal((p.value("loss", "there"), p.value("loss", "back")), (0, 0), "lost")
    check(p.verdict("order") != "PASS", "order")


@test
def ended_at_the_sizes(lab):
    """Ctrl-C while long datagrams are tried: what comes behind is not judged"""
    net, here, there = two(lab)
    s = lab.closing(there.socket(there.address, PORT))
    p = probe(lab, here, there, "--duration", "2")
    s.settimeout(10)
    for arrived in range(1, 100000):
        ask, sender = s.recvfrom(65536)
        if len(ask) > 200:
            break
        s.sendto(answer_to(ask, arrived)[1], sender)
    p.signal(signal.SIGINT)
    p.result()
    equal(p.status, 130, "the exit code")
    equal(p.verdict("size"), "SKIP", "verdict of size")
    check("lock-step" not in p.checks, "a check was begun after Ctrl-C")


@test
def busy(lab):
    """a port that is in use is not touched, and its user named"""
    net, here, there = two(lab)
    s = lab.closing(here.socket(here.address, PORT))
    for mode in [], ["--mode", "serve"]:
        p = Loop(lab, here, "net:port=%d" % PORT, *mode).result()
        equal(p.status, 3, "the exit code")
        matches("net:port=50000: .*busy, held by", p.link["error"], "the error")


@test
def only_look(lab):
    """without --mode nothing is sent"""
    net, here, there = two(lab)
    s = lab.closing(there.socket(there.address, PORT))
    p = Loop(lab, here, "net:port=%d,target=%s" % (PORT, there.address)).result()
    p.says("port", "PASS", "UDP port 50000 is free here", "--mode serve")
    check(any("eth0: %s, MTU 1500, up" % here.address == fact
              for fact in p.link["facts"].values()), "the interface: %r" % p.link["facts"])
    # Whatever it had sent would be here before this.
    here.socket(here.address, PORT + 1).sendto(b"last", (there.address, PORT))
    s.settimeout(10)
    equal(s.recv(100), b"last", "the first datagram")


@cases([("net:port=50000", "probe", "target="), ("net:port=0", "serve", "port"),
        ("net:target=1.2.3.4", "probe", "port"), ("net:port=50000,key=1.2.3.4", "probe", "key"),
        ("net:port=50000,target=1.2.3.4", "peer", "probe, serve"),
        ("net:port=50000,target=no such host", "probe", "target=")],
       lambda case: " ".join(case))
def usage(lab, case):
    """what is wrong is named, with exit code 2"""
    p = lab.run("kdloop", case[0], "--mode", case[1])
    equal(p.status, 2, "the exit code")
    check(case[2] in p.err, "the error names it: %r" % p.err)


if has_driver("udp"):
    main(needs=("kdloop",))
else:
    print("1..0 # SKIP built without the udp driver")
