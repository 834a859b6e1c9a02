#!/usr/bin/env python3
# A simulated debuggee as strict and as odd as a 32-bit NT-like kernel on an
# emulated serial port. It is written from the protocol alone and shares no
# code with the programs under test, so that it does not share their mistakes.
# Runs in a test's own process (Stock), or by itself:
#   stocktarget.py --unix /tmp/serial.sock
# SPDX-License-Identifier: MIT
import argparse
import json
import os
import signal
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from stocklink import *
from stockmachine import *

EXC_INT3, EXC_STEP = 0x80000003, 0x80000004
FAILED = 0xC0000001
CONTROL_C, BUGCHECK = 1, 4
KERNEL, KERNEL_SIZE = 0x80400000, 0x50A000
BREAK_WITH_STATUS = 0x8059CECE
LOAD_SERVICE = 0x8059CEE0  # where a load's state change says the processor is
TRAP_RETURN, LOOP, WORK = 0x8059D000, 0x80660800, 0x80660900
HARD_INT3 = 0x80660A00
COUNTER = 0x80690000
LIST_HEAD, DATA_LIST, DATA_BLOCK = 0x806410A4, 0x80631EC4, 0x805AB240
HOLE, REGION = 0x80500000, 0x80A00000
DRIVERS = ["kdcom.dll", "bootvid.dll", "sacdrv.sys", "pci.sys", "acpi.sys", "isapnp.sys",
           "mountmgr.sys", "partmgr.sys", "volmgr.sys", "ftdisk.sys", "scsiport.sys",
           "storport.sys", "uniata.sys", "atapi.sys", "buslogic.sys", "disk.sys",
           "classpnp.sys", "cdrom.sys", "ramdisk.sys", "fastfat.sys", "cdfs.sys", "ntfs.sys",
           "btrfs.sys", "ksecdd.sys", "i8042prt.sys", "kbdclass.sys", "mouclass.sys",
           "sermouse.sys", "usbehci.sys"]
BOOT_PRINTS = ["(/ntoskrnl/kd64/kdinit.c:94) " + "-" * 53 + "\n",
               "(/ntoskrnl/kd64/kdinit.c:95) A kernel under test (Build 1)\n",
               "(/ntoskrnl/kd64/kdinit.c:96) 1 System Processor [256 MB Memory]\n"]
LATER_PRINTS = ["Supported features:\n", " KF_RDTSC", " KF_CR4", " KF_CMOV", "\n",
                "00:01.0 ISA bridge [0601]:", " fast devsel,", " latency 0", "\n"]


class Rebooting(Exception):
    pass


