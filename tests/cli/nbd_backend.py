#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The nbd back-end against nbdkit, qemu-nbd, and a server of our own that lies, forgets and dies."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from cli_checks import accepted, refused, tap
from lab import MIB, ROOT, Lab
from nbd_servers import Server, nbdkit, own, qemu_nbd

LOAD = Path(os.environ.get("BUILD", ROOT / "build-asan")) / "tests" / "protocol" / "load-client"


def configuration(**stacks):
    """Disks of these back-ends, each with a VM of its own and the socket NAME.sock."""
    return json.dumps({"disks": {name: {"stack": stack if isinstance(stack, list) else [stack]}
                                 for name, stack in stacks.items()},
                       "vms": {f"vm-{name}": [{"virtio-blk": name, "socket": f"{name}.sock"}] for name in stacks}})


def serve(lab, **stacks):
    return lab.daemon("run", lab.write("nbd.yaml", configuration(**stacks)), "--api", "api.sock", "--loops", "2")


def start_load(lab, disk="d", seconds=2.0, *words):
    return subprocess.Popen([LOAD, "-s", lab.path(f"{disk}.sock"), "-t", str(seconds), *words], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(load, timeout=60):
    """What a load says of itself."""
    out, err = load.communicate(timeout=timeout)
    tap.check(out, f"the load said nothing: {err}")
    return json.loads(out)


def verified(load, lab, requests=100):
    """The load had no error and read back what it had written."""
    result = finish(load)
    tap.equal(result["error"], "", f"the load's error (penstock says: {lab.log.read_text()[-2000:]})")
    tap.check(result["requests"] >= requests, f"only {result['requests']} requests")
    return result


def state(lab, disk="d"):
    """What the API says of the back-end."""
    status = json.loads(accepted(lab.penstock("status", "--json", "--api", "api.sock")))
    stack = next(entry for entry in status["disks"] if entry["name"] == disk)["stack"]
    return stack[-1]["nbd"]["state"]


def start_refused(lab, uri, *wanted, options=None, disk=None):
    config = {"disks": {"d": {**(disk or {}), "stack": [{"nbd": {"uri": uri, **(options or {})}}]}},
              "vms": {"v": [{"virtio-blk": "d", "socket": "d.sock"}]}}
    began = time.monotonic()
    done = lab.penstock("run", lab.write("refused.yaml", json.dumps(config)), timeout=30)
    refused(done, 1, *wanted)
    tap.check(time.monotonic() - began < 10, "it took too long to refuse")


# --- honest servers -------------------------------------------------------------------------------


@tap.test("a random load on nbdkit's memory, with one connection and with four")
def _():
    for connections in (1, 4):
        with Lab() as lab, nbdkit(lab, "memory", "16M") as server:
            daemon = serve(lab, d={"nbd": {"uri": server.uri(), "connections": connections}})
            tap.equal(state(lab)["connected"], connections, "connections")
            verified(start_load(lab), lab)
            tap.equal(daemon.stop(), 0, "exit status")


@tap.test("by TCP, killed and started again")
def _():
    with Lab() as lab, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        lab.image("k.img", 16)

        def start():
            server = lab.end_with(subprocess.Popen(["nbdkit", "--foreground", "--exit-with-parent", "--ipaddr", "127.0.0.1",
                                                    "--port", str(port), "file", lab.path("k.img")]))
            deadline = time.monotonic() + 10
            while socket.socket().connect_ex(("127.0.0.1", port)):
                tap.check(time.monotonic() < deadline, "nbdkit does not listen")
                time.sleep(0.02)
            return server

        server = start()
        serve(lab, d={"nbd": {"uri": f"nbd://127.0.0.1:{port}/", "connections": 2}})
        load = start_load(lab, "d", 2)
        time.sleep(0.7)
        server.kill()
        server.wait()
        start()
        verified(load, lab)
        tap.check(state(lab)["losses"], f"{state(lab)}")


@tap.test("more connections than the server says are safe, or takes, are not made")
def _():
    with Lab() as lab, nbdkit(lab, "--filter=multi-conn", "memory", "8M", "multi-conn-mode=disable") as server:
        serve(lab, d={"nbd": {"uri": server.uri(), "connections": 4}})
        tap.equal(state(lab)["connected"], 1, "connections")
        tap.contains(lab.log.read_text(), "does not say that more are safe")
        verified(start_load(lab, "d", 0.5), lab)
    with Lab() as lab:
        lab.image("q.img", 8)
        with qemu_nbd(lab, "raw", lab.path("q.img"), "--shared", "2") as server:
            serve(lab, d={"nbd": {"uri": server.uri(), "connections": 4}})
            tap.equal(state(lab)["connected"], 2, "connections")
            verified(start_load(lab, "d", 0.5), lab)


@tap.test("block sizes: the least is the disk's, and requests are cut to the most that the server takes")
def _():
    policy = ["--filter=blocksize-policy", "memory", "8M", "blocksize-error-policy=error"]
    with Lab() as lab, nbdkit(lab, *policy, "blocksize-minimum=4096", "blocksize-preferred=4096",
                               "blocksize-maximum=8192") as server:
        start_refused(lab, server.uri(), "block-size", "4096")
        lab.write("b.yaml", json.dumps({"disks": {"d": {"block-size": "4096", "stack": [{"nbd": {"uri": server.uri()}}]}},
                                        "vms": {"v": [{"virtio-blk": "d", "socket": "d.sock"}]}}))
        daemon = lab.daemon("run", "b.yaml")
        verified(start_load(lab, "d", 1, "-b", "4096"), lab)
        tap.equal(daemon.stop(), 0, "exit status")
    with Lab() as lab, nbdkit(lab, *policy, "blocksize-minimum=65536", "blocksize-preferred=64K",
                               "blocksize-maximum=1M") as server:
        start_refused(lab, server.uri(), "block-size", "65536")


@tap.test("a server without zeroing, discard and FUA, or without flush, is served as well")
def _():
    for words in (["--filter=nozero", "--filter=fua", "memory", "8M"],
                  ["--filter=noextents", "--filter=nozero", "memory", "8M"]):
        with Lab() as lab, nbdkit(lab, *words) as server:
            serve(lab, d={"nbd": {"uri": server.uri()}})
            verified(start_load(lab, "d", 1), lab)
    with Lab() as lab, own(lab, "--size", str(4 * MIB), "--flags", "0x1") as server:
        serve(lab, d={"nbd": {"uri": server.uri()}})
        tap.contains(lab.log.read_text(), "the server has no flush")
        verified(start_load(lab, "d", 1), lab)


@tap.test("a read-only export is refused, unless the disk is read-only")
def _():
    with Lab() as lab, nbdkit(lab, "--readonly", "memory", "8M") as server:
        start_refused(lab, server.uri(), "exports it read-only", "read-only: true")
        lab.write("ro.yaml", json.dumps({"disks": {"d": {"read-only": True, "stack": [{"nbd": {"uri": server.uri()}}]}},
                                         "vms": {"v": [{"virtio-blk": "d", "socket": "d.sock"}]}}))
        lab.daemon("run", "ro.yaml")


@tap.test("errors and delays of the server reach the guest as what they are")
def _():
    with Lab() as lab, nbdkit(lab, "--filter=error", "memory", "8M", "error-pread=EIO", "error-pread-rate=100%") as server:
        serve(lab, d={"nbd": {"uri": server.uri()}})
        result = finish(start_load(lab))
        tap.contains(result["error"], "status 1")
        tap.contains(lab.log.read_text(), "read at byte", "failed: Input/output error")
        tap.equal(state(lab)["losses"], 0, "connections lost by an error")
    with Lab() as lab, nbdkit(lab, "--filter=delay", "memory", "8M", "rdelay=50ms", "wdelay=30ms") as server:
        serve(lab, d={"nbd": {"uri": server.uri()}})
        verified(start_load(lab, "d", 1), lab, requests=20)


@tap.test("qcow2 by qemu-nbd: what the guest writes is in the image")
def _():
    with Lab() as lab:
        image, raw = lab.path("disk.qcow2"), lab.path("copy.img")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "16M"], check=True)
        # The words of penstock-nbd(7).
        with Server(lab, "qemu-nbd", "--persistent", "--socket", "{socket}", "--format", "qcow2", image) as server:
            daemon = serve(lab, d={"nbd": {"uri": server.uri()}})
            verified(start_load(lab), lab)
            tap.equal(daemon.stop(), 0, "exit status")
            server.process.terminate()      # in order: the image is whole
            server.process.wait(10)
        subprocess.run(["qemu-img", "check", "-q", image], check=True)
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw], check=True)
        # Through the back-end again: the same bytes, by another way.
        with qemu_nbd(lab, "qcow2", image, "--read-only") as server:
            subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", "raw", raw, server.uri()], check=True)


