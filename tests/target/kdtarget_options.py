#!/usr/bin/env python3
# kdtarget's options: carriers, timers, misbehaviour, signals, bad usage.
# SPDX-License-Identifier: MIT
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import tty

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
from kdhost import (ACK, DEBUG_IO, FILE_IO, INT3, MANIPULATE, STATE, STATUS_BREAK,  # noqa: E402
                    Host, Session, Timeout, equal, u32, u64)
from tap import Target, build, run  # noqa: E402

PROGRAM = os.path.join(build, 'kdtarget')


def raises(kind, function, *args):
    try:
        function(*args)
    except kind:
        return
    raise AssertionError('%s did not happen' % kind.__name__)


def usage_errors_say_what_is_wrong():
    for args, words in (
            ([], 'one of --unix'),
            (['--unix', 'a', '--tcp', '0'], 'only one'),
            (['--unix', 'a', 'b'], 'b: unexpected argument'),
            (['--unix', 'a', '--machine', 'arm'], 'amd64 or x86'),
            (['--unix', 'a', '--quirk', 'dos'], 'windows, reactos or bootloader'),
            (['--unix', 'a', '--hostile', 'x'], 'kinds in --help'),
            (['--unix', 'a', '--memory', '0'], '1 to 512'),
            (['--unix', 'a', '--memory', '16k'], '1 to 512'),
            (['--unix', 'a', '--seed', '-1'], '0 to'),
            (['--unix', 'a', '--no-reply-to', '99'], '3130 to 3160'),
            (['--nonsense'], "unrecognized option '--nonsense'\nTry kdtarget --help.\n")):
        p = subprocess.run([PROGRAM] + args, capture_output=True, text=True, timeout=10)
        equal(p.returncode, 2)
        assert words in p.stderr, p.stderr
    p = subprocess.run([PROGRAM, '--help'], capture_output=True, text=True, timeout=10)
    equal((p.returncode, p.stderr), (0, ''))
    assert 'list-loop' in p.stdout and '--wait' in p.stdout


def a_carrier_that_cannot_be_had():
    for args in (['--unix', '/nonexistent/x'], ['--unix', 'x' * 200], ['--tcp', '127.0.0.1:x'],
                 ['--tcp', '70000'], ['--tcp', '-1'], ['--tcp', 'localhost:65536'], ['--tcp', '4464 '],
                 ['--tcp', '127.0.0.1:'], ['--tcp', 'localhost:http'],
                 ['--pty=/nonexistent/x']):
        p = subprocess.run([PROGRAM] + args, capture_output=True, text=True, timeout=10)
        equal(p.returncode, 1)
        assert p.stderr.startswith('kdtarget: '), p.stderr


def a_socket_in_use_is_left_alone_and_a_stale_one_replaced():
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, 's')
        s = socket.socket(socket.AF_UNIX)
        s.bind(path)
        s.listen(1)
        p = subprocess.run([PROGRAM, '--unix', path], capture_output=True, text=True, timeout=10)
        equal(p.returncode, 1)
        assert 'in use' in p.stderr, p.stderr
        s.close()
        with Target(on=['--unix', path]):
            pass
        assert not os.path.exists(path)


def tcp_takes_a_free_port():
    with Target('--wait', on=['--tcp', '0']) as t:
        host, port = t.name.rsplit(':', 1)
        equal(host, '127.0.0.1')
        h = Host(socket.create_connection((host, int(port)), 10))
        equal(u32(h.stop(), 0x20), 0x80000003)
        h.close()


def ipv6_addresses_have_brackets():
    for given in '[::1]:0', '::1:0':
        try:
            socket.create_server(('::1', 0), family=socket.AF_INET6).close()
        except OSError:
            return  # a machine without IPv6
        with Target('--wait', on=['--tcp', given]) as t:
            host, port = t.name.rsplit(':', 1)
            equal(host, '[::1]')
            h = Host(socket.create_connection(('::1', int(port)), 10))
            equal(u32(h.stop(), 0x20), 0x80000003)
            h.close()


