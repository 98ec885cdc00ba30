#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Captures from outside: penstock capture and the layer, read by tshark, tcpdump, capinfos and our own reader;
readers that are slow, end, or are killed."""

import json
import os
import pty
import signal
import struct
import subprocess
import time
from pathlib import Path

from cli_checks import accepted, refused, tap
from lab import PENSTOCK, Lab

import hosts

CONFIG = """\
api: api.sock
state: state.json
switches:
  lan: {}
uplinks:
  hist: {switch: lan, pcap: {replay: in.pcap, rate: RATE, loop: 0}, layers: [count]}
  sink: {switch: lan, pcap: {sink: sink.pcap}}
  quiet: {switch: lan, unknown: false, pcap: {sink: quiet.pcap}}
"""


HOSTS = """\
api: api.sock
switches:
  lan: {}
uplinks:
  a: {switch: lan, packet: {interface: va}, layers: [{capture: {file: a.pcapng}}]}
  b: {switch: lan, packet: {interface: vb}}
"""


def summed(octets):
    octets += b"\0" * (len(octets) % 2)
    total = sum(struct.unpack(f">{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def udp_frame(port, size):
    """An Ethernet frame with UDP to `port`, of `size` bytes of payload."""
    addresses = b"\x0a\0\0\1\x0a\0\0\2"
    udp = struct.pack(">HHHH", 1234, port, 8 + size, 0) + bytes(size)
    check = summed(addresses + struct.pack(">BBH", 0, 17, len(udp)) + udp) or 0xffff
    udp = udp[:6] + struct.pack(">H", check) + udp[8:]
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + addresses
    header = header[:10] + struct.pack(">H", summed(header)) + header[12:]
    return b"\x02\0\0\0\0\x02" + b"\x02\0\0\0\0\x01" + b"\x08\x00" + header + udp


def running(lab, rate=1000, size=200, config=CONFIG):
    """A daemon where frames to ports 80 to 83 come in at `hist` and go out at `sink`, and none at `quiet`."""
    with open(lab.path("in.pcap"), "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
        for number in range(100):
            frame = udp_frame(80 + number % 4, size)
            file.write(struct.pack("<IIII", 1, number, len(frame), len(frame)) + frame)
    os.environ["PENSTOCK_API"] = str(lab.path("api.sock"))
    return lab.daemon("run", lab.write("net.yaml", config.replace("RATE", str(rate))))


def capturing(lab, *arguments, **kwargs):
    """A running penstock capture."""
    return lab.end_with(subprocess.Popen([PENSTOCK, "capture", *map(str, arguments)], cwd=lab.directory, bufsize=0,
                                         stdout=kwargs.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE, **kwargs))


def status(lab, port):
    """What penstock says of a port."""
    ports = json.loads(accepted(lab.penstock("status", "--json")))["ports"]
    return next(one for one in ports if one["name"] == port)


def layers(lab, port="hist"):
    """The kinds of layers that the port has."""
    return [kind for layer in status(lab, port)["layers"] for kind in layer]


def until(condition, what, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        tap.check(time.monotonic() < end, f"not in {seconds} s: {what}")
        time.sleep(0.05)


def ticks(daemon):
    """CPU time of the thread of the only capture, in ticks of 10 ms."""
    tasks = Path(f"/proc/{daemon.process.pid}/task")
    mine = [task for task in tasks.iterdir() if (task / "comm").read_text().strip() == "capture"]
    tap.equal(len(mine), 1, "threads of captures")
    return sum(map(int, (mine[0] / "stat").read_text().rsplit(") ", 1)[1].split()[11:13]))


def no_layer_is_left(lab, port="hist", rest=("count",)):
    until(lambda: layers(lab, port) == list(rest), "the capture's layer to go")


def blocks(octets):
    """(type, body) of each block of a pcapng file, all of which must be whole."""
    at = 0
    while at < len(octets):
        kind, length = struct.unpack_from("<II", octets, at)
        tap.check(length >= 12 and at + length <= len(octets), f"a block at {at} of {len(octets)} is not whole")
        tap.equal(struct.unpack_from("<I", octets, at + length - 4)[0], length, "the length at a block's end")
        yield kind, octets[at + 8:at + length - 4]
        at += length


def options(octets):
    """{code: value} of a list of options."""
    found = {}
    while len(octets) >= 4:
        code, length = struct.unpack_from("<HH", octets)
        if not code:
            break
        found[code] = octets[4:4 + length]
        octets = octets[4 + (length + 3) // 4 * 4:]
    return found


def packets(octets):
    """How many packets a capture holds, and what its last statistics and its packets say were missed."""
    count = between = missed = 0
    for kind, body in blocks(octets):
        if kind == 6:
            count += 1
            captured = struct.unpack_from("<I", body, 12)[0]
            drop = options(body[20 + (captured + 3) // 4 * 4:]).get(4)
            between += struct.unpack("<Q", drop)[0] if drop else 0
        elif kind == 5:
            missed = struct.unpack("<Q", options(body[12:])[5])[0]
    return count, missed, between


def tshark(lab, name, *fields):
    """The fields of each packet of a capture, as tshark reads it."""
    done = subprocess.run(["tshark", "-n", "-r", name, "-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE",
                           "-T", "fields", *[word for field in fields for word in ("-e", field)]],
                          cwd=lab.directory, text=True, capture_output=True, timeout=60)
    tap.equal(done.returncode, 0, f"tshark's exit status ({done.stderr})")
    return [tuple(line.split("\t")) for line in done.stdout.splitlines()]


@tap.test("tshark, capinfos and tcpdump read what penstock capture writes: names, directions, sums, counters")
def _():
    with Lab() as lab:
        running(lab)
        accepted(lab.penstock("capture", "hist", "--count", "50", "-w", "in.pcapng"))
        accepted(lab.penstock("capture", "sink", "-c", "50", "-f", "udp port 82", "-w", "out.pcapng"))
        for name, port, direction in (("in.pcapng", "hist", 1), ("out.pcapng", "sink", 2)):
            rows = tshark(lab, name, "frame.interface_name", "frame.packet_flags_direction", "udp.checksum.status",
                          "ip.checksum.status", "udp.dstport", "frame.len")
            tap.equal(len(rows), 50, "packets")
            for row in rows:
                tap.equal((row[0], int(row[1], 0), row[2], row[3], row[5]), (port, direction, "1", "1", "242"), "a packet")
            tap.equal({row[4] for row in rows}, {"82"} if port == "sink" else {"80", "81", "82", "83"}, "ports")
            text = subprocess.run(["capinfos", lab.path(name)], text=True, capture_output=True, timeout=60).stdout
            tap.contains(text, "nanoseconds", f"Name = {port}", "of penstock", "Number of stat entries = 1", "layer 0")
            text = subprocess.run(["tcpdump", "-nr", lab.path(name)], text=True, capture_output=True, timeout=60).stdout
            tap.equal(text.count("UDP, length 200"), 50, "packets that tcpdump shows")
        no_layer_is_left(lab)
        no_layer_is_left(lab, "sink", ())


@tap.test("a pipe to tshark, which ends first; --at, --direction and --snap-length do what they say")
def _():
    with Lab() as lab:
        running(lab)
        done = subprocess.run(f"'{PENSTOCK}' capture hist --at inside | tshark -c 7 -nr - 2>/dev/null | wc -l", shell=True,
                              text=True, capture_output=True, timeout=60)
        tap.equal(done.stdout.strip(), "7", "lines of tshark")
        no_layer_is_left(lab)
        for at, kinds in (("outside", ["capture", "count"]), ("inside", ["count", "capture"]), ("count", ["capture", "count"]),
                          ("1", ["count", "capture"])):
            process = capturing(lab, "hist", "--at", at)
            process.stdout.read(100)
            tap.equal(layers(lab), kinds, f"layers with --at {at}")
            process.kill()
            no_layer_is_left(lab)
        process = capturing(lab, "hist", "--direction", "out")
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        tap.equal(packets(process.communicate(timeout=20)[0])[0], 0, "packets that go out where they only come in")
        accepted(lab.penstock("capture", "hist", "-c", "3", "-s", "64", "-w", "short.pcapng"))
        tap.equal(set(tshark(lab, "short.pcapng", "frame.cap_len", "frame.len")), {("64", "242")}, "lengths")


@tap.test("mistakes: no such port, place, filter, direction, number; a terminal; a file that cannot be made")
def _():
    with Lab() as lab:
        running(lab)
        refused(lab.penstock("capture", "hst"), 1, "hst", "hist")
        refused(lab.penstock("capture", "hist", "--at", "nowhere"), 1, "nowhere", "0 count")
        refused(lab.penstock("capture", "hist", "-f", "tcp prt 80"), 1, "filter: ", "tcp prt 80", "pcap-filter(7)")
        refused(lab.penstock("capture", "hist", "--direction", "up"), 1, "direction: ", "in, out, both")
        refused(lab.penstock("capture", "hist", "--count", "many"), 2, "--count")
        refused(lab.penstock("capture", "hist", "-w", "no/where"), 1, "no/where")
        refused(lab.penstock("capture"), 2, "missing")
        refused(lab.penstock("capture", "hist", "--api", "gone.sock"), 1, "gone.sock")
        ours, terminal = pty.openpty()
        process = capturing(lab, "hist", stdout=terminal)
        _, said = process.communicate(timeout=20)
        tap.equal(process.returncode, 2, "exit status at a terminal")
        tap.contains(said.decode(), "terminal", "tshark")
        os.close(ours)
        os.close(terminal)
        curl = ["curl", "-s", "--max-time", "20", "--unix-socket", lab.path("api.sock")]
        for query, status in (("count=x", 400), ("snap-length=1", 400), ("filter=zzz%20top", 400), ("at=9", 404)):
            done = subprocess.run([*curl, "-w", "%{http_code}", f"http://p/v1/ports/hist/capture?{query}"], text=True,
                                  capture_output=True, timeout=30)
            tap.equal(int(done.stdout[-3:]), status, f"status of {query}: {done.stdout}")
        tap.equal(layers(lab), ["count"], "layers")


@tap.test("a reader that is killed, ends, or is told to end leaves no layer behind; and curl works as well")
def _():
    with Lab() as lab:
        running(lab)
        for number in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process = capturing(lab, "hist")
            head = process.stdout.read(1000)
            tap.equal(layers(lab), ["capture", "count"], "layers")
            process.send_signal(number)
            rest = process.communicate(timeout=20)[0]
            no_layer_is_left(lab)
            if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                tap.equal(process.returncode, 0, f"exit status after signal {number}")
                kinds = [kind for kind, _ in blocks(head + rest)]
                tap.equal(kinds[-1], 5, "the last block: statistics")
        # Nothing comes by: that the reader goes is noticed all the same.
        process = capturing(lab, "quiet")
        process.stdout.read(100)
        process.stdout.close()
        tap.equal(process.wait(20), 0, "exit status when the reader has gone")
        no_layer_is_left(lab, "quiet", ())
        process = capturing(lab, "quiet")
        process.stdout.read(100)
        process.kill()
        no_layer_is_left(lab, "quiet", ())
        for arguments in (["--max-time", "1"], ["--max-time", "1", "--http1.0"]):
            done = subprocess.run(["curl", "-sN", *arguments, "--unix-socket", lab.path("api.sock"),
                                   "http://p/v1/ports/hist/capture?filter=udp%20port%2081"], capture_output=True, timeout=30)
            tap.check(len(done.stdout) > 5000, f"curl got {len(done.stdout)} bytes")
            no_layer_is_left(lab)
        done = subprocess.run(["curl", "-sN", "--unix-socket", lab.path("api.sock"), "http://p/v1/ports/hist/capture?count=9"],
                              capture_output=True, timeout=30)
        tap.equal((done.returncode, packets(done.stdout)[0]), (0, 9), "curl's status, packets")
        subprocess.run(["curl", "-sI", "--unix-socket", lab.path("api.sock"), "http://p/v1/ports/hist/capture"],
                       capture_output=True, timeout=30)
        no_layer_is_left(lab)


@tap.test("a reader that stops misses packets, which are counted; what flows does not wait")
def _():
    with Lab() as lab:
        daemon = running(lab, 5000, 1400)

        def delivered():
            return status(lab, "sink")["out"]["packets"]

        process = capturing(lab, "hist")
        head = process.stdout.read(100)
        time.sleep(2)
        before, worked = delivered(), ticks(daemon)
        time.sleep(2)
        tap.check(delivered() - before > 5000, f"{delivered() - before} packets in 2 s with a reader that has stopped")
        tap.check(ticks(daemon) - worked <= 5, f"{ticks(daemon) - worked} ticks in 2 s of waiting for it")
        process.send_signal(signal.SIGTERM)
        count, missed, between = packets(head + process.communicate(timeout=30)[0])
        tap.check(count > 1000 and missed > 1000, f"{count} packets read, {missed} missed")
        tap.check(between <= missed, f"{between} missed between packets of {missed}")
        tap.equal(process.returncode, 0, "exit status")
        no_layer_is_left(lab)
        tap.check(daemon.running(), "the daemon has ended")


@tap.test("a layer that others take out, and a daemon that ends, end the capture, and say so")
def _():
    with Lab() as lab:
        daemon = running(lab)
        process = capturing(lab, "hist")
        process.stdout.read(100)
        accepted(lab.penstock("remove-layer", "hist", "capture"))
        tap.contains(process.communicate(timeout=20)[1].decode(), "taken out")
        tap.equal(process.returncode, 1, "exit status")
        process = capturing(lab, "hist")
        process.stdout.read(100)
        began = time.monotonic()
        tap.equal(daemon.stop(), 0, "the daemon's exit status")
        tap.check(time.monotonic() - began < 10, "the daemon took longer than 10 s to end")
        tap.contains(process.communicate(timeout=20)[1].decode(), "gone")
        tap.equal(process.returncode, 1, "exit status")


@tap.test("several captures of a port at once; none is in the configuration or the state file")
def _():
    with Lab() as lab:
        running(lab)
        processes = [capturing(lab, "hist", "-f", f"udp port {80 + number}", "-c", "100", "-w", f"{number}.pcapng")
                     for number in range(4)]
        long = capturing(lab, "hist")
        long.stdout.read(100)
        accepted(lab.penstock("insert-layer", "hist", "0", "count"))
        tap.check("stream:" not in lab.path("state.json").read_text(), "a stream is in the state file")
        config = accepted(lab.penstock("config"))
        tap.check("capture" not in config, f"a stream is in the configuration:\n{config}")
        for number, process in enumerate(processes):
            tap.equal(process.wait(60), 0, f"exit status ({process.stderr.read()})")
            tap.equal(set(tshark(lab, f"{number}.pcapng", "udp.dstport")), {(str(80 + number),)}, "ports")
        tap.check(long.poll() is None, "the one that shall go on has ended")
        long.kill()
        no_layer_is_left(lab, "hist", ["count", "count"])
        # The limit is told, and there is room again afterwards.
        many = [capturing(lab, "quiet") for _ in range(16)]
        for process in many:
            process.stdout.read(100)
        refused(lab.penstock("capture", "quiet"), 1, "16 captures")
        for process in many:
            process.kill()
        no_layer_is_left(lab, "quiet", ())
        accepted(lab.penstock("capture", "hist", "-c", "1", "-w", "last.pcapng"))


@tap.test("a layer writes a ring of files; its filter changes while packets flow; a restart goes on")
def _():
    with Lab() as lab:
        daemon = running(lab, 2000)
        accepted(lab.penstock("insert-layer", "sink", "0",
                              "capture: {file: ring.pcapng, filter: udp port 80, file-size: 64K, files: 3}"))
        until(lambda: lab.path("ring-00004.pcapng").exists(), "the fourth file")
        accepted(lab.penstock("set-layer", "sink", "capture", "filter=udp port 81"))
        refused(lab.penstock("set-layer", "sink", "capture", "filter=udp prt 81"), 1, "filter: ")
        until(lambda: lab.path("ring-00008.pcapng").exists(), "the eighth file")
        tap.equal(daemon.stop(), 0, "exit status")
        names = sorted(path.name for path in lab.directory.glob("ring*"))
        tap.equal(len(names), 3, f"files ({names})")
        for name in names:
            tap.check(packets(lab.path(name).read_bytes())[0] > 0, f"no packet in {name}")
            tap.check(lab.path(name).stat().st_size <= 65536 + 1024, f"{name} is too large")
        tap.equal(set(tshark(lab, names[-1], "udp.dstport")), {("81",)}, "ports")
        # The state file has the layer: it comes again, and goes on behind.
        daemon.start()
        until(lambda: max(lab.directory.glob("ring*")).name > names[-1], "another file")
        daemon.kill()
        daemon.start()
        accepted(lab.penstock("remove-layer", "sink", "0"))
        accepted(lab.penstock("insert-layer", "sink", "0", "capture: {file: one.pcapng}"))
        until(lambda: lab.path("one.pcapng").stat().st_size > 100000, "packets in the file")
        daemon.kill()
        with open(lab.path("one.pcapng"), "ab") as file:
            file.write(b"\x06\0\0\0\xff")
        daemon.start()
        size = lab.path("one.pcapng").stat().st_size
        until(lambda: lab.path("one.pcapng").stat().st_size > size + 100000, "packets after a crash")
        tap.equal(daemon.stop(), 0, "exit status")
        tap.equal(set(tshark(lab, "one.pcapng", "udp.checksum.status")), {("1",)}, "sums")


@tap.test("a full disk: packets are missed, the flow goes on, and so does the file when there is room again")
def _():
    with Lab() as lab:
        os.mkdir(lab.path("small"))
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "small", lab.path("small")],
                          capture_output=True, timeout=20).returncode:
            raise tap.Skip("no tmpfs may be mounted here")
        daemon = running(lab, 2000, 1000)
        try:
            accepted(lab.penstock("insert-layer", "sink", "0", "capture: {file: small/x.pcapng}"))

            def report():
                return status(lab, "sink")["layers"][0]["capture"]["state"]

            until(lambda: "No space" in report().get("error", ""), "an error in the status")
            tap.contains(lab.log.read_text(), "No space", "missed until")
            tap.contains(accepted(lab.penstock("status")), "failing: ", "No space", " written ")
            whole = lab.path("small/x.pcapng").read_bytes()
            tap.check(packets(whole)[0] > 100, "too few packets")
            tap.equal(subprocess.run(["mount", "-o", "remount,size=64m", lab.path("small")], timeout=20).returncode, 0,
                      "mount's exit status")
            until(lambda: "error" not in report(), "the error to go")
            tap.check(report()["missed"] > 0, "none were missed")
            tap.equal(daemon.stop(), 0, "exit status")
            count, missed, _ = packets(lab.path("small/x.pcapng").read_bytes())
            tap.check(count > packets(whole)[0] and missed > 0, f"{count} packets, {missed} missed")
        finally:
            daemon.kill()
            subprocess.run(["umount", lab.path("small")], timeout=20)


@tap.test("a capture where nothing comes by costs no CPU")
def _():
    with Lab() as lab:
        daemon = running(lab, 1)
        process = capturing(lab, "quiet")
        process.stdout.read(100)
        time.sleep(0.5)
        before = ticks(daemon)
        time.sleep(3)
        tap.check(ticks(daemon) - before <= 1, f"{ticks(daemon) - before} ticks in 3 s")


@tap.test("what two hosts say with offloads: sums are complete, what is large is said so, in the layer and in the command")
def _():
    hosts.need()
    with Lab() as lab, hosts.Host("a", "va") as a, hosts.Host("b", "vb") as b:
        a.address(1)
        b.address(2)
        os.environ["PENSTOCK_API"] = str(lab.path("api.sock"))
        daemon = lab.daemon("run", lab.write("net.yaml", HOSTS))
        until(lambda: status(lab, "a")["plugged"] and status(lab, "b")["plugged"], "the hosts to be plugged in")
        until(lambda: a.ping("10.0.0.2", count=1), "a ping")
        process = capturing(lab, "b", "-w", "command.pcapng")
        until(lambda: "capture" in layers(lab, "b"), "the capture")
        for address in ("10.0.0.2", "fd00::2"):
            a.iperf(b, address, "-n", "4M")
            a.iperf(b, address, "-n", "4M", "-R")
        a.iperf(b, "10.0.0.2", "-u", "-b", "10M", "-t", "1")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        tap.equal(daemon.stop(), 0, "exit status")
        for name in ("a.pcapng", "command.pcapng"):
            frames, wrong, longest, _ = hosts.checked_sums(lab.path(name), timeout=120)
            tap.check(frames > 500, f"{frames} frames in {name}")
            tap.equal(wrong, 0, f"wrong sums in {name}")
            tap.check(longest > 2000, f"the longest frame in {name} has {longest} bytes: none was large")
        text = lab.path("a.pcapng").read_bytes()
        tap.check(b"to be cut into segments of 14" in text, "no packet is said to be large")
        tap.check(b"left out by the sender, and is filled in" in text, "no sum is said to have been left out")


hosts.enter()
tap.main()
