#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""CD-ROM drives as Linux's sr_mod and the cdrom tools see them: reading, changing media, doors, an empty drive.

One guest for all of it. Its first drive holds a disc from the start, its second one is empty."""

import hashlib
import os
import subprocess

from guest_checks import tap
from lab import SHORT, Lab
from machine import Machine
from qmp import QmpError

MIB_OF_DATA = 4
WITH_DISC, EMPTY = "ide0/secondary-master", "ide0/secondary-slave"
NO_MEDIUM = "No medium found"


def disc(lab, name):
    """An ISO image with a large and a small file, Rock Ridge and Joliet names: (path, sha256 of the large one)."""
    content = lab.path(name)
    content.mkdir()
    data = os.urandom(MIB_OF_DATA << 20)
    (content / "a large file.bin").write_bytes(data)
    (content / "name.txt").write_text(f"this is {name}\n")
    subprocess.run(["genisoimage", "-quiet", "-r", "-J", "-V", name.upper(), "-o", lab.path(f"{name}.iso"), content],
                   check=True, timeout=60)
    return lab.path(f"{name}.iso"), hashlib.sha256(data).hexdigest()


with Lab() as lab:
    first, first_sum = disc(lab, "first")
    second, second_sum = disc(lab, "second")
    machine = Machine(lab, {"root": lab.image("root.img", 8), "first": first, "second": second},
                      [{"ide": ["root", {"disk": "first", "type": "cdrom", "position": "secondary-master"},
                                {"type": "cdrom", "position": "secondary-slave"}]}], memory=256)
    guest = machine.boot(programs=["isoinfo", "eject", "sg_inq", "sg_raw", "sg_readcap", "sg_turs"],
                         modules=["isofs"])

    def volume(drive):
        """The name of the disc in a drive; NO_MEDIUM."""
        status, said = guest.attempt(f"dd if=/dev/{drive} bs=2048 skip=16 count=1 2>&1 | strings -n 5 | head -n 3")
        if NO_MEDIUM in said:
            return NO_MEDIUM
        said = guest.run(f"isoinfo -d -i /dev/{drive}")
        return next(line.split(": ")[1] for line in said.splitlines() if line.startswith("Volume id"))

    def command(cdb, length):
        """The bytes, in hexadecimal, that the first drive answers to a command."""
        return guest.run(f"sg_raw -r {length} -b /dev/sr0 {cdb} 2>/dev/null | hexdump -v -e '1/1 \"%02x \"'").split()

    @tap.test("sr_mod finds both drives; commands say what they are")
    def _():
        tap.equal(guest.run("cat /sys/block/sr0/device/type /sys/block/sr1/device/type").split(), ["5", "5"],
                  "SCSI device types")
        tap.contains(guest.run("sg_inq /dev/sr0"), "PDT=5", "RMB=1")
        tap.contains(guest.run("sg_readcap /dev/sr0"), f"{first.stat().st_size // 2048 - 1}", "2048")
        tap.equal(guest.run("cat /sys/block/sr0/size").strip(), str(first.stat().st_size // 512), "size in sectors")

    @tap.test("the table of contents, the mechanical page, the event status")
    def _():
        toc = command("43 0 0 0 0 0 1 0 14 0", 20)
        tap.equal(toc[2:4], ["01", "01"], "first and last track")
        tap.equal(toc[5:7] + toc[14:15], ["14", "01", "aa"], "a data track and the lead-out")
        tap.equal(int("".join(toc[16:20]), 16), first.stat().st_size // 2048, "the lead-out's address")
        tap.equal(command("5a 0 2a 0 0 0 0 0 40 0", 64)[8], "2a", "the mode page's number")
        event = command("4a 1 0 0 10 0 0 0 8 0", 8)
        tap.equal((event[2], event[5]), ("04", "02"), "media event class, and a medium behind a closed door")

    @tap.test("isoinfo lists the disc, and a mount reads all of it as it is on the host")
    def _():
        tap.equal(volume("sr0"), "FIRST", "the volume")
        tap.contains(guest.run("isoinfo -R -l -i /dev/sr0 && isoinfo -J -f -i /dev/sr0"),
                     "a large file.bin", "name.txt")
        guest.run("mount -t iso9660 -o ro /dev/sr0 /mnt")
        tap.contains(guest.run("sha256sum '/mnt/a large file.bin'; cat /mnt/name.txt"), first_sum, "this is first")
        guest.run("umount /mnt")

    @tap.test("a disc cannot be written, nor read beyond its end")
    def _():
        tap.check(guest.attempt("dd if=/dev/zero of=/dev/sr0 bs=2048 count=1 conv=fsync 2>&1")[0],
                  "writing to a CD-ROM succeeded")
        status, said = guest.attempt("sg_raw -r 2048 /dev/sr0 28 0 7f ff ff ff 0 0 1 0 2>&1")
        tap.contains(said, "Illegal Request", "out of range")

    @tap.test("an empty drive says that it is empty, and takes a disc while the guest runs")
    def _():
        tap.equal(volume("sr1"), NO_MEDIUM, "the empty drive's volume")
        tap.contains(guest.attempt("sg_turs -v /dev/sr1 2>&1")[1], "Medium not present")
        machine.insert(EMPTY, "second")
        tap.equal(volume("sr1"), "SECOND", "the volume after the host inserted a disc")
        guest.run("mount -t iso9660 -o ro /dev/sr1 /mnt")
        tap.contains(guest.run("sha256sum '/mnt/a large file.bin'"), second_sum)

    @tap.test("a mounted disc's door is locked: the host's eject is refused, and works after umount")
    def _():
        try:
            machine.eject(EMPTY)
        except (tap.Failure, QmpError) as refused:
            tap.check("lock" in str(refused), f"refused, but not because of the lock: {refused}")
        else:
            raise tap.Failure("the host ejected a disc that the guest had mounted")
        tap.contains(guest.run("cat /mnt/name.txt && umount /mnt"), "this is second")
        machine.eject(EMPTY)
        tap.equal(volume("sr1"), NO_MEDIUM, "the volume after the host's eject")

    @tap.test("a forced eject takes a mounted disc away: reads fail, the next disc is another one")
    def _():
        machine.insert(EMPTY, "second")
        tap.equal(volume("sr1"), "SECOND", "the volume after the host inserted it again")
        guest.run("mount -t iso9660 -o ro /dev/sr1 /mnt && cat /mnt/name.txt")
        machine.eject(EMPTY, force=True)
        tap.check(guest.attempt("echo 3 >/proc/sys/vm/drop_caches; cat /mnt/a* >/dev/null")[0],
                  "a disc that is gone can be read")
        guest.run("umount /mnt")
        tap.equal(volume("sr1"), NO_MEDIUM, "the volume")

    @tap.test("media change: another disc, and nothing of the old one")
    def _():
        for name, sum_ in [("second", second_sum), ("first", first_sum)] * (1 if SHORT else 3):
            machine.eject(WITH_DISC)
            machine.insert(WITH_DISC, name)
            tap.equal(volume("sr0"), name.upper(), "the volume after the change")
            said = guest.run("mount -t iso9660 -o ro /dev/sr0 /mnt && sha256sum '/mnt/a large file.bin' && umount /mnt")
            tap.contains(said, sum_)

    @tap.test("the guest's eject opens the tray, and closing it brings the disc back")
    def _():
        guest.run("echo 0 >/proc/sys/dev/cdrom/autoclose; eject /dev/sr0")      # else opening it closes the tray
        tap.equal(volume("sr0"), NO_MEDIUM, "the volume while the tray is open")
        guest.run("eject -t /dev/sr0")
        tap.equal(volume("sr0"), "FIRST", "the volume after the tray was closed")

    @tap.test("a read of a drive with an open tray closes it, and succeeds at once")
    def _():
        guest.run("echo 1 >/proc/sys/dev/cdrom/autoclose; eject /dev/sr0")
        guest.run("dd if=/dev/sr0 of=/dev/null bs=2048 count=1 2>/dev/null")

    @tap.test("the disk on the other channel saw nothing of it")
    def _():
        tap.check("ata1" not in guest.run("dmesg | grep -E 'exception|failed command|hard reset' || true"),
                  "errors on the disk's channel")
        guest.run("dd if=/dev/sda of=/dev/null bs=1M 2>/dev/null")
        guest.power_off()
        machine.stop()

    tap.main()
