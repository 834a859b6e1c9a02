#!/usr/bin/env python3
# Is the simulated stock target like the real one? What a recorded host sent
# goes into it, and it must answer as the recorded target did: the same kinds
# of packets, under the same ids, of the same lengths, in the same order.
# SPDX-License-Identifier: MIT
import os
import re
import select
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdlib import *
from stocklink import *
from stockmachine import TF
from stocktarget import EXC_INT3, EXC_STEP, Kernel, Stock

CAPTURES = os.path.join(TOP_SRC, "../shared/captures")
SILENCE_S = 0.3  # in the recording: the host meant to say nothing
# What the target prints because it was asked for something unknown.
ASKED_FOR = (b"Partition Switch", b"Received Unrecognized")


def recording(name):
    """[(seconds, "host", bytes) or (seconds, "target", packet)]"""
    path = os.path.join(CAPTURES, name)
    if not os.path.exists(path):
        raise Skip("no recordings here")
    items, packets = [], Packets()
    with open(path) as f:
        for line in f:
            # Remarks may go over several lines.
            found = re.fullmatch(r"([\d.]+) (host|target) ([0-9a-f]+)\n", line)
            if not found:
                continue
            at, who, piece = found[1], found[2], bytes.fromhex(found[3])
            if who == "host":
                items.append((float(at), who, piece))
            else:
                items += [(float(at), who, p) for p in packets.feed(piece) if len(p) >= 16]
    return items


def described(packet):
    kind, count, packet_id = struct.unpack_from("<HHI", packet, 4)
    return (kind, 0 if kind in (RESEND, RESET) else packet_id, count)


def collapsed(packets):
    """Repeats are a matter of time."""
    out = []
    for p in packets:
        if not out or out[-1] != p:
            out.append(p)
    return out


class Replay(Kernel):
    """Does what the recorded target did, so far as nobody asked for it."""

    def __init__(self, link, items, way, tx_id):
        super().__init__(link)
        self.items, self.way = items, way
        self._set_up_memory()
        link.tx_id = tx_id
        for _, who, piece in items:
            self._learn(who, piece)

    def _learn(self, who, piece):
        """What the recorded host could read can be read here."""
        if len(piece) < 72 or piece[4] != MANIPULATE:
            return
        api, at = struct.unpack_from("<I12xQ", piece, 16)
        if who == "target" and api == 0x3130 and len(piece) > 73:
            self.memory.put(at & 0xFFFFFFFF, piece[72:-1])

    def _boot_break(self):
        """Looked for behind two loads, acted upon when all are reported."""
        if not self.remembered:
            return
        self.remembered = False
        self.break_in()
        code = EXC_INT3
        while code == EXC_INT3 or self.cpu.r["eflags"] & TF:
            # The recorded host sets registers that mean nothing to our code.
            self.cpu.r["eflags"] &= ~TF
            self.exception(code)
            code = EXC_STEP

    def events(self):
        last = None
        for _, who, p in self.items:
            if who == "host" or p[4] not in (DEBUG_IO, STATE_CHANGE) or p[16:] == last:
                continue
            text = p[32:-1]
            if p[4] == DEBUG_IO:
                if not text.startswith(ASKED_FOR):
                    yield lambda: self.say(text)
                continue
            last = p[16:]
            if struct.unpack_from("<I", p, 16)[0] != 0x3031:
                yield self._boot_break
                continue
            base, pid = struct.unpack_from("<qq", p, 16 + 0x28)
            yield lambda: self.load(p[16 + 240:-2].decode(), base + (1 << 32),
                                    struct.unpack_from("<I", p, 16 + 0x3C)[0], pid)

    def stopped_already(self):
        """In a bug check, met by a host before or not."""
        self.bugcheck()

    def booting(self):
        self.port.idle(5)
        self.port.idle(SILENCE_S)
        self.port.clear()
        self.remembered = False
        for event in self.events():
            event()
            if len(self.modules) == 2 and not self.remembered:
                self.remembered = self.link.poll()

    def live(self):
        try:
            self.way(self)
        except Ended:
            pass


def replay(lab, name, way, tx_id=ID_FIRST | ID_SYNC):
    items = recording(name)
    t = lab.closing(Stock(lab.path("stock.sock"), kernel_class=Replay, items=items, way=way,
                          tx_id=tx_id))
    s = lab.closing(socket.socket(socket.AF_UNIX))
    s.connect(t.path)
    want = collapsed([described(p) for _, who, p in items if who == "target"])
    got, packets, due, last_at = [], Packets(), [], items[0][0]

    def listen(seconds, enough):
        end = time.monotonic() + seconds
        while time.monotonic() < end and not enough():
            if select.select([s], [], [], 0.05)[0]:
                new = [described(p) for p in packets.feed(s.recv(65536)) if len(p) >= 16]
                got[:] = collapsed(got + new)

    for at, who, piece in items:
        if who == "target":
            due = collapsed(due + [described(piece)])
            last_at = at
            continue
        listen(5, lambda: len(got) >= len(due))
        equal(got[:len(due)], due, "%.3f s" % at)
        if at - last_at > SILENCE_S:
            listen(min(at - last_at, 1), lambda: False)
        if at - last_at > 1:
            # Long enough for the target to give up what nobody acknowledges.
            listen(10, lambda: t.link.unacknowledged != "abandonable")
        s.send(piece)
        last_at = at
    listen(5, lambda: len(got) >= len(want))
    equal(got[:len(want)], want, "the end")
    equal(t.error, None, "the simulation")


@test
def attach(lab):
    """A host comes to a bug check: as recorded"""
    replay(lab, "kd-serial-x86-attach.log", Replay.stopped_already)


@test
def recover(lab):
    """A host comes to a target that another left stopped: as recorded"""
    replay(lab, "kd-serial-x86-recover.log", Replay.stopped_already, ID_FIRST)


@test
def boot(lab):
    """A host waits for a target that boots: as recorded"""
    replay(lab, "kd-serial-x86-boot.log", Replay.booting)


main(needs=())