class Kernel:
    """What the target does, from power-on, as sequential code."""

    def __init__(self, link, noise=b"", print_every=50, boot_ticks=0, tick_s=0.01,
                 early_list=True, cpu_budget=60):
        self.link, self.port = link, link.port
        self.noise, self.print_every, self.boot_ticks = noise, print_every, boot_ticks
        self.tick_s, self.early_list, self.cpu_budget = tick_s, early_list, cpu_budget
        self.orders = []         # callables, run in the next tick
        self.where = "off"       # for tests: booting, running, stopped
        self.stops = self.boots = self.ticks = 0
        self.in_bugcheck = False
        self.breakpoints = {}

    # ---- the system in memory --------------------------------------------

    def _set_up_memory(self):
        m = self.memory = Memory()
        m.map(KERNEL, KERNEL_SIZE)
        m.unmap(HOLE, 3 * PAGE)
        m.put(KERNEL, b"MZ".ljust(0x3C, b"\0") + u32(0x80))
        m.put(KERNEL + 0x80, b"PE\0\0" + struct.pack("<HHIIIHH", 0x14C, 3, 1, 0, 0, 224, 0x10E) +
              struct.pack("<H", 0x10B).ljust(56, b"\0") + u32(KERNEL_SIZE) + u32(0x400))
        m.put(BREAK_WITH_STATUS, bytes.fromhex("ccc2040055"))
        m.put(TRAP_RETURN, bytes.fromhex("58cf"))
        loop = b"\xe8" + struct.pack("<i", WORK - LOOP - 5)
        loop += b"\xa1" + u32(COUNTER) + b"\x40" + b"\xa3" + u32(COUNTER)
        m.put(LOOP, loop + b"\x90\xeb" + struct.pack("b", -len(loop) - 3))
        m.put(WORK, bytes.fromhex("558bec4141905dc3"))
        m.put(HARD_INT3, bytes.fromhex("ccc3"))
        m.put(REGION, bytes(i * 7 + (i >> 8) & 0xFF for i in range(64 * 1024)))
        m.put(COUNTER, u32(0))
        self.modules = []
        self._set_up_data_block()
        self.cpu = Cpu(m, LOOP, 0xF9C5D000)
        m.map(0xF9C5C000, PAGE)

    def _set_up_data_block(self):
        block = bytearray(0x318)
        struct.pack_into("<II8x4sI", block, 0, DATA_LIST, DATA_LIST, b"KDBG", 0x318)
        for at, value in ((0x18, KERNEL), (0x20, BREAK_WITH_STATUS), (0x48, LIST_HEAD)):
            struct.pack_into("<q", block, at, value - (1 << 32))
        self.memory.put(DATA_BLOCK, bytes(block))
        self.memory.put(DATA_LIST, u32(DATA_BLOCK) * 2)

    def _set_up_list(self):
        m, at = self.memory, 0x80C00000
        entries = [at + i * 0x100 for i in range(len(self.modules))]
        ring = [LIST_HEAD] + entries
        for i, (path, base, size) in enumerate(self.modules):
            full = path.encode("utf-16-le")
            name = path.rsplit("\\", 1)[-1].encode("utf-16-le")
            text = at + 0x10000 + i * 0x200
            e = bytearray(0x60)
            struct.pack_into("<II", e, 0, ring[(i + 2) % len(ring)], ring[i])
            struct.pack_into("<III", e, 0x18, base, base + 0x1000, size)
            struct.pack_into("<HHI", e, 0x24, len(full), len(full) + 2, text)
            struct.pack_into("<HHI", e, 0x2C, len(name), len(name) + 2,
                             text + len(full) - len(name))
            struct.pack_into("<I", e, 0x3C, 0x1234 + i)
            m.put(text, full + b"\0\0")
            m.put(entries[i], bytes(e))
        m.put(LIST_HEAD, u32(ring[1 % len(ring)]) + u32(ring[-1]))

    # ---- what it tells ------------------------------------------------------

    def print(self, text):
        if not self.link.present:
            return
        text = text.encode("latin-1") if isinstance(text, str) else text
        header = struct.pack("<IHHII", 0x3230, 0, 0, len(text), 0x1B5)
        self.link.send(DEBUG_IO, header + text, abandon=True)

    def say(self, text):
        """A print of running code: it looks for a break-in behind it."""
        self.print(text)
        if self.link.poll():
            self.break_in()
            self._run_cpu()

    def load(self, path, base, size, pid=0):
        self.modules.append((path, base, size))
        if not self.link.present:
            return
        name = path.encode() + b"\0"
        union = struct.pack("<IIqqIIB", len(name), 0xC86380, base - (1 << 32), pid, 0x4F5C36, size,
                            0)
        here = dict(self.cpu.r)
        self.cpu.r["eip"] = LOAD_SERVICE
        self._stop(0x3031, union.ljust(160, b"\x41"), name, abandon=True)
        self.cpu.r = here

    def exception(self, code, first_chance=1):
        """True when the host calls it handled."""
        pc = self.cpu.r["eip"]
        union = struct.pack("<IIQqI4x", code, 0, 0, pc - (1 << 32), 3).ljust(0x98, b"\x6b")
        union += struct.pack("<I4s", first_chance, b"\x58\xb2\x98\x01")
        return self._stop(0x3030, union, struct.pack("<I", 1), abandon=False)

    def break_in(self):
        self.cpu.interrupt(BREAK_WITH_STATUS, CONTROL_C, TRAP_RETURN)

    def bugcheck(self):
        """For ever: nothing but a reboot leads out."""
        self.in_bugcheck = True
        while True:
            self.cpu.r.update(eip=BREAK_WITH_STATUS, eax=BUGCHECK)
            self.exception(EXC_INT3)

    # ---- stops ---------------------------------------------------------------

    def _state_change(self, new_state, union, extra):
        r, pc = self.cpu.r, self.cpu.r["eip"]
        stream = self.memory.read(pc, 16)
        for handle, (at, old) in list(self.breakpoints.items()):
            if pc <= at < pc + len(stream):
                self.memory.write(at, bytes([old]))
                del self.breakpoints[handle]
        stream = self.memory.read(pc, 16)
        head = struct.pack("<IHHIIqq", new_state, 6, 0, 1, 0xFFFFFFFF, 0x8063C960 - (1 << 32),
                           pc - (1 << 32))
        report = struct.pack("<IIHH16sHHHHI", *self.cpu.dr(), len(stream), 3,
                             stream.ljust(16, b"\0"), r["cs"], r["ds"], r["es"], r["fs"],
                             r["eflags"])
        return head + union.ljust(160, b"\0") + report.ljust(48, b"\0") + extra

    def _stop(self, new_state, union, extra, abandon):
        if new_state == 0x3030:
            self.cpu.set_dr(DR6 | self.cpu.dr()[0] & 0xF00F, self.cpu.dr()[1])
        message = self._state_change(new_state, union, extra)
        self.context_read = False
        self.stops += new_state == 0x3030
        before, self.where = self.where, "stopped"
        try:
            return self._serve(message, abandon)
        finally:
            self.where = before

    def _serve(self, message, abandon):
        while True:
            if not self.link.send(STATE_CHANGE, message, abandon):
                return True
            while True:
                result, request = self.link.receive(MANIPULATE)
                if result == REPEAT:
                    break  # The event again, as a new packet.
                if result == TIMEOUT:
                    continue
                left = self._request(request[:56], request[56:])
                if left is not None:
                    return left

    def _reply(self, head, union, status=0, extra=b""):
        body = head[:8] + u32(status) + head[12:16] + union
        self.link._stall()
        self.link.send(MANIPULATE, body.ljust(56, b"\0") + extra, abandon=True)

    def _request(self, head, extra):
        """None to stay stopped, or whether the exception is handled."""
        api = struct.unpack_from("<I", head)[0]
        self.link.counters["requests"] += 1
        handler = self.HANDLERS.get(api)
        if handler:
            return handler(self, head, head[16:56], extra)
        self.print("Received Unrecognized API 0x%x\n" % api)
        self._reply(head, head[16:56], FAILED)
        return None

    def _read(self, head, union, extra):
        at, count = struct.unpack_from("<QI", union)
        got = self.memory.read(at & 0xFFFFFFFF, min(count, MAX_PAYLOAD - 56))
        whole = len(got) == min(count, MAX_PAYLOAD - 56)
        self._reply(head, union[:12] + u32(len(got)) + union[16:], 0 if whole else FAILED, got)

    def _write(self, head, union, extra):
        at = struct.unpack_from("<Q", union)[0]
        done = self.memory.write(at & 0xFFFFFFFF, extra)
        self._reply(head, union[:12] + u32(done) + union[16:], 0 if done == len(extra) else FAILED)

    def _get_context(self, head, union, extra):
        self.context_read = True
        self._reply(head, union, 0, self.cpu.context())

    def _set_context(self, head, union, extra):
        if self.context_read and len(extra) == CONTEXT_SIZE:
            self.cpu.set_context(extra)
            self._reply(head, union)
        else:
            self.link.counters["set_context_refused"] += 1
            self._reply(head, union, FAILED)

    def _write_breakpoint(self, head, union, extra):
        at = struct.unpack_from("<I", union)[0]
        free = [n for n in range(1, 33) if n not in self.breakpoints]
        old = self.memory.read(at, 1)
        if not free or not old or at in [b[0] for b in self.breakpoints.values()]:
            self._reply(head, union, FAILED)
            return
        self.breakpoints[free[0]] = (at, old[0])
        self.memory.write(at, b"\xcc")
        self._reply(head, union[:8] + u32(free[0]) + union[12:])

    def _restore_breakpoint(self, head, union, extra):
        known = self.breakpoints.pop(struct.unpack_from("<I", union)[0], None)
        if known:
            self.memory.write(known[0], bytes([known[1]]))
        self._reply(head, union, 0 if known else FAILED)

    def _continue(self, head, union, extra):
        return not struct.unpack_from("<I", union)[0] >> 31

    def _continue2(self, head, union, extra):
        status, trace, dr7, start = struct.unpack_from("<IIII", union)
        if not status >> 31:
            eflags = self.cpu.r["eflags"] & ~TF
            self.cpu.r["eflags"] = eflags | (TF if trace else 0)
            self.cpu.set_dr(0, dr7)
            self.link.counters["symbol_range_set"] += start != 1
        return not status >> 31

    def _control_space(self, head, union, extra):
        """An offset into KPROCESSOR_STATE."""
        write = struct.unpack_from("<I", head)[0] == 0x3138
        at, count = struct.unpack_from("<QI", union)
        state = self.cpu.context() + bytes(self.cpu.special)
        if at >= len(state) or write and at + len(extra) > len(state):
            self._reply(head, union[:12] + u32(0) + union[16:], FAILED)
        elif write:
            state = bytearray(state)
            state[at:at + len(extra)] = extra
            self.cpu.set_context(bytes(state[:CONTEXT_SIZE]))
            self.cpu.special[:] = state[CONTEXT_SIZE:]
            self._reply(head, union[:12] + u32(len(extra)) + union[16:], 0, extra)
        else:
            got = state[at:at + count]
            self._reply(head, union[:12] + u32(len(got)) + union[16:], 0, got)

    def _version(self, head, union, extra):
        self._reply(head, struct.pack("<HHBBHHBBBBHqqq", 0x000C, 0x0ECE, 6, 0, 2, 0x14C, 0xC, 3,
                                      0x31, 0, 0, KERNEL - (1 << 32), LIST_HEAD - (1 << 32),
                                      DATA_LIST - (1 << 32)))

    def _query_memory(self, head, union, extra):
        if struct.unpack_from("<I", union, 16)[0]:
            self._reply(head, union, 0xC000000D)
        else:
            self._reply(head, union[:16] + struct.pack("<II", 2, 7) + union[24:])

    def _switch_partition(self, head, union, extra):
        self.print("Partition Switch support is unimplemented!\n")
        self._reply(head, union, FAILED)

    def _reboot(self, head, union, extra):
        raise Rebooting()

    def _cause_bugcheck(self, head, union, extra):
        self.bugcheck()

    def _nothing(self, head, union, extra):
        return None

    HANDLERS = {0x3130: _read, 0x3131: _write, 0x3132: _get_context, 0x3133: _set_context,
                0x3134: _write_breakpoint, 0x3135: _restore_breakpoint, 0x3136: _continue,
                0x3137: _control_space, 0x3138: _control_space, 0x313B: _reboot,
                0x313C: _continue2, 0x3146: _version, 0x3149: _cause_bugcheck,
                0x315A: _nothing, 0x315C: _query_memory, 0x315D: _switch_partition}

    # ---- life ----------------------------------------------------------------

    def _run_cpu(self):
        for _ in range(self.cpu_budget):
            result = self.cpu.step()
            if result is None:
                continue
            if result == "step":
                self.cpu.set_dr(self.cpu.dr()[0] | DR6_STEP, self.cpu.dr()[1])
            code = {"int3": EXC_INT3, "step": EXC_STEP}.get(result, 0xC000001D)
            if not self.exception(code) or result == "bad":
                self.exception(code, first_chance=0)
                self.bugcheck()

    def tick(self):
        if self.port.stop:
            raise Ended()
        self.ticks += 1
        if self.link.poll():
            self.break_in()
        self._run_cpu()
        while self.orders:
            self.orders.pop(0)()
        time.sleep(self.tick_s)

    def _boot(self):
        self.where, self.in_bugcheck = "booting", False
        self.boots += 1
        self.breakpoints = {}
        self._set_up_memory()
        self.link.restart()
        for _ in range(self.boot_ticks):
            self.port.idle(self.tick_s)
            self.port.write(self.noise)
        self.port.clear()
        for text in BOOT_PRINTS:
            self.say(text)
        root = "multi(0)disk(0)cdrom(96)\\reactos\\system32\\"
        self.load(root + "ntoskrnl.exe", KERNEL, KERNEL_SIZE)
        self.load(root + "hal.dll", 0x8090A000, 0x2AF000)
        remembered = self.link.poll()
        for text in LATER_PRINTS:
            self.say(text)
        for i, name in enumerate(DRIVERS):
            if i == 0 and self.early_list:
                self._set_up_list()
            self.load("\\reactos\\System32\\Drivers\\" + name, 0xFA000000 + i * 0x20000, 0x8000)
            if self.early_list:
                self._set_up_list()
        if remembered:
            self.break_in()
            self._run_cpu()
        for i, text in enumerate(LATER_PRINTS * 2):
            self.say(text)
            if i % 4 == 0:
                self.tick()
        self.load("\\SystemRoot\\System32\\smss.exe", 0x48580000, 0x1D000, pid=-1)
        self._set_up_list()
        self._run_cpu()

    def _run(self):
        self.where = "running"
        while True:
            self.tick()
            if self.print_every and self.ticks % self.print_every == 0:
                self.say("tick %d\n" % self.ticks)

    def live(self):
        while True:
            try:
                self._boot()
                self._run()
            except Rebooting:
                pass
            except Ended:
                return


