#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A disk grows while a guest uses it."""

import time

from guest_checks import fio, no_io_errors, tap
from lab import Lab


@tap.test("`penstock resize` reaches the guest, and a mounted ext4 grows into the new space")
def _():
    with Lab() as lab:
        lab.image("disk.img", 64)
        config = lab.write("resize.yaml", """
disks:
  grows:
    stack:
      - file: {path: disk.img}
vms:
  guest:
    - {virtio-blk: grows, socket: disk.sock}
""")
        lab.daemon("run", config, "--api", "api.sock")
        guest = lab.guest([lab.path("disk.sock")], programs=["mkfs.ext4", "e2fsck", "resize2fs", "fio"],
                          memory=512)
        guest.run("mkfs.ext4 -q /dev/vda && mount -t ext4 /dev/vda /mnt && "
                  "dd if=/dev/urandom of=/mnt/before bs=1M count=8 2>/dev/null && md5sum /mnt/before >/tmp/sums")

        resize = lab.penstock("resize", "grows", "192M", "--api", "api.sock")
        tap.equal(resize.returncode, 0, f"exit status of resize ({resize.stderr})")
        deadline = time.monotonic() + 20
        while guest.run("cat /sys/block/vda/size").strip() != str(192 << 11):
            tap.check(time.monotonic() < deadline, "the guest has not seen the new size after 20 s")
            time.sleep(0.2)

        guest.run("/usr/sbin/resize2fs /dev/vda 2>&1")
        size = int(guest.run("df -k /mnt | awk 'END { print $2 }'"))
        tap.check(size > 150 << 10, f"ext4 has {size} KiB after resize2fs")
        guest.run(fio("/mnt/beyond", "100M", rw="write", bs="1M", iodepth=4), timeout=300)
        guest.run("umount /mnt && e2fsck -fn /dev/vda && mount -t ext4 /dev/vda /mnt && md5sum -c /tmp/sums")
        tap.equal(lab.path("disk.img").stat().st_size, 192 << 20, "the image's size")
        no_io_errors(guest)


tap.main()
