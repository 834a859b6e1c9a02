# Capture files with KD traffic in them, made from scratch: packets and messages
# as docs/kd-protocol.md has them, KDNET datagrams, TCP streams, kdcap's records.
# SPDX-License-Identifier: MIT
import ctypes
import hashlib
import hmac
import ipaddress
import os
import struct

TARGET, HOST = 0, 1
LINK_RAW, LINK_USER0 = 101, 147
MANIPULATE, DEBUG_IO, ACK, RESEND, RESET, STATE_CHANGE, TRACE_IO, CONTROL, FILE_IO = \
    2, 3, 4, 5, 6, 7, 9, 10, 11
ADDRESSES = ("10.0.0.1", "10.0.0.2")  # target, host

_crypto = ctypes.CDLL("libcrypto.so.3")
for _name in "EVP_CIPHER_CTX_new", "EVP_aes_256_cbc":
    getattr(_crypto, _name).restype = ctypes.c_void_p
_aes = ctypes.c_void_p(_crypto.EVP_aes_256_cbc())


# ---- KD ----------------------------------------------------------------------

def packet(kind, number, payload=b"", trailer=b"\xaa", checksum=None):
    """A KD packet; trailer is b"" for KDNET."""
    leader = b"0000" if payload else b"iiii"
    if checksum is None:
        checksum = sum(payload) & 0xFFFFFFFF
    header = struct.pack("<HHII", kind, len(payload), number, checksum)
    return leader + header + payload + (trailer if payload else b"")


def fields(size, *places):
    """Bytes with values at their places: (offset, "I", value)."""
    out = bytearray(size)
    for offset, form, value in places:
        struct.pack_into("<" + form, out, offset, value)
    return bytes(out)


def manipulate(api, *places, status=0x103, processor=0, data=b""):
    return fields(56, (0, "I", api), (4, "H", 6), (6, "H", processor), (8, "I", status),
                  *places) + data


def memory(address, count, actual=0):
    return (0x10, "Q", address), (0x18, "I", count), (0x1C, "I", actual)


def version(machine=0x8664, build=9600, base=0xFFFFF80000100000):
    return manipulate(0x3146, (0x10, "H", 15), (0x12, "H", build), (0x14, "B", 6),
                      (0x16, "H", 7), (0x18, "H", machine), (0x20, "Q", base),
                      (0x28, "Q", base + 0x1000), (0x30, "Q", base + 0x2000), status=0)


def state_change(state, *places, pc=0xFFFFF80000101200, data=b""):
    return fields(240, (0, "I", state), (4, "H", 6), (6, "H", 1), (8, "I", 2),
                  (0x10, "Q", 0xFFFFFA8000001000), (0x18, "Q", pc), *places) + data


def exception(code, *places, **kw):
    return state_change(0x3030, (0x20, "I", code), (0x30, "Q", 0xFFFFF80000101200),
                        (0xB8, "I", 1), *places, **kw)


def load(path, base, *places):
    text = path.encode() + b"\0" if path else b""
    return state_change(0x3031, (0x20, "I", len(text)), (0x28, "Q", base), *places, data=text)


def debug_io(api, text, length=None, answer=0):
    text = text.encode("latin-1")
    return struct.pack("<IHHII", api, 6, 0, len(text) if length is None else length,
                       answer) + text


def file_io(api, *places, status=0, data=b""):
    return fields(64, (0, "I", api), (4, "I", status), *places) + data


# ---- KDNET -------------------------------------------------------------------

def key_bytes(text):
    return b"".join(int(word, 36).to_bytes(8, "little") for word in text.split("."))


def data_key(control_key, response):
    return hashlib.sha256(control_key + response).digest()


def aes_cbc(key, iv, plain):
    ctx = ctypes.c_void_p(_crypto.EVP_CIPHER_CTX_new())
    out, n = ctypes.create_string_buffer(len(plain) + 16), ctypes.c_int()
    ok = (_crypto.EVP_EncryptInit_ex(ctx, _aes, None, key, iv) == 1 and
          _crypto.EVP_CIPHER_CTX_set_padding(ctx, 0) == 1 and
          _crypto.EVP_EncryptUpdate(ctx, out, ctypes.byref(n), plain, len(plain)) == 1)
    _crypto.EVP_CIPHER_CTX_free(ctx)
    assert ok and n.value == len(plain), "libcrypto"
    return out.raw[:n.value]


