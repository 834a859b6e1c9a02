#!/usr/bin/env python3
# Who may do what: one client a target, passwords, other machines, and a
# server that has no descriptors left.
# SPDX-License-Identifier: MIT
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from foreign import foreign_server
from kdclient import *
from kdlib import *
from proxy import Proxy

SECRET = "s3cret-Passw0rd"


# ---- one client a target -----------------------------------------------------

@test
def in_use(lab):
    """a second client is refused with who holds the target; other targets are free"""
    server, one, two = lab.server(), lab.target(), lab.target()
    first = lab.closing(Client(server, who="ann@lab7"))
    first.attach(one)
    second = lab.closing(Client(server, who="bob@desk"))
    # The same hardware in another spelling.
    for trans in one.trans, "COM:PORT=/%s,reconnect,PIPE" % one.path:
        reply = second.open(trans)
        equal(reply.err, BUSY, "OPEN: %s" % reply.text)
        matches(r"in use by ann@lab7 \(127\.0\.0\.1:\d+\)", reply.text, "the text")
    second.attach(two)
    equal(first.read(first.base, 2) + second.read(second.base, 2), b"MZMZ", "both")
    first.ok(CLOSE)
    first.ok(PING)
    second.ok(CLOSE)
    second.attach(one)


@test
def parallel(lab):
    """eight clients with a target each, at the same time"""
    server = lab.server()
    targets = [lab.target("--seed", str(n), "--memory", "1") for n in range(8)]
    clients = [lab.closing(Client(server)) for _ in targets]
    for c, t in zip(clients, targets):
        equal(c.open(t).err, OK, "OPEN")
    for c in clients:
        c.wait_event(EV_STOPPED)
        c.version()
    at = clients[0].stats()["region"]
    ids = [c.send(READ, c.read_request((at, 1 << 20))) for c in clients]
    for n, (c, number) in enumerate(zip(clients, ids)):
        check(c.wait_reply(number).data == region(0, 1 << 20, n), "contents of target %d" % n)


@test
def waits_for_the_release(lab):
    """OPEN while the last session is just ending waits and then gets the target"""
    server, target = lab.server(), lab.target()
    c, d = lab.closing(Client(server)), lab.closing(Client(server))
    c.attach(target)
    for handle in range(20):
        c.set_breakpoint(c.base + 0x3000 + handle)
    # Many requests to come before the target is free.
    target.stop()
    c.close()
    number = d.send(OPEN, struct.pack("<I", BREAK_IN) + text(target.trans) + text("next"))
    d.ok(PING)
    check(number not in d.replies, "OPEN was answered before the target was free")
    target.signal(signal.SIGCONT)
    equal(d.wait_reply(number).err, OK, "OPEN")
    d.wait_event(EV_STOPPED)
    d.version()
    check(b"\xcc" not in d.read(d.base + 0x3000, 20), "breakpoints are left")


# ---- passwords ---------------------------------------------------------------

def secret_server(lab):
    return lab.server(transports=["tcp:port=%s,password=%s" % (port_range(), SECRET),
                                  "npipe:pipe=secret,password=" + SECRET])


@cases(["tcp", "npipe"])
def password(lab, over):
    """the right password opens, a wrong one is refused late, and later each time"""
    server, target = secret_server(lab), lab.target()
    where = server.port if over == "tcp" else os.path.join(lab.dir, "kdsrv/secret")
    c = lab.closing(Client(where, password=SECRET))
    c.attach(target)
    times = []
    for n in range(5):
        wrong = lab.closing(Client(where))
        began = time.monotonic()
        reply = wrong.login("s3cret-Passw0rD")
        times.append(time.monotonic() - began)
        equal(reply.err, DENIED, "log-in with a wrong password")
        wrong.wait_closed()
        began = lab.clock()
        equal(c.read(c.base, 2), b"MZ", "who is in already")
        check(lab.clock() - began < 0.5, "others wait")
    for n, low in enumerate((0.1, 0.2, 0.4, 0.8, 1.6)):
        check(times[n] >= low * 0.9, "refusal %d came after %g s" % (n + 1, times[n]))
    # A right one is not punished, and ends it.
    began = lab.clock()
    lab.closing(Client(where, password=SECRET))
    check(lab.clock() - began < 2, "the right password had to wait")
    wrong = lab.closing(Client(where))
    began = lab.clock()
    wrong.login("")
    check(lab.clock() - began < 1, "the count did not start again")


