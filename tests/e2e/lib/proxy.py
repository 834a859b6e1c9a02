# A TCP proxy that delays and records what passes.
# SPDX-License-Identifier: MIT
import selectors
import socket
import threading
import time
from collections import deque


class _Way:
    """One direction of a connection: bytes wait until they are due."""

    def __init__(self, source, sink, log):
        self.source, self.sink, self.log = source, sink, log
        self.waiting = deque()  # (due, bytes); b"" is the end


class Proxy:
    def __init__(self, to, delay_s=0.0, on=None):
        self.to, self.delay_s = to, delay_s
        self.sent, self.received = bytearray(), bytearray()  # by clients, by servers
        self.listener = on or socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1] if on is None else None
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ, None)
        self.wake_r, self.wake_w = socket.socketpair()
        self.selector.register(self.wake_r, selectors.EVENT_READ, None)
        self.ways = []
        self.stop = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        if self.stop:
            return
        self.stop = True
        self.wake_w.send(b"x")
        self.thread.join(10)
        for way in self.ways:
            way.source.close()
        self.listener.close()
        self.wake_r.close()
        self.wake_w.close()

    def _accept(self):
        a, _ = self.listener.accept()
        if isinstance(self.to, tuple):
            b = socket.create_connection(self.to, 10)
            b.settimeout(None)
            for s in (a, b):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            b = socket.socket(socket.AF_UNIX)
            b.connect(self.to)
        for source, sink, log in ((a, b, self.sent), (b, a, self.received)):
            way = _Way(source, sink, log)
            self.ways.append(way)
            self.selector.register(source, selectors.EVENT_READ, way)

    def _read(self, way):
        try:
            data = way.source.recv(262144)
        except OSError:
            data = b""
        way.log += data
        way.waiting.append((time.monotonic() + self.delay_s, data))
        if not data:
            self.selector.unregister(way.source)

    def _write_due(self):
        """Passes on what is due; returns the time until the next, or None."""
        now, wait = time.monotonic(), None
        for way in self.ways:
            while way.waiting and way.waiting[0][0] <= now:
                data = way.waiting.popleft()[1]
                try:
                    if data:
                        way.sink.sendall(data)
                    else:
                        way.sink.shutdown(socket.SHUT_WR)
                except OSError:
                    way.waiting.clear()
            if way.waiting:
                left = way.waiting[0][0] - now
                wait = left if wait is None else min(wait, left)
        return wait

    def _run(self):
        while not self.stop:
            wait = self._write_due()
            for key, _ in self.selector.select(wait):
                if key.fileobj is self.listener:
                    self._accept()
                elif key.fileobj is not self.wake_r:
                    self._read(key.data)
