#!/usr/bin/env python3
# The Wireshark dissector, by tshark, on captures made here.
# SPDX-License-Identifier: MIT
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdlib import *
from kdpcap import *

LUA = os.path.join(TOP_SRC, "hw-fixtures/wireshark/kd.lua")
INFO = "_ws.col.Info"
KERNEL = 0xFFFFF80000100000
LIMIT_S = 50


def tshark(lab, *args):
    env = dict(lab.env, HOME=lab.dir, XDG_CONFIG_HOME=lab.dir, LC_ALL="C.UTF-8")
    done = subprocess.run(["tshark", "-n", "-X", "lua_script:" + LUA] + list(args), env=env,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT_S)
    out, err = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    equal(done.returncode, 0, "tshark's status, with " + err)
    check("Lua" not in err and "Lua Error" not in out, "tshark complains: " + err + out[-2000:])
    return out


def table(lab, frames, names, *args, link=LINK_RAW):
    """For each frame the list of what its fields hold; several values of a
    field are joined by a bar."""
    path = lab.path("capture.pcap")
    write_pcap(path, frames, link)
    options = [x for name in names for x in ("-e", name)]
    out = tshark(lab, "-r", path, "-T", "fields", "-E", "aggregator=|", *options, *args)
    return [line.split("\t") for line in out.splitlines()]


def rows_are(got, want):
    for i, (g, w) in enumerate(zip(got, want), 1):
        equal(g, w, "frame %d" % i)
    equal(len(got), len(want), "frames")


def tcp_frames(*packets):
    stream = Tcp()
    return [stream.send(sender, bytes_) for sender, bytes_ in packets]


READ = manipulate(0x3130, *memory(KERNEL, 4))
READ_REPLY = manipulate(0x3130, *memory(KERNEL, 4, 4), status=0, data=b"MZ\x90\0")

# A whole session on a serial line: sender, bytes, Info.
SESSION = [
    (HOST, b"b", "host: break-in"),
    (TARGET, packet(STATE_CHANGE, 0x80800800, exception(0x80000003)),
     "target: stopped: STATUS_BREAKPOINT at fffff80000101200"),
    (HOST, packet(ACK, 0x80800000), "host: ACKNOWLEDGE 80800000"),
    (HOST, packet(MANIPULATE, 0x80800000, manipulate(0x3146)), "host: GetVersion request"),
    (TARGET, packet(ACK, 0x80800000), "target: ACKNOWLEDGE 80800000"),
    (TARGET, packet(MANIPULATE, 0x80800001, version()),
     "target: GetVersion reply: x64 build 9600, kernel at fffff80000100000"),
    (HOST, packet(ACK, 0x80800001), "host: ACKNOWLEDGE 80800001"),
    (HOST, packet(MANIPULATE, 0x80800001, READ),
     "host: ReadVirtualMemory request at fffff80000100000, 4 bytes"),
    (TARGET, packet(ACK, 0x80800001), "target: ACKNOWLEDGE 80800001"),
    (TARGET, packet(MANIPULATE, 0x80800000, READ_REPLY),
     "target: ReadVirtualMemory reply at fffff80000100000, 4 of 4 bytes"),
    (HOST, packet(ACK, 0x80800000), "host: ACKNOWLEDGE 80800000"),
    (HOST, packet(MANIPULATE, 0x80800000, manipulate(
        0x313C, (0x10, "I", 0x10001), (0x14, "I", 1), (0x18, "Q", 0x400))),
     "host: Continue2 request: DBG_EXCEPTION_HANDLED, step"),
    (TARGET, packet(ACK, 0x80800000), "target: ACKNOWLEDGE 80800000"),
    (TARGET, packet(DEBUG_IO, 0x80800001, debug_io(0x3230, "hello\tworld\n")),
     'target: print "hello world"'),
]
TYPES = "7424242424243"


@test
def serial_session(lab):
    """A serial line over TCP: who sent it, what it is, what it answers"""
    got = table(lab, tcp_frames(*[s[:2] for s in SESSION]),
                [INFO, "_ws.col.Protocol", "kd.acknowledges", "kd.response_to", "kd.time"],
                "-d", "tcp.port==4444,kd")
    acknowledges = {3: "2", 5: "4", 7: "6", 9: "8", 11: "10", 13: "12"}
    answers = {6: ("4", "0.002000000"), 10: ("8", "0.002000000")}
    rows_are(got, [[line, "KD", acknowledges.get(i, ""), *answers.get(i, ("", ""))]
                   for i, (_, _, line) in enumerate(SESSION, 1)])


@test
def second_pass(lab):
    """Requests know their replies, where Wireshark looks at packets again"""
    got = table(lab, tcp_frames(*[s[:2] for s in SESSION]), ["kd.response_in", "kd.response_to"],
                "-2")
    want = [["", ""] for _ in SESSION]
    want[3][0], want[7][0], want[5][1], want[9][1] = "6", "10", "4", "8"
    rows_are(got, want)


