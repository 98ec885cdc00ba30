#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The daemon dies, or is stopped, while TCP flows from guest to guest, and starts again: the cards come back, the flows
go on. One guest has split rings, the other packed ones. The instants are random; the seed is printed, and $SEED
repeats it."""

import os
import random
import time

from guest_checks import tap
from lab import Lab
from net_checks import Flow, address, no_net_errors, ping, send_file, serve, wait_for_ping
from network import Network, Nic

SEED = int(os.environ.get("SEED") or random.randrange(1 << 32))
KILLS, STOPS = 3, 2

print(f"# SEED={SEED}", flush=True)


def main():
    chance = random.Random(SEED)
    with Lab() as lab:
        network = Network(lab, {"a0": Nic("a", {"switch": "lan"}), "b0": Nic("b", {"switch": "lan"}, "packed=on")})
        a, b = network.boot("a"), network.boot("b")
        for number, guest in enumerate((a, b), start=1):
            address(guest, "eth0", f"10.0.0.{number}/24", f"fd00::{number}/64")
            serve(guest)
        wait_for_ping(a, "10.0.0.2")

        def interrupted(times, interrupt):
            flow, back = Flow(a, "10.0.0.2"), Flow(b, "fd00::1")
            for _ in range(times):
                time.sleep(chance.uniform(0.5, 2.0))
                interrupt()
                time.sleep(chance.uniform(0, 0.5))
                network.daemon.start()
                network.wait_until_attached()
                flow.goes_on()
                back.goes_on()
            flow.end()
            back.end()
            for guest, to in ((a, "10.0.0.2"), (b, "10.0.0.1")):
                ping(guest, to)
                send_file(guest, to)

        @tap.test(f"kill -9 under TCP both ways, {KILLS} times")
        def _():
            interrupted(KILLS, network.daemon.kill)

        @tap.test(f"SIGTERM under TCP both ways, {STOPS} times")
        def _():
            interrupted(STOPS, network.stop)

        @tap.test("a guest that dies and boots again finds its neighbour")
        def _():
            nonlocal b
            b.kill()
            b = network.boot("b")
            address(b, "eth0", "10.0.0.2/24", "fd00::2/64")
            serve(b)
            wait_for_ping(a, "10.0.0.2")
            send_file(a, "10.0.0.2")
            send_file(b, "10.0.0.1")

        @tap.test("the guests saw no error; penstock ends in good order")
        def _():
            for guest in (a, b):
                no_net_errors(guest)
            network.stop()

        tap.main()


main()
