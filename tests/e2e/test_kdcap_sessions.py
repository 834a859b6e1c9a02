#!/usr/bin/env python3
# kdcap reads whole KDNET sessions: every datagram opens, every message has a
# name and its fields. The datagrams are made here from the documents of the
# protocol, with AES from libcrypto.
# SPDX-License-Identifier: MIT
import json
import os
import signal
import socket
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import kdpcap
from kdlib import *
from kdpcap import HOST, TARGET

PROGRAMS["kdcap"] = os.path.join(TOP_BUILD, "kdcap/kdcap")
# Long words, so that their byte order counts.
KEY = "1m770ts6ru0p.3671pemyie4i.2b8djy3wt5et.1p99ir125v4q"
ALWAYS = ("frame", "time", "dir", "channel", "seq", "type", "id", "len")
OK, FAILED = 0, 0xC0000001
AMD64, X86, ARM64 = 0x8664, 0x14C, 0xAA64


class Recording:
    """A target, its hosts, and what a capture on the way between them holds."""

    def __init__(self, version=4, key=KEY, addresses=kdpcap.ADDRESSES, port=50000):
        self.key, self.version, self.port = kdpcap.key_bytes(key), version, port
        self.addresses, self.frames, self.boots = addresses, [], 0
        self.boot()

    def boot(self):
        """The target starts over: other nonces, other numbers."""
        self.boots += 1
        self.pokes, self.ids, self.current, self.data_key = 0, [0, 0x80000000], None, None
        self.seq = [0, 0]

    def frame(self, ethertype, packet):
        head = bytes(12) + struct.pack(">HHH", 0x8100, 5, ethertype)
        self.frames.append((head + packet).ljust(64, b"\xee"))

    def send(self, channel, sender, seq, body, kind=None):
        cipher = self.data_key if channel == 0 else self.key
        datagram = kdpcap.seal(self.key, cipher, channel if kind is None else kind, sender, seq,
                               body, self.version)
        ip = kdpcap.udp(sender, datagram, self.port, self.addresses)
        self.frame(0x86DD if ":" in self.addresses[0] else 0x0800, ip)

    # The control channel.

    def poke(self, more=b"", short=False, kind=None, current=None):
        self.pokes += 1
        self.nonce = struct.pack("<Q", 254 + self.pokes) + bytes([self.boots]) * 24
        zero = "::" if ":" in self.addresses[0] else "0.0.0.0"
        body = kdpcap.poke(self.nonce, *((a, self.port) for a in self.addresses),
                           current or self.current or (zero, 0))
        self.send(1, TARGET, 3 * self.pokes, (body[:34] if short else body) + more, kind)

    def respond(self, lost=False):
        body = kdpcap.response(self.nonce, bytes([self.boots, self.pokes & 255]) * 16)
        self.send(1, HOST, 3 * self.pokes, body)
        if not lost:
            self.data_key = kdpcap.data_key(self.key, body)
            self.current, self.seq = (self.addresses[HOST], self.port), [0, 0]

    def ping(self):
        last = b"\0\0\0\0" if ":" in self.addresses[HOST] else bytes([2, 0, 0, 10])
        self.data(TARGET, bytes(8) + last)

    def attach(self):
        self.poke()
        self.respond()
        self.ping()
        self.control(HOST, kdpcap.RESEND)

    # The data channel.

    def data(self, sender, body):
        self.seq[sender] += 1
        self.send(0, sender, self.seq[sender], body)

    def control(self, sender, kind, number=0):
        self.data(sender, kdpcap.packet(kind, number))

    def say(self, sender, kind, payload, acked=True):
        packet = kdpcap.packet(kind, self.ids[sender], payload, trailer=b"")
        self.data(sender, packet)
        if acked:
            self.control(1 - sender, kdpcap.ACK, self.ids[sender])
        self.ids[sender] += 2
        return packet

    def ask(self, api, *places, status=OK, data=b"", sent=b"", answered=True, **kw):
        self.say(HOST, kdpcap.MANIPULATE, kdpcap.manipulate(api, *places, data=sent, **kw))
        if answered:
            self.say(TARGET, kdpcap.MANIPULATE,
                     kdpcap.manipulate(api, *places, status=status, data=data, **kw))

    def stop(self, *places, **kw):
        self.say(TARGET, kdpcap.STATE_CHANGE, kdpcap.exception(0x80000003, *places, **kw))

    def strangers(self):
        self.frame(0x0806, bytes(28))
        self.frame(0x0800, kdpcap.ipv4(17, "0.0.0.0", "255.255.255.255",
                                       struct.pack(">HHHH", 68, 67, 248, 0) + bytes(240)))


