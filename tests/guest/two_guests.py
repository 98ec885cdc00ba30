#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Two VMs on one daemon: what happens to one is nothing to the other."""

import time

from guest_checks import fio, no_io_errors, tap
from lab import Lab

CONFIG = """
disks:
  first:
    stack:
      - file: {path: first.img}
  second:
    stack:
      - file: {path: second.img}
vms:
  one:
    - {virtio-blk: first, socket: first.sock}
  two:
    - {virtio-blk: second, socket: second.sock}
"""


@tap.test("one of two VMs is killed under load; the other goes on, and the killed one boots again")
def _():
    with Lab() as lab:
        lab.image("first.img", 64)
        lab.image("second.img", 64)
        daemon = lab.daemon("run", lab.write("two.yaml", CONFIG))
        one, two = (lab.guest([lab.path(socket)], programs=["mkfs.ext4", "e2fsck", "fio"], memory=384)
                    for socket in ("first.sock", "second.sock"))
        for guest in (one, two):
            guest.run("mkfs.ext4 -q /dev/vda && mount -t ext4 /dev/vda /mnt")
        one.run("echo kept >/mnt/kept && sync")

        load = fio("/mnt/load", "24M", fsync=32, rate_iops=200, runtime="8s", time_based=1)
        one.send(load)
        two.send(load)
        time.sleep(3)
        one.kill()
        status, output = two.finish(timeout=300)
        tap.equal(status, 0, f"fio's status in the other guest, which said {output!r}")
        two.run("umount /mnt && e2fsck -fn /dev/vda")
        no_io_errors(two)

        again = lab.guest([lab.path("first.sock")], programs=["e2fsck"], memory=384)
        again.run("e2fsck -p /dev/vda; [ $? -le 1 ] && e2fsck -fn /dev/vda && "
                  "mount -t ext4 /dev/vda /mnt && grep -qx kept /mnt/kept && umount /mnt")
        no_io_errors(again)
        tap.check(daemon.running(), "penstock has ended")
        tap.equal(daemon.stop(), 0, "penstock's exit status")


tap.main()