@cases([1, 7, 20, 100])
def any_cut(lab, size):
    """Segments of a few bytes give the same packets"""
    stream, frames = Tcp(), []
    for sender, data, _ in SESSION[1:]:
        frames += [stream.send(sender, data[i:i + size]) for i in range(0, len(data), size)]
    got = table(lab, frames, ["kd.type", "kd.checksum_status"], "-d", "tcp.port==4444,kd")
    types = "".join(row[0] for row in got)
    equal(types, TYPES, "types of packets")
    equal("".join(row[1] for row in got), "1" * 7, "right checksums")


@test
def joined(lab):
    """Many packets in one segment are all shown, in one line"""
    stream = Tcp()
    data = b"".join(d for s, d, _ in SESSION if s == TARGET)
    got = table(lab, [stream.send(TARGET, data)], ["kd.type", INFO])
    equal(got[0][0], "7|4|2|4|2|4|3", "types")
    matches(r"stopped: .* \| ACKNOWLEDGE 80800000 \| GetVersion reply: .* \| print", got[0][1],
            "Info")


@test
def damage(lab):
    """Wrong checksums and trailers are marked; a packet that was cut swallows nothing"""
    good = packet(DEBUG_IO, 0x80800001, debug_io(0x3230, "good"))
    frames = tcp_frames(
        (TARGET, packet(DEBUG_IO, 0x80800000, debug_io(0x3230, "sum"), checksum=1)),
        (TARGET, packet(DEBUG_IO, 0x80800000, debug_io(0x3230, "end"), trailer=b"\xab")),
        (TARGET, packet(DEBUG_IO, 0x80800000, debug_io(0x3230, "x" * 40))[:30] + good * 2),
        (TARGET, b"KERNEL: starting 0000\r\n" + good))
    got = table(lab, frames, ["kd.debug_io.text", "kd.checksum_status", "_ws.expert.message",
                              "kd.noise"])
    equal(got[0][:2], ["sum", "0"], "checksum")
    matches("Wrong checksum: 0000", got[0][2], "checksum")
    equal(got[1][:2], ["end", "1"], "trailer")
    matches("Wrong trailer", got[1][2], "trailer")
    equal(got[2][:2], ["good|good", "1|1"], "behind a cut packet")
    matches("belong to no packet", got[2][2], "a cut packet")
    equal(got[3][0], "good", "behind text")
    matches("^KERNEL: starting 0000", got[3][3], "text")


@test
def retransmissions(lab):
    """Copies are marked; RESET and RESEND are noted"""
    stop = packet(STATE_CHANGE, 0x80800000, exception(0x80000003))
    frames = tcp_frames((TARGET, stop), (TARGET, stop), (HOST, packet(RESEND, 0)),
                        (HOST, packet(RESET, 0)), (TARGET, stop))
    got = table(lab, frames, ["kd.retransmission_of", "_ws.expert.message", INFO])
    rows_are(got, [["", "", "target: stopped: STATUS_BREAKPOINT at fffff80000101200"],
                   ["1", "Retransmission",
                    "target: [retransmission] stopped: STATUS_BREAKPOINT at fffff80000101200"],
                   ["", "The last packet is wanted again", "host: RESEND 00000000"],
                   ["", "Link reset", "host: RESET 00000000"],
                   ["", "", "target: stopped: STATUS_BREAKPOINT at fffff80000101200"]])


def documented_apis():
    with open(os.path.join(TOP_SRC, "docs/kd-protocol.md")) as f:
        text = f.read()
    section = text[text.index("## 6. Requests"):text.index("## 7.")]
    apis = {int(number, 16): name
            for number, name in re.findall(r"^\| (31[0-9A-F]{2}) \| (\w+) \|", section, re.M)}
    apis.update({0x3154: "OldVlm1", 0x3155: "OldVlm2"})
    return apis


@test
def all_apis(lab):
    """Every API of docs/kd-protocol.md is named, and unknown ones are marked"""
    apis = sorted(documented_apis().items())
    check(len(apis) > 40, "the table of APIs was not found")
    apis += [(0x3161, "Manipulate3161"), (0x316F, "Manipulate316F")]
    packets = [(HOST, packet(MANIPULATE, 0x80800000 + i % 2, manipulate(api)))
               for i, (api, _) in enumerate(apis + [(0x314B, "")])]
    got = table(lab, tcp_frames(*packets), [INFO, "_ws.expert.message"])
    for row, (_, name) in zip(got, apis):
        matches("^host: %s request" % name, row[0], "Info")
        equal(row[1], "", "expert info of " + name)
    equal(got[-1], ["host: unknown API 314B request", "Unknown message"], "an unknown API")


@test
def all_statuses(lab):
    """Every status has the name that the project's own programs give it"""
    with open(os.path.join(TOP_SRC, "kdproto/names.c")) as f:
        names = re.findall(r'(?:STATUS|EXCEPTION)\((0x[0-9A-F]+), "(\w+)"\)', f.read())
    check(len(names) > 60, "the table of statuses was not found")
    packets = [(TARGET, packet(STATE_CHANGE, 0x80800000 + i % 2, exception(int(code, 16))))
               for i, (code, _) in enumerate(names)]
    got = table(lab, tcp_frames(*packets), [INFO])
    rows_are(got, [["target: stopped: %s at fffff80000101200" % name] for _, name in names])


