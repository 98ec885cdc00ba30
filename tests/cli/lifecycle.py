#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Start, readiness, stop; sockets of the living and the dead; locks on images."""

import os
import select
import socket
import subprocess
import time

from cli_checks import GOOD, refused, tap
from lab import PENSTOCK, Lab


def tool(*command):
    """Run one of QEMU's tools to its end."""
    return subprocess.run(list(map(str, command)), text=True, capture_output=True, timeout=30)


@tap.test("sd_notify: READY=1 when the socket is there, STOPPING=1 on SIGTERM, exit status 0")
def _():
    with Lab() as lab, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        lab.image("disk.img", 1)
        notify.bind(str(lab.path("notify")))
        notify.settimeout(20)

        def told():
            """What systemd would be told next."""
            return notify.recv(4096).decode().splitlines()

        with open(lab.log, "wb") as log:
            process = subprocess.Popen([PENSTOCK, "run", lab.write("c.yaml", GOOD)], cwd=lab.directory,
                                       stdin=subprocess.DEVNULL, stderr=log,
                                       env={**os.environ, "NOTIFY_SOCKET": str(lab.path("notify"))})
        try:
            while "READY=1" not in told():
                pass
            tap.check(lab.path("web.sock").is_socket(), "ready, but there is no socket")
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(lab.path("web.sock")))
            process.terminate()
            while "STOPPING=1" not in told():
                pass
            tap.equal(process.wait(20), 0, "exit status")
        finally:
            process.kill()
            process.wait()
        tap.check(not lab.path("web.sock").exists(), "its socket was left behind")


@tap.test("SIGTERM and SIGINT remove the sockets, of the disk and of the API, and exit 0")
def _():
    with Lab() as lab:
        lab.image("disk.img", 1)
        for signal in (15, 2):
            daemon = lab.daemon("serve", "disk.img", "--socket", "s.sock", "--api", "api.sock")
            tap.check(lab.path("s.sock").is_socket() and lab.path("api.sock").is_socket(), "no sockets")
            daemon.process.send_signal(signal)
            tap.equal(daemon.process.wait(20), 0, f"exit status after signal {signal}")
            tap.equal([path.name for path in lab.directory.glob("*.sock")], [], "sockets left behind")


@tap.test("the socket that a killed daemon left behind is replaced")
def _():
    with Lab() as lab:
        lab.image("disk.img", 1)
        daemon = lab.daemon("serve", "disk.img", "--socket", "s.sock", "--api", "api.sock")
        daemon.kill()
        tap.check(lab.path("s.sock").exists(), "kill -9 removed the socket")
        again = lab.daemon("serve", "disk.img", "--socket", "s.sock", "--api", "api.sock")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(lab.path("s.sock")))
        tap.equal(again.stop(), 0, "exit status")


@tap.test("the socket of a living daemon is refused, and goes on working")
def _():
    with Lab() as lab:
        lab.image("disk.img", 1)
        daemon = lab.daemon("serve", "disk.img", "--socket", "s.sock")
        refused(lab.penstock("serve", "memory:", "--socket", "s.sock", "size=1M"), 1, "s.sock", "in use")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(lab.path("s.sock")))
        tap.equal(daemon.stop(), 0, "exit status")


@tap.test("a file that is no socket is never replaced by one")
def _():
    with Lab() as lab:
        precious = lab.write("precious", "data")
        refused(lab.penstock("serve", "memory:", "--socket", precious, "size=1M"), 1, "precious")
        tap.equal(precious.read_text(), "data", "the file")


@tap.test("a second writer of an image is refused: another penstock, qemu-img, qemu-io")
def _():
    with Lab() as lab:
        image = lab.image("disk.img", 1)
        daemon = lab.daemon("serve", image, "--socket", "s.sock")
        refused(lab.penstock("serve", image, "--socket", "other.sock"), 1, "disk.img", "in use")
        tap.check(not lab.path("other.sock").exists(), "the refused one left a socket")
        refused(lab.penstock("serve", image, "--socket", "other.sock", "read-only=true"), 1, "disk.img", "in use")
        for command in (("qemu-io", "-f", "raw", "-c", "write 0 4096", image),
                        ("qemu-img", "resize", "-f", "raw", image, "2M")):
            done = tool(*command)
            tap.check(done.returncode != 0 and "lock" in done.stdout + done.stderr,
                      f"{command} was not kept off: {done.stdout}{done.stderr}")
        tap.equal(daemon.stop(), 0, "exit status")
        tap.equal(tool("qemu-io", "-f", "raw", "-c", "write 0 4096", image).returncode, 0, "qemu-io afterwards")


@tap.test("an image that QEMU has open for writing is refused")
def _():
    with Lab() as lab:
        image = lab.image("disk.img", 1)
        with subprocess.Popen(["qemu-io", "-f", "raw", image], text=True, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as qemu:
            try:
                # Its prompt comes once the image is open.
                tap.check(select.select([qemu.stdout], [], [], 20)[0], "qemu-io does not start")
                time.sleep(0.2)
                refused(lab.penstock("serve", image, "--socket", "s.sock"), 1, "disk.img", "in use")
            finally:
                qemu.kill()


@tap.test("several readers of one image are welcome")
def _():
    with Lab() as lab:
        image = lab.image("disk.img", 1)
        one = lab.daemon("serve", image, "--socket", "one.sock", "read-only=true")
        two = lab.daemon("serve", image, "--socket", "two.sock", "read-only=true")
        refused(lab.penstock("serve", image, "--socket", "three.sock"), 1, "disk.img", "in use")
        tap.equal((one.stop(), two.stop()), (0, 0), "exit status")


@tap.test("under systemd, each line of the log carries its priority")
def _():
    with Lab() as lab:
        lab.image("disk.img", 1)
        daemon = lab.daemon("serve", "disk.img", "--socket", "s.sock", env={"INVOCATION_ID": "1", "JOURNAL_STREAM": "1:2"})
        daemon.stop()
        lines = lab.log.read_text().splitlines()
        tap.check(lines, "nothing was logged")
        tap.equal([line for line in lines if not (line[0] == "<" and line[2] == ">")], [], "lines without <N>")


@tap.test("an idle daemon with a disk uses no CPU")
def _():
    with Lab() as lab:
        lab.image("disk.img", 1)
        daemon = lab.daemon("serve", "disk.img", "--socket", "s.sock", "--api", "api.sock")

        def ticks():
            fields = open(f"/proc/{daemon.process.pid}/stat").read().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])

        time.sleep(0.5)
        before = ticks()
        time.sleep(3)
        used = (ticks() - before) / os.sysconf("SC_CLK_TCK")
        tap.check(used <= 0.02, f"{used} s of CPU in 3 s of idleness")


tap.main()
