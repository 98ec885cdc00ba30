#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The control API from outside: penstock status, resize and qemu-args, and curl."""

import json
import re
import socket
import subprocess

from cli_checks import GOOD, accepted, refused, tap
from lab import Lab


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
            text = accepted(lab.penstock("qemu-args", "web", *source))
            tap.contains(text, "vhost-user-blk-pci", "web.sock", "memory-backend-memfd", "share=on", "reconnect=")
        refused(lab.penstock("qemu-args", "nonesuch", "--config", "good.yaml"), 2, "nonesuch")


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
