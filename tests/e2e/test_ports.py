#!/usr/bin/env python3
# kdsrv --list-ports: tables and JSON, with mock ports and with none.
# SPDX-License-Identifier: MIT
import json
import os
import re
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from netlab import *
from usblab import *

MOCK = os.path.join(TOP_BUILD, "hw-fixtures/serial/serial_mock")


def list_ports(lab, *options, mock=False):
    argv = [PROGRAMS["kdsrv"], "--list-ports", *options]
    if mock:
        if not os.access(MOCK, os.X_OK):
            raise Skip("built without the serial driver, umockdev or cmocka")
        argv = [MOCK] + argv
    p = Proc(lab, "kdsrv", argv, env=mock_env(lab) if mock else None)
    equal(p.wait(), 0, "exit status")
    return p


def rows(text, title):
    """The remark, and the lines of a table as dictionaries, by the titles of its columns."""
    lines = text.split(title + "\n")[1].split("\n\n")[0].rstrip("\n").split("\n")
    remark = lines.pop(0) if lines[0].startswith("  (") else None
    if not lines:
        return remark, []
    starts = [m.start() for m in re.finditer(r"\S+(?: \S+)*", lines[0])]
    ends = starts[1:] + [None]
    cells = [[line[a:b].strip() for a, b in zip(starts, ends)] for line in lines]
    return remark, [dict(zip(cells[0], c)) for c in cells[1:]]


@test
def tables_and_json(lab):
    """what is on this machine: both forms say the same, and no error"""
    ports = json.loads(list_ports(lab, "--json").out)
    text = list_ports(lab).out
    equal(sorted(ports), ["errors", "network", "serial", "usb"], "members")
    for member, title, key, column in (("serial", "Serial ports", "device", "DEVICE"),
                                       ("usb", "USB debug devices", "path", "PORT"),
                                       ("network", "Network interfaces", "name", "NAME")):
        remark, table = rows(text, title)
        equal([r[column] for r in table], [p[key] for p in ports[member]], title)
        if ports["errors"][member]:
            matches(re.escape(ports["errors"][member]), text, title)
        elif not table:
            matches("none", remark, title)
    equal([p["name"] for p in ports["network"]],
          sorted({name for _, name in socket.if_nameindex()} - {"lo"},
                 key=lambda n: socket.if_nametoindex(n)), "interfaces")


@test
def odd_interface_names(lab):
    """a quote in an interface's name, which is part of an address, and JSON"""
    node = Net(lab).node("here")
    for words in (["down"], ["name", 'a"b'], ["up"]):
        device = 'a"b' if words == ["up"] else "eth0"
        subprocess.run(node.wrap + ["ip", "link", "set", device] + words, check=True, timeout=10)

    def listed():
        p = Proc(lab, "kdsrv", node.wrap + [PROGRAMS["kdsrv"], "--list-ports", "--json"])
        equal(p.wait(), 0, "exit status")
        return {n["name"]: n["addresses"] for n in json.loads(p.out)["network"]}
    eventually(lambda: any(a.startswith("fe80::") and a.endswith('%a"b')
                           for a in listed()['a"b']), "its address")


@test
def drivers_left_out(lab):
    """a driver that was left out of the build is said to be"""
    errors = json.loads(list_ports(lab, "--json").out)["errors"]
    for driver, member in (("serial", "serial"), ("usb", "usb"), ("udp", "network")):
        if has_driver(driver):
            check("configure" not in (errors[member] or ""), "%s: %s" % (driver, errors[member]))
        else:
            matches("configure --with-" + driver, errors[member], "the error of " + member)


@test
def mock_ports(lab):
    """serial ports: in the order of their names, adapters with their ids, UARTs that are there"""
    ports = json.loads(list_ports(lab, "--json", mock=True).out)["serial"]
    equal([p["device"] for p in ports],
          ["/dev/ttyS4", "/dev/ttyS5", "/dev/ttyS6", "/dev/ttyS9", "/dev/ttyS10", "/dev/ttyUSB0"],
          "ports")
    equal(ports[0]["trans"], "com:port=/dev/ttyS4", "how to open it")
    equal([p["usb_id"] for p in ports], [None] * 5 + ["0403:6001"], "ids")
    equal([ports[-1][n] for n in ("serial", "description", "latency_ms", "state")],
          ["A50285BI", "FT232R \"USB\" UART?[31m - A50285BI", 16, "free"], "the adapter")
    _, table = rows(list_ports(lab, mock=True).out, "Serial ports")
    equal([table[-1][c] for c in ("USB ID", "SERIAL", "DESCRIPTION", "STATE")],
          ["0403:6001", "A50285BI", "FT232R \"USB\" UART?[31m - A50285BI", "free"], "its line")


@test
@slow(600)  # it runs once for each process of this machine
def faults(lab):
    """each allocation and system call fails once: the list says so, or nothing of it"""
    with open(os.path.join(TOP_BUILD, "config.h")) as f:
        if "#define KD_FAULT_INJECTION 1" not in f.read():
            raise Skip("built without fault injection")
    wanted, failed = {"port rows", "getifaddrs"}, set()
    # How many calls there are depends on the processes of this machine, which come
    # and go: a number may mean one call now and its neighbour in the next run.
    for _ in range(5):
        failed |= walk(lab)
        if wanted <= failed:
            return
    check(False, "calls that failed: %s" % failed)


def walk(lab):
    failed = set()
    for n in range(1, 1000):
        report = lab.path("report")
        p = Proc(lab, "kdsrv", [PROGRAMS["kdsrv"], "--list-ports", "--json"], expect=None,
                 env=dict(lab.env, KD_FAULT=str(n), KD_FAULT_REPORT=report))
        status = p.wait()
        check(not SANITIZER.search(p.err), "call %d: the sanitizer: %s" % (n, p.err))
        equal(status, 1 if p.err else 0, "call %d: exit status" % n)
        if not status:
            json.loads(p.out)
        if not os.path.exists(report):
            break
        with open(report) as f:
            failed.add(f.read().split(" ", 1)[1].strip())
    return failed


@test
def usage(lab):
    """--json goes with --list-ports"""
    p = lab.run("kdsrv", "--json", "-t", "tcp:port=5005")
    equal(p.status, 2, "exit status")
    matches("--json: goes with --list-ports", p.err, "what it says")


main(needs=("kdsrv",))
