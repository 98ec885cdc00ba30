#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The firmware, a boot loader and an installed Debian on our disks: one image, unchanged, through each device.

SeaBIOS reads an IDE disk that is behind vfio-user by 16-bit PIO, 60 ms a sector, so there QEMU brings
Debian's kernel; two sectors it boots itself."""

import re
import select
import subprocess
import time

from guest_checks import tap
import debian_image
from guest import accelerator, processors
from lab import MIB, Lab
from machine import Machine

KINDS = {"virtio-blk": "vda by virtio_blk", "virtio-scsi": "sda by sd virtio_scsi", "pvscsi": "sda by sd vmw_pvscsi",
         "ide": "sda by sd ata_piix"}

# A boot sector that has the BIOS read the next sector, writes the text there to the serial port, and halts.
BOOT_SECTOR = bytes.fromhex(
    "31c0 8ed8 8ec0"            # ds = es = 0
    "bb007e b80102 b90200 30f6"  # es:bx = 7e00h; read one sector; cylinder 0, sector 2; head 0; dl: this drive
    "cd13"                      # int 13h
    "be007e baf803"             # si = 7e00h, dx = COM1
    "ac 84c0 7403 ee ebf8"      # write bytes until a zero
    "f4 ebfd")                  # hlt
PAYLOAD = b"penstock: booted\r\n\0"


def boot(machine, wanted, *arguments, timeout=180, ends=False):
    """Start QEMU and wait until its serial port says `wanted`; with `ends`, until it then ends. The line."""
    command = [*machine.qemu(), "-M", f"{machine.type()},accel={accelerator()}", "-cpu", "qemu64", *processors(), "-nodefaults",
               "-display", "none", "-no-reboot", "-serial", "stdio", *machine.arguments(), *arguments]
    deadline = time.monotonic() + timeout
    said = b""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as qemu:
        try:
            while not (found := re.search(rb"([^\n]*" + wanted + rb"[^\r\n]*)[\r\n]", said)):
                if not select.select([qemu.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
                    raise tap.Failure(f"nothing like {wanted} in {timeout} s; the serial port said:\n{said[-2000:]}")
                more = qemu.stdout.read1()
                tap.check(more, f"QEMU ended; it and the serial port said:\n{said[-2000:].decode(errors='replace')}")
                said += more
            if ends:
                qemu.communicate(timeout=60)
                tap.equal(qemu.returncode, 0, "QEMU's exit status")
        finally:
            qemu.kill()
    return found[1].decode()


def devices(kind):
    return [{kind: "root" if kind == "virtio-blk" else ["root"]}]


with Lab() as lab:
    sectors = lab.image("sectors.img", 1)
    with open(sectors, "r+b") as out:
        out.write(BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa" + PAYLOAD)

    for kind in KINDS:
        @tap.test(f"SeaBIOS boots two sectors from {kind}")
        def _(kind=kind):
            with Machine(lab, {"root": sectors}, devices(kind), memory=64) as machine:
                boot(machine, PAYLOAD[:-3], timeout=60)
                machine.stop()

    image = lab.path("debian.img")
    subprocess.run(["cp", "--sparse=always", debian_image.made() / "disk.img", image], check=True, timeout=120)
    partition = f"{image}?offset={debian_image.PARTITION}"

    for kind, drivers in KINDS.items():
        how = "with the kernel brought by QEMU" if kind == "ide" else "through SeaBIOS and GRUB"
        @tap.test(f"Debian boots from {kind}, {how}")
        def _(kind=kind, drivers=drivers):
            with Machine(lab, {"root": image}, devices(kind)) as machine:
                kernel = debian_image.kernel_arguments() if kind == "ide" else []
                tap.contains(boot(machine, b"debian: up", *kernel, ends=True), f"/ on {drivers}")
                machine.stop()
            checked = subprocess.run(["e2fsck", "-fn", partition], text=True, capture_output=True, timeout=60)
            tap.equal(checked.returncode, 0, f"e2fsck's status, which said {checked.stdout}{checked.stderr}")

    @tap.test("each of its boots left its line in the image")
    def _():
        lines = subprocess.run(["debugfs", "-R", "cat /var/log/boots", partition], text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, check=True, timeout=60).stdout
        tap.contains(lines, *KINDS.values())
        tap.check(image.stat().st_size == debian_image.SIZE >= 256 * MIB, "the image has another size")

    tap.main()
