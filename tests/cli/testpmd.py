#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""DPDK's testpmd with its own virtio driver (net_virtio_user) on our NICs: somebody else's driver side.

Two ports, each on a NIC of one switch, in one testpmd. Each sends back what it receives with the addresses swapped, so a
few frames go to and fro through the switch without end. It runs without huge pages, in memory that it shares by
descriptors, and looks at no PCI device."""

import re
import shutil
import subprocess
import time

from cli_checks import tap
from lab import Lab

CONFIG = """\
api: api.sock
switches: {lan: {}}
nics:
  a: {switch: lan}
  b: {switch: lan}
vms:
  va: [{virtio-net: a, socket: a.sock, queue-pairs: 2}]
  vb: [{virtio-net: b, socket: b.sock, queue-pairs: 2}]
"""
SECONDS = 2             # that it forwards
LEAST = 1000            # frames that each port is to receive in them, on any machine


class Testpmd:
    """testpmd on two sockets; `options` are of its virtio devices."""

    def __init__(self, lab, options, queues=1, more=()):
        program = shutil.which("dpdk-testpmd")
        if not program:
            raise tap.Skip("dpdk-testpmd is not installed (package dpdk)")
        devices = [f"--vdev=net_virtio_user{number},path={lab.path(name)},queues={queues},{options}"
                   for number, name in enumerate(("a.sock", "b.sock"))]
        self.process = subprocess.Popen(
            [program, "-l", "0,1", "--no-pci", "--no-huge", "-m", "256", "--no-telemetry", "--file-prefix",
             lab.directory.name, *devices, "--", "-i", "--no-lsc-interrupt", "--port-topology=loop", "--total-num-mbufs=4096",
             f"--rxq={queues}", f"--txq={queues}", *more],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def __enter__(self):
        self.say("set fwd macswap")
        self.say("set promisc all on")
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def finish(self):
        self.say("quit")
        text, _ = self.process.communicate(timeout=60)
        return text

    def forward(self):
        """What each port has received and sent, and its errors, after some seconds."""
        self.say("start tx_first 1")
        time.sleep(SECONDS)
        self.say("stop")
        self.say("show port stats all")
        text = self.finish()
        tap.equal(self.process.returncode, 0, f"exit status of testpmd, which said\n{text}")
        found = re.findall(r"NIC statistics for port \d.*?RX-packets: (\d+).*?RX-errors: (\d+).*?"
                           r"TX-packets: (\d+) +TX-errors: (\d+)", text, re.S)
        tap.equal(len(found), 2, f"ports with statistics in:\n{text}\n")
        return [tuple(map(int, port)) for port in found]


def runs(options, queues=1, more=()):
    with Lab() as lab:
        server = lab.daemon("run", lab.write("c.yaml", CONFIG))
        with Testpmd(lab, options, queues, more) as testpmd:
            # Its start takes a while; commands wait in its input until then, but the clock does not.
            wait_for_both(lab)
            for port, (received, errors, sent, send_errors) in enumerate(testpmd.forward()):
                tap.equal((errors, send_errors), (0, 0), f"errors of port {port}")
                tap.check(received >= LEAST, f"port {port} received {received} frames and sent {sent}")
        tap.equal(server.stop(), 0, "exit status")


def wait_for_both(lab):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        log = lab.log.read_text(errors="replace")
        if log.count("a VMM connected") >= 2:
            time.sleep(1)
            return
        time.sleep(0.1)
    raise tap.Failure(f"testpmd does not connect:\n{log}")


@tap.test("split rings")
def _():
    runs("queue_size=256")


@tap.test("packed rings")
def _():
    runs("queue_size=256,packed_vq=1")


@tap.test("split rings, receive buffers that are not merged")
def _():
    runs("queue_size=256,mrg_rxbuf=0")


@tap.test("split rings, its vectorized path")
def _():
    runs("queue_size=256,mrg_rxbuf=0,in_order=1,vectorized=1")


@tap.test("packed rings, two pairs of queues")
def _():
    runs("queue_size=512,packed_vq=1", 2)


@tap.test("checksums by the device, and long frames")
def _():
    runs("queue_size=1024", 1, ("--tx-offloads=0x8000", "--txpkts=1500"))


if __name__ == "__main__":
    tap.main()