A = 0xFFFFF80012345678

# API, places, data, fields, what they hold.
LAYOUTS = [
    (0x3131, memory(A, 2), b"\x01\x02", "address count data", [A, 2, "0102"]),
    (0x3132, [(0x10, "I", 0x10001F)], b"", "context.flags", [0x10001F]),
    (0x3134, [(0x10, "Q", A), (0x18, "I", 3)], b"", "address handle", [A, 3]),
    (0x3135, [(0x10, "I", 5)], b"", "handle", [5]),
    (0x3136, [(0x10, "I", 0x10002)], b"", "continue.status", [0x10002]),
    (0x3139, [(0x10, "Q", 0x3F8), (0x18, "I", 1), (0x1C, "I", 0x60)], b"",
     "address io.size io.value", [0x3F8, 1, 0x60]),
    (0x313F, [(0x10, "I", 9)], b"", "special.count", [9]),
    (0x3140, [(0x10, "Q", A)], b"", "address", [A]),
    (0x3142, [(0x10, "Q", A), (0x18, "I", 7)], b"", "address internal.flags", [A, 7]),
    (0x3143, [(0x10, "Q", A), (0x18, "I", 1), (0x1C, "I", 2), (0x20, "I", 3), (0x24, "I", 4),
              (0x28, "I", 5), (0x2C, "I", 6)], b"",
     "internal.flags internal.calls internal.max_calls internal.min internal.max internal.total",
     [1, 2, 3, 4, 5, 6]),
    (0x3144, [(0x10, "I", 4), (0x14, "I", 1), (0x18, "I", 2), (0x1C, "I", 3), (0x20, "Q", A),
              (0x28, "I", 0x77)], b"",
     "io.size io.interface io.bus io.space address io.value", [4, 1, 2, 3, A, 0x77]),
    (0x3147, [(0x10, "I", 2), (0x14, "I", 0x10002)], b"abcdef",
     "breakpoint_ex.count continue.status", [2, 0x10002]),
    (0x3152, [(0x10, "I", 0xC0000082), (0x14, "I", 1), (0x18, "I", 2)], b"",
     "msr.number msr.low msr.high", [0xC0000082, 1, 2]),
    (0x3156, [(0x10, "Q", A), (0x18, "Q", 1 << 33), (0x20, "I", 4)], b"abcd",
     "address search.length search.pattern_length data", [A, 1 << 33, 4, "61626364"]),
    (0x3157, [(0x10, "I", 4), (0x14, "I", 1), (0x18, "I", 0x1F), (0x1C, "I", 8),
              (0x20, "I", 16)], b"", "bus.type bus.number bus.slot bus.offset bus.length",
     [4, 1, 0x1F, 8, 16]),
    (0x315B, [(0x10, "Q", A), (0x18, "I", 64), (0x1C, "H", 1), (0x1E, "H", 2)], b"\xcc\xcc",
     "address count fill.flags fill.pattern_length data", [A, 64, 1, 2, "cccc"]),
    (0x315C, [(0x10, "Q", A), (0x20, "I", 1), (0x24, "I", 7)], b"",
     "address query.space query.flags", [A, 1, 7]),
    (0x315D, [(0x10, "I", 3)], b"", "partition", [3]),
    (0x315E, [(0x10, "Q", A), (0x18, "Q", 0xCC), (0x20, "I", 1), (0x24, "B", 2),
              (0x25, "B", 3)], b"",
     "address custom.instruction handle custom.size custom.alignment", [A, 0xCC, 1, 2, 3]),
    (0x315F, [(0x10, "I", 16), (0x14, "I", 32), (0x18, "I", 8)], b"",
     "context.offset context.count context.copied", [16, 32, 8]),
]


def number(text):
    return int(text, 0) if re.fullmatch(r"\d+|0x[0-9a-fA-F]+", text) else text


@test
def layouts(lab):
    """The fields of each kind of request are where they belong"""
    names = sorted({"kd." + n for row in LAYOUTS for n in row[3].split()})
    packets = [(HOST, packet(MANIPULATE, 0x80800000 + i % 2, manipulate(api, *places, data=data)))
               for i, (api, places, data, _, _) in enumerate(LAYOUTS)]
    got = table(lab, tcp_frames(*packets), names)
    for row, (api, _, _, fields_, values) in zip(got, LAYOUTS):
        shown = dict(zip(names, row))
        for name, value in zip(fields_.split(), values):
            text = shown["kd." + name]
            equal(text if isinstance(value, str) else number(text), value,
                  "kd.%s of %X" % (name, api))


