#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The uplink pcap: captures that are replayed into a switch, and what comes out of it in a file. No privilege is needed."""

import json
import os
import signal
import struct
import subprocess
import time

from cli_checks import accepted, refused, tap
from lab import Lab

import hosts

NS = 1000000000


def frame(number, length=100, source=1):
    """An Ethernet frame to an address that nobody knows; its payload is its number and more."""
    return (bytes([2, 0, 0, 0, 1, 0, 2, 0, 0, 0, 2, source, 0x88, 0xb5]) + struct.pack(">I", number)
            + bytes(i * 7 & 0xff for i in range(length - 18)))


def pcap(records, link=1, magic=0xa1b23c4d):
    """A capture with ns stamps of (ns, frame)."""
    return struct.pack("<IHHiIII", magic, 2, 4, 0, 0, 262144, link) + b"".join(
        struct.pack("<IIII", ns // NS, ns % NS, len(data), len(data)) + data for ns, data in records)


def records(data):
    """What stands in a capture that penstock wrote: (ns, frame)."""
    tap.equal(struct.unpack_from("<IHHiIII", data), (0xa1b23c4d, 2, 4, 0, 0, 262144, 1), "the file's header")
    found, at = [], 24
    while at < len(data):
        seconds, ns, length, whole = struct.unpack_from("<IIII", data, at)
        tap.equal((length, ns < NS), (whole, True), f"the record at {at}")
        found.append((seconds * NS + ns, data[at + 16:at + 16 + length]))
        tap.equal(len(found[-1][1]), length, f"bytes of the record at {at}")
        at += 16 + length
    return found


class Files(Lab):
    def run(self, replay, sink="sink: out.pcap", loops=1):
        self.server = self.daemon("run", self.write("c.yaml", f"api: api.sock\nloops: {loops}\nswitches: {{lan: {{}}}}\nuplinks:\n"
                                                    f"  in: {{switch: lan, pcap: {{{replay}}}}}\n"
                                                    f"  out: {{switch: lan, pcap: {{{sink}}}}}\n"))

    def port(self, name):
        said = accepted(self.penstock("status", "--json", "--api", self.path("api.sock")))
        return next(port for port in json.loads(said)["ports"] if port["name"] == name)

    def replayed(self, seconds=30):
        """Waits until the replay is over; its port's reason."""
        deadline = time.monotonic() + seconds
        while self.port("in")["plugged"] or not self.port("in")["reason"]:
            tap.check(time.monotonic() < deadline, f"still replaying: {self.port('in')}")
            time.sleep(0.05)
        return self.port("in")["reason"]

    def written(self):
        """Ends penstock; the records of out.pcap."""
        tap.equal(self.server.stop(), 0, f"exit status {self.server.last_lines()}")
        return records(self.path("out.pcap").read_bytes())


LENGTHS = (60, 18, 1514, 9014, 65550, 100)


@tap.test("a capture goes through a switch into a file: each frame whole, in order, with its gaps")
def _():
    with Files() as lab:
        sent = [(5 * NS + i * 20000000, frame(i, LENGTHS[i % 6])) for i in range(30)]
        lab.path("in.pcap").write_bytes(pcap(sent))
        lab.run("replay: in.pcap")
        tap.contains(lab.replayed(), "all of in.pcap")
        got = lab.written()
        tap.equal([len(data) for _, data in got], [len(data) for _, data in sent], "lengths of frames")
        tap.check([data for _, data in got] == [data for _, data in sent], "some frame is not what it was")
        took = (got[-1][0] - got[0][0]) / NS
        tap.check(0.5 < took < 10, f"they took {took} s, not 0.58")
        now = time.time_ns()
        tap.check(now - 60 * NS < got[-1][0] < now, f"stamped {got[-1][0]}, now it is {now}")


@tap.test("pcapng, three times over, at a rate; on two loops")
def _():
    with Files() as lab:
        sent = [(i, frame(i)) for i in range(100)]
        lab.path("in.pcap").write_bytes(pcap(sent))
        subprocess.run(["editcap", "-F", "pcapng", lab.path("in.pcap"), lab.path("in.pcapng")], check=True, timeout=30)
        tap.check(lab.path("in.pcapng").read_bytes()[:4] == b"\x0a\x0d\x0d\x0a", "editcap wrote no pcapng")
        began = time.monotonic()
        lab.run("replay: in.pcapng, rate: 200, loop: 3", loops=2)
        lab.replayed()
        tap.check(time.monotonic() - began > 1.4, "300 frames at 200 a second were too fast")
        tap.equal(lab.port("in")["in"]["packets"], 300, "frames that came in")
        got = [data for _, data in lab.written()]
        wanted = [data for _, data in sent] * 3
        tap.check(len(got) > 290 and got == wanted[-len(got):], f"{len(got)} frames in the file, or in another order")


@tap.test("a replay without end, as fast as can be: nothing is lost unless it is counted, and penstock ends at once")
def _():
    with Files() as lab:
        lab.path("in.pcap").write_bytes(pcap([(i, frame(i, 200)) for i in range(1000)]))
        lab.run("replay: in.pcap, rate: 100000000, loop: 0")
        time.sleep(2)
        port = lab.port("out")
        tap.check(lab.port("in")["in"]["packets"] > 10000, f"only {lab.port('in')['in']}")
        tap.check(port["out"]["packets"], f"nothing went out: {port['out']}")
        got = lab.written()
        tap.check(len(got) >= port["out"]["packets"], f"{len(got)} in the file, of {port['out']}")


@tap.test("the file has what was sent a second later, without an end of penstock")
def _():
    with Files() as lab:
        lab.path("in.pcap").write_bytes(pcap([(0, frame(0))]))
        lab.run("replay: in.pcap")
        deadline = time.monotonic() + 20
        while len(records(lab.path("out.pcap").read_bytes())) < 1:
            tap.check(time.monotonic() < deadline, "the frame is not in the file")
            time.sleep(0.1)
        lab.written()


@tap.test("a capture that ends in the middle, or is damaged: what is before is sent, and it is said where")
def _():
    whole = pcap([(i, frame(i)) for i in range(10)])
    for name, data, wanted in (("short", whole[:-30], ("packet 10", "byte 1154", "truncated")),
                               ("damaged", whole[:24 + 116 * 4 + 8] + b"\xff" * 8 + whole[24 + 116 * 4 + 16:],
                                ("packet 5", "byte 504"))):
        with Files() as lab:
            lab.path("in.pcap").write_bytes(data)
            lab.run("replay: in.pcap")
            reason = lab.replayed()
            tap.contains(reason, "in.pcap", *wanted)
            tap.equal(len(lab.written()), 9 if name == "short" else 4, "frames before")


@tap.test("files that cannot be had, or are none: refused, by name and reason")
def _():
    with Files() as lab:
        lab.path("good.pcap").write_bytes(pcap([(0, frame(0))]))
        lab.path("text").write_text("this is no capture\n" * 10)
        lab.path("empty").write_bytes(b"")
        lab.path("wlan.pcap").write_bytes(pcap([(0, frame(0))], link=105))
        os.mkfifo(lab.path("fifo"))
        for options, wanted in (("replay: nope.pcap", ("replay", "nope.pcap", "No such file")),
                                ("replay: text", ("text", "first", "bytes", "unknown file format")),
                                ("replay: empty", ("empty", "truncated")),
                                ("replay: wlan.pcap", ("wlan.pcap", "IEEE802_11", "not Ethernet")),
                                ("replay: fifo", ("fifo", "not a regular file")),
                                ("sink: nowhere/out.pcap", ("sink", "nowhere/out.pcap", "No such file")),
                                ("sink: fifo", ("sink", "fifo")),
                                ("replay: good.pcap, sink: good.pcap", ("sink", "good.pcap", "is replayed")),
                                ("rate: 5", ("replay", "sink")),
                                ("replay: good.pcap, rate: fast", ("rate", "fast"))):
            lab.write("c.yaml", f"switches: {{lan: {{}}}}\nuplinks:\n  in: {{switch: lan, pcap: {{{options}}}}}\n")
            done = lab.penstock("run", "c.yaml")
            refused(done, done.returncode, *wanted)
            tap.check(done.returncode, "it ran")
        tap.equal(lab.path("good.pcap").read_bytes(), pcap([(0, frame(0))]), "the capture that is good")


@tap.test("penstock check looks whether the capture is there; the sink is made")
def _():
    with Files() as lab:
        lab.write("c.yaml", "switches: {lan: {}}\nuplinks:\n  in:\n    switch: lan\n    pcap:\n      replay: in.pcap\n"
                            "      sink: out.pcap\n  out: {switch: lan, pcap: {sink: other.pcap}}\n")
        refused(lab.penstock("check", "c.yaml"), 2, "c.yaml:6:", "uplink 'in': pcap: replay: 'in.pcap'", "No such file")
        lab.path("in.pcap").write_bytes(pcap([(0, frame(0))]))
        accepted(lab.penstock("check", "c.yaml"))
        tap.check(not lab.path("out.pcap").exists(), "check has made a file")


@tap.test("a capture without packets, without end: it ends all the same")
def _():
    with Files() as lab:
        lab.path("in.pcap").write_bytes(pcap([]))
        lab.run("replay: in.pcap, loop: 0")
        tap.contains(lab.replayed(), "no packets")
        lab.written()


@tap.test("a disk that is full: the sink says so, and the switch goes on")
def _():
    hosts.need()
    with Files() as lab:
        lab.path("small").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", lab.path("small")], check=True, timeout=30)
        try:
            lab.path("in.pcap").write_bytes(pcap([(i, frame(i, 1500)) for i in range(10)]))
            lab.run("replay: in.pcap, rate: 1000, loop: 0", "sink: small/out.pcap")
            deadline = time.monotonic() + 20
            while lab.port("out")["plugged"]:
                tap.check(time.monotonic() < deadline, f"it does not see it: {lab.port('out')}")
                time.sleep(0.1)
            port = lab.port("out")
            tap.contains(port["reason"], "No space left on device")
            tap.check(port["out"]["drops"].get("error"), f"drops: {port['out']}")
            tap.equal(lab.server.stop(), 0, "exit status")
        finally:
            lab.server.kill()
            subprocess.run(["umount", lab.path("small")], check=True, timeout=30)


class Storage:
    """A file of a file system that hangs when it is told to. After the `with` block it is an empty file."""

    def __init__(self, lab, name):
        hosts.need()
        try:
            os.close(os.open("/dev/fuse", os.O_RDWR))
        except OSError as error:
            raise tap.Skip(f"no FUSE here: {error}") from None
        path = self.path = lab.path(name)
        lab.path("backing").write_bytes(path.read_bytes() if path.exists() else b"")
        path.touch()
        self.server = lab.end_with(subprocess.Popen(
            ["qemu-storage-daemon", "--blockdev", f"file,node-name=file,filename={lab.path('backing')}", "--export",
             f"fuse,id=export,node-name=file,mountpoint={path},writable=on,growable=on"], stderr=subprocess.PIPE, text=True))
        deadline = time.monotonic() + 20
        while f" {path} " not in open("/proc/self/mountinfo", encoding="utf-8").read():
            if self.server.poll() is not None:
                said = self.server.stderr.read().strip()
                if "fuse" in said.lower():
                    raise tap.Skip(f"no FUSE here: {said}")
                raise tap.Failure(f"qemu-storage-daemon has ended: {said}")
            tap.check(time.monotonic() < deadline, "it is not mounted")
            time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.answer()
        self.server.terminate()
        try:
            self.server.wait(10)    # it unmounts
        except subprocess.TimeoutExpired:
            self.server.kill()
            subprocess.run(["umount", "-l", self.path], timeout=30)

    def hang(self):
        self.server.send_signal(signal.SIGSTOP)

    def answer(self):
        self.server.send_signal(signal.SIGCONT)


@tap.test("storage that hangs holds up the end for some seconds only: of the sink, of the replay")
def _():
    for hangs, options, says in (("out.pcap", "replay: in.pcap, rate: 1000, loop: 0", "sink: what is left is written to out.pcap"),
                                 ("in.pcap", "replay: in.pcap, rate: 100000000, loop: 0", "replay: in.pcap is still being read")):
        with Files() as lab:
            # Of whole blocks: such a file has nothing else.
            lab.path("in.pcap").write_bytes(pcap([(i, frame(i, 1540 if i == 1999 else 1500)) for i in range(2000)]))
            tap.equal(lab.path("in.pcap").stat().st_size % 512, 0, "bytes in the last block")
            with Storage(lab, hangs) as storage:
                lab.run(options)
                deadline = time.monotonic() + 20
                while lab.path("out.pcap").stat().st_size < 100000:
                    tap.check(time.monotonic() < deadline, "nothing is written")
                    time.sleep(0.1)
                storage.hang()
                time.sleep(2)
                lab.server.process.terminate()
                deadline = time.monotonic() + 30
                while says not in lab.log.read_text():
                    tap.check(time.monotonic() < deadline, f"it waits for storage: {lab.server.last_lines()}")
                    time.sleep(0.1)
                storage.answer()    # The kernel closes files only then, and the process has ended.
                tap.equal(lab.server.process.wait(30), 0, f"exit status {lab.server.last_lines()}")


hosts.enter()
tap.main()
