#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The control API from outside: penstock status, resize, qemu-args and what changes disks and units, and curl."""

import fcntl
import json
import os
import re
import socket
import subprocess
import time

from cli_checks import GOOD, accepted, refused, tap
from lab import PENSTOCK, Lab


def running(lab):
    """A daemon with GOOD on an 8 MiB image, and its API on api.sock."""
    lab.image("disk.img", 8)
    return lab.daemon("run", lab.write("good.yaml", GOOD), "--api", "api.sock")


def curl(lab, path, *arguments):
    """(HTTP status, content type, body) of a request to the API."""
    done = subprocess.run(["curl", "-sS", "--max-time", "20", "--unix-socket", lab.path("api.sock"),
                           "-w", r"\n%{http_code} %{content_type}", *arguments, f"http://penstock{path}"],
                          text=True, capture_output=True, timeout=30)
    tap.equal(done.returncode, 0, f"curl's exit status ({done.stderr})")
    body, _, last = done.stdout.rpartition("\n")
    code, _, kind = last.partition(" ")
    return int(code), kind, body


@tap.test("status tells of the disk and the VM, as text and as JSON")
def _():
    with Lab() as lab:
        running(lab)
        tap.contains(accepted(lab.penstock("status", "--api", "api.sock")), "data", "web")
        status = json.loads(accepted(lab.penstock("status", "--api", "api.sock", "--json")))
        tap.check(isinstance(status, dict), f"not an object: {status}")
        tap.contains(json.dumps(status), '"data"', '"web"', "web.sock", str(8 << 20))


@tap.test("status where no daemon listens says so, and names the socket")
def _():
    with Lab() as lab:
        refused(lab.penstock("status", "--api", "gone.sock"), 1, "gone.sock")


@tap.test("GET /v1/... answers JSON over curl; what is unknown is 404, a wrong method 405")
def _():
    with Lab() as lab:
        running(lab)
        code, kind, body = curl(lab, "/v1/status")
        tap.equal((code, kind.split(";")[0]), (200, "application/json"), "answer to GET /v1/status")
        tap.contains(json.dumps(json.loads(body)), '"data"')
        code, kind, body = curl(lab, "/v1/nonesuch")
        tap.equal((code, kind.split(";")[0]), (404, "application/json"), "answer to GET /v1/nonesuch")
        tap.check(json.loads(body).get("error"), f"no error text in {body}")
        tap.equal(curl(lab, "/v1/status", "-X", "DELETE")[0], 405, "answer to DELETE /v1/status")


@tap.test("/metrics is Prometheus text, with the disk's counters and a latency histogram")
def _():
    with Lab() as lab:
        running(lab)
        code, kind, body = curl(lab, "/metrics")
        tap.equal(code, 200, "HTTP status")
        tap.contains(kind, "text/plain")
        sample = re.compile(r'[a-z_]+(\{([a-z_]+="[^"]*",?)*\})? [-+0-9.e]+(Inf)?$')
        odd = [line for line in body.splitlines() if line and not line.startswith("#") and not sample.match(line)]
        tap.equal(odd, [], "lines that are no samples")
        typed = dict(re.findall(r"# TYPE (\S+) (\S+)", body))
        tap.check("histogram" in typed.values(), f"no histogram in {typed}")
        for word in ("requests", "bytes", "errors", "interrupt", "depth"):
            tap.check(any(word in name for name in typed), f"no metric about {word} in {sorted(typed)}")
        tap.contains(body, 'disk="data"')


@tap.test("resize grows the image; a smaller or senseless size and an unknown disk are refused")
def _():
    with Lab() as lab:
        running(lab)
        accepted(lab.penstock("resize", "data", "16M", "--api", "api.sock"))
        tap.equal(lab.path("disk.img").stat().st_size, 16 << 20, "the image's size")
        tap.contains(json.dumps(json.loads(accepted(lab.penstock("status", "--api", "api.sock", "--json")))),
                     str(16 << 20))
        refused(lab.penstock("resize", "data", "much", "--api", "api.sock"), 2, "much")
        for disk, size in (("data", "4M"), ("nonesuch", "32M")):
            done = lab.penstock("resize", disk, size, "--api", "api.sock")
            refused(done, 1, disk)
        tap.equal(lab.path("disk.img").stat().st_size, 16 << 20, "the image's size afterwards")


