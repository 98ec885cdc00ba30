# SPDX-License-Identifier: BSD-3-Clause
"""A mirror of two legs beside its slower leg alone, in the same run: over null, memory, a leg that is slow, and files.

Over memory and null a write is work of the server's one core, and twice as much of it for two legs; both files are on one
device. Those rows say what that costs. The target is for legs that are slower than the core, as disks are. Regions are dirty when the measuring begins, as they are under any steady load."""

import json

from cache import measure, show
from measuring import OURS

SLOW = {"delay": {"delay": "100us"}}


def serve(bench, name, stack):
    socket, config = bench.path(f"{name}.sock"), bench.path(f"{name}.yaml")
    config.write_text(json.dumps({"disks": {"disk": {"stack": stack}},
                                  "vms": {"vm": [{"virtio-blk": "disk", "socket": str(socket)}]}}))
    return bench.start(OURS, [bench.penstock, "run", config, "--loops", "1", "--cpus", "1"], [socket])


def part_mirror(bench):
    files = [{"file": {"path": str(bench.build / f"bench-leg{number}.img"), "create": True, "size": "1G", "direct": "on"}}
             for number in range(3)]
    memory, null = {"memory": {"size": "1G"}}, {"null": {"size": "1G"}}
    for kind, alone, legs in (("null", [null], [null, null]),
                              ("memory", [memory], [memory, memory]),
                              ("slow memory", [SLOW, memory], [memory, [SLOW, memory]]),
                              ("file", [files[2]], [files[0], files[1]])):
        servers = {"slower leg alone": serve(bench, f"{kind.split()[0]}-alone", alone),
                   "mirror of two": serve(bench, f"{kind.split()[0]}-mirror", [{"mirror": {"create": True, "legs": legs}}])}
        for server in servers.values():     # what is copied is copied, what is written is there
            bench.run_client(server, "--op", "write", "--depth", 8, "--block", 1 << 20, "--sequential", seconds=2.0)
        for op in ("read", "write"):
            for block, depth in ((4096, 32), (1 << 16, 8)):
                show(bench, f"mirror over {kind}, random {op}, {block >> 10} KiB, depth {depth}",
                     measure(bench, servers, "--op", op, "--depth", depth, "--block", block), "slower leg alone")
        bench.stop_servers()
    for leg in files:
        (bench.build / leg["file"]["path"]).unlink(missing_ok=True)


def targets(results, row):
    for kind, op in (("memory", "read"), ("slow memory", "read"), ("slow memory", "write")):
        key = f"mirror over {kind}, random {op}, 4 KiB, depth 32"
        found = results.get(key)
        row(f"{key}, IOPS to its slower leg",
            found and found["mirror of two"]["iops"] / found["slower leg alone"]["iops"], 0.95, True)


SECTIONS = {"mirror": part_mirror}
