# SPDX-License-Identifier: BSD-3-Clause
"""The ladder: the same reads, in the same guest, from full emulation to paravirtual.

Two guests run side by side and take turns: one whose disks are penstock's, one with QEMU's own devices of the same
kinds. Each has all rungs at once: IDE with a disk that the driver is told to use by PIO and one by DMA, PVSCSI,
virtio-scsi, virtio-blk; each disk an image of its own, which both guests read. fio in the guest reads 4 KiB at random.

Interrupts are those that the guest's kernel counted, reads those that its disk counted. Accesses are register reads and
writes that left the guest, and kicks: penstock's own count; of QEMU's devices what its trace events say, in runs of
their own, because tracing costs time."""

import dataclasses
import os
import re
import statistics

import qemu11
import tap
from daemon import DaemonError
from guest import GuestError, accelerator
from guest_image import Missing
from lab import MIB, Lab
from machine import Machine
from measuring import OURS, BenchError
from qmp import QmpError

IMAGE_MIB = 64
SECONDS, ROUNDS = 1.0, 3        # of one run of fio
QUICK_SECONDS = 0.5
TRACED_READS = 200
QEMU = "QEMU's own"


@dataclasses.dataclass(frozen=True)
class Rung:
    """`place`: in the path of the guest's block device; `interrupt`: the name of its line in /proc/interrupts, {} for the
    virtio device's number; `device`: penstock's name; `traced`: QEMU's events that are accesses."""
    name: str
    place: str
    interrupt: str
    device: str
    traced: str


# What fio does -> its options. IDE has no queue that batches could fill.
BATCHES = "depth 32, batches"
LOADS = {"depth 1": "--iodepth=1", "depth 32": "--iodepth=32",
         BATCHES: "--iodepth=32 --iodepth_batch_submit=16 --iodepth_batch_complete_min=8 --iodepth_batch_complete_max=32"}

REGISTERS = r"^memory_region_ops_(?:read|write) .* name '(?:{})'"
IDE = REGISTERS.format("ide|ide-.*|piix-bmdma|bmdma|.*bmdma.*")
RUNGS = (
    Rung("IDE PIO", r"/ata2/", "ata_piix", "ide0", IDE),
    Rung("IDE DMA", r"/ata1/", "ata_piix", "ide0", IDE),
    Rung("PVSCSI", r"^(?!.*/virtio).*/host", "vmw_pvscsi", "pvscsi0", REGISTERS.format("pvscsi-io")),
    Rung("virtio-scsi", r"/virtio(\d+)/host", "virtio{}-request", "virtio-scsi0", "^virtio_queue_notify "),
    Rung("virtio-blk", r"/virtio(\d+)/block", "virtio{}-req.0", "virtio-blk0", "^virtio_queue_notify "),
)
DISKS = {"pio": "secondary-master", "dma": "primary-master"}
DEVICES = [{"ide": [{"disk": disk, "position": position} for disk, position in DISKS.items()]},
           {"pvscsi": ["pvscsi"]}, {"virtio-scsi": ["virtio-scsi"]}, {"virtio-blk": "virtio-blk"}]

FIO = ("fio --name=ladder --filename=/dev/{disk} --rw=randread --bs=4k --ioengine=libaio --direct=1 --norandommap "
       "--gtod_reduce=1 --thread --output-format=terse --output=/tmp/fio {options} >/tmp/said 2>&1 || "
       "{{ cat /tmp/said /tmp/fio; exit 1; }}\n")
COUNTS = "echo @counts; cat /sys/block/{disk}/stat /proc/interrupts\n"


