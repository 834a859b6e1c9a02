#!/usr/bin/env python3
# What hw-fixtures/rig installs on a lab machine: the udev rules, as udev itself
# applies them to devices that umockdev makes up, and the systemd units.
# SPDX-License-Identifier: MIT
import os
import re
import shlex
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from kdlib import *

RIG = os.path.join(TOP_SRC, "hw-fixtures/rig")
UNIT = os.path.join(TOP_BUILD, "hw-fixtures/rig/kdloop-rig.service")
USB1, USB2 = ("/devices/pci0000:00/0000:00:14.0/usb%d" % n for n in (1, 2))


# ---- udev ----------------------------------------------------------------------

def device(path, vendor, product, interfaces, serial=None):
    """A USB device of umockdev's, with its descriptors. interfaces: class,
    subclass, protocol of each."""
    raw = bytes([18, 1, 0x20, 3, 0, 0, 0, 9]) + vendor.to_bytes(2, "little") + \
        product.to_bytes(2, "little") + bytes([0, 0, 1, 2, 3, 1])
    raw += bytes([9, 2, 9 + 16 * len(interfaces), 0, len(interfaces), 1, 0, 0x80, 0])
    for number, (cls, sub, protocol) in enumerate(interfaces):
        raw += bytes([9, 4, number, 0, 1, cls, sub, protocol, 0, 7, 5, 0x81, 2, 0, 4, 0])
    lines = ["P: " + path, "N: bus/usb/001/009=" + raw.hex().upper(),
             "E: DEVNAME=/dev/bus/usb/001/009", "E: DEVTYPE=usb_device", "E: MAJOR=189",
             "E: MINOR=8", "E: SUBSYSTEM=usb", "A: idVendor=%04x\\n" % vendor,
             "A: idProduct=%04x\\n" % product, "A: power/control=auto\\n",
             "H: descriptors=" + raw.hex().upper()]
    if serial:
        lines.append("A: serial=%s\\n" % serial)
    return "\n".join(lines) + "\n\n"


def adapter(driver, serial):
    """A USB serial adapter, down to its tty."""
    interface = USB1 + "/1-3/1-3:1.0"
    return device(USB1 + "/1-3", 0x0403, 0x6001, [(0xff, 0xff, 0xff)], serial) + """\
P: %(i)s
E: DEVTYPE=usb_interface
E: SUBSYSTEM=usb
E: DRIVER=%(d)s
L: driver=../../../../../../../bus/usb/drivers/%(d)s
A: bInterfaceNumber=00\\n
A: bInterfaceClass=ff\\n
A: bInterfaceSubClass=ff\\n
A: bInterfaceProtocol=ff\\n

P: %(i)s/ttyUSB0
E: SUBSYSTEM=usb-serial
E: DRIVER=%(d)s
A: latency_timer=16\\n
L: driver=../../../../../../../../bus/usb-serial/drivers/%(d)s

P: %(i)s/ttyUSB0/tty/ttyUSB0
N: ttyUSB0
E: DEVNAME=/dev/ttyUSB0
E: MAJOR=188
E: MINOR=0
E: SUBSYSTEM=tty
""" % {"i": interface, "d": driver}


TTY = USB1 + "/1-3/1-3:1.0/ttyUSB0/tty/ttyUSB0"


def udev(lab, made_up, path):
    """What udev does to the device: the lines of "udevadm test"."""
    udevadm = shutil.which("udevadm", path=os.environ["PATH"] + ":/sbin:/usr/sbin")
    if not udevadm or not os.path.exists("/usr/lib/udev/rules.d/60-serial.rules"):
        raise Skip("udevadm is missing")
    if not shutil.which("umockdev-run"):
        raise Skip("umockdev-run is missing")
    if os.geteuid() != 0:
        raise Skip("a mount namespace needs root")
    description = lab.path("devices.umockdev")
    with open(description, "w") as f:
        f.write(made_up)
    # udevadm makes links in /dev and notes in /run: these are not the machine's.
    # ModemManager's rules would come after ours; the tags are what counts.
    script = """
        mount -t tmpfs tmpfs /run && mkdir -p /run/udev/rules.d &&
        cp "$1" /run/udev/rules.d/ &&
        mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3 && mkdir /dev/pts &&
        mount -t devpts -o ptmxmode=666 devpts /dev/pts && ln -s pts/ptmx /dev/ptmx &&
        exec umockdev-run -d "$2" -- "$3" test "/sys$4" 2>&1"""
    p = subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh",
                        os.path.join(RIG, "70-kdsrv.rules"), description, udevadm, path],
                       capture_output=True, text=True, timeout=30)
    if "mount:" in p.stdout + p.stderr or "unshare:" in p.stderr:
        raise Skip("no mount namespaces here")
    for line in p.stdout.splitlines():
        if "70-kdsrv.rules:" in line:
            print("# " + line)
            check(not re.search("nvalid|nknown|ailed|gnoring|rror", line), "udev: " + line)
    return p.stdout


