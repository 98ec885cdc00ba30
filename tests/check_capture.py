#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Hold a capture against what a receiver would: tshark verifies every checksum, and looks for malformed packets.

    tests/check_capture.py [--longest BYTES] [--whole] [--wanted FILTER]... FILE

Captures of packets whose sums were left out (between two guests, or where a guest sends) fail, of course.
"""

import argparse
import subprocess
import sys

# Of each protocol that tshark can verify: not all of them are verified unless one says so.
VERIFIED = ("ip", "tcp", "udp", "icmp", "icmpv6")
# 0xffff is 0 in one's complement: Linux writes it where a sum comes out as 0 (skb_checksum_help), and receivers take
# it; tshark wants a 0.
WRONG = " || ".join(f"({protocol}.checksum.status == \"Bad\" && {protocol}.checksum != 0xffff)"
                    for protocol in VERIFIED) + " || _ws.malformed"
GAPS = "tcp.analysis.lost_segment || tcp.analysis.ack_lost_segment || tcp.segment.overlap"


def matching(path, display):
    """One line for each packet of the capture that a display filter finds."""
    options = [word for protocol in ("ip", "tcp", "udp") for word in ("-o", f"{protocol}.check_checksum:TRUE")]
    # What is carried may look like anything: it is data.
    options += [word for protocol in ("tcp", "udp") for word in ("-d", f"{protocol}.port==0-65535,data")]
    done = subprocess.run(["tshark", "-n", "-r", path, *options, "-Y", display], text=True, capture_output=True,
                          stdin=subprocess.DEVNULL, timeout=300)
    if done.returncode:
        raise RuntimeError(f"tshark: {done.stderr.strip()}")
    return done.stdout.splitlines()


def complaints(path, longest=None, whole=False, wanted=()):
    """What is wrong with a capture, line by line; nothing if it is in order.

    `longest`: no frame may have more bytes than that (an MTU and 14, that nothing large was left uncut); `whole`: no
    byte of a TCP stream is missing or there twice; `wanted`: display filters, each of which must find a packet.
    """
    found = [f"bad: {line}" for line in matching(path, WRONG)]
    if longest:
        found += [f"too long: {line}" for line in matching(path, f"frame.len > {longest}")]
    if whole:
        found += [f"gap: {line}" for line in matching(path, GAPS)]
    return found + [f"missing: {display}" for display in wanted if not matching(path, display)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--longest", type=int, help="no frame has more bytes")
    parser.add_argument("--whole", action="store_true", help="TCP streams have no gaps")
    parser.add_argument("--wanted", action="append", default=[], help="a display filter that must find something")
    parser.add_argument("file")
    arguments = parser.parse_args()
    found = complaints(arguments.file, arguments.longest, arguments.whole, arguments.wanted)
    print("\n".join(found[:50]) or "in order")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