@test
def failures(lab):
    """A request that failed is marked, also in a reply that is too short"""
    short = manipulate(0x3130, status=0xC0000001)[:16]
    frames = tcp_frames(
        (HOST, packet(MANIPULATE, 0x80800000, READ)),
        (TARGET, packet(MANIPULATE, 0x80800000, manipulate(
            0x3130, *memory(KERNEL, 4), status=0xC0000005))),
        (HOST, packet(MANIPULATE, 0x80800001, READ)),
        (TARGET, packet(MANIPULATE, 0x80800001, short)),
        (HOST, packet(MANIPULATE, 0x80800000, READ[:40])))
    got = table(lab, frames, [INFO, "_ws.expert.message", "kd.response_to"])
    equal(got[1][0], "target: ReadVirtualMemory reply at fffff80000100000, 0 of 4 bytes: "
          "STATUS_ACCESS_VIOLATION", "Info")
    equal(got[1][1:], ["The request failed", "1"], "a failure")
    equal(got[3], ["target: ReadVirtualMemory reply: STATUS_UNSUCCESSFUL", "The request failed",
                   "3"], "a short failure")
    equal(got[4][1], "Too short for what it is", "a short request")


@test
def state_changes(lab):
    """Loads, unloads, good-byes, command strings, parameters of exceptions"""
    messages = [
        exception(0xC0000005, (0x38, "I", 2), (0x40, "Q", 1), (0x48, "Q", A), (0xB8, "I", 0)),
        load("\\SystemRoot\\a.sys", A, (0x38, "I", 0x1234), (0x3C, "I", 0x8000)),
        load("\\SystemRoot\\a.sys", A, (0x40, "B", 1)),
        load("", 0xFFFFFFFFFFFFFFFF, (0x40, "B", 1)),
        state_change(0x3032, data=b"name\0!analyze -v\0"),
        state_change(0x3099)]
    packets = [(TARGET, packet(STATE_CHANGE, 0x80800000 + i % 2, m))
               for i, m in enumerate(messages)]
    got = table(lab, tcp_frames(*packets),
                [INFO, "kd.exception.parameter", "kd.load.size", "kd.load.path"])
    path = "\\SystemRoot\\a.sys"
    rows_are(got, [
        ["target: stopped: STATUS_ACCESS_VIOLATION at fffff80000101200, second chance",
         "0x0000000000000001|0x%016x" % A, "", ""],
        ["target: load %s at fffff80012345678" % path, "", "0x00008000", path],
        ["target: unload %s at fffff80012345678" % path, "", "0x00000000", path],
        ["target: the session ends: reboot, shutdown or the next boot stage", "", "0x00000000",
         ""],
        ["target: command string !analyze -v", "", "", ""],
        ["target: unknown state change 3099", "", "", ""]])


REPORTS = {
    0x014C: [(0xC0, "I", 0xFFFF0FF0), (0xC4, "I", 0x400), (0xC8, "H", 3), (0xDC, "H", 8),
             (0xE4, "I", 0x246), (0xCC, "3s", b"\xcc\xc3\x90")],
    0x8664: [(0xC0, "Q", 0xFFFF0FF0), (0xC8, "Q", 0x400), (0xD4, "H", 3), (0xE8, "H", 8),
             (0xD0, "I", 0x246), (0xD8, "3s", b"\xcc\xc3\x90")],
    0xAA64: [(0xC0, "Q", 5), (0xC8, "Q", 6), (0xD0, "I", 3), (0xD4, "3s", b"\xcc\xc3\x90")],
}


@cases(sorted(REPORTS), name=hex)
def machines(lab, machine):
    """The machine that GetVersion told lays out what depends on it"""
    stop = exception(0x80000003, *REPORTS[machine])
    step = {0x014C: [(0x14, "I", 1), (0x18, "I", 0x401)],
            0x8664: [(0x14, "I", 1), (0x18, "Q", 0x401)], 0xAA64: [(0x18, "I", 1)]}[machine]
    frames = tcp_frames(
        (TARGET, packet(STATE_CHANGE, 0x80800000, stop)),
        (HOST, packet(MANIPULATE, 0x80800000, manipulate(0x3146))),
        (TARGET, packet(MANIPULATE, 0x80800001, version(machine=machine))),
        (TARGET, packet(STATE_CHANGE, 0x80800000, stop)),
        (HOST, packet(MANIPULATE, 0x80800001, manipulate(0x313C, (0x10, "I", 0x10002), *step))))
    names = ["kd.instructions", "kd.report.eflags", "kd.report.cs", "kd.report.bvr",
             "kd.continue.step", "kd.report.dr7", "kd.report.dr7_32", "kd.continue.dr7",
             "kd.continue.dr7_32"]
    got = table(lab, frames, names)
    equal(got[0], [""] * len(names), "before the machine is known")
    row = dict(zip(names, got[3]))
    equal(row["kd.instructions"], "ccc390", "instruction bytes")
    if machine == 0xAA64:
        equal(number(row["kd.report.bvr"]), 5, "Bvr")
    else:
        suffix = "_32" if machine == 0x014C else ""
        equal([number(row[n]) for n in ("kd.report.eflags", "kd.report.cs",
                                        "kd.report.dr7" + suffix)], [0x246, 8, 0x400], "report")
        equal(number(dict(zip(names, got[4]))["kd.continue.dr7" + suffix]), 0x401, "Dr7")
    equal(dict(zip(names, got[4]))["kd.continue.step"], "1", "step")


