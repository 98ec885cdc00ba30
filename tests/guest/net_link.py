#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Two daemons whose switches a link joins, with a guest at each: one network, and each daemon may die."""

import time

from guest_checks import tap
from lab import Lab
from net_checks import Flow, address, iperf, no_net_errors, no_ping, ping, send_file, serve, udp, wait_for_ping
from network import Network, Nic


def main():
    with Lab() as lab:
        one = Network(lab, {"a0": Nic("a", {"switch": "lan"})},
                      {"peer": {"switch": "lan", "link": {"listen": "./link.sock"}}}, name="one")
        two = Network(lab, {"b0": Nic("b", {"switch": "lan"}, "packed=on")},
                      {"peer": {"switch": "lan", "link": {"connect": "./link.sock"}}}, name="two")
        a, b = one.boot("a"), two.boot("b")
        for number, guest in enumerate((a, b), start=1):
            address(guest, "eth0", f"10.0.0.{number}/24", f"fd00::{number}/64")
            serve(guest)
        wait_for_ping(a, "10.0.0.2")

        @tap.test("the guests reach one another: ping, TCP and UDP, IPv4 and IPv6")
        def _():
            for to in ("10.0.0.2", "fd00::2"):
                for size in (56, 1400, 20000):
                    ping(a, to, size=size)
                for flags in ((), ("-R",)):
                    print(f"# TCP {to} {' '.join(flags)}: {iperf(a, to, *flags, seconds=1):.0f} Mbit/s")
                udp(a, to, seconds=1)
                send_file(a, to)
            send_file(b, "10.0.0.1")

        for network in (one, two):
            @tap.test(f"the daemon that {'listens' if network is one else 'dials'} is killed, and starts again: "
                      "the flow goes on")
            def _(network=network):
                flow = Flow(a, "10.0.0.2")
                time.sleep(1)
                network.daemon.kill()
                no_ping(b, "10.0.0.1")
                network.daemon.start()
                network.wait_until_attached()
                flow.goes_on(seconds=60)
                flow.end()
                send_file(b, "10.0.0.1")

        @tap.test("the guests saw no error; both daemons end in good order")
        def _():
            for guest in (a, b):
                no_net_errors(guest)
            one.stop()
            two.stop()

        tap.main()


main()
