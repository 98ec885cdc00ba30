# SPDX-License-Identifier: BSD-3-Clause
"""virtio-scsi and PVSCSI beside virtio-blk, all over null and without a guest: what SCSI and what PCI registers cost.

Each is a penstock of its own with one loop. The client is the driver side of each; it polls, and kicks as its protocol
lets it: a kick is an access, and of PVSCSI the only one."""

from measuring import DEPTHS, median

DEVICES = {"virtio-blk": ("bench", ()), "virtio-scsi": ("bench", ("--device", "scsi")), "pvscsi": ("pvscsi", ())}
SHARE = 0.7             # of virtio-blk's IOPS, that the others are to reach
ACCESSES = {1: 1, 32: 0.2}


def section(bench):
    servers = {kind: bench.device(kind, [{"null": {}}]) for kind in DEVICES}
    table(bench, servers, "SCSI: null, 4 KiB random reads, polling client", "scsi", DEPTHS)
    table(bench, servers, "SCSI: null, 4 KiB random reads, client asleep on interrupts", "scsi events", (1, 32), "--sleep")


def table(bench, servers, title, key, depths, *options):
    print(f"\n{title}\n{'':8}" + "".join(f"{kind:>34}" for kind in DEVICES) + "\n"
          + f"{'depth':8}" + f"{'k requests/s   CPU s/M  accesses':>34}" * len(DEVICES) + "   ratios", flush=True)
    for depth in depths:
        rounds = {kind: [] for kind in DEVICES}
        for _ in range(bench.arguments.rounds):
            for kind, (client, device) in DEVICES.items():
                run = bench.run_client(servers[kind], "--depth", depth, *device, *options, client=client)
                run["accesses"] = run["kicks"] / run["requests"]
                rounds[kind].append(run)
        found = {kind: {field: median(runs, field) for field in ("iops", "p50_us", "p99_us", "cpu_per_million", "accesses")}
                 for kind, runs in rounds.items()}
        bench.results[f"{key} {depth}"] = found
        print(f"{depth:<8}" + "".join(f"{run['iops'] / 1e3:>14.1f}{run['cpu_per_million']:>10.3f}{run['accesses']:>10.4f}"
                                      for run in found.values())
              + "".join(f"{found[kind]['iops'] / found['virtio-blk']['iops']:>7.2f}" for kind in list(DEVICES)[1:]), flush=True)


def targets(results, row):
    for depth in DEPTHS:
        found = results.get(f"scsi {depth}")
        for kind in list(DEVICES)[1:]:
            row(f"{kind} on null, depth {depth}, IOPS to virtio-blk",
                found and found[kind]["iops"] / found["virtio-blk"]["iops"], SHARE, True)
    for depth, most in ACCESSES.items():
        found = results.get(f"scsi events {depth}")
        row(f"pvscsi, client on events, accesses a read at {depth}", found and found["pvscsi"]["accesses"], most, False, "")


SECTIONS = {"scsi": section}