@tap.test("qemu-args prints what attaches the VM's disks, from a configuration and from a daemon")
def _():
    with Lab() as lab:
        running(lab)
        for source in (("--config", "good.yaml"), ("--api", "api.sock")):
            for version, reconnect in (("7.2", "reconnect=1"), ("9.1.9", "reconnect=1"), ("9.2", "reconnect-ms=1000"),
                                       ("11", "reconnect-ms=1000")):
                text = accepted(lab.penstock("qemu-args", "web", *source, "--qemu", version))
                tap.contains(text, "vhost-user-blk-pci", "web.sock", "memory-backend-memfd", "share=on", reconnect)
            for version in ("seven", "7.", "7.2.", "7.2x", "9.2.0-rc1", "77777", "7.100"):
                refused(lab.penstock("qemu-args", "web", *source, "--qemu", version), 2, "--qemu", "7.2")
            # Without --qemu it is the one that is installed; where there is none, what most versions take.
            lab.path("bin").mkdir(exist_ok=True)
            emulator = lab.path("bin") / "qemu-system-x86_64"
            for says, reconnect in (("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)", "reconnect-ms=1000"),
                                    ("QEMU emulator version 9.2.0-rc1 (v9.2.0-rc1)", "reconnect-ms=1000"),
                                    ("QEMU emulator version 8.2.0", "reconnect=1"), ("no words", "reconnect=1"),
                                    (None, "reconnect=1")):
                emulator.unlink(missing_ok=True)
                if says:
                    emulator.write_text(f"#!/bin/sh\necho '{says}'\n")
                    emulator.chmod(0o755)
                tap.contains(accepted(lab.penstock("qemu-args", "web", *source,
                                                  env={**os.environ, "PATH": str(lab.path("bin"))})), reconnect)
        code, _, body = curl(lab, "/v1/vms/web/qemu-args?qemu=ten")
        tap.equal(code, 400, "answer to ?qemu=ten")
        tap.contains(body, "qemu: 'ten'")
        refused(lab.penstock("qemu-args", "nonesuch", "--config", "good.yaml"), 2, "nonesuch")
        lab.write("both.yaml", GOOD + "    - {pvscsi: [], socket: pvscsi.sock}\n")
        text = accepted(lab.penstock("qemu-args", "web", "--config", "both.yaml"))
        # The QEMUs that have vfio-user know reconnect= no more.
        tap.contains(text, "vfio-user-pci", "vhost-user-blk-pci", "reconnect-ms=1000")


@tap.test("status of an idle daemon is one row for a device of one unit, and names disks that no VM has")
def _():
    with Lab() as lab:
        running(lab)
        accepted(lab.penstock("add-disk", "more", "{stack: [null: {size: 1G}]}", "--api", "api.sock"))
        lines = accepted(lab.penstock("status", "--api", "api.sock")).splitlines()
        row = [line for line in lines if "virtio-blk0" in line]
        tap.equal(len(row), 1, f"rows of the device in {lines}")
        tap.contains(row[0], "web", "waiting", "data", "8.0M", "web.sock")
        tap.check("Disks that no VM has: more (1.0G)" in lines, f"the disk that no VM has is not in {lines}")