def has(log, pattern, what):
    """As matches, with ^ and $ for lines, and without repeating all of the log."""
    check(re.search(pattern, log, re.M), "%s: no %r" % (what, pattern))


OURS = r"70-kdsrv\.rules:\d+ "


CABLES = [
    ("KDUSB", 0x3495, 0x00e0, (0xdc, 2, 0xff)),
    ("KDUSB with an interface that is not known", 0x3495, 0x00e0, (0xff, 0, 0)),
    ("KDNET over USB", 0x045e, 0x0656, (0xdc, 2, 0)),
    ("Linux", 0x1d6b, 0x0010, (0xdc, 2, 1)),
    ("a vendor's own id", 0x18d1, 0x0010, (0xdc, 2, 1)),
]


@cases(CABLES, lambda case: case[0])
def cable(lab, case):
    """udev: a debug cable is for users, has a name, and is no modem"""
    path = USB2 + "/2-1/2-1.4"
    log = udev(lab, device(path, case[1], case[2], [case[3]]), path)
    has(log, r"^TAGS=.*:uaccess:", "tags")
    has(log, OURS + r"MODE 0660$", "the mode")
    has(log, OURS + r"LINK 'kd/usb-2-1.4'$", "the name")
    has(log, "power/control' writing 'on'", "no sleep")
    has(log, "ID_MM_DEVICE_IGNORE=1$", "no ModemManager")
    has(log, "^run: 'uaccess'$", "access")


@cases([("a keyboard", 0x046d, 0xc31c, (3, 1, 1)), ("a debug cable of USB 2", 0x0525, 0x127a,
                                                      (0xff, 0, 0)),
        ("something else of class DC", 0x1234, 0x5678, (0xdc, 1, 1))], lambda case: case[0])
def stranger(lab, case):
    """udev: other devices are left alone"""
    path = USB2 + "/2-1/2-1.4"
    log = udev(lab, device(path, case[1], case[2], [case[3]]), path)
    has(log, "ID_USB_INTERFACES=:%02x%02x%02x:" % case[3], "interfaces")
    check(not re.search(OURS, log) and "ID_MM_" not in log, "our rules did something")


@test
def network_function(lab):
    """udev: a target that is a USB network card is no modem, and is else left alone"""
    path = USB2 + "/2-1"
    log = udev(lab, device(path, 0x045e, 0x1234, [(2, 0x0c, 7)]), path)
    has(log, "ID_MM_DEVICE_IGNORE=1$", "no ModemManager")
    check("kd/usb" not in log, "it got a name")


@test
def serial_adapter(lab):
    """udev: a serial adapter has its serial number for a name, and is no modem"""
    log = udev(lab, adapter("ftdi_sio", "FT0A1B2C"), TTY)
    has(log, OURS + r"LINK 'kd/com-FT0A1B2C-00'$", "the name")
    has(log, "ID_MM_PORT_IGNORE=1$", "no ModemManager")
    has(log, r"^TAGS=.*:uaccess:", "tags")


@test
def adapter_without_serial(lab):
    """udev: an adapter without a serial number has no name made of nothing"""
    log = udev(lab, adapter("ch341", None), TTY)
    has(log, "ID_MM_PORT_IGNORE=1$", "no ModemManager")
    check("kd/com--" not in log and "kd/com-/" not in log, "a name made of nothing")


@test
def modem(lab):
    """udev: a modem stays one"""
    log = udev(lab, adapter("option", "M123"), TTY)
    has(log, "ID_USB_DRIVER=option$", "the driver")
    check(not re.search(OURS, log) and "ID_MM_" not in log, "our rules did something")


