# SPDX-License-Identifier: BSD-3-Clause
"""Stores of overlays, good and damaged, as overlay_fuzz.c reads them; the checksums are put in there."""

import struct

PAGE, SECTOR, WORDS = 4096, 512, 62
ALL = 15            # right checksums everywhere


def header(size=1 << 30, sequence=1, floor=0, block=4096, version=1, pages=0):
    pages = pages or 16 * -(-size // (15872 * block))
    data = -(-(65536 + 2 * pages * PAGE) >> 20 << 20) or 1 << 20
    return struct.pack("<8sII16sQQIIQQQQQI", b"PENSTOVL", 0, version, bytes(range(16)), sequence, size, block, 0,
                       pages, 65536, max(data, 1 << 20) + (1 << 20), floor, size, 0x1234).ljust(SECTOR, b"\0")


def page(*sequences, word=0x5555000000aa0001):
    """Eight sectors; a sequence each, or one for all. The numbers and checksums are put in there."""
    sequences = sequences * 8 if len(sequences) == 1 else sequences
    return b"".join(struct.pack("<IIQ", 0, 0, sequence) + struct.pack("<Q", word) * WORDS for sequence in sequences)


NONE = bytes(PAGE)


def seeds():
    good = header()
    return {
        "blank": bytes(1 + 2 * SECTOR),
        "new": bytes([3]) + good + good + NONE + NONE,
        "one-page": bytes([7]) + good + header(sequence=2) + page(5) + NONE,
        "two-slots": bytes([ALL]) + good + good + page(5) + page(6),
        "torn": bytes([ALL]) + good + good + page(5) + page(6, 6, 4, 4, 6, 4, 4, 4),
        "both-torn": bytes([ALL]) + good + good + page(5, 6, 5, 5, 5, 5, 5, 5) + page(6, 6, 4, 4, 6, 4, 4, 4),
        "undone": bytes([ALL]) + header(floor=6) * 2 + page(5) + page(6),
        "no-such-state": bytes([ALL]) + good + good + page(5, word=0xffffffffffffffff) + page(4),
        "damaged-slot": bytes([7]) + good + good + page(5) + page(6),
        "one-header": bytes([ALL - 1]) + good + good + page(5) + page(6),
        "version": bytes([ALL]) + header(version=2) * 2,
        "small-map": bytes([ALL]) + header(size=1 << 40, pages=1) * 2,
        "something-else": bytes([0]) + b"QFI\xfb" * 256,
    }
