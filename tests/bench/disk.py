# SPDX-License-Identifier: BSD-3-Clause
"""A virtio disk beside qemu-storage-daemon's: null, events, file, memory; what a layer costs, and what idle disks do.

Both serve the same thing over vhost-user-blk on one core; the client runs on the other. Beside them stands the limit:
fio with io_uring straight on the file."""

import json
import os
import subprocess
import time
from pathlib import Path

from measuring import CLIENT_CORE, DEPTHS, GIB, LIMIT, OURS, THEIRS, BenchError, median

IDLE_DISKS, IDLE_SECONDS = 100, 10


# --- measuring and showing ---------------------------------------------------

def run_fio(bench, image, pattern, block, depth):
    command = [bench.fio, "--name=limit", f"--filename={image}", "--ioengine=io_uring", "--direct=1",
               f"--rw={pattern}", f"--bs={block}", f"--iodepth={depth}", "--time_based=1",
               f"--runtime={max(1, round(bench.arguments.seconds))}", "--norandommap=1", "--random_generator=tausworthe64",
               "--output-format=json", f"--cpus_allowed={CLIENT_CORE}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, text=True, capture_output=True, timeout=120)
    if done.returncode:
        raise BenchError(f"fio: {done.stderr.strip()}")
    job = json.loads(done.stdout)["jobs"][0]["write" if "write" in pattern else "read"]
    latency = job["clat_ns"].get("percentile", {})
    return {"iops": job["iops"], "p50_us": latency.get("50.000000", 0) / 1e3,
            "p99_us": latency.get("99.000000", 0) / 1e3, "cpu_per_million": 0}


def measure(bench, key, runs):
    """Run every one of `runs` (name -> function) in turn, some rounds; keep the medians under `key`."""
    rounds = {name: [] for name in runs}
    for _ in range(bench.arguments.rounds):
        for name, function in runs.items():
            rounds[name].append(function())
    medians = {name: {field: median(done, field) for field in ("iops", "p50_us", "p99_us", "cpu_per_million")}
               for name, done in rounds.items()}
    bench.results[key] = medians
    print_row(key, medians)
    return medians


def print_heading(title):
    print(f"\n{title}")
    print(f"{'':24}{'k requests/s':>30}   {'p50 / p99 µs':>29}   {'CPU s/million':>17}   ratio", flush=True)
    print(f"{'':24}{'ours':>10}{'theirs':>10}{'limit':>10}   {'ours':>14} {'theirs':>14}   {'ours':>8}{'theirs':>9}")


def print_row(key, medians):
    def cell(name, text):
        return text(medians[name]) if name in medians else "-"

    def latency(run):
        return f"{run['p50_us']:.1f}/{run['p99_us']:.1f}"

    ratio = f"{medians[OURS]['iops'] / medians[THEIRS]['iops']:.2f}" if THEIRS in medians else "-"
    print(f"{key:24}"
          + "".join(f"{cell(name, lambda r: format(r['iops'] / 1e3, '.1f')):>10}" for name in (OURS, THEIRS, LIMIT))
          + "   " + " ".join(f"{cell(name, latency):>14}" for name in (OURS, THEIRS))
          + "   " + f"{cell(OURS, lambda r: format(r['cpu_per_million'], '.3f')):>8}"
          + f"{cell(THEIRS, lambda r: format(r['cpu_per_million'], '.3f')):>9}   {ratio:>5}", flush=True)


# --- the sections ------------------------------------------------------------

def pair(bench, ours, theirs, *options):
    runs = {OURS: lambda: bench.run_client(ours, *options)}
    if theirs:
        runs[THEIRS] = lambda: bench.run_client(theirs, *options)
    return runs


def null_servers(bench):
    return (bench.ours("null", "null:", "size=1G"),
            bench.theirs("null", f"driver=null-co,size={GIB},read-zeroes=off"))


def part_null(bench):
    ours, theirs = null_servers(bench)
    print_heading("null, 4 KiB, polling client")
    for op in ("read", "write"):
        for depth in DEPTHS:
            measure(bench, f"null rand{op} {depth}", pair(bench, ours, theirs, "--op", op, "--depth", depth))
    print_heading("null, 1 MiB sequential, polling client")
    for op in ("read", "write"):
        measure(bench, f"null seq{op} 8", pair(bench, ours, theirs, "--op", op, "--depth", 8, "--block", 1 << 20,
                                             "--sequential"))


def part_events(bench):
    ours, theirs = null_servers(bench)
    print_heading("null, 4 KiB, client asleep on events")
    for op, depths in (("read", DEPTHS), ("write", (32,))):
        for depth in depths:
            measure(bench, f"events rand{op} {depth}",
                    pair(bench, ours, theirs, "--op", op, "--depth", depth, "--sleep"))


def part_file(bench):
    image = prepare_image(bench)
    ours = bench.ours("file", image, "direct=on")
    # qemu-storage-daemon would refuse an image that is locked; the guests take turns on it.
    theirs = bench.theirs("file", f"driver=file,filename={image},aio=io_uring,cache.direct=on,locking=off")

    def runs(pattern, block, depth, *options):
        both = pair(bench, ours, theirs, "--op", "write" if "write" in pattern else "read", "--depth", depth,
                    "--block", block, *options)
        if bench.fio:
            both[LIMIT] = lambda: run_fio(bench, image, pattern, block, depth)
        return both

    print_heading(f"file (O_DIRECT), 4 KiB, polling client; limit: fio on {image.name}")
    for pattern in ("randread", "randwrite"):
        for depth in DEPTHS:
            measure(bench, f"file {pattern} {depth}", runs(pattern, 4096, depth))
    print_heading("file (O_DIRECT), 1 MiB sequential")
    for pattern in ("read", "write"):
        measure(bench, f"file seq{pattern} 8", runs(pattern, 1 << 20, 8, "--sequential"))


def prepare_image(bench):
    """1 GiB of real data beside the build, kept for the next run; its path."""
    image = bench.build / "bench.img"
    if image.exists() and image.stat().st_size == GIB and image.stat().st_blocks * 512 >= GIB:
        return image
    print(f"writing {image} (1 GiB)", flush=True)
    chunk = os.urandom(1 << 20)
    with open(image, "wb") as file:
        for number in range(GIB >> 20):
            file.write(number.to_bytes(8, "little") + chunk[8:])
        file.flush()
        os.fsync(file.fileno())
    return image


def copy_limit():
    """How many 4 KiB copies a second one core does at all: from memory beyond its caches to a few buffers."""
    chunk = 32 * 4096
    source = memoryview(bytearray(256 << 20))
    target = bytearray(chunk)
    count, began = 0, time.monotonic()
    while time.monotonic() < began + 0.5:
        for start in range(0, len(source), chunk * 64):
            target[:] = source[start:start + chunk]
            count += 32
    return count / (time.monotonic() - began)


def part_memory(bench):
    ours = bench.ours("memory", "memory:", "size=1G")
    bench.run_client(ours, "--op", "write", "--depth", 8, "--block", 1 << 20, "--sequential", seconds=1.5)
    print_heading("memory, 4 KiB, polling client (limit: copying alone)")
    limit = copy_limit()
    for op in ("read", "write"):
        measure(bench, f"memory rand{op} 32",
                      {OURS: lambda op=op: bench.run_client(ours, "--op", op, "--depth", 32),
                       LIMIT: lambda: {"iops": limit, "p50_us": 0, "p99_us": 0, "cpu_per_million": 0}})


def part_pass(bench):
    """What a layer costs: server CPU a request, at a depth that keeps the server busy."""
    servers = {layers: bench.ours(f"pass{layers}", "null:", "size=1G",
                                  *(["stack=" + ",".join(["pass"] * layers)] if layers else []))
               for layers in (0, 1, 4)}
    rounds = {layers: [] for layers in servers}
    for _ in range(bench.arguments.rounds):
        for layers, server in servers.items():
            rounds[layers].append(bench.run_client(server, "--depth", 32))
    ns = {layers: 1e3 * median(done, "cpu_per_million") for layers, done in rounds.items()}
    bench.results["pass"] = {"ns_none": ns[0], "ns_one": ns[1] - ns[0], "ns_of_four": (ns[4] - ns[0]) / 4}
    print(f"\npass layer, null, depth 32: {ns[0]:.0f} ns a request without; one layer {ns[1] - ns[0]:+.0f} ns, "
          f"each of four {(ns[4] - ns[0]) / 4:+.0f} ns", flush=True)


def private_kib(pid):
    """Memory of the process's own; the guests' memory, which it shares, is theirs."""
    text = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines())
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssFile"))


