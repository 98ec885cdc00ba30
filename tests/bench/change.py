# SPDX-License-Identifier: BSD-3-Clause
"""What it costs a guest that its disk changes: the pause of a change of layers, and the throughput during a move.

The pause is what penstock measures, from the moment a queue is shut to the moment it goes on, at depth 32, over changes that
put a layer in and take it out again. The throughput is the guest's own, at depth 32 too, beside what it is without a move,
in turns. `equal`: source and target are two devices of the same speed, which are memory behind a delay of 500 µs, so that
neither takes anything from the other, and the server's core is not what limits them. `file`: two images on the one disk of this machine, which has to serve both."""

import json
import subprocess
import time

from measuring import CLIENT_CORE, OURS, SERVER_CORE, BenchError, median

DEPTH = 32
CHANGES = 20
DELAY = "500us"
SIZE = {"equal": 2048, "file": 1024}    # MiB
QUICK_SIZE = 256
PATTERNS = {"randread": ["--op", "read"], "randwrite": ["--op", "write"]}


def penstock(bench, *arguments):
    done = subprocess.run([bench.penstock, *map(str, arguments), "--api", bench.path("change-api")], text=True,
                          capture_output=True, stdin=subprocess.DEVNULL, timeout=120)
    if done.returncode:
        log = bench.servers[-1].log.read_text(errors="replace")
        raise BenchError(f"penstock {' '.join(map(str, arguments))}: {done.stderr.strip()}\n{log[-2000:]}")
    return done.stdout


def disk_of(bench):
    return json.loads(penstock(bench, "status", "--json"))["disks"][0]


def serve(bench, name, stack):
    socket, config = bench.path(f"{name}.sock"), bench.path(f"{name}.yaml")
    config.write_text(json.dumps({"disks": {"disk": {"stack": stack}},
                                  "vms": {"vm": [{"virtio-blk": "disk", "socket": str(socket)}]}}))
    return bench.start(OURS, [bench.penstock, "run", config, "--loops", "1", "--cpus", SERVER_CORE,
                              "--api", bench.path("change-api")], [socket])


def start_client(bench, server, seconds, pattern):
    command = [bench.clients["bench"], "--socket", server.socket, "--server", server.pid, "--cpu", CLIENT_CORE,
               "--depth", DEPTH, "--seconds", seconds, *PATTERNS[pattern]]
    return subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def finish_client(bench, client):
    out, err = client.communicate(timeout=120)
    if client.returncode:
        raise BenchError(f"client: {err.strip()}")
    run = json.loads(out)
    if run["errors"]:
        raise BenchError(f"{run['errors']} requests failed beside a change")
    run["disturbed"] = run["waited"] > 0.05 * run["seconds"]
    bench.runs += 1
    bench.disturbed += run["disturbed"]
    return run


# --- the pause ---------------------------------------------------------------

