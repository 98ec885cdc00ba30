#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The uplinks tap and packet, and the layer impair: hosts in namespaces that reach one another through a switch."""

import fcntl
import json
import os
import struct
import subprocess
import sys
import time

from cli_checks import accepted, refused, tap
from lab import PENSTOCK, Lab

import hosts

SWITCH = "api: api.sock\nloops: {loops}\nswitches: {{lan: {{}}, far: {{}}}}\nuplinks:\n"
MEGABYTES = 20


class Net(Lab):
    """penstock with `uplinks`, a dict of name -> what stands behind it in the configuration, on the switch lan unless it says
    another."""

    def __enter__(self):
        hosts.need()
        super().__enter__()
        return self

    def host(self, name, port=None, mtu=1500):
        return self._closing.enter_context(hosts.Host(name, port, mtu))

    def run(self, uplinks, loops=1):
        text = SWITCH.format(loops=loops) + "".join(
            f"  {name}: {{{'' if rest.startswith('switch:') else 'switch: lan, '}{rest}}}\n" for name, rest in uplinks.items())
        self.server = self.daemon("run", self.write("net.yaml", text))
        for name in uplinks:
            self.wait_plugged(name, True)

    def ask(self, *arguments):
        return accepted(self.penstock(*arguments, "--api", self.path("api.sock")))

    def port(self, name):
        status = json.loads(self.ask("status", "--json"))
        return next(port for port in status["ports"] if port["name"] == name)

    def wait_plugged(self, name, wanted, seconds=20):
        deadline = time.monotonic() + seconds
        while self.port(name)["plugged"] != wanted:
            tap.check(time.monotonic() < deadline, f"{name} is not {'' if wanted else 'un'}plugged: {self.port(name)}")
            time.sleep(0.1)
        return self.port(name)["reason"]

    def end(self):
        """It must end well, and soon."""
        tap.equal(self.server.stop(), 0, f"exit status {self.server.last_lines()}")


def two_hosts(lab, mtu=1500):
    a, b = lab.host("a", "va", mtu), lab.host("b", "vb", mtu)
    a.address(1)
    b.address(2)
    return a, b


def reach(a, b, size=56):
    tap.equal(a.ping("10.0.0.2", size=size), 2, f"pings of {size} bytes to 10.0.0.2")
    tap.equal(b.ping("fd00::1", size=size), 2, f"pings of {size} bytes to fd00::1")


def transfer(a, b):
    """TCP both ways, and over IPv6; UDP."""
    a.iperf(b, "10.0.0.2", "-n", f"{MEGABYTES}M")
    a.iperf(b, "10.0.0.2", "-n", f"{MEGABYTES}M", "-R")
    a.iperf(b, "fd00::2", "-n", f"{MEGABYTES}M")
    udp = a.iperf(b, "10.0.0.2", "-u", "-b", "20M", "-t", "1")["end"]["sum"]
    tap.check(udp["lost_percent"] < 20, f"UDP at 20 Mbit/s: {udp}")


def link(interface, host=None):
    """What the kernel says of an interface, of `host` or of this namespace."""
    command = ["ip", "-j", *(["-n", host.name] if host else []), "link", "show", "dev", interface]
    return json.loads(subprocess.run(command, text=True, capture_output=True, check=True, timeout=30).stdout)[0]


def average(port, direction):
    return port[direction]["bytes"] / port[direction]["packets"]


# --- packet ---------------------------------------------------------------------------

@tap.test("packet to packet: hosts reach one another by IPv4, IPv6, TCP, UDP; large frames pass whole")
def _():
    with Net() as lab:
        a, b = two_hosts(lab)
        lab.run({"left": "packet: {interface: va}", "right": "packet: {interface: vb}"})
        reach(a, b)
        before = lab.port("left")
        a.iperf(b, "10.0.0.2", "-n", f"{MEGABYTES * 2}M")
        after = lab.port("left")
        size = (after["in"]["bytes"] - before["in"]["bytes"]) / (after["in"]["packets"] - before["in"]["packets"])
        tap.check(size > 3000, f"frames of {size:.0f} bytes: the host's TCP had to cut them")
        tap.equal((after["cut"], lab.port("right")["cut"]), (0, 0), "frames cut")
        transfer(a, b)
        lab.end()


