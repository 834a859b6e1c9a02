# Figures from the Linux guest: debug cables behind its xHCI, and its serial
# ports. Part of `make bench`. SPDX-License-Identifier: MIT
import json
import os
import statistics
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e/lib"))
import guestlab
from kdlib import PROGRAMS, TOP_BUILD, Failure, Lab, Proc, Skip, has_driver
from seriallab import Line

BENCH = os.path.join(TOP_BUILD, "tests/bench/")
BASE = "0xFFFFFA8000000000"  # of the region for bulk reads
USB_READ, SERIAL_READ = 4 << 20, 64 << 10
RTTS = 500
KD_DATA = 4000 - 56  # bytes of memory in a packet
LIMIT_S = 300


class Bench:
    def __init__(self, lab):
        if not has_driver("usb"):
            raise Skip("built without the usb driver")
        self.lab = lab
        redir = lab.path("redir")
        self.line = Line(lab)
        self.guest = guestlab.Guest(
            lab, [PROGRAMS["kdsrv"], BENCH + "bench_usb", BENCH + "bench_host"],
            ["-chardev", "serial,id=uart,path=" + self.line.device, "-serial", "chardev:uart",
             "-chardev", "socket,id=redir,path=%s,server=on,wait=off" % redir,
             "-device", "usb-redir,chardev=redir,bus=xhci.0"])
        self.cable = guestlab.UsbDevice(lab, redir)
        Proc(lab, "kdtarget", [PROGRAMS["kdtarget"], "--usb", self.cable.cable, "--name", "rack5"],
             expect=None)
        self.guest.eventually("cat /sys/bus/usb/devices/*/product | grep -q KDUSB", "the device")
        server = Proc(lab, "kdsrv", self.guest.wrap + ["kdsrv", "-t", "npipe:pipe=bench"])
        server.wait_text("^listening")

    def bare(self, what):
        return json.loads(self.guest.ok("bench_usb " + what, LIMIT_S))

    def cpu_us(self):
        lines = self.guest.ok("cat /proc/$(pidof kdsrv)/task/*/schedstat").splitlines()
        return sum(int(line.split()[0]) for line in lines) / 1e3

    def through(self, trans, what):
        """Result, and microseconds of kdsrv's processor time."""
        self.guest.eventually("! ls /proc/$(pidof kdsrv)/fd -l | grep -q -e /bus/usb -e ttyS1",
                              "kdsrv lets go of the one before")
        before = self.cpu_us()
        out = self.guest.ok("bench_host kdsrv /run/kdsrv/bench %s %s" % (trans, what), LIMIT_S)
        return float(out), self.cpu_us() - before

    def usb(self, show, runs, what):
        bare, ours, bare_cpu, our_cpu = [], [], [], []
        for _ in range(runs):
            r = self.bare(what)
            t, cpu = self.through("usb:targetname=rack5", what)
            bare.append(r["result"])
            ours.append(t)
            bare_cpu.append(r["cpu_us"] / r["transfers"])
            our_cpu.append(cpu / r["transfers"])
        show_pair(show, what, statistics.median(ours), statistics.median(bare))
        show("  CPU a transfer, kdsrv", "%.0f us" % statistics.median(our_cpu),
             "loop %.0f us; the CPU is emulated, the client's is not counted" %
             statistics.median(bare_cpu))

    def serial(self, show, runs):
        self.line.machine(self.lab)
        times = [self.through("com:port=/dev/ttyS1,baud=115200",
                              "read %s %d" % (BASE, SERIAL_READ))[0] for _ in range(runs)]
        took = statistics.median(times)
        packets = -(-SERIAL_READ // KD_DATA)
        # With each: header, message and trailer of request and reply, and two ACKs.
        to_host = SERIAL_READ + packets * (16 + 56 + 1 + 16)
        both = to_host + packets * (16 + 56 + 1 + 16)
        show("%d KiB at 115200 in the guest, 8250" % (SERIAL_READ >> 10),
             "%.2f KiB/s" % (SERIAL_READ / took / 1024),
             "line busy %.1f %%; %.1f %% of what the protocol allows" %
             (100 * to_host / 11520 / took, 100 * both / 11520 / took))


def show_pair(show, what, ours, bare):
    if what.startswith("rtt"):
        show("USB round trip in the guest, kdsrv", "%.0f us" % ours)
        show("USB round trip in the guest, libusb loop", "%.0f us" % bare,
             "loop/kdsrv = %.2f x" % (bare / ours))
        return
    mib = USB_READ >> 20
    show("%d MiB over USB in the guest, kdsrv" % mib, "%.1f MiB/s" % (mib / ours))
    show("%d MiB over USB in the guest, libusb loop" % mib, "%.1f MiB/s" % (mib / bare),
         "kdsrv/loop = %.2f x" % (bare / ours))


def run(show, runs):
    lab = Lab()
    failed = True
    try:
        bench = Bench(lab)
        bench.usb(show, runs, "read %s %d" % (BASE, USB_READ))
        bench.usb(show, runs, "rtt %d" % RTTS)
        bench.serial(show, runs)
        failed = False
    except (Failure, Skip) as e:
        show("USB and serial ports in a Linux guest", "not measured", str(e))
    finally:
        lab.close(failed)
