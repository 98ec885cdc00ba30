#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Guests on overlays over one golden image: each has its own changes, which survive a kill -9 of the daemon under
load, and are thrown away when they shall be; the image itself stays as it is, to the last byte."""

import hashlib
import time

from guest_checks import begin_load, end_load, fio, no_io_errors, tap
from lab import SHORT, Disk, Lab

GOLDEN = 96     # MiB


CONFIG = """
disks:
  web1:
    stack:
      - overlay: {{store: {{file: {{path: web1.ovl, create: true}}}}, {first}}}
      - file: {{path: golden.img}}
  web2:
    stack:
      - overlay:
          size: 128M
          copy-on-read: true
          store: {{file: {{path: web2.ovl, create: true}}}}
      - file: {{path: golden.img}}
vms:
  guest:
    - {{virtio-blk: web1, socket: web1.sock}}
    - {{virtio-blk: web2, socket: web2.sock}}
api: api.sock
"""


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def boot(lab):
    return lab.guest([Disk(lab.path("web1.sock")), Disk(lab.path("web2.sock"))],
                     programs=["mkfs.ext4", "e2fsck", "fio"], memory=384)


def make_golden(lab):
    """A file system with something in it, made by a guest."""
    image = lab.image("golden.img", GOLDEN)
    daemon = lab.daemon("serve", "golden.img", "--socket", "golden.sock")
    guest = lab.guest([lab.path("golden.sock")], programs=["mkfs.ext4"])
    guest.run("mkfs.ext4 -q /dev/vda && mount -t ext4 /dev/vda /mnt && echo golden >/mnt/state && "
              "dd if=/dev/urandom of=/mnt/data bs=1M count=20 2>/dev/null && md5sum /mnt/data >/mnt/sum && umount /mnt")
    guest.power_off()
    tap.equal(daemon.stop(), 0, "exit status")
    return image


@tap.test("two overlays over one golden image: a kill -9 under load, a restart, e2fsck; the image is as it was")
def _():
    with Lab() as lab:
        golden = make_golden(lab)
        before = digest(golden)
        config = lab.write("overlay.yaml", CONFIG.format(first="undo: never"))
        daemon = lab.daemon("run", config)
        guest = boot(lab)
        guest.run("mkdir -p /a /b && mount -t ext4 /dev/vda /a && mount -t ext4 /dev/vdb /b && "
                  "echo one >/a/state && echo two >/b/state && rm /b/sum && sync")
        begin_load(guest, fio("/a/load", "24M", bsrange="4k-64k", iodepth=32, fsync=64, runtime="4s", time_based=1))
        for _ in range(1 if SHORT else 2):
            time.sleep(2)
            daemon.kill()
            daemon.start()
            lab.wait_until_attached()
        time.sleep(2)
        end_load(guest)
        guest.run("cd /a && md5sum -c sum >/dev/null 2>&1 || sed -i s,/mnt,/a, sum; md5sum -c /a/sum && cd / && "
                  "umount /a /b && e2fsck -fn /dev/vda && e2fsck -fn /dev/vdb")
        no_io_errors(guest)
        guest.power_off()
        tap.equal(daemon.stop(), 0, "exit status")
        for store in ("web1.ovl", "web2.ovl"):
            done = lab.penstock("inspect", store)
            tap.equal(done.returncode, 0, f"status of penstock inspect, which said {done.stderr}")
        daemon = lab.daemon("run", config)
        guest = boot(lab)
        guest.run("mkdir -p /a /b && e2fsck -fn /dev/vda && e2fsck -fn /dev/vdb && mount -t ext4 /dev/vda /a && "
                  "mount -t ext4 /dev/vdb /b && [ $(cat /a/state) = one ] && [ $(cat /b/state) = two ] && "
                  "[ ! -e /b/sum ] && md5sum -c /a/sum && umount /a /b")
        guest.power_off()
        tap.equal(daemon.stop(), 0, "exit status")
        tap.equal(digest(golden), before, "the golden image's sha256")


@tap.test("undo: at-exit: the next guest finds the golden image again")
def _():
    with Lab() as lab:
        golden = make_golden(lab)
        before = digest(golden)
        config = lab.write("overlay.yaml", CONFIG.format(first="undo: at-exit"))
        for orderly in (False, True):
            daemon = lab.daemon("run", config)
            guest = boot(lab)
            guest.run("mount -t ext4 /dev/vda /mnt && [ $(cat /mnt/state) = golden ] && echo mine >/mnt/state && "
                      "dd if=/dev/zero of=/mnt/more bs=1M count=8 2>/dev/null && sync && md5sum -c /mnt/sum && "
                      "umount /mnt && e2fsck -fn /dev/vda")
            guest.power_off()
            if orderly:
                tap.equal(daemon.stop(), 0, "exit status")
                used = lab.path("web1.ovl").stat().st_blocks * 512
                tap.check(used < 1 << 20, f"the store still takes {used} bytes")
            else:
                daemon.kill()
        tap.equal(digest(golden), before, "the golden image's sha256")


tap.main()