def part_pause(bench):
    image = bench.path("pause.img")
    image.write_bytes(b"\1" * (64 << 20))
    print(f"\npause of a change of layers, depth {DEPTH}, {CHANGES} changes under load; ms")
    print(f"{'':28}{'median':>10}{'longest':>10}", flush=True)
    for name, stack in (("null", [{"null": {"size": "1G"}}]), ("file", [{"file": {"path": str(image)}}])):
        for pattern in PATTERNS:
            server = serve(bench, f"pause-{name}", stack)
            client = start_client(bench, server, 1 if bench.arguments.quick else 4, pattern)
            time.sleep(0.3)
            pauses = []
            for number in range(4 if bench.arguments.quick else CHANGES):
                penstock(bench, *(("remove-layer", "disk", "pass") if number % 2 else ("insert-layer", "disk", "0", "pass")))
                pauses.append(disk_of(bench)["changes"]["pause-us"] / 1e3)
                if client.poll() is not None:
                    break
            finish_client(bench, client)
            bench.stop_servers()
            pauses.sort()
            found = {"median_ms": pauses[len(pauses) // 2], "longest_ms": pauses[-1], "count": len(pauses)}
            bench.results[f"change {name} {pattern}"] = found
            print(f"{f'{name}, {pattern}':28}{found['median_ms']:>10.3f}{found['longest_ms']:>10.3f}", flush=True)
    image.unlink()


# --- the slow-down of a move -------------------------------------------------

def devices(bench, kind, mib):
    """A source that holds data, and what to move it to; to and fro."""
    if kind == "equal":
        sides = [[{"flaky": {"delay": DELAY, "seed": number}}, {"memory": {"size": f"{mib}M"}}] for number in (1, 2)]
    else:
        sides = []
        for number in (1, 2):
            path = bench.path(f"move{number}.img")
            with open(path, "wb") as image:
                for _ in range(mib):
                    image.write(bytes([number]) * (1 << 20))
            sides.append([{"file": {"path": str(path)}}])
    return sides


def fill(bench, server, mib):
    """So that there is something to copy: a memory disk holds zeroes, which are copied as such."""
    command = [bench.clients["bench"], "--socket", server.socket, "--server", server.pid, "--cpu", CLIENT_CORE, "--depth", DEPTH,
               "--op", "write", "--sequential", "--block", 1 << 20, "--seconds", max(1, mib / 500)]
    subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=120)


def move_run(bench, server, target, pattern):
    """The guest's throughput while the disk moves; the run is shorter than the move, else it is left out."""
    penstock(bench, "move", "disk", *[json.dumps(layer) for layer in target], "--at", "0", "--detach")
    run = finish_client(bench, start_client(bench, server, bench.arguments.seconds, pattern))
    move = disk_of(bench)["move"]
    run["whole"] = move["state"] == "copying"
    run["rate"] = move["rate"]
    while disk_of(bench).get("busy"):
        time.sleep(0.05)
    return run


def part_move(bench):
    print(f"\nthroughput of the guest while its disk moves, 4 KiB, depth {DEPTH}")
    print(f"{'':28}{'alone k/s':>12}{'moving k/s':>12}{'ratio':>8}{'copied MB/s':>13}", flush=True)
    for kind in ("equal", "file"):
        mib = QUICK_SIZE if bench.arguments.quick else SIZE[kind]
        sides = devices(bench, kind, mib)
        for pattern in PATTERNS:
            server = serve(bench, f"move-{kind}", sides[0])
            if kind == "equal":
                fill(bench, server, mib)
            alone, moving = [], []
            for number in range(bench.arguments.rounds):
                alone.append(finish_client(bench, start_client(bench, server, bench.arguments.seconds, pattern)))
                moving.append(move_run(bench, server, sides[(number + 1) % 2], pattern))
            bench.stop_servers()
            whole = [run for run in moving if run["whole"]]
            if not whole:
                print(f"{f'{kind}, {pattern}':28} no run: the move of {mib} MiB is over in less than "
                      f"{bench.arguments.seconds:g} s", flush=True)
                continue
            found = {"alone": median(alone, "iops"), "moving": median(whole, "iops"), "rate": median(whole, "rate"),
                     "runs": len(whole)}
            found["ratio"] = found["moving"] / found["alone"]
            bench.results[f"move {kind} {pattern}"] = found
            print(f"{f'{kind}, {pattern}':28}{found['alone'] / 1e3:>12.1f}{found['moving'] / 1e3:>12.1f}{found['ratio']:>8.2f}"
                  f"{found['rate'] / 1e6:>13.0f}", flush=True)
        for number in (1, 2):
            bench.path(f"move{number}.img").unlink(missing_ok=True)


def section(bench):
    part_pause(bench)
    part_move(bench)


def targets(results, row):
    for name in ("null", "file"):
        for pattern in PATTERNS:
            found = results.get(f"change {name} {pattern}")
            row(f"pause of a change, {name} {pattern} {DEPTH}, longest", found and found["longest_ms"], 5, False, "ms")
    for pattern in PATTERNS:
        found = results.get(f"move equal {pattern}")
        row(f"throughput during a move, equal devices, {pattern}", found and found["ratio"], 0.8, True)


SECTIONS = {"change": section}
