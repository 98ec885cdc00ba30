#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""PVSCSI with Linux's vmw_pvscsi, over vfio-user: each kind of interrupt, small rings, fio with verify, hot plug.

One guest for all of it; scsi_tools.py holds the commands against sg3-utils and libiscsi."""

from guest_checks import fio, no_io_errors, reload, tap, wait_until
from lab import MIB, SHORT, Lab
from machine import QEMUS_OWN, Machine

TARGETS = {0: 64, 1: 32, 9: 16}     # target -> MiB
# The driver's parameters -> what it then says that it uses.
INTERRUPTS = {"disable_msix=1 disable_msi=1": "INTx", "disable_msix=1": "MSI", "": "MSI-X"}
SIZE = "2M" if SHORT else "8M"


def main():
    with Lab() as lab:
        disks = {f"disk{mib}": lab.image(f"disk{mib}.img", mib) for mib in [*TARGETS.values(), 8]}
        machine = Machine(lab, disks, [{"pvscsi": [{"disk": f"disk{mib}", "target": target}
                                                   for target, mib in TARGETS.items()]}])
        guest = machine.boot(programs=["fio"], cpus=2)

        @tap.test("each disk is the target that the configuration says, and has its size")
        def _():
            for target, mib in TARGETS.items():
                tap.equal(guest.run(f"cat /sys/bus/scsi/devices/*:{target}:0/block/*/size").strip(),
                          str(mib * MIB // 512), f"size of target {target}")
            tap.equal(guest.run("ls -d /sys/block/sd* | wc -l").strip(), str(len(TARGETS)), "disks")

        for parameters, interrupts in INTERRUPTS.items():
            if QEMUS_OWN and interrupts == "MSI-X":
                continue        # it has none
            @tap.test(f"fio with verify, by {interrupts}")
            def _(parameters=parameters, interrupts=interrupts):
                reload(guest, "vmw_pvscsi", parameters)
                said = guest.run("dmesg | grep -o 'vmw_pvscsi: using .*' | tail -n 1; grep pvscsi /proc/interrupts")
                tap.check(f"using {interrupts}\n" in said or interrupts == "INTx" and "IO-APIC" in said,
                          f"the driver uses something else: {said}")
                guest.run(fio("/dev/sda", SIZE, bsrange="512-128k", iodepth=32))

        @tap.test("fio with verify on all disks at once, rings of one page")
        def _():
            reload(guest, "vmw_pvscsi", "ring_pages=1 msg_ring_pages=1")
            guest.run("".join(f"({fio(f'/dev/{disk}', SIZE, output=f'/tmp/{disk}')}) || exit 1 &\n"
                              for disk in ("sda", "sdb", "sdc"))
                      + "for job in $(jobs -p); do wait $job || exit 1; done", timeout=240)

        @tap.test("a disk comes while the guest runs, works, and goes; the others stay")
        def _():
            for _ in range(1 if SHORT else 3):
                machine.attach("pvscsi0/5:0", "disk8")
                wait_until(guest, "ls -d /sys/bus/scsi/devices/*:5:0/block/sd*", "the guest sees the new disk")
                guest.run("disk=$(basename /sys/bus/scsi/devices/*:5:0/block/sd*)\n" + fio("/dev/$disk", "2M"))
                machine.detach("pvscsi0/5:0")
                wait_until(guest, "! ls -d /sys/bus/scsi/devices/*:5:0", "the guest has let the disk go")
            tap.equal(guest.run("ls -d /sys/block/sd* | wc -l").strip(), str(len(TARGETS)), "disks afterwards")

        @tap.test("the guest's kernel saw no error")
        def _():
            no_io_errors(guest)
            guest.power_off()
            machine.stop()

        tap.main()


main()