def show(lab, recording, *options):
    path = lab.path("session.pcap")
    kdpcap.write_pcap(path, recording.frames, link=1)
    p = lab.run("kdcap", "-r", path, "--key", KEY, *options)
    equal(p.status, 0, "exit status (%s)" % p.err)
    return p.out.splitlines()


def decode(lab, recording, *options):
    return [json.loads(line) for line in show(lab, recording, "--json", *options)]


def understood(lab, recording, foreign=0):
    """The messages, after it was made sure that nothing is missing in any."""
    got = decode(lab, recording)
    equal(len(got), len(recording.frames) - foreign, "KDNET datagrams")
    for o in got:
        for name in ALWAYS:
            check(name in o, "no %s: %s" % (name, o))
        check("why" not in o and o["type"] not in ("unknown", "sealed", "malformed", "damaged") and
              o["dir"] in ("target", "host") and o["channel"] in ("control", "data") and
              isinstance(o["seq"], int), "not understood: %s" % o)
        if o["type"].isupper():
            check(isinstance(o["id"], int), "no id: %s" % o)
            check(not o["len"] or (o.get("api") and o["fields"]), "no name: %s" % o)
    check(len(show(lab, recording, "-v")) > len(got), "-v says no more")
    stats = decode(lab, recording, "--stats")[0]
    equal((stats["opened"], stats["sealed"], stats["unknown"], stats["foreign"]),
          (len(got), 0, 0, foreign), "opened, sealed, unknown, foreign")
    return got


def messages(got, *types):
    """Those with a KD message in them, or of the types."""
    return [o for o in got if (o["type"] in types if types else "api" in o)]


# ---- a boot as it was seen ---------------------------------------------------------

def early_boot_of(version, pokes):
    r = Recording(version)
    r.poke()
    r.respond(lost=True)
    r.strangers()
    r.poke()
    r.respond()
    r.ping()
    again = r.say(TARGET, kdpcap.DEBUG_IO, kdpcap.debug_io(0x3230, "Boot Debugger\n"), False)
    r.control(HOST, kdpcap.RESEND)
    r.data(TARGET, again)
    r.control(HOST, kdpcap.ACK)
    r.stop()
    r.say(HOST, kdpcap.MANIPULATE, kdpcap.manipulate(0x3146, processor=0xFFFF))
    r.say(TARGET, kdpcap.MANIPULATE, kdpcap.version(build=10586))
    for handle in range(1, 33):
        r.ask(0x3135, (0x10, "I", handle), status=FAILED)
    r.ask(0x315F, (0x14, "I", 1232), status=FAILED)
    r.ask(0x3132, data=bytes(1232))
    r.ask(0x3132, answered=False)  # its reply was lost
    r.ids[TARGET] += 2
    r.seq[TARGET] += 1
    r.control(HOST, kdpcap.RESET, r.ids[HOST])
    r.control(TARGET, kdpcap.RESET, r.ids[TARGET])
    r.ask(0x3132, data=bytes(1232))
    r.ask(0x3161, status=FAILED)
    r.ask(0x313C, (0x10, "I", 0x10001), answered=False)
    for name in ("\\Windows\\system32\\ntoskrnl.exe", "system32\\drivers\\disk.sys"):
        request = kdpcap.file_io(0x3430, data=name.encode("utf-16le") + b"\0\0")
        r.say(TARGET, kdpcap.FILE_IO, request)
        r.say(HOST, kdpcap.FILE_IO, request[:4] + b"\x0f\0\0\xc0" + request[8:64])
    for length in (0, 1, 7, 8, 511, 1136):
        r.say(TARGET, kdpcap.DEBUG_IO, kdpcap.debug_io(0x3230, "x" * length))
    r.say(TARGET, kdpcap.STATE_CHANGE, kdpcap.load("", (1 << 64) - 1, (0x40, "B", 1)))
    r.ask(0x3136, (0x10, "I", 0x10002), answered=False)
    r.strangers()
    for _ in range(pokes):
        r.poke()
    return r


