# Clients of "another machine": a server in a network namespace of its own.
# SPDX-License-Identifier: MIT
import socket
import subprocess
import sys

from kdclient import Client
from kdlib import Proc, Skip

# Not loopback, but of this machine: in a network namespace of our own.
NAMESPACE = ["unshare", "-n", "--", "sh", "-c",
             "ip link set lo up && ip addr add 192.0.2.1/32 dev lo && exec \"$@\"", "sh"]
CONNECT = """
import socket, sys, threading
u = socket.socket(socket.AF_UNIX); u.connect(sys.argv[1])
t = socket.create_connection(("192.0.2.1", int(sys.argv[2])), 10, ("192.0.2.1", 0))
def copy(a, b):
    while True:
        d = a.recv(65536)
        if not d:
            b.shutdown(socket.SHUT_WR)
            return
        b.sendall(d)
threading.Thread(target=copy, args=(u, t), daemon=True).start()
copy(t, u)
"""


def foreign_server(lab, *options, extra=""):
    """A server, and a function that connects to it from "another machine"."""
    try:
        ok = subprocess.run(NAMESPACE + ["true"], capture_output=True, timeout=10).returncode == 0
    except OSError:
        ok = False
    if not ok:
        raise Skip("no right to make a network namespace")
    server = lab.server(*options, transports=["tcp:port=5005,bind=192.0.2.1" + extra,
                                              "npipe:pipe=near"], wrap=NAMESPACE)

    def connect(**kw):
        path = lab.path("far")
        with socket.socket(socket.AF_UNIX) as l:
            l.bind(path)
            l.listen(1)
            Proc(lab, "relay", ["nsenter", "-n", "-t", str(server.pid), sys.executable, "-c",
                                CONNECT, path, "5005"], expect=None)
            l.settimeout(10)
            return lab.closing(Client(l.accept()[0], **kw))
    return server, connect
