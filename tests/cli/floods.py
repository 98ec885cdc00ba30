#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Who never stops talking to a socket of ours has no more than its turn: other VMs, other clients and the API are served."""

import socket
import statistics
import struct
import subprocess
import sys
import time

from cli_checks import accepted, tap
from lab import MIB, Lab

import nbd_peer as nbd

CONFIG = """\
api: api.sock
loops: 1
disks:
  a: {stack: [memory: {size: 8M}]}
  b: {stack: [memory: {size: 8M}]}
  c: {stack: [memory: {size: 8M}]}
vms:
  one: [{virtio-blk: a, socket: one.sock}]
  two: [{virtio-blk: b, socket: two.sock}]
  three: [{ide: c, socket: three.sock}]
nbd:
  - {socket: n.sock, timeout: 20s}
"""

# What floods, in a process of its own. It says "." when it has begun, and ends when penstock does.
BEGIN = """\
import os, socket, struct, sys
def dial(path):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    return s
"""

# Messages that want no answer: SET_STATUS. From several processes, so that there is always one; what is sent at once
# stays in one piece.
TALK = BEGIN + """
s = dial(sys.argv[1])
many = struct.pack("<IIIQ", 39, 1, 8, 0) * 600
for _ in range(30):
    s.sendall(many)
print(".", flush=True)
for _ in range(3):
    if not os.fork():
        break
else:
    while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG) is None:      # none of them ends
        s.sendall(many)
    sys.exit()
while True:
    s.sendall(many)
"""

# Options that are refused, with 1 MiB of data each, on new connections when it is dropped.
OPTIONS = BEGIN + """
option = struct.pack(">QII", 0x49484156454f5054, 77, 1 << 20) + bytes(1 << 20)
print(".", flush=True)
while True:
    s = dial(sys.argv[1])
    try:
        s.sendall(struct.pack(">I", 3))
        while True:
            s.sendall(option)
    except OSError:
        s.close()
"""

# Connections, one after the other, to a socket that is taken.
CALL = BEGIN + """
first = dial(sys.argv[1])
print(".", flush=True)
while True:
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    s.close()
"""


class Flooded(Lab):
    def __enter__(self):
        super().__enter__()
        self.server = self.daemon("run", self.write("c.yaml", CONFIG))
        self.floods = []
        return self

    def flood(self, code, name):
        # What the host's scheduler owes the others is not ours to prove.
        process = self.end_with(subprocess.Popen(["nice", "-n", "19", sys.executable, "-c", code, str(self.path(name))],
                                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
        self.floods.append(process)
        tap.equal(process.stdout.read(1), b".", "the flood")

    def features(self, name):
        """What a VMM is told on socket `name`."""
        with socket.socket(socket.AF_UNIX) as vmm:
            vmm.settimeout(60)
            vmm.connect(str(self.path(name)))
            vmm.sendall(struct.pack("<III", 1, 1, 0))
            answer = b""
            while len(answer) < 20 and (more := vmm.recv(20 - len(answer))):
                answer += more
        tap.equal(len(answer), 20, "bytes of an answer")
        tap.equal(struct.unpack("<III", answer[:12]), (1, 5, 8), "GET_FEATURES")
        return struct.unpack("<Q", answer[12:])[0]

    def others_are_served(self):
        took, end = [], time.monotonic() + 6
        while time.monotonic() < end:
            began = time.monotonic()
            tap.check(self.features("two.sock") >> 32 & 1, "no VERSION_1")
            took.append(time.monotonic() - began)
        tap.check(statistics.median(took) < 0.5 and max(took) < 15,
                  f"a VMM was answered after {statistics.median(took):.1f} s, once after {max(took):.1f} s")
        for _ in range(3):
            accepted(self.penstock("status", "--api", "api.sock"))
            with nbd.Peer(self.path("n.sock")) as peer:
                tap.equal(peer.go("b")[0], 8 * MIB, "size")
                tap.equal(peer.ask(nbd.READ, 0, 512), (0, bytes(512)), "a read")
        tap.equal([flood.poll() for flood in self.floods], [None] * len(self.floods), "the floods end by themselves")
        tap.equal(self.server.stop(), 0, f"exit status {self.server.last_lines()}")


@tap.test("a VMM sends messages without end: others are served, and penstock ends when it is told to")
def _():
    with Flooded() as lab:
        lab.flood(TALK, "one.sock")
        lab.others_are_served()


@tap.test("NBD clients haggle without end")
def _():
    with Flooded() as lab:
        for _ in range(4):
            lab.flood(OPTIONS, "n.sock")
        lab.others_are_served()


@tap.test("connections without end to sockets that are taken: vhost-user and vfio-user")
def _():
    for name in ("one.sock", "three.sock"):
        with Flooded() as lab:
            lab.flood(CALL, name)
            lab.flood(CALL, name)
            lab.others_are_served()


tap.main()