class Tty:
    """A tty that looks like a socket to Host."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self.fd)

    def sendall(self, data):
        while data:
            data = data[os.write(self.fd, data):]

    def settimeout(self, _):
        pass

    def recv(self, n):
        return os.read(self.fd, n)

    def close(self):
        os.close(self.fd)


def a_pty_with_a_link():
    with tempfile.TemporaryDirectory() as d:
        link = os.path.join(d, 'tty')
        with Target('--wait', '--print-every', '100', on=['--pty=' + link]) as t:
            equal(t.name, link)
            h = Host(Tty(link))
            h.stop()
            version = h.request(0x3146)[1]
            base = u64(version, 16)
            equal(len(h.read(base, 0x10000)), 0x10000)
            h.close()
        assert not os.path.lexists(link)


def line_number(host):
    return int(host.prints[-1].split()[-1])


def the_machine_goes_on_between_two_hosts():
    with Target('--wait', '--print-every', '20') as t:
        s = Session(t.path)
        s.skip_int3()
        s.go()
        s.host.wait(DEBUG_IO)
        first = line_number(s.host)
        s.host.close()
        h = Host.unix(t.path)
        h.wait(DEBUG_IO)
        assert line_number(h) > first, (first, h.prints)
        h.break_in()
        h.close()


def garbage_first():
    with Target('--wait', '--garbage-first', '5000') as t:
        h = Host.unix(t.path)
        h.stop()
        assert h.garbage >= 4000, h.garbage
        h.close()


def wrong_baud_is_never_a_packet():
    with Target('--wait', '--wrong-baud', '--print-every', '10') as t:
        h = Host.unix(t.path, patience=1.5)
        raises(Timeout, h.stop)
        assert len(h.buf) + h.garbage > 100
        h.close()


def plain_text_has_no_packets():
    with Target('--plain-text', '--print-every', '10') as t:
        h = Host.unix(t.path, patience=0.5)
        raises(Timeout, h.wait, STATE)
        h.fill(40, time.monotonic() + 5)
        h.close()
    with Target('--plain-text', '--print-every', '10') as t:
        s = socket.socket(socket.AF_UNIX)
        s.connect(t.path)
        assert s.recv(100).startswith(b'kdtarget: line ')
        s.close()


def silent_says_nothing():
    with Target('--wait', '--silent') as t:
        h = Host.unix(t.path, patience=1.0)
        h.sock.sendall(b'\x62' * 10)
        raises(Timeout, h.wait, STATE)
        equal(h.buf, b'')
        h.close()


def dropped_acks_come_after_a_repeat():
    with Target('--wait', '--drop-acks', '2') as t:
        h = Host.unix(t.path)
        h.wait(STATE, go_on=False)
        request = struct.pack('<IHHII', 0x3146, 0, 0, 0, 0).ljust(56, b'\0')
        end = time.monotonic() + 10
        h.send_data(MANIPULATE, request)
        kind, ident, _ = h.packet(end)
        equal(kind, MANIPULATE)
        h.send_control(ACK, ident)
        # The second is lost, too; the third comes.
        h.send_data(MANIPULATE, request)
        h.send_data(MANIPULATE, request)
        got = h.packet(end)
        while got[0] == MANIPULATE:  # what we acknowledged late
            got = h.packet(end)
        equal(got[:2], (ACK, h.tx))
        h.close()


def no_reply_to_one_api():
    with Target('--wait', '--no-reply-to', '3132') as t:
        s = Session(t.path)
        s.host.patience = 1.0
        raises(Timeout, s.host.request, 0x3132)
        s.host.patience = 10.0
        equal(s.host.read(s.base, 2), b'MZ')
        s.host.close()


def questions_once():
    with Target('--prompt-once', '--file-io-once', '--wait') as t:
        h = Host.unix(t.path)
        h.stop()
        version = h.request(0x3146)[1]
        s = Session.__new__(Session)
        s.host, s.wide, s.base = h, True, u64(version, 16)
        s.skip_int3()
        s.go()
        prompt = h.wait(DEBUG_IO)
        while u32(prompt) != 0x3231:
            prompt = h.wait(DEBUG_IO)
        h.answer(prompt, b'all is well')
        name = h.wait(FILE_IO)
        assert 'demo0.sys'.encode('utf-16-le') in name
        h.send_data(FILE_IO, name[:4] + struct.pack('<I', 0xc000000f) + name[8:64])
        while 'all is well' not in ''.join(h.prints) or 'does not have' not in ''.join(h.prints):
            h.wait(DEBUG_IO)
        h.break_in()
        h.close()


def signals_crash_and_int3():
    with Target('--wait') as t:
        s = Session(t.path)
        h = s.host
        s.skip_int3()
        s.go()
        t.signal(signal.SIGUSR2)
        s.stop()
        equal(s.pc(), s.base + INT3)
        s.skip_int3()
        s.go()
        h.prints.clear()
        t.signal(signal.SIGUSR1)
        s.stop()
        equal(s.pc(), s.base + STATUS_BREAK)
        assert '*** Fatal System Error: 0xDEADDEAD' in ''.join(h.prints), h.prints
        h.close()


def timers_make_things_happen():
    with Target('--wait', '--int3-every', '50', '--module-every', '30') as t:
        s = Session(t.path)
        s.host.loads.clear()
        for _ in range(4):
            s.skip_int3()
            s.go()
            s.stop()
            equal(s.pc(), s.base + INT3)
        assert s.host.loads, 'no module came'
        s.host.close()


def each_quirk_shows():
    for quirk, machine, length in (('windows', 'amd64', 224), ('reactos', 'amd64', 216),
                                   ('bootloader', 'amd64', 240)):
        with Target('--wait', '--quirk', quirk, '--machine', machine) as t:
            s = Session(t.path)
            equal(len(s.host.request(0x3137, struct.pack('<QI', 2, 240))[2]), length)
            equal(len(s.state), 0xf4 if quirk == 'reactos' else 0xf0)
            equal(s.data == 0, quirk == 'bootloader')
            s.host.close()


def every_hostile_kind_lives_through_a_session():
    text = subprocess.run([PROGRAM, '--help'], capture_output=True, text=True).stdout
    kinds = [line.split()[0] for line in text.split('--hostile KIND')[1].splitlines()[1:]
             if 'KDNET:' not in line and 'USB:' not in line]
    assert len(kinds) >= 12, kinds
    for kind in kinds:
        for machine in ('amd64', 'x86'):
            with Target('--wait', '--hostile', kind, '--machine', machine) as t:
                h = Host.unix(t.path)
                got = h.wait(STATE, go_on=False)
                assert got, kind
                h.send_data(MANIPULATE, struct.pack('<IHHII', 0x3146, 0, 0, 0, 0).ljust(56, b'\0'))
                assert h.wait(MANIPULATE), kind
                h.close()


def processor_ticks(target):
    with open('/proc/%d/stat' % target.process.pid) as f:
        fields = f.read().rsplit(')', 1)[1].split()
    return int(fields[11]) + int(fields[12])


def an_idle_target_sleeps():
    with Target('--stats') as t:
        begun = processor_ticks(t)
        # Boot without a debugger takes 1.25 s; then nothing has a reason to run.
        # This is the time that is measured.
        time.sleep(3)
        ticks = processor_ticks(t) - begun
        assert ticks <= 0.2 * os.sysconf('SC_CLK_TCK'), ticks
    stats = json.loads(t.rest)
    equal((stats['boots'], stats['stops'], stats['packets_received']), (1, 0, 0))
    assert stats['retransmissions_sent'] >= 4, stats


run([usage_errors_say_what_is_wrong, a_carrier_that_cannot_be_had,
     a_socket_in_use_is_left_alone_and_a_stale_one_replaced, tcp_takes_a_free_port, ipv6_addresses_have_brackets,
     a_pty_with_a_link, the_machine_goes_on_between_two_hosts, garbage_first,
     wrong_baud_is_never_a_packet, plain_text_has_no_packets, silent_says_nothing,
     dropped_acks_come_after_a_repeat, no_reply_to_one_api, questions_once,
     signals_crash_and_int3, timers_make_things_happen, each_quirk_shows,
     every_hostile_kind_lives_through_a_session, an_idle_target_sleeps])
