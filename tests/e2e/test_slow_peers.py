#!/usr/bin/env python3
# Peers that begin and do not go on. These wait for the server's real limits
# (10 and 30 seconds), all at the same time.
# SPDX-License-Identifier: MIT
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdclient import *
from kdlib import *


def closes_at(c, began, low_s, high_s, what):
    """Waits until the server hangs up; returns what it sent before."""
    data = c.buf
    c.s.settimeout(began + high_s - time.monotonic())
    try:
        while True:
            piece = c.s.recv(65536)
            if not piece:
                break
            data += piece
    except TimeoutError:
        raise Failure("%s: not hung up after %g s" % (what, high_s)) from None
    took = time.monotonic() - began
    check(took >= low_s, "%s: hung up after %g s already" % (what, took))
    return data


@test
def half_and_nothing(lab):
    """no greeting, half a password, half a message: hung up after the documented time"""
    secret = "tcp:port=%s,password=secret" % port_range()
    server = lab.server(transports=["tcp:port=" + port_range(), secret])
    target = lab.target()
    holder = lab.closing(Client(server.ports[0], who="half"))
    holder.attach(target)
    began = time.monotonic()
    mute = lab.closing(Client(server.ports[0], greet=False))
    mute.line()
    half_line = lab.closing(Client(server.ports[0], greet=False))
    half_line.s.sendall(b"KDCLIENT 1")
    no_proof = lab.closing(Client(server.ports[1], greet=False))
    no_proof.greet()
    no_proof.call(AUTH_START, bytes(32))
    half_header = lab.closing(Client(server.ports[0]))
    half_header.s.sendall(bytes(7))
    half_body = holder.frame(READ, holder.read_request((holder.base, 16)))[0]
    holder.s.sendall(half_body[:-1])
    idle = lab.closing(Client(server.ports[0]))
    # One that always has half a message on its way, but finishes each.
    busy = lab.closing(Client(server.ports[0]))
    ping = busy.frame(PING)[0]
    busy.s.sendall(ping[:6])

    for c, what in (mute, "mute"), (half_line, "half a line"), (no_proof, "no proof"):
        matches(rb"KDSRV-ERROR [ -~]*10 seconds", closes_at(c, began, 9.5, 15, what), what)
    done = 0
    while time.monotonic() < began + 29:
        raw, number = busy.frame(PING)
        busy.s.sendall(ping[6:] + raw[:6])
        ping = raw
        done += 1
        busy.wait_reply(done)
        try:
            idle.receive(time.monotonic() + 0.5)
        except Failure:
            pass
    data = closes_at(half_header, began, 29.5, 35, "half a header")
    matches(b"hanging up", data, "half a header")
    closes_at(holder, began, 29.5, 35, "half a body")
    # Its session is over, like that of any client that hung up.
    idle.attach(target)
    while time.monotonic() < began + 36:
        raw, number = busy.frame(PING)
        busy.s.sendall(ping[6:] + raw[:6])
        ping = raw
        done += 1
        equal(busy.wait_reply(done).err, OK, "PING in halves")
        try:
            idle.receive(time.monotonic() + 0.5)
        except Failure:
            pass


if __name__ == "__main__":
    main()