@tap.test("the same with the ports on two loops")
def _():
    with Net() as lab:
        a, b = two_hosts(lab)
        lab.run({"left": "packet: {interface: va}", "right": "packet: {interface: vb}"}, loops=2)
        reach(a, b)
        transfer(a, b)
        for protocol in ((), ("-u", "-b", "0")):        # penstock ends, and begins again, while they send
            server = lab.end_with(b.start("iperf3", "-s", "-1"))
            time.sleep(0.5)
            client = lab.end_with(a.start("iperf3", "-c", "10.0.0.2", "-t", "60", *protocol))
            time.sleep(1)
            tap.check(client.poll() is None, "iperf3 does not send")
            lab.end()
            lab.server.start()
            for process in (client, server):
                process.kill()
                process.wait()
            lab.wait_plugged("right", True)
            reach(a, b)
        lab.end()


@tap.test("each offload of the hosts off: frames are small and summed, and all goes on")
def _():
    with Net() as lab:
        a, b = two_hosts(lab)
        lab.run({"left": "packet: {interface: va}", "right": "packet: {interface: vb}"})
        for features in (("tso", "off"), ("gso", "off"), ("tx", "off"), ("rx", "off"), ("gro", "off")):
            for host in (a, b):
                host.run("ethtool", "-K", "eth0", *features)
            a.iperf(b, "10.0.0.2", "-n", "5M")
            a.iperf(b, "fd00::2", "-n", "5M", "-R")
        tap.check(average(lab.port("left"), "in") < 9000, "frames of the host")
        lab.end()


@tap.test("jumbo frames pass, up to the port's MTU")
def _():
    with Net() as lab:
        a, b = two_hosts(lab, 9000)
        lab.run({"left": "mtu: 9000, packet: {interface: va}", "right": "mtu: 9000, packet: {interface: vb}"})
        reach(a, b, size=8900)
        transfer(a, b)
        lab.ask("set-port", "right", "mtu=1500")
        tap.equal(a.ping("10.0.0.2", size=8900, wait=1), 0, "pings that are too long")
        tap.check(lab.port("right")["out"]["drops"].get("too-long"), f"drops: {lab.port('right')['out']}")
        lab.end()


def wire(left, right):
    """A veth pair whose ends both stay here."""
    hosts.ip("link", "add", "name", left, "type", "veth", "peer", "name", right)
    for end in (left, right):
        hosts.ip("link", "set", "dev", end, "up")


@tap.test("a large frame whose segments are longer than the interface's MTU does not leave there")
def _():
    with Net() as lab:
        a, b = lab.host("a", "va", 9000), lab.host("b", "vb", 1500)
        a.address(1)
        b.address(2)
        b.ip("link", "set", "dev", "eth0", "mtu", 9000)         # it takes them, but between the two nobody may send them
        lab.run({"left": "packet: {interface: va}", "right": "packet: {interface: vb}"})
        reach(a, b)
        lab.end_with(b.start("iperf3", "-s", "-1"))
        time.sleep(1)
        done = a.run("timeout", "3", "iperf3", "-c", "10.0.0.2", "-n", "1M", check=False)
        tap.check(done.returncode, f"frames arrived that are too long: {done.stdout}")
        drops = lab.port("right")["out"]["drops"]
        tap.check(drops.get("too-long"), f"drops: {drops}")
        lab.end()


@tap.test("VLANs: between two switches frames have tags, at access ports none, and VLANs keep hosts apart")
def _():
    with Net() as lab:
        a, b = two_hosts(lab)
        c = lab.host("c", "vc")
        c.address(3)
        wire("w0", "w1")
        try:
            lab.run({"left": "vlan: 10, packet: {interface: va}", "out": "vlan: 0, trunk: all, packet: {interface: w0}",
                     "in": 'switch: far, vlan: 0, trunk: "10,20", packet: {interface: w1}',
                     "right": "switch: far, vlan: 10, packet: {interface: vb}",
                     "other": "switch: far, vlan: 20, packet: {interface: vc}"})
            reach(a, b)
            transfer(a, b)
            tap.check(average(lab.port("in"), "in") > 3000, "frames with a tag are small")
            tap.equal((lab.port("out")["cut"], lab.port("in")["cut"]), (0, 0), "frames with a tag that were cut")
            tap.equal(a.ping("10.0.0.3", wait=1), 0, "pings to another VLAN")
            lab.ask("set-port", "other", "vlan=10")
            a.ip("neigh", "flush", "all")
            tap.equal(a.ping("10.0.0.3"), 2, "pings when it is the same VLAN")
            lab.ask("set-port", "in", "trunk=20")
            tap.equal(a.ping("10.0.0.2", wait=1), 0, "pings in a VLAN that the trunk does not have")
            tap.check(lab.port("in")["in"]["drops"].get("vlan"), f"drops: {lab.port('in')['in']}")
            lab.end()
        finally:
            hosts.ip("link", "del", "dev", "w0")


