#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A guest reaches the host, and the host the guest, through the uplink `user`: passt, no root, no privileges.

All happens in a network namespace of the test's own: passt tells its guest the addresses of the host."""

import hashlib
import subprocess
import time
import urllib.request

from guest_checks import tap, wait_until
from check_capture import complaints
from guest import accelerator, processors
from lab import Lab
from net_checks import (DHCP, GATEWAY, GATEWAY6, OWN, Web, fetch, free_port, iperf, iperf_server,
                        no_net_errors, own_namespace, ping, post, udp, uplink)
from network import Network, Nic

OFFLOADS = ("tx off", "tx on sg on tso off", "tx on tso on", "gso off", "gso on", "gro off", "gro on rx-gro-hw off",
            "rx-gro-hw on")


def ipxe(network, vm, seconds=60):
    """Boot the VM from its network card's ROM; what the serial port said until there is nothing left to boot."""
    path = network.lab.path("ipxe")
    command = [*network.qemu(), "-M", f"q35,accel={accelerator()},graphics=off", *processors(), "-nodefaults", "-display", "none",
               "-no-reboot", "-serial", f"file:{path}", *network.arguments(vm, rom=True)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as qemu:
        try:
            deadline = time.monotonic() + seconds
            while True:
                said = path.read_text(errors="replace") if path.exists() else ""
                if "No more network devices" in said or time.monotonic() > deadline:
                    return said
                tap.equal(qemu.poll(), None, "QEMU's exit status")
                time.sleep(0.2)
        finally:
            qemu.kill()


def main():
    own_namespace()
    with Lab() as lab:
        uplink(lab)
        port = free_port()
        web, web6 = Web(), Web("::1")
        iperf_port, iperf6_port = iperf_server(lab), iperf_server(lab, "::1")
        network = Network(
            lab, {"web0": Nic("web", {"switch": "lan", "layers": [{"capture": {"file": "web.pcapng"}}]}, "packed=on"),
                  "rom0": Nic("rom", {"switch": "bootp"})},
            {"inet": {"switch": "lan", "user": {"forward": f"tcp:127.0.0.1:{port}:80"}},
             "boot": {"switch": "bootp", "user": {}}})
        guest = network.boot("web")

        @tap.test("DHCP gives an address, a router and an MTU; the router answers echo requests")
        def _():
            lease = guest.run(DHCP.format(dev="eth0"))
            tap.contains(lease, f"ip={OWN}\n", f"router={GATEWAY}\n", "mtu=")
            ping(guest, GATEWAY)
            ping(guest, GATEWAY, size=1400)

        @tap.test("IPv6: an address by router advertisement; the router answers")
        def _():
            wait_until(guest, "ip -6 addr show dev eth0 scope global | grep -v tentative | grep -q 2001:db8::", "SLAAC")
            router = guest.run("ip -6 route | awk '/^default/ {print $3}'").strip()
            ping(guest, router, flags="-I eth0")
            ping(guest, GATEWAY6)

        @tap.test("HTTP from servers on the host's loopback interface, over IPv4 and IPv6")
        def _():
            for url in (f"{GATEWAY}:{web.port}", f"[{GATEWAY6}]:{web6.port}"):
                fetch(guest, url)
                post(guest, url)

        @tap.test("a forwarded port leads to an HTTP server in the guest")
        def _():
            guest.run("mkdir /tmp/www && dd if=/dev/urandom of=/tmp/www/file bs=1M count=4 2>/dev/null && "
                      "httpd -p 80 -h /tmp/www")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/file", timeout=30) as answer:
                got = hashlib.md5(answer.read()).hexdigest()
            tap.equal(got, guest.run("md5sum </tmp/www/file").split()[0], "the sum of what the host got")

        @tap.test("iperf3 by TCP and UDP, both ways, IPv4 and IPv6")
        def _():
            for to, at in ((GATEWAY, iperf_port), (GATEWAY6, iperf6_port)):
                for flags in ((), ("-R",)):
                    print(f"# TCP {to} {' '.join(flags)}: {iperf(guest, to, *flags, port=at, seconds=1):.0f} Mbit/s")
                    # By UDP, passt answers from another IPv6 address than the one it was asked at.
                    if to == GATEWAY:
                        udp(guest, to, *flags, port=at, seconds=1)

        for features in OFFLOADS:
            @tap.test(f"what is sent and received stays whole with ethtool -K {features}")
            def _(features=features):
                guest.run(f"ethtool -K eth0 {features}")
                for url in (f"{GATEWAY}:{web.port}", f"[{GATEWAY6}]:{web6.port}"):
                    fetch(guest, url)
                    post(guest, url)

        @tap.test("the daemon is killed and starts again: the guest's address is good, connections are made")
        def _():
            network.daemon.kill()
            network.daemon.start()
            network.wait_until_attached(("web0",))
            wait_until(guest, f"ping -c 1 -W 1 {GATEWAY}", "the router answers again")
            fetch(guest, f"{GATEWAY}:{web.port}")
            post(guest, f"{GATEWAY}:{web.port}")

        @tap.test("iPXE's driver gets an address")
        def _():
            said = ipxe(network, "rom")
            tap.contains(said, "using virtio-net", f"net0: {OWN}/255.255.255.0 gw {GATEWAY}")

        @tap.test("the guest saw no error; in the capture all checksums are right")
        def _():
            no_net_errors(guest)
            network.stop()
            wanted = ("udp.srcport == 67", "icmp", "icmpv6", "tcp.len > 1500")
            tap.equal(complaints(lab.path("web.pcapng"), wanted=wanted), [], "what is wrong with the capture")

        tap.main()


main()
