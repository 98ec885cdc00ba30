#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""stripe, concat, slice, cache and delay in a running penstock, with QEMU's tools on the disks (over NBD) and on the files."""

import json
import os
import subprocess
import threading
import time

from cli_checks import accepted, tap
from lab import MIB, Lab

CONFIG = """\
api: api.sock
disks:
  fast:
    stack: [stripe: {chunk: 64K, legs: [file: {path: leg0.img}, file: {path: leg1.img}]}]
  long:
    stack: [concat: [memory: {size: 1M}, file: {path: tail.img}]]
  first:
    stack: [slice: {size: 2M}, file: {path: all.img}]
  second:
    stack: [slice: {offset: 2M, size: 4M}, file: {path: all.img}]
  web1:
    stack: [overlay: {store: {memory: {size: 16M}}}, cache: {pool: golden, size: 16M}, file: {path: golden.img}]
  web2:
    stack: [overlay: {store: {memory: {size: 16M}}}, cache: {pool: golden, size: 16M}, file: {path: golden.img}]
  slow:
    stack: [delay: {}, memory: {size: 4M}]
nbd:
  - {socket: nbd.sock, read-only: false}
"""


class Running(Lab):
    def __enter__(self):
        super().__enter__()
        for name, size in (("leg0", 4), ("leg1", 4), ("tail", 3), ("all", 8), ("golden", 8)):
            self.path(f"{name}.img").write_bytes(os.urandom(size * MIB))
        self.server = self.daemon("run", self.write("c.yaml", CONFIG))
        return self

    def __exit__(self, kind, *rest):
        try:
            if kind is None:
                tap.equal(self.server.stop(), 0, "exit status")
        finally:
            super().__exit__(kind, *rest)

    def ask(self, *arguments):
        return accepted(self.penstock(*arguments, "--api", self.path("api.sock")))

    def state(self, disk, layer):
        """What `layer` of `disk` says of itself."""
        done = subprocess.run(["curl", "-sS", "--max-time", "20", "--unix-socket", self.path("api.sock"),
                               f"http://penstock/v1/disks/{disk}"], text=True, capture_output=True, timeout=30, check=True)
        return next(one[layer]["state"] for one in json.loads(done.stdout)["stack"] if layer in one)

    def bytes(self, disk):
        """All of a disk."""
        target = self.path("copy.img")
        subprocess.run(["qemu-img", "convert", "-O", "raw", self.uri(disk), target], check=True, timeout=60)
        return target.read_bytes()

    @staticmethod
    def fetch(lab, disk, image):
        """`disk` must read as `image` does."""
        subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", image,
                        f"nbd+unix:///{disk}?socket={lab.path('nbd.sock')}"], check=True, timeout=60, stdout=subprocess.DEVNULL)

    def fill(self, disk, data):
        source = self.path("source.img")
        source.write_bytes(data)
        subprocess.run(["qemu-img", "convert", "-n", "-O", "raw", "-f", "raw", source, self.uri(disk)], check=True, timeout=60)

    def uri(self, disk):
        return f"nbd+unix:///{disk}?socket={self.path('nbd.sock')}"


def qemu_io(path, *commands, read_only=False):
    words = [word for command in commands for word in ("-c", command)]
    return subprocess.run(["qemu-io", "-f", "raw", *(["-r"] if read_only else []), *words, str(path)], text=True,
                          capture_output=True, timeout=30, stdin=subprocess.DEVNULL)


@tap.test("a stripe deals its chunks out to two files, a concatenation goes on in the next")
def _():
    with Running() as lab:
        data = os.urandom(8 * MIB)
        lab.fill("fast", data)
        tap.check(lab.bytes("fast") == data, "the stripe reads otherwise than it was written")
        chunks = [data[at:at + 65536] for at in range(0, len(data), 65536)]
        for leg in (0, 1):
            tap.check(lab.path(f"leg{leg}.img").read_bytes() == b"".join(chunks[leg::2]), f"leg {leg} has other chunks")
        data = os.urandom(4 * MIB)
        lab.fill("long", data)
        tap.check(lab.bytes("long") == data, "the concatenation reads otherwise than it was written")
        tap.check(lab.path("tail.img").read_bytes() == data[MIB:], "the last leg")


@tap.test("two disks have slices of one file; QEMU is kept out of it, and so is a slice of what QEMU has")
def _():
    with Running() as lab:
        before, mine = lab.path("all.img").read_bytes(), os.urandom(4 * MIB)
        lab.fill("second", mine)
        tap.check(lab.bytes("first") == before[:2 * MIB], "the first slice")
        tap.check(lab.path("all.img").read_bytes() == before[:2 * MIB] + mine + before[6 * MIB:], "the file around the second")
        for read_only in (False, True):
            done = qemu_io(lab.path("all.img"), "read 0 4k", read_only=read_only)
            tap.check(done.returncode and "lock" in done.stderr, f"qemu-io got in: {done.stdout}{done.stderr}")
        lab.ask("add-disk", "third", "{stack: [slice: {offset: 6M}, file: {path: all.img}]}")
        done = lab.penstock("add-disk", "fourth", "{stack: [slice: {offset: 5M}, file: {path: all.img}]}", "--api",
                            lab.path("api.sock"))
        tap.check(done.returncode, "slices overlap")
        tap.contains(done.stderr, "all.img from 5M on, to its end: this is in use by another disk")
    with Lab() as lab:
        lab.image("all.img", 8)
        held = subprocess.Popen(["qemu-io", "-r", "-f", "raw", lab.path("all.img")], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True)
        try:
            held.stdin.write("read 0 4k\n")
            held.stdin.flush()
            tap.contains(held.stdout.readline(), "4096")
            done = lab.penstock("run", lab.write("c.yaml", "disks: {a: {stack: [slice: {offset: 1M}, file: {path: all.img}]}}\n"
                                                           "nbd: [{socket: nbd.sock}]\n"))
            tap.check(done.returncode and "in use" in done.stderr, f"penstock shares it with QEMU: {done.stderr}")
        finally:
            held.communicate("quit\n", timeout=10)


