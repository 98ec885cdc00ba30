# SPDX-License-Identifier: BSD-3-Clause
"""Debian's Open vSwitch with its user-space datapath and DPDK's vhost-user ports, on one core and in a directory of its own.

It wants huge pages: as root they are asked of the kernel for the run, and given back. Nothing of it is a service of the
system; no PCI device is looked at. Its datapath thread polls without end, so it is stopped (SIGSTOP) while others run."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

HUGE_PAGES = 768        # of 2 MiB
DAEMON = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


class Unavailable(Exception):
    """Why there is no Open vSwitch here, for people."""


class HugePages:
    """So many huge pages and a mount of them, for as long as it lasts."""

    COUNT = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")

    def __init__(self, directory, pages=HUGE_PAGES):
        if os.geteuid():
            raise Unavailable("huge pages are root's to give")
        if not self.COUNT.exists():
            raise Unavailable("this kernel has no huge pages")
        self.before = self.COUNT.read_text()
        self.mount = Path(directory)
        self.mount.mkdir()
        try:
            self.COUNT.write_text(str(int(self.before) + pages))
            got = int(self.COUNT.read_text()) - int(self.before)
            if got < pages:
                raise Unavailable(f"the kernel gives {got} huge pages of {pages}")
            mounted = subprocess.run(["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "none", self.mount],
                                     text=True, capture_output=True, timeout=20)
            if mounted.returncode:
                raise Unavailable(mounted.stderr.strip())
        except (OSError, Unavailable) as error:
            self.give_back()
            raise Unavailable(str(error)) from error

    def give_back(self):
        if self.mount.is_mount():
            subprocess.run(["umount", self.mount], timeout=20)
        self.COUNT.write_text(self.before)


class OpenVswitch:
    """A bridge with vhost-user ports, each with its socket; the interface of measuring.Server."""

    def __init__(self, directory, ports, core):
        for tool in (DAEMON, shutil.which("ovsdb-server"), shutil.which("ovs-vsctl")):
            if not tool or not os.access(tool, os.X_OK):
                raise Unavailable("openvswitch-switch-dpdk is not installed")
        self.name = "Open vSwitch"
        self.directory = Path(directory)
        self.directory.mkdir()
        self.log = self.directory / "vswitchd.log"
        self.log.touch()
        self.sockets = {port: self.directory / port for port in ports}
        self.socket = self.sockets[ports[0]]
        self.environment = {**os.environ, **{name: str(self.directory) for name in (
            "OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR")}}
        self.processes = []
        self.pages = HugePages(self.directory / "huge")
        try:
            self.begin(core)
        except (Unavailable, OSError, subprocess.SubprocessError) as error:
            said = self.log.read_text(errors="replace")[-1000:]
            self.stop()
            raise Unavailable(f"Open vSwitch does not start: {error}\n{said}") from error

    def run(self, *command):
        done = subprocess.run([str(word) for word in command], env=self.environment, text=True, stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=60)
        if done.returncode:
            raise Unavailable(f"{command[0]}: {done.stderr.strip()}")
        return done.stdout

    def spawn(self, core, *command):
        with open(self.directory / "output", "ab") as output:
            process = subprocess.Popen(["taskset", "-c", str(core), *map(str, command)], env=self.environment,
                                       stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self.processes.append(process)
        return process

    def begin(self, core):
        database = self.directory / "db.sock"
        self.run("ovsdb-tool", "create", self.directory / "conf.db", SCHEMA)
        self.spawn(core, "ovsdb-server", self.directory / "conf.db", f"--remote=punix:{database}",
                   f"--log-file={self.directory / 'ovsdb.log'}")
        self.wait_for([database])
        control = ("ovs-vsctl", f"--db=unix:{database}", "--timeout=30")
        self.run(*control, "--no-wait", "init", "--", "set", "Open_vSwitch", ".", "other_config:dpdk-init=true",
                 f"other_config:dpdk-extra=--huge-dir {self.pages.mount} --in-memory --no-pci --no-telemetry",
                 "other_config:dpdk-socket-mem=1024", f"other_config:pmd-cpu-mask={1 << core:x}",
                 f"other_config:dpdk-lcore-mask={1 << core:x}")
        self.server = self.spawn(core, DAEMON, f"unix:{database}", f"--log-file={self.log}")
        self.run(*control, "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev",
                 *(word for port in self.sockets for word in (
                     "--", "add-port", "br0", port, "--", "set", "Interface", port, "type=dpdkvhostuser")))
        self.wait_for(self.sockets.values())
        self.pause()

    def wait_for(self, sockets):
        end = time.monotonic() + 30
        while not all(path.is_socket() for path in sockets):
            if any(process.poll() is not None for process in self.processes):
                raise Unavailable("it ended")
            if time.monotonic() > end:
                raise Unavailable("it makes no sockets")
            time.sleep(0.02)

    @property
    def pid(self):
        return self.server.pid

    def pause(self):
        self.server.send_signal(signal.SIGSTOP)

    @contextlib.contextmanager
    def awake(self):
        """It runs."""
        self.server.send_signal(signal.SIGCONT)
        try:
            yield self
        finally:
            self.pause()

    def version(self):
        return self.run("ovs-vsctl", "--version").splitlines()[0]

    def stop(self):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes = []
        self.pages.give_back()
        shutil.rmtree(self.directory)
