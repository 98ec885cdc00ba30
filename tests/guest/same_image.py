#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""One image file behind one kind of device after another: each guest finds what all before it wrote.

Between two guests the host checks the file system in the image."""

import subprocess

from guest_checks import no_io_errors, tap
from lab import Lab
from machine import Machine

DRIVERS = {"virtio-blk": "virtio_blk", "virtio-scsi": "virtio_scsi", "pvscsi": "vmw_pvscsi", "ide": "ata_piix"}

VERIFY = """
set -e
disk=$(ls /sys/block | grep -E '^[sv]da$')
mount -t ext4 /dev/$disk /mnt
cd /mnt
for sums in *.sums; do [ ! -e $sums ] || sha256sum -c -s $sums; done
ls
"""
# Two files grow in turn, so that each of their extents is a request of its own; one is rewritten in its middle.
WRITE = """
set -e
cd /mnt
for i in $(seq 24); do
	for file in a b; do dd if=/dev/urandom bs=64k count=1 2>/dev/null >>KIND-$file && sync; done
done
dd if=/dev/urandom of=KIND-a bs=4k seek=50 count=9 conv=notrunc 2>/dev/null
sha256sum KIND-a KIND-b >KIND.sums
cd / && umount /mnt
"""


def drivers(guest):
    """The drivers from the disk up to the bus."""
    return guest.run("path=$(readlink -f /sys/block/[sv]da); while [ $path != /sys ]; do "
                     "[ ! -e $path/driver ] || basename $(readlink $path/driver); path=${path%/*}; done").split()


with Lab() as lab:
    image = lab.image("root.img", 64)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", image], check=True, timeout=60)

    # The first comes again at the end, to see all the others' files.
    for turn, kind in enumerate([*DRIVERS, "virtio-blk"]):
        @tap.test(f"{turn + 1}: {kind}")
        def _(kind=kind, before=[*DRIVERS][:turn]):
            devices = [{kind: "root" if kind == "virtio-blk" else ["root"]}]
            with Machine(lab, {"root": image}, devices, memory=256) as machine:
                guest = machine.boot()
                tap.contains(drivers(guest), DRIVERS[kind])
                found = guest.run(VERIFY).split()
                tap.equal(sorted(name for name in found if name.endswith(".sums")),
                          sorted(f"{name}.sums" for name in before), "earlier guests' checksums")
                guest.run(WRITE.replace("KIND", kind))
                no_io_errors(guest)
                guest.power_off()
                machine.stop()
            checked = subprocess.run(["e2fsck", "-fn", image], text=True, capture_output=True, timeout=60)
            tap.equal(checked.returncode, 0, f"e2fsck's status, which said {checked.stdout}{checked.stderr}")

    tap.main()