def cpu_seconds(pid):
    # Threads are counted in their process's schedstat sum, in ns.
    return sum(int(Path(task, "schedstat").read_text().split()[0])
               for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


def idle_daemon(bench, disks):
    names = [f"d{number}" for number in range(disks)]
    sockets = [bench.path(f"idle{disks}-{name}") for name in names]
    config = bench.path(f"idle{disks}.yaml")
    config.write_text("disks:\n" + "".join(f"  {name}:\n    size: 1G\n    stack:\n      - null: {{}}\n"
                                           for name in names)
                      + "vms:\n" + "".join(f"  vm-{name}:\n    - {{virtio-blk: {name}, socket: {socket}}}\n"
                                           for name, socket in zip(names, sockets)))
    server = bench.start(OURS, [bench.penstock, "run", config, "--api", bench.path(f"idle{disks}-api")], sockets)
    client = subprocess.Popen([bench.clients["bench"], "--attach", *sockets], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
    if client.stdout.readline().strip() != "attached":
        client.kill()
        raise BenchError(f"idle: {client.communicate()[1]}\n" + server.log.read_text(errors="replace")[-2000:])
    return server, client


def part_idle(bench):
    memory = {}
    for disks in (1, IDLE_DISKS):
        server, client = idle_daemon(bench, disks)
        try:
            time.sleep(1)
            memory[disks] = private_kib(server.pid)
            before = cpu_seconds(server.pid)
            time.sleep(IDLE_SECONDS if disks > 1 else 0)
            used = cpu_seconds(server.pid) - before
        finally:
            client.communicate()
    each = (memory[IDLE_DISKS] - memory[1]) / (IDLE_DISKS - 1)
    bench.results["idle"] = {"cpu_seconds": used, "kib_first": memory[1], "kib_each": each}
    print(f"\nidle, {IDLE_DISKS} attached disks: {used * 1e3:.1f} ms of CPU in {IDLE_SECONDS} s; {memory[1]} KiB with "
          f"one disk, {each:.0f} KiB for each more", flush=True)


# --- the targets -------------------------------------------------------------

def targets(results, row):
    def ratio(key, field="iops"):
        ours, theirs = (results.get(key, {}).get(name) for name in (OURS, THEIRS))
        return ours[field] / theirs[field] if ours and theirs and theirs[field] else None

    for depth, bound in ((1, 4), (8, 2.2), (32, 2.8), (128, 2.8)):
        row(f"null randread {depth}, IOPS to qemu-storage-daemon", ratio(f"null randread {depth}"), bound, True)
    row("null randread 32, CPU per request to theirs", ratio("null randread 32", "cpu_per_million"), 0.4, False)
    for depth, bound in ((1, 4), (32, 3)):
        row(f"null, client on events, {depth}", ratio(f"events randread {depth}"), bound, True)
    for pattern in ("randread", "randwrite"):
        for depth in DEPTHS:
            key = f"file {pattern} {depth}"
            row(f"{key}, IOPS to theirs", ratio(key), 1, True)
            limit = results.get(key, {}).get(LIMIT)
            row(f"{key}, IOPS to fio", limit and results[key][OURS]["iops"] / limit["iops"], 1, True)
            row(f"{key}, CPU per request to theirs", ratio(key, "cpu_per_million"), 0.7, False)
    for pattern in ("read", "write"):
        limit = results.get(f"file seq{pattern} 8", {}).get(LIMIT)
        row(f"file seq{pattern} 1 MiB, to fio",
            limit and results[f"file seq{pattern} 8"][OURS]["iops"] / limit["iops"], 1, True)
    memory = results.get("memory randread 32")
    row("memory randread 32", memory and memory[OURS]["iops"] / 1e3, 900, True, "k/s")
    idle = results.get("idle")
    row(f"idle with {IDLE_DISKS} disks, CPU over {IDLE_SECONDS} s", idle and idle["cpu_seconds"] * 1e3, 10, False, "ms")
    row("memory of a disk beyond the first", idle and idle["kib_each"] / 1024, 1, False, "MiB")
    layer = results.get("pass")
    row("a pass layer", layer and layer["ns_of_four"], 30, False, "ns")


SECTIONS = {"null": part_null, "events": part_events, "file": part_file, "memory": part_memory, "pass": part_pass,
            "idle": part_idle}
