# SPDX-License-Identifier: BSD-3-Clause
"""TCP between a guest and its host through the uplink `user`, beside the same guest with QEMU's own network back-ends.

Three guests run side by side and take turns: one whose card is penstock's, with `user` (passt behind our switch), one
with QEMU's card and -netdev user (slirp), one with QEMU's card and -netdev stream to a passt of its own. iperf3 in the
guest talks to a server on the host's loopback interface. Nothing is pinned. QEMU is 11.1: before 9.1, without KVM, a
vhost-user card cannot have MSI-X. A guest that is interpreted (TCG) is itself what is slow; so beside the throughput
stands what CPU the servers took for a gigabyte, without QEMU, and with it."""

import os
import signal
import socket
import statistics
import subprocess
from pathlib import Path

import tap
from daemon import DaemonError
from guest import GuestError, accelerator
from guest_image import Missing
from lab import Lab
from measuring import OURS, BenchError
from network import Network, Nic

SECONDS, ROUNDS = 3, 5
SLIRP, PASST = "QEMU's slirp", "QEMU's passt"
DIRECTIONS = {"guest to host": "", "host to guest": "-R"}

# What a guest asks of DHCP, and what of the answer it uses.
LEASE = """
cat >/tmp/dhcp <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev $interface
[ -z "$mtu" ] || ip link set mtu $mtu dev $interface
ip route add default via $router
echo $router >/tmp/router
END
chmod +x /tmp/dhcp
udhcpc -i eth0 -n -q -t 10 -T 1 -O mtu -s /tmp/dhcp >/dev/null 2>&1 && cat /tmp/router
"""


class Slirp(Network):
    """QEMU's user-mode network: nothing to start."""

    def _start_peers(self):
        self.peers, self._ports = [], {"lan": "user"}


class Side:
    """A booted guest that has an address, and the processes that serve it."""

    def __init__(self, name, lab, kind, own):
        self.name = name
        self.network = kind(lab, {"bench0": Nic("bench", {"switch": "lan"})}, {"inet": {"switch": "lan", "user": {}}},
                            own=own, newer=True)
        self.guest = self.network.boot("bench")
        self.router = self.guest.run(LEASE).strip()
        parents = [self.network.daemon.process.pid] if self.network.daemon else [peer.pid for peer in self.network.peers]
        children = [int(pid) for parent in parents for pid in subprocess.run(
            ["ps", "--ppid", str(parent), "-o", "pid="], text=True, capture_output=True, timeout=10).stdout.split()]
        self.servers = parents + children
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        # Its server ends now and then, and is busy for a while after a run.
        self.iperf = subprocess.Popen(["sh", "-c", f"while :; do iperf3 -s -B 127.0.0.1 -p {self.port}; done"],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                      start_new_session=True)

    def stop(self):
        os.killpg(self.iperf.pid, signal.SIGKILL)
        self.iperf.wait()

    def run(self, direction, seconds):
        """One run of iperf3: Mbit/s at the receiver, and CPU seconds a GB."""
        before = [self.cpu(self.servers), self.cpu([self.guest.qemu.pid])]
        said = self.guest.run(f"iperf3 -f m -c {self.router} -p {self.port} -t {seconds} --connect-timeout 5000 "
                              f"{DIRECTIONS[direction]}", timeout=seconds + 30)
        after = [self.cpu(self.servers), self.cpu([self.guest.qemu.pid])]
        mbit = float(next(line for line in said.splitlines() if "receiver" in line).split("Mbits/sec")[0].split()[-1])
        servers, qemu = ((y - x) / (mbit * seconds / 8000) for x, y in zip(before, after))
        return {"mbit": mbit, "servers": servers, "all": servers + qemu}

    @staticmethod
    def cpu(pids):
        fields = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
        return sum((int(field[11]) + int(field[12])) / os.sysconf("SC_CLK_TCK") for field in fields)


def section(bench):
    seconds, rounds = (1, 1) if bench.arguments.quick else (SECONDS, ROUNDS)
    sides = []
    try:
        with Lab() as lab, Lab() as second, Lab() as third:
            for side in ((OURS, lab, Network, False), (SLIRP, second, Slirp, True), (PASST, third, Network, True)):
                sides.append(Side(*side))
            print(f"\nTCP through the user-mode network, iperf3 in a guest ({accelerator()}, QEMU 11.1): Mbit/s, and "
                  f"CPU seconds a GB of the servers and with QEMU; medians of {rounds} runs of {seconds} s, in turn")
            print(f"{'':16}" + "".join(f"{side.name:>30}" for side in sides), flush=True)
            for direction in DIRECTIONS:
                measure(bench, sides, direction, seconds, rounds)
    except Missing as error:
        print(f"\nTCP through the user-mode network is left out: {error}")
    except (GuestError, DaemonError, tap.Failure, FileNotFoundError) as error:
        raise BenchError(f"net-tcp: {error}") from None
    finally:
        for side in sides:
            side.stop()


def measure(bench, sides, direction, seconds, rounds):
    runs = {side.name: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            runs[side.name].append(side.run(direction, seconds))
    found = {name: {field: statistics.median(run[field] for run in each) for field in each[0]}
             for name, each in runs.items()}
    bench.results[f"net-tcp {direction}"] = found
    print(f"{direction:16}" + "".join(f"{run['mbit']:>14.0f}{run['servers']:>8.2f}{run['all']:>8.2f}"
                                      for run in found.values()), flush=True)


def targets(results, row):
    for direction in DIRECTIONS:
        found = results.get(f"net-tcp {direction}")
        for name, least in ((SLIRP, 2), (PASST, 1)):
            row(f"TCP {direction}, of {name}", found and found[OURS]["mbit"] / found[name]["mbit"], least, True)


SECTIONS = {"net-tcp": section}
