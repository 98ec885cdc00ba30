# SPDX-License-Identifier: BSD-3-Clause
"""Hosts for tests of networks: namespaces of this machine with interfaces of their own.

A test program calls enter() first: it starts itself anew in a network namespace of its own, with a /run of its own, so that
nothing that it makes can outlive it, and it needs no privilege where user namespaces are allowed. There it makes Hosts, further
namespaces, joined to the program's own by veth pairs; penstock runs in the program's own.
"""

import json
import os
import subprocess
import sys
import time

import tap

_why_not = None


def enter():
    """To be called before anything else. Where it cannot be done each need() skips."""
    global _why_not
    if os.environ.get("PENSTOCK_HOSTS") == str(os.getpid()):
        _why_not = _try()
        return
    unshare = ["unshare", *([] if os.geteuid() == 0 else ["-Ur"]), "-nm", "--propagation", "private"]
    done = subprocess.run([*unshare, "sh", "-c", "mount -t tmpfs none /run"], text=True, capture_output=True, timeout=30)
    if done.returncode:
        _why_not = f"no namespaces here: {done.stderr.strip()}"
        return
    os.environ["PENSTOCK_HOSTS"] = str(os.getpid())         # which exec keeps
    os.execvp("unshare", [*unshare, "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh", sys.executable, *sys.argv])


def _try():
    ip("link", "set", "dev", "lo", "up")
    done = subprocess.run(["ip", "link", "add", "name", "try0", "type", "veth", "peer", "name", "try1"], text=True,
                          capture_output=True, timeout=30)
    if done.returncode:
        return f"no veth here: {done.stderr.strip()}"
    ip("link", "del", "dev", "try0")
    # What this namespace itself would say on its interfaces is not part of any test.
    for scope in ("all", "default"):
        with open(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6", "w") as setting:
            setting.write("1")
    return None


def need():
    """Skip the test if there are no namespaces."""
    if _why_not:
        raise tap.Skip(_why_not)


def ip(*arguments):
    """Configure the program's own namespace."""
    subprocess.run(["ip", *map(str, arguments)], check=True, timeout=30)


class Host:
    """A namespace with an interface eth0: one end of a veth pair, whose other end, called `port`, stays with the program.
    Without `port` it has none yet."""

    def __init__(self, name, port=None, mtu=1500):
        self.name = name
        self.port = port
        ip("netns", "add", name)
        self.ip("link", "set", "dev", "lo", "up")
        if port:
            self.plug(mtu)

    def plug(self, mtu=1500):
        """The veth pair, anew if it was removed."""
        ip("link", "add", "name", self.port, "mtu", mtu, "type", "veth", "peer", "name", "eth0", "mtu", mtu, "netns", self.name)
        ip("link", "set", "dev", self.port, "up")
        self.ip("link", "set", "dev", "eth0", "up")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.port:
            subprocess.run(["ip", "link", "del", "dev", self.port], timeout=30, stderr=subprocess.DEVNULL)
        ip("netns", "del", self.name)

    def ip(self, *arguments):
        ip("-n", self.name, *arguments)

    def address(self, number, interface="eth0"):
        """10.0.0.NUMBER/24 and fd00::NUMBER/64."""
        self.ip("addr", "add", f"10.0.0.{number}/24", "dev", interface)
        self.ip("addr", "add", f"fd00::{number}/64", "dev", interface, "nodad")

    def command(self, *arguments):
        return ["nsenter", f"--net=/run/netns/{self.name}", *map(str, arguments)]

    def run(self, *arguments, timeout=60, check=True):
        return subprocess.run(self.command(*arguments), text=True, capture_output=True, timeout=timeout, check=check,
                              stdin=subprocess.DEVNULL)

    def start(self, *arguments, **kwargs):
        return subprocess.Popen(self.command(*arguments), text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, **kwargs)

    def ping(self, address, count=2, size=56, wait=5):
        """Answers to `count` pings; the last is waited for `wait` seconds."""
        done = self.run("busybox", "ping", "-c", count, "-i", "0.2", "-s", size, "-W", wait, address, check=False)
        return sum(" seq=" in line for line in done.stdout.splitlines())

    def iperf(self, server, address, *options, timeout=60):
        """iperf3 to `server`, a Host at `address`; what the client says in JSON. It must end well."""
        listening = server.start("iperf3", "-s", "-1")
        try:
            deadline = time.monotonic() + 20
            while ":5201 " not in server.run("ss", "-Hltn").stdout:
                tap.check(time.monotonic() < deadline, "iperf3 does not listen")
                time.sleep(0.05)
            done = self.run("iperf3", "-J", "-c", address, *options, timeout=timeout, check=False)
            said = json.loads(done.stdout or "{}")
            tap.check(done.returncode == 0 and "error" not in said, f"iperf3 {options}: {said.get('error')} {done.stderr}")
            return said
        finally:
            listening.kill()
            listening.wait()


def checked_sums(capture, timeout=60):
    """tshark on a capture: (frames, frames with a sum that is wrong, longest frame, frames with a tag)."""
    done = subprocess.run(["tshark", "-r", capture, "-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-o",
                           "udp.check_checksum:TRUE", "-T", "fields", "-e", "frame.len", "-e", "ip.checksum.status", "-e",
                           "tcp.checksum.status", "-e", "udp.checksum.status", "-e", "icmpv6.checksum.status", "-e",
                           "icmp.checksum.status", "-e", "vlan.id", "-e", "tcp.checksum"],
                          text=True, capture_output=True, timeout=timeout, check=True)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    # 0xffff is 0 in one's complement: Linux writes it where TCP's sum comes out as 0 (skb_checksum_help).
    wrong = [row for row in rows if "0" in row[1:2] + row[3:6] or (row[2] == "0" and row[7] != "0xffff")]
    return (len(rows), len(wrong), max((int(row[0]) for row in rows), default=0),
            sum(bool(row[6]) for row in rows))
