# SPDX-License-Identifier: BSD-3-Clause
"""Encryption beside the cipher alone, and on several cores.

The cipher alone is `openssl speed -evp aes-256-xts` on the server's core, with buffers as large as a sector, in turn with
the runs. It works on one sector again and again, in the first-level cache. What is encrypted stands on null, so
that nothing but encryption and the request's way is measured; the volume's header is in a file before it (concat)."""

import json
import subprocess

from measuring import CLIENT_CORE, GIB, OURS, SERVER_CORE, BenchError, median

SECTORS = (4096, 512)
LENGTHS = (128 << 10, 256 << 10, 512 << 10, 1 << 20, 4 << 20)
SHARE, SCALING = 0.9, 1.5
HEADER = 16 << 20


def volume(bench, name, sector):
    """The header of a volume; its data are to be elsewhere."""
    image, key = bench.path(f"{name}.luks"), bench.path("key")
    key.write_text("not a secret")
    done = subprocess.run([bench.penstock, "create", "crypt", image, "size=4K", f"key-file={key}", "pbkdf=pbkdf2", "pbkdf-iterations=1000",
                           f"sector-size={sector}", "force=true"], text=True, capture_output=True, timeout=60)
    if done.returncode:
        raise BenchError(done.stderr)
    with open(image, "r+b") as file:
        file.truncate(HEADER)
    return image, key


def server(bench, name, sector, options, *arguments, cores=SERVER_CORE):
    image, key = volume(bench, name, sector)
    socket, config = bench.path(f"{name}.sock"), bench.path(f"{name}.yaml")
    stack = [{"crypt": {"key-file": str(key), **options}},
             {"concat": [{"file": {"path": str(image)}}, {"null": {"size": GIB}}]}]
    config.write_text(json.dumps({"disks": {"disk": {"block-size": sector, "stack": stack}},
                                  "vms": {"vm": [{"virtio-blk": "disk", "socket": str(socket)}]}}))
    return bench.start(OURS, [bench.penstock, "run", config, "--loops", "1", *arguments], [socket], cores)


def cipher_alone(bench, sector):
    """Bytes a second of CPU."""
    seconds = max(1, round(bench.arguments.seconds))
    done = subprocess.run(["taskset", "-c", str(SERVER_CORE), "openssl", "speed", "-mr", "-evp", "aes-256-xts", "-bytes", str(sector),
                           "-seconds", str(seconds)], text=True, capture_output=True, timeout=60)
    lines = [line.split(":") for line in done.stdout.splitlines() if line.startswith("+F:")]
    if done.returncode or not lines:
        raise BenchError(f"openssl speed: {done.stdout}{done.stderr}")
    return {"bytes": float(lines[-1][-1])}


def on_one_core(bench):
    print(f"\ncrypt over null, 64 KiB, depth 8, one core, beside the cipher alone\n{'':22}{'MB/s':>8}{'MB/CPU s':>10}"
          f"{'openssl':>10}   ratio  by CPU", flush=True)
    for sector in SECTORS:
        one = server(bench, f"crypt-{sector}", sector, {"workers": 0}, "--cpus", SERVER_CORE)
        rounds = {"read": [], "write": [], "openssl": []}
        for _ in range(bench.arguments.rounds):
            rounds["openssl"].append(cipher_alone(bench, sector))
            for op in ("read", "write"):
                rounds[op].append(bench.run_client(one, "--op", op, "--depth", 8, "--block", 64 << 10))
        alone = median(rounds["openssl"], "bytes")
        for op in ("read", "write"):
            rate = median(rounds[op], "iops") * (64 << 10)
            by_cpu = (64 << 10) * 1e6 / median(rounds[op], "cpu_per_million")
            bench.results[f"crypt {sector} {op}"] = {"bytes": rate, "bytes_cpu": by_cpu, "openssl": alone}
            print(f"sectors of {sector:4}, {op:5}{rate / 1e6:>9.0f}{by_cpu / 1e6:>10.0f}{alone / 1e6:>10.0f}{rate / alone:>8.2f}"
                  f"{by_cpu / alone:>8.2f}", flush=True)
        bench.stop_servers()


def on_all_cores(bench):
    """The client sleeps, since the workers want its core."""
    cores = f"{SERVER_CORE},{CLIENT_CORE}"
    servers = {workers: server(bench, f"crypt-{workers}", 4096, {"workers": workers, "workers-from": 128 << 10}, cores=cores)
               for workers in (0, "auto")}
    print(f"\ncrypt over null, one loop, two cores, sectors of 4096, client asleep: with workers to without\n{'':12}"
          + "".join(f"{'read' if d == 1 else 'write':>8} at {depth}" for depth in (1, 4) for d in (1, 2)), flush=True)
    for length in LENGTHS:
        ratios = []
        for depth in (1, 4):
            for op in ("read", "write"):
                rounds = {workers: [] for workers in servers}
                for _ in range(bench.arguments.rounds):
                    for workers, one in servers.items():
                        rounds[workers].append(bench.run_client(one, "--op", op, "--depth", depth, "--block", length, "--sleep"))
                ratio = median(rounds["auto"], "iops") / median(rounds[0], "iops")
                bench.results[f"crypt workers {length >> 10} {op} {depth}"] = {"ratio": ratio}
                ratios.append(ratio)
        print(f"{length >> 10:>6} KiB  " + "".join(f"{ratio:>13.2f}" for ratio in ratios), flush=True)


def section(bench):
    on_one_core(bench)
    on_all_cores(bench)


def targets(results, row):
    for sector in SECTORS:
        for op in ("read", "write"):
            found = results.get(f"crypt {sector} {op}")
            row(f"crypt, sectors of {sector}, 64 KiB {op}, to openssl speed", found and found["bytes"] / found["openssl"], SHARE, True)
    for op in ("read", "write"):
        found = results.get(f"crypt workers 1024 {op} 4")
        row(f"crypt, 1 MiB {op} at 4, two cores to one", found and found["ratio"], SCALING, True)


SECTIONS = {"crypt": section}
