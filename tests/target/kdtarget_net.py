#!/usr/bin/env python3
# kdtarget over KDNET, by a host that shares no code with it.
# SPDX-License-Identifier: MIT
import json
import os
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
from kdhost import (ACK, DEBUG_IO, LEAF, MANIPULATE, RESEND, RESET, STATE,  # noqa: E402
                    STATUS_BREAK, Session, Timeout, equal, region_word, u32, u64)
from kdnet import Keys, NetHost, key_bytes, mapped  # noqa: E402
from tap import Target, build, run  # noqa: E402

PROGRAM = os.path.join(build, 'kdtarget')
# Four words of thirteen characters: all eight bytes of each count.
KEY = '1m770ts6ru0p.3671pemyie4i.2b8djy3wt5et.1p99ir125v4q'
NOBODY = (mapped('0.0.0.0'), 0)


def net_target(host, *args, key=KEY, address=None, bind=None):
    where = 'net:port=%d,key=%s,bindport=0' % (host.port, key)
    if '--no-configured-host' not in args:
        where += ',host=' + (address or host.address)
    if bind:
        where += ',bind=' + bind
    return Target('--stats', *args, on=['-k', where])


def quiet(host, seconds=0.3):
    """Whether the target says nothing but pokes for so long."""
    end = time.monotonic() + seconds
    try:
        while host.datagram(end)[0] == 1:
            pass
        return False
    except Timeout:
        return True


def net_stats(target):
    return json.loads(target.rest)['net']


# ---- recorded bytes ----------------------------------------------------------

# Of a Windows 8.1 target whose key was 1.1.1.1: data key, then sequence number,
# direction, body, tag and ciphertext of a ping, a RESEND and a break-in.
RECORDED_KEY = '6d41dd0561a9f887afd8e82b2527e19ff800011075ff2ee6904553abbec778f2'
RECORDED = (
    (2, 0, '00000000000000000b00a8c0',
     '03305f861f97f56338f6e3cb781ed06d',
     '64086146cafbc387d7e24e5916f065fdc5ba9e86ffab1997d2cc14c1afc52b94'),
    (1, 1, '69696969050000000000000000000000',
     'f0c2e6b0a3bdec0a864818b80ca494f8',
     '9963849c51387a4ba2f7b5490fb8a7580f2e5649cbc6e94a286f60f4c16eac1a'),
    (2, 1, '62',
     '15d4c904a93fc1c283e6b364c84d3d09',
     '3d905343a507a805cb06ff6976ef1f3c'),
)


def the_host_of_these_tests_seals_as_recorded():
    keys = Keys('1.1.1.1')
    keys.data = bytes.fromhex(RECORDED_KEY)
    for seq, to_target, body, tag, ciphertext in RECORDED:
        wire = b'MDBG\2\0' + bytes.fromhex(ciphertext + tag)
        equal(keys.open(wire), (2, 0, seq, to_target, bytes.fromhex(body)))
        equal(keys.seal(2, 0, seq, to_target, bytes.fromhex(body)), wire)
    equal(key_bytes(KEY).hex(),
          'b9569fcc7cf9f30202b242b33852cb05a5ac940b08223904da42f63667b01b03')


# ---- sessions ----------------------------------------------------------------

def first_contact(host, target, version):
    """Everything that is said before the first KD packet."""
    own = (mapped(host.address), host.port)
    poke = host.poke()
    equal((poke.version, poke.seq, poke.configured, poke.current, poke.info),
          (version, 3, own, NOBODY, bytes(256)))
    equal(poke.target, (mapped(poke.sender[0]), poke.sender[1]))
    equal(target.name, 'net:port=%d' % poke.sender[1])
    seq, ping = host.connect(poke)
    equal(seq, 1)
    if ':' not in host.address:
        equal(ping[8:], socket.inet_aton(host.address)[::-1])
    return poke