@tap.test("what one disk has read of the golden image the other finds in the cache; their own writes stay theirs")
def _():
    with Running() as lab:
        golden = lab.path("golden.img").read_bytes()
        tap.check(lab.bytes("web1") == golden, "web1")
        misses = lab.state("web1", "cache")["misses"]
        tap.check(misses > 0, "nothing was read")
        tap.check(lab.bytes("web2") == golden, "web2")
        state = lab.state("web2", "cache")
        tap.equal((state["misses"], state["pool"], state["users"], state["shared"]), (0, "golden", 2, True), f"web2: {state}")
        tap.check(state["hits"] > 0 and state["used"] <= len(golden), f"web2: {state}")
        mine = os.urandom(MIB)
        lab.path("mine.img").write_bytes(mine)
        accepted(qemu_io(lab.uri("web1"), f"write -s {lab.path('mine.img')} 1M 1M"))
        tap.check(lab.bytes("web1") == golden[:MIB] + mine + golden[2 * MIB:], "web1 after a write")
        tap.check(lab.bytes("web2") == golden and lab.path("golden.img").read_bytes() == golden, "web2 and the image")


@tap.test("a golden image on an NBD server is fetched once for all its disks")
def _():
    with Lab() as lab:
        golden = lab.path("golden.img")
        golden.write_bytes(os.urandom(2 * MIB))
        server = lab.end_with(subprocess.Popen(["nbdkit", "--foreground", "--readonly", "--unix", lab.path("golden.sock"), "file",
                                                golden], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        for _ in range(500):
            if lab.path("golden.sock").exists():
                break
            time.sleep(0.02)
        disk = f'{{read-only: true, stack: [cache: {{pool: p, size: 16M}}, nbd: {{uri: "nbd+unix:///?socket={lab.path("golden.sock")}"}}]}}'
        lab.daemon("run", lab.write("c.yaml", f"disks: {{a: {disk}, b: {disk}}}\nnbd: [{{socket: nbd.sock}}]\napi: api.sock\n"))
        Running.fetch(lab, "a", golden)
        # What b wants is here already, and the server is not asked.
        server.kill()
        server.wait()
        Running.fetch(lab, "b", golden)


@tap.test("a cache in front of a disk that is written: put in, made smaller, taken out, while it is read and written")
def _():
    with Running() as lab:
        data = os.urandom(8 * MIB)
        lab.fill("fast", data)
        lab.ask("insert-layer", "fast", "0", "cache: {size: 4M}")
        tap.check(lab.bytes("fast") == data and lab.bytes("fast") == data, "through the cache")
        accepted(qemu_io(lab.uri("fast"), "write -P 7 1000K 300K", "read -P 7 1000K 300K", "discard 5M 1M"))
        data = data[:1000 << 10] + b"\7" * (300 << 10) + data[1300 << 10:]
        tap.check(lab.bytes("fast")[:5 * MIB] == data[:5 * MIB], "after a write")
        lab.ask("set-layer", "fast", "cache", "size=1M")
        tap.check(lab.state("fast", "cache")["used"] <= MIB, "memory was not given back")
        tap.check(lab.bytes("fast")[:5 * MIB] == data[:5 * MIB], "with less memory")
        lab.ask("remove-layer", "fast", "cache")
        tap.check(lab.bytes("fast")[:5 * MIB] == data[:5 * MIB], "without it")


@tap.test("a disk that does not answer: held requests wait until the option is changed")
def _():
    with Running() as lab:
        lab.ask("set-layer", "slow", "delay", "hold=true")
        ended = []
        thread = threading.Thread(target=lambda: ended.append(qemu_io(lab.uri("slow"), "write -P 5 0 64k", "read -P 5 0 64k")))
        thread.start()
        time.sleep(0.5)
        tap.check(not ended, "it was not held")
        lab.ask("set-layer", "slow", "delay", "hold=false")
        thread.join(20)
        tap.check(ended and not ended[0].returncode, f"it did not come back: {ended}")
        # Held at the end, it does not keep penstock from ending.
        lab.ask("set-layer", "slow", "delay", "hold=true")
        with subprocess.Popen(["qemu-io", "-f", "raw", "-c", "read 0 64k", lab.uri("slow")], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as left:
            time.sleep(0.5)
            tap.equal(lab.server.stop(), 0, "exit status")
            left.kill()


tap.main()
