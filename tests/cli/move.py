#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""`penstock move`, and legs that come and go, on disks that nobody uses; under load they are in tests/protocol/change_test.c and
tests/guest/change.py."""

import json
import os
import pty
import re
import select
import subprocess
import time

from cli_checks import accepted, refused, tap
from lab import PENSTOCK, Lab

MIB = 16

CONFIG = """\
disks:
  data:
    stack:
      - file: {path: a.img}
  tight:
    size: 7M
    stack:
      - file: {path: tight.img}
vms:
  web:
    - {virtio-blk: data, socket: web.sock}
"""


class Running:
    """A daemon whose disk holds noise, and penstock commands on it."""

    def __init__(self, lab, text=CONFIG):
        self.lab = lab
        lab.path("a.img").write_bytes(os.urandom(1 << 20) * MIB)
        lab.path("tight.img").write_bytes(os.urandom(1 << 20) * 8)
        self.daemon = lab.daemon("run", lab.write("move.yaml", text), "--api", "api.sock")

    def run(self, *arguments):
        return self.lab.penstock(*arguments, "--api", "api.sock")

    def ok(self, *arguments):
        return accepted(self.run(*arguments))

    def disk(self, name="data"):
        status = json.loads(self.ok("status", "--json"))
        return next(disk for disk in status["disks"] if disk["name"] == name)

    def metrics(self):
        return subprocess.run(["curl", "-sS", "--max-time", "20", "--unix-socket", self.lab.path("api.sock"),
                               "http://penstock/metrics"], text=True, capture_output=True, timeout=30, check=True).stdout

    def same(self, name, other="a.img", size=MIB << 20):
        tap.check(self.lab.path(name).read_bytes()[:size] == self.lab.path(other).read_bytes()[:size],
                  f"{name} differs from {other}")


def wait_until(condition, what):
    deadline = time.monotonic() + 20
    while not condition():
        tap.check(time.monotonic() < deadline, f"not after 20 s: {what}")
        time.sleep(0.05)


@tap.test("an overlay moves into an image of its own, with its base in it")
def _():
    text = CONFIG.replace("vms:", """\
  grown:
    stack:
      - overlay:
          store: {file: {path: grown.ovl, create: true}}
      - file: {path: golden.img}