@tap.test("what leaves for a file is cut and summed; tshark finds every sum right, with and without tags")
def _():
    with Net() as lab:
        a, b = two_hosts(lab)
        wire("w0", "w1")
        try:
            lab.run({"left": "vlan: 10, packet: {interface: va}", "out": "vlan: 0, trunk: all, packet: {interface: w0}",
                     "in": "switch: far, vlan: 0, trunk: all, packet: {interface: w1}",
                     "right": "switch: far, vlan: 10, packet: {interface: vb}",
                     "plain": "mirror: left, pcap: {sink: plain.pcap}",
                     "tagged": "switch: far, trunk: all, mirror: in, pcap: {sink: tagged.pcap}"})
            reach(a, b)
            a.iperf(b, "10.0.0.2", "-n", "4M")
            a.iperf(b, "fd00::2", "-n", "4M", "-R")
            a.iperf(b, "10.0.0.2", "-u", "-b", "10M", "-t", "1")
            cut = [lab.port(file)["cut"] for file in ("plain", "tagged")]
            lab.end()
        finally:
            hosts.ip("link", "del", "dev", "w0")
        tap.check(min(cut) > 1000, f"{cut} frames were cut: is there nothing to verify?")
        for file, tag in (("plain", 0), ("tagged", 4)):
            frames, wrong, longest, tagged = hosts.checked_sums(lab.path(f"{file}.pcap"))
            tap.check(frames > 2 * 4000000 / 1500, f"only {frames} frames in {file}")
            tap.equal(wrong, 0, f"frames of {frames} with a wrong sum in {file}")
            tap.equal(longest, 1514 + tag, f"the longest frame in {file}")
            tap.equal(tagged, frames if tag else 0, f"of {frames} frames in {file} those with tags")


@tap.test("an interface that goes down, or away, unplugs the uplink; it comes back with the interface")
def _():
    with Net() as lab:
        a, b = two_hosts(lab)
        lab.run({"left": "packet: {interface: va}", "right": "packet: {interface: vb}"})
        reach(a, b)
        hosts.ip("link", "set", "dev", "vb", "down")
        tap.contains(lab.wait_plugged("right", False), "down")
        tap.equal(a.ping("10.0.0.2", wait=1), 0, "pings to nobody")
        hosts.ip("link", "set", "dev", "vb", "up")
        lab.wait_plugged("right", True)
        reach(a, b)
        hosts.ip("link", "del", "dev", "vb")
        lab.wait_plugged("right", False)
        b.plug()
        b.address(2)
        a.ip("neigh", "flush", "all")
        lab.wait_plugged("right", True)
        reach(a, b)
        hosts.ip("link", "set", "dev", "va", "down")
        lab.wait_plugged("left", False)
        lab.end()


@tap.test("what the program that runs penstock sends out of the interface itself does not come in")
def _():
    with Net() as lab:
        a, b = two_hosts(lab)
        lab.run({"left": "packet: {interface: va}", "right": "packet: {interface: vb}"})
        reach(a, b)
        own = link("va")["address"]
        hosts.ip("addr", "add", "10.9.0.9/24", "dev", "va")
        subprocess.run(["busybox", "ping", "-c", "2", "-W", "1", "10.9.0.1"], timeout=30, stdout=subprocess.DEVNULL)
        known = lab.ask("addresses", "lan")
        tap.contains(known, link("eth0", a)["address"])
        tap.check(own not in known, f"{own} is among the addresses:\n{known}")
        lab.end()


# --- tap ------------------------------------------------------------------------------

def tap_host(lab, name="t", interface="tap0", mtu=1500):
    """A host that has the tap interface."""
    host = lab.host(name)
    hosts.ip("link", "set", "dev", interface, "netns", name)
    host.ip("link", "set", "dev", interface, "mtu", mtu, "up")
    host.address(1, interface)
    return host


@tap.test("tap to packet: an interface is made, with the port's MTU, and up; large frames pass whole both ways")
def _():
    with Net() as lab:
        b = lab.host("b", "vb", 9000)
        b.address(2)
        lab.run({"left": "mtu: 9000, tap: {interface: tap0}", "right": "mtu: 9000, packet: {interface: vb}"})
        made = link("tap0")
        tap.equal(made["mtu"], 9000, "MTU of the interface")
        tap.check("UP" in made["flags"], f"flags of the interface: {made['flags']}")
        a = tap_host(lab, mtu=9000)
        reach(a, b)
        reach(a, b, size=8900)
        for interface, host in (("tap0", a), ("eth0", b)):
            host.ip("link", "set", "dev", interface, "mtu", 1500)
        transfer(a, b)
        tap.check(average(lab.port("left"), "in") > 3000, "frames from the tap interface are small")
        tap.check(average(lab.port("left"), "out") > 3000, "frames to the tap interface are small")
        tap.equal((lab.port("left")["cut"], lab.port("right")["cut"]), (0, 0), "frames cut")
        lab.end()


