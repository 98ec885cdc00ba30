# SPDX-License-Identifier: BSD-3-Clause
"""The cache: a hit beside the `memory` back-end, and a skewed load on a file with and without it; stripe, concat and
slice beside what they are made of.

Hits are measured on an image that is in the cache as a whole, the skewed load with a cache of a quarter of the image."""

import json

from disk import prepare_image
from measuring import GIB, OURS, median

SPAN = 256 << 20        # bytes of the disk that hits are on
QUARTER = GIB // 4


def serve(bench, name, stack):
    socket, config = bench.path(f"{name}.sock"), bench.path(f"{name}.yaml")
    config.write_text(json.dumps({"disks": {"disk": {"read-only": True, "stack": stack} if "file" in stack[-1] else {"stack": stack}},
                                  "vms": {"vm": [{"virtio-blk": "disk", "socket": str(socket)}]}}))
    return bench.start(OURS, [bench.penstock, "run", config, "--loops", "1", "--cpus", "1"], [socket])


def measure(bench, servers, *options):
    """Medians of runs in turn, name -> {iops, p50_us, ns of server CPU a request}."""
    rounds = {name: [] for name in servers}
    for _ in range(bench.arguments.rounds):
        for name, server in servers.items():
            rounds[name].append(bench.run_client(server, *options))
    return {name: {"iops": median(runs, "iops"), "p50_us": median(runs, "p50_us"),
                   "ns": 1e3 * median(runs, "cpu_per_million")} for name, runs in rounds.items()}


def fill_all(bench, server, *options):
    """Sequential requests of 1 MiB, in one run that is long enough to touch all of SPAN."""
    seconds, done = 1, 0
    while done < 2 * SPAN >> 20 and seconds < 100:
        run = bench.run_client(server, *options, seconds=seconds)
        done, seconds = run["iops"] * run["seconds"], 2 * seconds


def show(bench, title, found, base):
    """A line for each, with its ratio to the one called `base`."""
    bench.results[title] = found
    print(f"\n{title}")
    for name, run in found.items():
        print(f"  {name:40} {run['iops'] / 1e3:9.1f} k/s  {run['p50_us']:8.1f} µs  {run['ns']:7.0f} ns of CPU   "
              f"{run['iops'] / found[base]['iops']:.2f}", flush=True)


def part_cache(bench):
    image = prepare_image(bench)
    file = {"file": {"path": str(image), "direct": "on"}}
    span = ("--span", SPAN)
    fill = ("--depth", 8, "--block", 1 << 20, "--sequential", *span)
    servers = {"memory": serve(bench, "hit-memory", [{"memory": {"size": "1G"}}]),
               "cache over file, all hits": serve(bench, "hit-cache", [{"cache": {"size": "320M"}}, file])}
    for server, op in ((servers["memory"], "write"), (servers["cache over file, all hits"], "read")):
        fill_all(bench, server, "--op", op, *fill)
    for block, depth in ((4096, 32), (65536, 8)):
        show(bench, f"cache hit, {block >> 10} KiB, depth {depth}",
             measure(bench, servers, "--depth", depth, "--block", block, *span), "memory")
    bench.stop_servers()

    servers = {"file": serve(bench, "skew-file", [file]),
               "cache of a quarter over file": serve(bench, "skew-cache", [{"cache": {"size": QUARTER}}, file])}
    bench.run_client(servers["cache of a quarter over file"], "--depth", 32, "--skewed", seconds=2.0)
    for depth in (1, 32):
        show(bench, f"skewed random read, 4 KiB, depth {depth}",
             measure(bench, servers, "--depth", depth, "--skewed"), "file")


def part_aggregate(bench):
    leg = {"null": {"size": "1G"}}
    servers = {"null": serve(bench, "leg", [leg]),
               "slice": serve(bench, "slice", [{"slice": {"size": "512M"}}, leg]),
               "concat of 2": serve(bench, "concat", [{"concat": [leg, leg]}]),
               "stripe of 2": serve(bench, "stripe", [{"stripe": [leg, leg]}])}
    for block, depth in ((4096, 32), (1 << 20, 8)):
        show(bench, f"aggregation over null, {block >> 10} KiB, depth {depth}",
             measure(bench, servers, "--depth", depth, "--block", block), "null")


def targets(results, row):
    hit = results.get("cache hit, 4 KiB, depth 32")
    row("cache hit, IOPS to memory", hit and hit["cache over file, all hits"]["iops"] / hit["memory"]["iops"], 0.8, True)
    skewed = results.get("skewed random read, 4 KiB, depth 32")
    row("cache of a quarter, skewed read, to file",
        skewed and skewed["cache of a quarter over file"]["iops"] / skewed["file"]["iops"], 2, True)


SECTIONS = {"cache": part_cache, "aggregate": part_aggregate}
