#!/usr/bin/env python3
"""Measures what the project promises, each figure beside what it is compared
with, and prints medians. Part of `make bench`. SPDX-License-Identifier: MIT"""
import json
import os
import queue
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import guest

BUILD = os.environ.get("top_builddir", ".")
SOURCE = os.environ.get("top_srcdir", ".")
KDSRV = os.path.join(BUILD, "kdsrv/kdsrv")
KDCAP = os.path.join(BUILD, "kdcap/kdcap")
KDTARGET = os.path.join(BUILD, "kdtarget")
BENCH = os.path.join(BUILD, "tests/bench/")
MIB = 1 << 20
RUNS = int(os.environ.get("BENCH_RUNS", "5"))
BULK_BASE = 0xFFFFFA8000000000      # kdtarget's region for bulk reads
running = []


def start(argv, ready=None, **kw):
    """Starts a program and waits for the line that says it is ready."""
    p = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, **kw)
    running.append(p)
    if ready:
        line = p.stdout.readline()
        if not line.startswith(ready):
            sys.exit(f"bench: {argv[0]}: expected '{ready}', got '{line.strip()}'")
        p.first_line = line
    return p


def stop(p):
    """Ends a program; returns what it printed last."""
    if p.poll() is None:
        p.send_signal(signal.SIGTERM)
    out, _ = p.communicate(timeout=20)
    running.remove(p)
    return out


def host(*args):
    out = subprocess.run([BENCH + "bench_host", *map(str, args)], check=True, timeout=300,
                         stdout=subprocess.PIPE, text=True).stdout
    return float(out)


def server():
    p = start([KDSRV, "-t", "tcp:port=20000:29999"], "listening")
    p.port = p.first_line.split("port=")[1].split(",")[0]
    return p


def median_of(run):
    return statistics.median(run() for _ in range(RUNS))


def rss_kib(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def switches(pid):
    with open(f"/proc/{pid}/status") as f:
        return sum(int(line.split()[1]) for line in f if "ctxt_switches" in line)


def wait_for(path):
    deadline = time.monotonic() + 20
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            sys.exit(f"bench: {path} never appeared")
        time.sleep(0.02)


class DelayProxy:
    """A TCP relay on loopback that holds every byte for a while."""

    def __init__(self, port, delay_s):
        self.delay_s = delay_s
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, args=(int(port),), daemon=True).start()

    def accept(self, port):
        while True:
            a = self.listener.accept()[0]
            b = socket.create_connection(("127.0.0.1", port))
            for x, y in ((a, b), (b, a)):
                q = queue.Queue()
                threading.Thread(target=self.read, args=(x, q), daemon=True).start()
                threading.Thread(target=self.write, args=(y, q), daemon=True).start()

    def read(self, sock, q):
        try:
            while data := sock.recv(65536):
                q.put((time.monotonic() + self.delay_s, data))
        except OSError:
            pass
        q.put((0, b""))

    @staticmethod
    def write(sock, q):
        try:
            while True:
                due, data = q.get()
                if not data:
                    sock.shutdown(socket.SHUT_WR)
                    return
                time.sleep(max(0, due - time.monotonic()))
                sock.sendall(data)
        except OSError:
            pass


def show(name, value, note=""):
    print(f"{name:<44} {value:>14}  {note}", flush=True)


def codec():
    r = json.loads(subprocess.run([BENCH + "bench_codec"], check=True, stdout=subprocess.PIPE,
                                  text=True).stdout)
    show("codec, 56-byte message, there and back", f"{r['small_ns']:.0f} ns")
    show("codec, 4000-byte message, there and back", f"{r['big_ns']:.0f} ns",
         f"{r['big_mb_s']:.0f} MB/s")


def kdcap(tmp):
    """Decoding a large capture: with the key, and without (parsing alone)."""
    size = 1024 if shutil.disk_usage(tmp).free > 4 << 30 else 256
    path = tmp + "/big.pcapng"
    subprocess.run([BENCH + "bench_kdcap", path, str(size)], check=True)
    for name, key in (("with the key", ["--key", "1.2.3.4"]), ("without a key", [])):
        began = time.monotonic()
        subprocess.run([KDCAP, "-r", path, "--stats", *key], check=True, stdout=subprocess.DEVNULL)
        took = time.monotonic() - began
        show(f"kdcap --stats, {size} MiB, {name}", f"{size * 1.048576 / took:.0f} MB/s")
    os.unlink(path)


def pair(a, b):
    """Medians of two measurements whose runs alternate, so that both see the
    same machine."""
    xs, ys = [], []
    for _ in range(RUNS):
        xs.append(a())
        ys.append(b())
    return statistics.median(xs), statistics.median(ys)


