#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A real guest's file systems on our disks: made, filled, checked; read-only disks; discard."""

from guest_checks import feature, fio, no_io_errors, tap
from lab import MIB, Disk, Lab

FILL = """
set -e
for i in 1 2 3; do dd if=/dev/urandom of=/mnt/file-$i bs=1M count=4 2>/dev/null; done
cd /mnt && sha256sum file-* >/tmp/sums && sync && cd /
"""
# A fresh mount, and nothing in the page cache: the bytes come from the disk.
VERIFY = "echo 3 >/proc/sys/vm/drop_caches; cd /mnt && sha256sum -c -s /tmp/sums"


def make_fill_check(lab, make, kind, check, modules=()):
    image = lab.image("disk.img", 512)
    daemon = lab.daemon("serve", image, "--socket", "disk.sock")
    guest = lab.guest([lab.path("disk.sock")], programs=[make.split()[0], check.split()[0], "fio"],
                      modules=modules, memory=512)
    guest.run(f"{make} /dev/vda && mount -t {kind} /dev/vda /mnt")
    guest.run(FILL)
    guest.run(fio("/mnt/fio", "8M"))
    guest.run(f"umount /mnt && mount -t {kind} /dev/vda /mnt")
    guest.run(VERIFY)
    guest.run(f"umount /mnt && {check} /dev/vda")
    no_io_errors(guest)
    guest.power_off()
    tap.equal(daemon.stop(), 0, "penstock's exit status")
    tap.check(image.stat().st_blocks * 512 < 256 * MIB, "the image is not sparse any more")


@tap.test("ext4: mkfs, write, verify after a new mount, fsck finds nothing")
def _():
    with Lab() as lab:
        make_fill_check(lab, "mkfs.ext4 -q", "ext4", "e2fsck -fn")


@tap.test("xfs: mkfs, write, verify after a new mount, xfs_repair finds nothing")
def _():
    with Lab() as lab:
        make_fill_check(lab, "mkfs.xfs -q", "xfs", "xfs_repair -n", modules=["xfs"])


@tap.test("what one daemon wrote the next one serves, to another guest")
def _():
    with Lab() as lab:
        image = lab.image("disk.img", 64)
        sums = None
        for script in ("mkfs.ext4 -q /dev/vda && mount -t ext4 /dev/vda /mnt\n" + FILL,
                       "mount -t ext4 /dev/vda /mnt && cd /mnt && sha256sum file-* >/tmp/sums"):
            daemon = lab.daemon("serve", image, "--socket", "disk.sock")
            guest = lab.guest([lab.path("disk.sock")], programs=["mkfs.ext4"])
            guest.run(script)
            before, sums = sums, guest.run("cat /tmp/sums")
            guest.run("umount /mnt")
            guest.power_off()
            tap.equal(daemon.stop(), 0, "penstock's exit status")
        tap.contains(sums, "file-1", "file-3")
        tap.equal(sums, before, "the checksums the second guest found")


@tap.test("a driver that lets go of the disk and takes it again finds its data")
def _():
    with Lab() as lab:
        lab.daemon("serve", lab.image("disk.img", 64), "--socket", "disk.sock", "queues=2")
        guest = lab.guest([Disk(lab.path("disk.sock"), "num-queues=2")], programs=["mkfs.ext4"], cpus=2)
        guest.run("mkfs.ext4 -q /dev/vda && mount -t ext4 /dev/vda /mnt\n" + FILL)
        for _ in range(5):
            guest.run("umount /mnt; cd /sys/bus/virtio/drivers/virtio_blk && echo virtio0 >unbind && "
                      "[ ! -e /dev/vda ] && echo virtio0 >bind && mount -t ext4 /dev/vda /mnt")
            guest.run(VERIFY)
        no_io_errors(guest)


@tap.test("a read-only disk can be read, not written, and its image stays as it was")
def _():
    with Lab() as lab:
        image = lab.image("disk.img", 16)
        image.write_bytes(b"penstock" * (16 * MIB // 8))
        lab.daemon("serve", image, "--socket", "disk.sock", "read-only=true")
        guest = lab.guest([lab.path("disk.sock")])
        tap.equal(guest.run("cat /sys/block/vda/ro").strip(), "1", "/sys/block/vda/ro")
        tap.equal(guest.run("dd if=/dev/vda bs=8 count=1 2>/dev/null"), "penstock", "the first bytes")
        status, output = guest.attempt("dd if=/dev/zero of=/dev/vda bs=4096 count=1 oflag=direct 2>&1")
        tap.check(status != 0, f"writing to a read-only disk succeeded: {output}")
        guest.power_off()
        tap.check(image.read_bytes() == b"penstock" * (16 * MIB // 8), "the image changed")


@tap.test("fstrim and blkdiscard give the host its space back; write-zeroes leaves zeroes")
def _():
    with Lab() as lab:
        image = lab.image("disk.img", 256)
        lab.daemon("serve", image, "--socket", "disk.sock")
        guest = lab.guest([lab.path("disk.sock")], programs=["mkfs.ext4", "fstrim", "blkdiscard"])

        def used():
            return image.stat().st_blocks * 512

        tap.check(feature(guest, "vda", 13), "the driver did not negotiate VIRTIO_BLK_F_DISCARD")
        tap.check(feature(guest, "vda", 14), "the driver did not negotiate VIRTIO_BLK_F_WRITE_ZEROES")
        guest.run("mkfs.ext4 -q /dev/vda && mount -t ext4 /dev/vda /mnt && "
                  "dd if=/dev/urandom of=/mnt/big bs=1M count=64 2>/dev/null && sync")
        full = used()
        tap.check(full >= 64 * MIB, f"64 MiB written, but the image holds only {full} bytes")
        guest.run("rm /mnt/big && sync && /usr/sbin/fstrim /mnt && umount /mnt")
        tap.check(used() <= full - 60 * MIB, f"fstrim left {used()} of {full} bytes in the image")

        guest.run("dd if=/dev/urandom of=/dev/vda bs=1M count=16 oflag=direct 2>/dev/null")
        guest.run("/usr/sbin/blkdiscard -z -o 4096 -l 1048576 /dev/vda")
        guest.run("dd if=/dev/vda bs=4096 skip=1 count=256 iflag=direct 2>/dev/null >/tmp/got && "
                  "dd if=/dev/zero bs=4096 count=256 2>/dev/null | cmp - /tmp/got")
        guest.run("! dd if=/dev/zero bs=4096 count=1 2>/dev/null | cmp -s - /dev/vda")
        guest.run("/usr/sbin/blkdiscard /dev/vda")
        tap.check(used() < 2 * MIB, f"{used()} bytes in the image after all of it was discarded")
        no_io_errors(guest)


tap.main()
