#!/usr/bin/env python3
# How fast acknowledgements leave, whatever else goes on, and what distance
# costs a client.
# SPDX-License-Identifier: MIT
import os
import re
import signal
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdclient import *
from kdlib import *
from proxy import Proxy

MIB = 1 << 20


def flood(server, stop, counts):
    """Keeps the server busy with requests of every kind, junk among them."""
    c = Client(server)
    junk = [PING, LIST, 0x77, READ, CANCEL, 0xFFFF, OPEN]
    try:
        while not stop.is_set():
            raw = b""
            for n in range(140):
                frame, _ = c.frame(junk[n % len(junk)], b"\1" * (n % 50))
                raw += frame
            c.s.sendall(raw)
            while len(c.replies) < 140:
                c.receive(time.monotonic() + 30)
            counts.append(len(c.replies))
            c.replies.clear()
    except Exception as e:
        counts.append(e)
    c.close()


@cases(["amd64", "x86"])
@slow(240)
def latency(lab, machine):
    """no retransmission at 250 ms: bulk reads, a flood of requests, a far client"""
    # Where others use the processors, too, the server may come late through no fault of its
    # own: not in each of six rounds. What it does wrong it does in each.
    for _ in range(6):
        late = one_round(lab, machine)
        if not late:
            return
        print("# late: " + late)
    raise Failure(late)


def one_round(lab, machine):
    """Returns what came late, None if nothing."""
    server = lab.server()
    target = lab.target("--wait", "--ack-timeout-ms", "250", "--machine", machine)
    far_target = lab.target("--wait", "--ack-timeout-ms", "250", "--print-every", "20")
    c = lab.closing(Client(server))
    # The target waits at its boot: its first packets, sent before anyone
    # listened, are its own affair.
    c.attach(target, 0)
    c.wait_event(EV_STOPPED)
    c.version()
    at, repeated = c.stats()["region"], c.stats()["repeated"]
    with Proxy(("127.0.0.1", server.port), 0.3) as proxy:
        far = lab.closing(Client(proxy.port))
        far.attach(far_target, 0)
        far.wait_event(EV_STOPPED)
        far.version()
        far_repeated = far.stats()["repeated"]
        stop, counts = threading.Event(), []
        t = threading.Thread(target=flood, args=(server, stop, counts), daemon=True)
        t.start()
        far.go()  # prints all the time, over the slow way
        data = c.read(at, 4 * MIB, timeout_s=50)
        far.wait_event(EV_PRINT)
        stop.set()
        t.join(30)
        check(not t.is_alive(), "the flood hangs")
        check(counts and all(isinstance(n, int) for n in counts), "the flood: %s" % counts[-1:])
        check(data == region(0, 4 * MIB), "the contents are wrong")
        repeats = c.stats()["repeated"] - repeated
        far.send(BREAK)
        far.wait_event(EV_STOPPED)
        far_repeats = far.stats()["repeated"] - far_repeated
    body = c.ok(LIST).body
    # The server's own figure: from a packet read to its acknowledgement sent.
    worst = max(struct.unpack("<Q", m)[0] for m in
                re.findall(rb"(?s)com:pipe,port=.*?\).{1}.{1}(?:.{8}){6}(.{8})", body))
    for p in server, target, far_target:
        p.signal(signal.SIGTERM)
        p.wait()
    if repeats or far_repeats or worst >= 100000:
        return ("%d retransmissions of the bulk target, %d of the far one; an acknowledgement "
                "took %d us" % (repeats, far_repeats, worst))
    return None


@test
def far_away(lab):
    """200 requests at once take one round trip, not 200"""
    server, target = lab.server(), lab.target()
    with Proxy(("127.0.0.1", server.port), 0.3) as proxy:
        c = lab.closing(Client(proxy.port))
        c.attach(target)
        at = c.stats()["region"]
        began, clock = time.monotonic(), lab.clock()
        ids = [c.send(READ, c.read_request((at + 8 * n, 8))) for n in range(200)]
        for n, number in enumerate(ids):
            equal(c.wait_reply(number).data, region(8 * n, 8), "request %d" % n)
        check(time.monotonic() - began >= 0.6, "the proxy is no distance")
        check(lab.clock() - clock < 1.5, "200 requests took %g s" % (lab.clock() - clock))
        # A long read is cancelled from afar.
        number = c.send(READ, c.read_request(*[(at, 16 * MIB)] * 64))
        clock = lab.clock()
        c.ok(CANCEL, struct.pack("<I", number))
        equal(c.wait_reply(number).err, CANCELLED, "the read")
        check(lab.clock() - clock < 3, "CANCEL took %g s" % (lab.clock() - clock))


if __name__ == "__main__":
    main()
