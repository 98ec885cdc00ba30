# SPDX-License-Identifier: BSD-3-Clause
"""Superblocks of a mirror: legs in sync, one behind, split brain, other mirrors, damage."""

import struct

END, PIECE = 1 << 20, 800


def uuid(n):
    return bytes([n]) * 16


def superblock(leg, generation, tag, *members, mirror=9, version=1, data=512 << 10, region=65536, bitmap=END - 12288):
    """`members`: (leg, in sync, confirmed, attempted), where those are (generation, tag)."""
    head = (b"penstock-mirror\0" + struct.pack("<IIII", version, 0, len(members), 0) + uuid(mirror) + uuid(leg) +
            struct.pack("<QQQQQQ", generation, tag, data, region, END, bitmap))
    table = b"".join(uuid(n) + struct.pack("<IIQQQQQ", in_sync, 0, END, *confirmed, *attempted)
                     for n, in_sync, confirmed, attempted in members)
    return (head.ljust(256, b"\0") + table).ljust(PIECE, b"\0")


def seeds():
    old, new, other = (3, 33), (4, 44), (4, 55)
    both = (1, 1, old, old), (2, 1, old, old)
    without_2 = (1, 1, old, new), (2, 0, old, old)
    without_1 = (1, 0, old, old), (2, 1, old, other)
    a, b = superblock(1, *old, *both), superblock(2, *old, *both)
    return {
        "in-sync": b"\x01" + a + b,
        "one": b"\x01" + a,
        "behind": b"\x01" + superblock(1, *new, *without_2) + b,
        "split": b"\x01" + superblock(1, *new, *without_2) + superblock(2, *other, *without_1),
        "twice": b"\x01" + a + a,
        "other-mirror": b"\x01" + a + superblock(2, *old, *both, mirror=8),
        "other-version": b"\x01" + superblock(1, *old, *both, version=2),
        "no-place": b"\x01" + superblock(1, *old, *both, bitmap=0),
        "no-member": b"\x01" + superblock(1, *old),
        "no-checksum": b"\x00" + a,
        "sector": b"\x00" + b"PMBM".ljust(PIECE, b"\0"),
    }
