#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""fio's verify in a real guest, over each kind of ring, block size and number of queues.

One penstock serves all the disks to one guest."""

from itertools import product

from guest_checks import feature, fio, no_io_errors, tap
from lab import SHORT, Disk, Lab

RING_PACKED = 34
KINDS = list(product((512, 4096), ("split", "packed"), (1, 4)))


def configuration(lab):
    """A configuration with one disk of each kind, all of them the one VM's."""
    disks, vms = "disks:\n", "vms:\n  guest:\n"
    for block, ring, queues in KINDS:
        name = f"{ring}-{block}-{queues}"
        lab.image(name, 64)
        disks += f"  {name}:\n    block-size: {block}\n    stack:\n      - file: {{path: {name}}}\n"
        vms += f"    - {{virtio-blk: {name}, socket: {name}.sock, queues: {queues}}}\n"
    return lab.write("all.yaml", disks + vms)


def main():
    with Lab() as lab:
        lab.daemon("run", configuration(lab))
        disks = [Disk(lab.path(f"{ring}-{block}-{queues}.sock"),
                      f"num-queues={queues},packed={'on' if ring == 'packed' else 'off'}")
                 for block, ring, queues in KINDS]
        guest = lab.guest(disks, programs=["fio"], memory=512, cpus=4)
        for letter, (block, ring, queues) in zip("abcdefgh", KINDS):
            @tap.test(f"{ring} ring, {block}-byte blocks, {queues} queue{'s'[:queues - 1]}")
            def _(disk=f"vd{letter}", block=block, ring=ring, queues=queues):
                tap.equal(guest.run(f"cat /sys/block/{disk}/queue/logical_block_size").strip(), str(block),
                          "the block size the guest sees")
                tap.equal(guest.run(f"ls /sys/block/{disk}/mq | wc -l").strip(), str(queues), "queues")
                tap.equal(feature(guest, disk, RING_PACKED), ring == "packed", "VIRTIO_F_RING_PACKED")
                size = 1 if SHORT else 4
                jobs = {"numjobs": queues, "offset_increment": f"{size}M"}
                guest.run(fio(f"/dev/{disk}", f"{size}M", bsrange=f"{block}-64k", **jobs))
                guest.run(fio(f"/dev/{disk}", f"{size}M", rw="write", bs="256k", iodepth=4, **jobs))

        @tap.test("the guest's kernel saw no error, and its disks show no other's bytes")
        def _():
            no_io_errors(guest)
            sums = guest.run("for d in a b c d e f g h; do dd if=/dev/vd$d bs=64k count=1 2>/dev/null | "
                             "md5sum; done").split("\n")
            sums = [line for line in sums if line]
            tap.equal(len(set(sums)), len(KINDS), "different first blocks")

        tap.main()


main()
