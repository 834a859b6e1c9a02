#!/usr/bin/env python3
# Targets that never stop talking: the server serves others, its memory is
# bounded, and it ends in time.
# SPDX-License-Identifier: MIT
import os
import random
import signal
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdclient import *
from kdlib import *

class Firehose:
    """Sends the same bytes for ever to whoever opens its Unix socket."""

    def __init__(self, path, data):
        self.path, self.data, self.sent, self.stop = path, data, 0, False
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.trans = "com:pipe,port=" + path
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stop:
            try:
                s, _ = self.listener.accept()
                s.settimeout(0.05)
                while not self.stop:
                    try:
                        self.sent += s.send(self.data)
                    except socket.timeout:
                        pass
                    try:
                        s.setblocking(False)
                        s.recv(65536)
                    except BlockingIOError:
                        pass
                    s.settimeout(0.05)
            except OSError:
                pass

    def close(self):
        if self.stop:
            return
        self.stop = True
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)


def packet(kind, number, payload):
    return (struct.pack("<IHHII", 0x30303030, kind, len(payload), number, sum(payload)) + payload +
            b"\xaa")


def prints():
    """Debug prints of 3900 bytes, with alternating packet ids."""
    text_sent = b"x" * 3900
    body = struct.pack("<IHHII", 0x3230, 6, 0, len(text_sent), 0) + text_sent
    return b"".join(packet(3, 0x80800000 + n % 2, body) for n in range(16))


STREAMS = {
    "noise": random.Random(1).randbytes(65536),
    "leaders": b"0" * 65536,
    "control leaders": b"i" * 65536,
    "headers of the longest packet": struct.pack("<IHHII", 0x30303030, 7, 4000, 0x80800000, 0) * 4096,
    "resets": struct.pack("<IHHII", 0x69696969, 6, 0, 0, 0) * 4096,
    "resends": struct.pack("<IHHII", 0x69696969, 5, 0, 0, 0) * 4096,
    "acknowledgements": struct.pack("<IHHII", 0x69696969, 4, 0, 0x80800000, 0) * 4096,
    "prints": prints(),
    "prints with the sync flag": packet(3, 0x80800800, struct.pack("<IHHII", 0x3230, 6, 0, 4, 0) +
                                        b"boo\n") * 500,
    "state changes": b"".join(packet(7, 0x80800000 + n % 2, struct.pack("<IHHI", 0x3030, 6, 0, 1)
                                     .ljust(240, b"\1")) for n in range(100)),
    "module loads": b"".join(packet(7, 0x80800000 + n % 2, struct.pack("<IHHI", 0x3031, 6, 0, 1)
                                    .ljust(240, b"\2")) for n in range(100)),
    "prompts": b"".join(packet(3, 0x80800000 + n % 2, struct.pack("<IHHII", 0x3231, 6, 0, 4,
                                                                  0xFFFFFFFF) + b"who?")
                        for n in range(500)),
}


@test
def firehoses(lab):
    """streams without end: the server serves others, memory is bounded, CLOSE works"""
    # What a sanitizer keeps back of freed memory is not the server's.
    lab.env["ASAN_OPTIONS"] = "quarantine_size_mb=1:" + lab.env.get("ASAN_OPTIONS", "")
    server, good = lab.server(), lab.target()
    c = lab.closing(Client(server))
    c.attach(good)
    before = server.resident_kib()
    for name, data in STREAMS.items():
        hose = lab.closing(Firehose(lab.path("hose"), data))
        d = lab.closing(Client(server))
        equal(d.open(hose.trans).err, OK, "OPEN of %s" % name)
        began, most = time.monotonic(), 0
        # d does not read what it is told.
        while time.monotonic() < began + 0.4 or hose.sent <= 65536:
            check(time.monotonic() < began + 20, "%s: only %d bytes were taken" %
                  (name, hose.sent))
            equal(c.read(c.base, 2, timeout_s=5), b"MZ", "another client during " + name)
            most = max(most, server.resident_kib() - before)
        check(most < 40 * 1024, "%s: %d KiB" % (name, most))
        number = d.send(CLOSE)
        try:
            check(d.wait_reply(number, 10).err in (OK, STATE), "CLOSE of %s" % name)
        except Closed:
            server.wait_text("does not read what it is sent: hung up", stream="err")
        d.close()
        hose.close()
    c.ok(PING)


@test
def ends_while_it_pours(lab):
    """the server ends in time although a target never stops talking"""
    for name in "noise", "prints", "state changes":
        server = lab.server()
        hose = lab.closing(Firehose(lab.path("hose"), STREAMS[name]))
        d = lab.closing(Client(server))
        equal(d.open(hose.trans).err, OK, "OPEN of %s" % name)
        eventually(lambda: hose.sent > 1 << 20, "the stream flows")
        server.signal(signal.SIGTERM)
        equal(server.wait(), 0, "kdsrv's exit status")
        hose.close()


if __name__ == "__main__":
    main()
