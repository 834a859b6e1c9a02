#!/usr/bin/env python3
# How sessions and servers end: each row of the table in kdsrv(8), TEARDOWN.
# SPDX-License-Identifier: MIT
import os
import signal
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdclient import *
from kdlib import *

END_S = 5  # the bound of .endpsrv and of signals, on a machine that has nothing else to do


def expect_clean(lab, server, target, address, byte):
    """The next client attaches at once, finds no breakpoint, and it runs."""
    began = lab.clock()
    c = lab.closing(Client(server, who="next"))
    c.attach(target, 0)
    c.wait_event(EV_PRINT)  # so it runs
    c.send(BREAK)
    c.wait_event(EV_STOPPED)
    check(lab.clock() - began < 5, "attaching took %g s" % (lab.clock() - began))
    c.version()
    equal(c.read(address, 1), byte, "where the breakpoint was")
    c.go()
    c.wait_event(EV_PRINT)
    equal(c.call(CLOSE).err, OK, "CLOSE")


UNUSED = 0x3000  # a place in the kernel image that no program comes by


def stopped_with_breakpoint(lab, server, target, offset=None):
    """The client, the address of the breakpoint, and the byte that was there."""
    c = lab.closing(Client(server, who="first"))
    c.attach(target)
    address = c.work() if offset is None else c.base + offset
    byte = c.read(address, 1)
    c.set_breakpoint(address)
    equal(c.read(address, 1), b"\xcc", "the breakpoint in memory")
    return c, address, byte


@test
def close_while_stopped(lab):
    """CLOSE of a stopped target: breakpoints out, it runs, the next attaches"""
    server, target = lab.server(), lab.target("--print-every", "50")
    c, address, byte = stopped_with_breakpoint(lab, server, target)
    c.ok(CLOSE)
    quiet = len(c.events)
    expect_clean(lab, server, target, address, byte)
    c.ok(PING)
    equal(c.event_names()[quiet:], [], "events after CLOSE")
    equal(c.open(target, 0).err, OK, "OPEN after CLOSE")


def hang_up(c):
    c.close()


def hit_breakpoint(c):
    c.go()
    c.wait_event(EV_STOPPED)
    equal(c.pc()[0], c.work(), "pc at the breakpoint")


def in_bulk_read(c):
    region_at = c.stats()["region"]
    c.send(READ, c.read_request((region_at, 8 << 20)))
    while not c.parts:
        c.receive(time.monotonic() + 10)


def in_many_requests(c):
    for _ in range(300):
        c.send(READ, c.read_request((c.base, 0x10000)))


def in_half_a_frame(c):
    c.s.sendall(c.frame(READ, c.read_request((c.base, 64)))[0][:17])


def running(c):
    c.go()


def breaking_in(c):
    c.go()
    c.send(BREAK)


@cases([hang_up, hit_breakpoint, in_bulk_read, in_many_requests, in_half_a_frame, running,
        breaking_in], lambda f: f.__name__)
def killed(lab, moment):
    """client dies with breakpoints set"""
    server, target = lab.server(), lab.target("--print-every", "50")
    c, address, byte = stopped_with_breakpoint(
        lab, server, target, UNUSED if moment in (running, breaking_in) else None)
    moment(c)
    c.close()
    expect_clean(lab, server, target, address, byte)


@test
def killed_in_open(lab):
    """client dies right behind OPEN, or while OPEN waits: the next one gets it"""
    server, target = lab.server(), lab.target("--print-every", "50")
    holder = lab.closing(Client(server))
    holder.attach(target)
    byte = holder.read(holder.work(), 1)
    target.stop()
    holder.close()
    request = struct.pack("<I", BREAK_IN) + text(target.trans) + text("dies")
    for _ in range(3):
        c = Client(server)
        c.send(OPEN, request)
        c.ok(PING)  # so OPEN was taken, and waits
        c.close()
    target.signal(signal.SIGCONT)
    for _ in range(10):
        c = Client(server)
        c.send(OPEN, request)
        c.close()
    expect_clean(lab, server, target, holder.work(), byte)


@test
def killed_at_a_prompt(lab):
    """client dies while the target waits for an answer: it gets an empty one"""
    server, target = lab.server(), lab.target("--print-every", "50")
    c = lab.closing(Client(server))
    c.attach(target)
    byte = c.read(c.work(), 1)
    c.command("prompt")
    c.go()
    c.wait_event(EV_PROMPT)
    c.close()
    expect_clean(lab, server, target, c.work(), byte)


