# SPDX-License-Identifier: BSD-3-Clause
"""Frames from one virtual network card to another over the switch, on one core; no guest, both ends are our driver side.

Beside it: Debian's Open vSwitch, user-space datapath with DPDK, one core, driven by the very same client; and the copying
of the same frames from one array of buffers to another, which is the limit of one core. CPU is counted for each frame that
was delivered. A server that polls, as Open vSwitch's does, uses all of its core whatever comes."""

import contextlib
import json
import subprocess
import time

from disk import cpu_seconds
from measuring import CLIENT_CORE, OURS, SERVER_CORE, BenchError, median
from openvswitch import OpenVswitch, Unavailable

OVS, COPY = "Open vSwitch", "memcpy"
FRAMES = (64, 1500)
RINGS = {"split": (), "packed": ("--packed",)}
CARDS = ("a", "b", "c", "d")
FIELDS = ("packets", "cpu_ns")
LAYERS = {"none": [], "count": ["count"], "4 × count": ["count"] * 4,
          "antispoof": [{"antispoof": {"mac": "02:50:00:00:00:01", "ipv4": "10.9.0.1"}}]}
FLOODS = {"none": (), "broadcast": ("broadcast",), "addresses": ("macs",), "64-byte blast": ("blast", "d")}
RATE = 50000            # frames a second of the two that talk while a third floods
IDLE_CARDS, IDLE_SECONDS = 20, 10


# --- servers -----------------------------------------------------------------

def switch(bench, name, cards, layers=()):
    """A daemon with so many cards on one switch; `layers` are those of the first."""
    sockets = {card: bench.path(f"{name}-{card}.sock") for card in cards}
    config = bench.path(f"{name}.yaml")
    config.write_text(json.dumps({
        "switches": {"lan": {}},
        "nics": {card: {"switch": "lan", "mac": f"02:50:00:00:00:{number:02x}", **({"layers": layers} if number == 1 and
                        layers else {})} for number, card in enumerate(cards, 1)},
        "vms": {f"vm-{card}": [{"virtio-net": card, "socket": str(socket)}] for card, socket in sockets.items()}}))
    server = bench.start(OURS, [bench.penstock, "run", config, "--api", bench.path(f"{name}-api"), "--loops", "1",
                                "--cpus", SERVER_CORE], list(sockets.values()))
    server.sockets = sockets
    return server


def open_vswitch(bench):
    """Or None, having said why."""
    try:
        server = OpenVswitch(bench.path("ovs"), CARDS, SERVER_CORE)
    except Unavailable as error:
        print(f"\nOpen vSwitch is left out: {error}")
        return None
    bench.servers.append(server)
    bench.results["versions"][OVS] = server.version()
    return server


def send(bench, server, *options):
    awake = server.awake() if hasattr(server, "awake") else contextlib.nullcontext()
    with awake:
        return bench.run_client(server, "--from", server.sockets["a"], "--to", server.sockets["b"], *options, client="net")


def copy(bench, frame):
    done = subprocess.run([bench.clients["net"], "--memcpy", "--frame", str(frame), "--cpu", str(CLIENT_CORE),
                           "--seconds", str(bench.arguments.seconds / 2)], text=True, capture_output=True, timeout=60)
    if done.returncode:
        raise BenchError(f"memcpy: {done.stderr.strip()}")
    return json.loads(done.stdout)


def in_turn(bench, runs, fields):
    """Every one of `runs` (name -> function) in turn, some rounds: name -> field -> median."""
    rounds = {name: [] for name in runs}
    for _ in range(bench.arguments.rounds):
        for name, function in runs.items():
            rounds[name].append(function())
    return {name: {field: median(done, field) for field in fields} for name, done in rounds.items()}


# --- sections ----------------------------------------------------------------

def part_net(bench):
    servers = {OURS: switch(bench, "net", CARDS), OVS: open_vswitch(bench)}
    servers = {name: server for name, server in servers.items() if server}
    names = [*servers, COPY]
    print(f"\nnet: frames from one card to another, one core\n{'':20}" + "".join(f"{name:>26}" for name in names) + "\n"
          + f"{'frame, rings':20}" + f"{'M/s       ns':>26}" * len(names) + "    ratios", flush=True)
    for frame in FRAMES:
        for rings, options in RINGS.items():
            runs = {name: lambda server=server: send(bench, server, "--frame", frame, *options)
                    for name, server in servers.items()}
            found = in_turn(bench, {**runs, COPY: lambda: copy(bench, frame)}, FIELDS)
            bench.results[f"net {frame} {rings}"] = found
            others = [found[name]["packets"] for name in names if name != OURS]
            print(f"{frame:>5} B, {rings:12}" + "".join(f"{run['packets'] / 1e6:>17.2f}{run['cpu_ns']:>9.1f}"
                                                       for run in found.values())
                  + "".join(f"{found[OURS]['packets'] / other:>8.3f}" for other in others), flush=True)


