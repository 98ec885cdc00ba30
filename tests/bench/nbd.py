# SPDX-License-Identifier: BSD-3-Clause
"""The NBD server beside nbdkit and qemu-nbd, on null and on one file.

Each server has one core. The client is our own, which does little, so that the server is what is measured; fio's nbd
engine, which does much, stands in a last table as what a user of a tool sees."""

import json
import subprocess

from disk import prepare_image
from measuring import CLIENT_CORE, GIB, OURS, BenchError, median

NBDKIT, QEMU = "nbdkit", "qemu-nbd"
FASTER = 1.2            # than the better of the two, that ours is to be
LOADS = (
    ("randread 4k", ("--op", "read")),
    ("randwrite 4k", ("--op", "write")),
    ("randread 4k, 4 connections", ("--op", "read", "--connections", 4)),
    ("randwrite 4k, 4 connections", ("--op", "write", "--connections", 4)),
    ("randread 4k, depth 1", ("--op", "read", "--depth", 1)),
    ("read 256k", ("--op", "read", "--block", 256 << 10, "--sequential")),
    ("write 256k", ("--op", "write", "--block", 256 << 10, "--sequential")),
)


def servers(bench, name, ours, plugin, blockdev):
    """One of each kind that is there, by its name."""
    def start(kind, command):
        socket = bench.path(f"{name}-{kind}.sock")
        return bench.start(kind, [word if word != "SOCKET" else socket for word in command], [socket])

    found = {OURS: start(OURS, [bench.penstock, "serve", *ours, "--nbd-socket", "SOCKET", "--loops", "1", "--cpus", "1"])}
    nbdkit = bench.tool("nbdkit", "nbdkit", "one comparison")
    if nbdkit:
        found[NBDKIT] = start(NBDKIT, [nbdkit, "--foreground", "--exit-with-parent", "--unix", "SOCKET", *plugin])
    qemu = bench.tool("qemu-nbd", "qemu-utils", "one comparison")
    if qemu:
        found[QEMU] = start(QEMU, [qemu, "--persistent", "--shared", "16", "--socket", "SOCKET", *blockdev])
    return found


def measure(bench, key, found, run):
    rounds = {name: [] for name in found}
    for _ in range(bench.arguments.rounds):
        for name, server in found.items():
            rounds[name].append(run(server))
    medians = {name: {field: median(runs, field) for field in ("iops", "p50_us", "p99_us", "cpu_per_million")}
               for name, runs in rounds.items()}
    bench.results[key] = medians
    best = better(medians)
    print(f"{key:38}" + "".join(f"{run['iops'] / 1e3:>9.1f}{run['cpu_per_million']:>8.3f}" for run in medians.values())
          + (f"{best:>8.2f}" if best else ""), flush=True)


def better(medians):
    """Ours to the better of the others."""
    others = [run["iops"] for name, run in medians.items() if name != OURS]
    return medians[OURS]["iops"] / max(others) if others else None


def heading(title, found):
    print(f"\n{title}\n{'':38}" + "".join(f"{name:>17}" for name in found) + f"{'ratio':>8}\n"
          + f"{'':38}" + f"{'k req/s':>9}{'CPU s/M':>8}" * len(found), flush=True)


def fio_reads(bench, server):
    done = subprocess.run([bench.fio, "--name=nbd", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={server.socket}",
                           "--rw=randread", "--bs=4k", "--iodepth=32", "--size=1G", "--time_based=1",
                           f"--runtime={max(1, round(bench.arguments.seconds))}", "--output-format=json",
                           f"--cpus_allowed={CLIENT_CORE}"],
                          stdin=subprocess.DEVNULL, text=True, capture_output=True, timeout=120)
    if done.returncode:
        raise BenchError(f"fio: {done.stderr.strip()}")
    read = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]["read"]
    latency = read["clat_ns"].get("percentile", {})
    return {"iops": read["iops"], "p50_us": latency.get("50.000000", 0) / 1e3,
            "p99_us": latency.get("99.000000", 0) / 1e3, "cpu_per_million": 0}


def section(bench):
    image = prepare_image(bench)
    for kind, found in (
            ("null", lambda: servers(bench, "null", ("null:", "size=1G"), ("null", "1G"),
                                     ("--image-opts", f"driver=null-co,size={GIB},read-zeroes=off"))),
            ("file", lambda: servers(bench, "file", (image, "direct=off"), ("file", image),
                                     # It would refuse an image that is locked; the servers take turns on it.
                                     ("--image-opts", f"driver=file,filename={image},aio=io_uring,locking=off")))):
        found = found()
        heading(f"NBD: {kind}, depth 32, our client", found)
        for load, options in LOADS:
            measure(bench, f"nbd {kind} {load}", found, lambda server: bench.run_client(server, *options, client="nbd"))
        if bench.fio:
            measure(bench, f"nbd {kind} fio randread 4k", found, lambda server: fio_reads(bench, server))
        bench.stop_servers()


def targets(results, row):
    for kind in ("null", "file"):
        for load, _ in LOADS:
            found = results.get(f"nbd {kind} {load}")
            row(f"nbd {kind} {load}, to the better of the others", found and better(found), FASTER, True)


SECTIONS = {"nbd": section}