@cases([(2, 10), (3, 10), (4, 200), (5, 10), (6, 10)],
       lambda case: "version %d, %d pokes behind it" % case)
def early_boot(lab, case):
    """an early boot, of each version: every datagram opens, every message has a name"""
    version, pokes = case
    recording = early_boot_of(version, pokes)
    got = understood(lab, recording, foreign=4)
    equal({o["version"] for o in got}, {version}, "version")
    equal({o["type"] for o in got},
          {"poke", "response", "ping", "RESEND", "RESET", "ACKNOWLEDGE", "DEBUG_IO", "FILE_IO",
           "STATE_CHANGE64", "STATE_MANIPULATE"}, "types")
    link = decode(lab, recording, "--stats")[0]["links"][0]
    equal((link["pokes"], link["data_keys"], link["unanswered"]), (pokes + 2, 1, 1),
          "pokes, keys, lost replies")


# ---- every message ----------------------------------------------------------------

ADDRESS = 0xFFFFF80000101200
MEMORY = [("address", 0x10, "Q", ADDRESS), ("count", 0x18, "I", 8), ("actual", 0x1C, "I", 8)]
IO = [("address", 0x10, "Q", 0x3F8), ("size", 0x18, "I", 1), ("value", 0x1C, "I", 0x60)]
IO_EX = [("size", 0x10, "I", 4), ("interface", 0x14, "I", 1), ("bus", 0x18, "I", 2),
         ("space", 0x1C, "I", 1), ("address", 0x20, "Q", 0xCF8), ("value", 0x28, "I", 0x80)]
CONTEXT_EX = [("offset", 0x10, "I", 16), ("count", 0x14, "I", 8), ("copied", 0x18, "I", 8)]
BUS = [("bus_type", 0x10, "I", 4), ("bus", 0x14, "I", 1), ("slot", 0x18, "I", 3),
       ("offset", 0x1C, "I", 0x40), ("length", 0x20, "I", 8)]
