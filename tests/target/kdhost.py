# A small KD host for tests of targets: one packet at a time, nothing clever.
# SPDX-License-Identifier: MIT
import socket
import struct
import time

# Where the functions of both debuggees lie, from the kernel base.
WORK, LEAF, STATUS_BREAK, INT3 = 0x1100, 0x1180, 0x1200, 0x1220

DATA, CONTROL = 0x30303030, 0x69696969
MANIPULATE, DEBUG_IO, ACK, RESEND, RESET, STATE, FILE_IO = 2, 3, 4, 5, 6, 7, 11
FIRST, SYNC = 0x80800000, 0x800


class Timeout(Exception):
    pass


class Host:
    def __init__(self, sock, patience=10.0):
        self.sock, self.patience = sock, patience
        self.tx = self.rx = FIRST
        self.buf = b''
        self.acked, self.last = True, None
        self.prints, self.loads = [], []
        self.repeats = 0
        self.resets = 0
        self.garbage = 0

    @classmethod
    def unix(cls, path, patience=10.0):
        """Connects as soon as somebody listens there."""
        end = time.monotonic() + patience
        while True:
            s = socket.socket(socket.AF_UNIX)
            try:
                s.connect(path)
                return cls(s, patience)
            except OSError:
                s.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def close(self):
        self.sock.close()

    def send_control(self, kind, ident=0):
        self.sock.sendall(struct.pack('<IHHII', CONTROL, kind, 0, ident, 0))

    def send_data(self, kind, payload):
        head = struct.pack('<IHHII', DATA, kind, len(payload), self.tx, sum(payload) & 0xffffffff)
        self.acked, self.last = False, head + payload + b'\xaa'
        self.sock.sendall(self.last)

    def fill(self, n, end):
        while len(self.buf) < n:
            left = end - time.monotonic()
            if left <= 0:
                raise Timeout('the target says nothing')
            self.sock.settimeout(left)
            try:
                got = self.sock.recv(65536)
            except socket.timeout:
                raise Timeout('the target says nothing')
            if not got:
                raise EOFError('the target hung up')
            self.buf += got

    def packet(self, end):
        """The next packet: (type, id, payload). Garbage before it is counted."""
        while True:
            self.fill(16, end)
            leader, kind, n, ident, checksum = struct.unpack('<IHHII', self.buf[:16])
            if leader == CONTROL and n == 0:
                self.buf = self.buf[16:]
                return kind, ident, b''
            if leader == DATA and n <= 4000:
                self.fill(17 + n, end)
                payload = self.buf[16:16 + n]
                if self.buf[16 + n] == 0xaa and sum(payload) & 0xffffffff == checksum:
                    self.buf = self.buf[17 + n:]
                    return kind, ident, payload
            self.buf = self.buf[1:]
            self.garbage += 1

    def step(self, end):
        """Takes one packet; returns (type, payload) of a new data packet."""
        kind, ident, payload = self.packet(end)
        if kind == ACK:
            if ident == self.tx and not self.acked:
                self.acked, self.tx = True, self.tx ^ 1
        elif kind == RESET:
            self.resets += 1
            self.tx = self.rx = FIRST
        elif kind == RESEND:
            # A packet that pauses is given up: where QEMU gets no processor, that happens.
            if not self.acked and self.last:
                self.sock.sendall(self.last)
        else:
            self.send_control(ACK, ident & ~SYNC)
            if ident & SYNC:
                self.tx, self.rx = FIRST, ident & ~SYNC
            if ident & ~SYNC == self.rx:
                self.rx ^= 1
                return kind, payload
            self.repeats += 1
        return None

    def wait(self, wanted, go_on=True):
        """The next payload of a wanted type. Prints are kept, questions are
        answered, loads are continued on the way."""
        end = time.monotonic() + self.patience
        while True:
            got = self.step(end)
            if not got:
                continue
            kind, payload = got
            if kind == DEBUG_IO:
                self.prints.append(payload[16:].decode('latin-1'))
                if struct.unpack('<I', payload[:4])[0] == 0x3231 and wanted != DEBUG_IO:
                    self.answer(payload, b'')
            elif kind == FILE_IO and wanted != FILE_IO:
                self.send_data(FILE_IO, payload[:4] + struct.pack('<I', 0xc000000f) + payload[8:64])
            elif kind == STATE and go_on and struct.unpack('<I', payload[:4])[0] == 0x3031:
                self.loads.append((payload[0xf0:].rstrip(b'\0').decode(), payload[0x40]))
                self.go(0x3136)
                continue
            if kind == wanted:
                return payload

    def answer(self, prompt, text):
        n = struct.unpack('<I', prompt[8:12])[0]
        self.send_data(DEBUG_IO, struct.pack('<IHHII', 0x3231, 0, 0, n, len(text)) + text)

    def settle(self):
        """Waits for the ACK of what was sent last."""
        end = time.monotonic() + self.patience
        while not self.acked:
            self.step(end)

    def request(self, api, union=b'', data=b'', processor=0):
        head = struct.pack('<IHHII', api, 0, processor, 0x103, 0)
        self.send_data(MANIPULATE, head + union.ljust(40, b'\0') + data)
        while True:
            reply = self.wait(MANIPULATE)
            if struct.unpack('<I', reply[:4])[0] == api:
                return struct.unpack('<I', reply[8:12])[0], reply[16:56], reply[56:]

    def go(self, api=0x313c, trace=0, dr7=0x400, status=0x10001, wide=True):
        union = struct.pack('<II' + ('QQQ' if wide else 'III'), status, trace, dr7, 1, 0)
        head = struct.pack('<IHHII', api, 0, 0, status, 0)
        self.send_data(MANIPULATE, head + union.ljust(40, b'\0'))
        self.settle()

    def silent(self, api, union=b'', processor=0):
        """A request that has no reply."""
        self.send_data(MANIPULATE, struct.pack('<IHHII', api, 0, processor, 0x103, 0) +
                       union.ljust(40, b'\0'))
        self.settle()

    def break_in(self):
        self.sock.sendall(b'\x62')
        return self.stop()

    def stop(self):
        """The next state change that is no load."""
        return self.wait(STATE)

    def read(self, address, n, api=0x3130, piece=2048):
        """All that can be read of n bytes."""
        out = b''
        while len(out) < n:
            want = min(n - len(out), piece)
            _, union, data = self.request(api, struct.pack('<QI', address + len(out), want))
            got = struct.unpack('<I', union[12:16])[0]
            out += data[:got]
            if got < want:
                break
        return out

    def write(self, address, data):
        return self.request(0x3131, struct.pack('<QI', address, len(data)), data)[0]


