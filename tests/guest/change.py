#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The layers of a disk change, it grows, and it moves, under a real guest that runs fio with verify and has a file system
on another part of it; it sees no error.

What fio wrote is verified while all this goes on, and once more at the end, through the host's own view of the image."""

import json
import time

from guest_checks import begin_load, end_load, fio, no_io_errors, tap
from lab import SHORT, Disk, Lab

SECONDS = 6 if SHORT else 19        # how long layers change
MIB = 128

CONFIG = """
state: state.yaml
disks:
  disk:
    stack:
      - file: {path: a.img}
vms:
  guest:
    - {virtio-blk: disk, socket: disk.sock, queues: 2}
"""


class Scene:
    """A guest whose one disk is under load, and penstock commands beside it."""

    def __init__(self, lab, engine="auto"):
        self.lab = lab
        lab.image("a.img", MIB)
        self.daemon = lab.daemon("run", lab.write("change.yaml", CONFIG), "--api", "api.sock", "--engine", engine)
        self.guest = lab.guest([Disk(lab.path("disk.sock"), "num-queues=2")], programs=["mkfs.ext4", "e2fsck", "fio"],
                               memory=512, cpus=2)
        # A file system in the first half, fio on the bare second half.
        self.guest.run(f"mkfs.ext4 -q /dev/vda {MIB // 2}M && mount -t ext4 /dev/vda /mnt && "
                       "dd if=/dev/urandom of=/mnt/before bs=1M count=8 2>/dev/null && sync && md5sum /mnt/before >/tmp/sums")
        self.guest.run("while [ ! -e /tmp/enough ]; do dd if=/dev/urandom of=/mnt/more bs=64k count=64 2>/dev/null; sync; "
                       "done >/dev/null 2>&1 &")
        begin_load(self.guest, fio("/dev/vda", f"{MIB // 4}M", offset=f"{MIB // 2}M", bsrange="4k-64k", iodepth=32, fsync=256,
                                   runtime="4s", time_based=1))

    def finish(self):
        """The load has seen no error, and was there all the time."""
        end_load(self.guest)
        self.guest.run("while pidof dd; do sleep 0.1; done >/dev/null\n"
                       "echo 3 >/proc/sys/vm/drop_caches; md5sum -c /tmp/sums && umount /mnt && e2fsck -fn /dev/vda")
        no_io_errors(self.guest)

    def ok(self, *arguments):
        done = self.lab.penstock(*arguments, "--api", "api.sock", timeout=120)
        tap.equal(done.returncode, 0, f"status of penstock {' '.join(arguments)}, which said {done.stderr!r}")
        return done.stdout

    def fails(self, *arguments):
        done = self.lab.penstock(*arguments, "--api", "api.sock", timeout=120)
        tap.equal(done.returncode, 1, f"status of penstock {' '.join(arguments)}")
        return done.stderr

    def disk(self):
        return json.loads(self.ok("status", "--json"))["disks"][0]


@tap.test("layers come, go, change places and options, and the disk grows, under fio with verify")
def _():
    with Lab() as lab:
        scene = Scene(lab)
        until = time.monotonic() + SECONDS
        changes = 0
        while time.monotonic() < until:
            scene.ok("insert-layer", "disk", "0", "pass")
            scene.ok("insert-layer", "disk", "file", "flaky: {delay: 1ms, jitter: 4ms}")
            scene.ok("move-layer", "disk", "flaky", "pass")
            scene.ok("set-layer", "disk", "flaky", "delay=", "jitter=1ms")
            scene.ok("resize", "disk", f"{MIB + 16 * (changes // 4 + 1)}M")
            scene.ok("remove-layer", "disk", "flaky")
            scene.ok("remove-layer", "disk", "pass")
            changes += 6
        disk = scene.disk()
        tap.equal(disk["changes"]["count"], changes // 6 * 6, "changes counted")
        print(f"# {changes} changes; the longest pause was {disk['changes']['longest-pause-us'] / 1000:.1f} ms", flush=True)
        scene.finish()


@tap.test("the disk moves, is canceled, fails over to a bad target and moves on, under fio with verify")
def _():
    with Lab() as lab:
        scene = Scene(lab)
        scene.ok("move", "disk", "file: {path: b.img, create: true}", "--limit", "40M")
        lab.path("a.img").unlink()
        scene.ok("move", "disk", "file: {path: c.img, create: true}", "--limit", "4M", "--detach")
        time.sleep(0.5)
        scene.ok("move", "disk", "--cancel")
        tap.contains(scene.fails("move", "disk", "flaky: {errors: 10%, ops: write}", "file: {path: c.img, create: true}"),
                     "the target failed", "it is where it was")
        scene.ok("move", "disk", "file: {path: c.img, create: true}")
        tap.contains(scene.ok("stack", "disk"), "c.img")
        disk = scene.disk()
        print(f"# the longest pause was {disk['changes']['longest-pause-us'] / 1000:.1f} ms", flush=True)
        scene.finish()


@tap.test("penstock dies in the midst of a move, and starts again where the disk is complete")
def _():
    with Lab() as lab:
        # A killed io_uring keeps its files for a while, on a busy machine for long; crash.py is about that.
        scene = Scene(lab, "threads")
        here, there = "a.img", "b.img"
        for rest in (0.4, 1.2, 2.5) if SHORT else (0.1, 0.4, 0.8, 1.2, 2.0, 3.0):
            lab.path(there).unlink(missing_ok=True)
            scene.ok("move", "disk", f"file: {{path: {there}, create: true}}", "--limit", "64M", "--detach")
            time.sleep(rest)
            scene.daemon.kill()
            scene.daemon.start()
            lab.wait_until_attached(queues=2)
            if there in scene.ok("stack", "disk"):
                here, there = there, here
        lab.path(there).unlink(missing_ok=True)
        scene.finish()
        tap.equal(scene.daemon.stop(), 0, "penstock's exit status at the end")


tap.main()