EX = [("count", 0x10, "I", 2), ("continue_status", 0x14, "I", 0x10001)]
MSR = [("msr", 0x10, "I", 0xC0000082)]
HANDLE = ("handle", 0x18, "I", 7)
# Number, name, whether a reply comes, fields: name, place, form, value.
APIS = [
    (0x3130, "ReadVirtualMemory", True, MEMORY),
    (0x3131, "WriteVirtualMemory", True, MEMORY),
    (0x3132, "GetContext", True, []),
    (0x3133, "SetContext", True, [("flags", 0x10, "I", 0x10001B)]),
    (0x3134, "WriteBreakPoint", True, [("address", 0x10, "Q", ADDRESS), HANDLE]),
    (0x3135, "RestoreBreakPoint", True, [("handle", 0x10, "I", 32)]),
    (0x3136, "Continue", False, [("continue_status", 0x10, "I", 0x10002)]),
    (0x3137, "ReadControlSpace", True, [("address", 0x10, "Q", 2), *MEMORY[1:]]),
    (0x3138, "WriteControlSpace", True, [("address", 0x10, "Q", 2), *MEMORY[1:]]),
    (0x3139, "ReadIoSpace", True, IO),
    (0x313A, "WriteIoSpace", True, IO),
    (0x313B, "Reboot", False, []),
    (0x313C, "Continue2", False, [("continue_status", 0x10, "I", 0x10001), ("trace", 0x14, "I", 1),
                                  ("dr7", 0x18, "Q", 0x400), ("symbol_start", 0x20, "Q", 1),
                                  ("symbol_end", 0x28, "Q", 0)]),
    (0x313D, "ReadPhysicalMemory", True, MEMORY),
    (0x313E, "WritePhysicalMemory", True, MEMORY),
    (0x313F, "QuerySpecialCalls", True, [("count", 0x10, "I", 3)]),
    (0x3140, "SetSpecialCall", True, [("address", 0x10, "Q", ADDRESS)]),
    (0x3141, "ClearSpecialCalls", True, []),
    (0x3142, "SetInternalBreakPoint", True, [("address", 0x10, "Q", ADDRESS),
                                             ("flags", 0x18, "I", 1)]),
    (0x3143, "GetInternalBreakPoint", True,
     [("address", 0x10, "Q", ADDRESS), ("flags", 0x18, "I", 1), ("calls", 0x1C, "I", 2),
      ("max_calls", 0x20, "I", 3), ("min", 0x24, "I", 4), ("max", 0x28, "I", 5),
      ("total", 0x2C, "I", 6)]),
    (0x3144, "ReadIoSpaceExtended", True, IO_EX),
    (0x3145, "WriteIoSpaceExtended", True, IO_EX),
    (0x3146, "GetVersion", True,
     [("major", 0x10, "H", 0x40F), ("minor", 0x12, "H", 10586), ("protocol", 0x14, "B", 6),
      ("secondary", 0x15, "B", 2), ("flags", 0x16, "H", 7), ("machine", 0x18, "H", AMD64),
      ("max_packet_type", 0x1A, "B", 12), ("max_state_change", 0x1B, "B", 3),
      ("max_manipulate", 0x1C, "B", 0x33), ("kernel_base", 0x20, "Q", ADDRESS),
      ("loaded_module_list", 0x28, "Q", ADDRESS), ("debugger_data_list", 0x30, "Q", 0)]),
    (0x3147, "WriteBreakPointEx", True, EX),
    (0x3148, "RestoreBreakPointEx", True, EX),
    (0x3149, "CauseBugCheck", False, []),
    (0x3150, "SwitchProcessor", False, []),
    (0x3151, "PageIn", True, []),
    (0x3152, "ReadMachineSpecificRegister", True, MSR),
    (0x3153, "WriteMachineSpecificRegister", True, MSR),
    (0x3154, "OldVlm1", True, []),
    (0x3155, "OldVlm2", True, []),
    (0x3156, "SearchMemory", True, [("address", 0x10, "Q", ADDRESS), ("length", 0x18, "Q", 4096),
                                    ("pattern_length", 0x20, "I", 8)]),
    (0x3157, "GetBusData", True, BUS),
    (0x3158, "SetBusData", True, BUS),
    (0x3159, "CheckLowMemory", True, []),
    (0x315A, "ClearAllInternalBreakpoints", False, []),
    (0x315B, "FillMemory", True, [("address", 0x10, "Q", ADDRESS), ("length", 0x18, "I", 4096),
                                  ("flags", 0x1C, "H", 1), ("pattern_length", 0x1E, "H", 8)]),
    (0x315C, "QueryMemory", True, [("address", 0x10, "Q", ADDRESS), ("space", 0x20, "I", 2),
                                   ("flags", 0x24, "I", 7)]),
    (0x315D, "SwitchPartition", True, [("partition", 0x10, "I", 1)]),
    (0x315E, "WriteCustomBreakpoint", True,
     [("address", 0x10, "Q", ADDRESS), ("instruction", 0x18, "Q", 0xCC), ("handle", 0x20, "I", 4),
      ("size", 0x24, "B", 1), ("alignment", 0x25, "B", 1)]),
    (0x315F, "GetContextEx", True, CONTEXT_EX),
    (0x3160, "SetContextEx", True, CONTEXT_EX),
]
# Numbers that are not given out, or whose names no two sources agree on.
NUMBERED = [0x314A, 0x314F, 0x3161, 0x3162, 0x3163, 0x316F, 0x3170, 0x31FF]


def number(value):
    return int(value, 16) if isinstance(value, str) else value


def check_fields(o, fields, what):
    for name, _, _, value in fields:
        check(name in o["fields"], "%s: no %s: %s" % (what, name, o["fields"]))
        equal(number(o["fields"][name]), value, "%s: %s" % (what, name))