@test
def other_messages(lab):
    """Prompts and answers, files, traces, control requests"""
    name = "\\SystemRoot\\b.sys\0".encode("utf-16-le")
    create = [(0x08, "I", 0x80), (0x14, "I", 1)]
    messages = [
        (TARGET, DEBUG_IO, debug_io(0x3231, "Break? ", answer=4)),
        (HOST, DEBUG_IO, debug_io(0x3231, "bo", length=7, answer=2)),
        (TARGET, DEBUG_IO, struct.pack("<IHHI", 0x3230, 6, 0, 3) + b"old"),
        (TARGET, FILE_IO, file_io(0x3430, *create, data=name)),
        (HOST, FILE_IO, file_io(0x3430, *create, status=0xC000000F)),
        (TARGET, FILE_IO, file_io(0x3431, (8, "Q", 3), (16, "Q", 4096), (24, "I", 512))),
        (HOST, FILE_IO, file_io(0x3431, (8, "Q", 3), (24, "I", 4), data=b"data")),
        (TARGET, FILE_IO, file_io(0x3433, (8, "Q", 3))),
        (TARGET, TRACE_IO, fields(64, (0, "I", 0x3330), (8, "I", 2)) + b"ab"),
        (TARGET, CONTROL, struct.pack("<III", 0x4300, 1, 0)),
        (TARGET, FILE_IO, file_io(0x3499)),
        (TARGET, DEBUG_IO, debug_io(0x3299, ""))]
    packets = [(s, packet(kind, 0x80800000 + i % 2, m)) for i, (s, kind, m) in enumerate(messages)]
    # The first packet whose sender is sure tells both ends apart.
    packets.insert(0, (TARGET, packet(DEBUG_IO, 0x80800001, debug_io(0x3230, "hi"))))
    got = table(lab, tcp_frames(*packets), [INFO, "kd.debug_io.text", "kd.file.name"])
    rows_are([row for row in got[1:]], [
        ['target: prompt "Break? "', "Break? ", ""],
        ['host: answer "bo"', "bo", ""],
        ['target: print "old"', "old", ""],
        ["target: CreateFile request \\SystemRoot\\b.sys", "", "\\SystemRoot\\b.sys"],
        ["host: CreateFile answer: STATUS_NO_SUCH_FILE", "", ""],
        ["target: ReadFile request", "", ""],
        ["host: ReadFile answer: STATUS_SUCCESS", "", ""],
        ["target: CloseFile request", "", ""],
        ["target: trace", "", ""],
        ["target: request a hardware breakpoint", "", ""],
        ["target: unknown file I/O 3499", "", ""],
        ["target: unknown debug I/O 3299", "", ""]])


@test
def not_ours(lab):
    """Other traffic is left alone"""
    web, other = Tcp(80), Tcp(9000)
    frames = [web.send(HOST, b"GET / HTTP/1.1\r\n\r\n"), other.send(HOST, b"0000" * 10),
              other.send(HOST, b"iiiiiiiiiiiiiiiiii"), other.send(TARGET, b"b"),
              udp(HOST, b"MDBG"), udp(HOST, b"MDBH" + bytes(34))]
    for row in table(lab, frames, ["_ws.col.Protocol", "frame.protocols"]):
        check(not row[0].startswith("KD") and ":kd" not in row[1], "taken: %r" % row)


# ---- KDNET ---------------------------------------------------------------------

KEY = "2z8k1q4vxw0ab.1f5yzk39m2x0p.3abcdefgh1234.zzzzzzzzzzz"
NONCE = bytes([5]) + bytes(7) + bytes(range(24))


def kdnet_session(key=KEY):
    """Sender, datagram, Protocol, Info when it is opened."""
    control = key_bytes(key)
    answer = response(NONCE, bytes(range(32)))
    session = data_key(control, answer)
    seqs = {TARGET: 0, HOST: 0}

    def data(sender, body):
        seqs[sender] += 1
        return sender, seal(control, session, 0, sender, seqs[sender], body)
    greeting = poke(NONCE, ("10.0.0.1", 50000), ("10.0.0.2", 50000))
    return [
        (TARGET, seal(control, control, 1, TARGET, 3, greeting), "KDNET",
         "target: poke from 10.0.0.1:50000, host 0.0.0.0:0"),
        (HOST, seal(control, control, 1, HOST, 3, answer), "KDNET", "host: response"),
        (*data(TARGET, bytes(8) + bytes([2, 0, 0, 10])), "KDNET", "target: ping, host 10.0.0.2"),
        (*data(HOST, packet(RESEND, 0)), "KD", "host: RESEND 00000000"),
        (*data(HOST, b"b"), "KD", "host: break-in"),
        (*data(TARGET, packet(STATE_CHANGE, 0x926, exception(0x80000003), b"")), "KD",
         "target: stopped: STATUS_BREAKPOINT at fffff80000101200"),
        (*data(HOST, packet(ACK, 0x926)), "KD", "host: ACKNOWLEDGE 00000926"),
        (*data(HOST, packet(MANIPULATE, 0x80000000, READ, b"")), "KD",
         "host: ReadVirtualMemory request at fffff80000100000, 4 bytes"),
        (*data(TARGET, packet(MANIPULATE, 0x928, READ_REPLY, b"")), "KD",
         "target: ReadVirtualMemory reply at fffff80000100000, 4 of 4 bytes"),
        (HOST, seal(control, control, 1, HOST, 9, b""), "KDNET", "host: host poke"),
    ]