def against_socat(tmp):
    """One request at a time: kdsrv against the same bytes through socat."""
    if not shutil.which("socat"):
        show("request round trip", "not measured", "socat is missing")
        return
    sock = tmp + "/rtt.sock"
    t = start([KDTARGET, "--unix", sock], "kdtarget: ready")
    s = server()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    relay = start(["socat", f"TCP-LISTEN:{port},fork,reuseaddr,nodelay,bind=127.0.0.1",
                   f"UNIX-CONNECT:{sock}"])
    wait_port(port)
    time.sleep(0.5)
    through, plain = pair(lambda: host("kdsrv", s.port, f"com:pipe,port={sock}", "rtt", 5000),
                          lambda: host("direct", port, "rtt", 5000))
    show("request round trip, kdsrv", f"{through:.1f} us")
    show("request round trip, socat", f"{plain:.1f} us", f"kdsrv/socat = {through / plain:.2f} x")
    for p in (relay, s, t):
        stop(p)


def wait_port(port):
    """socat says nothing when it is ready: look for its listening socket."""
    deadline = time.monotonic() + 10
    want = f":{port:04X} "
    while time.monotonic() < deadline:
        with open("/proc/net/tcp") as f:
            if any(want in line and " 0A " in line for line in f):
                return
        time.sleep(0.02)
    sys.exit("bench: socat does not listen")


def bulk(tmp):
    sock = tmp + "/bulk.sock"
    t = start([KDTARGET, "--unix", sock], "kdtarget: ready")
    s = server()
    through, direct = pair(
        lambda: host("kdsrv", s.port, f"com:pipe,port={sock}", "read", BULK_BASE, 16 * MIB),
        lambda: host("direct", sock, "read", BULK_BASE, 16 * MIB))
    show("16 MiB read, kdsrv", f"{16 / through:.1f} MiB/s")
    show("16 MiB read, minimal loop", f"{16 / direct:.1f} MiB/s",
         f"kdsrv/loop = {direct / through:.2f} x")
    stop(s)
    stop(t)


NET_KEY = "2steg4fzbj2sz.23418vzkd4ko3.1g34ou07z4pev.1sp3yo9yz874p"


def kdnet():
    """Over UDP on loopback, against libcrypto alone and a minimal debugger."""
    r = json.loads(subprocess.run([BENCH + "bench_kdnet", "crypto"], check=True,
                                  stdout=subprocess.PIPE, text=True).stdout)
    for name in "seal", "open":
        ns, raw = r[name + "_ns"], r[f"raw_{name}_ns"]
        show(f"KDNET, {name} a datagram of {r['bytes']} bytes", f"{ns} ns",
             f"{r['bytes'] / ns * 1e3:.0f} MB/s; AES and HMAC alone {raw} ns, "
             f"ratio {ns / raw:.2f}")
    show("KDNET, refuse a forged datagram", f"{r['denied_ns']} ns")
    targets, ports = [], []
    for _ in range(2):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
        targets.append(start([KDTARGET, "-k", f"net:host=127.0.0.1,port={ports[-1]},"
                              f"key={NET_KEY},bindport=0", "--poke-every", "5", "--tries", "1",
                              "--ack-timeout-ms", "200"], "kdtarget: ready"))
    s = server()
    # A boot that no debugger hears ends after a while.
    time.sleep(2)
    trans, port = f"net:port={ports[0]},key={NET_KEY}", ports[1]

    def attach():
        time.sleep(1)    # the one before must have let go
        return host("kdsrv", s.port, trans, "attach")
    show("KDNET attach and break in", f"{median_of(attach):.1f} ms",
         "up to 5 ms of it waiting for the target's call")
    through, direct = pair(
        lambda: host("kdsrv", s.port, trans, "read", BULK_BASE, 16 * MIB),
        lambda: kdnet_read(port, BULK_BASE, 16 * MIB))
    show("16 MiB read over KDNET, kdsrv", f"{16 / through:.1f} MiB/s")
    show("16 MiB read over KDNET, minimal loop", f"{16 / direct:.1f} MiB/s",
         f"kdsrv/loop = {direct / through:.2f} x")
    stop(s)
    for t in targets:
        stop(t)


def kdnet_read(port, address, length):
    out = subprocess.run([BENCH + "bench_kdnet", "host", str(port), NET_KEY, "read",
                          str(address), str(length)], check=True, timeout=300,
                         stdout=subprocess.PIPE, text=True).stdout
    return float(out)


def uart(tmp):
    """The bare-metal debuggee on QEMU's emulated 16550A."""
    image = os.path.join(BUILD, "kdtarget.elf")
    if not shutil.which("qemu-system-x86_64") or not os.path.exists(image):
        show("read over an emulated UART", "not measured", "QEMU or kdtarget.elf is missing")
        return
    sock = tmp + "/uart.sock"
    q = start([os.path.join(SOURCE, "hw-fixtures/target/run-qemu.sh"), sock],
              env={**os.environ, "top_builddir": BUILD}, start_new_session=True)
    wait_for(sock)
    s = server()
    size = MIB // 4
    base = 0xFFFFF80000100000
    through, direct = pair(
        lambda: host("kdsrv", s.port, f"com:pipe,port={sock}", "read", base, size),
        lambda: host("direct", sock, "read", base, size))
    show("256 KiB over an emulated UART, kdsrv", f"{size / through / 1024:.1f} KiB/s")
    show("256 KiB over an emulated UART, loop", f"{size / direct / 1024:.1f} KiB/s",
         f"kdsrv/loop = {direct / through:.2f} x")
    stop(s)
    os.killpg(q.pid, signal.SIGTERM)
    q.wait(timeout=10)
    running.remove(q)