@cases([0, 8, 1232], lambda n: "%d bytes of data" % n)
def every_api(lab, length):
    """each request, answered well, refused in full and in short, and not at all"""
    r, want = Recording(), []
    r.attach()
    r.stop()
    r.say(HOST, kdpcap.MANIPULATE, kdpcap.manipulate(0x3146))
    r.say(TARGET, kdpcap.MANIPULATE, kdpcap.version(machine=AMD64))
    for api, name, reply, fields in APIS:
        places, data = [f[1:] for f in fields], bytes(range(256)) * 5
        r.ask(api, *places, sent=data[:length], data=data[:length], answered=reply)
        if reply:
            r.ask(api, *places, status=FAILED)
            r.say(HOST, kdpcap.MANIPULATE, kdpcap.manipulate(api, *places))
            r.say(TARGET, kdpcap.MANIPULATE, kdpcap.manipulate(api, status=0xC0000002)[:16])
        r.ask(api, *places, answered=False)
        want += [(name, False), (name, True)] * 3 if reply else [(name, False)]
        want.append((name, False))
    got = messages(understood(lab, r))[3:]
    equal([(o["api"], o["reply"]) for o in got], want, "names")
    by_name = {a[1]: a for a in APIS}
    for o in got:
        api, name, _, fields = by_name[o["api"]]
        equal(number(o["fields"]["api_number"]), api, "number of " + name)
        check("status_name" in o["fields"], "status of %s" % name)
        if o["len"] >= 56:
            check_fields(o, fields, name)
        if o["reply"]:
            check(o["answers"] < o["frame"], "the answer of %s" % name)


@test
def numbered_apis(lab):
    """requests that nobody knows go by their number, whatever it is"""
    r = Recording(5)
    r.attach()
    for api in NUMBERED:
        r.ask(api, (0x10, "Q", ADDRESS), sent=b"\1\2", status=FAILED)
    got = messages(understood(lab, r))
    equal([o["api"] for o in got], ["Manipulate%04X" % api for api in NUMBERED for _ in "ab"],
          "names")
    equal({o["fields"]["arguments"][:16] for o in got}, {struct.pack("<Q", ADDRESS).hex()},
          "arguments")
    equal([o["fields"].get("data") for o in got[:2]], ["0102", None], "data")


@cases([(AMD64, 1232), (X86, 716), (ARM64, 912), (0x1C4, 416), (0, 0)], lambda m: "%x" % m[0])
def machines(lab, machine):
    """contexts, control space and continues of each machine, and of unknown ones"""
    kind, context = machine
    r = Recording()
    r.attach()
    r.stop()
    r.say(HOST, kdpcap.MANIPULATE, kdpcap.manipulate(0x3146))
    r.say(TARGET, kdpcap.MANIPULATE, kdpcap.version(machine=kind))
    for size in {0, context, context + 800, 4}:
        r.ask(0x3132, data=bytes(size))
        r.ask(0x3133, sent=bytes(size))
    for size in (84, 160, 216, 224, 240):
        r.ask(0x3137, (0x10, "Q", 2), (0x18, "I", 240), (0x1C, "I", size), data=bytes(size))
        r.ask(0x3138, (0x10, "Q", 0x2CC), (0x18, "I", size), sent=bytes(size))
    r.ask(0x313C, (0x10, "I", 0x10002), (0x14, "I", 1), answered=False)
    r.stop()
    with_registers = [o for o in messages(understood(lab, r)) if "registers" in o["fields"]]
    equal(bool(with_registers), kind in (AMD64, X86), "registers")


