#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Malformed traffic through a switch: nothing breaks, each frame is counted, and what antispoof lets pass is, as tshark
reads it, from whom it may be."""

import collections
import json
import struct
import subprocess
import time

from cli_checks import accepted, tap
from lab import ROOT, Lab

OWN, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
SPOOFED = ("eth.src != 52:54:00:00:00:01 || (arp && arp.src.hw_mac != 52:54:00:00:00:01) || "
           "(arp && arp.src.proto_ipv4 != 10.99.0.1) || (ip && ip.src != 10.99.0.1 && ip.src != 0.0.0.0) || "
           "(ipv6 && ipv6.src != fd99::1 && ipv6.src != fe80::5054:ff:fe00:1 && ipv6.src != ::) || "
           "icmpv6.type == 134 || icmpv6.type == 137 || (udp.dstport == 68 && !icmp) || "
           "icmpv6.opt.linkaddr != 52:54:00:00:00:01")


def frames(data):
    at, found = 24, []
    while at < len(data):
        length, = struct.unpack_from("<I", data, at + 8)
        found.append(data[at + 16:at + 16 + length])
        at += 16 + length
    return found


def untagged(frame):
    """Without 802.1Q tags: a switch takes one off and may put another one in."""
    while frame[12:14] == b"\x81\x00" and len(frame) >= 18:
        frame = frame[:12] + frame[16:]
    return frame


def spoofed(path):
    done = subprocess.run(["tshark", "-n", "-r", path, "-Y", SPOOFED], text=True, capture_output=True,
                          stdin=subprocess.DEVNULL, timeout=120)
    tap.equal(done.returncode, 0, f"tshark: {done.stderr}")
    return done.stdout.splitlines()


class Traffic(Lab):
    def make(self, *arguments):
        """The frames, in in.pcap."""
        subprocess.run([ROOT / "tests/net/malformed.py", *arguments, self.path("in.pcap")], check=True, timeout=120,
                       stdout=subprocess.DEVNULL)
        return frames(self.path("in.pcap").read_bytes())

    def send(self, layers):
        """Replays them: the port where they came in, the one where they go out, and what came out."""
        server = self.daemon("run", self.write("c.yaml", f"""
api: api.sock
loops: 2
switches: {{lan: {{}}}}
uplinks:
  in: {{switch: lan, mtu: 65535, trunk: all, layers: [{layers}], pcap: {{replay: in.pcap, rate: 2000}}}}
  out: {{switch: lan, mtu: 65535, trunk: all, pcap: {{sink: out.pcap}}}}
"""))
        deadline = time.monotonic() + 60
        while True:
            said = accepted(self.penstock("status", "--json", "--api", self.path("api.sock")))
            ports = {port["name"]: port for port in json.loads(said)["ports"]}
            there, back = ports["in"], ports["out"]
            # A file that is written slowly loses some, counted.
            if not there["plugged"] and there["reason"] and \
                    there["in"]["packets"] == lost(there, "in") + back["out"]["packets"] + lost(back, "out"):
                break
            tap.check(time.monotonic() < deadline, f"still replaying, or some are not counted: {there}, {back}")
            time.sleep(0.1)
        tap.equal(server.stop(), 0, f"exit status {server.last_lines()}")
        return there, back, frames(self.path("out.pcap").read_bytes())


def lost(port, direction):
    """What the port and its layers have dropped, by their counters."""
    layers = [kind["counters"] for layer in port["layers"] for kind in layer.values() if "counters" in kind]
    return sum(sum(counters[direction]["drops"].values()) for counters in (port, *layers))


@tap.test("malformed frames go through a switch as they are, or are counted")
def _():
    with Traffic() as lab:
        sent = lab.make("--longest", "65562", "--source", OWN)
        there, back, got = lab.send("count")
        tap.equal(there["in"]["packets"], len(sent), "frames that came in")
        tap.equal(len(got), back["out"]["packets"], "frames that came out")
        tap.check(len(got) > len(sent) * 0.9, f"only {len(got)} of {len(sent)} came out")
        strangers = collections.Counter(map(untagged, got)) - collections.Counter(map(untagged, sent))
        tap.check(not strangers, f"{len(strangers)} came out that were not sent: {next(iter(strangers), b'').hex()}")


@tap.test("what antispoof lets pass is from whom it may be")
def _():
    with Traffic() as lab:
        lab.make("--source", OWN)
        tap.check(len(spoofed(lab.path("in.pcap"))) > 20, "tshark finds no spoofed frame in what is sent")
        _, _, got = lab.send(f'{{antispoof: {{mac: "{OWN}", ipv4: 10.99.0.1, ipv6: "fd99::1"}}}}')
        tap.check(len(got) > 200, f"only {len(got)} frames came out")
        wrong = spoofed(lab.path("out.pcap"))
        tap.check(not wrong, f"{len(wrong)} spoofed frames came out:\n" + "\n".join(wrong[:10]))


@tap.test("nothing from another MAC address passes antispoof")
def _():
    with Traffic() as lab:
        lab.make("--source", OTHER)
        tap.equal(lab.send(f'{{antispoof: {{mac: "{OWN}"}}}}')[2], [], "frames that came out")


tap.main()
