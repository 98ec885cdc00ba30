# SPDX-License-Identifier: BSD-3-Clause
"""VMs whose network cards are penstock's, on its switches, with its uplinks.

    network = Network(lab, {"a0": Nic("a", {"switch": "lan"}), "b0": Nic("b", {"switch": "lan"}, "packed=on")},
                      {"inet": {"switch": "lan", "user": {}}})
    a, b = network.boot("a"), network.boot("b")
    ...
    network.stop()

A guest finds its cards as eth0, eth1, ... in the order in which they are written. With $DEVICES=qemu the same VMs
have QEMU's own cards and no penstock; what a test then finds it expects wrongly of the guest. A switch is then a
multicast group on the loopback interface, and all that a port can do is left out; `user` is passt as QEMU knows it.
"""

import dataclasses
import json
import os
import socket
import subprocess
import time
from pathlib import Path

import qemu11
import tap
from guest import accelerator, qemu_binary
from lab import ATTACH_SECONDS
from qmp import Qmp

QEMUS_OWN = os.environ.get("DEVICES") == "qemu"

# What a guest is given to talk with.
PROGRAMS = ("iperf3", "ethtool")
MODULES = ("virtio_net",)


@dataclasses.dataclass
class Nic:
    """A card: its VM, what the configuration says of it under `nics`, QEMU's properties, pairs of queues."""
    vm: str
    options: dict
    properties: str = ""
    pairs: int = 1