@test
def left_stopped_when_asked(lab):
    """flag 2 of OPEN, and kdsrv --leave-stopped, leave a target stopped"""
    for options, flags in ((), BREAK_IN | LEAVE_STOPPED), (("--leave-stopped",), BREAK_IN):
        server, target = lab.server(*options), lab.target("--print-every", "50")
        c = lab.closing(Client(server))
        c.attach(target, flags)
        c.set_breakpoint(c.base + UNUSED)
        c.ok(CLOSE)
        n = lab.closing(Client(server))
        n.attach(target, 0)
        n.wait_event(EV_STOPPED)
        n.version()
        check(n.read(n.base + UNUSED, 1) != b"\xcc", "the breakpoint is still there")
        equal([k for k, _ in n.events if k == EV_PRINT], [], "prints of a stopped target")


@test
def breaks_in_front_of_close(lab):
    """BREAK again and again, and CLOSE at once: the session ends all the same"""
    server, target = lab.server(), lab.target()
    c = lab.closing(Client(server))
    c.attach(target, BREAK_IN | LEAVE_STOPPED)
    close, number = c.frame(CLOSE)
    c.s.sendall(b"".join(c.frame(BREAK)[0] for _ in range(30)) + close)
    equal(c.wait_reply(number).err, OK, "CLOSE")
    equal(lab.closing(Client(server)).open(target, 0).err, OK, "OPEN by the next")


@test
def break_behind_close(lab):
    """BREAK behind CLOSE is refused, and the target runs on"""
    server, target = lab.server(), lab.target("--print-every", "50")
    c = lab.closing(Client(server))
    c.attach(target, 0)
    c.wait_event(EV_PRINT)
    close, number = c.frame(CLOSE)
    late, late_number = c.frame(BREAK)
    c.s.sendall(close + late)
    equal(c.wait_reply(late_number).err, STATE, "BREAK behind CLOSE")
    equal(c.wait_reply(number).err, OK, "CLOSE")
    c = lab.closing(Client(server))
    c.attach(target, 0)
    c.wait_event(EV_PRINT)
    check("%x" % EV_STOPPED not in c.event_names(), "the target was stopped")


@test
def left_stopped_in_a_bug_check(lab):
    """a target in a bug check is evidence: it stays stopped for the next client"""
    server, target = lab.server(), lab.target("--print-every", "50")
    c = lab.closing(Client(server))
    c.attach(target)
    c.command("crash")
    c.go(expect_break=True)
    c.wait_event(EV_STOPPED)
    matches("bug check", c.ok(CLOSE).text, "reply to CLOSE")
    n = lab.closing(Client(server))
    n.attach(target, 0)
    n.wait_event(EV_STOPPED)


@cases(["amd64", "x86"])
def reboot_by_request(lab, machine):
    """the target is told to reboot: clients are told, the link goes on"""
    server, target = lab.server(), lab.target("--wait", "--machine", machine)
    c = lab.closing(Client(server))
    c.attach(target, 0)
    c.wait_event(EV_STOPPED)
    c.version()
    c.set_breakpoint(c.work())
    c.manipulate(0x313B)
    c.wait_event(EV_REBOOT)
    c.wait_event(EV_STOPPED)
    c.version()
    check(c.read(c.work(), 1) != b"\xcc", "a breakpoint outlived the reboot")


@test
def reboot_by_itself(lab):
    """the machine restarts behind its socket: the client is told, no restart of kdsrv"""
    server, target = lab.server(), lab.target("--wait")
    c = lab.closing(Client(server))
    c.attach(target.trans + ",reconnect", 0)
    c.wait_event(EV_STOPPED)
    pending = c.send(READ, c.read_request((0, 1 << 40)))
    target.kill()
    c.wait_link(WAITING)
    equal(c.wait_reply(pending).err, GONE, "the read that was under way")
    equal(c.call(READ, c.read_request((0, 1))).err, GONE, "a read meanwhile")
    lab.target("--wait", path=target.path)
    c.wait_link(UP)
    c.wait_event(EV_STOPPED)
    c.version()
    equal(c.read(c.base, 2), b"MZ", "the kernel after all that")


@test
def waits_for_a_device(lab):
    """reconnect: OPEN of a device that is not there yet waits for it"""
    server = lab.server()
    path = lab.path("later.sock")
    c = lab.closing(Client(server))
    equal(c.open("com:pipe,reconnect,port=" + path).err, OK, "OPEN")
    c.wait_link(WAITING)
    lab.target(path=path)
    c.wait_event(EV_STOPPED)


@cases(["unix", "pty", "tcp"])
def vanishes(lab, on):
    """the other end of the line goes away: told at once, with and without reconnect"""
    server = lab.server()
    for flag, state in ("", LINK_GONE), (",reconnect", WAITING):
        target = lab.target(on=on)
        c = lab.closing(Client(server))
        c.attach(target.trans + flag)
        pending = c.send(READ, c.read_request((c.stats()["region"], 16 << 20)))
        target.kill()
        c.wait_link(state)
        equal(c.wait_reply(pending).err, GONE, "the read that was under way")
        c.ok(CLOSE)