def seal(control_key, cipher_key, channel, sender, seq, body, version=2):
    header = b"MDBG" + bytes([version, channel])
    pad = -(8 + len(body)) % 16
    plain = seq.to_bytes(7, "big") + bytes([sender << 7 | pad]) + body + bytes(pad)
    mac_key = bytes(b ^ 0xFF for b in control_key)
    tag = hmac.new(mac_key, header + plain, hashlib.sha256).digest()[:16]
    return header + aes_cbc(cipher_key, tag, plain) + tag


def ip16(text):
    address = ipaddress.ip_address(text)
    return bytes(10) + b"\xff\xff" + address.packed if address.version == 4 else address.packed


def endpoint(text, port):
    return ip16(text) + struct.pack(">H", port)


def poke(nonce, target, configured, current=("0.0.0.0", 0)):
    return b"\x01\x01" + nonce + endpoint(*target) + endpoint(*configured) + \
        endpoint(*current) + bytes(256)


def response(nonce, host_nonce):
    return b"\x01\x02" + nonce + host_nonce + bytes(256)


# ---- capture files -------------------------------------------------------------

def ipv4(protocol, src, dst, payload):
    return struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 0, 0x4000, 64, protocol, 0,
                       ipaddress.ip_address(src).packed,
                       ipaddress.ip_address(dst).packed) + payload


def ipv6(protocol, src, dst, payload):
    return struct.pack(">IHBB16s16s", 6 << 28, len(payload), protocol, 64,
                       ipaddress.ip_address(src).packed,
                       ipaddress.ip_address(dst).packed) + payload


def udp(sender, payload, port=50000, addresses=ADDRESSES):
    ip = ipv6 if ":" in addresses[0] else ipv4
    return ip(17, addresses[sender], addresses[1 - sender],
              struct.pack(">HHHH", port, port, 8 + len(payload), 0) + payload)


class Tcp:
    """A connection; the host is the one that connected."""

    def __init__(self, target_port=4444):
        self.ports = (target_port, 40000)
        self.seq = [1000, 2000]

    def send(self, sender, payload):
        header = struct.pack(">HHIIBBHHH", self.ports[sender], self.ports[1 - sender],
                             self.seq[sender], self.seq[1 - sender], 0x50, 0x18, 65535, 0, 0)
        self.seq[sender] += len(payload)
        return ipv4(6, ADDRESSES[sender], ADDRESSES[1 - sender], header + payload)


def record(content, sender, payload, seq=0, version=0, flags=0, frame=0, header=64):
    """A record of link type 147, as transport/record.h describes it."""
    ends = (sender, 1 - sender) if sender < 2 else (TARGET, HOST)
    return struct.pack("<4sBBBBQBBHHH16s16sQ", b"KDCP", 1, header, content, sender, seq, version,
                       flags, 50000, 50000, 0, ip16(ADDRESSES[ends[0]]),
                       ip16(ADDRESSES[ends[1]]), frame) + bytes(header - 64) + payload


def write_pcap(path, frames, link=LINK_RAW):
    """Frames one millisecond apart."""
    with open(path, "wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, link))
        for i, frame in enumerate(frames):
            out.write(struct.pack("<IIII", 1700000000, i * 1000, len(frame), len(frame)) + frame)


MAX_RECORD = 262144  # more, and libpcap takes the file for a broken one


class Sparse:
    """A capture file of Ethernet frames; the large ones in it are holes."""

    def __init__(self, path):
        self.out, self.at = open(path, "wb"), 0

    def put(self, piece):
        os.pwrite(self.out.fileno(), piece, self.at)
        self.at += len(piece)

    def fill(self, to):
        """Large packets up to there."""
        count = 0
        while self.at < to:
            self.packet(None)
            count += 1
        return count

    def close(self):
        self.out.truncate(self.at)
        self.out.close()


class SparsePcap(Sparse):
    def __init__(self, path):
        super().__init__(path)
        self.put(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, MAX_RECORD, 1))

    def packet(self, frame):
        length = MAX_RECORD if frame is None else len(frame)
        self.put(struct.pack("<IIII", 1700000000, 0, length, length) + (frame or b""))
        self.at += 0 if frame else length


class SparsePcapng(Sparse):
    def __init__(self, path):
        super().__init__(path)
        self.put(struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28) +
                 struct.pack("<IIHHII", 1, 20, 1, 0, MAX_RECORD, 20))

    def packet(self, frame):
        length = MAX_RECORD if frame is None else len(frame)
        total = 32 + length + -length % 4
        self.put(struct.pack("<IIIIIII", 6, total, 0, 0, 0, length, length) + (frame or b""))
        self.at += -length % 4 + (0 if frame else length)
        self.put(struct.pack("<I", total))
