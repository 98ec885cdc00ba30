# SPDX-License-Identifier: BSD-3-Clause
"""Links: hellos, frames with and without offloads, and what a daemon would not say."""

import struct

ALL = 0x3F


def hello(version=1, features=ALL, mtu=65535, magic=b"PNSTLINK"):
    return magic + struct.pack("<III12x", version, features, mtu)


def record(frame, flags=0, gso=0, size=0, header=0, start=0, offset=0, tag=0, length=None):
    length = len(frame) if length is None else length
    return struct.pack("<IBBHHHHH", length, flags, gso, size, header, start, offset, tag) + frame


def ethernet(kind, payload):
    return bytes.fromhex("020000000001020000000009") + struct.pack(">H", kind) + payload


def tcp4(payload, seq=1, flags=0x18):
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, 40 + len(payload), 1, 0x4000, 64, 6, 0, 0x0A000001, 0x0A000009)
    return ethernet(0x800, ip + struct.pack(">HHIIBBHHH", 1024, 80, seq, 1, 0x50, flags, 256, 0, 0) + payload)


def udp6(payload):
    ip = struct.pack(">IHBB", 6 << 28, 8 + len(payload), 17, 64) + bytes(15) + b"\1" + bytes(15) + b"\2"
    return ethernet(0x86DD, ip + struct.pack(">HHHH", 53, 1024, 8 + len(payload), 0) + payload)


def seeds():
    small = ethernet(0x88B5, bytes(46))
    large = tcp4(b"x" * 5000)
    uso = udp6(b"y" * 3000)
    good = {
        "hello": b"",
        "frames": record(small) * 70,
        "tagged": record(small, flags=4, tag=0x6014),
        "tso": record(large, 1, 1, 1000, 54, 34, 16),
        "tso-ecn": record(large, 1, 0x81, 1460, 54, 34, 16),
        "uso": record(uso, 1, 5, 1200, 62, 54, 6),
        "sum": record(tcp4(b"abc"), 1, 0, 0, 54, 34, 16),
        "short": record(b"x" * 13),
        "long": record(small, length=65563),
        "cut-short": record(small)[:-5],
        "flags": record(small, flags=8),
        "kind": record(small, gso=2),
        "offsets": record(small, 1, 1, 1, 0xFFFF, 0xFFFF, 0xFFFF),
        "no-size": record(large, 1, 1, 0, 54, 34, 16),
    }
    found = {title: b"\0" + hello() + data for title, data in good.items()}
    found["version"] = b"\0" + hello(version=2)
    found["other"] = b"\0GET / HTTP/1.1\r\n\r\n"
    found["records"] = b"\1" + record(small) + record(large, 1, 1, 1000, 54, 34, 16)
    found["segments"] = b"\3" + b"".join(record(tcp4(b"x" * 500, 1 + 500 * i, 0x10)) for i in range(9)) + record(tcp4(b"yz", 4501))
    return found