def need(program, why):
    if not shutil.which(program):
        raise Skip("no %s here, %s" % (program, why))


def need_luaossl(lab):
    """What KDNET is opened with. tshark's Lua has to find it."""
    script = lab.path("probe.lua")
    with open(script, "w") as out:
        out.write('print("luaossl", (pcall(require, "openssl.hmac")))')
    empty = lab.path("empty.pcap")
    write_pcap(empty, [])
    if "luaossl\ttrue" not in tshark(lab, "-X", "lua_script:" + script, "-r", empty):
        raise Skip("no luaossl for tshark's Lua here")


@test
def sealed(lab):
    """KDNET without a key: what stands in clear"""
    need("openssl", "which makes the datagrams")
    session = kdnet_session()
    frames = [udp(s, d) for s, d, _, _ in session[:3]]
    frames[2] = udp(*session[2][:2])
    got = table(lab, frames, ["_ws.col.Protocol", INFO, "kdnet.version", "kdnet.channel",
                              "kdnet.tag", "_ws.expert.message"])
    for row, (_, datagram, _, _), (name, channel) in zip(
            got, session, (("control", "1"), ("control", "1"), ("data", "0"))):
        equal(row[:5], ["KDNET", "%s, %d bytes sealed" % (name, len(datagram) - 22), "2", channel,
                        datagram[-16:].hex()], "fields")
        matches("No key: set kdnet.keys", row[5], "expert info")


@test
def opened(lab):
    """KDNET with its key, by luaossl: a session from its poke on"""
    need("openssl", "which makes the datagrams")
    need_luaossl(lab)
    session = kdnet_session()
    frames = [udp(s, d) for s, d, _, _ in session]
    got = table(lab, frames, ["_ws.col.Protocol", INFO, "kd.response_to", "kd.acknowledges"],
                "-o", "kdnet.keys:1.2.3.4 " + KEY)
    links = {7: ("", "6"), 9: ("8", "")}
    rows_are(got, [[protocol, line, *links.get(i, ("", ""))]
                   for i, (_, _, protocol, line) in enumerate(session, 1)])
    got = table(lab, frames, ["kdnet.seq", "kdnet.direction", "kdnet.nonce_counter",
                              "kdnet.target.ip", "kdnet.configured_host.port"], "-o",
                "kdnet.keys:" + KEY)
    equal(got[0], ["3", "target", "5", "10.0.0.1", "50000"], "the poke's fields")
    # Upper case is the same key.
    got = table(lab, frames[:1], [INFO], "-o", "kdnet.keys:" + KEY.upper())
    equal(got[0], [session[0][3]], "capitals")


@test
def bad_keys(lab):
    """A key that is none is reported, and the others still count"""
    need("openssl", "which makes the datagrams")
    need_luaossl(lab)
    path = lab.path("capture.pcap")
    write_pcap(path, [udp(s, d) for s, d, _, _ in kdnet_session()])
    for bad in ("1.2.3", "1.2.3.4.5", "1..2.3", "1.2.3.4-", "1.2.3.3w5e11264sgsg"):
        done = subprocess.run(["tshark", "-n", "-X", "lua_script:" + LUA, "-r", path, "-o",
                               "kdnet.keys:%s %s" % (bad, KEY)], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=LIMIT_S, env=lab.env)
        matches("one of the keys is not four words", done.stderr.decode(), bad)
        check(bad not in done.stderr.decode(), "the key is in the message")
        matches("ReadVirtualMemory reply", done.stdout.decode(), "with " + bad)


@test
def not_opened(lab):
    """Wrong keys, damage, and sessions that start in the middle stay sealed"""
    need("openssl", "which makes the datagrams")
    need_luaossl(lab)
    session = kdnet_session()
    frames = [udp(s, d) for s, d, _, _ in session]
    for row in table(lab, frames, ["_ws.col.Protocol", "_ws.expert.message"], "-o",
                     "kdnet.keys:1.2.3.4"):
        equal(row[0], "KDNET", "protocol")
        matches("No key fits", row[1], "expert info")
    poke_, answer, ping = [d for _, d, _, _ in session[:3]]
    damaged = poke_[:40] + bytes([poke_[40] ^ 1]) + poke_[41:]
    got = table(lab, [udp(TARGET, ping), udp(TARGET, damaged), udp(TARGET, poke_[:-5])], [INFO],
                "-o", "kdnet.keys:" + KEY, "-d", "udp.port==50000,kdnet")
    rows_are(got, [["data, 32 bytes sealed"], ["control, 352 bytes sealed"], ["malformed"]])


