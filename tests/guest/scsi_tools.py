#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""SCSI disks as sg3-utils and libiscsi's conformance suite see them, behind virtio-scsi and PVSCSI.

One guest has both. The libiscsi suite is its family SCSI, by an SG device: 215 tests, 15 s."""

import re

from guest_checks import tap
from lab import MIB, SHORT, Lab
from machine import Machine

TOOLS = ("compare_and_write dd get_lba_status inq luns modes opcodes persist raw read readcap requests reset start "
         "sync turs unmap verify vpd wr_mode write_same")
SIZE = 64 * MIB
BLOCKS = SIZE // 512
SERIAL = "PEN-0123"
# sg3-utils' exit statuses.
MISCOMPARE, RESERVATION_CONFLICT = 14, 24
ILLEGAL_REQUEST, INVALID_OPCODE, OUT_OF_RANGE = 5, 9, 22
KEY, OTHER_KEY = "0x1122334455667788", "0x99"

# What the guest's drivers can reset.
KINDS = ("virtio-scsi",) if SHORT else ("virtio-scsi", "pvscsi")
RESETS = {"virtio-scsi": "-d", "pvscsi": "-d -b -H"}

# libiscsi's tests that fail, and why.
KNOWN = {
    "GetLBAStatus.UnmapSingle": "asks for block i + 1, expects block i + 8 where physical blocks have 4,096 bytes",
    "Inquiry.BlockLimits": "holds that nobody unmaps more than 1,048,576 blocks at once",
    "WriteSame10.InvalidDataOutSize": "looks at the status only, not at the adapter's error",
    "WriteSame16.InvalidDataOutSize": "looks at the status only, not at the adapter's error",
    "WriteSame16.Unmap": "reads 32 MiB with one command, more than an SG device takes",
}


def check_commands(kind, machine, guest, image):
    """Register the tests of one of the guest's disks. In scripts DISK and SG stand for the guest's names of it."""
    names = guest.run("for disk in $(cd /sys/block && ls -d sd*); do echo $(readlink -f /sys/block/$disk) $disk "
                      "$(ls /sys/block/$disk/device/scsi_generic); done")
    found = [line.split()[1:] for line in names.splitlines() if ("/virtio" in line) == (kind == "virtio-scsi")]
    tap.equal(len(found), 1, f"disks of {kind}")

    def at_disk(script):
        return script.replace("DISK", found[0][0]).replace("SG", found[0][1])

    def run(script, **kwargs):
        return guest.run(at_disk(script), **kwargs)

    def test(name):
        return tap.test(f"{kind}: {name}")

    def fails(script, status, *said):
        got, text = guest.attempt(at_disk(f"{{ {script}; }} 2>&1"))
        tap.equal(got, status, f"the status of {script}, which said {text!r}")
        tap.contains(text, *said)

    @test("INQUIRY, serial number, identification, limits, provisioning")
    def _():
        tap.contains(run("sg_inq /dev/DISK"), "PDT=0", "CmdQue=1", "Vendor identification:")
        pages = run("sg_vpd /dev/DISK")
        tap.contains(pages, "Unit serial number", "Device identification", "Block limits",
                     "Block device characteristics", "Logical block provisioning")
        tap.contains(run("sg_vpd -p sn /dev/DISK"), SERIAL)
        tap.contains(run("sg_vpd -p di /dev/DISK"), "designator type:", "Addressed logical unit")
        limits = run("sg_vpd -p bl /dev/DISK")
        for what in ("Maximum compare and write length", "Maximum unmap LBA count", "Maximum write same length"):
            value = re.search(rf"{what}: (\S+)", limits)
            tap.check(value and value[1] not in ("0", "0x0"), f"no {what} in:\n{limits}")
        tap.contains(run("sg_vpd -p bdc /dev/DISK"), "Non-rotating medium")
        tap.contains(run("sg_vpd -p lbpv /dev/DISK"), "(LBPU): 1", "(LBPWS): 1")
        fails("sg_raw -r 96 /dev/DISK 12 1 99 0 60 0", ILLEGAL_REQUEST, "Invalid field in cdb")

    @test("READ CAPACITY, REPORT LUNS, TEST UNIT READY, REQUEST SENSE")
    def _():
        tap.contains(run("sg_readcap /dev/DISK"), f"Last LBA={BLOCKS - 1}", "Logical block length=512 bytes")
        tap.contains(run("sg_readcap -l /dev/DISK"), f"Last LBA={BLOCKS - 1}", "lbpme=1")
        tap.contains(run("sg_luns /dev/DISK"), "0000000000000000")
        tap.contains(run("sg_turs -n 20 /dev/DISK && sg_requests -s /dev/DISK && echo good"), "good")

    @test("MODE SENSE and SELECT: the caching and control pages, the write cache off and on")
    def _():
        tap.contains(run("sg_modes -a /dev/DISK"), "Caching", "Control")
        for state in ("write through", "write back"):
            run(f"echo '{state}' >$(echo /sys/block/DISK/device/scsi_disk/*/cache_type)")
            page = re.search(r"^ 00 +08 \S\S (\S\S)", run("sg_modes -p 8 /dev/DISK"), re.MULTILINE)
            tap.equal(int(page[1], 16) & 4, 4 * (state == "write back"), f"the WCE bit after {state!r}")

    @test("READ and WRITE of 6, 10, 12 and 16 bytes, FUA and DPO, SYNCHRONIZE CACHE")
    def _():
        run("dd if=/dev/urandom of=/tmp/data bs=64k count=4 2>/dev/null")
        for size in (6, 10, 12, 16):
            flags = "" if size == 6 else "flag=fua,dpo"
            run(f"sg_dd if=/tmp/data of=/dev/DISK bs=512 count=512 seek=4096 bpt=100 cdbsz={size} "
                      f"{flags and 'o' + flags} 2>&1 && "
                      f"sg_dd if=/dev/DISK of=/tmp/back bs=512 count=512 skip=4096 bpt=64 cdbsz={size} "
                      f"{flags and 'i' + flags} 2>&1 && cmp /tmp/data /tmp/back && rm /tmp/back && "
                      "dd if=/dev/urandom of=/tmp/data bs=64k count=4 2>/dev/null")
        run("sg_sync /dev/DISK && sg_sync --16 /dev/DISK")

    @test("VERIFY finds what is equal, and what is not")
    def _():
        run("dd if=/dev/DISK of=/tmp/eight bs=512 skip=4096 count=8 iflag=direct 2>/dev/null && "
                  "sg_verify -l 4096 -c 128 /dev/DISK && sg_verify -S -l 4096 -c 128 /dev/DISK && "
                  "sg_verify -l 4096 -c 8 --ndo=4096 -i /tmp/eight /dev/DISK")
        fails("sg_verify -l 4097 -c 8 --ndo=4096 -i /tmp/eight /dev/DISK", MISCOMPARE)

    @test("WRITE SAME writes a pattern, and zeroes; UNMAP gives the space back; GET LBA STATUS answers")
    def _():
        tap.equal(run("yes penstock | head -c 512 >/tmp/one && "
                            "sg_write_same --10 -i /tmp/one -l 8192 -n 100 -x 512 /dev/DISK && "
                            "sg_write_same -S -i /tmp/one -l 8292 -n 100 -x 512 /dev/DISK && "
                            "dd if=/dev/DISK bs=512 skip=8192 count=200 iflag=direct 2>/dev/null | md5sum"),
                  run("for i in $(seq 200); do cat /tmp/one; done | md5sum"), "the pattern's checksum")
        run("dd if=/dev/urandom of=/dev/DISK bs=1M seek=32 count=16 oflag=direct 2>/dev/null")
        before = image.stat().st_blocks
        run("sg_unmap -l 65536 -n 16384 /dev/DISK && sg_write_same -S -U -i /dev/zero -l 81920 -n 8192 -x 512 "
                  "/dev/DISK && sg_sync /dev/DISK")
        tap.check(image.stat().st_blocks <= before - 11 * MIB // 512, "the image takes as much space as before")
        run("dd if=/dev/DISK bs=1M skip=32 count=12 iflag=direct 2>/dev/null | cmp -n 12582912 - /dev/zero")
        tap.contains(run("sg_get_lba_status -l 90112 /dev/DISK"), "LBA: 0x0000000000016000", "mapped")

    @test("COMPARE AND WRITE writes once, then miscompares and leaves the block")
    def _():
        run("dd if=/dev/DISK of=/tmp/pair bs=512 skip=50 count=1 2>/dev/null && cat /tmp/one >>/tmp/pair && "
                  "sg_compare_and_write -i /tmp/pair -l 50 -n 1 -x 1024 /dev/DISK && "
                  "dd if=/dev/DISK bs=512 skip=50 count=1 iflag=direct 2>/dev/null | cmp - /tmp/one")
        fails("sg_compare_and_write -i /tmp/pair -l 50 -n 1 -x 1024 /dev/DISK", MISCOMPARE)
        run("dd if=/dev/DISK bs=512 skip=50 count=1 iflag=direct 2>/dev/null | cmp - /tmp/one")

    @test("PERSISTENT RESERVE: register, reserve, release, clear")
    def _():
        run(f"sg_persist -n -o -G -S {KEY} /dev/DISK && sg_persist -n -o -R -K {KEY} -T 5 /dev/DISK")
        tap.contains(run("sg_persist -n -k /dev/DISK && sg_persist -n -r /dev/DISK && sg_persist -n -s /dev/DISK"),
                     KEY, "Write Exclusive, registrants only")
        tap.contains(run("sg_persist -n -c /dev/DISK"), "Exclusive Access, registrants only: 1")
        run("dd if=/dev/DISK of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null && "
                  "dd if=/tmp/one of=/dev/DISK bs=512 count=1 oflag=direct 2>/dev/null")
        fails(f"sg_persist -n -o -R -K {OTHER_KEY} -T 5 /dev/DISK", RESERVATION_CONFLICT)
        run(f"sg_persist -n -o -L -K {KEY} -T 5 /dev/DISK && sg_persist -n -o -C -K {KEY} /dev/DISK")
        tap.contains(run("sg_persist -n -k /dev/DISK"), "NO registered reservation keys")

    @test("REPORT SUPPORTED OPERATION CODES lists what works")
    def _():
        tap.contains(run("sg_opcodes /dev/DISK"), "Read(6)", "Read(16)", "Write same(16)", "Compare and write",
                     "Unmap", "Persistent reserve out, register", "Get LBA status", "Verify(10)")

    @test("each failure has its sense data: opcode, field, address")
    def _():
        fails("sg_raw /dev/DISK ff 0 0 0 0 0", INVALID_OPCODE, "Invalid command operation code")
        fails("sg_raw -r 512 /dev/DISK 28 0 7f ff ff ff 0 0 1 0", OUT_OF_RANGE, "Logical block address out of range")
        fails("sg_raw -r 512 /dev/DISK 28 e0 0 0 0 0 0 0 1 0", ILLEGAL_REQUEST, "Invalid field in cdb")
        fails(f"sg_raw -s 512 -i /tmp/one /dev/DISK 2a 0 {BLOCKS >> 24:x} {BLOCKS >> 16 & 255:x} {BLOCKS >> 8 & 255:x} "
              f"{BLOCKS & 255:x} 0 0 1 0", OUT_OF_RANGE, "Logical block address out of range")

    @test("resets under load lose nothing")
    def _():
        # Six writers, each with a part of its own, so that there is something to abort.
        run("dd if=/dev/urandom of=/tmp/load bs=64k count=32 2>/dev/null\n"
            "for part in 1 2 3 4 5 6; do (for i in $(seq 6); do dd if=/tmp/load of=/dev/DISK bs=64k "
            "seek=$((part * 32)) oflag=direct 2>/dev/null || exit 1; done) & done\n"
            f"for what in -d {RESETS[kind]} -d; do usleep 100000; sg_reset $what /dev/DISK || exit 1; done\n"
            "for job in $(jobs -p); do wait $job || { echo 'a write failed'; exit 1; }; done\n"
            "sg_turs /dev/DISK || sg_turs /dev/DISK || exit 1\n"
            "for part in 1 2 3 4 5 6; do dd if=/dev/DISK bs=64k skip=$((part * 32)) count=32 iflag=direct "
            "2>/dev/null | cmp - /tmp/load || exit 1; done", timeout=180)

    @test("a larger disk is announced, and seen")
    def _():
        machine.resize(kind, 2 * SIZE)
        run("sg_turs /dev/DISK; echo 1 >/sys/block/DISK/device/rescan; "
                  f"[ $(cat /sys/block/DISK/size) = {2 * BLOCKS} ] && dmesg | grep -qi 'capacity data has changed'")

    @test("libiscsi's conformance suite")
    def _():
        said = run("iscsi-test-cu -d -n --test=SCSI /dev/SG >/tmp/log 2>&1\n"
                         "grep -E 'had failures|^ +[0-9]+\\. |^ +(tests|asserts) ' /tmp/log | "
                         "cut -c1-140 | head -n 300",
                         timeout=300)
        summary = re.findall(r"^ +(tests|asserts) +\d+ +(\d+) ", said, re.MULTILINE)
        tap.check(dict(summary).get("tests") == "215" and int(dict(summary)["asserts"]) > 20000,
                  f"not all of the suite ran:\n{said[-1000:]}")
        failed = {".".join(names) for names in re.findall(r"Suite (\S+), Test (\S+) had failures", said)}
        tap.check(failed <= KNOWN.keys(), f"failed: {sorted(failed - KNOWN.keys())}\n{said}")


def main():
    with Lab() as lab:
        images = {kind: lab.image(f"{kind}.img", SIZE // MIB) for kind in KINDS}
        machine = Machine(lab, images, [{kind: [{"disk": kind, "serial": SERIAL}]} for kind in KINDS])
        guest = machine.boot(programs=[*(f"sg_{tool}" for tool in TOOLS.split()), "iscsi-test-cu"], cpus=2)
        for kind, image in images.items():
            check_commands(kind, machine, guest, image)
        tap.main()


main()