@test
def state_changes(lab):
    """exceptions of all sorts, loads and unloads, commands, the end of a session"""
    r, want = Recording(5), []

    def change(name, payload):
        r.say(TARGET, kdpcap.STATE_CHANGE, payload)
        r.ask(0x313C, (0x10, "I", 0x10001), answered=False)
        want.append(name)
    r.attach()
    for code in (0x80000003, 0x80000004, 0x80000007, 0xC0000005, 0xC0000420, 0x12345678):
        for count in (0, 2, 15, 16, 0xFFFFFFFF):
            change("ExceptionStateChange", kdpcap.exception(code, (0x38, "I", count)))
    trace = struct.pack("<I", 1)
    change("ExceptionStateChange", kdpcap.exception(0x80000003, data=trace))
    change("ExceptionStateChange", kdpcap.exception(0x80000003, data=bytes(160)))
    change("ExceptionStateChange", kdpcap.exception(0x80000003, (0, "I", 0x13030)))
    for path in ("\\SystemRoot\\system32\\hal.dll", "ntdll.dll", "", "x" * 255):
        for unload in (0, 1):
            change("LoadSymbolsStateChange",
                   kdpcap.load(path, ADDRESS, (0x30, "q", -1), (0x40, "B", unload)))
    change("LoadSymbolsStateChange", kdpcap.load("", (1 << 64) - 1, (0x40, "B", 1)))
    # The length counts more than there is, or less, or nothing ends the name.
    for length in (0, 3, 1000, 0xFFFFFFFF):
        change("LoadSymbolsStateChange",
               kdpcap.state_change(0x3031, (0x20, "I", length), data=b"disk.sys"))
    for data in (b"name\0command\0", b"name", b"\0\0", b""):
        change("CommandStringStateChange", kdpcap.state_change(0x3032, data=data))
    got = messages(understood(lab, r), "STATE_CHANGE64")
    equal([o["api"] for o in got], want, "names")
    loads = [o["fields"] for o in got if o["api"] == "LoadSymbolsStateChange"]
    equal([f["path"] for f in loads],
          [p for p in ("\\SystemRoot\\system32\\hal.dll", "ntdll.dll", "", "x" * 255)
           for _ in "ab"] + ["", "", "sys", "disk.sys", "disk.sys"], "names of modules")
    equal([f["session_end"] for f in loads].index(True), 8, "the end of the session")
    equal(got[-4]["fields"]["command"], "command", "the command")


@test
def old_state_changes(lab):
    """those of targets older than the 64-bit protocol"""
    r = Recording(2)
    r.attach()
    for state in (0x3030, 0x3031):
        r.say(TARGET, 1, kdpcap.fields(104, (0, "I", state), (0x10, "I", 0x80101200)))
    got = messages(understood(lab, r))
    equal([(o["type"], o["api"]) for o in got],
          [("STATE_CHANGE32", "ExceptionStateChange32"),
           ("STATE_CHANGE32", "LoadSymbolsStateChange32")], "names")


@test
def files(lab):
    """each kind of file request, refused and served"""
    r, want = Recording(), []

    def exchange(api, name, places, sent=b"", status=OK, answer=()):
        r.say(TARGET, kdpcap.FILE_IO, kdpcap.file_io(api, *places, data=sent))
        r.say(HOST, kdpcap.FILE_IO, kdpcap.file_io(api, *places, *answer, status=status,
                                                   data=b"MZ" if api == 0x3431 else b""))
        want.extend([(name, False), (name, True)])
    path = "\\Windows\\system32\\drivers\\d\u00efsk.sys"
    opens = ((0x08, "I", 0x120089), (0x0C, "I", 0x80), (0x10, "I", 1), (0x14, "I", 1))
    r.attach()
    for status in (0xC000000F, 0xC0000001, 0xC0000022, OK):
        exchange(0x3430, "CreateFile", opens, path.encode("utf-16le") + b"\0\0", status,
                 ((0x20, "Q", 5), (0x28, "Q", 4096)))
    at = ((0x08, "Q", 5), (0x10, "Q", 1 << 33), (0x18, "I", 2))
    for status in (OK, 0xC0000011):
        exchange(0x3431, "ReadFile", at, status=status)
        exchange(0x3432, "WriteFile", at, b"ab", status)
        exchange(0x3433, "CloseFile", at[:1], status=status)
    exchange(0x3430, "CreateFile", opens, path.encode("utf-16le"))  # nothing ends the name
    exchange(0x3430, "CreateFile", opens, b"x")
    exchange(0x3430, "CreateFile", opens, b"a\0\x3d\xd8b\0\0\xdc")  # halves of pairs
    got = messages(understood(lab, r))
    equal(got[-2]["fields"]["file"], "a\ufffdb\ufffd", "what is no UTF-16")
    equal([(o["api"], o["reply"]) for o in got], want, "names")
    equal(got[0]["fields"]["file"], path, "the file's name")
    equal(got[1]["fields"]["status_name"], "STATUS_NO_SUCH_FILE", "the refusal")
    equal((got[7]["fields"]["handle"], got[7]["fields"]["length"]), ("0x5", 4096), "the handle")
    equal(got[9]["fields"]["data"], "4d5a", "what was read")
    check(all(o.get("answers") for o in got if o["reply"]), "the answers are paired")


