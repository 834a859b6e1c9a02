#!/usr/bin/env python3
# A whole session with kdtarget, by a host that shares no code with it.
# SPDX-License-Identifier: MIT
import json
import os
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
from kdhost import (DEBUG_IO, LEAF, STATUS_BREAK, Session, equal, region_word,  # noqa: E402
                    u32, u64)
from tap import Target, run  # noqa: E402

MODULES = ['ntoskrnl.exe', 'hal.dll', 'kdcom.dll', 'disk.sys']


def session(machine):
    wide = machine == 'amd64'
    with Target('--machine', machine, '--wait', '--stats', '--print-every', '50') as target:
        s = Session(target.path, wide)
        h = s.host
        equal([os.path.basename(n.replace('\\', '/')) for n, _ in h.loads], MODULES)
        assert 'boot complete' in ''.join(h.prints), h.prints
        equal(s.pc(), s.base + STATUS_BREAK)
        equal(u32(s.state, 0x20), 0x80000003)
        equal(h.read(s.base, 2), b'MZ')
        equal(len(s.context()), 1232 if wide else 716)

        region = u64(h.read(s.base + 0x840, 8))
        want = b''.join(region_word(i) for i in range(0, 65536, 8))
        equal(h.read(region, 65536), want)
        equal(h.read(region + 3, 100), want[3:103])

        s.skip_int3()
        handle = s.breakpoint(s.base + LEAF)
        equal(h.read(s.base + LEAF, 1), b'\xcc')
        for _ in range(2):
            s.go()
            s.stop()
            equal(s.pc(), s.base + LEAF)
            equal(h.read(s.base + LEAF, 1), b'\x55')
            s.go(trace=1)
            s.stop()
            equal((s.pc(), u32(s.state, 0x20)), (s.base + LEAF + 1, 0x80000004))
            equal(s.breakpoint(s.base + LEAF), handle)
        equal(h.request(0x3135, struct.pack('<I', handle))[0], 0)
        equal(h.request(0x3135, struct.pack('<I', handle))[0], 0xc0000001)

        h.prints.clear()
        s.go()
        h.wait(DEBUG_IO)
        h.wait(DEBUG_IO)
        assert all(p.startswith('kdtarget: line') for p in h.prints), h.prints
        s.state = h.break_in()
        equal(s.pc(), s.base + STATUS_BREAK)

        h.loads.clear()
        h.silent(0x313b)
        s.stop()
        equal(h.loads[0], ('', 1))
        equal([os.path.basename(n.replace('\\', '/')) for n, _ in h.loads[1:]], MODULES)
        h.close()
    stats = json.loads(target.rest)
    equal((stats['boots'], stats['bad_received']), (2, 0))


def a_64_bit_session():
    session('amd64')


def a_32_bit_session():
    session('x86')


if __name__ == '__main__':
    run([a_64_bit_session, a_32_bit_session])