# --- opening ------------------------------------------------------------------------------------------


@tap.test("why a server cannot be had is said: no socket, no listener, no such export, silence, nonsense")
def _():
    with Lab() as lab:
        start_refused(lab, f"nbd+unix:///?socket={lab.path('none.sock')}", "none.sock", "start the server first")
        start_refused(lab, "nbd://127.0.0.1:1/", "Connection refused", "start the server first")
        start_refused(lab, "http://127.0.0.1/", "unknown NBD URI scheme")
        start_refused(lab, "nbd+unix:///", "socket")
        with own(lab, "--size", str(MIB), "--export", "go\x1bod") as server:     # which a terminal would obey
            start_refused(lab, server.uri("bad"), "no such export", "it has 'go?od'")
        for fault, wanted in (("magic", "magic"), ("hang-up", "server"), ("mute", "does not answer"),
                              ("go-mute", "does not answer")):
            with own(lab, "--size", str(MIB), "--fault", fault) as server:
                start_refused(lab, server.uri(), wanted, options={"open-timeout": "500ms"})


@tap.test("block sizes that make no sense are ignored; sensible odd ones are kept to")
def _():
    for blocks in ("3,4096,65536", "512,4096,511", "0,0,0", "1,1,1000", "512,1048576,4294967295"):
        with Lab() as lab, own(lab, "--size", str(4 * MIB), "--fault", "blocks", "--blocks", blocks) as server:
            serve(lab, d={"nbd": {"uri": server.uri()}})
            verified(start_load(lab, "d", 0.3), lab, requests=10)