def whole_session(version, address='127.0.0.1', wide=True):
    host = NetHost(KEY, address)
    with net_target(host, '--wait', '--net-version', str(version), '--machine',
                    'amd64' if wide else 'x86', '--print-every', '50') as target:
        boot = first_contact(host, target, version).boot
        # The first packet does not wait for us; RESEND brings the same again, sealed anew.
        end = host.end()
        first = host.packet(end)
        before = host.seen
        host.send_control(RESEND)
        equal(host.packet(end), first)
        equal((first[:2], host.seen > before), ((DEBUG_IO, 0), True))
        host.send_control(ACK, 0)
        host.rx = 2
        s = Session(host, wide)
        equal(host.ids, list(range(2, host.rx, 2)))
        equal((len(host.loads), host.resets, s.pc()), (4, 0, s.base + STATUS_BREAK))
        region = u64(host.read(s.base + 0x840, 8))
        want = b''.join(region_word(i) for i in range(0, 16384, 8))
        equal(host.read(region, 16384, piece=1096), want)
        equal(len(s.context()), 1232 if wide else 716)
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
        reboots(host, s, boot)
        host.close()
    stats = json.loads(target.rest)
    equal((stats['boots'], stats['bad_received'], stats['net']['responses']), (2, 0, 2))
    equal((stats['net']['denied'], stats['net']['foreign']), (0, 0))


def reboots(host, s, boot):
    """The target starts over: another nonce, no session, numbers from the start."""
    host.silent(0x313b)
    equal(u32(host.wait(STATE, go_on=False)), 0x3031)
    host.go(0x3136)
    poke = host.poke()
    while poke.boot == boot:
        poke = host.poke()
    equal((poke.seq, poke.current), (3, NOBODY))
    host.rx, host.tx = 0, 0x80000000
    equal(host.connect(poke)[0], 1)
    del host.ids[:]
    s.stop()
    equal(host.ids[0], 0)


def a_whole_session_with_version_2():
    whole_session(2)


def a_whole_session_with_version_4_and_a_32_bit_machine():
    whole_session(4, wide=False)


def a_whole_session_with_version_5():
    whole_session(5)


def a_whole_session_over_ipv6():
    try:
        whole_session(5, '::1')
    except OSError:
        if os.path.exists('/proc/net/if_inet6') and '0' * 31 + '1 ' in open(
                '/proc/net/if_inet6').read():
            raise
        print('# no IPv6 here')


def pokes_never_stop():
    host = NetHost(KEY)
    with net_target(host, '--poke-every', '40', '--wait') as target:
        pokes = [host.poke() for _ in range(3)]
        host.connect()
        s = Session(host)
        pokes += [host.poke() for _ in range(3)]
        equal(pokes[-1].current, (mapped('127.0.0.1'), host.port))
        s.skip_int3()
        s.go()
        pokes += [host.poke() for _ in range(3)]
        seen = host.pokes
        equal([p.seq for p in seen], list(range(3, 3 * len(seen) + 1, 3)))
        equal([p.counter - seen[0].counter & 0xffffffffffffffff for p in seen],
              list(range(len(seen))))
        equal(len({p.boot for p in seen}), 1)
        host.close()
    assert net_stats(target)['pokes'] >= len(seen)


def the_ping_is_repeated_until_the_host_speaks():
    host = NetHost(KEY)
    with net_target(host, '--poke-every', '40'):
        host.connect()
        end = host.end()
        while len(host.pings) < 4:
            host.packet(end)
        host.send_control(RESEND)
        # Some may have been on their way. Each would come with a poke.
        silent, end = 0, host.end()
        while silent < 4:
            kind, _, body = host.datagram(end)
            silent = silent + 1 if kind else 0 if len(body) == 12 else silent
        host.close()


def a_new_key_keeps_the_ids_and_what_is_unacknowledged():
    host = NetHost(KEY)
    with net_target(host, '--poke-every', '50', '--wait', '--ack-timeout-ms', '30000') as target:
        host.connect()
        host.wait(STATE, go_on=False)
        # The reply to this request is not acknowledged.
        host.send_data(MANIPULATE, struct.pack('<IHHII', 0x3146, 0, 0, 0, 0).ljust(56, b'\0'))
        end = host.end()
        reply = host.packet(end)
        while reply[0] != MANIPULATE:
            reply = host.packet(end)
        equal(reply[1], host.rx)
        old, old_seq = host.keys.data, host.seq
        equal(host.connect()[0], 1)
        equal(host.packet(host.end()), reply)
        # What is sealed with the old key is noise now.
        host.keys.data, new = old, host.keys.data
        host.seq = old_seq
        host.send_control(ACK, reply[1])
        host.keys.data, host.seq = new, 0
        host.send_control(ACK, reply[1])
        host.acked, host.tx, host.rx = True, host.tx + 2, host.rx + 2
        base = u64(host.request(0x3146)[1], 16)
        equal(host.read(base, 2), b'MZ')
        host.close()
    equal((net_stats(target)['responses'], net_stats(target)['denied']), (2, 1))


