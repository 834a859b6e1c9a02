#!/usr/bin/env python3
# kdtarget on an emulated USB cable, by a host that shares no code with it.
# SPDX-License-Identifier: MIT
import json
import os
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
from kdhost import (ACK, DEBUG_IO, FIRST, LEAF, RESEND, STATE, STATUS_BREAK, SYNC,  # noqa: E402
                    Session, equal, region_word, u32, u64)
from kdnet import mapped  # noqa: E402
from tap import Target, build, run  # noqa: E402
from usbhost import Cable, EemHost, EemWire, UsbHost  # noqa: E402

PROGRAM = os.path.join(build, 'kdtarget')
KEY = '1m770ts6ru0p.3671pemyie4i.2b8djy3wt5et.1p99ir125v4q'
NOBODY = (mapped('0.0.0.0'), 0)


def usb_target(cable, *args):
    return Target('--stats', *args, on=['--usb', cable.path])


def eem_target(cable, *args):
    return Target('--stats', *args,
                  on=['-k', 'net:port=50005,key=' + KEY, '--usb', cable.path])


def stats_of(target):
    return json.loads(target.rest)


# ---- KDUSB -------------------------------------------------------------------

def a_whole_session():
    with Cable() as cable, usb_target(cable, '--name', 'Rig-1', '--wait', '--print-every',
                                      '50') as target:
        equal(target.name, cable.path)
        host = UsbHost(cable.plugged())
        # The first packet does not wait for the question.
        first = host.packet(host.end())
        equal((first[0], first[1]), (DEBUG_IO, FIRST | SYNC))
        assert first[2].endswith(b'using USB\n'), first
        equal(host.ask(), b'NAME=Rig-1\0\0')
        s = Session(host)
        equal((len(host.loads), host.resets, s.pc()), (4, 0, s.base + STATUS_BREAK))
        region = u64(host.read(s.base + 0x840, 8))
        want = b''.join(region_word(i) for i in range(0, 16384, 8))
        equal(host.read(region, 16384, piece=3944), want)
        equal(max(map(len, host.transfers)), 4016)
        s.skip_int3()
        s.breakpoint(s.base + LEAF)
        s.go()
        s.stop()
        equal(s.pc(), s.base + LEAF)
        host.prints.clear()
        s.go()
        host.wait(DEBUG_IO)
        assert host.prints[0].startswith('kdtarget: line'), host.prints
        s.state = host.break_in()
        equal(s.pc(), s.base + STATUS_BREAK)
        reboots(cable, host)
    stats = stats_of(target)
    equal((stats['boots'], stats['bad_received']), (2, 0))
    equal((stats['usb']['plugged_in'], stats['usb']['name_asked']), (2, 2))


def reboots(cable, host):
    """The device leaves and returns; ids start over."""
    host.silent(0x313b)
    equal(u32(host.wait(STATE, go_on=False)), 0x3031)
    host.send_data(2, struct.pack('<IHHII', 0x3136, 0, 0, 0x10001, 0) +
                   struct.pack('<I', 0x10001).ljust(40, b'\0'))
    cable.unplugged()
    again = UsbHost(cable.plugged())
    first = again.packet(again.end())
    equal((first[0], first[1]), (DEBUG_IO, FIRST | SYNC))
    equal(again.ask(), b'NAME=Rig-1\0\0')
    again.stop()


def the_name_is_told_whatever_the_machine_does():
    with Cable() as cable, usb_target(cable, '--wait', '--tries', '1000000') as target:
        host = UsbHost(cable.plugged())
        s = Session(host)
        equal(host.ask(), b'NAME=kdtarget\0\0')
        s.skip_int3()
        s.go()
        equal(host.ask(), b'NAME=kdtarget\0\0')
        # It is a question only as a transfer of its own.
        cable.put(b'NAME?\0')
        cable.put(b'NAME')
        host.break_in()
        equal(len(host.names), 2)
    equal(stats_of(target)['usb']['name_asked'], 2)


def it_waits_for_the_front_end():
    cable = Cable()
    with usb_target(cable, '--wait') as target:
        assert target.process.poll() is None
        cable.listen()
        host = UsbHost(cable.plugged())
        host.stop()
        cable.close()
    equal(stats_of(target)['usb']['plugged_in'], 1)


def it_ends_without_a_front_end():
    cable = Cable()
    with usb_target(cable) as target:
        pass
    equal(stats_of(target)['usb']['plugged_in'], 0)
    cable.close()


def an_unplugged_cable_is_plugged_in_again():
    with Cable() as cable, usb_target(cable, '--wait', '--tries', '1000000') as target:
        host = UsbHost(cable.plugged())
        host.stop()
        # A reply is on its way when the cable goes.
        host.send_data(2, struct.pack('<IHHII', 0x3146, 0, 0, 0x103, 0) + bytes(40))
        host.wait(2)
        again = UsbHost(cable.plugged())
        again.tx, again.rx = host.tx ^ (not host.acked), host.rx
        equal(len(again.request(0x3146)[1]), 40)
    equal(stats_of(target)['boots'], 1)