@tap.test("add-disk and remove-disk: a disk comes, is refused a second time, and goes")
def _():
    with Lab() as lab:
        running(lab)
        lab.image("more.img", 4)
        api = ("--api", "api.sock")
        tap.contains(accepted(lab.penstock("add-disk", "more", "{cache: unsafe, stack: [pass, file: {path: more.img}]}", *api)),
                     "disk more: 4M")
        disk = json.loads(curl(lab, "/v1/disks/more")[2])
        tap.equal((disk["cache"], disk["size"], disk["units"]), ("unsafe", 4 << 20, []), "the disk")
        refused(lab.penstock("add-disk", "more", "{stack: [null]}", *api), 1, "there is a disk 'more' already")
        refused(lab.penstock("add-disk", "other", "{stack: [file: {path: more.img}]}", *api), 1, "more.img", "in use")
        refused(lab.penstock("remove-disk", "data", *api), 1, "'data' is in use", "virtio-blk0")
        tap.contains(accepted(lab.penstock("remove-disk", "more", *api)), "more: removed")
        tap.equal(curl(lab, "/v1/disks/more")[0], 404, "answer to GET of what was removed")
        refused(lab.penstock("remove-disk", "mroe", *api), 1, "no disk 'mroe'")
        accepted(lab.penstock("add-disk", "other", "{stack: [file: {path: more.img}]}", *api))


@tap.test("add-disk says what is wrong with its options, and opens nothing")
def _():
    with Lab() as lab:
        running(lab)
        for options, status, names in (
                ("{", 2, ["OPTIONS:", "YAML"]), ("disk.img", 2, ["disk.img"]), ("", 2, ["empty"]),
                ("{stack: []}", 1, ["stack", "empty"]), ("{stak: [null]}", 1, ["stak", "did you mean 'stack'"]),
                ("{stack: [pas, null]}", 1, ["pas", "did you mean 'pass'"]),
                ("{block-size: 513, stack: [null]}", 1, ["block-size", "513", "2048"]),
                ("{stack: [file: {path: gone.img}]}", 1, ["gone.img", "does not exist"]),
                ("{size: 5K, stack: [iso: {path: disk.img}]}", 1, ["5K", "2048"])):
            refused(lab.penstock("add-disk", "more", options, "--api", "api.sock"), status, *names)
        refused(lab.penstock("add-disk", "a/b", "{stack: [null]}", "--api", "api.sock"), 2, "a/b")
        refused(lab.penstock("add-disk", "a+b", "{stack: [null]}", "--api", "api.sock"), 1, "a+b", "cannot be a name")
        tap.equal(len(json.loads(curl(lab, "/v1/disks")[2])), 1, "disks afterwards")


@tap.test("a disk that waits for a lock keeps nobody waiting, and goes with the daemon")
def _():
    with Lab() as lab:
        daemon = running(lab)
        lab.image("held.img", 1)
        with open(lab.path("held.img"), "r+b") as held:
            fcntl.lockf(held, fcntl.LOCK_EX)
            began = time.monotonic()
            with subprocess.Popen([PENSTOCK, "add-disk", "held", "{stack: [file: {path: held.img}]}", "--api",
                                   "api.sock"], cwd=lab.directory, text=True, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE) as waiting:
                time.sleep(0.3)
                accepted(lab.penstock("status", "--api", "api.sock"))
                refused(lab.penstock("add-disk", "held", "{stack: [null]}", "--api", "api.sock"), 1, "being opened")
                tap.check(waiting.poll() is None, "it did not wait for the lock")
                tap.check(time.monotonic() - began < 2.5, "status waited for the lock of another disk")
                error = waiting.communicate(timeout=20)[1]
                tap.equal(waiting.returncode, 1, "exit status of add-disk")
                tap.contains(error, "held.img", "in use")
            with subprocess.Popen([PENSTOCK, "add-disk", "held", "{stack: [file: {path: held.img}]}", "--api",
                                   "api.sock"], cwd=lab.directory, text=True, stderr=subprocess.PIPE) as waiting:
                time.sleep(0.3)
                tap.equal(daemon.stop(), 0, "exit status of the daemon")
                tap.contains(waiting.communicate(timeout=20)[1], "penstock is ending")