def ack_times(tmp, name, delay_s=0.0, flood=False):
    """How long a target waits for its ACKs, seen from the target."""
    prefix = tmp + "/ack"
    t = start([BENCH + "bench_target", prefix, "1"], "ready")
    s = server()
    port = DelayProxy(s.port, delay_s).port if delay_s else s.port
    noise = None
    if flood:
        noise = subprocess.Popen([BENCH + "bench_host", "flood", s.port], stdin=subprocess.PIPE)
    host("kdsrv", port, f"com:pipe,port={prefix}0", "read", 0x1000, 16 * MIB)
    if noise:
        noise.stdin.close()
        noise.wait(timeout=10)
    stop(s)
    r = json.loads(stop(t))
    show(f"ACK p99.9, {name}", f"{r['p999_us'] / 1000:.2f} ms",
         f"p50 {r['p50_us']} us, max {r['max_us'] / 1000:.2f} ms, "
         f"{r['acks']} ACKs, {r['retransmissions']} retransmissions")


def idle(tmp):
    """Memory and wakeups with idle targets, all in touch and running."""
    prefix = tmp + "/idle"
    t = start([BENCH + "bench_target", prefix, "100"], "ready")
    s = server()
    holders = []

    def hold(i):
        p = subprocess.Popen([BENCH + "bench_host", "kdsrv", s.port, f"com:pipe,port={prefix}{i}",
                              "hold"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        p.stdout.readline()
        holders.append(p)

    empty = rss_kib(s.pid)
    hold(0)
    one = rss_kib(s.pid)
    for i in range(1, 100):
        hold(i)
    many = rss_kib(s.pid)
    show("resident, no target", f"{empty} KiB")
    show("resident, 1 idle target", f"{one} KiB")
    show("resident, 100 idle targets", f"{many} KiB", f"{(many - one) / 99:.1f} KiB each further")
    time.sleep(2)
    before = switches(s.pid)
    time.sleep(20)
    show("wakeups a minute, 100 idle targets", f"{(switches(s.pid) - before) * 3}")
    for p in holders:
        p.stdin.close()
        p.wait(timeout=20)
    stop(s)
    stop(t)


def kdloop():
    """How far kdloop's own figures of one emulated line lie apart."""
    mock = os.path.join(BUILD, "hw-fixtures/serial/serial_cable")
    port = "com:port=/dev/ttyS4,baud=%d"
    if not os.path.exists(mock):
        show("kdloop on an emulated line", "-", "no umockdev in this build")
        return
    for baud in (9600, 115200):
        rate, median, shortest = [], [], []
        for _ in range(RUNS):
            out = subprocess.run(
                [mock, "--plug", "--pace", "100", "--max-baud", str(baud),
                 os.path.join(BUILD, "kdloop/kdloop"), port % baud, "--mode", "plug", "--json",
                 "--duration", "8"], stdout=subprocess.PIPE, timeout=120,
                env=dict(os.environ, LD_PRELOAD="libumockdev-preload.so.0")).stdout
            link = json.loads(out)["links"][0]
            checks = {c["name"]: c["values"] for c in link["checks"]}
            rate.append(checks["throughput"]["rate"]["value"])
            median.append(link["latency"][0]["median_us"])
            shortest.append(link["latency"][0]["min_us"])
        for name, values, unit in (("throughput", rate, "bytes/s"), ("latency", median, "us"),
                                   ("shortest latency", shortest, "us")):
            middle = statistics.median(values)
            show(f"kdloop, {name} at {baud}, emulated", f"{middle:.0f} {unit}",
                 f"runs lie {100 * (max(values) - min(values)) / middle:.1f} % apart")


def main():
    with tempfile.TemporaryDirectory() as tmp:
        print(f"kdsrv bench: medians of {RUNS} runs on {os.cpu_count()} CPUs\n")
        codec()
        kdcap(tmp)
        against_socat(tmp)
        bulk(tmp)
        kdnet()
        uart(tmp)
        guest.run(show, RUNS)
        ack_times(tmp, "16 MiB read")
        ack_times(tmp, "and another client floods", flood=True)
        ack_times(tmp, "client 300 ms away", delay_s=0.3)
        idle(tmp)
        kdloop()


try:
    main()
finally:
    for left in running:
        left.kill()
