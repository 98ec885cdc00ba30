#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Switches, NICs and uplinks from outside: mistakes in their configuration, status, API, metrics, changes while packets flow,
and what a restart keeps. Packets come from a capture that is replayed, and go into another one."""

import json
import re
import struct
import subprocess
import time

from cli_checks import accepted, refused, tap
from lab import PENSTOCK, Lab

FRAMES = 100
CONFIG = """\
api: api.sock
switches:
  lan: {addresses: 64}
  quiet: {}
nics:
  web0: {switch: lan, mac: "52:54:00:00:00:01", layers: [count, count: {direction: in}]}
  db0: {switch: lan, vlan: 20, mtu: 9000}
uplinks:
  source: {switch: lan, pcap: {replay: source.pcap, rate: 1000, loop: 0}, layers: [count]}
  sink: {switch: lan, pcap: {sink: sink.pcap}}
vms:
  web:
    - {virtio-net: web0, socket: web.sock, queue-pairs: 2}
  db:
    - {virtio-net: db0, socket: db.sock}
"""


def write_capture(path):
    """A pcap of FRAMES broadcasts from five addresses."""
    with open(path, "wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for i in range(FRAMES):
            frame = b"\xff" * 6 + bytes([2, 0, 0, 0, 0, i % 5 + 1]) + b"\x88\xb5" + bytes(46)
            out.write(struct.pack("<IIII", 0, i * 1000, len(frame), len(frame)) + frame)


class Running:
    """A daemon with a configuration, and penstock commands on it."""

    def __init__(self, lab, text=CONFIG):
        self.lab = lab
        write_capture(lab.path("source.pcap"))
        self.config = lab.write("penstock.yaml", text)
        self.daemon = lab.daemon("run", self.config)

    def run(self, *arguments):
        return self.lab.penstock(*arguments, "--api", "api.sock")

    def ok(self, *arguments):
        return accepted(self.run(*arguments))

    def curl(self, method, path, body=None):
        """(HTTP status, JSON) of a request."""
        data = ["--data", json.dumps(body)] if body is not None else []
        done = subprocess.run(["curl", "-sS", "--max-time", "20", "--unix-socket", self.lab.path("api.sock"), "-X", method,
                               "-w", r"\n%{http_code}", *data, f"http://penstock{path}"], text=True, capture_output=True,
                              timeout=30, check=True)
        text, _, code = done.stdout.rpartition("\n")
        return int(code), json.loads(text)

    def port(self, name):
        code, port = self.curl("GET", f"/v1/ports/{name}")
        tap.equal(code, 200, f"GET /v1/ports/{name}: {port}")
        return port

    def until(self, what, true, seconds=10):
        """Waits until `true()`, at most `seconds`."""
        end = time.monotonic() + seconds
        while not true():
            tap.check(time.monotonic() < end, f"not within {seconds} s: {what}")
            time.sleep(0.05)

    def until_packets(self, port="sink", direction="out", more=1):
        before = self.port(port)[direction]["packets"]
        self.until(f"{more} packets {direction} at {port}", lambda: self.port(port)[direction]["packets"] >= before + more)


# --- configuration ------------------------------------------------------------------------------------------------------------

@tap.test("check finds all mistakes at once, with file, line, and what was meant")
def _():
    with Lab() as lab:
        bad = lab.write("bad.yaml", """\
switches:
  lan: {agein: 5s}
nics:
  web0: {switch: lna, mac: "x", vlan: 0, layers: [cuont]}
uplinks:
  inet: {switch: lan, pcpa: {}}
  files: {switch: lan, pcap: {snik: x}}
vms:
  web:
    - {virtio-net: web1, socket: s}
