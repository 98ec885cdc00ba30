#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A mirror from outside: a leg that fails and returns under load, one that is missing at the start, legs added and
removed, inspect, and what the legs hold at the end, compared with cmp. The load comes over NBD."""

import json
import os
import re
import signal
import subprocess
import time

from cli_checks import accepted, refused, tap
from lab import MIB, Lab

SIZE = 24 * MIB
TAIL = 12288        # bytes of records at the end of a leg of this size


class Mirror(Lab):
    """A daemon with a mirror over a.img and b.img, 24 MiB each, which it exports over NBD."""

    def start(self, legs="[{file: {path: a.img}}, {file: {path: b.img}}]", options="create: true"):
        self.server = self.daemon("run", self.write("c.yaml", f"""\
api: api.sock
disks:
  db:
    stack:
      - mirror: {{legs: {legs}, {options}}}
nbd:
  - {{socket: nbd.sock, read-only: false}}
"""))
        return self

    def images(self, *names):
        for name in names:
            self.image(name, SIZE // MIB)
        return self

    def ask(self, *arguments):
        return self.penstock(*arguments, "--api", self.path("api.sock"))

    def state(self):
        """What the mirror says of itself."""
        disks = json.loads(accepted(self.ask("status", "--json")))["disks"]
        return disks[0]["stack"][0]["mirror"]["state"]

    def wait(self, wanted, seconds=60):
        deadline = time.monotonic() + seconds
        while self.state()["state"] != wanted:
            tap.check(time.monotonic() < deadline, f"not {wanted} after {seconds} s: {self.state()}")
            time.sleep(0.1)
        return self.state()

    def fio(self, seconds=3, **job):
        """Start writing at random places over NBD, with verification afterwards."""
        options = {"name": "load", "ioengine": "nbd", "uri": f"nbd+unix:///db?socket={self.path('nbd.sock')}",
                   "rw": "randwrite", "bs": "4k", "iodepth": "16", "size": str(SIZE), "verify": "crc32c",
                   "do_verify": "1", "verify_fatal": "1", "runtime": str(seconds), "time_based": "1", **job}
        return subprocess.Popen(["fio", *(f"--{key}={value}" for key, value in options.items())], cwd=self.directory,
                                text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    def finished(self, fio):
        text = fio.communicate(timeout=120)[0]
        tap.equal(fio.returncode, 0, f"fio's status:\n{text}")

    def stop(self):
        tap.equal(self.server.stop(), 0, "exit status")

    def same(self, *names):
        for name in names[1:]:
            done = subprocess.run(["cmp", "-n", str(SIZE), names[0], name], cwd=self.directory, text=True,
                                  capture_output=True)
            tap.equal(done.returncode, 0, f"cmp {names[0]} {name}: {done.stdout}{done.stderr}")


@tap.test("a leg fails under load: fio sees nothing, status and log say so; it returns, and is the same")
def _():
    with Mirror() as lab:
        lab.images("a.img", "b.img").start("[{file: {path: a.img}}, [{flaky: {}}, {file: {path: b.img}}]]")
        lab.wait("in-sync")
        load = lab.fio(seconds=6)
        time.sleep(1)
        accepted(lab.ask("set-layer", "db", "mirror/1/flaky", "errors=100%", "ops=write"))
        state = lab.wait("degraded")
        tap.equal([leg["state"] for leg in state["legs"]], ["in-sync", "failed"], "the legs")
        tap.contains(state["legs"][1]["reason"], "failed")
        tap.contains(lab.log.read_text(), "leg 1 (b.img) is dropped")
        metrics = subprocess.run(["curl", "-sS", "--unix-socket", lab.path("api.sock"), "http://penstock/metrics"], text=True,
                                 capture_output=True, timeout=30, check=True).stdout
        tap.contains(metrics, 'penstock_layer{disk="db",layer="mirror",number="3",what="failed-legs"} 1\n')
        time.sleep(1)
        accepted(lab.ask("set-layer", "db", "mirror/1/flaky", "errors=", "ops="))
        accepted(lab.ask("set-layer", "db", "mirror", "retry=1"))
        lab.wait("in-sync")
        lab.finished(load)
        generation = lab.state()["generation"]
        tap.check(generation > state["generation"], f"generation {generation} after {state['generation']}")
        lab.stop()
        lab.same("a.img", "b.img")
        for name in ("a.img", "b.img"):
            tap.contains(accepted(lab.penstock("inspect", name)), "good: all checksums", "(this leg)", f"generation {generation}",
                         "bitmap: 0 of 24")


@tap.test("killed under load: the regions that were written are copied, and the legs are the same again")
def _():
    with Mirror() as lab:
        lab.images("a.img", "b.img").start()
        lab.wait("in-sync")
        deadline = time.monotonic() + 30
        while lab.state()["dirty-regions"]:
            tap.check(time.monotonic() < deadline, "regions stay dirty without writes")
            time.sleep(0.2)
        load = lab.fio(seconds=30, do_verify="0", size=str(4 * MIB))
        time.sleep(2)
        lab.server.process.send_signal(signal.SIGKILL)
        lab.server.process.wait()
        load.communicate(timeout=60)
        dirty = re.search(r"bitmap: (\d+) of 24", lab.penstock("inspect", "a.img").stdout)
        tap.check(dirty and 1 <= int(dirty[1]) <= 4, f"regions in the bitmap: {dirty and dirty[0]}; 4 were written to")
        lab.server.start()
        lab.wait("in-sync")
        lab.stop()
        lab.same("a.img", "b.img")


@tap.test("a leg cannot be used at the start: refused, unless the option names the generation; later it gets what it lacks")
def _():
    with Mirror() as lab:
        lab.images("a.img", "b.img").start()
        lab.wait("in-sync")
        lab.stop()
        os.rename(lab.path("b.img"), lab.path("away.img"))
        lab.image("b.img", 0)
        done = lab.penstock("run", "c.yaml")
        refused(done, 1, "mirror", "leg 1 (b.img)", "may have newer data")
        generation = re.search(r"degraded: (\d+)", done.stderr)[1]
        lab.start(options=f"create: true, degraded: {generation}")
        tap.equal(lab.state()["legs"][1]["state"], "failed", "the leg that cannot be used")
        lab.finished(lab.fio(seconds=1, size=str(2 * MIB)))
        lab.stop()
        os.rename(lab.path("away.img"), lab.path("b.img"))
        lab.start()
        lab.wait("in-sync")
        tap.contains(lab.log.read_text(), "copying 2 regions")
        lab.stop()
        lab.same("a.img", "b.img")


@tap.test("legs are added and removed while fio writes")
def _():
    with Mirror() as lab:
        lab.images("a.img", "b.img", "c.img").start()
        lab.wait("in-sync")
        load = lab.fio(seconds=6)
        accepted(lab.ask("add-leg", "db", "mirror", "file: {path: c.img}"))
        lab.wait("in-sync")
        accepted(lab.ask("remove-leg", "db", "mirror/0"))
        lab.finished(load)
        lab.wait("in-sync")
        tap.equal(len(lab.state()["legs"]), 2, "legs")
        lab.stop()
        lab.same("b.img", "c.img")


@tap.test("taken apart under load: the leg that was left behind is refused until it is wiped")
def _():
    with Mirror() as lab:
        lab.images("a.img", "b.img").start()
        lab.wait("in-sync")
        load = lab.fio(seconds=6, size=str(8 * MIB))
        time.sleep(1)
        accepted(lab.ask("remove-layer", "db", "mirror", "--keep", "1"))
        pause = re.search(r"requests waited ([0-9.]+) ms at most", lab.log.read_text())
        tap.check(pause and float(pause[1]) < 2000, f"the pause: {pause and pause[0]}")
        print(f"# {pause[0]}")
        refused(lab.penstock("inspect", "b.img"), 1)
        tap.contains(accepted(lab.penstock("inspect", "a.img")), "stale")
        time.sleep(1)
        again = ("insert-layer", "db", "file", "mirror: {create: true, legs: [file: {path: a.img}]}")
        refused(lab.ask(*again), 1, "no leg that is here has all data", "inspect --wipe")
        accepted(lab.penstock("inspect", "--wipe", "a.img"))
        accepted(lab.ask(*again))
        lab.finished(load)
        lab.wait("in-sync")
        accepted(lab.ask("remove-layer", "db", "mirror", "--keep", "0"))
        lab.finished(lab.fio(seconds=1, size=str(2 * MIB)))
        lab.stop()
        # The configuration still has the mirror, with the leg first that was left behind.
        for options in ("create: true", "create: true, degraded: 1"):
            lab.write("c.yaml", lab.path("c.yaml").read_text().replace("create: true", options))
            refused(lab.penstock("run", "c.yaml"), 1, "mirror", "no leg that is here has all data")
        accepted(lab.penstock("inspect", "--wipe", "a.img"))
        lab.start("[{file: {path: b.img}}, {file: {path: a.img}}]")
        lab.wait("in-sync")
        lab.stop()
        lab.same("b.img", "a.img")


@tap.test("a disk that moves away from its mirror leaves no leg that would start again")
def _():
    with Mirror() as lab:
        lab.images("a.img", "b.img").start()
        lab.wait("in-sync")
        load = lab.fio(seconds=4, size=str(8 * MIB))
        accepted(lab.ask("move", "db", "file: {path: c.img, create: true}"))
        lab.finished(load)
        for name in ("a.img", "b.img"):
            tap.contains(accepted(lab.penstock("inspect", name)), "stale (this leg)")
        lab.stop()
        refused(lab.penstock("run", "c.yaml"), 1, "mirror", "no leg that is here has all data")


@tap.test("inspect: what is no leg, what is damaged, and wiping")
def _():
    with Mirror() as lab:
        lab.images("a.img", "b.img", "plain.img").start()
        lab.wait("in-sync")
        refused(lab.penstock("inspect", "--wipe", "a.img"), 1, "in use")
        lab.stop()
        refused(lab.penstock("inspect", "plain.img"), 1, "nothing that penstock")
        refused(lab.penstock("inspect", "none.img"), 1, "none.img")
        size = lab.path("b.img").stat().st_size
        tap.equal(size, SIZE + TAIL, "size of a leg")
        with open(lab.path("b.img"), "r+b") as leg:
            leg.seek(size - 4096 + 300)
            leg.write(b"damage")
        done = lab.penstock("inspect", "b.img")
        tap.equal(done.returncode, 1, "status of inspect")
        tap.contains(done.stdout, "damaged: copy 0", "checksum")
        accepted(lab.penstock("inspect", "--wipe", "a.img"))
        refused(lab.penstock("inspect", "a.img"), 1)


tap.main()
