#!/usr/bin/env python3
# The bare-metal debuggee in QEMU, debugged through its emulated UART.
# SPDX-License-Identifier: MIT
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
from kdhost import (DEBUG_IO, INT3, LEAF, MANIPULATE, STATUS_BREAK, Session,  # noqa: E402
                    equal, region_word, u32, u64)
from tap import build, run, skip_all  # noqa: E402

SOURCE = os.environ.get('top_srcdir', '.')
COMMAND = 0x850  # the command word, from the kernel base


class Qemu:
    def __enter__(self):
        self.dir = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.dir.name, 'com1.sock')
        self.process = subprocess.Popen(
            ['sh', os.path.join(SOURCE, 'hw-fixtures/target/run-qemu.sh'), self.path],
            stderr=subprocess.DEVNULL)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.dir.cleanup()


def counters(s):
    names = ('repeated', 'received', 'sent', 'bad', 'duplicate', 'stops', 'ticks')
    block = s.host.read(s.base + 0x800, 0x60)
    equal(block[:8], b'KDTS\1\0\0\0')
    return dict(zip(names, struct.unpack_from('<7Q', block, 8)))


def break_in_read_memory_break_step_go():
    with Qemu() as q:
        s = Session(q.path, waits=False)
        h = s.host
        equal((s.pc(), s.base), (s.base + STATUS_BREAK, 0xfffff80000100000))
        equal(h.read(s.base, 2), b'MZ')
        equal(u64(s.context(), 0x80), 1)
        equal(h.read(u64(h.read(s.data, 8)) + 0x10, 4), b'KDBG')
        region = u64(h.read(s.base + 0x840, 8))
        equal(h.read(region, 8192), b''.join(region_word(i) for i in range(0, 8192, 8)))
        equal(h.read(0x1000000, 16, api=0x313d), region_word(0) + region_word(8))
        # Nothing is mapped behind the region, and reading there must fail only.
        end = region + u64(h.read(s.base + 0x848, 8))
        equal(len(h.read(end - 16, 64)), 16)
        equal(h.request(0x3130, struct.pack('<QI', 0xdeadbeef0000, 16))[0], 0xc0000001)

        s.skip_int3()
        handle = s.breakpoint(s.base + LEAF)
        for _ in range(2):
            s.go()
            s.stop()
            equal(s.pc(), s.base + LEAF)
            s.go(trace=1)
            s.stop()
            equal((s.pc(), u32(s.state, 0x20)), (s.base + LEAF + 1, 0x80000004))
            equal(s.breakpoint(s.base + LEAF), handle)
        equal(h.request(0x3135, struct.pack('<I', handle))[0], 0)
        h.prints.clear()
        s.go()
        h.wait(DEBUG_IO)
        assert h.prints[0].endswith(' seconds\n'), h.prints
        s.state = h.break_in()
        equal(s.pc(), s.base + STATUS_BREAK)
        h.close()


def a_hardware_breakpoint():
    with Qemu() as q:
        s = Session(q.path, waits=False)
        special = bytearray(s.host.request(0x3137, struct.pack('<QI', 2, 240))[2])
        equal(len(special), 224)
        struct.pack_into('<Q', special, 0x20, s.base + LEAF)
        equal(s.host.request(0x3138, struct.pack('<QI', 2, 224), bytes(special))[0], 0)
        s.skip_int3()
        s.host.go(dr7=0x401)
        s.stop()
        equal((s.pc(), u32(s.state, 0x20)), (s.base + LEAF, 0x80000004))
        equal(u64(s.state, 0xc0) & 15, 1)
        s.host.close()


def a_silent_host_is_repeated_to_and_counted():
    with Qemu() as q:
        s = Session(q.path, waits=False)
        h = s.host
        before = counters(s)['repeated']
        h.send_data(MANIPULATE, struct.pack('<IHHII', 0x3146, 0, 0, 0x103, 0).ljust(56, b'\0'))
        # Copies of the reply that nobody acknowledges.
        end = time.monotonic() + h.patience
        copies = 0
        while copies < 4:
            kind, ident, payload = h.packet(end)
            if kind == MANIPULATE:
                copies += 1
        h.send_control(4, ident)
        h.acked, h.tx, h.rx = True, h.tx ^ 1, h.rx ^ 1
        after = counters(s)['repeated']
        assert after - before >= 3, (before, after)
        h.close()


def a_crash_and_a_reboot():
    with Qemu() as q:
        s = Session(q.path, waits=False)
        h = s.host
        equal(h.write(s.base + COMMAND, b'\3\0\0\0'), 0)
        s.skip_int3()
        s.go()
        s.stop()
        equal(s.pc(), s.base + INT3)
        equal(h.write(s.base + COMMAND, b'\1\0\0\0'), 0)
        s.skip_int3()
        h.prints.clear()
        s.go()
        s.stop()
        assert '*** Fatal System Error: 0xDEADDEAD' in ''.join(h.prints), h.prints
        equal(u64(s.context(), 0x80), 3)
        s.skip_int3()
        s.go()
        s.stop()
        equal(u64(s.context(), 0x80), 4)
        h.prints.clear()
        h.loads.clear()
        h.silent(0x313b)
        while 'boot complete' not in ''.join(h.prints):
            h.wait(DEBUG_IO)
        equal(h.loads[0], ('', 1))
        s.state = h.break_in()
        equal(s.pc(), s.base + STATUS_BREAK)
        h.close()


if not shutil.which(os.environ.get('QEMU', 'qemu-system-x86_64')):
    skip_all('qemu-system-x86_64 is not installed')
if not os.path.exists(os.path.join(build, 'kdtarget.elf')):
    skip_all('kdtarget.elf is built for 64-bit PCs only')
run([break_in_read_memory_break_step_go, a_hardware_breakpoint,
     a_silent_host_is_repeated_to_and_counted, a_crash_and_a_reboot])
