#!/usr/bin/env python3
# kdloop --rig: a lab's links, described in a file, tested as one suite.
# SPDX-License-Identifier: MIT
import json
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdlib import *
from looplab import CABLE, kdloop_on
from netlab import Net

MOCK = ["hw-fixtures/serial/serial_mock"]  # its ttyUSB0 is an FTDI adapter
EXAMPLE = os.path.join(TOP_SRC, "hw-fixtures/rig/rig.conf.example")


def rig(lab, text):
    path = lab.path("rig.conf")
    with open(path, "w") as f:
        f.write(text)
    return path


def run(lab, text, *args, wrap=(), mock=None):
    """kdloop --rig, with its JSON as .links by name."""
    args = ["--rig", rig(lab, text), "--json"] + list(args)
    if mock:
        p = kdloop_on(lab, mock, *args)
    else:
        p = Proc(lab, "kdloop", list(wrap) + [PROGRAMS["kdloop"]] + args, expect=None)
        p.status = p.wait(50)
    check(p.out, "no JSON: " + p.err)
    got = json.loads(p.out)
    equal(got["exit"], p.status, "the exit code")
    p.name_of_rig = got["rig"]
    p.order = [link["name"] for link in got["links"]]
    p.links = {link["name"]: link for link in got["links"]}
    return p


def checks(link):
    return {c["name"]: c for c in link["checks"]}


@cases(["its name", "a link to it", "/dev/stdin"])
def over_the_rig(lab, case):
    """--html with the rig file is refused, and the rig stays what it is"""
    text = "[a]\ntrans = net:port=%d\n" % udp_port()
    path, report = rig(lab, text), lab.path("report.html")
    os.symlink(path, report)
    with open(path) as f:
        p = lab.run("kdloop", "--rig", "/dev/stdin" if case == "/dev/stdin" else path,
                    "--html", path if case == "its name" else report, stdin=f)
        equal((p.status, p.out), (2, ""), "exit code and output")
        matches("^kdloop: --html /.*: that is the file of --rig; give the report another name$",
                p.err.strip(), "the error")
        f.seek(0)
        equal(f.read(), text, "the rig")


# ---- what the file says --------------------------------------------------------

@cases([("[a]\ntrans = net:port=1\nbauds = 9600\n", ":3: unknown key bauds"),
        ("[a]\n", r":1: \[a\]: no trans="),
        ("[a]\ntrans = net:port=50001,target=x\n\n[b]\ntrans = net:port=50001,target=y\n",
         r":4: \[b\]: net:port=50001 is the port of \[a\], too \(line 1\)"),
        ("", r": no \[target\] in it")],
       lambda case: repr(case[0]))
def wrong(lab, case):
    """what is wrong is told with file and line, and nothing is tried"""
    text, error = case
    path = rig(lab, text)
    p = lab.run("kdloop", "--rig", path)
    equal((p.status, p.out), (2, ""), "exit code and output")
    matches("^kdloop: " + re.escape(path) + r"(:\d+)?" + error, p.err, "the error")


@test
def no_file(lab):
    """a file that is not there"""
    p = lab.run("kdloop", "--rig", "/nonexistent")
    equal(p.status, 2, "exit code")
    matches("/nonexistent: No such file", p.err, "the error")


@test
def with_link(lab):
    """--rig goes without LINK and --mode"""
    for args in ["net:port=50000"], ["--mode", "serve"]:
        p = lab.run("kdloop", "--rig", "/dev/null", *args)
        equal(p.status, 2, "exit code")
        matches("leave LINK and --mode out", p.err, "the error")


@test
def example(lab):
    """the example that is installed is a good one"""
    if not all(map(has_driver, ("serial", "udp", "usb"))):
        raise Skip("built without a driver")
    with open(EXAMPLE) as f:
        text = f.read()
    # What may be there is not for a test to touch.
    for name, other in (("/dev/ttyS0", "/dev/ttyNONE"), ("mode = probe", "mode = look"),
                        ("path=2-1.4", "path=99-9")):
        check(name in text, name + " in the example")
        text = text.replace(name, other)
    p = run(lab, text, "--wait", "1")
    equal(p.name_of_rig, "Lab 3, left rack", "its name")
    equal(p.order, ["spare-port", "rack1", "rack2", "rack3"], "targets")
    equal([p.links[name]["mode"] for name in p.order], ["plug", "peer", "", "name"], "modes")
    for name in "spare-port", "rack1", "rack3":
        matches("^(com:.* no such device|usb: )", p.links[name]["error"], name)


# ---- a suite -------------------------------------------------------------------

@test
def suite(lab):
    """several links, good, bad, busy and missing, have a verdict each and one exit code"""
    if not has_driver("udp"):
        raise Skip("built without the udp driver")
    net = Net(lab)
    here, there = net.node("here"), net.node("there")
    serving = Proc(lab, "kdloop", there.wrap + [PROGRAMS["kdloop"], "net:port=50001", "--mode",
                                                "serve"], expect=None)
    serving.wait_text("serving")
    lab.closing(here.socket(here.address, 50003))
    text = """name = Lab <3> & "more"
[good]
trans = net:port=50001,target=%s
duration = 1
[dead]
trans = net:port=50002,target=%s
[busy]
trans = net:port=50003
mode = serve
[free]
trans = net:port=50004
mode = look
""" % (there.address, there.address)
    report = lab.path("report.html")
    p = run(lab, text, "--wait", "2", "--html", report, wrap=here.wrap)
    equal(p.status, 1, "the exit code: the worst of all")
    equal(p.name_of_rig, 'Lab <3> & "more"', "the name")
    equal(p.order, ["good", "dead", "busy", "free"], "the order")
    check(p.links["good"]["verdict"] in ("PASS", "WARN"), "good: " + p.links["good"]["verdict"])
    equal(p.links["good"]["mode"], "probe", "mode")
    equal(p.links["dead"]["verdict"], "FAIL", "dead")
    matches("port unreachable", checks(p.links["dead"])["reach"]["what"], "dead")
    equal(p.links["free"]["verdict"], "PASS", "free")
    matches("busy, held by", p.links["busy"]["error"], "busy")
    with open(report) as f:
        page = f.read()
    check("Lab &lt;3&gt; &amp; " in page, "the rig's name in the report")
    for name in p.order:
        check(">%s<" % name in page and "%s: <code>" % name in page, name + " in the report")


