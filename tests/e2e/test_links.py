#!/usr/bin/env python3
# Lines that are no lines, and lines with garbage on them.
# SPDX-License-Identifier: MIT
import os
import pty
import re
import socket
import struct
import sys
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdclient import *
from kdlib import *

# ---- what cannot be opened ---------------------------------------------------

@test
def listener_strings(lab):
    """kdsrv: malformed -t strings and options: exit 2, the key is named, nothing listens"""
    for args, word in (
            ((), "-t"), (("-t", ""), ""), (("-t", "tcp"), ""), (("-t", "tcp:"), "port"),
            (("-t", "tcp:port=0"), "port"), (("-t", "tcp:port=65536"), "65536"),
            (("-t", "tcp:port=9:3"), "9:3"), (("-t", "tcp:port=5005,port=5006"), "port"),
            (("-t", "tcp:port=5005,colour=red"), "colour"), (("-t", "tcp:port=@{5005"), ""),
            (("-t", "tcp:port=5005}"), "}"), (("-t", "npipe:pipe=a/b"), "pipe"),
            (("-t", "npipe:pipe="), "pipe"), (("-t", "npipe:"), "pipe"),
            (("-t", "npipe:pipe=" + "x" * 200), ""), (("-t", "ssl:port=5005"), "ssl"),
            (("-t", "tcp:port=5005,password=@/no/such/file"), "/no/such/file"),
            (("-t", "tcp:port=5005,bind="), "bind"), (("-t", "udp:port=1"), "udp"),
            (("-t", "tcp:port=%s" % port_range(), "--target", "x"), "x"),
            (("-t", "tcp:port=%s" % port_range(), "--target", "x=com:nosuch=1"), "nosuch"),
            (("-t", "tcp:port=%s" % port_range(), "--target", "rack 3=com:port=com1"), "rack 3: a target"),
            (("-t", "tcp:port=%s" % port_range(), "--log-level", "loud"), "loud"),
            (("-t", "tcp:port=%s" % port_range(), "more"), "more"),
            (("-t", "tcp:port=%s" % port_range(), "--target", "a=com:port=com1", "--target",
              "A=com:port=com2"), "A: two --target of one name"),
            (("--nosuch",), "nosuch")):
        p = lab.run("kdsrv", *args)
        equal(p.status, 2, "kdsrv %r: %s" % (args, p.err))
        equal(p.out, "", "stdout of kdsrv %r" % (args,))
        matches(re.escape(word), p.err, "kdsrv %r" % (args,))


@test
def log_levels(lab):
    """each level logs more than the one before; trace each piece that crosses the line"""
    logged = []
    for level in "error", "info", "trace":
        server, target = lab.server("--log-level", level), lab.target("--wait")
        lab.kd(server, target, "vertarget")
        server.signal(signal.SIGTERM)
        equal(server.wait(), 0, "exit status")
        logged.append(server.err.splitlines())
    equal(logged[0], [], "errors")
    check(0 < len(logged[1]) < len(logged[2]), "%d and %d lines" % tuple(map(len, logged[1:])))
    for way in "to", "from":
        matches(r"(?m)^kdsrv: trace: target: com:pipe,port=\S+: \d+ bytes %s it$" % way,
                "\n".join(logged[2]), "bytes " + way)


@test
def ports_in_use(lab):
    """a TCP port that is taken: exit 1 and a text; a range takes the next, and says which"""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as s:
        port = s.getsockname()[1]
        p = lab.run("kdsrv", "-t", "tcp:port=%d" % port)
        equal(p.status, 1, "exit status")
        matches(r"port %d on 127\.0\.0\.1 is in use" % port, p.err, "the text")
        p = lab.run("kdsrv", "-t", "tcp:port=%s" % port_range(), "-t", "tcp:port=%d" % port)
        equal(p.status, 1, "exit status with a second transport that fails")
        equal(p.out, "", "stdout")
    p = lab.run("kdsrv", "-t", "tcp:port=%s,bind=203.0.113.1" % port_range())
    equal((p.status, p.err), (1, "kdsrv: tcp:bind=203.0.113.1: no address of this machine; "
                              "ip addr lists them\n"), "an address of nobody")
    first = lab.server()
    low = first.port
    second = lab.server(transports=["tcp:port=%d:%d" % (low, PORTS[-1])])
    check(low < second.port <= PORTS[-1], "port %d" % second.port)
    lab.closing(Client(second)).ok(PING)


@test
def trans_strings(lab):
    """malformed trans= strings: KD_ERR_INVALID, the key is named"""
    c = lab.closing(Client(lab.server()))
    for trans, err, word in (
            ("", INVALID, ""), ("com", INVALID, ""), ("com:colour=red", INVALID, "colour"),
            ("com:pipe", INVALID, "port="), ("com:pipe,port=rel", INVALID, "rel"),
            ("com:pipe,port=/a/../b", INVALID, ".."), ("com:port=com0", INVALID, "com0"),
            ("com:port=com1,baud=299", INVALID, "299"), ("com:port=com1,baud=x", INVALID, "x"),
            ("com:port=com1,port=com2", INVALID, "port"), ("com:port=@{x", INVALID, ""),
            ("com:port=com1}", INVALID, "}"), ("com:ipport=0,port=h", INVALID, "ipport"),
            ("com:ipport=5", INVALID, "port="), ("net:port=5,key=1.2.3", INVALID, "key"),
            ("usb:path=2-1", INVALID, "targetname"), ("target:name=no such", INVALID, "name"),
            ("com:port=" + "x" * 1100, INVALID, "")):
        reply = c.open(trans)
        equal(reply.err, err, "OPEN %s: %s" % (trans[:60], reply.text))
        matches(re.escape(word), reply.text, "the text for %s" % trans[:60])


