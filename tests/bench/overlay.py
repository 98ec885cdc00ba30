# SPDX-License-Identifier: BSD-3-Clause
"""An overlay beside qcow2 with a backing file, in qemu-storage-daemon, and beside the raw file: 4 KiB at depth 32.

fresh: writes to a new store, made for each round. again: writes where all was written before. base: reads of what was
not written. stored: reads of what was. Stores are beside the build, where the base is."""

import json
import shutil
import subprocess

from disk import prepare_image
from measuring import GIB, OURS, THEIRS, median

DEPTH = 32
LOADS = ("fresh", "again", "base", "stored")


def raw_image(bench, base):
    """A copy of the base, of real data too."""
    image = bench.build / "bench-raw.img"
    if not image.exists() or image.stat().st_blocks * 512 < GIB:
        shutil.copyfile(base, image)
    return image


def serve_overlay(bench, base, store):
    socket, config = bench.path("overlay.sock"), bench.path("overlay.yaml")
    stack = [{"overlay": {"store": {"file": {"path": str(store), "create": True, "direct": "on"}}}},
             {"file": {"path": str(base), "direct": "on"}}]
    config.write_text(json.dumps({"disks": {"disk": {"block-size": 4096, "stack": stack}},
                                  "vms": {"vm": [{"virtio-blk": "disk", "socket": str(socket)}]}}))
    return bench.start(OURS, [bench.penstock, "run", config, "--loops", "1", "--cpus", "1"], [socket])


def serve_qcow2(bench, base, store):
    if not store.exists():
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "-b", base, "-F", "raw", store],
                       check=True)
    return bench.theirs("qcow2", f"driver=qcow2,file.driver=file,file.filename={store},file.aio=io_uring,"
                                 f"file.cache.direct=on,file.locking=off,discard=unmap,backing.driver=raw,"
                                 f"backing.file.driver=file,backing.file.filename={base},backing.file.aio=io_uring,"
                                 f"backing.file.cache.direct=on,backing.file.locking=off")


def stop(bench, server):
    if server:
        bench.servers.remove(server)
        server.stop()


def fresh(bench, serve, base, store):
    """A round of writes to a new store."""
    store.unlink(missing_ok=True)
    server = serve(bench, base, store)
    if not server:
        return None
    run = bench.run_client(server, "--op", "write", "--depth", DEPTH)
    stop(bench, server)
    return run


def fill(bench, server):
    """Every block, by sequential requests of 1 MiB."""
    done, seconds = 0, 2
    while done < 2 * GIB >> 20 and seconds < 100:
        run = bench.run_client(server, "--op", "write", "--depth", 8, "--block", 1 << 20, "--sequential", seconds=seconds)
        done, seconds = run["iops"] * run["seconds"], 2 * seconds


def part_overlay(bench):
    base = prepare_image(bench)
    stores = {OURS: bench.build / "bench.ovl", THEIRS: bench.build / "bench.qcow2"}
    serves = {OURS: serve_overlay, THEIRS: serve_qcow2}
    names = [OURS, *([THEIRS] if bench.qsd else [])]
    rounds = {load: {name: [] for name in [*names, "raw"]} for load in LOADS}
    raw = bench.ours("overlay-raw", raw_image(bench, base), "direct=on", "block-size=4096")

    def load(kind, servers, op):
        for _ in range(bench.arguments.rounds):
            for name, server in servers.items():
                rounds[kind][name].append(bench.run_client(server, "--op", op, "--depth", DEPTH))

    try:
        for _ in range(bench.arguments.rounds):
            for name in names:
                rounds["fresh"][name].append(fresh(bench, serves[name], base, stores[name]))
            rounds["fresh"]["raw"].append(bench.run_client(raw, "--op", "write", "--depth", DEPTH))
        for store in stores.values():
            store.unlink(missing_ok=True)
        servers = {"raw": raw, **{name: serves[name](bench, base, stores[name]) for name in names}}
        load("base", servers, "read")
        for name in names:
            fill(bench, servers[name])
        load("again", servers, "write")
        load("stored", servers, "read")
    finally:
        bench.stop_servers()
        for store in stores.values():
            store.unlink(missing_ok=True)
    print(f"\noverlay, 4 KiB, depth {DEPTH}, direct: k requests/s, ns of server CPU a request")
    for kind in LOADS:
        found = {name: {"iops": median(runs, "iops"), "ns": 1e3 * median(runs, "cpu_per_million")}
                 for name, runs in rounds[kind].items()}
        bench.results[f"overlay {kind}"] = found
        print(f"  {kind:8}" + "".join(f"  {name}: {run['iops'] / 1e3:.1f} ({run['ns']:.0f} ns)"
                                      for name, run in found.items())
              + f"   to raw: {found[OURS]['iops'] / found['raw']['iops']:.2f}", flush=True)


def targets(results, row):
    for kind in LOADS:
        found = results.get(f"overlay {kind}")
        if not found:
            continue
        if THEIRS in found:
            row(f"overlay, {kind}, IOPS to qcow2 in qemu-storage-daemon", found[OURS]["iops"] / found[THEIRS]["iops"], 1, True)
        row(f"overlay, {kind}, IOPS to the raw file", found[OURS]["iops"] / found["raw"]["iops"],
            0.7 if kind == "fresh" else 0.95, True)


SECTIONS = {"overlay": part_overlay}
