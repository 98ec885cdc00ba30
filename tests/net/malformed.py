#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Write a capture of traffic that is wrong on purpose, for a guest or an uplink to send into a switch.

    tests/net/malformed.py [--source MAC] [--target MAC] [--longest BYTES] FILE.pcap

Fragments (overlapping, tiny, without an end, with a header in the second), lengths that lie, options that do not
end, chains of extension headers, stacks of VLAN tags, headers of very large TCP segments, ARP and neighbour discovery
that are cut off, and frames of every length with random contents. The same each time. Whoever gets them must go on
as if they had not been there; a switch forwards them or drops them.

It needs Debian's python3-scapy, which is a module of the system's Python.
"""

import argparse
import logging
import random

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)  # it warns of what we mean

from scapy.all import (  # noqa: E402
    AH, ARP, BOOTP, DHCP, Dot1AD, Dot1Q, Ether, ICMP, ICMPv6EchoRequest, ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6ND_RA,
    ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IP, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting, Raw, TCP, UDP, checksum, fragment, raw, wrpcap)

IP4 = {"src": "10.99.0.1", "dst": "10.99.0.2"}
IP6 = {"src": "fd99::1", "dst": "fd99::2"}
TCP_PORTS = {"sport": 1000, "dport": 9}


def fragments4(ether):
    whole = IP(**IP4, id=7) / UDP(sport=1, dport=9) / Raw(bytes(3000))
    for part in fragment(whole, 1000):
        yield ether / part
    for part in reversed(fragment(whole, 8)):  # backwards, in the smallest pieces
        yield ether / part
    for offset in (0, 1, 1, 0, 2, 1):  # one over another, with other contents
        yield ether / IP(**IP4, id=8, frag=offset, flags="MF", proto=17) / Raw(bytes([offset]) * 24)
    yield ether / IP(**IP4, id=9, frag=8189, proto=17) / Raw(bytes(1400))  # beyond 65535: the ping of death
    yield ether / IP(**IP4, id=10, flags="MF", proto=6) / Raw(raw(TCP(**TCP_PORTS))[:8])  # half a TCP header
    yield ether / IP(**IP4, id=10, frag=1, proto=6) / Raw(raw(TCP(**TCP_PORTS))[8:])
    yield ether / IP(**IP4, id=11, flags="MF", proto=17)  # nothing at all
    yield ether / IP(**IP4, id=12, flags="MF+DF+evil", proto=17) / Raw(bytes(16))


def fragments6(ether):
    ip = IPv6(**IP6)
    yield ether / ip / IPv6ExtHdrFragment(nh=17, id=1, m=1) / Raw(bytes(16))  # without an end
    for offset in (0, 1, 0, 1):
        yield ether / ip / IPv6ExtHdrFragment(nh=17, id=2, m=1, offset=offset) / Raw(bytes([offset]) * 16)
    yield ether / ip / IPv6ExtHdrFragment(nh=17, id=3, m=1) / Raw(bytes(13))  # no multiple of eight
    yield ether / ip / IPv6ExtHdrFragment(nh=6, id=4) / TCP(**TCP_PORTS)  # the only one
    yield ether / ip / IPv6ExtHdrFragment(nh=60, id=5, m=1) / Raw(bytes([58, 0, 1, 4, 0, 0, 0, 0]))
    yield ether / ip / IPv6ExtHdrFragment(nh=60, id=5, offset=1) / Raw(raw(ICMPv6ND_RA()))  # RFC 6980, 7113
    yield ether / ip / IPv6ExtHdrFragment(nh=44, id=6) / IPv6ExtHdrFragment(nh=44, id=7) / IPv6ExtHdrFragment(nh=59)
    yield ether / ip / IPv6ExtHdrFragment(nh=17, id=8, offset=8191) / Raw(bytes(1400))


def lengths(ether):
    udp = UDP(sport=1, dport=9) / Raw(bytes(100))
    for length in (0, 1, 19, 20, 27, 28, 127, 129, 1500, 65535):
        yield ether / IP(**IP4, len=length) / udp
        yield ether / IPv6(**IP6, plen=length) / udp
        yield ether / IP(**IP4) / UDP(sport=1, dport=9, len=length) / Raw(bytes(100))
    for words in range(16):
        yield ether / IP(**IP4, ihl=words) / udp
        yield ether / IP(**IP4) / TCP(**TCP_PORTS, dataofs=words) / Raw(bytes(8))
        yield ether / IPv6(**IP6) / TCP(**TCP_PORTS, dataofs=words)
    for version in range(16):
        yield ether / IP(**IP4, version=version) / udp
        yield ether / IPv6(**IP6, version=version) / udp
    for part in (IP(**IP4) / TCP(**TCP_PORTS) / Raw(bytes(4)), IPv6(**IP6) / TCP(**TCP_PORTS)):
        whole = raw(ether / part)
        for length in range(14, len(whole)):  # cut off at every byte
            yield Ether(whole[:length]) if length > 14 else ether
    yield ether / IP(**IP4, chksum=1) / udp
    yield ether / IP(**IP4) / UDP(sport=1, dport=9, chksum=1) / Raw(bytes(100))
    yield ether / IP(**IP4) / UDP(sport=1, dport=9, chksum=0) / Raw(bytes(100))
    yield ether / IPv6(**IP6) / UDP(sport=1, dport=9, chksum=0) / Raw(bytes(100))


def option_bombs(ether):
    for kind in (1, 7, 68, 130, 131, 136, 137, 255):
        for length in (0, 1, 2, 39, 40, 255):
            header = bytearray(raw(IP(**IP4, ihl=15, len=80, proto=6, chksum=0))[:20]) + bytes([kind, length]) + bytes(38)
            header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
            yield Ether(src=ether.src, dst=ether.dst, type=0x800) / Raw(bytes(header) + raw(TCP(**TCP_PORTS)))
    ip, tcp = IP(**IP4), raw(TCP(**TCP_PORTS, dataofs=15))
    for option in (b"\x01" * 40, b"\x02\x00" * 20, b"\x05\x28" + b"\xff" * 38, b"\x05\x01" * 20, b"\x08\xff" * 20,
                   b"\x03\x03\xff" * 13 + b"\0", b"\xfe" * 40, b"\x1e\x28" + bytes(38)):
        yield ether / ip / Raw(tcp[:20] + option)
        yield ether / IPv6(**IP6, nh=6) / Raw(tcp[:20] + option)


def extension_chains(ether):
    for count in (1, 10, 24, 25, 26, 27, 60, 170):
        for header in (IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting):
            packet = ether / IPv6(**IP6)
            for _ in range(count):
                packet = packet / header()
            yield packet / TCP(**TCP_PORTS)
            yield packet
    for length in (0, 1, 31, 255):  # longer than the packet
        for kind in (0, 43, 51, 60, 135, 139, 140):
            yield ether / IPv6(**IP6, nh=kind) / Raw(bytes([6, length]) + bytes(30))
    yield ether / IPv6(**IP6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting() / AH() / \
        UDP(sport=1, dport=9)
    yield ether / IPv6(**IP6, plen=0, nh=0) / Raw(bytes([6, 0, 0xc2, 4, 0, 1, 0, 0]))  # a jumbogram


def tag_stacks(ether):
    packet = ether / IP(**IP4) / TCP(**TCP_PORTS)
    for count in (1, 2, 3, 8, 59, 60, 61, 62, 300):
        for tag in (Dot1Q, Dot1AD):
            tagged = ether
            for number in range(count):
                tagged = tagged / tag(vlan=number % 4096)
            yield tagged / packet.payload
            yield tagged
    for vlan in (0, 1, 4094, 4095):
        for priority in (0, 7):
            yield ether / Dot1Q(vlan=vlan, prio=priority, id=1) / packet.payload


def neighbours(ether):
    mac = ether.src
    for length in (0, 1, 6, 7, 255):
        yield ether / ARP(hwlen=length, hwsrc=mac, psrc=IP4["src"], pdst=IP4["dst"])
        yield ether / ARP(plen=length, hwsrc=mac, psrc=IP4["src"], pdst=IP4["dst"])
    whole = raw(ether / ARP(hwsrc=mac, psrc=IP4["src"], pdst=IP4["dst"]))
    for length in range(14, len(whole)):
        yield Raw(whole[:length])
    for length in (0, 1, 2, 31, 255):
        yield ether / IPv6(**IP6, hlim=255) / ICMPv6ND_NS(tgt=IP6["dst"]) / ICMPv6NDOptSrcLLAddr(lladdr=mac, len=length)
        yield ether / IPv6(**IP6, hlim=255) / ICMPv6ND_NA(tgt=IP6["src"]) / ICMPv6NDOptDstLLAddr(lladdr=mac, len=length)
    yield ether / IPv6(**IP6, hlim=255) / ICMPv6ND_RA() / Raw(bytes([1, 0]) * 50)
    yield ether / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / BOOTP(hlen=255) / \
        DHCP(options=[(55, bytes(255)), "pad", (255, b"")])


def large_segments(ether):
    """What a sender with TSO would leave to us, without saying so: longer than any MTU."""
    for length in (9000, 32768, 65495):
        yield ether / IP(**IP4) / TCP(**TCP_PORTS, flags="PA") / Raw(bytes(length))
        yield ether / IP(**IP4, len=0) / TCP(**TCP_PORTS, flags="PA") / Raw(bytes(length))
        yield ether / IPv6(**IP6) / TCP(**TCP_PORTS, flags="PA") / Raw(bytes(length))
    for flags in ("", "S", "SF", "SRFPAUEC", "F", "CE"):
        yield ether / IP(**IP4, tos=3) / TCP(**TCP_PORTS, flags=flags, urgptr=65535) / Raw(bytes(1400))
    yield ether / IP(**IP4) / ICMP() / Raw(bytes(65507))
    yield ether / IPv6(**IP6) / ICMPv6EchoRequest(data=bytes(65527))


def noise(ether):
    dice = random.Random(1)
    for length in range(1501):
        kind = dice.choice((0x800, 0x86dd, 0x806, 0x8100, 0x88a8, 0x8863, length, dice.randrange(65536)))
        yield Raw(raw(ether)[:12] + kind.to_bytes(2, "big") + dice.randbytes(length))


KINDS = (fragments4, fragments6, lengths, option_bombs, extension_chains, tag_stacks, neighbours, large_segments, noise)


def frames(source, target, longest=1514):
    """All of them, as bytes."""
    ether = Ether(src=source, dst=target)
    for kind in KINDS:
        for packet in kind(ether):
            frame = raw(packet)
            if frame[12:14] == b"\x90\x00":  # scapy's, of a frame that has no more than its addresses
                frame = frame[:12] + b"\x08\x00"
            if len(frame) <= longest:
                yield frame


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="52:54:00:00:00:01", help="MAC address they come from")
    parser.add_argument("--target", default="52:54:00:00:00:02", help="and go to")
    parser.add_argument("--longest", type=int, default=1514, help="leaves longer frames out (1514)")
    parser.add_argument("file", metavar="FILE.pcap")
    arguments = parser.parse_args()
    made = list(frames(arguments.source, arguments.target, arguments.longest))
    wrpcap(arguments.file, made, linktype=1, snaplen=1 << 18)
    print(f"{len(made)} frames")


if __name__ == "__main__":
    main()