def a_second_host_takes_over():
    first, second = NetHost(KEY), NetHost(KEY)
    # The poke that the second one asks for is all that it gets: it has 1 s to answer.
    with net_target(first, '--poke-every', '1000', '--wait', '--poke-configured') as target:
        first.connect()
        first.wait(STATE, go_on=False)
        second.target = first.target
        second.put(second.keys.seal(2, 1, 0, 1, b''))
        poke = second.poke()
        equal(poke.current, (mapped('127.0.0.1'), first.port))
        second.connect(poke)
        # It expects id 0; the target tells which it has come to.
        second.send_control(RESET, second.tx)
        second.wait(STATE, go_on=False)
        equal((second.resets, second.ids), (1, [first.rx]))
        base = u64(second.request(0x3146)[1], 16)
        equal(second.read(base, 2), b'MZ')
        # The first hears of it, and nothing that it says counts.
        while first.poke().current != (mapped('127.0.0.1'), second.port):
            pass
        first.send_control(RESET, first.tx)
        equal(second.read(base, 2), b'MZ')
        assert quiet(first)
        first.close()
        second.close()
    equal((net_stats(target)['host_pokes'], net_stats(target)['denied']), (1, 1))


def without_a_configured_host_it_waits_to_be_asked():
    host = NetHost(KEY)
    with net_target(host, '--poke-every', '20', '--no-configured-host', '--wait',
                    bind='127.0.0.1') as target:
        host.target = ('127.0.0.1', int(target.name.split('=')[1]))
        assert quiet(host) and not host.pokes
        for n in (1, 2):
            host.put(host.keys.seal(2, 1, 0, 1, b''))
            poke = host.poke()
            equal((poke.seq, poke.configured, poke.current), (3 * n, NOBODY, NOBODY))
        host.connect(poke)
        host.wait(STATE, go_on=False)
        host.poke()
        host.close()


def a_broadcast_host_address_finds_the_real_host():
    host = NetHost(KEY, bind='')
    with net_target(host, '--poke-every', '50', '--wait', address='127.255.255.255'):
        poke = host.poke()
        equal(poke.configured, (mapped('127.255.255.255'), host.port))
        host.connect(poke)
        host.wait(STATE, go_on=False)
        poke = host.poke()
        while poke.current == NOBODY:
            poke = host.poke()
        equal(poke.current[1], host.port)
        assert poke.current[0] != mapped('127.255.255.255')
        host.close()


# ---- what must not count -----------------------------------------------------

def only_a_fitting_response_makes_a_session():
    host = NetHost(KEY)
    with net_target(host, '--poke-every', '50', '--wait') as target:
        pokes = [host.poke() for _ in range(4)]
        host.target = pokes[0].sender
        for poke, seq, nonce in ((pokes[0], None, None),
                                 (pokes[3], pokes[3].seq + 3000, None),
                                 (pokes[3], None, os.urandom(32))):
            body, datagram = host.response(poke, seq, nonce)
            host.put(datagram)
        reflected = host.keys.seal(5, 1, pokes[3].seq, 0, body)
        host.put(reflected)
        host.put(NetHost('1.2.3.4').response(pokes[3])[1])
        for junk in (b'', b'MDBG', b'GBDM\5\1' + bytes(32), bytes(4097)):
            host.put(junk)
        assert quiet(host)
        equal(host.poke().current, NOBODY)
        host.connect()
        host.wait(STATE, go_on=False)
        host.close()
    stats = net_stats(target)
    equal((stats['responses'], stats['reflected'], stats['denied']), (1, 1, 1))
    equal(stats['foreign'], 3)


