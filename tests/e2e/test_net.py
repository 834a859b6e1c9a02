#!/usr/bin/env python3
# KDNET end to end: kdsrv and kd against kdtarget over UDP on this machine.
# SPDX-License-Identifier: MIT
import os
import signal
import socket
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "lib"), os.path.join(HERE, "../target")]
from foreign import foreign_server
from kdclient import *
from kdlib import *

KEY = NetTarget.KEY
WORD = "zsecret1"


def secret_file(lab, text=KEY + "\n"):
    path = lab.path("key")
    with open(path, "w") as f:
        f.write(text)
    return path


def no_secret(lab, *texts):
    for proc in lab.procs:
        if proc.name != "kdtarget":
            texts += proc.out, proc.err
            if proc.running():
                with open("/proc/%d/cmdline" % proc.pid) as f:
                    texts += f.read(),
    for text_ in texts:
        check(WORD not in text_, "the key stands in %r" % text_)


# ---- kd alone ----------------------------------------------------------------

@test
def in_process(lab):
    """kd -k net: attaches by itself; the key comes from -k, a file or the environment"""
    target = NetTarget(lab)
    for where, env in ((target.trans, {}),
                       ("%s,key=@%s" % (target.net, secret_file(lab)), {}),
                       (target.net, {"KDSRV_NET_KEY": KEY})):
        kd = lab.kd(None, where, "db nt l2; q", env=dict(lab.env, **env))
        matches("4d 5a", kd.out, "memory")
        matches("Connected to build 9600", kd.out, "the banner")
        check("guessed" not in kd.err, "a good key is called weak: %s" % kd.err)
    no_secret(lab)


@test
def console(lab):
    """ps does not show the key while kd runs"""
    target = NetTarget(lab)
    kd = lab.start_kd(None, target, ".sleep 60000", "--timeout", "70")
    kd.wait_text("Connected")
    no_secret(lab)
    with open("/proc/%d/cmdline" % kd.pid) as f:
        matches(r"net:port=\d+,key=\*+", f.read(), "the command line")
    kd.signal(signal.SIGTERM)
    kd.wait()


@test
def weak_key(lab):
    """a key that can be guessed works, and is warned of"""
    target = NetTarget(lab, key="1.2.3.4")
    server = lab.server()
    kd = lab.kd(server, target, "q")
    matches("can be guessed", kd.err, "kd's warning")
    server.wait_text("can be guessed", stream="err")


# ---- through a server --------------------------------------------------------

@test
def through_server(lab):
    """a session through kdsrv: reads, breakpoints, one client a port, the key nowhere"""
    # A server that comes to it late answers another poke.
    target = NetTarget(lab, "--poke-every", "1000")
    server = lab.server("--log-level", "trace")
    c, d = lab.closing(Client(server, who="ann@lab7")), lab.closing(Client(server))
    c.attach(target)
    at = c.stats()["region"]
    equal(c.read(at, 1 << 20), region(0, 1 << 20), "1 MiB")
    c.ok(LIST)
    kd = lab.kd(server, None, ".servers")
    matches(target.net + r"\b", kd.out, "the list")
    # Whatever is behind it, a port is taken once.
    for trans in (target.trans, target.net + ",key=9.9.9.9,target=lab"):
        reply = d.open(trans)
        equal(reply.err, BUSY, "OPEN: %s" % reply.text)
        matches("in use by ann@lab7", reply.text, "who has it")
    c.ok(CLOSE)
    d.attach(target)
    equal(d.read(d.base, 2), b"MZ", "the next client")
    d.ok(CLOSE)
    no_secret(lab, *(repr(r) for r in (c.events, d.events)))
    stats = target.stats()
    equal((stats["net"]["denied"], stats["net"]["responses"]), (0, 2), "datagrams of the server")


@test
def vanished_client(lab):
    """a client that dies leaves no breakpoint; the next one attaches at once"""
    target = NetTarget(lab)
    server = lab.server()
    c = Client(server)
    c.attach(target)
    before = c.read(c.work(), 1)
    c.set_breakpoint(c.work())
    c.close()
    d = lab.closing(Client(server))
    d.attach(target)
    equal(d.read(d.work(), 1), before, "where the breakpoint was")


@test
def reboot(lab):
    """another boot: new keys, the client is told, and the session goes on"""
    target = NetTarget(lab)
    server = lab.server()
    c = lab.closing(Client(server))
    for _ in range(3):
        c.attach(target)
        c.manipulate(0x313B)
        c.wait_event(EV_REBOOT)
        c.ok(BREAK)
        c.wait_event(EV_STOPPED)
        c.version()
        equal(c.read(c.base, 2), b"MZ", "memory of the next boot")
        c.ok(CLOSE)
    equal(target.stats()["boots"], 4, "boots")


@test
def power_cut(lab):
    """a target that is switched off and on is there again, under other keys"""
    target = NetTarget(lab)
    server = lab.server()
    c = lab.closing(Client(server))
    c.attach(target)
    target.kill()
    NetTarget(lab, port=target.port)
    c.wait_event(EV_REBOOT)
    c.ok(BREAK)
    c.wait_event(EV_STOPPED)
    c.version()
    equal(c.read(c.base, 2), b"MZ", "memory of the next boot")


