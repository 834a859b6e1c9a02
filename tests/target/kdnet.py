# A KDNET host for tests of targets. The arithmetic is hashlib's and libcrypto's
# AES, so that nothing here is shared with the programs under test.
# SPDX-License-Identifier: MIT
import ctypes
import hashlib
import hmac
import ipaddress
import os
import socket
import struct
import time

from kdhost import ACK, CONTROL, DATA, RESEND, RESET, Host, Timeout, equal

_crypto = ctypes.CDLL('libcrypto.so.3')
for _name in ('EVP_CIPHER_CTX_new', 'EVP_aes_256_cbc'):
    getattr(_crypto, _name).restype = ctypes.c_void_p
_aes = ctypes.c_void_p(_crypto.EVP_aes_256_cbc())


def aes_cbc(key, iv, text, encrypt):
    ctx = ctypes.c_void_p(_crypto.EVP_CIPHER_CTX_new())
    out, n = ctypes.create_string_buffer(len(text) + 16), ctypes.c_int()
    ok = (_crypto.EVP_CipherInit_ex(ctx, _aes, None, key, iv, int(encrypt)) == 1 and
          _crypto.EVP_CIPHER_CTX_set_padding(ctx, 0) == 1 and
          _crypto.EVP_CipherUpdate(ctx, out, ctypes.byref(n), text, len(text)) == 1)
    _crypto.EVP_CIPHER_CTX_free(ctx)
    assert ok and n.value == len(text), 'libcrypto'
    return out.raw[:n.value]


def key_bytes(text):
    return b''.join(int(word, 36).to_bytes(8, 'little') for word in text.split('.'))


def mapped(address):
    """An address as KDNET writes it."""
    a = ipaddress.ip_address(address)
    return a.packed if a.version == 6 else b'\0' * 10 + b'\xff\xff' + a.packed


class Keys:
    def __init__(self, text):
        self.control = key_bytes(text)
        self.mac = bytes(b ^ 0xff for b in self.control)
        self.data = None

    def key(self, kind):
        return self.control if kind & 1 else self.data

    def tag(self, message):
        return hmac.new(self.mac, message, 'sha256').digest()[:16]

    def seal(self, version, kind, seq, to_target, body):
        head = b'MDBG' + bytes([version, kind])
        pad = -(8 + len(body)) % 16
        plain = struct.pack('>Q', seq << 8 | to_target << 7 | pad) + body + b'\0' * pad
        tag = self.tag(head + plain)
        return head + aes_cbc(self.key(kind), tag, plain, True) + tag

    def open(self, datagram):
        """(version, kind, seq, to_target, body), or None when it is not authentic."""
        if len(datagram) < 38 or (len(datagram) - 22) % 16 or datagram[:4] != b'MDBG':
            return None
        kind, tag = datagram[5], datagram[-16:]
        if not self.key(kind):
            return None
        plain = aes_cbc(self.key(kind), tag, datagram[6:-16], False)
        if self.tag(datagram[:6] + plain) != tag:
            return None
        word, = struct.unpack('>Q', plain[:8])
        return datagram[4], kind, word >> 8, word >> 7 & 1, plain[8:len(plain) - (word & 15)]


class Poke:
    def __init__(self, version, seq, body, sender):
        equal((body[:2], len(body)), (b'\1\1', 344))
        self.version, self.seq, self.sender = version, seq, sender
        self.nonce, self.boot = body[2:34], body[10:34]
        self.counter, = struct.unpack('<Q', body[2:10])
        self.target, self.configured, self.current = (
            (body[at:at + 16], struct.unpack('>H', body[at + 16:at + 18])[0])
            for at in (34, 52, 70))
        self.info = body[88:]