def equal(got, want):
    assert got == want, 'got %r, want %r' % (got, want)


def u32(b, at=0):
    return struct.unpack_from('<I', b, at)[0]


def u64(b, at=0):
    return struct.unpack_from('<Q', b, at)[0]


class Session:
    """A host at a stopped target: one that waits in its initial break, or one
    that is broken into."""

    def __init__(self, path, wide=True, waits=True):
        self.host, self.wide = path if isinstance(path, Host) else Host.unix(path), wide
        if not waits:
            self.host.wait(DEBUG_IO)
        self.state = self.host.stop() if waits else self.host.break_in()
        version = self.host.request(0x3146)[1]
        self.base, self.list, self.data = struct.unpack('<QQQ', version[16:40])

    def pc(self):
        return u64(self.state, 0x18)

    def context(self):
        return bytearray(self.host.request(0x3132)[2])

    def skip_int3(self):
        c, at, f = self.context(), 0xf8 if self.wide else 0xb8, '<Q' if self.wide else '<I'
        struct.pack_into(f, c, at, struct.unpack_from(f, c, at)[0] + 1)
        equal(self.host.request(0x3133, b'', bytes(c))[0], 0)

    def breakpoint(self, address):
        status, union, _ = self.host.request(0x3134, struct.pack('<Q', address))
        equal(status, 0)
        return u32(union, 8)

    def go(self, trace=0):
        self.host.go(trace=trace, wide=self.wide)

    def stop(self):
        self.state = self.host.stop()


def region_word(offset, seed=0):
    word = (offset // 8 + 1 + seed) * 0x9E3779B97F4A7C15 & 0xffffffffffffffff
    return struct.pack('<Q', word ^ word >> 29)