@test
def silent(lab):
    """a target that falls silent is reported lost, and back when it is heard"""
    target = NetTarget(lab)
    server = lab.server()
    c = lab.closing(Client(server))
    c.attach(target)
    target.signal(signal.SIGSTOP)
    matches("silent", c.wait_link(LOST, 15), "the text")
    target.signal(signal.SIGCONT)
    c.wait_link(UP)
    equal(c.read(c.base, 2), b"MZ", "the session as it was")


@test
def taken_over(lab):
    """another debugger calls the target: the first one is told"""
    from kdnet import NetHost
    # The other one has 1 s to answer the only poke that it gets.
    target = NetTarget(lab, "--poke-configured", "--poke-every", "1000")
    server = lab.server()
    c = lab.closing(Client(server))
    c.attach(target)
    other = NetHost(KEY, "127.0.0.2")  # until a poke has named the first one, ports say nothing
    other.target = ("127.0.0.1", target.own)
    other.put(other.keys.seal(2, 1, 0, 1, b""))
    other.connect()
    matches("another debugger", c.wait_link(LOST), "the link")
    other.close()


# ---- when nothing comes of it ------------------------------------------------

@test
def nothing_arrives(lab):
    """a script ends with 3 and says that no datagram came"""
    kd = lab.kd(None, "net:port=%d,key=%s" % (udp_port(), KEY), "r",
                "--timeout", "7", status=3)
    matches("no datagram has arrived on the port", kd.err, "what kd says")
    no_secret(lab)


@test
def wrong_key(lab):
    """a script ends with 3 and says that the key is another"""
    target = NetTarget(lab)
    kd = lab.kd(lab.server(), target.net + ",key=a.b.c.9", "r", "--timeout", "7", status=3)
    matches(r"it never answered; [^;?]*do not authenticate", kd.err, "what kd says")


@test
def not_kdnet(lab):
    """a script ends with 3 and says that something else calls"""
    port = udp_port()
    kd = lab.start_kd(None, "net:port=%d,key=%s" % (port, KEY), "r", "--timeout", "7")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        while kd.running():
            s.sendto(b"GET / HTTP/1.1\r\n", ("127.0.0.1", port))
            time.sleep(0.1)
    equal(kd.wait(), 3, "exit status")
    matches("none is KDNET", kd.err, "what kd says")


@test
def answer_is_not_heard(lab):
    """a script ends with 3 and says that the target does not hear"""
    target = NetTarget(lab, "--silent")
    kd = lab.kd(None, target, "r", "--timeout", "7", status=3)
    matches("no datagram|does not hear", kd.err, "what kd says")


@test
def port_in_use(lab):
    """a port that another program holds is named with its holder"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("", 0))
        kd = lab.kd(None, "net:port=%d,key=%s" % (s.getsockname()[1], KEY), "r", status=4)
    matches(r"net:port=\d+: .*pid %d" % os.getpid(), kd.err, "what kd says")


# ---- whose key it is ---------------------------------------------------------

@test
def key_to_a_foreign_server(lab):
    """kd does not send a key over a network"""
    kd = lab.kd("tcp:server=192.0.2.1,port=5005", "net:port=50000,key=" + KEY, "r", status=2)
    matches("would cross the network in clear", kd.err, "what kd says")
    no_secret(lab)


@test
def named(lab):
    """a named target keeps its key on the server, and out of ps"""
    target = NetTarget(lab)
    server = lab.server("--target", "rack3=" + target.trans, "--log-level", "trace")
    c = lab.closing(Client(server))
    c.attach("target:name=rack3")
    equal(c.read(c.base, 2), b"MZ", "memory")
    no_secret(lab, repr(c.events))
    with open("/proc/%d/cmdline" % server.pid) as f:
        matches(r"rack3=net:port=\d+,key=\*+\0", f.read(), "the command line")


@test
def from_another_machine(lab):
    """key=@FILE of a client elsewhere is not read; --allow and names are as for com:"""
    path = secret_file(lab)
    server, connect = foreign_server(lab, "--allow", "net:port=50000", "--target",
                                     "rack3=net:port=50001,key=@" + path)
    c = connect()
    for trans in "net:port=50000,key=@" + path, "net:port=50000,key=@/etc/shadow":
        reply = c.open(trans)
        equal(reply.err, DENIED, "OPEN: %s" % reply.text)
        matches("key=@FILE is not permitted", reply.text, "the text")
    equal(c.open("net:port=50002,key=" + KEY).err, DENIED, "what is not allowed")
    equal(c.open("net:port=50000").err, INVALID, "no key there")
    for trans in "target:name=rack3", "net:port=50000,key=" + KEY:
        equal(c.open(trans).err, OK, trans)
        c.ok(CLOSE)
    no_secret(lab)


if __name__ == "__main__":
    main()
