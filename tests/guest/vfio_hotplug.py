#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Whole devices on vfio-user come to a running guest and go: QEMU's device_add and device_del.

QEMU 11.1.3 dies at device_del of a device that has MSI-X, so PVSCSI has but MSI here; IDE has INTx."""

import contextlib
import json

from guest_checks import fio, no_io_errors, tap, wait_until
from lab import SHORT, Lab
from machine import MODULES, QEMUS_OWN, Machine

TIMES = 1 if SHORT else 3
PORTS = [argument for number in (1, 2) for argument in
         ("-device", f"pcie-root-port,id=port{number},chassis={number}")]
# One kind of device at each port -> the guest's driver for it.
KINDS = {"pvscsi": "vmw_pvscsi", "ide": "ata_piix"}


def devices_of(arguments):
    """Take the -device options out of QEMU's arguments, to be added later."""
    found = [number for number, argument in enumerate(arguments) if argument == "-device"]
    devices = [json.loads(arguments[number + 1]) for number in found]
    for number in reversed(found):
        del arguments[number:number + 2]
    return devices


def main():
    if QEMUS_OWN:
        raise SystemExit("this test is about penstock's devices only")
    with Lab() as lab:
        machine = Machine(lab, {kind: lab.image(f"{kind}.img", 32) for kind in KINDS},
                          [{"pvscsi": ["pvscsi"], "msix": False}, {"ide": ["ide"]}])
        arguments = machine.arguments()
        devices = dict(zip(KINDS, devices_of(arguments)))
        guest = lab.boot([*arguments, *PORTS], qemu=machine.qemu(), programs=["fio", "mkfs.ext4", "e2fsck"],
                         modules=["sd_mod", *MODULES["pvscsi"], *MODULES["ide"]])

        def disk(kind):
            return f"$(basename $(find /sys/bus/pci/drivers/{KINDS[kind]}/0*/ -path '*/block/sd?'))"

        def add(qmp, kind, port):
            if kind == "ide":       # ata_piix takes such controllers only while it is loaded
                guest.run("rmmod ata_piix")
            qmp.execute("device_add", id=kind, bus=f"port{port}", **devices[kind])
            if kind == "ide":
                wait_until(guest, "grep -q PCI_ID=8086:27C0 /sys/bus/pci/devices/*/uevent",
                           "the guest sees the controller")
                guest.run("insmod /modules/*-ata_piix.ko")
            wait_until(guest, f"[ -b /dev/{disk(kind)} ]", f"the guest finds the disk of {kind}")

        def remove(qmp, kind):
            qmp.execute("device_del", id=kind)
            qmp.wait_for("DEVICE_DELETED")
            wait_until(guest, f"! ls -d /sys/bus/pci/drivers/{KINDS[kind]}/0*", f"the guest has let {kind} go")

        with contextlib.closing(machine.qmp()) as connection:
            for number, kind in enumerate(KINDS, start=1):
                @tap.test(f"{kind} comes, works, and goes, {TIMES} times; its data stays")
                def _(kind=kind, port=number):
                    for turn in range(TIMES):
                        add(connection, kind, port)
                        if not turn:
                            guest.run("mkfs.ext4 -q /dev/sd?")
                        guest.run("mount -t ext4 /dev/sd? /mnt && cd /mnt && "
                                  "{ [ ! -e sums ] || sha256sum -c -s sums; } && "
                                  f"dd if=/dev/urandom of=file-{turn} bs=1M count=2 2>/dev/null && "
                                  "sha256sum file-* >sums")
                        guest.run(fio("/mnt/fio", "4M") + "cd / && umount /mnt && e2fsck -fn /dev/sd?")
                        remove(connection, kind)

            @tap.test("both at once; one goes while the other works")
            def _():
                for number, kind in enumerate(KINDS, start=1):
                    add(connection, kind, number)
                guest.send(f"disk={disk('ide')}\n" + fio("/dev/$disk", "8M", time_based=1, runtime="4s"))
                connection.execute("device_del", id="pvscsi")
                connection.wait_for("DEVICE_DELETED")
                status, said = guest.finish()
                tap.equal(status, 0, f"fio's status on the other device, which said {said}")
                remove(connection, "ide")

            @tap.test("the guest's kernel saw no error, and penstock ends in good order")
            def _():
                no_io_errors(guest)
                guest.power_off()
                machine.stop()

            tap.main()


main()
