# SPDX-License-Identifier: BSD-3-Clause
"""What drivers do with IDE's registers, honest and not; the format is told in ide_fuzz.c."""

import struct

TURN, RESET, MASTER_OFF = b"\x06", b"\x0f", b"\x05\x03"
BUS_MASTER = 4


def put(bar, offset, value, width=1, times=1):
    kind = bar | {1: 0, 2: 0x10, 4: 0x20}[width] | (0x40 if times > 1 else 0)
    return bytes([kind, offset]) + value.to_bytes(width, "little")


def get(bar, offset, width=1, times=1):
    return bytes([bar | 8 | {1: 0, 2: 0x10, 4: 0x20}[width] | (0x40 if times > 1 else 0), offset])


def ata(code, lba=0, count=1, bar=0, drive=0, features=0):
    """A command with an address of 28 bits."""
    registers = [(6, 0x40 | drive << 4 | lba >> 24), (1, features), (2, count), (3, lba & 255),
                 (4, lba >> 8 & 255), (5, lba >> 16 & 255), (7, code)]
    return b"".join(put(bar, *register) for register in registers)


def packet(cdb, features=0, limit=2048, bar=2):
    """A packet command to the CD-ROM."""
    given = b"".join(put(bar, 0, int.from_bytes(cdb[i:i + 2].ljust(2, b"\0"), "little"), 2) for i in range(0, 12, 2))
    return (put(bar, 6, 0) + put(bar, 1, features) + put(bar, 4, limit & 255) + put(bar, 5, limit >> 8) +
            put(bar, 7, 0xa0) + given + TURN)


def table(*entries):
    """The input's prefix: a table of physical regions at address 0."""
    data = b"".join(struct.pack("<II", address, count & 0xffff | (1 << 31 if last else 0))
                    for address, count, last in entries)
    return bytes([len(data + bytes(-len(data) % 16)) // 16]) + data + bytes(-len(data) % 16)


def start(channel=0):
    return put(BUS_MASTER, channel * 8, 9) + TURN + get(BUS_MASTER, channel * 8 + 2) + get(channel * 2, 7)


def seeds():
    whole = table((0x100, 0x200, False), (0x1000, 0x600, True))
    words = get(0, 0, 2, 256)
    return {
        "identify": table() + ata(0xec) + words + get(0, 7),
        "pio-read": table() + ata(0x20, 5, 3) + (TURN + get(0, 7) + words) * 3,
        "pio-write": table() + ata(0x30, 5, 2) + (put(0, 0, 0x1234, 2, 256) + TURN) * 2,
        "multiple": table() + ata(0xc6, 0, 4) + ata(0xc4, 0, 8) + TURN + words * 4 + words * 4,
        "dma-read": whole + ata(0xc8, 7, 4) + start(),
        "dma-write": whole + ata(0xca, 7, 4) + start(),
        "dma-message": table((0x2000, 0x800, True)) + ata(0xc8, 7, 4) + start() + TURN + TURN,
        "dma-lost": table((0x2000, 0x800, True)) + ata(0xca, 7, 4) + start() + b"\x0e" + TURN,
        "dma-short": table((0x100, 0x100, True)) + ata(0xc8, 7, 4) + start() + put(1, 2, 4) + put(1, 2, 0),
        "dma-outside": table((0x80000000, 0x800, True)) + ata(0xc8, 7, 4) + start(),
        "dma-stop": whole + ata(0xc8, 7, 4) + put(4, 0, 9) + put(4, 0, 0) + TURN + ata(0xec) + words,
        "reset": whole + ata(0xc8, 7, 4) + put(4, 0, 9) + put(1, 2, 4) + put(1, 2, 0) + ata(0x20) + TURN,
        "function-reset": whole + ata(0x20, 0, 4) + RESET + ata(0x20) + TURN + words,
        "master-off": whole + MASTER_OFF + ata(0xc8, 7, 4) + start() + b"\x05\x07" + TURN,
        "trim": bytes([2]) + struct.pack("<IIQQQ", 0x10, 1 << 31 | 512, 8 << 48 | 4, 0, 0) +
        put(0, 2, 0) + ata(0x06, 0, 1, features=1) + start(),
        "slave": table() + ata(0x20, bar=2, drive=1) + TURN + get(2, 0, 2, 256) + ata(0xe7, bar=2, drive=1) + TURN,
        "other-drive": whole + ata(0xc8, 7, 4) + put(4, 0, 9) + put(4, 0, 0) + put(1, 2, 4) + put(1, 2, 0) +
        put(0, 6, 16) + put(0, 7, 0xa1) + TURN + words,
        "diagnostic": table() + ata(0x90) + get(0, 1) + get(0, 7),
        "smart": table() + ata(0xb0, 0xc24f00, features=0xd0) + words,
        "cd-inquiry": table() + packet(b"\x12\0\0\0\x24") + get(2, 0, 2, 256),
        "cd-sense": table() + packet(bytes(12)) + get(2, 7) + packet(b"\x03\0\0\0\x12") + get(2, 0, 2, 256),
        "cd-read": table() + packet(bytes(12)) + packet(bytes([0x28, 0, 0, 0, 0, 1, 0, 0, 40])) +
        (get(2, 0, 2, 256) * 4 + TURN) * 10,
        "cd-dma": whole + packet(bytes(12)) + put(4, 12, 0, 4) + packet(bytes([0x28, 0, 0, 0, 0, 1, 0, 0, 1]), 1) +
        start(1),
        "cd-select": table() + packet(bytes([0x55, 0x10, 0, 0, 0, 0, 0, 0, 16])) + put(2, 0, 0, 2, 256) + TURN,
        "cd-reset": table() + packet(bytes([0x25])) + put(2, 7, 8) + packet(bytes([0x25])) + get(2, 0, 4),
    }