@test
def talk(lab):
    """prints, prompts and their answers, traces, requests for hardware breakpoints"""
    r = Recording()
    r.attach()
    for text in ("", "x", "KDTARGET: Refreshing KD connection\n", "\r\n", "\xff\0\x1b[31m\"\\"):
        r.say(TARGET, kdpcap.DEBUG_IO, kdpcap.debug_io(0x3230, text))
        # Without the unused word, as old stubs have it; with lengths that are not right.
        for payload in (struct.pack("<IHHI", 0x3230, 6, 0, len(text)) + text.encode("latin-1"),
                        kdpcap.debug_io(0x3230, text, length=0xFFFFFFFF),
                        kdpcap.debug_io(0x3230, text, length=0)):
            r.say(TARGET, kdpcap.DEBUG_IO, payload)
        r.say(TARGET, kdpcap.DEBUG_IO, kdpcap.debug_io(0x3231, text, answer=8))
        r.say(HOST, kdpcap.DEBUG_IO, kdpcap.debug_io(0x3231, text[:8], answer=len(text[:8])))
    r.say(TARGET, kdpcap.TRACE_IO, struct.pack("<IHHI", 0x3330, 6, 0, 3) + bytes(52) + b"abc")
    for api in (0x4300, 0x4301):
        r.say(TARGET, kdpcap.CONTROL, struct.pack("<III", api, 1, 0))
        r.say(HOST, kdpcap.CONTROL, struct.pack("<III", api, 1, 0))
    got = messages(understood(lab, r))
    equal([o["api"] for o in got],
          (["PrintString"] * 4 + ["GetString"] * 2) * 5 + ["PrintTrace"] +
          ["RequestHardwareBp"] * 2 + ["ReleaseHardwareBp"] * 2, "names")
    prompts = [o for o in got if o["api"] == "GetString"]
    equal([bool(o.get("answers")) for o in prompts], [False, True] * 5, "answers")
    equal(got[12]["fields"]["text"], "KDTARGET: Refreshing KD connection\n", "the text")


# ---- numbers, copies, keys ----------------------------------------------------------

@test
def numbers(lab):
    """repetitions under new numbers, copies under old ones, odd ids in control packets"""
    r = Recording()
    r.attach()
    first = r.say(TARGET, kdpcap.DEBUG_IO, kdpcap.debug_io(0x3230, "again\n"), acked=False)
    r.data(TARGET, first)
    r.frames.append(r.frames[-1])
    r.frames.insert(0, r.frames.pop(5))  # the repetition overtakes its own session
    for kind in (kdpcap.ACK, kdpcap.RESEND, kdpcap.RESET):
        for number in (0, 1, 0x926, 0x80000000, 0x80800800, 0xFFFFFFFF):
            r.control(HOST, kind, number)
            r.control(TARGET, kind, number)
    r.data(HOST, b"b")
    r.data(HOST, b"bbbb")
    r.seq[HOST] = (1 << 56) - 2
    r.data(HOST, b"b")
    got = decode(lab, r)
    # Nothing opens it: its key came after it.
    equal((got[0]["type"], got[0]["dir"]), ("sealed", None), "what came too early")
    r.frames.pop(0)
    got = understood(lab, r)
    prints = messages(got)
    equal([(o.get("retransmission"), o.get("duplicate")) for o in prints],
          [(None, None), (True, None)], "flags")
    equal([o["id"] for o in got if o["type"] == "RESET"][-1], 0xFFFFFFFF, "an id")
    equal([o["seq"] for o in got][-1], (1 << 56) - 1, "the last number")
    equal([o["type"] for o in got[-3:]], ["break-in"] * 3, "break-ins")


@cases([2, 3, 4, 5, 6, 255], str)
def handshakes(lab, version):
    """pokes with more behind them, without addresses, with status; calls of the host; pings"""
    r = Recording(version)
    r.send(1, HOST, 0, b"")  # asks for a poke
    r.poke(more=bytes(range(64)))
    r.poke(short=True)
    r.poke(short=True, more=bytes(10))
    r.poke(kind=3)
    r.poke()
    r.respond()
    for last in (0, 1, 500):
        r.data(TARGET, struct.pack("<Q", last) + b"\x0b\0\xa8\xc0")
    r.data(TARGET, bytes(16))  # a whole header of type 0
    r.data(TARGET, bytes(24))  # and with room for a longer address
    got = understood(lab, r)
    equal([o["type"] for o in got], ["host-poke"] + ["poke"] * 5 + ["response"] + ["ping"] * 5,
          "types")
    equal({o["version"] for o in got}, {version}, "version")