@tap.test("frames with tags through a tap interface, whose other side is a packet socket")
def _():
    with Net() as lab:
        a, b = two_hosts(lab)
        hosts.ip("tuntap", "add", "dev", "tap0", "mode", "tap")
        try:
            hosts.ip("link", "set", "dev", "tap0", "up")
            lab.run({"left": "vlan: 10, packet: {interface: va}", "out": "vlan: 0, trunk: all, tap: {interface: tap0}",
                     "in": "switch: far, vlan: 0, trunk: all, packet: {interface: tap0}",
                     "right": "switch: far, vlan: 10, packet: {interface: vb}"})
            reach(a, b)
            transfer(a, b)
            tap.check(average(lab.port("out"), "out") > 3000, "frames with a tag are small")
            tap.check(average(lab.port("out"), "in") > 500, "frames with a tag are small")
            lab.end()
        finally:
            hosts.ip("link", "del", "dev", "tap0")


@tap.test("a tap interface that is removed unplugs the uplink")
def _():
    with Net() as lab:
        lab.run({"left": "tap: {interface: tap0}"})
        hosts.ip("link", "del", "dev", "tap0")
        tap.contains(lab.wait_plugged("left", False), "removed")
        lab.end()


@tap.test("a port that is set down takes the carrier off its tap interface")
def _():
    with Net() as lab:
        lab.run({"left": "tap: {interface: tap0}"})
        for state, carrier in (("false", False), ("true", True)):
            lab.ask("set-port", "left", f"up={state}")
            tap.equal("NO-CARRIER" not in link("tap0")["flags"], carrier, f"carrier of {link('tap0')}")
        lab.end()


# Without the privilege for networks, which root has.
UNPRIVILEGED = ("setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-net_admin,-net_raw")


@tap.test("without privilege: a tap that was made for the user works; else it is said what to do")
def _():
    with Net() as lab:
        wanted = lab.write("net.yaml", SWITCH.format(loops=1) + "  left: {switch: lan, tap: {interface: tap7}}\n")
        command = [*UNPRIVILEGED, PENSTOCK, "run", wanted]
        done = subprocess.run(command, cwd=lab.directory, text=True, capture_output=True, timeout=60)
        refused(done, done.returncode, "tap7", "ip tuntap add dev tap7 mode tap user 0")
        tap.check(done.returncode, "it ran")
        other = lab.write("raw.yaml", SWITCH.format(loops=1) + "  left: {switch: lan, packet: {interface: lo}}\n")
        done = subprocess.run([*UNPRIVILEGED, PENSTOCK, "run", other], cwd=lab.directory, text=True, capture_output=True, timeout=60)
        refused(done, done.returncode, "lo", "CAP_NET_RAW")
        tap.check(done.returncode, "it ran")
        hosts.ip("tuntap", "add", "dev", "tap7", "mode", "tap", "user", "0")
        try:
            process = lab.end_with(subprocess.Popen(command, cwd=lab.directory))
            deadline = time.monotonic() + 20
            while not lab.path("api.sock").exists():
                tap.check(process.poll() is None and time.monotonic() < deadline, "it does not run")
                time.sleep(0.1)
            lab.wait_plugged("left", True)
            process.terminate()
            tap.equal(process.wait(20), 0, "exit status")
        finally:
            hosts.ip("link", "del", "dev", "tap7")


def open_tap(name, flags):
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, 0x400454ca, struct.pack("16sH22x", name.encode(), flags))        # TUNSETIFF
    return fd


