#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Registers, DMA and interrupts of IDE and PVSCSI through the real vfio-user client, with no guest: this program is the
CPU (QEMU's qtest). The two are functions of one device."""

import json
import struct
import subprocess
import time

from guest_checks import tap
from lab import MIB, Lab
from machine import Machine

SLOT = 4
IDE_PORTS = (0xc000, 0xc010, 0xc020, 0xc030, 0xc040)    # command and control blocks of both channels, bus master
PVSCSI_BASE = 0xe0000000
PRD, BUFFER, RING_STATE, REQUESTS, COMPLETIONS = 0x100000, 0x200000, 0x300000, 0x301000, 0x302000
SECONDS = 10


class Processor:
    """What a CPU can do to its devices, by qtest's lines."""

    def __init__(self, command):
        self.process = subprocess.Popen([*command, "-accel", "qtest", "-qtest", "stdio"], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def say(self, *words):
        print(*words, file=self.process.stdin, flush=True)
        while True:
            line = self.process.stdout.readline()
            tap.check(line, f"QEMU ended at: {words}")
            if not line.startswith("IRQ"):
                tap.check(line.startswith("OK"), f"{words}: {line}")
                return line.split()[1:]

    def put(self, how, address, value):
        """how: outb, outl, writel, ..."""
        self.say(how, hex(address), hex(value))

    def get(self, how, address):
        """how: inb, inw, readl, ..."""
        return int(self.say(how, hex(address))[0], 0)

    def write(self, address, data):
        self.say("write", hex(address), len(data), "0x" + data.hex())

    def read(self, address, length):
        return bytes.fromhex(self.say("read", hex(address), length)[0][2:])

    def config(self, function, offset):
        self.put("outl", 0xcf8, 1 << 31 | SLOT << 11 | function << 8 | offset)
        return self.get("inl", 0xcfc)

    def set_config(self, function, offset, value):
        self.put("outl", 0xcf8, 1 << 31 | SLOT << 11 | function << 8 | offset)
        self.put("outl", 0xcfc, value)


def until(condition, what):
    end = time.monotonic() + SECONDS
    while not condition():
        tap.check(time.monotonic() < end, f"{what}: not within {SECONDS} s")


def arguments(machine):
    """The machine's, its vfio-user devices as functions 0 and 1 of one slot."""
    words = machine.arguments()
    for number, at in enumerate(i for i, word in enumerate(words) if word.startswith("{")):
        words[at] = json.dumps({**json.loads(words[at]), "addr": f"{SLOT}.{number}", "multifunction": True})
    return words


class Ide:
    """The primary master."""

    def __init__(self, cpu):
        self.cpu = cpu
        for bar, port in enumerate(IDE_PORTS):
            cpu.set_config(0, 0x10 + 4 * bar, port)
        cpu.set_config(0, 4, 5)     # I/O, bus master

    def status(self):
        return self.cpu.get("inb", IDE_PORTS[0] + 7)

    def command(self, code, sector=0, count=1):
        for register, value in ((6, 0xe0 | sector >> 24), (2, count), (3, sector & 255), (4, sector >> 8 & 255),
                                (5, sector >> 16 & 255), (7, code)):
            self.cpu.put("outb", IDE_PORTS[0] + register, value)

    def dma(self, code, sector, count):
        """One command by the table at PRD; the bus master's status after it."""
        reading = 8 if code == 0xc8 else 0
        self.cpu.put("outl", IDE_PORTS[4] + 4, PRD)
        self.cpu.put("outb", IDE_PORTS[4] + 2, 6)
        self.command(code, sector, count)
        self.cpu.put("outb", IDE_PORTS[4], reading | 1)
        until(lambda: not self.status() & 0x80 and self.cpu.get("inb", IDE_PORTS[4] + 2) & 4, "the transfer's end")
        self.cpu.put("outb", IDE_PORTS[4], reading)
        return self.cpu.get("inb", IDE_PORTS[4] + 2)


class Pvscsi:
    def __init__(self, cpu):
        self.cpu = cpu
        self.sent = 0
        cpu.set_config(1, 0x10, PVSCSI_BASE)
        cpu.set_config(1, 4, 6)     # memory, bus master

    def command(self, code, words=b""):
        self.cpu.put("writel", PVSCSI_BASE, code)
        for (word,) in struct.iter_unpack("<I", words):
            self.cpu.put("writel", PVSCSI_BASE + 4, word)

    def set_up(self):
        self.command(1)             # ADAPTER_RESET
        self.cpu.write(RING_STATE, bytes(4096))
        self.command(3, struct.pack("<IIQ32Q32Q", 1, 1, RING_STATE >> 12, REQUESTS >> 12, *[0] * 31,
                                    COMPLETIONS >> 12, *[0] * 31))
        until(lambda: self.state(8) == 5, "the rings' sizes")   # 32 requests of 128 bytes in a page

    def state(self, offset):
        return struct.unpack("<I", self.cpu.read(RING_STATE + offset, 4))[0]

    def run(self, cdb, length, flags):
        """One request on target 0 with data at BUFFER: (host status, SCSI status)."""
        self.cpu.write(REQUESTS + self.sent % 32 * 128, struct.pack(
            "<QQQQII16sB8sBBBB", self.sent + 1, BUFFER, length, 0, 0, flags, cdb, len(cdb), bytes(8), 0x20, 0, 0, 0))
        self.sent += 1
        self.cpu.write(RING_STATE, struct.pack("<I", self.sent))
        self.cpu.put("writel", PVSCSI_BASE + 0x3014, 0)
        until(lambda: self.state(12) == self.sent, "the completion")
        done = self.cpu.read(COMPLETIONS + (self.sent - 1) % 128 * 32, 32)
        context, _, _, host, scsi = struct.unpack_from("<QQIHH", done)
        self.cpu.write(RING_STATE + 16, struct.pack("<I", self.sent))
        tap.equal(context, self.sent, "whose completion it is")
        return host, scsi


def pattern(seed, length):
    return bytes((seed + i * 7 + i // 512) & 255 for i in range(length))


def main():
    with Lab() as lab:
        images = {name: lab.image(f"{name}.img", 16) for name in ("ide", "pvscsi")}
        for seed, path in enumerate(images.values()):
            with open(path, "r+b") as image:
                image.write(pattern(seed, MIB))
        with Machine(lab, images, [{"ide": ["ide"]}, {"pvscsi": ["pvscsi"]}], memory=64) as machine, \
                Processor([*machine.qemu(), "-M", "q35", "-nodefaults", "-display", "none", *arguments(machine)]) as cpu:
            ide, pvscsi = Ide(cpu), Pvscsi(cpu)

            @tap.test("both functions of the device are there")
            def _():
                tap.equal(hex(cpu.config(0, 0)), "0x27c08086", "function 0")
                tap.equal(hex(cpu.config(1, 0)), "0x7c015ad", "function 1")

            @tap.test("IDE: IDENTIFY DEVICE by PIO")
            def _():
                ide.command(0xec)
                until(lambda: ide.status() & 0x88 == 8, "data")
                words = struct.pack(">256H", *(cpu.get("inw", IDE_PORTS[0]) for _ in range(256)))
                tap.contains(words[54:94].decode(), "PENSTOCK")
                tap.equal(struct.unpack(">HH", words[120:124]), (16 * MIB // 512, 0), "sectors")
                tap.equal(ide.status() & 0x89, 0, "status afterwards")

            @tap.test("IDE: READ DMA into two pieces of memory, and the interrupt")
            def _():
                cpu.write(BUFFER, bytes(8192))
                cpu.write(PRD, struct.pack("<IIII", BUFFER, 0x600, BUFFER + 4096, 1 << 31 | 0xa00))
                tap.equal(ide.dma(0xc8, 3, 8) & 7, 4, "bus master status")
                wanted = pattern(0, MIB)[3 * 512:11 * 512]
                tap.check(cpu.read(BUFFER, 0x600) + cpu.read(BUFFER + 4096, 0xa00) == wanted, "other bytes were read")

            @tap.test("IDE: WRITE DMA, FLUSH CACHE, and the image has it")
            def _():
                data = pattern(99, 4096)
                cpu.write(BUFFER, data)
                cpu.write(PRD, struct.pack("<II", BUFFER, 1 << 31 | 4096))
                tap.equal(ide.dma(0xca, 64, 8) & 7, 4, "bus master status")
                ide.command(0xe7)
                until(lambda: not ide.status() & 0x80, "the flush")
                tap.check(images["ide"].read_bytes()[64 * 512:72 * 512] == data, "the image has other bytes")

            @tap.test("IDE: a table outside memory is an error, and the next command works")
            def _():
                cpu.write(PRD, struct.pack("<II", 0x7ff00000, 1 << 31 | 4096))
                tap.equal(ide.dma(0xc8, 0, 8) & 2, 2, "bus master error")
                tap.equal(ide.status() & 1, 1, "error in the status")
                cpu.write(PRD, struct.pack("<II", BUFFER, 1 << 31 | 4096))
                tap.equal(ide.dma(0xc8, 0, 8) & 7, 4, "bus master status")

            @tap.test("PVSCSI: rings, INQUIRY, READ and WRITE, a failed command")
            def _():
                pvscsi.set_up()
                while pvscsi.run(bytes(6), 0, 4)[1]:    # until no unit attention is left
                    tap.check(pvscsi.sent < 8, "the unit never gets ready")
                tap.equal(pvscsi.run(b"\x12\0\0\0\x24\0", 36, 8), (0, 0), "INQUIRY")
                tap.equal(cpu.read(BUFFER + 8, 8), b"PENSTOCK", "vendor")
                tap.equal(pvscsi.run(struct.pack(">BBIBHB", 0x28, 0, 5, 0, 4, 0), 2048, 8), (0, 0), "READ(10)")
                tap.check(cpu.read(BUFFER, 2048) == pattern(1, MIB)[5 * 512:9 * 512], "other bytes were read")
                cpu.write(BUFFER, pattern(42, 2048))
                tap.equal(pvscsi.run(struct.pack(">BBIBHB", 0x2a, 8, 100, 0, 4, 0), 2048, 16), (0, 0), "WRITE(10), FUA")
                tap.check(images["pvscsi"].read_bytes()[100 * 512:104 * 512] == pattern(42, 2048), "the image has other bytes")
                tap.equal(pvscsi.run(struct.pack(">BBIBHB", 0x28, 0, 2**31, 0, 1, 0), 512, 8)[1], 2, "READ beyond the end")

            tap.main()


main()