@test
def many_keys(lab):
    """boots, takeovers, lost responses, each with its key, in one capture"""
    r = Recording(4)
    keys = 0

    def session(lost):
        for _ in range(lost):
            r.poke()
            r.respond(lost=True)
        r.attach()
        r.stop()
        r.ask(0x3146)
        r.poke()
    for boot in range(4):
        if boot:
            r.boot()
        session(lost=boot)
        # Another host, of another address, in the same boot.
        r.current = None
        r.ids[HOST] = 0x80000000
        session(lost=3 - boot)
        keys += 2
    understood(lab, r)
    link = decode(lab, r, "--stats")[0]["links"][0]
    equal((link["data_keys"], link["responses"]), (keys, keys + 12), "keys, responses")


@test
def late_data(lab):
    """what was under way when the key changed still opens"""
    r = Recording()
    r.attach()
    r.stop()
    r.data(TARGET, kdpcap.packet(kdpcap.ACK, 0x80000000))
    late = r.frames.pop()
    r.poke()
    r.respond()
    r.ping()
    r.frames.append(late)
    r.control(HOST, kdpcap.RESEND)
    equal([o["type"] for o in understood(lab, r)[-3:]], ["ping", "ACKNOWLEDGE", "RESEND"], "types")


@test
def over_ipv6(lab):
    """a session over IPv6"""
    r = Recording(5, addresses=("fe80::1", "fe80::2"))
    r.attach()
    r.stop()
    r.ask(0x3146)
    r.poke()
    got = understood(lab, r)
    equal((got[0]["src"], got[0]["dst"]), ("[fe80::1]:50000", "[fe80::2]:50000"), "addresses")
    equal(got[-1]["fields"]["current_host"], "[fe80::2]:50000", "the current host")


@test
def large_packets(lab):
    """the largest packets that the protocol knows, in jumbo frames"""
    r = Recording(5)
    r.attach()
    r.stop()
    r.ask(0x3130, *kdpcap.memory(ADDRESS, 3944, 3944), data=bytes(3944))
    r.say(TARGET, kdpcap.DEBUG_IO, kdpcap.debug_io(0x3230, "x" * 3984))
    check({4000} <= {o["len"] for o in understood(lab, r)}, "lengths")


@test
def where_a_replay_calls(lab):
    """--replay pokes the host that is given, from the port that was recorded"""
    own, other = udp_port(), udp_port()
    recording = Recording(port=own)
    recording.attach()
    recording.stop()
    path = lab.path("session.pcap")
    kdpcap.write_pcap(path, recording.frames, link=1)
    host = lab.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    host.bind(("127.0.0.1", other))
    host.settimeout(10)
    p = Proc(lab, "kdcap", [PROGRAMS["kdcap"], "--replay", path, "--as", "target", "--key", KEY,
                            "--host", "127.0.0.1:%d" % other], expect=None)
    data, sender = host.recvfrom(2000)
    equal((data[:4], sender), (b"MDBG", ("127.0.0.1", own)), "the first poke")
    p.signal(signal.SIGTERM)
    equal(p.wait(), 1, "exit status")


@test
def begun_late(lab):
    """begun in mid-session: what cannot be read says why, and the next session is whole"""
    r = Recording()
    r.attach()
    r.stop()
    missed, r.frames = len(r.frames), []
    r.ask(0x3146)
    sealed = len(r.frames)
    r.poke()
    r.boot()
    r.attach()
    r.stop()
    got = decode(lab, r)
    check(missed and len(got) == len(r.frames), "datagrams")
    equal({o["type"] for o in got[:sealed]}, {"sealed"}, "without the response")
    check(all("response" in o["why"] for o in got[:sealed]), "why")
    equal([o for o in got[sealed:] if "why" in o], [], "afterwards")


if not has_driver("capture"):
    print("1..0 # SKIP this build has no libpcap")
else:
    main(needs=("kdcap",))