vms:""")
    with Lab() as lab:
        lab.path("golden.img").write_bytes(os.urandom(1 << 20) * 4)
        running = Running(lab, text)
        running.ok("move", "grown", "file: {path: flat.img, create: true}")
        tap.contains(running.ok("stack", "grown"), "flat.img")
        running.same("flat.img", "golden.img", 4 << 20)


@tap.test("a disk moves: the target is made as large, holds the same, and is what the disk is on; the old image is free")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        said = penstock.ok("move", "data", "file: {path: b.img, create: true}")
        tap.check(re.match(r"disk data: moved, 16\.0M in \d+\.\d s\n", said), said)
        tap.contains(said, "The configuration file does not know of it: penstock config")
        tap.contains(lab.log.read_text(), "warn: disk data: the configuration file does not know of its new place")
        penstock.same("b.img")
        tap.equal(penstock.ok("stack", "data"), "- file: {path: b.img, create: true, size: 16M}\n", "the stack")
        tap.contains(penstock.ok("config"), "- file: {path: b.img}\n")
        penstock.ok("add-disk", "old", "{stack: [file: {path: a.img}]}")
        disk = penstock.disk()
        tap.equal((disk["move"]["state"], disk["move"]["bytes"], disk["changes"]["count"]), ("done", MIB << 20, 2), "the move")
        # A sparse image stays sparse.
        penstock.ok("add-disk", "empty", "{stack: [file: {path: empty.img, create: true, size: 64M}]}")
        penstock.ok("move", "empty", "file: {path: there.img, create: true}")
        tap.check(lab.path("there.img").stat().st_blocks < 2048, "what was empty takes space")


@tap.test("with a state file a restart finds the disk in its new place, and says nothing of the configuration")
def _():
    with Lab() as lab:
        penstock = Running(lab, "state: state.yaml\n" + CONFIG)
        tap.check("configuration" not in penstock.ok("move", "data", "file: {path: b.img, create: true}"), "a needless note")
        penstock.daemon.kill()
        penstock.daemon = lab.daemon("run", "move.yaml", "--api", "api.sock", "--engine", "threads")
        tap.contains(penstock.ok("stack", "data"), "b.img")
        tap.equal(penstock.daemon.stop(), 0, "exit status")


@tap.test("a move that is limited can be followed, sped up and canceled; meanwhile nothing else changes the disk")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        tap.contains(penstock.ok("move", "data", "file: {path: b.img, create: true}", "--limit", "1M", "--detach"),
                     "it is being moved")
        move = penstock.disk()["move"]
        tap.equal((move["state"], move["limit"], move["size"]), ("copying", 1 << 20, MIB << 20), "the move")
        tap.contains(penstock.ok("status"), "Disk data is being moved: copying, ")
        tap.contains(penstock.metrics(), 'penstock_move_size_bytes{disk="data"} 16777216', 'penstock_move_copied_bytes{disk="data"} ')
        for arguments in (("insert-layer", "data", "0", "pass"), ("stack", "data", "null"), ("resize", "data", "32M"),
                          ("move", "data", "file: {path: c.img, create: true}")):
            refused(penstock.run(*arguments), 1, "it is being moved to another back-end", "one thing at a time")
        # In service, so it is a unit that is named first.
        refused(penstock.run("remove-disk", "data"), 1, "'data' is in use")
        tap.contains(penstock.ok("config"), "- file: {path: a.img}")
        tap.contains(penstock.ok("move", "data", "--cancel"), "the move is canceled")
        tap.equal(penstock.disk()["move"]["state"], "canceled", "the move")
        tap.equal(penstock.ok("stack", "data"), "- file: {path: a.img}\n", "the stack")
        tap.check("penstock_move_size_bytes{" not in penstock.metrics(), "metrics of a move that is over")
        refused(penstock.run("move", "data", "--cancel"), 1, "disk 'data' is not being moved")
        refused(penstock.run("move", "data", "--limit", "1M"), 1, "disk 'data' is not being moved")
        penstock.ok("move", "data", "file: {path: b.img}", "--limit", "1M", "--detach")
        with subprocess.Popen([PENSTOCK, "move", "data", "--api", "api.sock"], cwd=lab.directory, text=True,
                              stdout=subprocess.PIPE) as watching:
            penstock.ok("move", "data", "--limit", "0")
            tap.contains(watching.communicate(timeout=20)[0], "disk data: moved")
            tap.equal(watching.returncode, 0, "exit status of who watched")
        penstock.same("b.img")


@tap.test("on a terminal there is a bar with percent, rate and time; Ctrl-C ends the watching, not the move")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        terminal, ours = pty.openpty()
        with subprocess.Popen([PENSTOCK, "move", "data", "file: {path: b.img, create: true}", "--limit", "8M", "--api", "api.sock"],
                              cwd=lab.directory, stdin=ours, stdout=ours, stderr=ours, start_new_session=True) as watching:
            os.close(ours)
            seen, deadline = b"", time.monotonic() + 20
            while not re.search(rb"data \[=+> +\] +\d+\.\d%  .*M of 16\.0M  .*/s  0:00:\d\d left", seen):
                tap.check(time.monotonic() < deadline, f"no bar in {seen!r}")
                if select.select([terminal], [], [], 1)[0]:
                    seen += os.read(terminal, 4096)
            watching.send_signal(2)
            tap.equal(watching.wait(20), -2, "status of who was interrupted")
        seen += os.read(terminal, 4096)
        os.close(terminal)
        tap.contains(seen.decode(), "the move goes on")
        tap.contains(penstock.ok("move", "data"), "disk data: moved")
        penstock.same("b.img")


@tap.test("a target that cannot be opened, is too small, or fails leaves the disk where it was")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        lab.image("small.img", 1)
        for target, names in ((["file: {path: gone.img}"], ["gone.img", "does not exist"]),
                              (["file: {path: a.img}"], ["a.img", "in use"]),
                              (["iso: {path: small.img}"], ["move", "target"]),
                              (["pass"], ["pass is not a back-end"]), (["nul"], ["did you mean 'null'?"]),
                              (["file: {path: b.img, create: yes please}"], ["create"]),
                              (["flaky: {errors: 100%, ops: write}", "memory: {size: 16M}"], ["the target failed", "where it was"])):
            refused(penstock.run("move", "data", *target), 1, *names)
            tap.equal(penstock.ok("stack", "data"), "- file: {path: a.img}\n", "the stack")
        for arguments, names in ((["--at", "0"], ["LAYER is missing"]), (["null", "--cancel"], ["--cancel stands alone"]),
                                 (["null", "--limit", "fast"], ["--limit", "fast"]), (["{"], ["LAYER:", "not YAML"])):
            refused(penstock.run("move", "data", *arguments), 2, *names)
        refused(penstock.run("move", "data"), 1, "disk data: the move failed: the target failed")
        refused(penstock.run("move", "daat", "null"), 1, "no disk 'daat'", "did you mean 'data'?")
        refused(penstock.run("move", "data", "null", "--at", "7"), 1, "there is no layer 7")
        # One that is too small and can grow, grows.
        penstock.ok("move", "data", "file: {path: small.img}")
        penstock.same("small.img")


@tap.test("a stop in the midst of a move cancels it, and ends in good order")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        penstock.ok("move", "data", "file: {path: b.img, create: true}", "--limit", "1M", "--detach")
        began = time.monotonic()
        tap.equal(penstock.daemon.stop(), 0, "exit status")
        tap.check(time.monotonic() - began < 8, "the stop waited for the move")
        tap.contains(lab.log.read_text(), "disk data: not moved: canceled; it is where it was")


@tap.test("a disk is encrypted, and decrypted, while it moves")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        lab.path("key").write_bytes(os.urandom(32))
        accepted(lab.penstock("create", "crypt", "luks.img", "size=16M", "key-file=key", timeout=60))
        penstock.ok("move", "data", "crypt: {key-file: key}", "file: {path: luks.img}", "--at", "0")
        tap.equal(penstock.ok("stack", "data"), "- crypt: {key-file: key}\n- file: {path: luks.img}\n", "the stack")
        refused(penstock.run("remove-layer", "data", "crypt"), 1, "would find other data there")
        penstock.ok("move", "data", "file: {path: plain.img, create: true}", "--at", "crypt")
        penstock.same("plain.img")


@tap.test("a file becomes a mirror's leg, legs are added and removed, and one of them stays alone")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        for name in ("b.img", "c.img"):
            lab.image(name, 8)
        in_sync = lambda: all(leg.get("state", leg.get("status")) in ("in-sync", "in sync", "good") for leg in
                              penstock.disk("tight")["stack"][0]["mirror"]["state"]["legs"])
        tap.contains(penstock.ok("insert-layer", "tight", "file", "mirror: {create: true, legs: [file: {path: b.img}]}"),
                     "0 mirror (0: 0 file; 1: 0 file)")
        wait_until(in_sync, "the new leg is in sync")
        tap.contains(penstock.ok("add-leg", "tight", "mirror", "pass", "file: {path: c.img}"), "2: 0 pass, 1 file)")
        wait_until(in_sync, "the third leg is in sync")
        tap.contains(penstock.ok("insert-layer", "tight", "mirror/1/0", "pass"), "1: 0 pass, 1 file; 2: 0 pass, 1 file)")
        tap.contains(penstock.ok("remove-leg", "tight", "mirror/0"), "0 mirror (0: 0 pass, 1 file; 1: 0 pass, 1 file)")
        refused(penstock.run("remove-layer", "tight", "mirror"), 1, "mirror has 2 legs", "say which one stays")
        refused(penstock.run("remove-leg", "tight", "mirror/5"), 1, "mirror has no leg '5'")
        refused(penstock.run("insert-layer", "tight", "file", "pass"), 1, "there are 2 layers 'file'", "mirror/0/file")
        tap.contains(penstock.ok("remove-layer", "tight", "mirror", "--keep", "1"), "disk tight: 0 pass, 1 file;")
        tap.equal(penstock.ok("stack", "tight"), "- pass\n- file: {path: c.img}\n", "the stack")
        penstock.same("c.img", "tight.img", 7 << 20)


tap.main()
