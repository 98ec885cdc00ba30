# SPDX-License-Identifier: BSD-3-Clause
"""Commands for a disk and a CD-ROM; the format is told in scsi_fuzz.c."""

import struct


DISK, CDROM, NO_UNIT, NO_TARGET, TASK, MEDIUM, THEN = 0, 1, 2, 3, 8, 12, 16


def command(cdb, unit=DISK, out=b"", sent=None, room=4096, then=THEN):
    """One command; `sent` bytes made of `out`."""
    cdb = bytes.fromhex(cdb) if isinstance(cdb, str) else cdb
    return struct.pack("<B16sBHHB", unit | then, cdb, len(cdb), len(out) if sent is None else sent, room,
                       len(out)) + out


def reserve(action, kind=0, key=0, action_key=0, flags=0):
    return command(struct.pack(">BBBHIB", 0x5f, action, kind, 0, 24, 0),
                   out=struct.pack(">QQIB3x", key, action_key, 0, flags))


def seeds():
    ready = command("000000000000") + command("000000000000", CDROM)
    seeds = {
        "inquiry": b"".join(command(f"12{page}ff00", unit) for unit in (DISK, CDROM, NO_UNIT, NO_TARGET)
                            for page in ("000000", "010000", "018000", "018300", "01b000", "01b100", "01b200")),
        "read-write": ready + command("2a000000000800000400", out=b"data", sent=2048) +
        command("28000000000800000400") + command("0a00001004" + "00", out=b"x", sent=2048) +
        command("8a08" + "00" * 7 + "20" + "0000000800" + "00", out=b"y", sent=4096) +
        command("88" + "00" * 8 + "20" + "0000000800" + "00") + command("a800000000200000000800" + "00"),
        "flush": ready + command("35000000000000000000") + command("91" + "00" * 15) + command("34000000000000000800"),
        "unmap": ready + command("42000000000000002800", out=struct.pack(">HH4xQI4xQI4x", 38, 32, 1, 8, 64, 1)),
        "write-same": ready + command("41000000000000004000", out=b"abcd", sent=512) +
        command("9309" + "00" * 8 + "00000100" + "0000") + command("93" + "00" * 9 + "00000020" + "0000", out=b"\0", sent=512),
        "compare": ready + command("2a000000000000000100", out=b"a", sent=512) +
        command("89" + "00" * 12 + "010000", out=b"a" * 128, sent=1024, then=0) +
        command("2a000000000000000100", out=b"b", sent=512, then=0) +
        command("89" + "00" * 12 + "010000", out=b"c", sent=1024),
        "verify": ready + command("2f000000000000000400") + command("2f020000000000000400", out=b"a", sent=2048) +
        command("8f06" + "00" * 8 + "00000004" + "0000", out=b"a", sent=512) +
        command("2e000000000000000400", out=b"v", sent=2048),
        "capacity": ready + command("25" + "00" * 9) + command("9e10" + "00" * 8 + "00000020" + "0000") +
        command("9e12" + "00" * 8 + "00000020" + "0000") + command("25" + "00" * 9, CDROM),
        "luns": command("a0" + "00" * 5 + "0000100000" + "00") + command("a0" + "00" * 5 + "0000100000" + "00", NO_UNIT),
        "mode": ready + command("1a003f00ff00") + command("5a103f0000000000ff00") + command("5a003f0000000000ff00", CDROM) +
        command("151000001800", out=bytes([0, 0, 0, 0, 8, 0x12, 0] + 17 * [0])) +
        command("55100000000000001400", out=bytes([0] * 8 + [0xa, 0xa, 4, 0x10, 8] + 7 * [0])) + command("03000000ff00"),
        "opcodes": ready + command("a30c00000000000010000000") + command("a30c80000000000010000000", CDROM) +
        command("a30c015a000000000000ff0000") + command("a30d80000000000000100000"),
        "reserve": ready + reserve(0, action_key=5) + reserve(1, 5, 5) + command("5e000000000000010000") +
        command("5e010000000000010000") + command("5e020000000000010000") + command("5e030000000000010000") +
        reserve(4, 6, 5, 5) + reserve(2, 6, 5) + reserve(6, action_key=9) + reserve(5, 1, 9, 9) + reserve(3, key=9) +
        command("160000000000") + command("170000000000"),
        "disc": ready + b"".join(command(cdb, CDROM) for cdb in (
            "43000000000000ff0000", "43020100000000ff0000", "43020200000000ff0000", "4600000000000001" + "0000",
            "4a0100001200000008" + "00", "51000000000000002200", "bd" + "00" * 7 + "00080000", "bb00ffff" + "00" * 8,
            "be0000000001000001100000", "28000000000000000100")),
        "tray": ready + command("1e0000000100", CDROM) + command("1b0000000200", CDROM) +
        bytes([MEDIUM | CDROM | THEN, 1]) + command("1e0000000000", CDROM) + command("1b0000000200", CDROM) +
        command("000000000000", CDROM) + command("1b0000000300", CDROM) + bytes([MEDIUM | CDROM | THEN, 3]) +
        command("25" + "00" * 9, CDROM) + bytes([MEDIUM | CDROM, 0]) + command("25" + "00" * 9, CDROM),
        "tasks": ready + command("2a000000000000004000", out=b"t", sent=32768, then=0) +
        command("28000000000000004000", then=0) + bytes([TASK, 0, 1]) + bytes([TASK | THEN, 6, 0]) +
        b"".join(bytes([TASK | (i & 3), i, 0]) for i in range(10)) + command("000000000000"),
        "change-under-way": ready + command("28000000000000004000", then=0) + bytes([MEDIUM, 3]) +
        command("28000000000000004000", then=0) + bytes([MEDIUM | THEN, 0]) + command("28000000000000004000"),
    }
    return seeds