class Stock:
    """The target in a thread of its own. kernel, link and port are for tests
    to look at; do() is how they make it do something."""

    def __init__(self, path, log=None, faults=(), byte_us=0, wait_s=0.025, patience=1,
                 stall=None, seed=1, kernel_class=Kernel, **kernel):
        self.path, self.trans = path, "com:pipe,port=%s" % path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(4)
        self.port = Port(self.listener, [Fault(f) for f in faults], byte_us, log)
        self.link = Link(self.port, wait_s, patience, stall, seed)
        self.kernel = kernel_class(self.link, **kernel)
        self.error = None
        self.thread = threading.Thread(target=self._live, daemon=True)
        self.thread.start()

    def _live(self):
        try:
            self.kernel.live()
        except Exception as e:  # a defect of the simulation: the test shall say so
            self.error = e
            raise

    def do(self, order):
        self.kernel.orders.append(order)

    def memory_at(self, at, n):
        return self.kernel.memory.read(at, n)

    def counters(self):
        return dict(self.link.counters + self.port.counters, boots=self.kernel.boots,
                    stops=self.kernel.stops, breakpoints=len(self.kernel.breakpoints))

    def close(self):
        self.port.stop = True
        self.thread.join(5)
        if self.port.conn:
            self.port.conn.close()
        self.listener.close()


