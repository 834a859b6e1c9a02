#!/usr/bin/env python3
"""Runs a program in the guest, with its output, signals and exit status here.

usage: guestrun.py [--user USER] PORT PROGRAM [ARGUMENT...]

PORT is where the guest's agent is reached on loopback. Of PROGRAM only the last
part of its name counts. Standard input is not passed on. SPDX-License-Identifier: MIT"""
import base64
import os
import shlex
import signal
import socket
import sys


def call(port, script):
    s = socket.create_connection(("127.0.0.1", port))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    s.sendall(base64.b64encode(script.encode()) + b"\n")
    return s


def main(user, port, argv):
    words = [os.path.basename(argv[0])] + argv[1:]
    if user:
        words = ["start-stop-daemon", "-S", "-c", user, "-x", "/bin/" + words[0], "--"] + words[1:]
    lines = call(port, "exec " + " ".join(shlex.quote(w) for w in words)).makefile("rb")
    first = lines.readline().split()
    if first[:1] != [b"pid"]:
        sys.exit("guestrun.py: the guest hung up")
    pid = int(first[1])

    def pass_on(number, frame):
        call(port, "kill -%d %d" % (number, pid)).makefile("rb").read()
    for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
        signal.signal(number, pass_on)
    for line in lines:
        line, end, status = line.partition(b"\2exit ")
        out, _, err = line.partition(b"\1")
        for stream, text in (sys.stdout, out), (sys.stderr, err):
            stream.buffer.write(text)
            stream.flush()
        if end:
            sys.exit(int(status))
    sys.exit("guestrun.py: the guest hung up")


if __name__ == "__main__":
    words = sys.argv[1:]
    as_user = None
    if words[:1] == ["--user"]:
        as_user, words = words[1], words[2:]
    if len(words) < 2:
        sys.exit(__doc__)
    main(as_user, int(words[0]), words[1:])