@test
def latency(lab):
    """udev: FTDI's latency timer is set to 1 ms"""
    path = os.path.dirname(os.path.dirname(TTY))
    log = udev(lab, adapter("ftdi_sio", "FT0A1B2C"), path)
    has(log, OURS + r"ATTR '\S*/latency_timer' writing '1'", "the timer")


# ---- systemd -------------------------------------------------------------------

def unit_text(path):
    with open(path) as f:
        return re.sub(r"\\\n\s*", " ", f.read())


def analyze(lab, path, *args):
    tool = shutil.which("systemd-analyze")
    if not tool:
        raise Skip("systemd-analyze is missing")
    return subprocess.run([tool] + list(args) + [path], capture_output=True, text=True,
                          timeout=30, env=lab.env)


def stand_in(lab, path):
    """A copy whose program exists."""
    program = lab.path("program")
    shutil.copy("/bin/true", program)
    os.mkdir(lab.path("units"))
    copy = os.path.join(lab.dir, "%d-units" % lab.names, os.path.basename(path))
    with open(path) as f, open(copy, "w") as out:
        out.write(re.sub(r'"?/[\w/.-]*/(kdsrv|kdloop)"?(?= -)', program, f.read()))
    return copy


@cases([UNIT, os.path.join(TOP_SRC, "docs/kdsrv.service")], os.path.basename)
def unit(lab, path):
    """systemd: the service is valid, and has few rights"""
    copy = stand_in(lab, path)
    p = analyze(lab, copy, "verify", "--man=no")
    equal((p.returncode, p.stdout + p.stderr), (0, ""), "systemd-analyze verify")
    p = analyze(lab, copy, "security", "--offline=true", "--threshold=20")
    equal(p.returncode, 0, "an exposure below 2.0: " + p.stdout[-200:])


@cases([UNIT, os.path.join(TOP_SRC, "docs/kdsrv.service")], os.path.basename)
def unit_devices(lab, path):
    """systemd: the service may use serial ports, UDP, debug cables, and hear of new ones"""
    text = unit_text(path)
    for name in "ttyS", "ttyUSB", "ttyACM", "usb_device":
        check("\nDeviceAllow=char-%s rw\n" % name in text, "no DeviceAllow= for " + name)
    families = set(re.search(r"\nRestrictAddressFamilies=(.*)", text).group(1).split())
    equal(families, {"AF_INET", "AF_INET6", "AF_NETLINK", "AF_UNIX"}, "address families")


@test
def timer(lab):
    """systemd: the timer is valid, and starts the service of its name"""
    os.mkdir(lab.path("units"))
    units = os.path.join(lab.dir, "%d-units" % lab.names)
    shutil.copy(os.path.join(RIG, "kdloop-rig.timer"), units)
    shutil.copy(stand_in(lab, UNIT), units)
    p = analyze(lab, os.path.join(units, "kdloop-rig.timer"), "verify", "--man=no")
    equal((p.returncode, p.stdout + p.stderr), (0, ""), "systemd-analyze verify")


@test
def nightly_command(lab):
    """systemd: the service's command leaves reports with the day in their names"""
    command = re.search(r"\nExecStart=(.*)\n", unit_text(UNIT)).group(1).replace("%%", "%")
    shell = shlex.split(command)
    equal(shell[:2], ["/bin/sh", "-c"], "the shell")
    kdloop = re.search(r'"([^"]*/kdloop)"', shell[2]).group(1)
    state = lab.path("state of the rig")
    os.mkdir(state)
    subprocess.run(["/bin/sh", "-c", shell[2].replace('exec "%s"' % kdloop, "printf '%s\n'")],
                   check=True, timeout=10, env=dict(lab.env, STATE_DIRECTORY=state))
    report, = os.listdir(state)
    matches(r"^rig-\d{4}-\d\d-\d\d\.json$", report, "the name of the report")
    with open(os.path.join(state, report)) as f:
        equal(f.read().splitlines(),
              ["--rig", "/etc/kdsrv/rig.conf", "--json", "--html",
               os.path.join(state, report.replace(".json", ".html"))], "the arguments")


main(needs=())