class NetHost(Host):
    """A host on a UDP port of its own."""

    def __init__(self, key, address='127.0.0.1', patience=10.0, bind=None):
        self.family = socket.AF_INET6 if ':' in address else socket.AF_INET
        super().__init__(socket.socket(self.family, socket.SOCK_DGRAM), patience)
        self.sock.bind((address if bind is None else bind, 0))
        self.address, self.port = address, self.sock.getsockname()[1]
        self.keys = Keys(key)
        self.tx, self.rx = 0x80000000, 0
        self.seq = self.seen = 0
        self.version = 2
        self.target = None
        self.pokes, self.pings, self.ids, self.sent = [], [], [], []
        self.refused = 0

    def end(self):
        return time.monotonic() + self.patience

    def datagram(self, end):
        """The next authentic datagram from the target."""
        while True:
            left = end - time.monotonic()
            if left <= 0:
                raise Timeout('the target says nothing')
            self.sock.settimeout(left)
            try:
                raw, sender = self.sock.recvfrom(65536)
            except socket.timeout:
                raise Timeout('the target says nothing')
            got = self.keys.open(raw)
            if not got or got[3]:
                self.refused += 1
                continue
            version, kind, seq, _, body = got
            if kind == 1:
                self.pokes.append(Poke(version, seq, body, sender))
            elif seq <= self.seen:
                self.refused += 1
                continue
            else:
                self.seen = seq
            return kind, seq, body

    def poke(self):
        """The next poke."""
        end = self.end()
        while self.datagram(end)[0] != 1:
            pass
        return self.pokes[-1]

    def put(self, datagram):
        self.sent.append(datagram)
        self.sock.sendto(datagram, self.target)

    def response(self, poke, seq=None, nonce=None):
        body = b'\1\2' + (nonce or poke.nonce) + os.urandom(32) + bytes(256)
        return body, self.keys.seal(poke.version, 1, poke.seq if seq is None else seq, 1, body)

    def connect(self, poke=None):
        """Answers a poke; the ping is the first thing that comes back. A target takes the
        answer to its last poke but one or the last: we may have been too late, and try again."""
        poke, ping, end = poke or self.poke(), None, self.end()
        while not ping:
            body, datagram = self.response(poke)
            self.version, self.target = poke.version, poke.sender
            self.keys.data = hashlib.sha256(self.keys.control + body).digest()
            self.seq = self.seen = 0
            self.put(datagram)
            ping = self.ping(poke, end)
            if not ping:
                self.sent.remove(datagram)
                poke = self.pokes[-1]
        return ping

    def ping(self, answered, end):
        """None if the second poke after the one that was answered came first."""
        while True:
            kind, seq, body = self.datagram(end)
            if kind == 0:
                equal((len(body), body[:8]), (12, bytes(8)))
                self.pings.append((seq, body))
                return seq, body
            if self.pokes[-1].seq >= answered.seq + 6:
                return None

    def body(self, body):
        self.seq += 1
        self.put(self.keys.seal(self.version, 0, self.seq, 1, body))

    # What Host does on a stream.

    def send_control(self, kind, ident=0):
        self.body(struct.pack('<IHHII', CONTROL, kind, 0, ident, 0))

    def send_data(self, kind, payload):
        self.acked = False
        self.body(struct.pack('<IHHII', DATA, kind, len(payload), self.tx,
                              sum(payload) & 0xffffffff) + payload)

    def packet(self, end):
        while True:
            channel, seq, body = self.datagram(end)
            if channel == 1:
                continue
            if len(body) == 12 and body[:4] == bytes(4):
                self.pings.append((seq, body))
                continue
            leader, kind, n, ident, checksum = struct.unpack('<IHHII', body[:16])
            if leader not in (DATA, CONTROL):
                self.garbage += 1
                continue
            equal((len(body), sum(body[16:]) & 0xffffffff), (16 + n, checksum))
            return kind, ident, body[16:]

    def step(self, end):
        kind, ident, payload = self.packet(end)
        if kind == ACK:
            if ident == self.tx and not self.acked:
                self.acked, self.tx = True, self.tx + 2 & 0xffffffff
        elif kind == RESET:
            self.resets += 1
            self.rx = ident
        elif kind != RESEND:
            self.ids.append(ident)
            if ident == self.rx - 2:
                self.repeats += 1
            elif ident != self.rx:
                self.send_control(RESET, self.tx)
                return None
            self.send_control(ACK, ident)
            if ident == self.rx:
                self.rx += 2
                return kind, payload
        return None

    def break_in(self):
        self.body(b'\x62')
        return self.stop()
