#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Tools of the host on a disk over NBD while a guest uses it, and clients that are killed beside it."""

import os
import subprocess
import time

from guest_checks import fio, no_io_errors, tap
from lab import MIB, SHORT, Lab

CONFIG = """
disks:
  root:
    stack:
      - file: {path: disk.img}
  shared:
    shared: true
    stack:
      - memory: {size: 32M}
vms:
  guest:
    - {virtio-blk: root, socket: root.sock, queues: 2}
    - {virtio-blk: shared, socket: shared.sock, queues: 2}
nbd:
  - {socket: n.sock, read-only: false}
"""


def tool(*command):
    done = subprocess.run(list(map(str, command)), text=True, capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
    tap.equal(done.returncode, 0, f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
    return done.stdout


@tap.test("a guest runs fio with verify on its disk; the host copies it, reads it, and kills clients; what is at rest comes out whole")
def _():
    with Lab() as lab:
        lab.image("disk.img", 128)
        lab.daemon("run", lab.write("nbd.yaml", CONFIG), "--api", "api.sock")
        guest = lab.guest([lab.path("root.sock"), lab.path("shared.sock")], programs=["fio", "mkfs.ext4"], memory=512, cpus=2)

        def uri(name):
            return f"nbd+unix:///{name}?socket={lab.path('n.sock')}"

        guest.run("dd if=/dev/urandom of=/dev/vda bs=1M count=16 2>/dev/null && sync && "
                  "dd if=/dev/vda bs=1M count=16 iflag=direct 2>/dev/null | md5sum > /tmp/sum")
        guest.send(fio("/dev/vda", "32M", offset="64M", runtime="6s", time_based=1) + "echo verified")
        begun, rounds = time.monotonic(), 0
        while time.monotonic() < begun + (3 if SHORT else 6):
            tool("nbdcopy", "--connections=2", uri("root"), lab.path("copy.img"))
            with subprocess.Popen(["nbdcopy", "--connections=2", uri("root"), "null:"], stderr=subprocess.DEVNULL) as killed:
                time.sleep(0.05)
                killed.kill()
            rounds += 1
        tap.check(rounds >= 1, "nothing was copied meanwhile")
        tap.equal(guest.finish(timeout=300), (0, "verified\n"), "fio in the guest")
        tap.check(subprocess.run(["nbdinfo", "--can", "write", uri("root")], timeout=30).returncode != 0,
                  "clients may write to the guest's disk")

        # What the guest wrote and left alone.
        with open(lab.path("copy.img"), "rb") as copy:
            lab.path("first").write_bytes(copy.read(16 * MIB))
        tap.equal(tool("md5sum", lab.path("first")).split()[0], guest.run("cat /tmp/sum").split()[0], "sum of the first 16M")

        # A shared disk is written by both, each in its place.
        lab.path("random").write_bytes(os.urandom(8 * MIB))
        tool("nbdcopy", "--flush", lab.path("random"), uri("shared"))
        tap.equal(guest.run("dd if=/dev/vdb bs=1M count=8 iflag=direct 2>/dev/null | md5sum").split()[0],
                  tool("md5sum", lab.path("random")).split()[0], "what the guest reads of the shared disk")
        guest.run("dd if=/dev/zero of=/dev/vdb bs=1M count=4 oflag=direct 2>/dev/null")
        tool("qemu-io", "-f", "raw", "-c", "read -P 0 0 4M", uri("shared"))
        no_io_errors(guest)


tap.main()