class Side:
    """A booted guest, and where its disks are."""

    def __init__(self, name, lab, images, own):
        self.name = name
        self.lab = lab
        self.machine = Machine(lab, images, DEVICES, own=own)
        self.guest = self.machine.boot(programs=["fio"], qemu=qemu11.command())
        # By PIO on the second channel only.
        self.guest.run("rmmod ata_piix libata && insmod /modules/*-libata.ko force=2.00:pio4 && "
                       "insmod /modules/*-ata_piix.ko && sleep 2")
        listed = self.guest.run("for disk in /sys/block/[sv]d*; do readlink -f $disk; done").split()
        self.disk, self.interrupt = {}, {}
        for rung in RUNGS:
            found = [(path, place) for path in listed if (place := re.search(rung.place, path))
                     and (rung.name.startswith("IDE") or "/ata" not in path)]
            if len(found) != 1:
                raise BenchError(f"ladder: {name}, {rung.name}: not one disk among {listed}{self.guest.complaints()}")
            path, place = found[0]
            self.disk[rung] = os.path.basename(path)
            self.interrupt[rung] = rung.interrupt.format(*place.groups())

    def read(self, rung, *options):
        """One run of fio: its IOPS, and interrupts and accesses a read."""
        disk = self.disk[rung]
        counts = COUNTS.format(disk=disk)
        before = self.accesses(rung)
        said = self.guest.run(counts + FIO.format(disk=disk, options=" ".join(options)) + counts
                              + "echo @fio; cat /tmp/fio")
        after = self.accesses(rung)
        counted, fio = said.split("@fio")
        first, last = ((int(text.split()[0]), self.interrupts(rung, text)) for text in counted.split("@counts")[1:])
        reads = last[0] - first[0]
        run = {"iops": float(fio.strip().split(";")[7]), "reads": reads, "interrupts": (last[1] - first[1]) / reads}
        if before is not None:
            run["accesses"] = (after - before) / reads
        return run

    def interrupts(self, rung, text):
        """Of the rung's lines of /proc/interrupts: the guest has one CPU, and the driver's other channel is at rest."""
        return sum(int(line.split()[1]) for line in text.splitlines() if self.interrupt[rung] in line)

    def accesses(self, rung):
        """penstock's count; None of QEMU's own devices."""
        if self.machine.own:
            return None
        return next(device["accesses"] for vm in self.machine.status()["vms"] for device in vm["devices"]
                    if device["name"] == rung.device)

    def traced_accesses(self, rung, load):
        """Accesses a read of QEMU's own device, as QEMU's log tells them."""
        log = self.lab.path("trace")
        qmp = self.machine.qmp()
        try:
            def monitor(line):
                qmp.execute("human-monitor-command", command_line=line)
            monitor(f"logfile {log}")
            monitor("log trace:memory_region_ops_read,trace:memory_region_ops_write,trace:virtio_queue_notify")
            run = self.read(rung, LOADS[load], f"--io_size={4 * TRACED_READS}k")
            monitor("log none")
        finally:
            qmp.close()
        with open(log, errors="replace") as lines:
            seen = sum(1 for line in lines if re.search(rung.traced, line))
        log.unlink()
        return seen / run["reads"]


def section(bench):
    seconds, rounds = (QUICK_SECONDS, 1) if bench.arguments.quick else (SECONDS, ROUNDS)
    try:
        with Lab() as ours, Lab() as theirs:
            images = make_images(ours)
            sides = (Side(OURS, ours, images, False), Side(QEMU, theirs, images, True))
            print(f"\nthe ladder: 4 KiB random reads by fio in a guest ({accelerator()}, QEMU 11.1), a read's accesses and "
                  f"interrupts; medians of {rounds} runs of {seconds:g} s")
            print(f"{'':30}{OURS:>34}   {QEMU:>34}\n{'':30}" + f"{'accesses interrupts      IOPS':>34}   " * 2 + "ratio",
                  flush=True)
            for load in LOADS:
                for rung in RUNGS:
                    if load != BATCHES or rung.device != "ide0":
                        climb(bench, sides, rung, load, seconds, rounds)
    except Missing as error:
        print(f"\nthe ladder is left out: {error}")
    except (GuestError, DaemonError, QmpError, tap.Failure) as error:
        raise BenchError(f"ladder: {error}") from None


def make_images(lab):
    """Images of random bytes: name of the disk -> path."""
    images = {}
    for name in (*DISKS, "pvscsi", "virtio-scsi", "virtio-blk"):
        images[name] = lab.path(f"{name}.img")
        images[name].write_bytes(os.urandom(IMAGE_MIB * MIB))
    return images


def climb(bench, sides, rung, load, seconds, rounds):
    runs = {side.name: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            runs[side.name].append(side.read(rung, LOADS[load], f"--time_based --runtime={1000 * seconds:.0f}ms"))
    found = {side.name: {field: statistics.median(run[field] for run in runs[side.name]) for field in runs[side.name][0]}
             for side in sides}
    found[QEMU]["accesses"] = sides[1].traced_accesses(rung, load)
    bench.results[f"ladder {rung.name}, {load}"] = found
    print(f"{f'{rung.name}, {load}':30}"
          + "   ".join(f"{run['accesses']:>14.2f}{run['interrupts']:>11.2f}{run['iops']:>9.0f}" for run in found.values())
          + f"   {found[OURS]['iops'] / found[QEMU]['iops']:>5.2f}", flush=True)


def targets(results, row):
    for name, load, most in (("IDE DMA", "depth 1", 14), ("PVSCSI", "depth 1", 1), ("PVSCSI", "depth 32", 0.2),
                             ("PVSCSI", BATCHES, 0.2)):
        found = results.get(f"ladder {name}, {load}")
        row(f"{name} in a guest, accesses a read, {load}", found and found[OURS]["accesses"], most, False, "")


SECTIONS = {"ladder": section}
