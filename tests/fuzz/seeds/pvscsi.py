# SPDX-License-Identifier: BSD-3-Clause
"""A PVSCSI driver; the format is told in pvscsi_fuzz.c."""

import struct


MSIX, NO_MASTER, MESSAGES_FAIL, READ_ONLY = 1, 2, 4, 8
WRITE_REG, READ_REG, RINGS, COMMAND, TURN, REGIONS_STEP, RESET_STEP, ACCESS, POKE = range(9)
KICK = struct.pack("<BBI", WRITE_REG, 6, 0)
LISTS, PAYLOAD, BY_MESSAGE, TOP = 0x4000, 0x4800, 0x8000, 2**64 - 4096
TO_HOST, TO_DEVICE, SG_LIST = 8, 16, 1


def poke(address, data):
    return b"".join(struct.pack("<BHB", POKE, address + i, len(data[i:i + 128])) + data[i:i + 128]
                    for i in range(0, len(data), 128))


def rings(requests=0, completions=0, first=0):
    return struct.pack("<BBBB", RINGS, requests, completions, first)


def pv_command(number, words=b""):
    return struct.pack("<BBB", COMMAND, number, len(words) // 4) + words


def requests(*rows):
    """Each (cdb, flags, address, length) and what else differs, in a ring that was just set up."""
    steps = b""
    for i, (cdb, flags, address, length, *sense) in enumerate(rows):
        steps += poke(0x1000 + 128 * i, struct.pack(
            "<QQQQII16sB8sBBBB", i + 1, address, length, sense[0] if sense else PAYLOAD + 0x800, 32, flags,
            cdb, len(cdb), bytes(8), 0x20, 0, 0, 0))
    return steps + poke(0, struct.pack("<I", len(rows)))


def read10(block=0, blocks=1, write=False):
    return struct.pack(">BBIBHB", 0x2a if write else 0x28, 0, block, 0, blocks, 0)


def elements(*rows, at=LISTS):
    return poke(at, b"".join(struct.pack("<QII", *row) for row in rows))


def seeds():
    ready = requests((bytes(6), 4, 0, 0), (bytes(6), 4, 0, 0)) + rings() + bytes([TURN])
    served = KICK + bytes([TURN]) * 3
    mask = struct.pack("<BBI", WRITE_REG, 4, 15)
    msg_ring = pv_command(8, struct.pack("<II16Q", 1, 0, *[3] * 16))

    def seed(*steps, flags=0):
        return bytes([flags]) + mask + b"".join(steps)

    def more(*rows):
        return rings() + requests(*rows) + served

    read, write = (read10(), TO_HOST, PAYLOAD, 512), (read10(write=True), TO_DEVICE, PAYLOAD, 512)
    listed = (read10(), TO_HOST | SG_LIST, LISTS, 512)
    return {
        "serve": seed(ready, more(read, write, (b"\x12\0\0\0\x24\0", TO_HOST, PAYLOAD, 36))),
        "serve-msix": seed(ready, more(read, write, (bytes(6), 0, 0, 0)), flags=MSIX),
        "read-only": seed(ready, more(write), flags=READ_ONLY),
        "list": seed(ready, elements((PAYLOAD, 100, 0), (PAYLOAD + 200, 0, 0), (PAYLOAD + 300, 600, 0)), more(listed)),
        "list-chain": seed(ready, elements((PAYLOAD, 100, 0), (LISTS + 0x100, 0, 1)),
                           elements((PAYLOAD + 1024, 412, 0), at=LISTS + 0x100), more(listed)),
        "list-loop": seed(ready, elements((LISTS, 0, 1)), more(listed)),
        "list-hole": seed(ready, elements((PAYLOAD, 100, 0), (0x7000, 412, 0)), more(listed)),
        "list-end": seed(ready, more((read10(), TO_HOST | SG_LIST, 0x57f8, 512))),
        "across": seed(ready, more((read10(), TO_HOST, 0x3f00, 512))),
        "by-message": seed(ready, more((read10(), TO_HOST, BY_MESSAGE, 512),
                                       (read10(write=True), TO_DEVICE, BY_MESSAGE, 512))),
        "message-fails": seed(ready, more((read10(write=True), TO_DEVICE, BY_MESSAGE, 512)), flags=MESSAGES_FAIL),
        "top": seed(ready, more((read10(), TO_HOST, TOP, 512), (read10(), TO_HOST, 2**64 - 256, 512))),
        "sense": seed(ready, more((read10(2**31), TO_HOST, PAYLOAD, 512),
                                  (read10(2**31), TO_HOST, PAYLOAD, 512, BY_MESSAGE),
                                  (read10(2**31), TO_HOST, PAYLOAD, 512, 0x7000))),
        "ahead": seed(ready, poke(0, struct.pack("<I", 77)), served),
        "full": seed(ready, poke(16, struct.pack("<I", 77)), more(read)),
        "gone": seed(ready, bytes([REGIONS_STEP, 1]), more(read)),
        "rings-by-message": seed(rings(first=7)),
        "reset": seed(ready, rings(), requests(read, write), KICK, bytes([RESET_STEP])),
        "commands": seed(ready, msg_ring, pv_command(10, struct.pack("<I", 1)), pv_command(4), pv_command(11),
                         pv_command(7, struct.pack("<QQII", PAYLOAD, 0x2120 << 32, 0x1958, 0)),
                         pv_command(9, struct.pack("<QIIQ", PAYLOAD, 0, 0, 0)), more(read)),
        "abort": seed(ready, rings(), requests(read, write), pv_command(6, struct.pack("<QII", 2, 0, 0)),
                      pv_command(5, bytes(12)), pv_command(1), served),
        "odd-access": seed(struct.pack("<BHBQ", ACCESS, 0x100b, 8, 2**64 - 1), struct.pack("<BHBQ", ACCESS, 0x7ffe, 8, 0)),
    }