@test
def no_such_ports(lab):
    """a port that does not exist, is no tty, or is taken"""
    c = lab.closing(Client(lab.server()))
    plain = lab.path("file")
    with open(plain, "w") as f:
        f.write("data")
    dead = lab.path("dead.sock")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(dead)
    fifo = lab.path("fifo")
    os.mkfifo(fifo)
    for trans, errors, text_wanted in (
            ("com:pipe,port=/no/such", (NOT_FOUND,), "/no/such"),
            ("com:port=/dev/nosuchtty", (NOT_FOUND,), "nosuchtty"),
            ("com:pipe,port=" + plain, (INVALID, DENIED, IO), "file"),
            ("com:pipe,port=" + lab.dir, (INVALID, DENIED, IO), ""),
            ("com:pipe,port=/dev/null", (INVALID, DENIED, IO), "null"),
            ("com:pipe,port=" + fifo, (INVALID, DENIED, IO), "fifo"),
            ("com:pipe,port=" + dead, (NOT_FOUND, GONE, IO), "dead"),
            ("com:port=" + plain, (NOT_FOUND, INVALID, IO, DENIED), "file"),
            ("com:port=/dev/null", (NOT_FOUND, INVALID, IO, DENIED), "null"),
            ("com:ipport=%d,port=127.0.0.1" % PORTS[-1], None, "refused"),
            ("com:ipport=1,port=no.such.host.invalid", None, "no.such.host.invalid")):
        if trans.startswith("com:port=") and not has_driver("serial"):
            errors, text_wanted = (UNSUPPORTED,), "left out of this build"
        reply = c.open(trans, 0)
        if reply.err == OK and errors is None:
            # TCP connects in the background: the link tells.
            matches(text_wanted, c.wait_link(LINK_GONE, 10), trans)
            c.ok(CLOSE)
            continue
        check(reply.err < 0 and (errors is None or reply.err in errors),
              "OPEN %s: %r" % (trans, reply))
        matches(text_wanted, reply.text, trans)
    with open(plain) as f:
        equal(f.read(), "data", "the file")


@test
def busy_and_forbidden(lab):
    """a tty that another program holds, and one without the right to open it"""
    c = lab.closing(Client(lab.server()))
    master, slave = pty.openpty()
    name = os.ttyname(slave)
    import fcntl
    fcntl.ioctl(slave, termios.TIOCEXCL)
    if os.geteuid() == 0:
        # Exclusive use does not bind root; the lock does.
        fcntl.flock(slave, fcntl.LOCK_EX)
    reply = c.open("com:pipe,port=" + name, 0)
    equal(reply.err, BUSY, "OPEN of a locked tty: %s" % reply.text)
    matches("busy", reply.text, "the text")
    os.close(slave)
    os.close(master)
    if os.geteuid() != 0:
        raise Skip("not root: no other user to be")
    os.chmod(lab.dir, 0o755)
    secret = lab.path("root.sock")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(secret)
        s.listen(1)
        os.chmod(secret, 0o600)
        server = lab.server(wrap=["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                                  "--"])
        d = lab.closing(Client(server))
        reply = d.open("com:pipe,port=" + secret, 0)
        equal(reply.err, DENIED, "OPEN without the right: %s" % reply.text)
        matches("not permitted", reply.text, "the text")


# ---- what comes over the line ------------------------------------------------

@cases([("--wrong-baud", "baud"), ("--plain-text", "text|baud|debug"),
        ("--silent", "no answer yet|nothing heard|booted with debugging")],
       lambda v: v[0])
def not_a_target(lab, kind):
    """garbage, text, silence: a notice says so, and CLOSE works"""
    option, words = kind
    server, target = lab.server(), lab.target(option, "--print-every", "50")
    c = lab.closing(Client(server))
    equal(c.open(target).err, OK, "OPEN")
    c.wait_event(EV_NOTICE, 15, lambda b: re.search(words, take_text(b, 1)[0], re.I))
    equal([k for k, _ in c.events if k == EV_STOPPED], [], "stops")
    began = lab.clock()
    c.ok(CLOSE)
    check(lab.clock() - began < 4, "CLOSE took %g s" % (lab.clock() - began))


@test
def no_reply(lab):
    """a target that acknowledges a request and never answers: an error in time"""
    server = lab.server()
    waiting = []
    began = lab.clock()
    for api in 0x3130, 0x3134, 0x3146:
        target = lab.target("--no-reply-to", "%x" % api)
        c = lab.closing(Client(server))
        equal(c.open(target).err, OK, "OPEN")
        c.wait_event(EV_STOPPED)
        message = struct.pack("<IHHII", api, 0, 0, 0x103, 0).ljust(56, b"\0")
        waiting.append((c, c.send(MANIPULATE, message)))
    for c, number in waiting:
        check(c.wait_reply(number, 40).err in (TIMEOUT, GONE), "an answer from nowhere")
        check(lab.clock() - began < 35, "took %g s" % (lab.clock() - began))
        c.ok(PING)
        c.ok(CLOSE)


if __name__ == "__main__":
    main()