def part_layers(bench):
    servers = {name: switch(bench, f"layers{number}", ("a", "b"), layers)
               for number, (name, layers) in enumerate(LAYERS.items())}
    found = in_turn(bench, {name: lambda server=server: send(bench, server) for name, server in servers.items()}, FIELDS)
    bare = found["none"]["cpu_ns"]
    costs = {name: (run["cpu_ns"] - bare) / max(1, len(LAYERS[name])) for name, run in found.items()}
    bench.results["net-layers"] = {"found": found, "ns": costs}
    print(f"\nnet-layers: 64-byte frames through layers of the sender's port\n{'layers':20}{'M/s':>10}{'ns':>10}{'ns a layer':>14}")
    for name, run in found.items():
        print(f"{name:20}{run['packets'] / 1e6:>10.2f}{run['cpu_ns']:>10.1f}" + (f"{costs[name]:>14.1f}" if name != "none" else ""),
              flush=True)


def part_flood(bench):
    servers = {OURS: switch(bench, "flood", CARDS), OVS: open_vswitch(bench)}
    print(f"\nnet-flood: two cards exchange {RATE} frames of 64 bytes a second while a third floods\n{'':16}"
          + "".join(f"{name:>46}" for name, server in servers.items() if server) + "\n"
          + f"{'flood':16}" + f"{'flood k/s    lost %   p50 us    p99 us':>46}" * sum(map(bool, servers.values())), flush=True)
    for flood, kind in FLOODS.items():
        def run(server):
            options = ["--rate", RATE]
            if kind:
                options += ["--flood", kind[0], "--flood-from", server.sockets["c"]]
            if len(kind) > 1:
                options += ["--flood-to", server.sockets[kind[1]]]
            done = send(bench, server, *options)
            done["lost_percent"] = 100 * done["lost"] / max(1, done["sent"])
            return done
        found = in_turn(bench, {name: lambda server=server: run(server) for name, server in servers.items() if server},
                        ("flooded", "lost_percent", "p50_us", "p99_us"))
        bench.results[f"net-flood {flood}"] = found
        print(f"{flood:16}" + "".join(f"{run['flooded'] / 1e3:>16.0f}{run['lost_percent']:>10.3f}{run['p50_us']:>10.1f}"
                                      f"{run['p99_us']:>10.1f}" for run in found.values()), flush=True)


def part_idle(bench):
    server = switch(bench, "idle", [f"n{number}" for number in range(IDLE_CARDS)])
    client = subprocess.Popen([bench.clients["net"], "--attach", *server.sockets.values()], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        if client.stdout.readline().strip() != "attached":
            raise BenchError(f"net-idle: {client.stderr.read()}\n" + server.log.read_text(errors="replace")[-2000:])
        time.sleep(1)
        before = cpu_seconds(server.pid)
        time.sleep(IDLE_SECONDS)
        used = cpu_seconds(server.pid) - before
    finally:
        client.communicate()
    bench.results["net-idle"] = {"cpu_seconds": used}
    print(f"\nnet-idle, {IDLE_CARDS} attached cards: {used * 1e3:.1f} ms of CPU in {IDLE_SECONDS} s", flush=True)


# --- the targets -------------------------------------------------------------

def targets(results, row):
    for frame in FRAMES:
        for rings in RINGS:
            found = results.get(f"net {frame} {rings}")
            theirs = found and found.get(OVS)
            row(f"net, {frame} B, {rings}, to Open vSwitch with DPDK",
                theirs and found[OURS]["packets"] / theirs["packets"], 1, True)
    found = results.get("net 64 split")
    row("net, 64 B, split, on one core", found and found[OURS]["packets"] / 1e6, 5, True, "M/s")
    layers = results.get("net-layers")
    row("an empty packet layer", layers and layers["ns"]["4 × count"], 10, False, "ns")
    idle = results.get("net-idle")
    row(f"idle with {IDLE_CARDS} cards, CPU over {IDLE_SECONDS} s", idle and idle["cpu_seconds"] * 1e3, 10, False, "ms")


SECTIONS = {"net": part_net, "net-layers": part_layers, "net-flood": part_flood, "net-idle": part_idle}
