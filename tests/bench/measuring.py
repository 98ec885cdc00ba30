# SPDX-License-Identifier: BSD-3-Clause
"""What all sections of the benchmark measure with: servers that stay up and take turns, the client, medians, targets."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

GIB = 1 << 30
DEPTHS = (1, 8, 32, 128)
SERVER_CORE, CLIENT_CORE = 1, 0
DISTURBED = 0.05        # part of a run that client and server waited for their cores
OURS, THEIRS, LIMIT = "penstock", "qemu-storage-daemon", "fio"
CLIENTS = ("bench", "pvscsi", "latency", "nbd", "net")


class BenchError(Exception):
    """Why the run cannot go on, for people."""


# --- servers ----------------------------------------------------------------

class Server:
    """A process that serves on a socket, pinned to the server's core, or to `cores`."""

    def __init__(self, name, command, sockets, log, cores=SERVER_CORE):
        self.name = name
        self.socket = sockets[0]
        self.log = log
        with open(log, "ab") as out:
            self.process = subprocess.Popen(["taskset", "-c", str(cores), *map(str, command)],
                                            stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        end = time.monotonic() + 20
        while not all(Path(path).is_socket() for path in sockets):
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise BenchError(f"{name} does not start: {' '.join(map(str, command))}\n"
                                 + log.read_text(errors="replace")[-2000:])
            time.sleep(0.02)
        time.sleep(0.05)

    @property
    def pid(self):
        return self.process.pid         # taskset has become the server

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Bench:
    """The tools, the place for sockets and image, and every server started."""

    def __init__(self, arguments, directory):
        self.arguments = arguments
        self.directory = Path(directory)
        build = Path(arguments.build).resolve()
        self.penstock = build / "penstock"
        self.clients = {name: build / "tests" / "bench" / f"{name}-client" for name in CLIENTS}
        for program in (self.penstock, *self.clients.values()):
            if not os.access(program, os.X_OK):
                raise BenchError(f"{program} is not there: build first (make)")
        self.build = build
        self.qsd = self.tool("qemu-storage-daemon", "qemu-system-common", "the comparison")
        self.fio = self.tool("fio", "fio", "the limit")
        self.servers = []
        self.results = {}
        self.runs = self.disturbed = 0

    @staticmethod
    def tool(name, package, what):
        path = shutil.which(name)
        if not path:
            print(f"{name} is missing, so {what} is left out. To have it: apt install {package}")
        return path

    # Paths of sockets are short: the directory is a temporary one.
    def path(self, name):
        return self.directory / name

    def start(self, name, command, sockets, cores=SERVER_CORE):
        server = Server(name, command, sockets, self.path(f"{name}.log"), cores)
        self.servers.append(server)
        return server

    def ours(self, name, path, *options):
        socket = self.path(f"{name}.sock")
        return self.start(OURS, [self.penstock, "serve", path, "--socket", socket, "--loops", "1",
                                 "--cpus", SERVER_CORE, *options], [socket])

    def device(self, kind, stack):
        """A server of one device with one disk, over whichever transport it has."""
        socket, config = self.path(f"{kind}.sock"), self.path(f"{kind}.yaml")
        config.write_text(json.dumps({"disks": {"disk": {"size": "1G", "stack": stack}}, "vms": {"vm": [
            {kind: "disk" if kind == "virtio-blk" else ["disk"], "socket": str(socket)}]}}))
        return self.start(OURS, [self.penstock, "run", config, "--loops", "1", "--cpus", SERVER_CORE], [socket])

    def theirs(self, name, blockdev):
        if not self.qsd:
            return None
        socket = self.path(f"{name}.qsd")
        return self.start(THEIRS, [
            self.qsd, "--object", "iothread,id=t0", "--blockdev", f"{blockdev},node-name=d0",
            "--export", f"type=vhost-user-blk,id=e0,node-name=d0,addr.type=unix,addr.path={socket},"
            "writable=on,iothread=t0,num-queues=1"], [socket])

    def stop_servers(self):
        while self.servers:
            self.servers.pop().stop()

    def ask_client(self, client, server, *options):
        """What a client says of a server, from JSON."""
        command = [self.clients[client], "--socket", server.socket, "--server", server.pid, "--cpu", CLIENT_CORE, *options]
        done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, timeout=120)
        if done.returncode:
            raise BenchError(f"{server.name}: {' '.join(map(str, options))}: {done.stderr.strip()}\n"
                             + server.log.read_text(errors="replace")[-2000:])
        return json.loads(done.stdout)

    def run_client(self, server, *options, seconds=None, client="bench"):
        """One run of a load."""
        run = self.ask_client(client, server, "--seconds", seconds or self.arguments.seconds, *options)
        run["disturbed"] = run["waited"] > DISTURBED * run["seconds"]
        self.runs += 1
        self.disturbed += run["disturbed"]
        return run

def median(runs, field):
    """Of the runs in which both had their cores to themselves, if there are any."""
    return statistics.median(run[field] for run in [run for run in runs if not run.get("disturbed")] or runs)


# --- targets -----------------------------------------------------------------

class Targets:
    """What is wanted beside what was measured; what was not is left out."""

    def __init__(self):
        self.rows = []

    def row(self, what, value, bound, least, unit="×"):
        """`value`: None if it was not measured. It is to be at least (`least`), or at most, `bound`."""
        if value is None:
            return
        met = value >= bound if least else value <= bound
        self.rows.append((what, f"{'≥' if least else '≤'} {bound:g} {unit}", f"{value:.2f} {unit}", met))

    def show(self):
        if not self.rows:
            return
        print("\nTo reach")
        for what, wanted, measured, met in self.rows:
            print(f"  {what:52} {wanted:>12} {measured:>14}   {'yes' if met else 'no'}")
        print(f"  {sum(row[3] for row in self.rows)} of {len(self.rows)}; "
              "ratios of file and device vary by some percent from run to run")
