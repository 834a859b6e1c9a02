# The host's end of an emulated USB cable, for tests of targets: transfers, KD in
# them, and Ethernet frames in them. Shares no code with the programs.
# SPDX-License-Identifier: MIT
import os
import socket
import struct
import tempfile
import time
import zlib

from kdhost import CONTROL, DATA, Host, Timeout, equal
from kdnet import NetHost


class Cable:
    """Listens, as a device front end does. Plugged in while self.sock is one."""

    def __init__(self, patience=10.0):
        self.dir = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.dir.name, 'cable')
        self.patience, self.sock, self.listener = patience, None, None

    def listen(self):
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(self.path)
        self.listener.listen(8)
        self.listener.settimeout(self.patience)
        return self

    def plugged(self):
        """Waits until the target is plugged in again."""
        if self.sock:
            self.sock.close()
        self.sock, _ = self.listener.accept()
        return self

    def unplugged(self):
        """Waits until the target has gone."""
        end = time.monotonic() + self.patience
        try:
            while True:
                self.transfer(end)
        except EOFError:
            self.sock.close()
            self.sock = None

    def transfer(self, end):
        left = end - time.monotonic()
        if left <= 0:
            raise Timeout('the target says nothing')
        self.sock.settimeout(left)
        try:
            message = self.sock.recv(65536)
        except socket.timeout:
            raise Timeout('the target says nothing')
        except ConnectionError:
            raise EOFError('the target was unplugged')
        if not message:
            raise EOFError('the target was unplugged')
        equal(message[:1], b'I')
        assert len(message) <= 16385, len(message)
        return message[1:]

    def put(self, transfer):
        self.sock.sendall(b'O' + transfer)

    def close(self):
        for s in (self.sock, self.listener):
            if s:
                s.close()
        self.dir.cleanup()

    def __enter__(self):
        return self.listen()

    def __exit__(self, kind, value, tb):
        self.close()


class UsbHost(Host):
    """KD packets, each a transfer of its own."""

    def __init__(self, cable, patience=10.0):
        super().__init__(None, patience)
        self.cable = cable
        self.names, self.transfers = [], []

    def end(self):
        return time.monotonic() + self.patience

    def ask(self):
        """The name that the target gives, as it stands on the wire."""
        self.cable.put(b'NAME?')
        end, known = self.end(), len(self.names)
        while len(self.names) == known:
            self.step(end)
        return self.names[-1]

    def send_control(self, kind, ident=0):
        self.cable.put(struct.pack('<IHHII', CONTROL, kind, 0, ident, 0))

    def send_data(self, kind, payload):
        self.acked = False
        self.cable.put(struct.pack('<IHHII', DATA, kind, len(payload), self.tx,
                                   sum(payload) & 0xffffffff) + payload)

    def packet(self, end):
        """As Host's; a name counts as a packet of type 0."""
        transfer = self.cable.transfer(end)
        self.transfers.append(transfer)
        if transfer.startswith(b'NAME='):
            self.names.append(transfer)
            return 5, 0, b''
        leader, kind, n, ident, checksum = struct.unpack('<IHHII', transfer[:16])
        assert leader in (DATA, CONTROL), transfer
        equal((len(transfer), sum(transfer[16:]) & 0xffffffff), (16 + n, checksum))
        return kind, ident, transfer[16:]

    def break_in(self):
        self.cable.put(b'\x62')
        return self.stop()


def checksum(data):
    data += b'\0' * (len(data) % 2)
    total = sum(struct.unpack('>%dH' % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total ^ 0xffff


class EemWire:
    """Looks like a UDP socket to NetHost; is a network card on the cable."""

    MAC = bytes.fromhex('0250aa000001')
    IP = bytes((169, 254, 9, 9))

    def __init__(self, cable, port):
        self.cable, self.port, self.rest, self.timeout = cable, port, b'', None
        self.macs, self.frames, self.replies = {}, [], []
        self.filled_crc = False
        self.bundle = None

    def settimeout(self, seconds):
        self.timeout = seconds

    def close(self):
        pass

    def frame(self, end):
        """The next Ethernet frame."""
        while True:
            if not self.rest:
                self.rest = self.cable.transfer(end)
                equal(len(self.rest) % 1024 != 0, True)
            head, = struct.unpack('<H', self.rest[:2])
            n = head & (0x7ff if head & 0x8000 else 0x3fff)
            body, self.rest = self.rest[2:2 + n], self.rest[2 + n:]
            if head & 0x8000:
                self.replies.append((head >> 11 & 7, body))
                return None
            if head:
                equal((head >> 14, body[-4:]), (0, b'\xde\xad\xbe\xef'))
                return body[:-4]

    def recvfrom(self, size):
        end = time.monotonic() + self.timeout
        try:
            frame = self.frame(end)
        except Timeout:
            raise socket.timeout()
        if not frame:
            return b'', None
        self.frames.append(frame)
        if frame[12:14] != b'\x08\x00':
            return b'', None
        ip = frame[14:]
        equal((ip[0], checksum(ip[:20]), len(ip)), (0x45, 0, struct.unpack('>H', ip[2:4])[0]))
        udp = ip[20:]
        source, target, n, _ = struct.unpack('>HHHH', udp[:8])
        equal((n, target), (len(udp), self.port))
        equal(checksum(ip[12:20] + struct.pack('>HH', 17, n) + udp), 0)
        sender = (socket.inet_ntoa(ip[12:16]), source)
        self.macs[sender[0]] = frame[6:12]
        return udp[8:], sender

    def eem(self, frame):
        if self.filled_crc:
            return struct.pack('<H', 0x4000 | len(frame) + 4) + frame + struct.pack(
                '<I', zlib.crc32(frame))
        return struct.pack('<H', len(frame) + 4) + frame + b'\xde\xad\xbe\xef'

    def sendto(self, payload, to):
        ip = struct.pack('>BBHHHBBH4s4s', 0x45, 0, 28 + len(payload), 1, 0x4000, 64, 17, 0, self.IP,
                         socket.inet_aton(to[0]))
        ip = ip[:10] + struct.pack('>H', checksum(ip)) + ip[12:]
        udp = struct.pack('>HHHH', self.port, to[1], 8 + len(payload), 0) + payload
        got = checksum(ip[12:20] + struct.pack('>HH', 17, len(udp)) + udp) or 0xffff
        udp = udp[:6] + struct.pack('>H', got) + udp[8:]
        self.put(self.macs[to[0]] + self.MAC + b'\x08\x00' + ip + udp)

    def put(self, frame):
        if self.bundle is not None:
            self.bundle.append(self.eem(frame))
            return
        packet = self.eem(frame)
        self.cable.put(packet + b'\0\0' * (len(packet) % 1024 == 0))


class EemHost(NetHost):
    def __init__(self, key, cable, port=50005):
        super().__init__(key)
        self.sock.close()
        self.sock = EemWire(cable, port)
        self.address, self.port = '169.254.255.255', port