""")
        done = lab.penstock("check", bad)
        for wanted in (("bad.yaml:2:", "switch 'lan'", "agein", "ageing"), ("bad.yaml:4:", "lna", "lan"),
                       ("bad.yaml:4:", "mac: 'x'"), ("bad.yaml:4:", "vlan: 0"), ("bad.yaml:4:", "cuont", "count"),
                       ("bad.yaml:6:", "pcpa", "did you mean 'pcap'"), ("bad.yaml:7:", "snik", "did you mean 'sink'"),
                       ("bad.yaml:10:", "no NIC 'web1'", "web0")):
            refused(done, 2, *wanted)


@tap.test("a NIC that no device uses is a warning; the rest is served")
def _():
    with Lab() as lab:
        text = CONFIG.replace("nics:\n", "nics:\n  spare: {switch: lan}\n")
        write_capture(lab.path("source.pcap"))
        done = lab.penstock("check", lab.write("c.yaml", text))
        accepted(done)
        tap.contains(done.stderr, "c.yaml:6: warning: nic 'spare': no device of a VM uses it")


@tap.test("an uplink that cannot open ends the start, with a reason; nothing is left")
def _():
    with Lab() as lab:
        for text, status, wanted in ((None, 2, "c.yaml:9: uplink 'source': pcap: replay: 'source.pcap': No such file"),
                                     ("this is no capture\n" * 10, 1, "unknown file format")):
            if text:
                lab.write("source.pcap", text)
            refused(lab.penstock("run", lab.write("c.yaml", CONFIG)), status, "uplink 'source'", "source.pcap", wanted)
        tap.check(not lab.path("web.sock").exists() and not lab.path("api.sock").exists(), "a socket is there")


@tap.test("a configuration of uplinks alone needs neither disks nor VMs")
def _():
    with Lab() as lab:
        penstock = Running(lab, "api: api.sock\nswitches: {lan: {}}\nuplinks:\n"
                                "  source: {switch: lan, pcap: {replay: source.pcap, loop: 0, rate: 1000}}\n"
                                "  sink: {switch: lan, pcap: {sink: sink.pcap}}\n")
        penstock.until_packets(more=10)
        accepted(lab.penstock("check", lab.write("again.yaml", penstock.ok("config"))))


@tap.test("penstock config prints what runs; a start with that is the same")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        penstock.ok("set-port", "db0", "vlan=30", "mtu=")
        penstock.ok("insert-layer", "db0", "0", "count: {direction: out}")
        text = penstock.ok("config")
        penstock.daemon.stop()
        again = Running(lab, text)
        tap.equal(again.ok("config"), text, "penstock config after a start with its own answer")
        port = again.port("db0")
        tap.equal((port["vlan"], port["mtu"], port["layers"][0]["count"]["direction"]), (30, 65535, "out"), "db0")


@tap.test("qemu-args: chardev, netdev and device for each NIC")
def _():
    with Lab() as lab:
        write_capture(lab.path("source.pcap"))
        config = lab.write("c.yaml", CONFIG)
        web = accepted(lab.penstock("qemu-args", "web", "--config", config, "--qemu", "7.2"))
        tap.contains(web, f"-chardev socket,id=web-0,path={lab.path('web.sock')},reconnect=1",
                     "-netdev type=vhost-user,id=web-0-net,chardev=web-0,queues=2",
                     "-device virtio-net-pci,netdev=web-0-net,mac=52:54:00:00:00:01,mq=on,vectors=6,")
        tap.check("host_mtu" not in web, web)
        tap.contains(accepted(lab.penstock("qemu-args", "db", "--config", config)), ",host_mtu=9000")
        penstock = Running(lab)
        penstock.ok("set-port", "db0", "mtu=1400")
        tap.contains(penstock.ok("qemu-args", "db"), ",host_mtu=1400")


# --- what is shown -----------------------------------------------------------------------------------------------------------

@tap.test("status shows switches and ports: who is there, what passed, what was dropped and why, and each layer")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        penstock.until_packets(more=20)
        text = penstock.ok("status")
        tap.contains(text, "Switch lan knows 5 of 64 addresses", "Switch quiet knows 0 of")
        for row in (r"web0 +virtio-net +waiting +52:54:00:00:00:01 +1 +0 ", r"db0 +virtio-net +waiting +\S+ +20 ",
                    r"source +pcap +up +- +1 +[1-9]", r"sink +pcap +up +- +1 +0 +0B +[1-9]",
                    r" +dropped out +[1-9]\d* down", r" +0 count +in +[1-9]\d* seen"):
            tap.check(re.search(f"(?m)^{row}", text), f"no row {row!r} in:\n{text}")
        status = json.loads(penstock.ok("status", "--json"))
        tap.equal([switch["name"] for switch in status["switches"]], ["lan", "quiet"], "switches")
        ports = {port["name"]: port for port in status["ports"]}
        tap.equal(sorted(ports), ["db0", "sink", "source", "web0"], "ports")
        tap.equal((ports["web0"]["vm"], ports["web0"]["device"], ports["web0"]["mac"]),
                  ("web", "virtio-net0", "52:54:00:00:00:01"), "whose web0 is")
        device = status["vms"][0]["devices"][0]
        tap.equal((device["virtio-net"], device["units"][0]["type"], device["units"][0]["port"]), ("web0", "nic", "web0"),
                  "the device")


@tap.test("counters agree: what came in is what a layer saw, and what went out is in the sink")
def _():
    with Lab() as lab:
        text = CONFIG.replace("rate: 1000, loop: 0", "rate: 0, loop: 3")
        penstock = Running(lab, text)
        penstock.until("all came in", lambda: penstock.port("source")["in"]["packets"] == 3 * FRAMES)
        source, sink = penstock.port("source"), penstock.port("sink")
        tap.equal(source["in"]["bytes"], 3 * FRAMES * 60, "bytes")
        tap.equal(source["layers"][0]["count"]["counters"]["in"]["seen"], 3 * FRAMES, "seen by the layer")
        tap.equal(sink["out"]["packets"] + sum(sink["out"]["drops"].values()), 3 * FRAMES, "sent or dropped at sink")
        penstock.daemon.stop()
        tap.equal(lab.path("sink.pcap").stat().st_size, 24 + sink["out"]["packets"] * (16 + 60), "size of the sink's file")


@tap.test("metrics of ports, layers and switches, in Prometheus' format")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        penstock.until_packets(more=20)
        text = subprocess.run(["curl", "-sS", "--max-time", "20", "--unix-socket", lab.path("api.sock"),
                               "http://penstock/metrics"], text=True, capture_output=True, timeout=30, check=True).stdout
        for sample in (r'penstock_port_packets_total{port="source",direction="in"} [1-9]',
                       r'penstock_port_packets_total{port="source",direction="out"} 0',
                       r'penstock_port_bytes_total{port="sink",direction="out"} [1-9]',
                       r'penstock_port_drops_total{port="web0",direction="out",cause="down"} [1-9]',
                       r'penstock_port_layer_packets_total{port="source",layer="count",position="0",direction="in"} [1-9]',
                       r'penstock_port_up{port="source"} 1', r'penstock_port_up{port="web0"} 0',
                       r'penstock_switch_addresses{switch="lan"} 5'):
            tap.check(re.search(f"(?m)^{sample}", text), f"no sample {sample!r}")
        names = re.findall(r"(?m)^# TYPE (\S+)", text)
        tap.equal(len(names), len(set(names)), "families that are there twice")


# --- changes while packets flow ---------------------------------------------------------------------------------------------

@tap.test("addresses are shown and forgotten")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        penstock.until_packets(more=10)
        text = penstock.ok("addresses", "lan")
        tap.equal(len(re.findall(r"(?m)^02:00:00:00:00:0[1-5] +1 source +\d+ s$", text)), 5, f"addresses in:\n{text}")
        tap.equal(len(penstock.curl("GET", "/v1/switches/lan/addresses")[1]), 5, "addresses by the API")
        tap.equal(penstock.ok("forget", "lan", "sink"), "switch lan: 0 addresses forgotten\n", "of sink")
        tap.equal(penstock.ok("forget", "lan", "source"), "switch lan: 5 addresses forgotten\n", "of source")
        refused(penstock.run("forget", "lan", "sunk"), 1, "no port 'sunk'")
        refused(penstock.run("addresses", "lna"), 1, "no switch 'lna'; did you mean 'lan'?")


@tap.test("set-port: down and up, another VLAN, a default again; what is wrong changes nothing")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        penstock.until_packets(more=10)
        tap.equal(penstock.ok("set-port", "sink", "up=false"), "port sink: up=false\n", "what it says")
        before = penstock.port("sink")["out"]["packets"]
        time.sleep(0.3)
        tap.equal(penstock.port("sink")["out"]["packets"], before, "packets to a port that is down")
        tap.contains(penstock.ok("status"), "down")
        penstock.ok("set-port", "sink", "up=true", "vlan=30")
        before = penstock.port("sink")["out"]["packets"]
        time.sleep(0.3)
        tap.equal(penstock.port("sink")["out"]["packets"], before, "packets of another VLAN")
        tap.equal(penstock.ok("set-port", "sink", "vlan="), "port sink: vlan=1\n", "the default again")
        penstock.until_packets(more=10)
        refused(penstock.run("set-port", "sink", "vlna=3"), 1, "no option 'vlna' of a port; did you mean 'vlan'?")
        refused(penstock.run("set-port", "sink", "vlan=0"), 1, "vlan: 0")
        refused(penstock.run("set-port", "sink", "switch=quiet"), 1, "a port stays on its switch")
        refused(penstock.run("set-port", "sink", "mirror=suorce"), 1, "no other port 'suorce'", "did you mean 'source'?")
        refused(penstock.run("set-port", "sink", "static=52:54:00:00:00:01"), 1, "address of NIC 'web0'")
        refused(penstock.run("set-port", "snik", "vlan=2"), 1, "no port 'snik'; did you mean 'sink'?")
        refused(penstock.run("set-port", "sink", "vlan"), 2, "expected option=value")
        tap.equal(penstock.port("sink")["vlan"], 1, "VLAN after what was wrong")
        for body in ({}, [], {"up": {}}):
            tap.equal(penstock.curl("PATCH", "/v1/ports/sink", body)[0], 400, f"PATCH with {body}")


@tap.test("layers of a port: stack, insert-layer, set-layer, move-layer, remove-layer, while packets flow")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        for arguments, said in ((("insert-layer", "source", "1", "count: {direction: out}"), "0 count, 1 count"),
                                (("set-layer", "source", "1", "direction=in"), "0 count, 1 count"),
                                (("move-layer", "source", "0", "1"), "0 count, 1 count"),
                                (("insert-layer", "source", "0", "count"), "0 count, 1 count, 2 count"),
                                (("remove-layer", "source", "1"), "0 count, 1 count"),
                                (("remove-layer", "source", "0"), "0 count"),
                                (("remove-layer", "source", "count"), "no layers"),
                                (("insert-layer", "source", "0", "count"), "0 count"),
                                (("stack", "source", "count", "count: {direction: in}"), "0 count, 1 count")):
            tap.equal(penstock.ok(*arguments), f"port source: {said}\n", " ".join(arguments))
            penstock.until_packets(more=5)
        tap.equal(penstock.ok("stack", "source"), "- count\n- count: {direction: in}\n", "the stack")
        penstock.until("both have seen packets",
                       lambda: all(layer["count"]["counters"]["in"]["seen"] for layer in penstock.port("source")["layers"]))


@tap.test("a layer that stays keeps what it has counted")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        penstock.until_packets(more=50)
        seen = penstock.port("source")["layers"][0]["count"]["counters"]["in"]["seen"]
        penstock.ok("insert-layer", "source", "0", "count: {direction: out}")
        after = penstock.port("source")["layers"][1]["count"]["counters"]["in"]["seen"]
        tap.check(after >= seen > 0, f"{seen} before, {after} after")


@tap.test("mistakes with layers of ports say what is there, and change nothing")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        refused(penstock.run("insert-layer", "web0", "0", "cuont"), 1, "port 'web0'", "there is no kind of layer 'cuont'")
        refused(penstock.run("insert-layer", "web0", "0", "crypt: {key-file: x}"), 1, "no layer of packets 'crypt'")
        refused(penstock.run("insert-layer", "web0", "7", "count"), 1, "there is no layer 7", "0 count, 1 count")
        refused(penstock.run("set-layer", "web0", "1", "direction=up"), 1, "direction: 'up'")
        refused(penstock.run("set-layer", "web0", "count", "direction=in"), 1, "there are 2 layers 'count'")
        refused(penstock.run("remove-layer", "web0", "1", "--keep", "0"), 1, "no legs")
        refused(penstock.run("add-leg", "web0", "0", "count"), 1, "web0")
        refused(penstock.run("stack", "wbe0"), 1, "wbe0")
        tap.equal(penstock.ok("stack", "web0"), "- count\n- count: {direction: in}\n", "the stack")
        code, answer = penstock.curl("PUT", "/v1/ports/web0/stack", {"stack": ["count", {"count": {"x": 1}}]})
        tap.equal(code, 400, f"PUT of a stack with a mistake: {answer}")
        tap.equal(penstock.curl("GET", "/v1/ports/nonesuch/stack")[0], 404, "GET of no port's stack")


@tap.test("a disk cannot be added with the name of a port")
def _():
    with Lab() as lab:
        refused(Running(lab).run("add-disk", "web0", "{stack: [null]}"), 1, "'web0' is the name of a port")


@tap.test("many changes at once, from several callers: each is done or refused, and packets go on")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        commands = [["penstock", *words, "--api", "api.sock"] for words in
                    (("set-port", "sink", "vlan=1"), ("insert-layer", "sink", "0", "count"), ("insert-layer", "source", "0", "count"),
                     ("set-port", "source", "flood-limit=0"), ("status",), ("forget", "lan"))]
        running = [subprocess.Popen([str(PENSTOCK), *command[1:]], cwd=lab.directory, stdout=subprocess.DEVNULL,
                                    stderr=subprocess.PIPE, text=True) for command in commands * 4]
        for process in running:
            error = process.communicate(timeout=60)[1]
            tap.check(process.returncode == 0 or "are being changed" in error, f"{process.args}: {error}")
        penstock.until_packets(more=10)


@tap.test("SIGTERM under traffic, in the midst of changes: it ends by itself, with status 0")
def _():
    with Lab() as lab:
        penstock = Running(lab, CONFIG.replace("rate: 1000", "rate: 0"))
        penstock.until_packets(more=1000)
        change = subprocess.Popen([str(PENSTOCK), "insert-layer", "source", "0", "count", "--api", "api.sock"],
                                  cwd=lab.directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        penstock.daemon.stop()
        change.wait(timeout=30)


# --- what a restart keeps ----------------------------------------------------------------------------------------------------

STATE = "state: state.yaml\n" + CONFIG


@tap.test("with a state file, options and layers of ports outlive kill -9")
def _():
    with Lab() as lab:
        penstock = Running(lab, STATE)
        penstock.ok("set-port", "sink", "vlan=20", "trunk=30-40")
        penstock.ok("set-port", "web0", "up=false")
        penstock.ok("insert-layer", "web0", "0", "count: {direction: out}")
        before = penstock.ok("config")
        penstock.daemon.kill()
        done = lab.penstock("check", penstock.config)
        tap.contains(done.stderr, "penstock.yaml:7: warning: port 'web0' was changed while penstock ran: what state.yaml:",
                     "port 'sink' was changed while penstock ran")
        penstock = Running(lab, STATE)
        tap.equal(penstock.ok("config"), before, "penstock config after a restart")
        tap.equal((penstock.port("web0")["up"], penstock.port("web0")["mac"]), (False, "52:54:00:00:00:01"), "web0")
        penstock.ok("set-port", "web0", "up=true")
        penstock.ok("remove-layer", "web0", "0")
        penstock.daemon.stop()
        penstock = Running(lab, STATE)
        tap.equal(penstock.port("web0")["up"], True, "web0 is up again")
        tap.equal(penstock.ok("stack", "web0"), "- count\n- count: {direction: in}\n", "web0's layers")


@tap.test("what was kept stays kept, when penstock ends in the midst of other changes")
def _():
    with Lab() as lab:
        text = STATE.replace("rate: 1000", "rate: 0")
        for turn in range(5):
            penstock = Running(lab, text)
            penstock.ok("set-port", "sink", f"vlan={20 + turn}")
            running = [subprocess.Popen([str(PENSTOCK), *words, "--api", "api.sock"], cwd=lab.directory,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                       for words in (("set-port", "web0", "vlan=9"), ("insert-layer", "db0", "0", "count"),
                                     ("insert-layer", "source", "0", "count"), ("set-port", "db0", f"vlan={turn + 1}"))]
            if turn:
                time.sleep(0.02 * turn)
            penstock.daemon.stop()
            for process in running:
                process.wait(timeout=30)
            tap.contains(lab.path("state.yaml").read_text(), "sink:", f"vlan: {20 + turn}")


@tap.test("of a port that was edited since, the configuration counts, with a warning; the entry goes with one that has gone")
def _():
    with Lab() as lab:
        penstock = Running(lab, STATE)
        penstock.ok("set-port", "web0", "up=false")
        penstock.ok("set-port", "sink", "vlan=20")
        penstock.daemon.stop()
        text = STATE.replace('mac: "52:54:00:00:00:01"', 'mac: "52:54:00:00:00:02"')
        text = "".join(line for line in text.splitlines(True) if not line.startswith("  sink:"))
        done = lab.penstock("check", lab.write("penstock.yaml", text))
        accepted(done)
        tap.contains(done.stderr, "port 'web0' was changed here after", "port 'sink' was changed here after")
        penstock = Running(lab, text)
        tap.equal((penstock.port("web0")["up"], penstock.port("web0")["mac"]), (True, "52:54:00:00:00:02"), "web0")
        penstock.ok("set-port", "db0", "vlan=7")
        kept = lab.path("state.yaml").read_text()
        tap.check("db0:" in kept and "web0:" not in kept and "sink:" not in kept, kept)


@tap.test("who watches changes no configuration: penstock capture is neither in penstock config nor kept")
def _():
    with Lab() as lab:
        penstock = Running(lab, STATE)
        before = penstock.ok("config")
        watcher = lab.end_with(subprocess.Popen([str(PENSTOCK), "capture", "source", "-w", "x.pcapng", "--api", "api.sock"],
                                                cwd=lab.directory, stderr=subprocess.DEVNULL))
        penstock.until("a capture is there", lambda: "capture" in penstock.ok("stack", "source"))
        tap.equal(penstock.ok("config"), before, "penstock config while somebody watches")
        penstock.ok("insert-layer", "source", "0", "count: {direction: out}")
        tap.contains(penstock.ok("stack", "source"), "capture")
        tap.check("capture" not in lab.path("state.yaml").read_text(), "it is in the state file")
        watcher.terminate()
        penstock.until("the capture has gone", lambda: "capture" not in penstock.ok("stack", "source"))
        tap.equal(penstock.ok("stack", "source"), "- count: {direction: out}\n- count\n", "the stack")


@tap.test("a state file that says nonsense of a port is refused, with its line")
def _():
    with Lab() as lab:
        write_capture(lab.path("source.pcap"))
        lab.write("state.yaml", "version: 1\nports:\n  web0: {configured: 0}\n")
        refused(lab.penstock("check", lab.write("c.yaml", STATE)), 2, "state.yaml:3: port 'web0'", "now")


tap.main()
