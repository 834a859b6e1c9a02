#!/usr/bin/env python3
"""Makes what a Linux guest boots: Debian's generic kernel, fetched once, and an
initramfs with programs of this machine. Nothing is installed.

usage: mkguest.py fetch CACHE
       mkguest.py initramfs CACHE OUT [PROGRAM...]

SPDX-License-Identifier: MIT"""
import fcntl
import glob
import lzma
import os
import re
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile

PACKAGE = "linux-image-amd64"
FETCH_LIMIT_S = 300
HERE = os.path.dirname(os.path.abspath(__file__))
# In the order in which they must be loaded. usb_debug is not loaded at once.
MODULES = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev",
           "virtio_pci", "failover", "net_failover", "virtio_net", "usb-common", "usbcore",
           "xhci-hcd", "xhci-pci", "usbserial", "ftdi_sio", "usb_debug")
# Where Debian has them. udevd tells its jobs apart by the name it is called by.
TOOLS = {"/bin/busybox": ("/bin/busybox", "/usr/bin/busybox"),
         "/bin/udevadm": ("/bin/udevadm", "/usr/bin/udevadm")}


class Missing(Exception):
    """Why there is no guest, and what to do."""


# ---- the kernel ----------------------------------------------------------------

def has_kernel(cache):
    return os.path.exists(os.path.join(cache, "kernel"))


def run(argv, what, **kw):
    try:
        p = subprocess.run(argv, capture_output=True, text=True, timeout=FETCH_LIMIT_S,
                           stdin=subprocess.DEVNULL, **kw)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Missing("%s: %s" % (what, e)) from None
    if p.returncode:
        raise Missing("%s: %s" % (what, (p.stderr.strip().splitlines() or ["failed"])[-1]))
    return p.stdout


def fetch(cache):
    """Fills the cache, unless it is full. Safe to call from several programs at once."""
    os.makedirs(cache, exist_ok=True)
    with open(os.path.join(cache, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if has_kernel(cache):
            return
        with tempfile.TemporaryDirectory(dir=cache) as work:
            unpack(download(work), cache, work)


def download(work):
    depends = run(["apt-cache", "depends", PACKAGE], "apt-cache depends " + PACKAGE)
    names = re.findall(r"Depends: (linux-image-\S+)", depends)
    if not names:
        raise Missing("apt knows no package %s; run apt-get update" % PACKAGE)
    # Root's apt would lend the download to a user who cannot write here.
    run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", names[0]],
        "apt-get download " + names[0], cwd=work)
    return glob.glob(os.path.join(work, "*.deb"))[0]


def unpack(package, cache, work):
    """The kernel comes last: it says that the cache is full."""
    wanted = {name.replace("_", "-"): name for name in MODULES}
    modules = os.path.join(cache, "modules")
    os.makedirs(modules, exist_ok=True)
    image = None
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as p:
        with tarfile.open(fileobj=p.stdout, mode="r|") as tar:
            for member in tar:
                name = os.path.basename(member.name)
                plain = re.sub(r"\.ko(\.xz)?$", "", name)
                if name.startswith("vmlinuz-"):
                    image = tar.extractfile(member).read()
                elif plain != name and plain.replace("_", "-") in wanted:
                    body = tar.extractfile(member).read()
                    if name.endswith(".xz"):
                        body = lzma.decompress(body)
                    target = wanted[plain.replace("_", "-")] + ".ko"
                    with open(os.path.join(modules, target), "wb") as f:
                        f.write(body)
    if image is None:
        raise Missing("%s: no kernel in it" % os.path.basename(package))
    new = os.path.join(work, "kernel")
    with open(new, "wb") as f:
        f.write(vmlinux_of(image))
    os.rename(new, os.path.join(cache, "kernel"))


def vmlinux_of(image):
    """What a bzImage has packed (Documentation/x86/boot: setup_sects, payload_offset,
    payload_length). QEMU boots it by PVH, without the slow unpacking in the guest.
    Packed in another way than xz, it boots as it is."""
    start, length = struct.unpack_from("<II", image, 0x248)
    start += (image[0x1F1] + 1) * 512
    packed = image[start:start + length]
    if not packed.startswith(b"\xfd7zXZ\0"):
        return image
    return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(packed)


# ---- the initramfs -------------------------------------------------------------

class Archive:
    """A cpio archive, as the kernel unpacks it ("newc")."""

    def __init__(self, out):
        self.out, self.number, self.names = out, 0, set()

    def entry(self, name, mode, data=b""):
        name = name.lstrip("/")
        if name in self.names:
            return
        self.names.add(name)
        parent = os.path.dirname(name)
        if parent and parent not in self.names:
            self.entry(parent, stat.S_IFDIR | 0o755)
        self.number += 1
        raw = name.encode() + b"\0"
        fields = (self.number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
        head = b"070701" + b"".join(b"%08X" % f for f in fields) + raw
        self.out.write(head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4))

    def file(self, name, source):
        with open(source, "rb") as f:
            body = f.read()
        self.entry(name, stat.S_IFREG | (os.stat(source).st_mode & 0o777), body)

    def link(self, name, to):
        self.entry(name, stat.S_IFLNK | 0o777, to.encode())

    def program(self, name, source):
        """With the shared libraries that it needs, where it looks for them."""
        self.file(name, source)
        p = subprocess.run(["ldd", source], capture_output=True, text=True, timeout=30)
        for library in re.findall(r"(/\S+) \(0x", p.stdout):
            self.file(library, library)

    def close(self):
        self.entry("TRAILER!!!", 0)


def tool(name):
    for path in TOOLS[name]:
        if os.access(path, os.X_OK):
            return path
    raise Missing("no %s here" % os.path.basename(name))


def initramfs(cache, out, programs):
    """programs go to /bin."""
    if not has_kernel(cache):
        raise Missing("no guest kernel in %s; fetch it with hw-fixtures/guest/mkguest.py fetch %s" %
                      (cache, cache))
    with open(out, "wb") as f:
        a = Archive(f)
        for folder in "dev", "proc", "sys", "run", "tmp", "var/lock", "etc/udev/rules.d":
            a.entry(folder, stat.S_IFDIR | 0o755)
        for name in TOOLS:
            a.program(name, tool(name))
        a.link("bin/systemd-udevd", "udevadm")
        a.link("bin/sh", "busybox")
        a.file("init", os.path.join(HERE, "init.sh"))
        a.file("bin/agent", os.path.join(HERE, "agent.sh"))
        for name in MODULES:
            path = os.path.join(cache, "modules", name + ".ko")
            if os.path.exists(path):
                a.file("lib/modules/%s.ko" % name, path)
        a.entry("lib/modules/order", stat.S_IFREG | 0o644, "\n".join(MODULES[:-1]).encode() + b"\n")
        a.entry("etc/passwd", stat.S_IFREG | 0o644,
                b"root:x:0:0::/:/bin/sh\nguest:x:1000:1000::/:/bin/sh\n")
        a.entry("etc/group", stat.S_IFREG | 0o644, b"root:x:0:\ndialout:x:20:guest\n")
        for path in programs:
            a.program("bin/" + os.path.basename(path), path)
        a.close()


def main(argv):
    if len(argv) == 2 and argv[0] == "fetch":
        fetch(argv[1])
    elif len(argv) >= 3 and argv[0] == "initramfs":
        initramfs(argv[1], argv[2], argv[3:])
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Missing as e:
        sys.exit("mkguest.py: %s" % e)
