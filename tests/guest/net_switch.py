#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Two VMs on the switches of one penstock: large and small packets, VLANs, several queues, offloads.

Both have two CPUs and two pairs of queues, `a` on split rings, `b` on packed ones. Each has a card for what is tested on
it: eth0 on the switch `lan`, eth1 for frames of 9,000 bytes, and for VLANs `a` a trunk and `b` two access ports."""

from guest_checks import tap, wait_until
from check_capture import complaints
from lab import Lab
from net_checks import (address, counter, iperf, no_net_errors, no_ping, ping, send_file, serve, udp,
                        wait_for_ping)
from network import Network, Nic

OFFLOADS = ("tx off", "tx on", "tso off", "tso on", "sg off", "sg on tso on", "gso off", "gso on", "gro off",
            "gro on rx-gro-hw off", "rx-gro-hw on")
JUMBO = {"switch": "jumbo", "mtu": 9000}


def packets(guest, direction):
    """How many packets each queue of eth0 has had: "rx" or "tx"."""
    return [int(line) for line in guest.run(
        f"ethtool -S eth0 | awk '/{direction}_queue_[0-9]_packets/ {{ print $2 }}'").split()]


def main():
    with Lab() as lab:
        network = Network(lab, {
            "a0": Nic("a", {"switch": "lan", "layers": [{"capture": {"file": "a0.pcapng"}}]}, pairs=2),
            "a1": Nic("a", JUMBO, "host_mtu=9000"),
            "a2": Nic("a", {"switch": "vlans", "trunk": "10,20", "vlan": 0}),
            "b0": Nic("b", {"switch": "lan"}, "packed=on", pairs=2),
            "b1": Nic("b", JUMBO, "host_mtu=9000,packed=on"),
            "b2": Nic("b", {"switch": "vlans", "vlan": 10}),
            "b3": Nic("b", {"switch": "vlans", "vlan": 20}),
        })
        a, b = network.boot("a", cpus=2, modules=["8021q"]), network.boot("b", cpus=2, modules=["8021q"])
        for number, guest in enumerate((a, b), start=1):
            # An address is told of at its own card only: VLANs are apart, the guest between them too.
            guest.run("sysctl -qw net.ipv4.conf.all.arp_ignore=1")
            address(guest, "eth0", f"10.0.0.{number}/24", f"fd00::{number}/64")
            address(guest, "eth1", f"10.9.0.{number}/24")
            serve(guest)

        @tap.test("ping, IPv4 and IPv6, small, large and in fragments")
        def _():
            for guest, to in ((a, "10.0.0.2"), (b, "10.0.0.1"), (a, "fd00::2"), (b, "fd00::1")):
                wait_for_ping(guest, to)
                for size in (0, 56, 1400, 20000, 60000):
                    ping(guest, to, size=size)

        @tap.test("iperf3 by TCP and UDP, both ways, IPv4 and IPv6")
        def _():
            for to in ("10.0.0.2", "fd00::2"):
                for flags in ((), ("-R",)):
                    print(f"# TCP {to} {' '.join(flags)}: {iperf(a, to, *flags, seconds=1):.0f} Mbit/s")
                    udp(a, to, *flags, seconds=1)

        @tap.test("two pairs of queues are in use; one is enough, and two again")
        def _():
            # A driver transmits on the queue of the CPU that it runs on; what comes in from the neighbour's
            # first queue goes to the first one here, since both are served by one loop.
            for direction, sender, to in (("tx", a, "10.0.0.2"), ("rx", b, "10.0.0.1")):
                before = packets(a, direction)
                for cpu in (0, 1):
                    sender.run(f"taskset {1 << cpu} ping -q -c 3 {to}")
                after = packets(a, direction)
                tap.check(len(after) == 2 and all(y > x for x, y in zip(before, after)),
                          f"packets of the {direction} queues before {before} and after {after}")
            for flags in ((), ("-R",)):
                iperf(a, "10.0.0.2", "-P", "8", *flags, seconds=1)
            for pairs in (1, 2):
                a.run(f"ethtool -L eth0 combined {pairs}")
                ping(a, "10.0.0.2")
                send_file(a, "10.0.0.2")
                send_file(b, "10.0.0.1")
                iperf(a, "10.0.0.2", "-P", "4", seconds=1)

        for features in OFFLOADS:
            @tap.test(f"files stay whole with ethtool -K {features}")
            def _(features=features):
                a.run(f"ethtool -K eth0 {features}")
                for to, back in (("10.0.0.2", "10.0.0.1"), ("fd00::2", "fd00::1")):
                    send_file(a, to)
                    send_file(b, back)
                if "tx" in features:
                    udp(a, "10.0.0.2", seconds=1)
                    udp(a, "10.0.0.2", "-R", seconds=1)

        @tap.test("frames of 9,000 bytes")
        def _():
            for guest, to in ((a, "10.9.0.2"), (b, "10.9.0.1")):
                tap.equal(guest.run("cat /sys/class/net/eth1/mtu").strip(), "9000", "the MTU that the driver took")
                wait_for_ping(guest, to)
                before = guest.run("cat /proc/net/snmp | grep ^Ip: | awk '{print $19}' | tail -n 1")
                ping(guest, to, size=8972)
                tap.equal(guest.run("cat /proc/net/snmp | grep ^Ip: | awk '{print $19}' | tail -n 1"), before,
                          "the number of fragments made")
            send_file(a, "10.9.0.2")
            send_file(b, "10.9.0.1")
            udp(a, "10.9.0.2", "-l", "8900", seconds=1)

        @tap.test("VLANs are apart: a trunk reaches both access ports, each by its tag only")
        def _():
            for vlan in (10, 20, 30):
                a.run(f"ip link add link eth2 name eth2.{vlan} type vlan id {vlan} && ip link set eth2.{vlan} up")
                address(a, f"eth2.{vlan}", f"10.{vlan}.0.1/24")
            for dev, vlan in (("eth2", 10), ("eth3", 20)):
                address(b, dev, f"10.{vlan}.0.2/24")
            for vlan in (10, 20):
                wait_for_ping(a, f"10.{vlan}.0.2")
                ping(a, f"10.{vlan}.0.2")
                ping(a, f"10.{vlan}.0.2", size=1472)
                ping(b, f"10.{vlan}.0.1")
                send_file(a, f"10.{vlan}.0.2", mib=1)
            # What is asked for by ARP in a VLAN is heard in this VLAN alone.
            for vlan, deaf in ((10, "eth3"), (20, "eth2"), (30, "eth2"), (30, "eth3")):
                other = {"eth2": 10, "eth3": 20}[deaf]
                tap.check(a.attempt(f"arping -c 2 -w 2 -I eth2.{vlan} 10.{other}.0.2")[0] != 0,
                          f"a question in VLAN {vlan} was heard in VLAN {other}")
            a.run("ip link del eth2.30; arping -c 2 -w 3 -I eth2.20 10.20.0.2")
            # Between the two access ports there is nothing, whatever the address.
            before = counter(b, "eth3", "rx_packets")
            b.run("for i in 1 2 3; do arping -c 1 -w 1 -I eth2 10.10.0.9; done; true")
            tap.equal(counter(b, "eth3", "rx_packets"), before, "packets that came through at the other VLAN's port")

        @tap.test("the cable is drawn by QEMU, and put back")
        def _():
            qmp = network.qmp("a")
            ping(a, "10.0.0.2")
            qmp.execute("set_link", name="a0", up=False)
            wait_until(a, "[ $(cat /sys/class/net/eth0/carrier) = 0 ]", "the guest sees the link go down")
            no_ping(b, "10.0.0.1")
            qmp.execute("set_link", name="a0", up=True)
            qmp.close()
            wait_for_ping(b, "10.0.0.1")
            send_file(a, "10.0.0.2", mib=1)

        @tap.test("a port is put down, and up again")
        def _():
            network.penstock("set-port", "a0", "up=false")
            no_ping(b, "10.0.0.1")
            network.penstock("set-port", "a0", "up=true")
            wait_for_ping(b, "10.0.0.1")
            send_file(b, "10.0.0.1", mib=1)

        @tap.test("the guests saw no error; in the capture all checksums are right")
        def _():
            for guest in (a, b):
                no_net_errors(guest)
            network.stop()
            wanted = ("tcp.len > 1500", "tcp.len == 1448", "ip.frag_offset > 0", "ipv6.fraghdr", "udp")
            tap.equal(complaints(lab.path("a0.pcapng"), wanted=wanted), [], "what is wrong with the capture")

        tap.main()


main()