def a_boot_storm():
    with Cable() as cable, usb_target(cable, '--wait', '--replug', '3', '--name', 'x') as target:
        for _ in range(3):
            host = UsbHost(cable.plugged())
            # It stays for 200 ms: who is slow gets no answer.
            try:
                host.ask()
                cable.unplugged()
            except (EOFError, ConnectionError):
                pass
            assert set(host.transfers) <= {b'NAME=x\0\0'}, host.transfers
        host = UsbHost(cable.plugged())
        s = Session(host)
        equal(len(host.loads), 4)
        equal(s.pc(), s.base + STATUS_BREAK)
    equal(stats_of(target)['usb']['plugged_in'], 4)


def junk_from_the_host_is_survived():
    with Cable() as cable, usb_target(cable, '--wait') as target:
        host = UsbHost(cable.plugged())
        host.stop()
        for junk in (b'', b'\0', b'NAME=', b'0000', b'i' * 16, bytes(4096), b'0000\2\0\xff\xff' +
                     bytes(16376), bytes(20000)):
            cable.put(junk)
        cable.sock.sendall(b'Xyz')
        equal(host.ask(), b'NAME=kdtarget\0\0')
        equal(len(host.request(0x3146)[1]), 40)
    assert stats_of(target)['bad_received'] >= 5


def more_than_the_cable_holds():
    with Cable() as cable, usb_target(cable, '--wait', '--garbage-first', '3000000'):
        cable.plugged()
        end, noise = time.monotonic() + 60, 0
        while noise < 3000000:
            noise += len(cable.transfer(end))
        equal(noise, 3000000)
        UsbHost(cable).stop()


def hostile_kinds_of_usb():
    with Cable() as cable, usb_target(cable, '--wait', '--hostile', 'no-name'):
        host = UsbHost(cable.plugged())
        cable.put(b'NAME?')
        host.stop()
        equal(host.names, [])
    with Cable() as cable, usb_target(cable, '--wait', '--hostile', 'endless-name'):
        equal(UsbHost(cable.plugged()).ask(), b'NAME=kdtarget'.ljust(37, b'A'))
    with Cable() as cable, usb_target(cable, '--wait', '--hostile', 'trailers'):
        transfer = cable.plugged().transfer(time.monotonic() + 10)
        n, = struct.unpack('<H', transfer[6:8])
        equal((len(transfer), transfer[-1]), (17 + n, 0xaa))
    with Cable() as cable, usb_target(cable, '--wait', '--hostile', 'halves'):
        cable.plugged()
        end = time.monotonic() + 10
        whole = cable.transfer(end) + cable.transfer(end)
        equal(len(whole), 16 + struct.unpack('<H', whole[6:8])[0])


def every_hostile_kind_lives_through_a_start():
    text = subprocess.run([PROGRAM, '--help'], capture_output=True, text=True).stdout
    kinds = [line.split()[0] for line in text.split('--hostile KIND')[1].splitlines()[1:]]
    assert 'noise' in kinds
    for kind in kinds:
        if kind in ('bad-tags', 'reflected', 'replayed', 'truncated'):
            continue
        with Cable() as cable, usb_target(cable, '--wait', '--hostile', kind,
                                          '--garbage-first', '700'):
            cable.plugged().transfer(time.monotonic() + 10)


# ---- KDNET in Ethernet frames ------------------------------------------------

def kdnet_on_usb():
    with Cable() as cable, eem_target(cable, '--wait', '--poke-every', '50') as target:
        host = EemHost(KEY, cable.plugged())
        poke = host.poke()
        frame = host.sock.frames[0]
        equal((frame[:6], frame[30:34]), (b'\xff' * 6, bytes((169, 254, 255, 255))))
        equal((poke.configured, poke.current), ((mapped('169.254.255.255'), 50005), NOBODY))
        equal(poke.target, (mapped('169.254.75.2'), 50005))
        equal(poke.sender, ('169.254.75.2', 50005))
        seq, ping = host.connect(poke)
        equal((seq, ping[8:]), (1, EemWire.IP[::-1]))
        equal(host.sock.frames[-1][:6], EemWire.MAC)
        s = Session(host)
        region = u64(host.read(s.base + 0x840, 8))
        want = b''.join(region_word(i) for i in range(0, 8192, 8))
        equal(host.read(region, 8192, piece=1096), want)
        frame = host.sock.frames[-1]
        equal((frame[:6], frame[30:34]), (EemWire.MAC, EemWire.IP))
        equal(host.poke().current, (mapped('169.254.9.9'), 50005))
        # A transfer may carry several frames, each with a CRC.
        host.sock.filled_crc, host.sock.bundle = True, []
        host.send_control(RESEND)
        host.send_control(RESEND)
        host.send_data(2, struct.pack('<IHHII', 0x3146, 0, 0, 0x103, 0) + bytes(40))
        cable.put(b'\0\0'.join(host.sock.bundle))
        host.sock.bundle = None
        host.wait(2)
        s.skip_int3()
        s.go()
        host.break_in()
        eem_reboots(cable, host, poke.boot)
    stats = stats_of(target)
    equal((stats['boots'], stats['net']['responses'], stats['net']['denied']), (2, 2, 0))
    equal(stats['usb']['plugged_in'], 3)


