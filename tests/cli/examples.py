#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The example in each man page of a layer, a back-end, an uplink or a device: it is run as it stands there, but for
directories. Disks are read through the NBD server; of devices, the sockets are there, and of networks, the ports. Those that
need an interface of the host are checked only. Those of commands are in command_examples.py.

They run in a network namespace of the test's own: its ports are nobody else's, and it has a default route, without which
passt does not run."""

import json
import re
import struct
import subprocess
import time

from cli_checks import accepted, tap
from lab import ROOT, Lab

import hosts

# The directories that examples use.
DIRECTORIES = ("/var/lib/penstock", "/etc/penstock", "/run/penstock", "/san/a", "/san/b")


def example_of(lab, name):
    """The YAML under "Example:" in the help of `name`, with its directories in the lab's."""
    text = accepted(lab.penstock("help", name))
    lines = text.split("Example:\n", 1)[1].splitlines()
    yaml = "\n".join(line[4:] for line in lines if line.startswith("    ") or not line.strip())
    for directory in DIRECTORIES:
        yaml = yaml.replace(directory, str(lab.directory))
    tap.check(not re.search(r"[\s:=]/(?!/|tmp|var/tmp)", yaml.replace(str(lab.directory), "HERE")),
              f"a directory that this test does not know of:\n{yaml}")
    return yaml


def make_images(lab, yaml):
    """What the example expects to be there: images that it does not create itself."""
    for path, rest in re.findall(r"path: ([^,}\s]+)([^}\n]*)", yaml):
        if "create: true" not in rest:
            lab.image(path, 64)


def make_volume(lab, yaml):
    key = re.search(r"key-file: ([^,}\s]+)", yaml)[1]
    lab.write(key, "correct horse battery staple")
    path = re.search(r"path: ([^,}\s]+)", yaml)[1]
    accepted(lab.penstock("create", "crypt", path, "size=64M", f"key-file={key}", "pbkdf=pbkdf2"))


def make_iso(lab, yaml):
    lab.write("readme.txt", "hello")
    subprocess.run(["genisoimage", "-quiet", "-o", re.search(r"path: ([^,}\s]+)", yaml)[1],
                    lab.path("readme.txt")], check=True, capture_output=True)


def serve_by_nbdkit(lab, yaml):
    path = re.search(r"socket=([^\s\"'},&]+)", yaml)[1]
    lab.end_with(subprocess.Popen(["nbdkit", "--foreground", "--unix", path, "memory", "64M"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    for _ in range(500):
        if lab.path(path).exists():
            return
        time.sleep(0.02)
    raise tap.Failure("nbdkit makes no socket")


MAKE = {"crypt": make_volume, "iso": make_iso, "nbd": serve_by_nbdkit}


def with_capture(lab, yaml):
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    frame = b"\xff" * 6 + bytes([2, 0, 0, 0, 0, 1]) + b"\x88\xb5" + bytes(46)
    lab.path(re.search(r"replay: \./([^,}\s]+)", yaml)[1]).write_bytes(
        header + struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)
    return yaml


PREPARE = {"pcap": with_capture}
CHECK_ONLY = ("tap", "packet")  # they need root, and an interface


def uplink():
    """An interface with a default route: passt runs with nothing less."""
    hosts.need()
    if subprocess.run(["ip", "link", "show", "dev", "uplink"], capture_output=True, timeout=30).returncode:
        hosts.ip("link", "add", "name", "uplink", "type", "veth", "peer", "name", "world")
        hosts.ip("link", "set", "dev", "world", "up")
        hosts.ip("addr", "add", "198.51.100.2/24", "dev", "uplink")
        hosts.ip("link", "set", "dev", "uplink", "up")
        hosts.ip("route", "add", "default", "via", "198.51.100.1")


hosts.enter()

with Lab() as all_names:
    examples = {name: all_names.penstock("help", name).stdout.split("Example:\n")[-1]
                for name in accepted(all_names.penstock("help", "--names", "help")).split()}
    names = [name for name, text in examples.items() if "disks:" in text]
    networks = [name for name, text in examples.items() if "switches:" in text]

for name in names:
    @tap.test(f"the example of {name} runs")
    def _(name=name):
        with Lab() as lab:
            yaml = example_of(lab, name)
            MAKE.get(name, make_images)(lab, yaml)
            config = lab.write("example.yaml", yaml + f"\nnbd:\n  - {{socket: {lab.path('nbd.sock')}}}\n")
            accepted(lab.penstock("check", config))
            lab.daemon("run", config)
            disks = re.search(r"(?m)^disks:\n((?: .*\n?)+)", yaml)[1]
            for disk in re.findall(r"(?m)^  (\w+):", disks):
                read = subprocess.run(["qemu-io", "-r", "-f", "raw", "-c", "read 0 64k",
                                       f"nbd+unix:///{disk}?socket={lab.path('nbd.sock')}"], text=True,
                                      capture_output=True, timeout=30)
                tap.contains(read.stdout + read.stderr, "read 65536/65536 bytes")
            for path in re.findall(r"socket: (\./[\w.-]+)", yaml):
                tap.check(lab.path(path).is_socket(), f"there is no {path}")

for name in networks:
    @tap.test(f"the example of {name} " + ("is good" if name in CHECK_ONLY else "runs, and its ports are there"))
    def _(name=name):
        if name == "user":
            uplink()
        with Lab() as lab:
            yaml = PREPARE.get(name, lambda _, text: text)(lab, example_of(lab, name))
            config = lab.write("example.yaml", f"api: api.sock\n{yaml}")
            accepted(lab.penstock("check", config))
            if name in CHECK_ONLY:
                return
            lab.daemon("run", config)
            status = json.loads(accepted(lab.penstock("status", "--json", "--api", "api.sock")))
            # Names two levels deep, of NICs and uplinks.
            sections = re.findall(r"(?m)^(?:nics|uplinks):\n((?: .*\n?)+)", yaml)
            wanted = re.findall(r"(?m)^  (\w+):", "\n".join(sections))
            tap.check(wanted, f"no ports in:\n{yaml}")
            tap.equal(sorted(port["name"] for port in status["ports"]), sorted(wanted), "ports")
            accepted(lab.penstock("check", lab.write("again.yaml", accepted(lab.penstock("config", "--api", "api.sock")))))


@tap.test("docs/penstock.yaml, the example of penstock.yaml(5), runs")
def _():
    uplink()
    with Lab() as lab:
        yaml = (ROOT / "docs" / "penstock.yaml").read_text()
        yaml = re.sub(r"/(?:run|var/lib)/(?:penstock/)?", f"{lab.directory}/", yaml)
        config = lab.write("example.yaml", yaml)
        accepted(lab.penstock("check", config))
        lab.daemon("run", config)
        # passt says that it runs with a message.
        deadline = time.monotonic() + 30
        while "inet" not in [port["name"] for port in json.loads(
                accepted(lab.penstock("status", "--json", "--api", "penstock.sock")))["ports"] if port["plugged"]]:
            tap.check(time.monotonic() < deadline, f"inet is not plugged:\n{lab.log.read_text()}")
            time.sleep(0.1)
        status = accepted(lab.penstock("status", "--api", "penstock.sock"))
        for words in (("virtio-blk0", "waiting", "data", "20.0G"), ("virtio-net0", "waiting", "guest0"), ("inet", "user", "up")):
            tap.check(any(all(word in line.split() for word in words) for line in status.splitlines()),
                      f"no row with {words} in\n{status}")


tap.main()
