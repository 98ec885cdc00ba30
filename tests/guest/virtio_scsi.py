#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The virtio SCSI adapter with Linux's virtio_scsi: queues, targets and LUNs, fio with verify, hot plug, reservations.

One guest for most of it; scsi_tools.py holds the commands against sg3-utils and libiscsi."""

from guest_checks import fio, no_io_errors, tap, wait_until
from lab import MIB, SHORT, Lab
from machine import QEMUS_OWN, Machine

KEY = "0x1122334455667788"
# Where a unit is -> its disk, which has as many MiB as it says.
UNITS = {"0:0": 64, "0:3": 48, "200:0": 32}
WHERE = "basename $(readlink /sys/block/$disk/device)"


def main():
    with Lab() as lab:
        disks = {f"disk{mib}": lab.image(f"disk{mib}.img", mib) for mib in [*UNITS.values(), 16]}
        units = [{"disk": f"disk{mib}", "target": int(where.split(":")[0]), "lun": int(where.split(":")[1])}
                 for where, mib in UNITS.items()]
        machine = Machine(lab, disks, [{"virtio-scsi": units, "queues": 4}])
        guest = machine.boot(programs=["fio", "blkdiscard"], cpus=4)

        def names():
            """Where a unit is -> the guest's name for it."""
            said = guest.run(f"for disk in $(cd /sys/block && ls -d sd*); do echo $({WHERE}) $disk; done")
            return {where.split(":", 2)[2]: disk for where, disk in map(str.split, said.splitlines())}

        @tap.test("each unit is where the configuration puts it, and has its disk's size")
        def _():
            found = names()
            tap.equal(sorted(found), sorted(UNITS), "where the guest found disks")
            for where, mib in UNITS.items():
                tap.equal(guest.run(f"cat /sys/block/{found[where]}/size").strip(), str(mib * MIB // 512),
                          f"{where}'s size")
            tap.equal(guest.run("ls /sys/block/sda/mq | wc -l").strip(), "4", "queues")

        @tap.test("fio with verify on all of them at once, over all queues")
        def _():
            size = 1 if SHORT else 4
            jobs = {"numjobs": 4, "offset_increment": f"{size}M"}
            guest.run("".join(f"({fio(f'/dev/{disk}', f'{size}M', output=f'/tmp/{disk}', **jobs)}) || exit 1 &\n"
                              for disk in names().values())
                      + "for job in $(jobs -p); do wait $job || exit 1; done", timeout=240)

        @tap.test("discard gives the host its space back")
        def _():
            disk = names()["0:0"]
            guest.run(f"dd if=/dev/urandom of=/dev/{disk} bs=1M count=32 oflag=direct 2>/dev/null && sync")
            tap.check(disks["disk64"].stat().st_blocks * 512 >= 32 * MIB, "32 MiB written, but they take less")
            guest.run(f"/usr/sbin/blkdiscard /dev/{disk}")
            tap.check(disks["disk64"].stat().st_blocks * 512 < 2 * MIB, "all was discarded and still takes space")

        @tap.test("a disk comes while the guest runs, works, and goes; the others stay")
        def _():
            for _ in range(1 if SHORT else 3):
                machine.attach("virtio-scsi0/7:0", "disk16")
                wait_until(guest, "ls -d /sys/bus/scsi/devices/*:7:0/block/sd*", "the guest sees the new disk")
                guest.run(fio(f"/dev/{names()['7:0']}", "2M"))
                machine.detach("virtio-scsi0/7:0")
                wait_until(guest, "! ls -d /sys/bus/scsi/devices/*:7:0", "the guest has let the disk go")
            tap.equal(sorted(names()), sorted(UNITS), "where the guest finds disks afterwards")

        @tap.test("a driver that lets go of the adapter and takes it again finds its disks")
        def _():
            guest.run("cd /sys/bus/virtio/drivers/virtio_scsi && device=$(ls -d virtio*) && "
                      "echo $device >unbind && [ ! -e /dev/sda ] && echo $device >bind")
            wait_until(guest, f"[ $(ls -d /sys/block/sd* | wc -l) = {len(UNITS)} ]", "the guest has its disks again")
            guest.run(fio(f"/dev/{names()['200:0']}", "2M"))

        @tap.test("the guest's kernel saw no error")
        def _():
            no_io_errors(guest)
            guest.power_off()
            machine.stop()

        @tap.test("a persistent reservation outlives the guest and penstock")
        def _():
            if QEMUS_OWN:
                raise tap.Skip("QEMU's own disks have none")
            kept = {"stack": [{"file": {"path": str(disks["disk16"])}}], "reservations": str(lab.path("reservations"))}
            found = ""
            for script in (f"sg_persist -n -o -G -Z -S {KEY} /dev/sda && sg_persist -n -o -R -K {KEY} -T 5 /dev/sda",
                           "sg_persist -n -k /dev/sda && sg_persist -n -r /dev/sda"):
                with Machine(lab, {"kept": kept}, [{"virtio-scsi": ["kept"]}], memory=256) as machine:
                    guest = machine.boot(programs=["sg_persist"])
                    found = guest.run(script)
                    guest.power_off()
                    machine.stop()
            tap.contains(found, KEY, "Write Exclusive, registrants only")

        tap.main()


main()