def eem_reboots(cable, host, boot):
    # A cable that is only unplugged keeps the session. What was sent must have arrived.
    cable.put(b'\x01\x80?')
    while not host.sock.replies:
        host.poke()
    cable.plugged()
    equal(len(host.request(0x3146)[1]), 40)
    host.send_data(2, struct.pack('<IHHII', 0x313b, 0, 0, 0x103, 0) + bytes(40))
    host.settle()
    equal(u32(host.wait(STATE, go_on=False)), 0x3031)
    host.send_data(2, struct.pack('<IHHII', 0x3136, 0, 0, 0x10001, 0) +
                   struct.pack('<I', 0x10001).ljust(40, b'\0'))
    cable.unplugged()
    cable.plugged()
    again = EemHost(KEY, cable)
    poke = again.poke()
    assert poke.boot != boot
    # Those of the time without a cable are lost.
    equal((poke.seq % 3, poke.current), (0, NOBODY))
    again.connect(poke)
    again.stop()


def arp_and_echo_are_answered():
    with Cable() as cable, eem_target(cable, '--poke-every', '3600000') as target:
        wire = EemWire(cable.plugged(), 50005)
        ours = wire.MAC + wire.IP
        ask = bytes.fromhex('0001080006040001') + ours + bytes(6) + bytes((169, 254, 75, 2))
        wire.put(b'\xff' * 6 + wire.MAC + b'\x08\x06' + ask[:-1] + b'\x09')
        wire.put(b'\xff' * 6 + wire.MAC + b'\x08\x06' + ask)
        end = time.monotonic() + 10
        frame = wire.frame(end)
        while frame[12:14] != b'\x08\x06':
            frame = wire.frame(end)
        theirs = frame[6:12] + bytes((169, 254, 75, 2))
        equal(frame, wire.MAC + theirs[:6] + bytes.fromhex('08060001080006040002') + theirs + ours)
        for n in (0, 3, 1022, 2047):
            cable.put(struct.pack('<H', 0x8000 | n) + b'e' * n)
            equal(wire.frame(end), None)
            equal(wire.replies[-1], (1, b'e' * n))
    equal(stats_of(target)['net']['foreign'], 0)


# ---- usage -------------------------------------------------------------------

def usage_errors_say_what_is_wrong():
    for args, words in (
            (['--usb', 'a', '--unix', 'b'], 'not for --unix'),
            (['--usb', 'a', '--name', ''], '1 to 31'),
            (['--usb', 'a', '--name', 'x' * 32], '1 to 31'),
            (['--usb', 'a', '--name', 'a b'], '1 to 31'),
            (['--usb', 'a', '--replug', '1001'], '0 to 1000'),
            (['--usb', 'a', '--wrong-baud'], 'not for --usb'),
            (['--usb', 'a', '--hostile', 'replayed'], 'for -k net:'),
            (['--unix', 'a', '--hostile', 'no-name'], 'for --usb'),
            (['--unix', 'a', '--name', 'x'], 'for --usb'),
            (['--unix', 'a', '--replug', '1'], 'for --usb'),
            (['--usb', 'a', '-k', 'net:port=1,key=1.2.3.4', '--name', 'x'], 'without -k'),
            (['--usb', 'a', '-k', 'net:port=1,key=1.2.3.4', '--poke-configured'],
             'not for --usb')):
        p = subprocess.run([PROGRAM] + args, capture_output=True, text=True, timeout=10)
        equal((args, p.returncode), (args, 2))
        assert words in p.stderr, (args, p.stderr)
    for args, words in ((['--usb', 'x' * 200], 'too long'),
                        (['--usb', 'a', '-k', 'net:host=::1,port=1,key=1.2.3.4'], 'IPv4')):
        p = subprocess.run([PROGRAM] + args, capture_output=True, text=True, timeout=10)
        equal((args, p.returncode), (args, 1))
        assert words in p.stderr, (args, p.stderr)


if __name__ == '__main__':
    run([a_whole_session, the_name_is_told_whatever_the_machine_does, it_waits_for_the_front_end,
         it_ends_without_a_front_end, an_unplugged_cable_is_plugged_in_again, a_boot_storm,
         junk_from_the_host_is_survived,
         more_than_the_cable_holds, hostile_kinds_of_usb,
         every_hostile_kind_lives_through_a_start, kdnet_on_usb, arp_and_echo_are_answered,
         usage_errors_say_what_is_wrong])
