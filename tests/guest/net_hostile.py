#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A guest that misbehaves harms itself only: two neighbours on the same switch keep their TCP flow and their echoes
while it sends what it can of broadcasts (of which its port lets out a thousand a second), of frames from ever new
addresses, and of malformed frames that scapy made."""

import re
import subprocess

from guest_checks import tap
from lab import ROOT, Lab
from net_checks import Flow, address, iperf, no_net_errors, ping, send_file, serve, wait_for_ping
from network import Network, Nic

SECONDS = 4
LONG = "rx_queue_size=1024,tx_queue_size=1024"


def pcap(path, frames):
    """Write Ethernet frames to a pcap file."""
    with open(path, "wb") as out:
        out.write(bytes.fromhex("d4c3b2a1 0200 0400 00000000 00000000 ffffffff 01000000".replace(" ", "")))
        for frame in frames:
            out.write(bytes(8) + len(frame).to_bytes(4, "little") * 2 + frame)


def broadcasts(source):
    return [b"\xff" * 6 + source + b"\x88\xb5" + number.to_bytes(2, "big") + bytes(44) for number in range(256)]


def new_addresses(source):
    return [source + b"\x02\x11\x22" + number.to_bytes(3, "big") + b"\x88\xb5" + bytes(46) for number in range(20000)]


def main():
    with Lab() as lab:
        # Rings as long as a guest that stands still for a while, on a busy machine, needs them.
        network = Network(lab, {"a0": Nic("a", {"switch": "lan"}, LONG),
                                "b0": Nic("b", {"switch": "lan"}, f"packed=on,{LONG}"),
                                "evil0": Nic("evil", {"switch": "lan", "addresses": 1000, "flood-limit": 1000})})
        mac = bytes.fromhex(network.macs["evil0"].replace(":", ""))
        pcap(lab.path("broadcast.pcap"), broadcasts(mac))
        pcap(lab.path("addresses.pcap"), new_addresses(mac))
        for name, words in (("malformed", ()), ("large", ("--longest", "65550"))):
            subprocess.run([ROOT / "tests" / "net" / "malformed.py", "--source", network.macs["evil0"], "--target",
                            network.macs["a0"], *words, lab.path(f"{name}.pcap")], check=True, timeout=60,
                           stdout=subprocess.DEVNULL)
        a, b = network.boot("a"), network.boot("b")
        # What the host's scheduler owes the neighbours is not the switch's to prove.
        evil = network.boot("evil", polite=True, programs=["tcpreplay"], files=[
            lab.path(f"{name}.pcap") for name in ("broadcast", "addresses", "malformed", "large")])
        for number, guest in enumerate((a, b, evil), start=1):
            address(guest, "eth0", f"10.0.0.{number}/24", f"fd00::{number}/64")
        serve(b)
        wait_for_ping(a, "10.0.0.2")
        # As large frames as the driver lets out.
        evil.run("ip link set eth0 mtu 65535")

        for name, what, options in (("broadcast", "broadcasts at full speed", f"--loop 0 --duration {SECONDS}"),
                                    ("addresses", "frames from ever new addresses", f"--loop 0 --duration {SECONDS}"),
                                    ("malformed", "malformed frames", ""), ("large", "large malformed frames", "")):
            @tap.test(f"{what} from one guest; two others keep their flow and their echoes")
            def _(name=name, options=options):
                before = iperf(a, "10.0.0.2", seconds=2)
                flow = Flow(a, "10.0.0.2", "-b", "20M")
                evil.send(f"tcpreplay -i eth0 --topspeed --preload-pcap {options} /tmp/{name}.pcap 2>&1")
                try:
                    ping(a, "10.0.0.2", count=10, flags="-q")
                    flow.goes_on(seconds=20)
                finally:
                    status, said = evil.finish(timeout=120)
                    flow.end()
                number = re.search(r"Successful packets:\s+(\d+)", said)
                tap.check(number and int(number[1]) > 1000, f"tcpreplay in the guest, status {status}:\n{said}")
                print(f"# {number[1]} frames; TCP alone had {before:.0f} Mbit/s")
                send_file(a, "10.0.0.2")
                tap.check(network.daemon.running(), "penstock has ended")

        @tap.test("the guest that did it can still talk; penstock counts what it dropped and learned")
        def _():
            ping(evil, "10.0.0.2")
            known = len(network.penstock("addresses", "lan").splitlines())
            tap.check(known < 1100, f"{known} addresses are known; its port may have 1000")
            for guest in (a, b):
                no_net_errors(guest)
            network.stop()

        tap.main()


main()
