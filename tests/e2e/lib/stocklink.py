# The serial port and the KD link of the simulated stock target: written from
# the protocol alone, sharing nothing with the code under test.
# SPDX-License-Identifier: MIT
import collections
import random
import select
import socket
import struct
import time

DATA, CONTROL = 0x30, 0x69
BREAK_IN = 0x62
TRAILER = 0xAA
MANIPULATE, DEBUG_IO, ACK, RESEND, RESET, STATE_CHANGE = 2, 3, 4, 5, 6, 7
KINDS = {MANIPULATE: "data", DEBUG_IO: "data", STATE_CHANGE: "data",
         ACK: "ack", RESEND: "resend", RESET: "reset"}
ID_FIRST, ID_SYNC = 0x80800000, 0x800
MAX_PAYLOAD = 4000
HEADER_SIZE = {MANIPULATE: 56, DEBUG_IO: 16}
FIFO = 16  # of a 16550

# What waiting for a packet ends in.
OK, TIMEOUT, REPEAT = "ok", "timeout", "repeat"


class Ended(Exception):
    """The simulation shall end."""


def control(kind, packet_id=0):
    return struct.pack("<4sHHII", bytes([CONTROL]) * 4, kind, 0, packet_id, 0)


def data(kind, packet_id, payload):
    return struct.pack("<4sHHII", bytes([DATA]) * 4, kind, len(payload), packet_id,
                       sum(payload) & 0xFFFFFFFF) + payload + bytes([TRAILER])


class Packets:
    """Cuts a well-formed stream into packets; other bytes come out singly."""

    def __init__(self):
        self.buffer = b""

    def feed(self, more):
        self.buffer += more
        out = []
        while self.buffer:
            b = self.buffer
            if b[0] not in (DATA, CONTROL):
                n = 1
            elif len(b) < 16:
                if b.count(b[0], 0, 4) < min(4, len(b)):
                    n = 1
                else:
                    break
            elif b[:4] == bytes([CONTROL]) * 4:
                n = 16
            elif b[:4] == bytes([DATA]) * 4:
                n = 17 + struct.unpack_from("<H", b, 6)[0]
                if len(b) < n:
                    break
            else:
                n = 1
            out.append(b[:n])
            self.buffer = b[n:]
        return out


def kind_of(packet):
    return KINDS.get(packet[4], "other") if len(packet) >= 16 else "byte"