# ---- kdcap's records -----------------------------------------------------------

def records_of_bodies():
    greeting = poke(NONCE, ("10.0.0.1", 50000), ("10.0.0.2", 50000))
    bodies = [(1, TARGET, greeting, "target: poke from 10.0.0.1:50000, host 0.0.0.0:0"),
              (1, HOST, response(NONCE, bytes(32)), "host: response"),
              (1, HOST, b"", "host: host poke"),
              (0, TARGET, bytes(8) + bytes([2, 0, 0, 10]), "target: ping, host 10.0.0.2"),
              (0, HOST, b"b", "host: break-in"),
              (0, HOST, packet(MANIPULATE, 0x80000000, READ, b""),
               "host: ReadVirtualMemory request at fffff80000100000, 4 bytes"),
              (0, TARGET, packet(MANIPULATE, 0x928, READ_REPLY, b""),
               "target: ReadVirtualMemory reply at fffff80000100000, 4 of 4 bytes"),
              (0, TARGET, b"\1\2\3", "target: unknown data")]
    return [(record(c, s, b, seq=7, version=5, flags=5, frame=9), line) for c, s, b, line in bodies]


@test
def decrypted_records(lab):
    """Records of kdcap --decrypted: bodies in clear"""
    records = records_of_bodies()
    got = table(lab, [r for r, _ in records],
                [INFO, "kdcap.seq", "kdcap.kdnet_version", "kdcap.flags.retransmission",
                 "kdcap.flags.duplicate", "kdcap.flags.gap", "kdcap.frame", "kd.response_to",
                 "_ws.col.Source", "_ws.col.Destination"], link=LINK_USER0)
    host_sends = ("10.0.0.2", "10.0.0.1")
    rows_are(got, [[line, "7", "5", "1", "0", "1", "9", "6" if i == 6 else "",
                    *(host_sends if line.startswith("host") else host_sends[::-1])]
                   for i, (_, line) in enumerate(records)])


@test
def written_by_kdcap(lab):
    """What kdcap --decrypted makes of a session shows the same"""
    need("openssl", "which makes the datagrams")
    kdcap = os.path.join(TOP_BUILD, "kdcap/kdcap")
    if not os.access(kdcap, os.X_OK):
        raise Skip("no kdcap in this build")
    session, sealed_file, clear = kdnet_session(), lab.path("sealed.pcap"), lab.path("clear.pcapng")
    write_pcap(sealed_file, [udp(s, d) for s, d, _, _ in session])
    subprocess.run([kdcap, "-q", "-r", sealed_file, "-w", clear, "--decrypted", "--key", KEY],
                   check=True, timeout=LIMIT_S, env=lab.env)
    out = tshark(lab, "-r", clear, "-T", "fields", "-e", "_ws.col.Protocol", "-e", INFO, "-e",
                 "kdcap.frame")
    rows_are([line.split("\t") for line in out.splitlines()],
             [[protocol, line, str(i)] for i, (_, _, protocol, line) in enumerate(session, 1)])


@cases([1, 5, 64, 5000])
def serial_records(lab, size):
    """Records of a serial line: pieces that are cut anywhere"""
    records = []
    for sender, data, _ in SESSION:
        records += [record(2, sender, data[i:i + size]) for i in range(0, len(data), size)]
    got = table(lab, records, ["kd.type", "kd.break_in", "kd.response_to", "kd.direction"],
                link=LINK_USER0)
    equal("".join(row[0] for row in got), TYPES, "types of packets")
    equal(len([row for row in got if row[1]]), 1, "break-ins")
    equal(len([row for row in got if row[2]]), 2, "replies")
    # And where packets are looked at again.
    equal(table(lab, records, ["kd.type", "kd.break_in", "kd.response_to", "kd.direction"], "-2",
                link=LINK_USER0), got, "the second pass")


@test
def other_records(lab):
    """Sealed datagrams in records, longer headers, unknown senders, malformed records"""
    datagram = b"MDBG\x02\x01" + bytes(range(48))
    stop = packet(STATE_CHANGE, 0x80800000, exception(0x80000003))
    records = [(record(3, TARGET, datagram), "control, 32 bytes sealed"),
               (record(2, TARGET, stop, header=80),
                "target: stopped: STATUS_BREAKPOINT at fffff80000101200"),
               (record(2, 2, stop), "target: stopped: STATUS_BREAKPOINT at fffff80000101200"),
               (record(9, TARGET, stop), "malformed"),
               (b"KDCQ" + record(2, TARGET, stop)[4:], "malformed"),
               (record(2, TARGET, stop)[:60], "malformed")]
    got = table(lab, [r for r, _ in records], [INFO], link=LINK_USER0)
    rows_are(got, [[line.replace("target: s", "target: [retransmission] s") if i == 2 else line]
                   for i, (_, line) in enumerate(records)])


# ---- recorded traffic, where it is --------------------------------------------------