@test
def summary(lab):
    """for humans the last lines are a verdict a link"""
    if not has_driver("udp"):
        raise Skip("built without the udp driver")
    port = udp_port()
    p = lab.run("kdloop", "--rig", rig(lab, """[a]
trans = net:port=%d
mode = look
[b]
trans = com:port=/dev/ttyNONE
mode = look
""" % port))
    equal(p.status, 3 if has_driver("serial") else 2, "exit code")
    a, b = p.out.splitlines()[-2:]
    matches(r"^PASS +a +1 passed$", a, "the summary")
    matches(r"^FAIL +b +com:", b, "the summary")


@test
def interrupted(lab):
    """Ctrl-C ends the whole suite, and what was found until then is told"""
    if not has_driver("udp"):
        raise Skip("built without the udp driver")
    port, last = udp_port(), udp_port()
    p = Proc(lab, "kdloop", [PROGRAMS["kdloop"], "--rig", rig(lab, """[a]
trans = net:port=%d
mode = look
[b]
trans = net:port=%d
mode = serve
[c]
trans = net:port=%d
mode = look
""" % (port, port + 1, last))], expect=None)
    p.wait_text("serving")
    p.signal(signal.SIGINT)
    equal(p.wait(), 130, "exit code")
    matches("PASS +a .*b", p.out, "the summary")
    check("c: net:" not in p.out, "the last one was tried")


# ---- adapters ------------------------------------------------------------------

FTDI = "[rack1]\ntrans = com:port=/dev/ttyUSB0\nmode = look\n"


@cases(["adapter = 0403:6001", "serial = A50285BI", "product = FT232R \"USB\"",
        "adapter = 0403:6001\nserial = A50285BI\nproduct = UART"])
def right_adapter(lab, expected):
    """the adapter is the one of the rig"""
    p = run(lab, FTDI + expected + "\n", mock=MOCK)
    equal(p.status, 0, "exit code (%s)" % p.err)
    found = checks(p.links["rack1"])
    equal((found["adapter"]["verdict"], found["adapter"]["what"]),
          ("PASS", "0403:6001 FT232R \"USB\" UART?[31m - A50285BI"), "the adapter")
    check("port" in found, "the rest was not tried")


@cases([("adapter = 067b:2303", "067b:2303"), ("serial = FT999999", "serial number FT999999"),
        ("product = CP2102", "CP2102"),
        ("adapter = 0403:6001\nserial = X", "0403:6001, serial number X")],
       lambda case: case[0])
def other_adapter(lab, case):
    """another adapter is there: FAIL, what is there, and nothing is sent"""
    p = run(lab, FTDI + case[0] + "\n", mock=MOCK)
    equal(p.status, 1, "exit code")
    found = checks(p.links["rack1"])
    equal(list(found), ["adapter"], "checks")
    equal((found["adapter"]["verdict"], found["adapter"]["what"]),
          ("FAIL", "0403:6001 FT232R \"USB\" UART?[31m - A50285BI is there; the rig says " +
           case[1]), "the adapter")


@test
def no_adapter(lab):
    """a UART of the board is no adapter"""
    p = run(lab, "[x]\ntrans = com:port=/dev/ttyS4\nmode = look\nadapter = 0403:6001\n",
            mock=MOCK)
    equal(p.status, 1, "exit code")
    equal(checks(p.links["x"])["adapter"]["what"],
          "no USB adapter is there; the rig says 0403:6001", "the adapter")


# ---- cables --------------------------------------------------------------------

@cases([("3-wire", "3", "PASS", "PASS"), ("5-wire", "3", "FAIL", "PASS"),
        ("5-wire", "no-dtr", "PASS", "PASS"), ("full", "3", "FAIL", "FAIL"),
        ("full", "no-dtr", "PASS", "FAIL"), ("plug", "3", "WARN", "WARN")],
       lambda case: "%s, there is %s" % case[:2])
def cable(lab, case):
    """wires that the rig's cable has must work, others need not"""
    said, there, rts, dtr = case
    p = run(lab, "[x]\ntrans = com:port=/dev/ttyS4,baud=1200\nmode = plug\nduration = 1\n"
            "cable = %s\n" % said,
            mock=[CABLE, "--plug", "--max-baud", "1200", "--wires", there])
    found = checks(p.links["x"])
    for name, verdict in ("rts-cts", rts), ("dtr-dsr-dcd", dtr):
        equal(found[name]["verdict"], verdict, name)
        if verdict == "FAIL":
            matches("the rig says that this cable has the wires", found[name]["advice"], "advice")


main(needs=("kdloop",))