@test
def vanishes_for_good(lab):
    """without reconnect: the client is told, may close, and may open it again later"""
    server, target = lab.server(), lab.target()
    c = lab.closing(Client(server))
    c.attach(target)
    target.kill()
    c.wait_link(LINK_GONE)
    equal(c.call(READ, c.read_request((0, 1))).err, GONE, "READ")
    c.ok(PING)
    c.ok(CLOSE)
    reply = c.open(target)
    equal(reply.err, NOT_FOUND, "OPEN of what is gone: %s" % reply.text)
    matches("com:pipe,port=%s: " % target.path, reply.text, "the text")
    lab.target(path=target.path)
    c.attach(target)


@test
def falls_silent_and_comes_back(lab):
    """a stopped target hangs: LOST, and the link re-syncs when it is back"""
    server, target = lab.server(), lab.target()
    c = lab.closing(Client(server))
    c.attach(target)
    target.stop()
    pending = c.send(READ, c.read_request((c.base, 16)))
    c.wait_link(LOST, 20)
    equal(c.wait_reply(pending).err, GONE, "the read")
    target.signal(signal.SIGCONT)
    c.wait_link(UP)
    c.wait_event(EV_STOPPED)
    equal(c.read(c.base, 2), b"MZ", "memory")


# ---- the end of a server -----------------------------------------------------

def port_is_closed(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) != 0


def expect_ended(lab, server, began):
    equal(server.wait(20), 0, "kdsrv's exit status")
    check(lab.clock() - began < END_S, "took %g s" % (lab.clock() - began))
    check(port_is_closed(server.port), "the port is open")


def two_sessions(lab, server):
    """Two clients with stopped targets that hold a breakpoint, and an idle one."""
    sessions = []
    for name in "one", "two":
        target = lab.target("--print-every", "50")
        c = lab.closing(Client(server, who=name))
        c.attach(target)
        sessions.append((c, target, c.work(), c.read(c.work(), 1)))
        c.set_breakpoint(c.work())
    return sessions, lab.closing(Client(server))


def expect_targets_free(lab, sessions):
    server = lab.server()
    for _, target, address, byte in sessions:
        expect_clean(lab, server, target, address, byte)


@test
def end_server(lab):
    """.endpsrv: others are told by whom, sessions end, exit 0, sockets are gone"""
    server = lab.server(transports=["tcp:port=" + port_range(), "npipe:pipe=lab"])
    sessions, idle = two_sessions(lab, server)
    pipe = os.path.join(lab.dir, "kdsrv/lab")
    check(os.path.exists(pipe), "no socket at %s" % pipe)
    began = lab.clock()
    equal(sessions[0][0].call(END_SERVER).err, OK, "END_SERVER")
    check(not os.path.exists(pipe), "%s is still there" % pipe)
    for c in sessions[1][0], idle:
        matches("^one ", take_text(c.wait_event(EV_ENDING))[0], "who ended it")
        c.wait_closed()
    sessions[0][0].wait_closed()
    equal([k for k, _ in sessions[0][0].events if k == EV_ENDING], [], "told to the caller")
    expect_ended(lab, server, began)
    expect_targets_free(lab, sessions)


@cases([signal.SIGTERM, signal.SIGINT, signal.SIGHUP], lambda s: s.name)
def end_by_signal(lab, sig):
    """the same by a signal"""
    server = lab.server(transports=["tcp:port=" + port_range(), "npipe:pipe=lab"])
    sessions, idle = two_sessions(lab, server)
    began = lab.clock()
    server.signal(sig)
    matches(sig.name, take_text(idle.wait_event(EV_ENDING))[0], "who ended it")
    for c in sessions[0][0], sessions[1][0], idle:
        c.wait_closed()
    expect_ended(lab, server, began)
    expect_targets_free(lab, sessions)


@test
def signals_at_every_step(lab):
    """signals that go on until the process is gone: exit 0 still"""
    for _ in range(10):
        server = lab.server()
        while server.running():
            server.signal(signal.SIGTERM)
        equal(server.wait(), 0, "the exit status")


@test
def nohup(lab):
    """a server whose SIGHUP is ignored lives on"""
    server = lab.server(wrap=["nohup"])
    server.signal(signal.SIGHUP)
    c = lab.closing(Client(server))
    c.ok(PING)


@cases([(how, run) for how in ("END_SERVER", "SIGTERM") for run in (False, True)],
       lambda v: "%s, %s" % (v[0], "it runs" if v[1] else "it is stopped"))
