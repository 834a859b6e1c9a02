# A machine with emulated USB debug devices: kdusb-mock runs an unmodified
# program in it, kdtarget is what hangs on its ports.
# SPDX-License-Identifier: MIT
import os
import random
import re
import socket
import subprocess

from kdclient import *
from kdlib import *

PROGRAMS["kdusb-mock"] = os.path.join(TOP_BUILD, "kdusb-mock")
KEY = NetTarget.KEY


def mock_env(lab):
    """Umockdev's library is preloaded, behind that of the sanitizer."""
    linked = subprocess.run(["ldd", PROGRAMS["kdsrv"]], capture_output=True, text=True).stdout
    asan = re.search(r"=> (\S*libasan\S*)", linked)
    return dict(lab.env, LD_PRELOAD=(asan.group(1) + ":" if asan else "") +
                "libumockdev-preload.so.0")


class Machine:
    """Where a program sees a USB port for each list of options of a device, and what tests do to
    them. The ports are 2-1, 2-2, ...; without any, the machine has no USB."""

    def __init__(self, lab, *ports, options=()):
        self.lab = lab
        self.cables = [lab.path("usb%d" % n) for n, _ in enumerate(ports, 1)]
        self.control = lab.path("control")
        self.wrap = [PROGRAMS["kdusb-mock"], "--control", self.control, *options]
        for cable, port in zip(self.cables, ports):
            self.wrap += ["--cable", cable, *port]
        self.wrap += ["--"]
        self.s = None

    def server(self, *options, **kw):
        self.program = Server(self.lab, "-v", *options, wrap=self.wrap,
                              env=mock_env(self.lab), **kw)
        return self.program

    def run(self, name, *args, expect=0, **kw):
        return Proc(self.lab, name, self.wrap + [PROGRAMS[name]] + list(args),
                    env=mock_env(self.lab), expect=expect, **kw)

    def do(self, command, port=1):
        """Returns what was answered, as a dictionary of numbers."""
        if not self.s:
            self.s = self.lab.closing(socket.socket(socket.AF_UNIX))
            self.s.settimeout(10)
            eventually(lambda: is_listening(self.control), "kdusb-mock's socket")
            self.s.connect(self.control)
            self.f = self.lab.closing(self.s.makefile("r"))
        self.s.sendall(b"%d %s\n" % (port, command.encode()))
        line = self.f.readline()
        check(line.startswith("ok"), "%s: %s" % (command, line.strip()))
        return {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", line)}


class UsbTarget(Proc):
    """kdtarget on a cable, plugged in and ready."""

    def __init__(self, lab, cable, *options, name="lab1"):
        self.cable = cable
        super().__init__(lab, "kdtarget", [PROGRAMS["kdtarget"], "--usb", cable, "--name", name,
                                           "--stats", *options])
        self.wait_text(r"^kdtarget: ready on")
        self.trans = "usb:targetname=" + name

    stats = Target.stats


class EemTarget(Proc):
    """The same with KDNET. Its device wants --descriptors eem."""

    def __init__(self, lab, cable, *options, port=None, key=KEY):
        port = port or random.randrange(50000, 50040)
        super().__init__(lab, "kdtarget", [
            PROGRAMS["kdtarget"], "-k", "net:port=%d,key=%s" % (port, key), "--usb", cable,
            "--poke-every", "100", "--stats", *options])
        self.wait_text(r"^kdtarget: ready on")
        self.trans = "net:port=%d,key=%s,usb" % (port, key)

    stats = Target.stats


class Kdusb:
    """usb:targetname=; who() is what tells targets apart."""
    port = ()  # options of the device
    target = UsbTarget
    id = "3495:00e0"

    def who(self, n):
        return {"name": "rack%d" % n}

    def __str__(self):
        return "KDUSB"


class Eem:
    """net:...,usb; the same."""
    port = ("--descriptors", "eem")
    target = EemTarget
    id = "045e:0656"

    def who(self, n):
        return {"port": 50005, "key": "%s%d" % (KEY[:-1], n)}

    def __str__(self):
        return "KDNET in EEM frames"


KDUSB, EEM = Kdusb(), Eem()
BOTH = (KDUSB, EEM)


def links(client):
    return [b[0] for k, b in client.events if k == EV_LINK]


def still_works(client, length=1 << 16):
    at = client.stats()["region"]
    equal(client.read(at, length), region(0, length), "the big region")


def plugged(machine, *ports):
    """Until the devices at these ports are seen."""
    for port in ports or (1,):
        machine.do("wait plugged", port)


def stopped_again(client):
    client.wait_event(EV_STOPPED, 20)
    client.version()
    still_works(client)


def notices(client):
    return [take_text(b, 1)[0] for k, b in client.events if k == EV_NOTICE]


def wait_notice(client, pattern, timeout_s=15):
    body = client.wait_event(EV_NOTICE, timeout_s,
                             lambda b: re.search(pattern, take_text(b, 1)[0]))
    return take_text(body, 1)[0]