@tap.test("a client that leaves before the answer is there is missed by nobody")
def _():
    with Lab() as lab:
        daemon = running(lab)
        lab.image("held.img", 1)
        with open(lab.path("held.img"), "r+b") as held:
            fcntl.lockf(held, fcntl.LOCK_EX)
            body = b'{"stack": [{"file": {"path": "held.img"}}]}'
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(lab.path("api.sock")))
                client.sendall(b"POST /v1/disks/held HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                time.sleep(0.3)
        deadline = time.monotonic() + 10                # the lock is free, so it opens
        while curl(lab, "/v1/disks/held")[0] != 200:
            tap.check(time.monotonic() < deadline, "the disk did not open")
            time.sleep(0.1)
        accepted(lab.penstock("remove-disk", "held", "--api", "api.sock"))
        tap.equal(daemon.stop(), 0, "exit status")


@tap.test("what a device cannot do, and names of VMs, devices, units and disks that do not exist, are refused in words")
def _():
    with Lab() as lab:
        running(lab)
        lab.image("cd.iso", 1)
        for command, status, names in (
                (["insert", "web", "virtio-blk0", "data"], 1, ["virtio-blk0", "keeps its disk"]),
                (["eject", "web", "virtio-blk0", "--force"], 1, ["virtio-blk0", "keeps its disk"]),
                (["attach", "web", "virtio-blk0", "data"], 1, ["virtio-blk0", "keeps its units"]),
                (["detach", "web", "virtio-blk0"], 1, ["virtio-blk0", "keeps its units"]),
                (["eject", "wbe", "virtio-blk0"], 1, ["no VM 'wbe'", "did you mean 'web'"]),
                (["eject", "web", "virtio-blk1"], 1, ["no device 'virtio-blk1'", "did you mean 'virtio-blk0'"]),
                (["eject", "web", "virtio-blk0/slave"], 1, ["no unit 'slave'"]),
                (["insert", "web", "virtio-blk0", "dat"], 1, ["no disk 'dat'"]),
                (["insert", "web", "virtio-blk0"], 2, ["DISK is missing", "--iso"]),
                (["insert", "web", "virtio-blk0", "data", "--iso", "cd.iso"], 2, ["both"]),
                (["insert", "web", "virtio-blk0", "--iso", "gone.iso"], 1, ["gone.iso", "No such file"]),
                (["insert", "web", "virtio-blk0", "--iso", "cd.iso"], 1, ["virtio-blk0", "keeps its disk"]),
                (["eject", "web", "a b"], 2, ["'a b' cannot be a name"]),
                (["eject", "web", "/"], 2, ["cannot be a name"]),
                (["eject", "web", "virtio-blk0", "--froce"], 2, ["--froce", "--force"]),
                (["detach", "web"], 2, ["argument is missing"])):
            refused(lab.penstock(*command, "--api", "api.sock"), status, *names)
        tap.equal(len(json.loads(curl(lab, "/v1/disks")[2])), 1, "disks afterwards")


@tap.test("GET, PUT and POST of a unit over curl: what is there, and how refusals are answered")
def _():
    with Lab() as lab:
        running(lab)
        unit = "/v1/vms/web/devices/virtio-blk0/units/-"
        code, _, body = curl(lab, unit)
        tap.equal((code, json.loads(body)["disk"]), (200, "data"), "answer to GET of the unit")
        for arguments, wanted in ((["-X", "PUT", "--data", '{"disk": null}'], 409), (["-X", "PUT", "--data", "{"], 400),
                                  (["-X", "PUT", "--data", '{"disk": "x"}'], 404), (["-X", "POST"], 405)):
            code, _, body = curl(lab, unit, *arguments)
            tap.equal(code, wanted, f"answer to {arguments}")
            tap.check(json.loads(body).get("error"), f"no error text in {body}")


@tap.test("garbage on the API's socket harms nobody")
def _():
    with Lab() as lab:
        daemon = running(lab)
        for garbage in (b"\0" * 4096, b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n", b"POST /v1/disks/data HTTP/1.1\r\n"
                        b"Content-Length: 99999999999\r\n\r\n{", b""):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(5)
                client.connect(str(lab.path("api.sock")))
                try:
                    client.sendall(garbage)
                    client.shutdown(socket.SHUT_WR)
                    client.recv(4096)
                except OSError:
                    pass
        tap.check(daemon.running(), "the daemon has ended")
        tap.contains(accepted(lab.penstock("status", "--api", "api.sock")), "data")
        tap.equal(daemon.stop(), 0, "exit status")


tap.main()
