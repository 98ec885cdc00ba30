# SPDX-License-Identifier: BSD-3-Clause
"""First inputs of net_fuzz: what drivers send, with requests to sum and to cut, and commands."""

import struct

ETHERNET = bytes.fromhex("020000000002" "020000000001")
TCP_FLAGS = 0x18


def header(flags=0, gso_type=0, hdr_len=0, gso_size=0, start=0, offset=0):
    return struct.pack("<BBHHHHH", flags, gso_type, hdr_len, gso_size, start, offset, 0)


def ipv4(protocol, length):
    return struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + length, 1, 0x4000, 64, protocol, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")


def ipv6(protocol, length, extension=b""):
    first = 0 if extension else protocol
    return struct.pack(">IHBB16s16s", 0x60000000, length + len(extension), first, 64, b"\xfd" + bytes(14) + b"\1",
                       b"\xfd" + bytes(14) + b"\2") + extension


def tcp(flags=TCP_FLAGS, options=b""):
    return struct.pack(">HHIIBBHHH", 4000, 80, 1, 2, (20 + len(options)) // 4 << 4, flags, 0xffff, 0, 0) + options


def udp(length):
    return struct.pack(">HHHH", 4000, 53, 8 + length, 0)


def frame(payload, layer4, version, pieces=1, gso_type=0, gso_size=0, flags=1, tag=b"", extension=b"", zeroes=0):
    """A record: `zeroes` more bytes of payload are not in the input."""
    length = len(layer4) + len(payload) + zeroes
    protocol = 6 if len(layer4) >= 20 else 17
    ip = ipv4(protocol, length) if version == 4 else ipv6(protocol, length, extension)
    start = 14 + len(tag) + len(ip)
    bytes_ = header(flags, gso_type, start + len(layer4), gso_size, start, 16 if protocol == 6 else 6) + ETHERNET + tag \
        + (b"\x08\x00" if version == 4 else b"\x86\xdd") + ip + layer4 + payload
    return struct.pack("<BHH", pieces - 1, len(bytes_), zeroes) + bytes_


def plain(bytes_, pieces=1, zeroes=0):
    return struct.pack("<BHH", pieces - 1, 12 + len(bytes_), zeroes) + header() + bytes_


def command(group, number, data=b"", pieces=1):
    return struct.pack("<BB", pieces - 1, 2 + len(data)) + bytes((group, number)) + data


def seeds():
    payload = bytes(range(200))
    tag = bytes.fromhex("81000064")
    tso4 = frame(payload, tcp(), 4, 3, gso_type=1, gso_size=1000, zeroes=5000)
    frames = {
        "plain": plain(ETHERNET + b"\x88\xb5" + payload),
        "broadcast": plain(b"\xff" * 6 + ETHERNET[6:] + b"\x08\x06" + bytes(46)),
        "csum-tcp4": frame(payload, tcp(), 4, 2),
        "csum-udp4": frame(payload, udp(200), 4),
        "csum-tcp6": frame(payload, tcp(options=b"\1" * 12), 6, 4),
        "csum-udp6": frame(payload, udp(200), 6, extension=bytes((17, 0, 1, 4, 0, 0, 0, 0))),
        "tso4": tso4,
        "tso4-ecn": frame(payload, tcp(0xd9), 4, 3, gso_type=0x81, gso_size=1000, zeroes=5000),
        "tso4-tagged": frame(payload, tcp(), 4, gso_type=1, gso_size=500, tag=tag, zeroes=3000),
        "tso6": frame(payload, tcp(), 6, 3, gso_type=4, gso_size=1400, zeroes=60000),
        "uso4": frame(payload, udp(5200), 4, gso_type=5, gso_size=1200, zeroes=5000),
        "uso6": frame(payload, udp(5200), 6, gso_type=5, gso_size=1200, zeroes=5000),
        "lie-gso-size-0": frame(payload, tcp(), 4, gso_type=1, gso_size=0, zeroes=5000),
        "lie-gso-size-1": frame(payload, tcp(), 4, gso_type=1, gso_size=1, zeroes=5000),
        "lie-no-csum": frame(payload, tcp(), 4, gso_type=1, gso_size=1000, flags=0, zeroes=5000),
        "lie-version": frame(payload, tcp(), 4, gso_type=4, gso_size=1000, zeroes=5000),
        "lie-short": plain(b"\0" * 5),
        "lie-giant": plain(ETHERNET, zeroes=65535),
        "tags": plain(ETHERNET + tag * 40 + b"\x08\x00" + ipv4(6, 20) + tcp()),
        "many": tso4 + plain(ETHERNET + b"\x88\xb5" + payload, 8) * 3 + frame(payload, udp(200), 4) + tso4,
    }
    commands = {
        "promisc": command(0, 0, b"\1") + command(0, 1, b"\0") + command(0, 5, b"\1"),
        "macs": command(1, 0, struct.pack("<I", 2) + b"\2" * 12 + struct.pack("<I", 1) + b"\3" * 6, 3),
        "mac": command(1, 1, b"\2\0\0\0\0\7"),
        "vlans": command(2, 0, b"\x0a\0") + command(2, 1, b"\x0a\0") + command(2, 0, b"\xff\xff"),
        "announce": command(3, 0),
        "pairs": command(4, 0, b"\2\0") + command(4, 0, b"\0\0") + command(4, 0, b"\xff\xff"),
        "offloads": command(5, 0, struct.pack("<Q", 0x82)) + command(5, 0, b"\xff" * 8),
        "lie-macs": command(1, 0, b"\xff" * 4 + bytes(60)) + command(1, 0, struct.pack("<I", 0x2aaaaaab) + bytes(60)),
    }
    found = {f"command-{name}": b"\1" + data for name, data in commands.items()}
    for name, data in frames.items():
        found[name] = b"\0" + data
        found[f"{name}-packed"] = b"\2" + data
    return found