def end_with_a_hung_target(lab, case):
    """within 5 s, also when a target hangs"""
    how, run = case
    server, target, good = lab.server(), lab.target(), lab.target("--print-every", "50")
    c, d = lab.closing(Client(server)), lab.closing(Client(server))
    c.attach(target)
    c.set_breakpoint(c.base + UNUSED)
    if run:
        c.go()
    d.attach(good)
    address, byte = d.work(), d.read(d.work(), 1)
    d.set_breakpoint(address)
    target.stop()
    began = lab.clock()
    if how == "SIGTERM":
        server.signal(signal.SIGTERM)
    else:
        reply = c.call(END_SERVER)
        equal(reply.err, OK, "END_SERVER")
        matches("target did not answer|breakpoints", reply.text, "what could not be done")
    expect_ended(lab, server, began)
    expect_clean(lab, lab.server(), good, address, byte)


@test
def end_with_a_silent_target(lab):
    """the same with a target that never said a word"""
    server, target = lab.server(), lab.target("--silent")
    c = lab.closing(Client(server))
    equal(c.open(target).err, OK, "OPEN")
    began = lab.clock()
    equal(c.call(END_SERVER).err, OK, "END_SERVER")
    expect_ended(lab, server, began)


@test
def no_new_sessions_at_the_end(lab):
    """who opens a target while the server ends, or waits for one, is refused"""
    server, hung, other = lab.server(), lab.target(), lab.target()
    holder, _, _ = stopped_with_breakpoint(lab, server, hung)
    waits, ender = lab.closing(Client(server)), lab.closing(Client(server))
    hung.stop()
    holder.close()
    waiting = waits.send(OPEN, struct.pack("<I", 0) + text(hung.trans) + text("waits"))
    # Only when it has been read, and not refused as in use, it waits.
    waits.ok(PING)
    end, number = ender.frame(END_SERVER)
    late, late_number = ender.frame(OPEN, struct.pack("<I", 0) + text(other.trans) + text("late"))
    ender.s.sendall(end + late)
    reply = ender.wait_reply(late_number)
    equal((reply.err, reply.text), (STATE, "the server is ending"), "OPEN at the end")
    equal(waits.wait_reply(waiting).text, "the server is ending", "the OPEN that waited")
    reply = ender.wait_reply(number)
    equal(reply.err, OK, "END_SERVER")
    check("all the same" not in reply.text, "what could not be done: " + reply.text)
    equal(server.wait(), 0, "exit status")


@test
def caller_dies(lab):
    """.endpsrv goes on when the client that asked for it is killed"""
    server, target = lab.server(), lab.target()
    c = lab.closing(Client(server))
    c.attach(target)
    target.stop()
    began = lab.clock()
    c.send(END_SERVER)
    c.close()
    expect_ended(lab, server, began)


@test
def no_socket_of_ours(lab):
    """a file that has the socket's name is left alone; a directory of everybody is refused"""
    where = os.path.join(lab.dir, "kdsrv")
    os.mkdir(where, 0o700)
    path = os.path.join(where, "lab")
    with open(path, "w") as f:
        f.write("mine")
    p = lab.run("kdsrv", "-t", "npipe:pipe=lab")
    equal((p.status, p.err), (1, "kdsrv: %s: exists and is no socket; take another name\n" % path),
          "a plain file")
    with open(path) as f:
        equal(f.read(), "mine", "the file")
    os.chmod(where, 0o777)
    p = lab.run("kdsrv", "-t", "npipe:pipe=other")
    equal((p.status, p.err), (1, "kdsrv: %s: others can write there; chmod 700 it\n" % where),
          "everybody's directory")


@test
def killed_server(lab):
    """after SIGKILL the next start takes over the socket and says so"""
    first = lab.server(transports=["npipe:pipe=lab"])
    target = lab.target("--print-every", "50")
    c = lab.closing(Client(first))
    c.attach(target)
    first.kill()
    path = os.path.join(lab.dir, "kdsrv/lab")
    check(os.path.exists(path), "the socket did not stay: nothing to test")
    second = lab.server(transports=["npipe:pipe=lab"])
    second.wait_text("kdsrv/lab: .*taken over", stream="err")
    n = lab.closing(Client(second))
    n.attach(target)
    check(n.version(), "no answer")
    # A living one is left alone.
    third = lab.run("kdsrv", "-t", "npipe:pipe=lab")
    equal(third.status, 1, "a second server on one socket")
    matches("kdsrv/lab: in use", third.err, "why")
    n.ok(PING)
    second.signal(signal.SIGTERM)
    equal(second.wait(), 0, "exit status")
    check(not os.path.exists(path), "the socket is left")


if __name__ == "__main__":
    main()