def main():
    p = argparse.ArgumentParser(description="simulated stock target on a Unix socket")
    p.add_argument("--unix", required=True, metavar="PATH")
    p.add_argument("--log", metavar="FILE", help="every byte both ways")
    p.add_argument("--fault", action="append", default=[], metavar="in|out:KIND:N:ACTION")
    p.add_argument("--slow", action="store_true", help="10 ms a round trip, as port I/O costs it")
    p.add_argument("--wait-ms", type=float, default=25,
                   help="how long it waits for a byte, and so for an ACK")
    p.add_argument("--stall", type=float, default=0, help="probability of a 20-60 ms stall")
    p.add_argument("--noise", default="", help="text before the kernel's first byte")
    p.add_argument("--print-every", type=int, default=50, help="ticks")
    a = p.parse_args()
    log = open(a.log, "w") if a.log else None
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    t = Stock(a.unix, log, a.fault, 60 if a.slow else 0, a.wait_ms / 1000, 1,
              (a.stall, 0.02, 0.06) if a.stall else None, noise=a.noise.encode(),
              print_every=a.print_every)
    print("stocktarget: ready on %s" % a.unix, flush=True)
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    t.close()
    os.unlink(a.unix)
    print(json.dumps(t.counters()))


if __name__ == "__main__":
    main()
