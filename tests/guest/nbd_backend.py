#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A file system on an NBD server that is killed and started again while fio writes; the guest notices a pause.

Once nbdkit on a file, and once qemu-nbd with qcow2, which loses metadata in its memory each time it is killed."""

import subprocess
import time

from guest_checks import fio, no_io_errors, tap
from lab import Lab
from nbd_servers import nbdkit, qemu_nbd

TIMES, SECONDS = 4, 14

CONFIG = """
disks:
  disk:
    stack:
      - nbd: {{uri: "{uri}"}}
vms:
  guest:
    - {{virtio-blk: disk, socket: disk.sock}}
"""


def under_load(lab, server):
    daemon = lab.daemon("run", lab.write("nbd.yaml", CONFIG.format(uri=server.uri())))
    guest = lab.guest([lab.path("disk.sock")], programs=["mkfs.ext4", "e2fsck", "fio"], memory=512)
    guest.run("mkfs.ext4 -q /dev/vda && mount -t ext4 /dev/vda /mnt && "
              "dd if=/dev/urandom of=/mnt/before bs=1M count=8 2>/dev/null && sync && md5sum /mnt/before >/tmp/sums")
    guest.send(fio("/mnt/load", "32M", bsrange="4k-64k", iodepth=32, fsync=200, runtime=f"{SECONDS}s", time_based=1)
               + "echo verified")
    for _ in range(TIMES):
        time.sleep(1.7)
        server.kill()
        time.sleep(0.5)
        server.start()
    status, output = guest.finish(timeout=SECONDS + 120)
    tap.check(status == 0 and "verified" in output, f"fio failed in the guest:\n{output}")
    guest.run("md5sum -c /tmp/sums && umount /mnt && e2fsck -fn /dev/vda")
    no_io_errors(guest)
    guest.power_off()
    tap.equal(daemon.stop(), 0, "penstock's exit status")
    log = lab.log.read_text()
    tap.check(log.count("connection lost") >= TIMES, f"the server's ends were not seen:\n{log}")


@tap.test("nbdkit on a file is killed and started again under a guest's load")
def _():
    with Lab() as lab, nbdkit(lab, "file", lab.image("disk.img", 256)) as server:
        under_load(lab, server)


@tap.test("qemu-nbd with qcow2 is killed and started again under a guest's load; the image is whole")
def _():
    with Lab() as lab:
        image = lab.path("disk.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "256M"], check=True)
        with qemu_nbd(lab, "qcow2", image) as server:
            under_load(lab, server)
            server.process.terminate()
            server.process.wait(20)
        # Clusters that a dead qemu-nbd had allocated and not entered are leaked (3), not wrong (2).
        check = subprocess.run(["qemu-img", "check", image], text=True, capture_output=True)
        tap.check(check.returncode in (0, 3), f"qemu-img check: {check.stderr}")


tap.main()
