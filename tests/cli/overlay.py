#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Overlays from outside: QEMU's tools write to them over NBD; undo, inspect, what is refused."""

import hashlib
import os
import shutil
import subprocess

from cli_checks import accepted, refused, tap
from lab import MIB, Lab

GOLDEN = 24     # MiB

CONFIG = """\
api: api.sock
disks:
  a:
    stack:
      - overlay: {store: {file: {path: a.ovl, create: true}}}
      - file: {path: golden.img}
  b:
    stack:
      - overlay:
          copy-on-read: true
          store: [pass: {}, file: {path: b.ovl, create: true}]
      - file: {path: golden.img}
  plain:
    stack: [memory: {size: 8M}]
nbd:
  - {socket: nbd.sock, read-only: false}
"""


def tool(*command):
    done = subprocess.run(list(map(str, command)), text=True, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    tap.equal(done.returncode, 0, f"status of {' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")
    return done.stdout


class Overlays(Lab):
    """A golden image of random bytes, and two disks over it, which tools reach over NBD."""

    def __enter__(self):
        super().__enter__()
        self.golden = self.path("golden.img")
        self.golden.write_bytes(os.urandom(GOLDEN * MIB))
        shutil.copy(self.golden, self.path("copy.img"))    # QEMU's tools do not share what penstock has locked
        self.sum = hashlib.sha256(self.golden.read_bytes()).hexdigest()
        self.config = self.write("c.yaml", CONFIG)
        return self

    def __exit__(self, kind, *rest):
        if kind is None:
            tap.equal(hashlib.sha256(self.golden.read_bytes()).hexdigest(), self.sum, "the golden image's sha256")
        return super().__exit__(kind, *rest)

    def uri(self, disk):
        return f"nbd+unix:///{disk}?socket={self.path('nbd.sock')}"

    def io(self, disk, *commands):
        words = [word for command in commands for word in ("-c", command)]
        out = tool("qemu-io", "-f", "raw", *words, self.uri(disk))
        tap.check("verification failed" not in out, out)

    def differs(self, disk):
        """Whether the disk is something else than the golden image."""
        done = subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", self.path("copy.img"), self.uri(disk)],
                              text=True, capture_output=True, timeout=60)
        tap.check(done.returncode in (0, 1), f"qemu-img compare: {done.stderr}")
        return done.returncode == 1


@tap.test("two disks over one image: each reads it, writes its own, and finds that again after a restart")
def _():
    with Overlays() as lab:
        daemon = lab.daemon("run", lab.config)
        tap.check(not lab.differs("a") and not lab.differs("b"), "a new overlay is not its base")
        lab.io("a", "write -P 1 0 64k", "write -P 2 1m 3k", "write -z 2m 1m", "flush", "discard 4m 1m")
        lab.io("b", "write -P 3 0 64k", "flush")
        tap.equal(daemon.stop(), 0, "exit status")
        for store in ("a.ovl", "b.ovl"):
            tap.contains(accepted(lab.penstock("inspect", store)), "the store of an overlay", "24M", "good")
        daemon = lab.daemon("run", lab.config)
        refused(lab.penstock("run", lab.config, "--api", "other.sock"), 1, "a.ovl is in use")
        lab.io("a", "read -P 1 0 64k", "read -P 2 1m 3k", "read -P 0 2m 1m")
        lab.io("b", "read -P 3 0 64k")
        tap.check(lab.differs("a") and lab.differs("b"), "what was written is not there")
        tap.equal(daemon.stop(), 0, "exit status")


@tap.test("penstock undo: the disk is the base again while it is in use, and after a kill -9")
def _():
    with Overlays() as lab:
        daemon = lab.daemon("run", lab.config)
        lab.io("a", "write -P 1 0 8m", "flush")
        used = lab.path("a.ovl").stat().st_blocks
        lab.io("b", "write -P 1 0 64k")
        tap.contains(accepted(lab.penstock("undo", "a", "--api", "api.sock")), "thrown away")
        tap.check(not lab.differs("a"), "something is left of the changes")
        tap.check(lab.differs("b"), "another disk was undone")
        tap.check(lab.path("a.ovl").stat().st_blocks < used, "the store gave nothing back")
        lab.io("a", "write -P 4 1m 64k")
        daemon.kill()
        daemon.start()
        lab.io("a", "read -P 4 1m 64k")
        accepted(lab.penstock("undo", "a", "--api", "api.sock"))
        daemon.kill()
        daemon.start()
        tap.check(not lab.differs("a"), "the undo was forgotten")
        refused(lab.penstock("undo", "plain", "--api", "api.sock"), 1, "disk 'plain'", "overlay")
        refused(lab.penstock("undo", "nonesuch", "--api", "api.sock"), 1, "nonesuch")
        tap.equal(daemon.stop(), 0, "exit status")


@tap.test("an overlay grows; another base, another store, a damaged one are refused in words")
def _():
    with Overlays() as lab:
        daemon = lab.daemon("run", lab.config)
        accepted(lab.penstock("resize", "a", "40M", "--api", "api.sock"))
        lab.io("a", "write -P 5 39m 1m", "read -P 0 24m 15m")
        tap.equal(daemon.stop(), 0, "exit status")
        daemon = lab.daemon("run", lab.config)
        lab.io("a", "read -P 5 39m 1m")
        tap.equal(daemon.stop(), 0, "exit status")
        before = lab.path("a.ovl").read_bytes()
        with open(lab.golden, "r+b") as image:
            byte = image.read(1)
            image.seek(0)
            image.write(bytes([byte[0] ^ 1]))
        refused(lab.penstock("run", lab.config), 1, "another base", "written to since")
        with open(lab.golden, "r+b") as image:
            image.write(byte)
        for at, why in ((100, "good"), (4096 + 100, "damaged")):
            with open(lab.path("a.ovl"), "r+b") as store:
                store.seek(at)
                store.write(b"\xff")
            tap.contains(lab.penstock("inspect", "a.ovl").stdout, why)
        refused(lab.penstock("run", lab.config), 1, "the header of the store is damaged")
        after = lab.path("a.ovl").read_bytes()
        tap.equal(sum(a != b for a, b in zip(before, after)), 2, "bytes of the store that changed")
        lab.path("a.ovl").write_bytes(os.urandom(MIB))
        refused(lab.penstock("run", lab.config), 1, "something else than an overlay")


@tap.test("live: a layer comes between an overlay and its base, and goes; another base is refused")
def _():
    with Overlays() as lab:
        daemon = lab.daemon("run", lab.config)
        lab.io("a", "write -P 1 0 64k")
        accepted(lab.penstock("insert-layer", "a", "1", "pass", "--api", "api.sock"))
        lab.io("a", "read -P 1 0 64k", "write -P 2 1m 64k")
        accepted(lab.penstock("remove-layer", "a", "1", "--api", "api.sock"))
        accepted(lab.penstock("set-layer", "a", "0", "copy-on-read=true", "--api", "api.sock"))
        lab.io("a", "read -P 1 0 64k", "read -P 2 1m 64k")
        lab.path("other.img").write_bytes(os.urandom(GOLDEN * MIB))
        refused(lab.penstock("set-layer", "a", "1", "path=other.img", "--api", "api.sock"), 1, "other data")
        refused(lab.penstock("set-layer", "a", "0", "block=8K", "--api", "api.sock"), 1, "block")
        lab.io("a", "read -P 1 0 64k", "read -P 2 1m 64k")
        tap.equal(daemon.stop(), 0, "exit status")


tap.main()
