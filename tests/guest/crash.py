#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The daemon dies, or is stopped, under a guest's load, and starts again; the guest notices a pause.

The instants are random; the seed is printed, and $SEED repeats it. fio verifies each block it
wrote, so a request that is lost, torn or done late over a newer one shows as a bad checksum."""

import os
import random
import time

from guest_checks import begin_load, end_load, fio, no_io_errors, tap
from lab import SHORT, Disk, Lab

SEED = int(os.environ.get("SEED") or random.randrange(1 << 32))
TIMES = 2 if SHORT else 5

print(f"# SEED={SEED}", flush=True)


CONFIG = """
disks:
  disk:
    stack: {stack}
vms:
  guest:
    - {{virtio-blk: disk, socket: disk.sock, queues: 2}}
api: api.sock
"""
FILE = "[file: {path: disk.img}]"
# Many requests are in flight at any instant, and they finish in another order than they came.
JITTER = "[flaky: {delay: 2ms, jitter: 30ms}, file: {path: disk.img}]"


def under_load(engine, ring, stack, interrupt):
    """Boot, load the disk, call `interrupt(daemon)` at TIMES random instants, verify everything."""
    chance = random.Random(f"{SEED} {engine} {ring} {stack}")
    with Lab() as lab:
        lab.image("disk.img", 256)
        config = lab.write("crash.yaml", CONFIG.format(stack=stack))
        daemon = lab.daemon("run", config, "--engine", engine)
        disk = Disk(lab.path("disk.sock"), f"num-queues=2,packed={'on' if ring == 'packed' else 'off'}")
        guest = lab.guest([disk], programs=["mkfs.ext4", "e2fsck", "fio"], memory=512, cpus=2)
        guest.run("mkfs.ext4 -q /dev/vda && mount -t ext4 /dev/vda /mnt && "
                  "dd if=/dev/urandom of=/mnt/before bs=1M count=8 2>/dev/null && sync && "
                  "md5sum /mnt/before >/tmp/sums")
        # One job on a file of the file system, with fsyncs; reading back follows the writing.
        job = fio("/mnt/load", "32M", bsrange="4k-64k", iodepth=64, iodepth_batch=16, fsync=512, runtime="4s",
                  time_based=1, randseed=SEED)
        begin_load(guest, job)
        for _ in range(TIMES):
            time.sleep(chance.uniform(0.5, 2.0))
            interrupt(daemon)
            time.sleep(chance.uniform(0, 0.5))
            daemon.start()
            lab.wait_until_attached(queues=2)
        end_load(guest)
        guest.run("md5sum -c /tmp/sums && umount /mnt && e2fsck -fn /dev/vda")
        no_io_errors(guest)
        guest.power_off()
        tap.equal(daemon.stop(), 0, "penstock's exit status at the end")


def terminate(daemon):
    tap.equal(daemon.stop(), 0, "exit status after SIGTERM under load")


KILLS = [("uring", "split", FILE), ("uring", "packed", JITTER), ("threads", "split", JITTER),
         ("threads", "packed", FILE), ("uring", "split", JITTER)]

for engine, ring, stack in KILLS[:2] if SHORT else KILLS:
    @tap.test(f"kill -9 under load and a restart, {TIMES} times: {engine}, {ring} ring"
              + ", requests out of order" * (stack == JITTER))
    def _(engine=engine, ring=ring, stack=stack):
        under_load(engine, ring, stack, lambda daemon: daemon.kill())

for engine in ("uring",) if SHORT else ("uring", "threads"):
    @tap.test(f"SIGTERM under load exits 0, and after a restart the guest goes on: {engine}")
    def _(engine=engine):
        under_load(engine, "split", JITTER, terminate)

tap.main()