@test
def guesses_in_parallel(lab):
    """many tries at once are slowed down together"""
    server = secret_server(lab)
    clients = [lab.closing(Client(server.port)) for _ in range(8)]
    began = time.monotonic()
    threads = [threading.Thread(target=c.login, args=("guess",), daemon=True) for c in clients]
    for t in threads:
        t.start()
    for t in threads:
        t.join(20)
        check(not t.is_alive(), "an answer never came")
    check(time.monotonic() - began > 4, "8 guesses took %g s" % (time.monotonic() - began))


@test
def before_the_password(lab):
    """without the password nothing is served, and no proof works twice"""
    server, target = secret_server(lab), lab.target()
    for kind in LIST, OPEN, END_SERVER, PING, 0x77:
        c = lab.closing(Client(server.port))
        equal(c.call(kind).err, DENIED, "request %x" % kind)
        c.wait_closed()
    for body in bytes(32), b"", bytes(31):
        c = lab.closing(Client(server.port))
        equal(c.call(AUTH_PROOF, body, 30).err, DENIED, "a proof without a nonce")
    # A recorded log-in is worth nothing to another connection.
    with Proxy(("127.0.0.1", server.port)) as proxy:
        lab.closing(Client(proxy.port, password=SECRET)).ok(PING)
        recorded = bytes(proxy.sent)
    s = lab.closing(dial(server.port))
    s.sendall(recorded)
    c = Client(s, greet=False)
    c.line()
    c.wait_closed()
    equal(c.replies[2].err, DENIED, "a replayed proof")
    check(server.running(), "the server ended")


@test
def never_on_the_wire(lab):
    """neither the password nor what could stand in for it crosses the wire"""
    import hashlib
    import hmac
    server, target = secret_server(lab), lab.target()
    with Proxy(("127.0.0.1", server.port)) as proxy:
        c = lab.closing(Client(proxy.port, password=SECRET))
        c.attach(target)
        if os.access(PROGRAMS["kd"], os.X_OK):
            lab.kd("tcp:server=127.0.0.1,port=%d,password=%s" % (proxy.port, SECRET), None,
                   ".servers")
        wire = bytes(proxy.sent) + bytes(proxy.received)
    salt = wire[wire.index(struct.pack("<I", 100000)) - 16:][:16]
    salted = hashlib.pbkdf2_hmac("sha256", SECRET.encode(), salt, 100000)
    key = hmac.new(salted, b"Client Key", "sha256").digest()
    for bad in (SECRET.encode(), SECRET.encode("utf-16-le"), SECRET[2:10].encode(), salted, key,
                hashlib.sha256(key).digest(), hashlib.sha256(SECRET.encode()).digest(),
                hashlib.md5(SECRET.encode()).digest(), SECRET.encode().hex().encode()):
        check(bad not in wire, "%r is on the wire" % bad)
    check(len(wire) > 500, "nothing was recorded")
    with open("/proc/%d/cmdline" % server.pid, "rb") as f:
        check(SECRET.encode() not in f.read(), "ps shows the password")


# ---- other machines ----------------------------------------------------------

@test
def from_another_machine(lab):
    """a client of another machine may open nothing, unless it is allowed or named"""
    a, b, pty = lab.target(), lab.target(), lab.target(on="pty")
    server, connect = foreign_server(lab, "--allow", "com:pipe,port=%s" % a.path,
                                     "--allow", "com:pipe,port=/dev/pts/*",
                                     "--target", "rack3=" + b.trans)
    c = connect()
    for trans in (b.trans, "com:port=com1", "com:pipe,port=/etc/passwd", a.trans + ",reconnect",
                  "com:ipport=22,port=127.0.0.1"):
        reply = c.open(trans)
        equal(reply.err, DENIED, "OPEN %s: %s" % (trans, reply.text))
        matches("--allow", reply.text, "the text")
    equal(c.open("target:name=rack4").err, NOT_FOUND, "an unknown name")
    for trans in a.trans, "COM:port=%s,Pipe" % a.path, "target:name=rack3", pty.trans:
        c.attach(trans)
        equal(c.read(c.base, 2), b"MZ", trans)
        c.ok(CLOSE)
    # Over the Unix socket of the same user anything goes.
    near = lab.closing(Client(os.path.join(lab.dir, "kdsrv/near")))
    near.attach(b)