@tap.test("a descriptor that penstock is started with: a tap's works, another is refused")
def _():
    with Net() as lab:
        b = lab.host("b", "vb")
        b.address(2)
        text = (SWITCH.format(loops=1) + "  left: {switch: lan, tap: {fd: FD}}\n"
                "  right: {switch: lan, packet: {interface: vb}}\n")
        for flags, wanted in ((0x1002, "IFF_VNET_HDR"), (None, "not the descriptor of a tap")):
            fd = open_tap("tap1", flags) if flags else os.open("/dev/null", os.O_RDWR)
            done = subprocess.run([PENSTOCK, "run", lab.write("net.yaml", text.replace("FD", str(fd)))], cwd=lab.directory, text=True,
                                  capture_output=True, timeout=60, pass_fds=[fd])
            os.close(fd)
            refused(done, done.returncode, f"fd: {fd}", wanted)
            tap.check(done.returncode, "it ran")
        fd = open_tap("tap0", 0x5002)
        process = lab.end_with(subprocess.Popen([PENSTOCK, "run", lab.write("net.yaml", text.replace("FD", str(fd)))],
                                                cwd=lab.directory, pass_fds=[fd]))
        os.close(fd)
        deadline = time.monotonic() + 20
        while not lab.path("api.sock").exists():
            tap.check(process.poll() is None and time.monotonic() < deadline, "it does not run")
            time.sleep(0.1)
        lab.wait_plugged("right", True)
        a = tap_host(lab)
        reach(a, b)
        a.iperf(b, "10.0.0.2", "-n", f"{MEGABYTES}M")
        process.terminate()
        tap.equal(process.wait(20), 0, "exit status")


@tap.test("interfaces that cannot be had are named, and why")
def _():
    with Net() as lab:
        for rest, wanted in (("packet: {interface: nope0}", ("nope0", "no such interface")),
                             ("tap: {interface: lo}", ("lo", "not a tap interface")),
                             ("tap: {interface: a-name-that-is-too-long}", ("a-name-that-is-too-long", "1 to 15")),
                             ("tap: {}", ("interface", "fd")),
                             ("packet: {interface: lo, ring: 4K}", ("ring", "4K"))):
            lab.write("net.yaml", SWITCH.format(loops=1) + f"  left: {{switch: lan, {rest}}}\n")
            done = lab.penstock("run", "net.yaml", timeout=60)
            refused(done, done.returncode, *wanted)
            tap.check(done.returncode, "it ran")


# --- impair ---------------------------------------------------------------------------

RECEIVE = """
import socket, sys
with socket.create_server(("", 7000)) as server:
    print("listening", flush=True)
    with server.accept()[0] as peer, open(sys.argv[1], "wb") as file:
        while part := peer.recv(1 << 20):
            file.write(part)
"""
SEND = """
import socket, sys
with socket.create_connection(("10.0.0.2", 7000)) as peer, open(sys.argv[1], "rb") as file:
    peer.sendall(file.read())
"""


@tap.test("impair: a network that loses, delays and damages, changed while it is in use")
def _():
    with Net() as lab:
        a, b = two_hosts(lab)
        lab.run({"left": "packet: {interface: va}", "right": "packet: {interface: vb}"})
        reach(a, b)
        lab.ask("insert-layer", "right", "0", "impair: {loss: 100%, direction: out}")
        tap.equal(a.ping("10.0.0.2", wait=1), 0, "pings of which all are lost")
        tap.check(lab.port("right")["layers"], f"layers of {lab.port('right')}")
        lab.ask("set-layer", "right", "0", "loss=", "delay=150ms")
        said = a.run("busybox", "ping", "-c", "3", "-W", "5", "10.0.0.2").stdout
        times = [float(line.split("time=")[1].split()[0]) for line in said.splitlines() if "time=" in line]
        tap.check(len(times) == 3 and min(times) >= 150, f"round trips of {times} ms")
        # TCP bears all of it, and what arrives is what was sent.
        lab.ask("set-layer", "right", "0", "delay=1ms", "jitter=2ms", "loss=0.2%", "reorder=1%", "duplicate=1%", "corrupt=0.5%",
                "direction=both")
        data = os.urandom(2 << 20)
        lab.path("data").write_bytes(data)
        listening = lab.end_with(b.start(sys.executable, "-c", RECEIVE, lab.path("got")))
        tap.equal(listening.stdout.readline(), "listening\n", "the receiver's first words")
        a.run(sys.executable, "-c", SEND, lab.path("data"))
        tap.equal(listening.wait(60), 0, "the receiver's exit status")
        arrived = lab.path("got").read_bytes()
        wrong = [i for i in range(min(len(arrived), len(data))) if arrived[i] != data[i]]
        tap.check(arrived == data, f"of {len(data)} bytes {len(arrived)} arrived, {len(wrong)} wrong ones, at {wrong[:5]}")
        lab.ask("set-layer", "right", "0", "delay=1h", "direction=out")
        tap.equal(a.ping("10.0.0.2", wait=1), 0, "pings that are late")
        lab.ask("remove-layer", "right", "0")
        reach(a, b)
        lab.ask("insert-layer", "right", "0", "impair: {delay: 1h}")
        a.ping("10.0.0.2", wait=1)
        lab.end()


hosts.enter()
tap.main()
