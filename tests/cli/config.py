#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Configurations with mistakes: each is reported with file, line and what was expected, and
nothing starts half."""

import json

from cli_checks import GOOD, accepted, refused, tap
from lab import Lab

# What is wrong; the text, from GOOD by one replacement; the line; what the message must name.
MISTAKES = [
    ("an unknown option of a disk", ("    stack:", "    blocksize: 512\n    stack:"), 3, ["blocksize", "block-size"]),
    ("an unknown option at top level", ("disks:", "lops: 2\ndisks:"), 1, ["lops", "loops"]),
    ("an unknown layer", ("- file:", "- fiel:"), 4, ["fiel", "file"]),
    ("an unknown option of a back-end", ("{path: disk.img}", "{path: disk.img, pth: x}"), 4, ["pth"]),
    ("an unknown option of a device", ("socket: web.sock", "socket: web.sock, queue: 4"), 7, ["queue", "queues"]),
    ("a list where a value belongs", ("    stack:", "    cache: [writeback]\n    stack:"), 3, ["cache"]),
    ("a value where a list belongs", ("    - {virtio-blk: data, socket: web.sock}", "    data"), 6, ["web"]),
    ("a size that is none", ("    stack:", "    size: big\n    stack:"), 3, ["size", "big"]),
    ("a negative size", ("    stack:", "    size: -1G\n    stack:"), 3, ["size"]),
    ("a size beyond all bounds", ("    stack:", "    size: 99999999999G\n    stack:"), 3, ["size"]),
    ("a block size that is none", ("    stack:", "    block-size: 513\n    stack:"), 3, ["block-size", "513", "4096"]),
    ("a size that is not in an ISO's blocks", ("file: {path: disk.img}", "iso: {path: disk.img}\n    size: 5K"), 5,
     ["size", "5K", "2048"]),
    ("an option that an ISO has not", ("- file: {path: disk.img}", "- iso: {path: disk.img, create: true}"), 4,
     ["iso", "create", "path"]),
    ("a cache that is none", ("    stack:", "    cache: fast\n    stack:"), 3, ["cache", "fast", "writethrough"]),
    ("a yes or no that is neither", ("    stack:", "    read-only: perhaps\n    stack:"), 3, ["read-only", "perhaps"]),
    ("no queues", ("socket: web.sock", "socket: web.sock, queues: 0"), 7, ["queues"]),
    ("too many queues", ("socket: web.sock", "socket: web.sock, queues: 33"), 7, ["queues", "32"]),
    ("a queue size that is no power of two", ("socket: web.sock", "socket: web.sock, queue-size: 100"), 7,
     ["queue-size"]),
    ("a queue size that is too large", ("socket: web.sock", "socket: web.sock, queue-size: 2048"), 7,
     ["queue-size", "1024"]),
    ("a serial that is too long", ("socket: web.sock", "socket: web.sock, serial: abcdefghijklmnopqrstuvwxyz"), 7,
     ["serial", "20"]),
    ("no path", ("{path: disk.img}", "{}"), 4, ["path"]),
    ("no socket", (", socket: web.sock", ""), 7, ["socket"]),
    ("no kind of device", ("virtio-blk: data, ", ""), 7, ["virtio-blk"]),
    ("an empty stack", ("      - file: {path: disk.img}\n", ""), 3, ["stack"]),
    ("no stack", ("    stack:\n      - file: {path: disk.img}\n", ""), 2, ["data"]),
    ("a stack without a back-end", ("- file: {path: disk.img}", "- pass"), 4, ["back-end"]),
    ("a back-end in the middle", ("- file:", "- null\n      - file:"), 4, ["null"]),
    ("a disk that is not defined", ("virtio-blk: data", "virtio-blk: dat"), 7, ["dat", "data"]),
    ("the same socket twice",
     ("web.sock}\n", "web.sock}\n    - {virtio-blk: other, socket: web.sock}\n"), 8, ["web.sock"]),
    ("one disk for two VMs",
     ("web.sock}\n", "web.sock}\n  db:\n    - {virtio-blk: data, socket: db.sock}\n"), 9, ["data"]),
    ("an option given twice", ("    stack:", "    size: 1M\n    size: 1M\n    stack:"), 4, ["size", "twice"]),
    ("a disk given twice", ("vms:", "  data:\n    stack: [null]\nvms:"), 5, ["data", "twice"]),
    ("YAML that is none", ("{path: disk.img}", "{path: disk.img"), None, ["YAML"]),
    ("a tab", ("    stack:", "\tstack:"), 3, []),
    ("no disks", ("disks:\n  data:\n    stack:\n      - file: {path: disk.img}\n", ""), None, ["disks"]),
    ("an empty file", (GOOD, ""), 1, []),
    ("an image that does not exist", ("disk.img", "gone.img"), 4, ["gone.img"]),
]


def text_with(replacement):
    old, new = replacement
    tap.check(old in GOOD, f"{old!r} is not in the good configuration")
    text = GOOD.replace(old, new, 1)
    if "virtio-blk: other" in text:
        text = text.replace("disks:\n", "disks:\n  other: {stack: [null]}\n")
    return text


@tap.test("a good configuration is good, and check opens nothing")
def _():
    with Lab() as lab:
        lab.image("disk.img", 1)
        accepted(lab.penstock("check", lab.write("good.yaml", GOOD)))
        tap.equal(sorted(path.name for path in lab.directory.iterdir()), ["disk.img", "good.yaml"], "files")


for what, replacement, line, names in MISTAKES:
    @tap.test(f"{what} is reported, and nothing starts")
    def _(replacement=replacement, line=line, names=names):
        with Lab() as lab:
            lab.image("disk.img", 1)
            text = text_with(replacement)
            shift = text.count("other: {stack")
            config = lab.write("bad.yaml", text)
            where = f"bad.yaml:{line + shift}:" if line else "bad.yaml:"
            for command in ("check", "run"):
                refused(lab.penstock(command, config), 2, where, *names)
            left = [path.name for path in lab.directory.iterdir() if path.name.endswith(".sock")]
            tap.equal(left, [], "sockets left behind")


@tap.test("all mistakes are reported at once")
def _():
    with Lab() as lab:
        lab.image("disk.img", 1)
        text = GOOD.replace("    stack:", "    cache: fast\n    stack:").replace("virtio-blk: data", "virtio-blk: dat")
        done = lab.penstock("check", lab.write("bad.yaml", text))
        refused(done, 2, "bad.yaml:3:", "cache")
        refused(done, 2, "bad.yaml:8:", "dat")


@tap.test("a configuration that does not exist, or is a directory, is reported by name")
def _():
    with Lab() as lab:
        for command in ("check", "run"):
            refused(lab.penstock(command, "gone.yaml"), 2, "gone.yaml", "No such file")
            refused(lab.penstock(command, lab.directory), 2, str(lab.directory))


@tap.test("serve refuses what is wrong in its options, and makes no socket")
def _():
    with Lab() as lab:
        lab.image("disk.img", 1)
        for arguments, names in (
                (["disk.img", "blocksize=512"], ["blocksize", "block-size"]),
                (["disk.img", "block-size=1"], ["block-size", "4096"]),
                (["disk.img", "size=much"], ["size", "much"]),
                (["disk.img", "queues=99"], ["queues", "32"]),
                (["disk.img", "cache"], ["cache", "="]),
                (["disk.img", "cache=unsafe", "cache=writeback"], ["cache", "twice"]),
                (["disk.img", "stack=pas"], ["pas", "pass"]),
                (["gone.img"], ["gone.img"]),
                (["memory:", "size=0"], ["size"])):
            refused(lab.penstock("serve", arguments[0], "--socket", "s.sock", *arguments[1:]), 2, *names)
            tap.check(not lab.path("s.sock").exists(), f"{arguments} left a socket")
        for flag, value in (("--engine", "steam"), ("--poll", "soon"), ("--loops", "-1"), ("--cpus", "1-"),
                            ("--log-level", "loud")):
            refused(lab.penstock("serve", "disk.img", "--socket", "s.sock", flag, value), 2,
                    flag.lstrip("-"), value)
            tap.check(not lab.path("s.sock").exists(), f"{flag} left a socket")


@tap.test("what fails while starting leaves no socket and no half a daemon")
def _():
    with Lab() as lab:
        lab.image("disk.img", 1)
        # The second VM's socket cannot be made: its directory does not exist.
        text = GOOD.replace("disks:\n", "disks:\n  other: {stack: [null]}\n") + \
            "  db:\n    - {virtio-blk: other, socket: nowhere/db.sock}\n"
        done = lab.penstock("run", lab.write("half.yaml", text))
        refused(done, 1, "nowhere/db.sock")
        tap.check(not lab.path("web.sock").exists(), "the first VM's socket was left behind")
        # A directory is no image.
        lab.path("directory").mkdir()
        done = lab.penstock("serve", "directory", "--socket", "s.sock")
        tap.check(done.returncode in (1, 2), f"exit status {done.returncode}")
        tap.contains(done.stderr, "directory")
        tap.check(not lab.path("s.sock").exists(), "a socket was left behind")


@tap.test("a disk larger than its back-end, and one that is smaller, have the size they say")
def _():
    with Lab() as lab:
        lab.image("disk.img", 8)
        for size, size_bytes in (("4M", 4 << 20), ("16M", 16 << 20)):
            daemon = lab.daemon("serve", "disk.img", "--socket", "s.sock", f"size={size}", "--api", "api.sock")
            status = json.loads(accepted(lab.penstock("status", "--api", "api.sock", "--json")))
            tap.contains(json.dumps(status), str(size_bytes))
            tap.equal(daemon.stop(), 0, "exit status")
        tap.equal(lab.path("disk.img").stat().st_size, 8 << 20, "the image's size")


tap.main()
