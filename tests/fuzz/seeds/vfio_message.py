# SPDX-License-Identifier: BSD-3-Clause
"""A VMM's messages on a vfio-user socket; the format is told in vfio_message_fuzz.c."""

import struct

from message import EVENTFD, MEMORY, MODE_SIZE, MODE_TRUNCATE, MODE_WAIT, NULL, SOCKET, record


NO_REPLY, REPLY, MODE_ID = 0x10, 1, 8
VERSION, MAP, UNMAP, INFO, REGION, IRQ, SET_IRQS, READ, WRITE_TO, DMA_READ, DMA_WRITE, RESET, MULTI = \
    1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 15
LENGTH, ADDRESS, START, HOLD = 0x18, 0x20, 0x28, 0x30


def access(offset, count, bar=0, data=b""):
    return struct.pack("<QII", offset, bar, count) + data


def put(offset, value, width=4, bar=0, flags=NO_REPLY):
    return record(WRITE_TO, access(offset, width, bar, value.to_bytes(width, "little")), flags=flags)


def dma_map(address=0, size=0x10000, flags=3, fds=(MEMORY,), offset=0):
    return record(MAP, struct.pack("<IIQQQ", 32, flags, offset, address, size), fds)


def dma_unmap(address=0, size=0x10000, flags=0):
    return record(UNMAP, struct.pack("<IIQQ", 24, flags, address, size), mode=MODE_WAIT)


def transfer(address, length, way):
    return put(ADDRESS, address, 8) + put(LENGTH, length) + put(START, way)


def irqs(flags, index, start, count, fds=(), data=b""):
    return record(SET_IRQS, struct.pack("<5I", 20 + len(data), flags, index, start, count) + data, fds)


def answer(command, number, payload, flags=REPLY):
    return struct.pack("<BBBBHBH", command, flags, 0, 0, len(payload), MODE_ID, number) + payload


HELLO = record(VERSION, struct.pack("<HH", 0, 1) + b'{"capabilities":{"write_multiple":true}}\0', mode=MODE_WAIT)


def seeds():
    writes = b"".join(access(4, 4, 0, bytes(8)) for _ in range(3))
    fetched = struct.pack("<QQ", 0, 100) + bytes(100)
    return {
        "describe": HELLO + record(INFO, struct.pack("<IIII", 16, 0, 0, 0)) + b"".join(
            record(REGION, struct.pack("<IIIIQQ", 64, 0, i, 0, 0, 0)) for i in range(9)) + b"".join(
            record(IRQ, struct.pack("<IIII", 16, 0, i, 0)) for i in range(5)),
        "access": HELLO + record(READ, access(0, 4096)) + record(READ, access(0, 256, 7)) + put(4, 7, 2, 7) +
        put(4, 1, flags=0) + record(MULTI, struct.pack("<Q", 3) + writes),
        "mapped": HELLO + dma_map() + transfer(0, 100, 0) + answer(DMA_READ, 0, struct.pack("<QQ", 0, 64) + b"memory" +
                                                                   bytes(58)) +
        transfer(50, 4096, 1) + dma_unmap(),
        "not-shared": HELLO + dma_map() + transfer(0, 100, 0) + b"".join(
            answer(DMA_READ, i, struct.pack("<QQ", 0, 64) + bytes(64)) for i in range(8)),
        "announced": HELLO + dma_map(fds=()) + transfer(0, 100, 0) + answer(DMA_READ, 0, fetched) +
        transfer(0, 100, 1) + answer(DMA_WRITE, 1, struct.pack("<QQ", 0, 100)),
        "refused": HELLO + dma_map(fds=()) + transfer(0, 100, 0) + answer(DMA_READ, 0, b"", REPLY | 0x20),
        "unmap-held": HELLO + dma_map() + put(HOLD, 1) + transfer(0, 100, 1) + dma_unmap() + put(HOLD, 0) +
        dma_map(),
        "unmap-all": HELLO + dma_map() + dma_map(0x20000, 0x1000, fds=()) + dma_unmap(0, 0, 2),
        "truncate": HELLO + dma_map() + record(INFO, mode=MODE_TRUNCATE) + transfer(0x4000, 0x4000, 1),
        "interrupts": HELLO + irqs(36, 2, 0, 3, [EVENTFD] * 3) + put(0xc, 1) + irqs(9, 2, 0, 3) +
        irqs(18, 2, 0, 3, data=b"\1\0\1") + irqs(33, 2, 0, 0) + irqs(36, 0, 0, 1, [EVENTFD]) +
        irqs(20, 0, 0, 1, [EVENTFD]) + put(0xc, 0) + put(0x10, 0),
        "odd-fds": HELLO + irqs(36, 2, 0, 3, [EVENTFD, SOCKET, NULL]) + dma_map(fds=[NULL]) + dma_map(fds=[SOCKET]),
        "reset": HELLO + put(0x14, 1) + record(READ, access(0, 4)) + record(RESET) + record(READ, access(0, 4)),
        "shared": HELLO + record(READ, access(0x1ffc, 8, 3)) + put(0x2000, 5, 4, 3),
        "unknown": HELLO + record(6, bytes(16)) + record(14, bytes(16)) + record(200),
        "early": record(READ, access(0, 4)),
        "stray-reply": HELLO + answer(DMA_READ, 5, fetched),
        "too-long": HELLO + struct.pack("<BBBBHBI", READ, 0, 0, 0, 8, MODE_SIZE, 0xffffffff) + bytes(8),
        "cut": HELLO + struct.pack("<BBBBHB", 0, 0, 1, 0, 7, 0) + b"\x01\0\x02\0\x30\0\0",
        "many-fds": HELLO + struct.pack("<BBBBHB", RESET, 0, 0x81, 0, 0, 0),
    }