@tap.test("an export of an odd size is a disk of whole blocks")
def _():
    with Lab() as lab, own(lab, "--size", str(4 * MIB + 777)) as server:
        serve(lab, d={"nbd": {"uri": server.uri()}})
        status = json.loads(accepted(lab.penstock("status", "--json", "--api", "api.sock")))
        tap.equal(status["disks"][0]["size"], (4 * MIB + 777) // 512 * 512, "size")
        verified(start_load(lab, "d", 0.5), lab)


# --- TLS -------------------------------------------------------------------------------------------------


def certificates(directory):
    """A CA, and a server's and a client's certificate, as libnbd and nbdkit want them."""
    directory.mkdir()
    for name, text in (("ca", "cn = Test\nca\ncert_signing_key\n"),
                       ("server", "cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\n"
                                  "encryption_key\nsigning_key\n"),
                       ("client", "cn = client\ntls_www_client\nencryption_key\nsigning_key\n")):
        template, key, cert = (directory / f"{name}{end}" for end in (".template", "-key.pem", "-cert.pem"))
        template.write_text(text)
        signer = ["--generate-self-signed"] if name == "ca" else [
            "--generate-certificate", "--load-ca-certificate", directory / "ca-cert.pem", "--load-ca-privkey",
            directory / "ca-key.pem"]
        for words in (["--generate-privkey", "--key-type", "ecdsa", "--outfile", key],
                      [*signer, "--load-privkey", key, "--template", template, "--outfile", cert]):
            subprocess.run(["certtool", *words], check=True, capture_output=True)
    return directory


@tap.test("TLS with certificates, and with a pre-shared key; a server that wants it says so")
def _():
    with Lab() as lab:
        pki = certificates(lab.path("pki"))
        with nbdkit(lab, "--tls=require", f"--tls-certificates={pki}", "--tls-verify-peer", "memory", "8M") as server:
            start_refused(lab, server.uri(), "wants TLS", "nbds")
            uri = f"nbds+unix://localhost/?socket={server.socket}&tls-certificates={pki}"
            daemon = serve(lab, d={"nbd": {"uri": uri}})
            verified(start_load(lab), lab)
            tap.equal(daemon.stop(), 0, "exit status")
        secret = lab.path("keys.psk")
        subprocess.run(["psktool", "-u", "alice", "-p", secret], check=True, capture_output=True)
        with nbdkit(lab, "--tls=require", f"--tls-psk={secret}", "memory", "8M") as server:
            uri = f"nbds+unix://alice@/?socket={server.socket}&tls-psk-file={secret}"
            serve(lab, d={"nbd": {"uri": uri, "connections": 2}})
            verified(start_load(lab), lab)
            start_refused(lab, f"nbds+unix://bob@/?socket={server.socket}&tls-psk-file={secret}", "bob")


# --- servers that die ---------------------------------------------------------------------------------------


def connected(lab):
    """Waits until penstock has all its connections: the death of a server that it has not reached is no loss."""
    deadline = time.monotonic() + 10
    while state(lab)["connected"] < state(lab)["wanted"]:
        tap.check(time.monotonic() < deadline, f"{state(lab)}")
        time.sleep(0.05)


def kill_under_load(lab, server, times=3, seconds=4.5, **options):
    serve(lab, d={"nbd": {"uri": server.uri(), **options}})
    load = start_load(lab, "d", seconds)
    for _ in range(times):
        connected(lab)
        time.sleep(0.7)
        server.kill()
        time.sleep(0.3)
        server.start()
    verified(load, lab)
    tap.check(state(lab)["losses"] >= times, f"{state(lab)}")


@tap.test("nbdkit is killed and started under load: no error, and the data are right")
def _():
    for connections in (1, 3):
        with Lab() as lab:
            lab.image("k.img", 16)
            with nbdkit(lab, "file", lab.path("k.img")) as server:
                kill_under_load(lab, server, connections=connections)


@tap.test("qemu-nbd with qcow2, which keeps metadata in memory, is killed and started under load")
def _():
    with Lab() as lab:
        image = lab.path("q.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "16M"], check=True)
        with qemu_nbd(lab, "qcow2", image) as server:
            kill_under_load(lab, server)


@tap.test("a server that loses all it has not flushed when it is killed loses nothing of ours")
def _():
    with Lab() as lab, own(lab, "--size", str(8 * MIB)) as server:
        kill_under_load(lab, server, times=4, seconds=5)
        tap.contains(lab.log.read_text(), "connected again; changes sent again: ")
        # At least once there was something to send again, or this has shown nothing.
        counts = [int(line.rsplit(":", 1)[1]) for line in lab.log.read_text().splitlines() if "changes sent again" in line]
        tap.check(max(counts) > 0, f"changes sent again: {counts}")
    with Lab() as lab, own(lab, "--size", str(8 * MIB), "--flags", "0x125", "--slow", "0.02") as server:
        kill_under_load(lab, server, connections=4)      # no FUA; multi-conn


@tap.test("replies that are nonsense end the connection, not penstock; the next one goes on")
def _():
    for fault in ("reply-magic", "cut-reply", "shutdown", "hang-up"):
        with Lab() as lab, own(lab, "--size", str(4 * MIB)) as server:
            serve(lab, d={"nbd": {"uri": server.uri()}})
            load = start_load(lab, "d", 2.2)
            time.sleep(0.5)
            server.kill()
            server.command += ["--fault", fault, "--times", "2", "--after", "20"]
            server.start()
            verified(load, lab)
            tap.check(state(lab)["losses"] >= 2 - (fault == "hang-up"), f"{fault}: {state(lab)}")


@tap.test("a server that answers no more, or the wrong requests, fails requests in time and no other disk")
def _():
    for fault in ("no-reply", "reply-handle"):
        with Lab() as lab, own(lab, "--size", str(4 * MIB)) as server:
            daemon = serve(lab, d={"nbd": {"uri": server.uri(), "timeout": "500ms", "reconnect-delay": "1s"}},
                           other={"memory": {"size": "4M"}})
            bad, good = start_load(lab, "d", 8), start_load(lab, "other", 3)
            time.sleep(0.3)
            server.kill()
            server.command += ["--fault", fault]
            server.start()
            tap.contains(finish(bad, 30)["error"], "status 1")
            verified(good, lab, requests=500)
            tap.contains(lab.log.read_text(), "reconnect-delay",
                         "no answer within the time-out" if fault == "no-reply" else "no matching cookie")
            began = time.monotonic()
            tap.equal(daemon.stop(), 0, "exit status")
            tap.check(time.monotonic() - began < 5, "stopping took too long")


@tap.test("a server that stays away fails requests after reconnect-delay; when it is back, they succeed")
def _():
    with Lab() as lab, own(lab, "--size", str(4 * MIB)) as server:
        serve(lab, d={"nbd": {"uri": server.uri(), "reconnect-delay": "1s"}})
        verified(start_load(lab, "d", 0.5), lab)
        server.kill()
        began = time.monotonic()
        result = finish(start_load(lab, "d", 5))
        tap.contains(result["error"], "status 1")
        tap.check(0.5 < time.monotonic() - began < 5, "requests failed at the wrong time")
        tap.equal(state(lab)["state"], "failed", "state")
        server.start()
        deadline = time.monotonic() + 8
        while state(lab)["state"] != "connected" and time.monotonic() < deadline:
            time.sleep(0.1)
        tap.equal(state(lab)["state"], "connected", "state")


@tap.test("an export that comes back smaller or read-only is refused; a larger one can be had")
def _():
    with Lab() as lab:
        image = lab.image("k.img", 8)
        with nbdkit(lab, "file", image) as server:
            daemon = serve(lab, d={"nbd": {"uri": server.uri(), "reconnect-delay": "500ms"}})
            load = start_load(lab, "d", 30)         # a guest, which will see errors
            time.sleep(0.2)
            server.kill()
            os.truncate(image, 4 * MIB)
            server.start()
            deadline = time.monotonic() + 8
            while "has shrunk" not in lab.log.read_text() and time.monotonic() < deadline:
                time.sleep(0.1)
            tap.contains(lab.log.read_text(), "refused to go on: the export has shrunk from 8M to 4M")
            os.truncate(image, 12 * MIB)
            deadline = time.monotonic() + 8
            while state(lab)["state"] != "connected" and time.monotonic() < deadline:
                time.sleep(0.1)
            tap.contains(lab.log.read_text(), "has grown from 8M to 12M")
            accepted(lab.penstock("resize", "d", "12M", "--api", "api.sock"))
            # It grows under the connection, too.
            os.truncate(image, 16 * MIB)
            accepted(lab.penstock("resize", "d", "16M", "--api", "api.sock"))
            refused(lab.penstock("resize", "d", "32M", "--api", "api.sock"), 1, "its server alone can make it 32M")
            load.kill()
            load.communicate()
            tap.equal(daemon.stop(), 0, "exit status")


@tap.test("a server that comes back read-only, or without what it had, is refused until it has it again")
def _():
    for flags, words in (("0x6f", "has become read-only"), ("0x65", "has no FUA any more")):
        with Lab() as lab, own(lab, "--size", str(4 * MIB)) as server:
            serve(lab, d={"nbd": {"uri": server.uri()}})
            load = start_load(lab, "d", 2)
            time.sleep(0.3)
            server.kill()
            good = server.command
            server.command = [*good, "--flags", flags]
            server.start()
            deadline = time.monotonic() + 8
            while words not in lab.log.read_text() and time.monotonic() < deadline:
                time.sleep(0.05)
            tap.contains(lab.log.read_text(), "refused to go on: the ", words)
            server.kill()
            server.command = good
            server.start()
            verified(load, lab)


@tap.test("the time limits change while the disk is in use, over the same connection; what cannot change says so")
def _():
    with Lab() as lab, own(lab, "--size", str(4 * MIB)) as server:
        serve(lab, d={"nbd": {"uri": server.uri()}})
        load = start_load(lab, "d", 2.5)
        time.sleep(0.3)
        accepted(lab.penstock("set-layer", "d", "nbd", "reconnect-delay=400ms", "timeout=5s", "--api", "api.sock"))
        tap.equal(state(lab)["losses"], 0, "connections lost by that")
        refused(lab.penstock("set-layer", "d", "nbd", "connections=2", "--api", "api.sock"), 1, "connections",
                "cannot change")
        server.kill()
        began = time.monotonic()
        tap.contains(finish(load)["error"], "status 1")
        tap.check(time.monotonic() - began < 5, "the old reconnect-delay was still in force")


@tap.test("a disk moves to a server while it is used, from there to another one that is killed meanwhile, and back")
def _():
    with Lab() as lab, nbdkit(lab, "file", lab.image("a.img", 16), name="a") as first, \
            nbdkit(lab, "file", lab.image("b.img", 16), name="b") as second:
        lab.image("disk.img", 16)
        serve(lab, d={"file": {"path": "disk.img"}})
        load = start_load(lab, "d", 6)
        accepted(lab.penstock("move", "d", json.dumps({"nbd": {"uri": first.uri()}}), "--api", "api.sock"))
        accepted(lab.penstock("move", "d", json.dumps({"nbd": {"uri": second.uri()}}), "--limit", "20M", "--detach",
                              "--api", "api.sock"))
        time.sleep(0.2)
        second.kill()
        time.sleep(0.3)
        second.start()
        accepted(lab.penstock("move", "d", "--api", "api.sock"))
        tap.equal(state(lab)["state"], "connected", "state")
        accepted(lab.penstock("move", "d", "file: {path: disk.img}", "--api", "api.sock"))
        verified(load, lab)


@tap.test("an idle connection uses no CPU")
def _():
    with Lab() as lab, own(lab, "--size", str(4 * MIB)) as server:
        daemon = serve(lab, d={"nbd": {"uri": server.uri()}})
        verified(start_load(lab, "d", 0.3), lab)
        time.sleep(0.3)
        ticks = cpu_ticks(daemon.process.pid)
        time.sleep(1)
        tap.check(cpu_ticks(daemon.process.pid) - ticks <= 1, "CPU while idle")


def cpu_ticks(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


for tool in ("nbdkit", "qemu-nbd", "qemu-img", "certtool", "psktool"):
    if not shutil.which(tool):
        sys.exit(f"{tool} is missing; scripts/install-packages test")
tap.main()
