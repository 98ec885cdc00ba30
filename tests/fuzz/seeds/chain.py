# SPDX-License-Identifier: BSD-3-Clause
"""A guest's rings, as chain_fuzz.c lays them out."""

import struct

ENTRIES = 32
DRIVER, DEVICE, DATA = 16 * ENTRIES, 16 * ENTRIES + 80, 0x3a0   # in region 0 of chain_fuzz
REGION_1, REGION_2 = 0x800, 0x1000
NEXT, WRITE, INDIRECT = 1, 2, 4
PACKED, TABLES, EVENT, INFLIGHT, FLUSH = 1, 2, 4, 8, 16
IN, OUT, SYNC, GET_ID, DISCARD, ZEROES = 0, 1, 4, 8, 11, 13


class Guest:
    """Region 0, and those behind it, as chain_fuzz lays them out in the input."""

    def __init__(self):
        self.bytes = bytearray(0x800 + 0x400 + 0x200)
        self.free = DATA
        self.requests = []                      # lists of (address, length, flags)

    def put(self, address, data):
        at = address if address < REGION_2 else address - REGION_2 + 0xc00
        self.bytes[at:at + len(data)] = data

    def room(self, data=b"", length=0):
        address, self.free = self.free, self.free + (max(length, len(data)) + 15) // 16 * 16
        self.put(address, data)
        return address

    def request(self, kind, sector=0, data=None, length=512, at=None):
        header = self.room(struct.pack("<IIQ", kind, 0, sector))
        status = self.room(length=1)
        chain = [(header, 16, 0)]
        if kind in (OUT, DISCARD, ZEROES):
            where = at if at is not None else self.room(data or b"x" * length)
            chain.append((where, len(data) if data else length, 0))
        elif kind in (IN, GET_ID):
            chain.append((at if at is not None else REGION_1, length, WRITE))
        chain.append((status, 1, WRITE))
        self.requests.append(chain)

    def table(self, chain, packed):
        rows = b""
        for i, (address, length, flags) in enumerate(chain):
            last = i + 1 == len(chain)
            rows += struct.pack("<QIHH", address, length, 0, flags) if packed else \
                struct.pack("<QIHH", address, length, flags | (0 if last else NEXT), 0 if last else i + 1)
        return self.room(rows), len(rows)

    def split(self, flags=0, disk=0, size_log=5, base=0, indirect=False, inflight=b""):
        size, at, heads = 1 << size_log, 0, []
        chains = [[(*self.table(chain, False), INDIRECT)] if indirect else chain for chain in self.requests]
        for chain in chains:
            heads.append(at)
            for i, (address, length, bits) in enumerate(chain):
                last = i + 1 == len(chain)
                self.put(16 * at, struct.pack("<QIHH", address, length, bits | (0 if last else NEXT),
                                              0 if last else at + 1))
                at += 1
        ring = [0] * size
        for i, head in enumerate(heads):
            ring[(base + i) % size] = head
        self.put(DRIVER, struct.pack(f"<HH{size}H", 0, (base + len(heads)) & 0xffff, *ring))
        self.put(DEVICE, struct.pack("<HH", 0, base))
        return struct.pack("<BBBI", flags, disk, size_log, base) + bytes(self.bytes) + self.rest(inflight)

    def packed(self, flags=0, disk=0, size=32, indirect=False, inflight=b"", start=0):
        at = start
        chains = [[(*self.table(chain, True), INDIRECT)] if indirect else chain for chain in self.requests]
        for number, chain in enumerate(chains):
            for i, (address, length, bits) in enumerate(chain):
                bits |= (0 if i + 1 == len(chain) else NEXT) | (1 << 7 if at < size else 1 << 15)
                self.put(16 * (at % size), struct.pack("<QIHH", address, length, number, bits))
                at += 1
        base = (start | 0x8000) * 0x10001
        return struct.pack("<BBBI", flags | PACKED, disk, size - 1, base) + bytes(self.bytes) + self.rest(inflight)

    @staticmethod
    def rest(inflight):
        return bytes(0x300) + inflight if inflight else b""


def all_kinds():
    guest = Guest()
    segment = struct.pack("<QII", 2, 2, 0)
    guest.request(OUT, 1, length=64)
    guest.request(IN, 1)
    guest.request(SYNC)
    guest.request(GET_ID, length=20)
    guest.request(DISCARD, data=segment)
    guest.request(ZEROES, data=struct.pack("<QII", 4, 2, 1))
    guest.request(99)
    return guest


def reads(*where, sector=0, length=512):
    guest = Guest()
    for at in where:
        guest.request(IN, sector, at=at, length=length)
    return guest


def looped():
    guest = reads(None)
    seed = bytearray(guest.split())
    seed[7 + 16 * 2 + 12:7 + 16 * 2 + 16] = struct.pack("<HH", NEXT | WRITE, 1)
    return bytes(seed)


def split_region(size, marked, used):
    rows = b"".join(struct.pack("<B5xHQ", i in marked, 0, i) for i in range(size))
    return struct.pack("<QHHHH", 0, 1, size, 0, used) + rows


def packed_region(size, chains):
    """In flight: @chains, lists of (address, length, flags)."""
    rows, at = b"", 0
    for number, chain in enumerate(chains):
        head = at
        for i, (address, length, flags) in enumerate(chain):
            first, last = i == 0, i + 1 == len(chain)
            rows += struct.pack("<BxHHHQHHIQ", first, at + 1, head + len(chain) - 1, len(chain) if first else 0,
                                number, number, flags | (0 if last else NEXT), length, address)
            at += 1
    for i in range(at, size):
        rows += struct.pack("<BxHHHQHHIQ", 0, i + 1, 0, 0, 0, 0, 0, 0, 0)
    return struct.pack("<QHHHHHHBB6x", 0, 1, size, at, at, 0, 0, 1, 1) + bytes(2) + rows


def seeds():
    three = reads(None, None, None)
    return {
        "split-all": all_kinds().split(FLUSH),
        "split-all-null": all_kinds().split(FLUSH | EVENT, disk=1),
        "split-all-read-only": all_kinds().split(disk=2),
        "split-indirect": all_kinds().split(TABLES, indirect=True),
        "split-indirect-refused": all_kinds().split(indirect=True),
        "split-wrap": all_kinds().split(EVENT, base=0xfffe),
        "split-loop": looped(),
        "split-hole": reads(0xf00, 0x1100).split(),
        "split-across-regions": reads(0x7f0, 0x7ff).split(),
        "split-high": reads(2**64 - 0x400, 2**64 - 0x100).split(),
        "split-beyond": reads(None, sector=2048).split(),
        "split-sector-wrap": reads(None, sector=2**55).split(),
        "split-odd-length": reads(None, length=100).split(),
        "split-zero-length": reads(None, length=0).split(),
        "split-inflight": three.split(INFLIGHT, inflight=split_region(32, {0, 3}, 0)),
        "packed-all": all_kinds().packed(FLUSH),
        "packed-all-null": all_kinds().packed(EVENT, disk=1),
        "packed-indirect": all_kinds().packed(TABLES, indirect=True),
        "packed-wrap": reads(None, None, None).packed(size=13, start=8),
        "packed-small": reads(None).packed(size=3),
        "packed-inflight": reads(None).packed(INFLIGHT, size=8, inflight=packed_region(8, [
            [(DATA, 16, 0), (REGION_1, 512, WRITE), (DATA + 16, 1, WRITE)]])),
    }