class Network:
    """penstock with these cards and uplinks (as in its configuration), and the VMs that have them.

    `switches`: those with options; the others are as the cards and uplinks name them. `name`: of its files, where a
    test has several. `own`: with QEMU's own cards. `newer`: in QEMU 11.1."""

    def __init__(self, lab, nics, uplinks=None, switches=None, name="net", own=QEMUS_OWN, newer=False):
        self.lab = lab
        self.nics = nics
        self.uplinks = uplinks or {}
        self.name = name
        self.own = own
        self.newer = newer
        self.daemon = None
        self.macs = {nic: f"52:54:00:00:{sum(map(ord, name)) & 255:02x}:{number:02x}"
                     for number, nic in enumerate(nics, start=1)}
        if own:
            self._start_peers()
            return
        ports = [*(nic.options for nic in nics.values()), *self.uplinks.values()]
        vms = {}
        for nic, of in nics.items():
            vms.setdefault(of.vm, []).append({"virtio-net": nic, "socket": str(self._socket(nic)),
                                              "queue-pairs": of.pairs})
        config = {"switches": {port["switch"]: {} for port in ports} | (switches or {}),
                  "nics": {nic: {"mac": self.macs[nic], **of.options} for nic, of in nics.items()},
                  "uplinks": self.uplinks, "vms": vms, "api": self._api()}
        # JSON is YAML.
        self.daemon = lab.daemon("run", lab.write(f"{name}.yaml", json.dumps(config, indent=1)))

    def boot(self, vm, *, modules=(), programs=(), memory=256, files=(), **kwargs):
        """A booted guest, its loopback interface and its cards up. It finds the `files` (paths) as /tmp/NAME."""
        disks = [word for number, path in enumerate(files) for word in (
            "-drive", f"if=none,id=file{number},file={path},format=raw,readonly=on",
            "-device", f"virtio-blk-pci,drive=file{number}")]
        guest = self.lab.boot([*self.arguments(vm, memory), *disks], modules=[*MODULES, *modules],
                              programs=[*PROGRAMS, *programs], **{"qemu": self.qemu(), **kwargs})
        # Addresses are good at once: nobody else has them.
        guest.run("for file in /proc/sys/net/ipv6/conf/*/accept_dad; do echo 0 >$file; done; "
                  "for dev in lo $(ls -d /sys/class/net/eth*); do ip link set ${dev##*/} up; done")
        for letter, path in zip("abcdefgh", map(Path, files)):
            guest.run(f"head -c {path.stat().st_size} /dev/vd{letter} >/tmp/{path.name}")
        return guest

    def qemu(self):
        """The words of QEMU's command."""
        return qemu11.command() if self.newer else [qemu_binary()]

    def arguments(self, vm, memory=256, rom=False):
        """QEMU's arguments for the cards of a VM, its memory, and QMP. `rom`: they boot."""
        words = ["-m", str(memory), "-machine", "memory-backend=memory", "-qmp",
                 f"unix:{self.lab.path(f'{vm}.qmp')},server=on,wait=off",
                 "-object", f"memory-backend-memfd,id=memory,size={memory}M,share=on"]
        reconnect = "reconnect-ms=1000" if self.newer else "reconnect=1"
        for nic, of in self.nics.items():
            if of.vm != vm:
                continue
            properties = f",{of.properties}" if of.properties else ""
            if of.pairs > 1:
                properties += ",mq=on"
            # QEMU before 9.1 without KVM reads what it has not set up when a vhost-user card starts with MSI-X.
            msix = self.newer or accelerator() == "kvm"
            properties += f",vectors={2 * of.pairs + 2}" if msix else ",vectors=0"
            if self.own:
                words += ["-netdev", f"{self._peer(of.options['switch'])},id={nic}"]
                properties = ",".join(part for part in properties.split(",") if part not in ("mq=on",))
            else:
                words += ["-chardev", f"socket,id={nic}-socket,path={self._socket(nic)},{reconnect}",
                          "-netdev", f"vhost-user,id={nic},chardev={nic}-socket,queues={of.pairs}"]
            boots = "bootindex=1" if rom else "romfile="
            words += ["-device", f"virtio-net-pci,id={nic}-card,netdev={nic},mac={self.macs[nic]},{boots}{properties}"]
        return words

    def qmp(self, vm):
        """A connection to the machine protocol of a running QEMU."""
        return Qmp(self.lab.path(f"{vm}.qmp"))

    def penstock(self, *words):
        """A command to the running daemon; its output. It must succeed."""
        done = self.lab.penstock(*words, "--api", self._api())
        tap.equal(done.returncode, 0, f"status of penstock {' '.join(words)}, which said {done.stderr!r}")
        return done.stdout

    def status(self):
        """What the API tells of everything."""
        return json.loads(self.penstock("status", "--json"))

    def device(self, nic):
        """What it tells of the device of a card."""
        for vm in self.status()["vms"]:
            for device in vm["devices"]:
                if device.get("virtio-net") == nic:
                    return device
        raise tap.Failure(f"status has no device for {nic}")

    def wait_until_attached(self, nics=None, seconds=ATTACH_SECONDS):
        """Wait until QEMU has found its server again and the rings of these cards (all) run.

        QEMU 7.2 never dials again if its server dies in the middle of the handshake."""
        deadline = time.monotonic() + seconds
        for nic in nics or self.nics:
            while not ((device := self.device(nic))["connected"] and device["running-queues"] >= 2):
                tap.check(time.monotonic() < deadline, f"after {seconds} s {nic} is not attached: {device}")
                time.sleep(0.1)

    def stop(self):
        """End penstock in good order."""
        if self.daemon:
            tap.equal(self.daemon.stop(), 0, "penstock's exit status")

    def _api(self):
        return f"{self.name}-api.sock"

    def _socket(self, nic):
        return self.lab.path(f"{nic}.sock")

    # --- QEMU's own -------------------------------------------------------------

    def _start_peers(self):
        self.peers, self._ports = [], {}
        for name, uplink in self.uplinks.items():
            passt = subprocess.Popen(["passt", "--foreground", "--quiet", "--runas", "0", "--socket",
                                      self.lab.path(f"{name}.passt")], stdin=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.peers.append(self.lab.end_with(passt))
            self._ports[uplink["switch"]] = f"stream,server=off,addr.type=unix,addr.path={self.lab.path(f'{name}.passt')}"
        time.sleep(0.5)

    def _peer(self, switch):
        if switch not in self._ports:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            self._ports[switch] = f"socket,mcast=230.0.0.1:{port},localaddr=127.0.0.1"
        return self._ports[switch]
