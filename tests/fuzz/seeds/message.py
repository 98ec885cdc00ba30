# SPDX-License-Identifier: BSD-3-Clause
"""A VMM's messages on a vhost-user socket; the format is told in message_fuzz.c."""

import struct


PLAIN, NEED_REPLY = 0, 8
MEMORY, EVENTFD, SOCKET, NULL = 0, 1, 2, 3
MODE_SIZE, MODE_TRUNCATE, MODE_WAIT = 1, 2, 4
FEATURES = 1 << 32 | 1 << 30 | 1 << 29 | 1 << 28 | 1 << 9
PACKED_FEATURE = 1 << 34
PROTOCOL = 1 << 0 | 1 << 3 | 1 << 5 | 1 << 9 | 1 << 12 | 1 << 13 | 1 << 15 | 1 << 16


def record(request, payload=b"", fds=(), flags=PLAIN, mode=0):
    kinds = sum(kind << 2 * i for i, kind in enumerate(fds))
    return struct.pack("<BBBBHB", request, flags, len(fds), kinds, len(payload), mode) + payload


def u64(value):
    return struct.pack("<Q", value)


def state(index, number):
    return struct.pack("<II", index, number)


def region(guest=0, size=0x10000, user=0x10000, offset=0):
    return struct.pack("<QQQQ", guest, size, user, offset)


NEGOTIATE = record(1, mode=MODE_WAIT) + record(15, mode=MODE_WAIT) + record(16, u64(PROTOCOL)) + \
    record(2, u64(FEATURES)) + record(3)
TABLE = record(5, struct.pack("<II", 1, 0) + region(), [MEMORY])
SLOT = record(37, bytes(8) + region(), [MEMORY], NEED_REPLY, MODE_WAIT)
FLIGHT = record(31, struct.pack("<QQHHI", 0, 0, 2, 16, 0), mode=MODE_WAIT)


def ring(index=0, size=16):
    used = (16 * size + 4 + 2 * (size + 1) + 3) // 4 * 4
    return record(8, state(index, size)) + record(10, state(index, 0)) + \
        record(9, struct.pack("<IIQQQQ", index, 0, 0x10000, 0x10000 + used, 0x10000 + 16 * size, 0)) + \
        record(14, u64(index), [EVENTFD]) + record(13, u64(index), [EVENTFD]) + \
        record(12, u64(index), [EVENTFD]) + record(18, state(index, 1), flags=NEED_REPLY, mode=MODE_WAIT)


def seeds():
    config = struct.pack("<III", 0, 60, 0) + bytes(60)
    started = NEGOTIATE + TABLE + ring()
    return {
        "negotiate": NEGOTIATE + record(17, mode=MODE_WAIT) + record(36, mode=MODE_WAIT),
        "config": NEGOTIATE + record(24, config, mode=MODE_WAIT) +
        record(25, struct.pack("<III", 32, 1, 0) + b"\x00", flags=NEED_REPLY, mode=MODE_WAIT),
        "serve": started + record(11, state(0, 0), mode=MODE_WAIT),
        "serve-slot": NEGOTIATE + SLOT + ring() + record(38, bytes(8) + region(), flags=NEED_REPLY, mode=MODE_WAIT),
        "serve-packed": NEGOTIATE + record(2, u64(FEATURES | PACKED_FEATURE)) + TABLE + ring(),
        "inflight": NEGOTIATE + FLIGHT + TABLE + ring() + record(11, state(0, 0), mode=MODE_WAIT),
        "inflight-set": NEGOTIATE + record(32, struct.pack("<QQHHI", 4096, 0, 2, 16, 0), [MEMORY]) + TABLE + ring(),
        "truncate": started + record(17, mode=MODE_TRUNCATE | MODE_WAIT) + record(12, u64(0), [EVENTFD]),
        "table-again": started + TABLE + record(5, struct.pack("<II", 0, 0)) + TABLE,
        "reset": started + record(34, flags=NEED_REPLY, mode=MODE_WAIT) + ring(),
        "status": started + record(39, u64(15)) + record(40, mode=MODE_WAIT) + record(39, u64(0)) +
        record(40, mode=MODE_WAIT),
        "channel": NEGOTIATE + record(21, u64(0), [SOCKET], NEED_REPLY, MODE_WAIT) + TABLE + ring(0, 3),
        "odd-place": NEGOTIATE + record(5, struct.pack("<II", 1, 0) + region(size=0xf000, offset=1), [MEMORY]) + ring(),
        "two-rings": started + ring(1),
        "disable": started + record(18, state(0, 0)) + record(18, state(0, 1)) + record(4),
        "cut": NEGOTIATE + struct.pack("<BBBBHB", 0, 0, 0, 0, 7, 0) + b"\x01\0\0\0\x01\0\0",
        "too-long": struct.pack("<BBBBHBI", 2, 0, 0, 0, 8, MODE_SIZE, 0xffffffff) + u64(0),
        "many-fds": struct.pack("<BBBBHB", 3, 0, 0x81, 0, 0, 0),
        "odd-fds": NEGOTIATE + record(12, u64(0), [NULL]) + record(12, u64(0x100)) + record(13, u64(0), [MEMORY]),
        "unknown": record(200, u64(1), flags=NEED_REPLY),
    }