class Fault:
    """Does something to the nth packet of a kind, once: "in:ack:3:lose". in is
    what the host sends. nth may be every=N."""

    def __init__(self, text):
        self.way, self.kind, nth, self.action = text.split(":")
        self.every = int(nth[6:]) if nth.startswith("every=") else 0
        self.nth = self.every or int(nth)
        self.count = self.done = 0

    def apply(self, way, packet):
        if way != self.way or self.kind not in (kind_of(packet), "any"):
            return packet
        self.count += 1
        if self.count != self.nth:
            return packet
        self.done += 1
        if self.every:
            self.count = 0
        if self.action == "lose":
            return b""
        if self.action == "cut":
            return packet[:max(10, len(packet) // 2)]
        if self.action == "corrupt":
            at = len(packet) - 3 if len(packet) > 16 else 1
            return packet[:at] + bytes([packet[at] ^ 0x55]) + packet[at + 1:]
        if self.action == "double":
            return packet * 2
        if self.action == "noise":
            return b"\r\n*** LOG: i/o 30%\x00\xff (i)\r\n" + packet
        if self.action == "shift":  # garbage that looks like the leader
            return b"x" + packet[:1] + packet
        raise ValueError(self.action)


class Port:
    """A 16550 of an emulator: its line is a socket that takes one host at a
    time; what the UART has no room for waits in the line."""

    def __init__(self, listener, faults=(), byte_us=0, log=None):
        self.listener, self.faults = listener, list(faults)
        self.byte_us, self.log = byte_us, log
        self.conn = None
        self.line = collections.deque()  # came through the faults, not in the UART
        self.fifo = collections.deque()
        self.packets = Packets()
        self.stop = False
        self.start = time.monotonic()
        self.debt_s = 0.0
        self.counters = collections.Counter()

    def _write_log(self, who, piece):
        if self.log:
            self.log.write("%.6f %s %s\n" % (time.monotonic() - self.start, who, piece.hex()))
            self.log.flush()

    def _busy(self, n):
        """Port I/O under emulation costs time."""
        self.debt_s += n * self.byte_us / 1e6
        if self.debt_s > 0.002:
            time.sleep(self.debt_s)
            self.debt_s = 0.0

    def _hang_up(self):
        self.conn.close()
        self.conn = None
        self.packets = Packets()

    def _take(self, timeout_s):
        """Waits for the line, at most so long."""
        if self.stop:
            raise Ended()
        source = self.conn or self.listener
        if not select.select([source], [], [], timeout_s)[0]:
            return
        if not self.conn:
            self.conn, _ = self.listener.accept()
            self.counters["hosts"] += 1
            return
        try:
            # Without faults the rest stays where the host sees it.
            got = self.conn.recv(4096 if self.faults else FIFO)
        except ConnectionError:
            got = b""
        if not got:
            self._hang_up()
            return
        self._write_log("host", got)
        if not self.faults:
            self.line.extend(got)
            return
        for packet in self.packets.feed(got):
            for f in self.faults:
                packet = f.apply("in", packet)
            self.line.extend(packet)

    def _fill(self, timeout_s):
        end = time.monotonic() + timeout_s
        while True:
            while self.line and len(self.fifo) < FIFO:
                self.fifo.append(self.line.popleft())
            left = end - time.monotonic()
            if self.fifo:
                return
            self._take(max(0, left))
            if left <= 0 and not self.line:
                return

    def read(self, timeout_s):
        """One byte, or None."""
        if not self.fifo:
            self._fill(timeout_s)
        self._busy(1)
        return self.fifo.popleft() if self.fifo else None

    def idle(self, seconds):
        """Nobody looks at the UART: what the host sends waits in the line."""
        if self.conn:
            time.sleep(seconds)
        else:
            self._take(seconds)

    def clear(self):
        """The kernel sets up the UART: its FIFO is emptied, the line is not."""
        self._fill(0)
        self.counters["bytes_cleared"] += len(self.fifo)
        self.fifo.clear()

    def write(self, piece):
        for f in self.faults:
            piece = f.apply("out", piece)
        self._busy(len(piece))
        if not self.conn and not self.stop:
            self._take(0)
        if not self.conn or not piece:
            return
        self._write_log("target", piece)
        try:
            self.conn.settimeout(2)
            self.conn.sendall(piece)
        except (ConnectionError, socket.timeout):
            self.counters["writes_failed"] += 1
            self._hang_up()


class Link:
    """The target's half of the protocol. Counters: what a test may want to
    be zero."""

    def __init__(self, port, wait_s=0.025, patience=1, stall=None, seed=1):
        """wait_s: for one byte. patience: so many of these, and no repeat."""
        self.port, self.wait_s, self.patience, self.stall = port, wait_s, patience, stall
        self.random = random.Random(seed)
        self.counters = collections.Counter()
        self.unacknowledged = None  # what was sent; whether it may be given up
        self.restart()

    def restart(self):
        self.tx_id, self.rx_id = ID_FIRST | ID_SYNC, ID_FIRST
        self.present = True
        self.break_pending = False

    def _stall(self):
        """(probability, shortest, longest): the whole machine stands still."""
        if self.stall and self.random.random() < self.stall[0]:
            time.sleep(self.random.uniform(self.stall[1], self.stall[2]))

    # ---- receiving ----------------------------------------------------------

    def _leader(self):
        """DATA, CONTROL, TIMEOUT, or REPEAT for a lone break-in."""
        last, count, noted = None, 0, False
        while True:
            b = self.port.read(self.wait_s)
            if b is None:
                if noted:
                    self.break_pending = True
                    self.counters["breaks_in_packets"] += 1
                return REPEAT if noted else TIMEOUT
            if b in (DATA, CONTROL):
                if noted:
                    self.counters["breaks_lost"] += 1
                count = count + 1 if b == last else 1
                last, noted = b, False
                if count == 4:
                    self.present = True
                    return b
            elif b == BREAK_IN:
                last, count, noted = None, 0, True
            else:
                last, count, noted = None, 0, False
                self.counters["garbage_in"] += 1

    def _bytes(self, n):
        got = bytearray()
        while len(got) < n:
            b = self.port.read(self.wait_s)
            if b is None:
                return None
            got.append(b)
        return bytes(got)

    def _acknowledged(self):
        self.tx_id = (self.tx_id ^ 1) & ~ID_SYNC

    def _ask_again(self, why):
        self.counters["resend_out"] += 1
        self.counters["bad_" + why] += 1
        self.port.write(control(RESEND))

    def _control(self, kind, awaited):
        rest = self._bytes(10)
        if rest is None:
            return TIMEOUT
        packet_id = struct.unpack_from("<I", rest, 2)[0]
        if kind == ACK:
            if awaited == ACK and packet_id == self.tx_id & ~ID_SYNC:
                self._acknowledged()
                return OK
            self.counters["acks_ignored"] += 1
        elif kind == RESET:
            self.counters["resets_in"] += 1
            self.tx_id = self.rx_id = ID_FIRST
            self.port.write(control(RESET))
            return REPEAT
        return None

    def _data(self, kind, awaited):
        """None: nothing to deliver, wait on."""
        header = self._bytes(10)
        if header is None:
            return TIMEOUT, None
        count, packet_id, checksum = struct.unpack("<HII", header)
        if awaited == ACK:
            # Our packet counts as acknowledged, whatever this one is.
            self._ask_again("unawaited")
            self._acknowledged()
            return OK, None
        if not HEADER_SIZE[awaited] <= count <= MAX_PAYLOAD:
            self._ask_again("length")
            return None, None
        payload = self._bytes(count)
        if payload is None:
            self._ask_again("cut")
            return None, None
        if self._bytes(1) != bytes([TRAILER]):
            self._ask_again("trailer")
            return None, None
        if sum(payload) & 0xFFFFFFFF != checksum:
            self._ask_again("checksum")
            return None, None
        self.port.write(control(ACK, packet_id))
        if packet_id != self.rx_id:
            self.counters["duplicates_in"] += 1
            return None, None
        if kind != awaited:
            self.counters["wrong_type_in"] += 1
            return None, None
        self.rx_id ^= 1
        return OK, payload

    def receive(self, awaited):
        """Waits once for a packet of the type, or for an ACK of our own."""
        while True:
            leader = self._leader()
            if leader in (TIMEOUT, REPEAT):
                return leader, None
            kind = self._bytes(2)
            if kind is None:
                return TIMEOUT, None
            kind = struct.unpack("<H", kind)[0]
            if leader == CONTROL and kind == RESEND:
                self.counters["resend_in"] += 1
                return REPEAT, None
            if leader == CONTROL:
                result, payload = self._control(kind, awaited), None
            else:
                result, payload = self._data(kind, awaited)
            if result:
                return result, payload

    # ---- sending ------------------------------------------------------------

    def send(self, kind, payload, abandon):
        """True when it was acknowledged, or may count as it."""
        try:
            return self._send(kind, payload, abandon)
        finally:
            self.unacknowledged = None

    def _send(self, kind, payload, abandon):
        tries, copies = 20, 0
        while True:
            if abandon and not tries:
                self.counters["abandoned" if self.port.conn else "abandoned_alone"] += 1
                self.present = False
                self.tx_id, self.rx_id = ID_FIRST | ID_SYNC, ID_FIRST
                return False
            self._stall()
            self.port.write(data(kind, self.tx_id, payload))
            self.unacknowledged = "abandonable" if abandon else "kept"
            self.counters["repeats"] += copies > 0 and self.port.conn is not None
            copies += 1
            result, waits = TIMEOUT, 0
            while result == TIMEOUT and waits < self.patience:
                result, _ = self.receive(ACK)
                waits += 1
            if result == OK:
                return True
            if result == TIMEOUT:
                self.counters["ack_timeouts"] += 1
                tries -= 1

    def poll(self):
        """The clock tick's look at the port: a byte that is no break-in is
        lost."""
        if self.break_pending:
            self.break_pending = False
            return True
        b = self.port.read(0)
        if b is not None and b != BREAK_IN:
            self.counters["bytes_eaten"] += 1
        return b == BREAK_IN
