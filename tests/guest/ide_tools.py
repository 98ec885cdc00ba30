#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""An IDE disk as Linux's ata_piix, hdparm and smartctl see it: by DMA, and by PIO.

One guest for all of it. The disk's sectors are numbered on the host."""

import re

from guest_checks import fio, no_io_errors, reload, tap
from lab import MIB, SHORT, Lab
from machine import Machine

SIZE = 64 * MIB
SERIAL = "PEN-0123"
SECTOR = 1000       # one that is read and written by hdparm, which is not within fio's part

with Lab() as lab:
    image = lab.image("root.img", SIZE // MIB)
    with open(image, "r+b") as disk:
        disk.seek(SECTOR * 512)
        disk.write(b"penstock" * 64)
    # Linux looks at disks in parallel: which is sda differs from boot to boot, so links tell master and slave apart.
    NAMES = ("for place in 0 1; do ln -sf /dev/$(basename /sys/bus/scsi/devices/*:0:$place:0/block/*) /dev/disk$place; "
             "done\n")
    machine = Machine(lab, {"root": image, "slave": lab.image("slave.img", 8)},
                      [{"ide": [{"disk": "root", "serial": SERIAL}, {"disk": "slave", "position": "primary-slave"}]}])
    guest = machine.boot(programs=["hdparm", "smartctl", "fio"])
    guest.run(NAMES)

    @tap.test("ata_piix finds both disks, with 48-bit addresses and DMA")
    def _():
        tap.contains(guest.run("dmesg | grep ata1"), f"{SIZE // 512} sectors", "LBA48")
        for disk in ("dev1.0", "dev1.1"):
            tap.contains(guest.run(f"cat /sys/class/ata_device/{disk}/xfer_mode"), "DMA")
        tap.equal(guest.run("blockdev --getsz /dev/disk0; blockdev --getsz /dev/disk1").split(),
                  [str(SIZE // 512), str(8 * MIB // 512)], "sizes in sectors")

    @tap.test("hdparm -I: model, serial, size, modes, flush, write cache")
    def _():
        said = " ".join(guest.run("hdparm -I /dev/disk0").split())
        tap.contains(said, "ATA device, with non-removable media", "Model Number:", f"Serial Number: {SERIAL}",
                     f"LBA48 user addressable sectors: {SIZE // 512}", "dma", "pio4", "Mandatory FLUSH_CACHE",
                     "FLUSH_CACHE_EXT", "Write cache", "48-bit Address feature set",
                     "R/W multiple sector transfer: Max = 16")

    @tap.test("hdparm: write cache off and on, power mode, flush, multiple count")
    def _():
        for state in ("0 (off)", "1 (on)"):
            tap.contains(guest.run(f"hdparm -W{state[0]} /dev/disk0"), f"write-caching =  {state}")
        tap.contains(guest.run("hdparm -C /dev/disk0"), "active/idle")
        tap.contains(guest.run("hdparm -m /dev/disk0"), "multcount")
        guest.run("hdparm -F /dev/disk0 && hdparm -f /dev/disk0")

    @tap.test("hdparm reads and writes single sectors by PIO, the host's and its own")
    def _():
        tap.contains(guest.run(f"hdparm --read-sector {SECTOR} /dev/disk0"), "succeeded", "7065 6e73 746f 636b")
        said = guest.run(f"hdparm --yes-i-know-what-i-am-doing --write-sector {SECTOR} /dev/disk0 && "
                         f"hdparm --read-sector {SECTOR} /dev/disk0")
        tap.contains(said, "succeeded")
        tap.check("7065" not in said, f"the sector was not written: {said}")
        guest.run("hdparm -f /dev/disk0")
        with open(image, "rb") as disk:
            disk.seek(SECTOR * 512)
            tap.equal(disk.read(512), bytes(512), "the sector in the image")

    @tap.test("hdparm: a sector beyond the end fails, and the disk goes on")
    def _():
        # hdparm 9.65 says "succeeded" all the same: it takes fixed-format sense data for none.
        tap.contains(guest.attempt(f"hdparm --read-sector {SIZE // 512} /dev/disk0 2>&1")[1], "sense data")
        said = guest.run("hdparm --read-sector 0 /dev/disk0 2>&1")
        tap.check("succeeded" in said and "sense data" not in said, f"sector 0 after that: {said}")

    @tap.test("smartctl knows the disk, and what it says of SMART is consistent")
    def _():
        said = guest.run("smartctl -i /dev/disk0")
        tap.contains(said, "Device Model:", SERIAL, f"{SIZE:,} bytes", "512 bytes logical")
        if "SMART support is: Available" in said:
            tap.contains(guest.run("smartctl -H /dev/disk0"), "PASSED")

    @tap.test("fio with verify by DMA, both disks at once")
    def _():
        size = "4M" if SHORT else "16M"
        guest.run(f"({fio('/dev/disk1', '4M', offset='1M')}) & {fio('/dev/disk0', size, offset='8M')} wait $!")

    @tap.test("fio with verify by PIO")
    def _():
        reload(guest, "libata", "dma=0", above=["ata_piix"])
        guest.run(NAMES)
        tap.contains(guest.run("cat /sys/class/ata_device/dev*.0/xfer_mode"), "PIO")
        guest.run(fio("/dev/disk0", "1M", offset="32M", bsrange="512-16k", iodepth=2))

    @tap.test("the guest's kernel saw no error")
    def _():
        no_io_errors(guest)
        guest.power_off()
        machine.stop()

    tap.main()