def recording(name):
    path = os.path.join(TOP_SRC, "../shared/captures", name)
    if not os.path.exists(path):
        raise Skip("no recordings beside the source tree")
    return path


@test
def recorded_kdnet(lab):
    """A recorded session with Windows 8.1 is opened to the last datagram"""
    need_luaossl(lab)
    out = tshark(lab, "-r", recording("kdnet-win81-key-1.1.1.1.pcapng"), "-o",
                 "kdnet.keys:1.1.1.1", "-T", "fields", "-e", "_ws.col.Protocol", "-e", INFO, "-e",
                 "_ws.expert.message")
    rows = [line.split("\t") for line in out.splitlines()]
    equal(len(rows), 37, "datagrams")
    for protocol, line, remark in rows:
        check("sealed" not in line and "unknown" not in line, line)
        check(not re.search("Wrong|Unknown|Too short|Not a", remark), remark)
    equal(len([r for r in rows if r[0] == "KDNET"]), 4, "datagrams without KD")


@cases(["boot", "attach", "recover"])
def recorded_serial(lab, name):
    """A recorded serial line with an x86 kernel decodes"""
    records = []
    with open(recording("kd-serial-x86-%s.log" % name)) as f:
        for sender, data in re.findall(r"^[0-9.]+ (host|target) ([0-9a-f]+)$", f.read(), re.M):
            records.append(record(2, HOST if sender == "host" else TARGET, bytes.fromhex(data)))
    got = table(lab, records, ["kd.type", "kd.checksum_status", "_ws.expert.message", INFO],
                link=LINK_USER0)
    check(len([row for row in got if row[0]]) > 20, "hardly a packet")
    for types, sums, remarks, line in got:
        # The recorder sent these on purpose: an API that does not exist, and a
        # request with a wrong checksum.
        check(("Unknown" not in remarks or "API 3199" in line) and "Too short" not in remarks,
              line + ": " + remarks)
        check("0" not in sums or line.startswith("host: "), line)


# ---- hostile input -------------------------------------------------------------

def hostile_frames():
    """Each message cut short at every length, and with bytes changed."""
    rng = random.Random(1)
    messages = [(STATE_CHANGE, exception(0x80000003, *REPORTS[0x8664])),
                (STATE_CHANGE, load("a.sys", A)), (MANIPULATE, version()), (MANIPULATE, READ),
                (DEBUG_IO, debug_io(0x3230, "text")), (DEBUG_IO, debug_io(0x3231, "text")),
                (FILE_IO, file_io(0x3430, data="x\0".encode("utf-16-le"))),
                (TRACE_IO, bytes(66)), (CONTROL, bytes(12)), (1, bytes(8))]
    for kind, message in messages:
        for n in sorted({*range(1, 20), *range(20, len(message), 17), len(message)}):
            yield packet(kind, n, message[:n])
        for _ in range(30):
            changed = bytearray(message)
            for _ in range(3):
                changed[rng.randrange(len(changed))] = rng.choice((0, 1, 0x30, 0x7F, 0xFF))
            yield packet(kind, rng.randrange(1 << 32), bytes(changed))


@test
def hostile(lab):
    """Nothing that is sent makes the dissector fail"""
    rng = random.Random(2)
    stream, frames, records = Tcp(), [], []
    for data in hostile_frames():
        sender = rng.randrange(2)
        frames.append(stream.send(sender, data))
        body = data[:-1]
        records += [record(0, sender, body), record(2, sender, data[:rng.randrange(len(data))])]
    for n in range(0, 345, 3):
        records += [record(1, TARGET, b"\x01" + bytes([n % 4]) + bytes(n)),
                    record(0, HOST, bytes(n % 40)), record(3, HOST, b"MDBG" + bytes(n))]
    for n in range(64):
        records.append(record(0, TARGET, b"x")[:n])
    for data, link in ((frames, LINK_RAW), (records, LINK_USER0)):
        path = lab.path("hostile.pcap")
        write_pcap(path, data, link)
        out = tshark(lab, "-r", path, "-V", "-2")
        equal(len(re.findall(r"^Frame \d+:", out, re.M)), len(data), "frames shown")
        for bad in ("Dissector bug", "Malformed Packet", "Lua Error"):
            check(bad not in out, bad)


def why_not():
    if not shutil.which("tshark"):
        return "no tshark here"
    with tempfile.NamedTemporaryFile(suffix=".pcap") as empty:
        write_pcap(empty.name, [])
        probe = subprocess.run(["tshark", "-X", "lua_script:" + LUA, "-r", empty.name, "-Y",
                                "kdnet"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               timeout=LIMIT_S)
    # A filter with an unknown name is an error. So is a broken script: not a skip.
    if probe.returncode != 0 and LUA.encode() not in probe.stderr:
        return "this tshark loads no Lua scripts" + (" for root" if os.geteuid() == 0 else "")
    return None


if __name__ == "__main__":
    reason = why_not()
    if reason:
        print("1..0 # SKIP " + reason)
    else:
        main(needs=())