def replays_from_the_host_are_dropped():
    host = NetHost(KEY)
    # Without another poke an answer that was taken stays one that may be replayed.
    with net_target(host, '--wait', '--poke-every', '3600000') as target:
        host.connect()
        host.wait(STATE, go_on=False)
        base = u64(host.request(0x3146)[1], 16)
        said = list(host.sent)
        for datagram in said:
            host.put(datagram)
        equal(host.read(base, 2), b'MZ')
        equal(host.refused, 0)
        host.close()
    equal((net_stats(target)['replayed'], net_stats(target)['responses']), (len(said), 1))


def every_hostile_kind_lives_through_a_session():
    text = subprocess.run([PROGRAM, '--help'], capture_output=True, text=True).stdout
    kinds = [line.split()[0] for line in text.split('--hostile KIND')[1].splitlines()[1:]
             if 'USB:' not in line]
    assert {'bad-tags', 'reflected', 'replayed', 'truncated'} < set(kinds), kinds
    for kind in kinds:
        host = NetHost(KEY)
        with net_target(host, '--wait', '--hostile', kind) as target:
            host.connect()
            end = host.end()
            got = None
            while not got or got[0] != STATE:
                got = host.step(end)
            host.close()
        if kind in ('bad-tags', 'reflected', 'replayed', 'truncated'):
            assert host.refused >= 2, (kind, host.refused)


def usage_errors_say_what_is_wrong():
    good = 'net:host=127.0.0.1,port=50000,key=1.2.3.4'
    for args, words in (
            (['-k', 'com:port=x'], 'must be net:'),
            (['-k', 'net:'], 'must be host='),
            (['-k', 'net:host=a,port=1'], 'port= and key='),
            (['-k', 'net:port=1,key=1.2.3.4'], 'needs host='),
            (['-k', 'net:host=,port=1,key=1.2.3.4'], 'is empty'),
            (['-k', 'net:host=a,port=0,key=1.2.3.4'], 'up to 65535'),
            (['-k', 'net:host=a,port=65536,key=1.2.3.4'], 'up to 65535'),
            (['-k', 'net:host=a,port=1,key=0.0.0.0'], 'all zero'),
            (['-k', 'net:host=a,port=1,key=1.2.3'], 'net: '),
            (['-k', 'net:host=a,port=1,key=1.2.3.4,x=1'], 'must be host='),
            (['-k', good, '--net-version', '3'], '2, 4 or 5'),
            (['-k', good, '--poke-every', '0'], '1 to'),
            (['-k', good, '--no-configured-host'], 'without host='),
            (['-k', good, '--wrong-baud'], 'not for -k net:'),
            (['-k', good, '--unix', 'x'], 'only one'),
            (['--unix', 'x', '--no-configured-host'], 'without host='),
            (['--unix', 'x', '--hostile', 'replayed'], 'for -k net:')):
        p = subprocess.run([PROGRAM] + args, capture_output=True, text=True, timeout=10)
        equal((args, p.returncode), (args, 2))
        assert words in p.stderr, (args, p.stderr)


def a_port_that_cannot_be_had():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(('127.0.0.1', 0))
    port = s.getsockname()[1]
    for where in ('bind=127.0.0.1,bindport=%d' % port, 'bind=192.0.2.1'):
        p = subprocess.run([PROGRAM, '-k', 'net:host=127.0.0.1,port=%d,key=1.2.3.4,%s' %
                            (port, where)], capture_output=True, text=True, timeout=10)
        equal(p.returncode, 1)
        assert p.stderr.startswith('kdtarget: UDP port %d: ' % port), p.stderr
    s.close()


if __name__ == '__main__':
    run([the_host_of_these_tests_seals_as_recorded, a_whole_session_with_version_2,
         a_whole_session_with_version_4_and_a_32_bit_machine, a_whole_session_with_version_5,
         a_whole_session_over_ipv6, pokes_never_stop, the_ping_is_repeated_until_the_host_speaks,
         a_new_key_keeps_the_ids_and_what_is_unacknowledged, a_second_host_takes_over,
         without_a_configured_host_it_waits_to_be_asked,
         a_broadcast_host_address_finds_the_real_host, only_a_fitting_response_makes_a_session,
         replays_from_the_host_are_dropped, every_hostile_kind_lives_through_a_session,
         usage_errors_say_what_is_wrong, a_port_that_cannot_be_had])
