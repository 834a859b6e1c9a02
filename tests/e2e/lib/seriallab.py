# A serial cable between two QEMUs, with what QEMU's emulation leaves out: bytes
# take their time, and come out as other bytes when the two ends differ in speed.
# SPDX-License-Identifier: MIT
import collections
import os
import select
import socket
import termios
import threading
import time
import tty

from kdlib import TOP_BUILD, TOP_SRC, Proc, Skip

ELF = os.path.join(TOP_BUILD, "kdtarget.elf")
BAUDS = {getattr(termios, name): int(name[1:]) for name in dir(termios)
         if name[0] == "B" and name[1:].isdigit()}
PIECE = 16  # a UART's FIFO
BYTE_COST = 768  # of one byte in a socket's buffer, by the kernel's account


def resample(data, sent_baud, read_baud):
    """What a receiver at read_baud makes of bytes sent back to back at sent_baud, 8N1."""
    bits = []
    for byte in data:
        bits += [0] + [byte >> i & 1 for i in range(8)] + [1]
    ratio = sent_baud / read_baud  # bits sent, for one bit read

    def level(at):
        return bits[int(at)] if at < len(bits) else 1
    out, at = bytearray(), 0.0
    while at < len(bits):
        if level(at):
            at = int(at) + 1.0
            continue
        out.append(sum(level(at + ratio * (i + 1.5)) << i for i in range(8)))
        at += ratio * 9.5
    return bytes(out)


class End:
    """One end of the cable. The QEMU there has a socket or a pty for its port."""

    def __init__(self, fd, baud):
        self.fd = fd
        self.baud = baud  # a function
        self.arriving = collections.deque()  # (when, bytes)
        self.quiet_at = 0.0                  # when the last byte will have come
        self.busy = False                    # what is sent to here follows what was sent
        self.passed = 0


class Line:
    """The guest's end is a pty, on which QEMU sets the speed of the port it emulates; the
    other end's speed is 115200, as kdtarget.elf sets it. Another debuggee can be plugged in
    at any time."""

    def __init__(self, lab):
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        os.set_blocking(self.master, False)
        self.device = os.ttyname(self.slave)
        self.guest = End(self.master, self.guest_baud)
        self.target = None
        self.lock = threading.Lock()
        self.wake_r, self.wake_w = socket.socketpair()
        self.stop = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        lab.closing(self)

    def guest_baud(self):
        return BAUDS[termios.tcgetattr(self.slave)[5]]

    def plug(self):
        """Returns the other end of the cable, a socket. It holds no more than a few bytes: a
        UART that took everything at once would soon repeat what is still on its way."""
        ours, theirs = socket.socketpair()
        for s in ours, theirs:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * BYTE_COST // 2)
        ours.setblocking(False)
        with self.lock:
            if self.target:
                os.close(self.target.fd)
            self.target = End(ours.detach(), lambda: 115200)
            self.guest.arriving.clear()
        self.wake_w.send(b"x")
        return theirs

    def machine(self, lab, *options):
        """Boots the debuggee at the other end."""
        with self.plug() as com1:
            return Machine(lab, com1, *options)

    def close(self):
        self.stop = True
        self.wake_w.send(b"x")
        self.thread.join(10)
        for fd in self.master, self.slave, self.target.fd if self.target else -1:
            if fd >= 0:
                os.close(fd)
        self.wake_r.close()
        self.wake_w.close()

    def _take(self, source, sink):
        """Moves what was sent onto the line."""
        try:
            data = os.read(source.fd, PIECE)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if not data:
            return False
        sent, read = source.baud(), sink.baud()
        # A sender that had to wait goes on at once: that we come late is not the line's fault.
        start = sink.quiet_at if sink.busy else max(time.monotonic(), sink.quiet_at)
        sink.quiet_at = start + len(data) * 10 / sent
        if sent != read:
            data = resample(data, sent, read)
        sink.busy = True
        sink.arriving.append((sink.quiet_at, data))
        return True

    @staticmethod
    def _deliver(sink, now):
        while sink.arriving and sink.arriving[0][0] <= now:
            _, data = sink.arriving[0]
            try:
                n = os.write(sink.fd, data)
            except OSError:
                return  # full: what is late stays late
            sink.passed += n
            if n < len(data):
                sink.arriving[0] = (now, data[n:])
                return
            sink.arriving.popleft()

    def _turn(self):
        """One round. Returns what to wait for: descriptors and seconds."""
        ends = [(self.guest, self.target), (self.target, self.guest)] if self.target else []
        now = time.monotonic()
        wait, due = [self.wake_r], []
        for source, sink in ends:
            self._deliver(sink, now)
            if sink.arriving:
                due.append(max(sink.arriving[0][0] - now, 0.0005))
            # No more than two FIFOs are on their way.
            if len(sink.arriving) < 2:
                wait.append(source.fd)
        return wait, min(due, default=None), dict((s.fd, (s, t)) for s, t in ends)

    def _run(self):
        gone = set()
        while not self.stop:
            with self.lock:
                wait, timeout, ends = self._turn()
            gone &= set(ends)
            ready, _, _ = select.select([f for f in wait if f not in gone], [], [], timeout)
            if self.wake_r in ready:
                self.wake_r.recv(4096)
                gone.clear()
                continue
            with self.lock:
                for fd in set(wait) & set(ends):
                    if fd not in ready:
                        ends[fd][1].busy = False
                    elif not self._take(*ends[fd]):
                        gone.add(fd)  # ended: silence, until another is plugged in


class Machine(Proc):
    """The bare-metal debuggee, its COM1 on a socket."""

    def __init__(self, lab, com1, *options):
        if not os.path.exists(ELF):
            raise Skip("kdtarget.elf is not in this build")
        run = os.path.join(TOP_SRC, "hw-fixtures/target/run-qemu.sh")
        super().__init__(lab, "qemu", [run, "fd:%d" % com1.fileno()] + list(options), expect=None,
                         env=dict(lab.env, KDTARGET_ELF=ELF), pass_fds=(com1.fileno(),))
