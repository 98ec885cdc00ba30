#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The example in each layer's and back-end's man page: it is run as it stands there, but for directories, and
its disks are read through the NBD server."""

import re
import subprocess
import time

from cli_checks import accepted, tap
from lab import Lab

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
    socket = re.search(r"socket=([^\s\"'},&]+)", yaml)[1]
    lab.end_with(subprocess.Popen(["nbdkit", "--foreground", "--unix", socket, "memory", "64M"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    for _ in range(500):
        if lab.path(socket).exists():
            return
        time.sleep(0.02)
    raise tap.Failure("nbdkit makes no socket")


MAKE = {"crypt": make_volume, "iso": make_iso, "nbd": serve_by_nbdkit}

with Lab() as all_names:
    names = [name for name in accepted(all_names.penstock("help", "--names", "help")).split()
             if "disks:" in all_names.penstock("help", name).stdout.split("Example:\n")[-1]
             and "vms:" not in all_names.penstock("help", name).stdout.split("Example:\n")[-1]]

for name in names:
    @tap.test(f"the example of {name} runs")
    def _(name=name):
        with Lab() as lab:
            yaml = example_of(lab, name)
            MAKE.get(name, make_images)(lab, yaml)
            config = lab.write("example.yaml", yaml + f"\nnbd:\n  - {{socket: {lab.path('nbd.sock')}}}\n")
            accepted(lab.penstock("check", config))
            lab.daemon("run", config)
            for disk in re.findall(r"(?m)^  (\w+):", yaml.split("disks:\n")[1]):
                read = subprocess.run(["qemu-io", "-r", "-f", "raw", "-c", "read 0 64k",
                                       f"nbd+unix:///{disk}?socket={lab.path('nbd.sock')}"], text=True,
                                      capture_output=True, timeout=30)
                tap.contains(read.stdout + read.stderr, "read 65536/65536 bytes")


tap.main()