@test
def from_another_machine_with_password(lab):
    """the password is not a right to open everything"""
    target = lab.target()
    server, connect = foreign_server(lab, extra=",password=" + SECRET)
    c = connect(password=SECRET)
    equal(c.open(target).err, DENIED, "OPEN")
    equal(connect().call(LIST).err, DENIED, "LIST without the password")


@test
def named(lab):
    """named targets from this machine; two names of one device exclude each other"""
    target = lab.target()
    server = lab.server("--target", "rack3=" + target.trans, "--target", "same=" + target.trans)
    c, d = lab.closing(Client(server)), lab.closing(Client(server))
    c.attach("TARGET:name=rack3")
    equal(d.open("target:name=same").err, BUSY, "the other name")
    equal(d.open("target:name=nobody").err, NOT_FOUND, "an unknown name")


@test
def another_user(lab):
    """another user of this machine cannot connect to the Unix socket"""
    if os.geteuid() != 0:
        raise Skip("not root")
    server = lab.server(transports=["npipe:pipe=mine"])
    os.chmod(lab.dir, 0o755)
    path = os.path.join(lab.dir, "kdsrv/mine")
    code = "import socket,sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    other = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--",
                            "/usr/bin/python3", "-c", code, path],
                           capture_output=True, text=True, timeout=10)
    matches("PermissionError", other.stderr, "another user")
    os.chmod(os.path.join(lab.dir, "kdsrv"), 0o755)
    other = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--",
                            "/usr/bin/python3", "-c", code, path],
                           capture_output=True, text=True, timeout=10)
    matches("PermissionError", other.stderr, "another user, the directory open")
    lab.closing(Client(path)).ok(PING)


# ---- no descriptors left -----------------------------------------------------

@test
def out_of_descriptors(lab):
    """new clients are told, connected ones go on, and it recovers"""
    target, unused = lab.target(), lab.target()
    server = lab.server(wrap=["sh", "-c", "ulimit -n 24 && exec \"$@\"", "sh"])
    c = lab.closing(Client(server))
    c.attach(target)
    taken, refused = [], None
    while refused is None:
        s = dial(server)
        line = Client(s, greet=False).line()
        if line.startswith("KDSRV 1 "):
            taken.append(s)
        else:
            refused = line
        check(len(taken) < 30, "the limit has no effect")
    equal(refused, "KDSRV-ERROR the server is out of file descriptors", "what it is told")
    check(len(taken) > 4, "only %d clients" % len(taken))
    for _ in range(50):
        equal(c.read(c.base, 2), b"MZ", "who is connected")
    server.wait_text("cannot accept", stream="err")
    if os.access(PROGRAMS["kd"], os.X_OK):
        kd = lab.kd(server, None, ".servers", status=3)
        matches("out of file descriptors", kd.err, "what kd says")
    # No descriptor for a device either.
    d = Client(taken[0], greet=False)
    d.s.sendall(b"KDCLIENT 1 e2e/1\n")
    reply = d.open(unused)
    equal(reply.err, IO, "OPEN: %s" % reply.text)
    matches("[Tt]oo many open files", reply.text, "OPEN")
    for s in taken:
        s.close()
    eventually(lambda: Client(dial(server), greet=False).line().startswith("KDSRV 1 "),
               "a client is taken again")
    equal(c.read(c.base, 2), b"MZ", "who is connected")


@test
def too_many_clients(lab):
    """the 1001st client is told so"""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1200:
        raise Skip("no right to 1200 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    server = lab.server()
    clients = [lab.closing(Client(server)) for _ in range(1000)]
    line = lab.closing(Client(server, greet=False)).line()
    equal(line, "KDSRV-ERROR too many clients", "the 1001st")
    for c in clients[::100]:
        c.ok(PING)


if __name__ == "__main__":
    main()
