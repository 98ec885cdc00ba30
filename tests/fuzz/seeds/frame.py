# SPDX-License-Identifier: BSD-3-Clause
"""Frames and offload requests; the format is told in frame_fuzz.c."""

import struct

MACS = bytes.fromhex("525400000001525400000002")
NEEDS_CSUM = 1
TCPV4, TCPV6, UDP_L4, ECN = 1, 4, 5, 0x80
CSUM, TSO, ANY_TCP, SCRIBBLE = 1, 0x3e, 64, 128
TCP, UDP = 6, 17


def request(frame, flags=0, kind=0, size=0, start=0, offset=0, accepts=0, pieces=0, more=0):
    return struct.pack("<BBHHHBBH", flags, kind, size, start, offset, accepts, pieces, more) + frame


def ethernet(kind, tags=()):
    return MACS + b"".join(struct.pack(">HH", 0x8100, tag) for tag in tags) + struct.pack(">H", kind)


def ipv4(protocol, payload, options=b"", fragment=0x4000):
    return struct.pack(">BBHHHBBH", 0x45 + len(options) // 4, 0, 20 + len(options) + payload, 1, fragment, 64,
                       protocol, 0) + bytes.fromhex("0a0000010a000002") + options


def ipv6(kind, payload):
    return struct.pack(">IHBB", 0x60000000, payload, kind, 64) + bytes.fromhex("fd" + 30 * "0" + "fd" + 30 * "1")


def tcp(flags=0x18, options=b"", total=0):
    return struct.pack(">HHIIBBHHH", 1000, 80, 1, 2, (5 + len(options) // 4) << 4, flags, 500, total, 0) + options


def udp(length):
    return struct.pack(">HHHH", 1000, 53, 8 + length, 0)


def seeds():
    plain4 = ethernet(0x800) + ipv4(TCP, 20 + 100) + tcp()
    large4 = ethernet(0x800) + ipv4(TCP, 20 + 12 + 5000) + tcp(0x99, bytes(12))
    large6 = ethernet(0x86dd) + ipv6(TCP, 20 + 5000) + tcp()
    chain6 = ethernet(0x86dd) + ipv6(0, 8 + 24 + 8 + 4000) + bytes([43, 0]) + bytes(6) + bytes([UDP, 2]) + \
        bytes(22) + udp(4000)
    fragment6 = ethernet(0x86dd) + ipv6(44, 8 + 20) + bytes([TCP, 0, 0, 1]) + bytes(4) + tcp()
    return {
        "plain": request(plain4, more=100),
        "sum": request(plain4, NEEDS_CSUM, start=34, offset=16, more=100, pieces=3),
        "tso4": request(large4, NEEDS_CSUM, TCPV4 | ECN, 1448, 34, 16, 0, 9, 5000),
        "tso4-sums-left": request(large4, NEEDS_CSUM, TCPV4, 1448, 34, 16, CSUM, 0, 5000),
        "tso4-changing": request(large4, NEEDS_CSUM, TCPV4, 700, 34, 16, SCRIBBLE, 40, 5000),
        "tso4-any": request(large4, NEEDS_CSUM, TCPV4, 1448, 34, 16, ANY_TCP, 0, 5000),
        "tso4-fits": request(large4, NEEDS_CSUM, TCPV4, 1448, 34, 16, CSUM | TSO, 0, 5000),
        "tso4-one": request(large4, NEEDS_CSUM, TCPV4, 9000, 34, 16, 0, 0, 5000),
        "tso4-crumbs": request(large4, NEEDS_CSUM, TCPV4, 1, 34, 16, 0, 0, 5000),
        "tso6": request(large6, NEEDS_CSUM, TCPV6, 1000, 54, 16, 0, 200, 5000),
        "uso4": request(ethernet(0x800) + ipv4(UDP, 8 + 3000) + udp(3000), NEEDS_CSUM, UDP_L4, 1000, 34, 6, 0, 30,
                        3000),
        "uso6-chain": request(chain6, NEEDS_CSUM, UDP_L4, 1000, 86, 6, 0, 90, 4000),
        "tags": request(ethernet(0x800, (5, 6)) + ipv4(TCP, 20 + 3000, bytes(40)) + tcp(0x19, bytes(40)), NEEDS_CSUM,
                        TCPV4, 500, 82, 16, 0, 20, 3000),
        "fragment4": request(ethernet(0x800) + ipv4(TCP, 28, fragment=0x2001) + tcp(), more=8),
        "fragment6": request(fragment6, NEEDS_CSUM, TCPV6, 4, 62, 16),
        "many-tags": request(ethernet(0x800, range(70)) + ipv4(TCP, 20) + tcp()),
        "arp": request(ethernet(0x806) + bytes.fromhex("0001080006040001") + bytes(20), more=18),
        "neighbour": request(ethernet(0x86dd) + ipv6(58, 32) + bytes([135]) + bytes(7) + bytes.fromhex("fd" + 30 * "1") +
                             bytes.fromhex("0101525400000002")),
        "dhcp": request(ethernet(0x800) + ipv4(UDP, 8) + struct.pack(">HHHH", 67, 68, 8, 0)),
        "longest": request(ethernet(0x800) + ipv4(TCP, 65515) + tcp(), NEEDS_CSUM, TCPV4, 1448, 34, 16, 0, 255, 65495),
    }
