# SPDX-License-Identifier: BSD-3-Clause
"""The nbd back-end beside QEMU's NBD driver, in qemu-storage-daemon: both over one nbdkit that serves memory.

Each has one connection, by a UNIX socket. nbdkit shares the server's core with whichever of the two is at work, because the
client polls on the other; so the figures of both contain what nbdkit costs, and the ratios are nearer to 1 than those
of CPU time, which is the two's own."""

from disk import measure, pair, print_heading
from measuring import OURS, THEIRS

DEPTHS = (1, 32)
SIZES = ((4096, DEPTHS), (65536, (16,)), (1 << 20, (8,)))


def section(bench):
    nbdkit = bench.tool("nbdkit", "nbdkit", "the nbd back-end")
    if not nbdkit:
        return
    socket = bench.path("nbdkit.sock")
    bench.start("nbdkit", [nbdkit, "--foreground", "--unix", socket, "memory", "1G"], [socket])
    ours = bench.device("virtio-blk", [{"nbd": {"uri": f"nbd+unix:///?socket={socket}"}}])
    theirs = bench.theirs("nbd", f"driver=nbd,server.type=unix,server.path={socket}")
    bench.run_client(ours, "--op", "write", "--depth", 8, "--block", 1 << 20, "--sequential", seconds=1.5)
    print_heading("nbd back-end over nbdkit memory, one connection, polling client; theirs: QEMU's nbd driver")
    for size, depths in SIZES:
        for op in ("read", "write"):
            for depth in depths:
                pattern = ["--sequential"] if size > 65536 else []
                measure(bench, f"nbd {op} {size >> 10}K {depth}",
                        pair(bench, ours, theirs, "--op", op, "--depth", depth, "--block", size, *pattern))


def targets(results, row):
    # Of long writes the copies that are kept for a reconnect cost more than QEMU's driver, which keeps none.
    for op in ("read", "write"):
        for depth in DEPTHS:
            found = results.get(f"nbd {op} 4K {depth}", {})
            if THEIRS in found:
                row(f"nbd back-end, {op} 4 KiB, depth {depth}, CPU to QEMU's",
                    found[OURS]["cpu_per_million"] / found[THEIRS]["cpu_per_million"], 1, False)


SECTIONS = {"nbd-backend": section}
