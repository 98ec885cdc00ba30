#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Disks exported over NBD, and the tools of others on them: nbdinfo, nbdcopy, qemu-img, qemu-io, fio, libnbd."""

import json
import os
import re
import socket
import subprocess
import time

from cli_checks import GOOD, accepted, refused, tap
from lab import MIB, SHORT, Lab

import nbd_peer as nbd
from nbd_peer import Peer

SIZE = 64 * MIB


def tool(*command, fails=False, **kwargs):
    """Run a tool of others to its end; what it printed. It has to succeed, or to fail."""
    done = subprocess.run(list(map(str, command)), text=True, capture_output=True, timeout=60, stdin=subprocess.DEVNULL, **kwargs)
    tap.equal(done.returncode != 0, fails, f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Exports(Lab):
    """A daemon that exports a file and a memory disk for writing, and for reading over TCP; no VM. It has to end well."""

    def __init__(self, engine="auto"):
        self.engine = engine

    def __enter__(self):
        super().__enter__()
        self.port = free_port()
        self.image("disk.img", SIZE // MIB)
        self.server = self.daemon("run", self.write("c.yaml", f"""\
api: api.sock
disks:
  file:
    stack: [file: {{path: disk.img}}]
  mem:
    stack: [memory: {{size: {SIZE}}}]
nbd:
  - {{socket: rw.sock, read-only: false}}
  - {{listen: "127.0.0.1:{self.port}", disks: [mem]}}
"""), "--engine", self.engine)
        return self

    def __exit__(self, kind, *rest):
        try:
            if kind is None:
                tap.equal(self.server.stop(), 0, "exit status")
        finally:
            super().__exit__(kind, *rest)

    def uri(self, export=""):
        return f"nbd+unix:///{export}?socket={self.path('rw.sock')}"

    def tcp(self):
        return f"nbd://127.0.0.1:{self.port}"

    def random(self, name="random.img"):
        self.path(name).write_bytes(os.urandom(SIZE))
        return self.path(name)

    def ask(self, *arguments):
        return self.penstock(*arguments, "--api", self.path("api.sock"))


@tap.test("nbdinfo: sizes, names, what can be done; --list, --size, --json, --can, --map")
def _():
    with Exports() as lab:
        tap.equal(tool("nbdinfo", "--size", lab.uri("file")).strip(), str(SIZE), "--size")
        tap.equal(tool("nbdinfo", "--size", lab.tcp()).strip(), str(SIZE), "--size of the only export")
        for nothing in ("", "nothing"):
            tap.contains(tool("nbdinfo", "--size", lab.uri(nothing), fails=True), f"no export named '{nothing}'")
        listed = json.loads(tool("nbdinfo", "--list", "--json", lab.uri()))["exports"]
        tap.equal([export["export-name"] for export in listed], ["file", "mem"], "--list")
        about = json.loads(tool("nbdinfo", "--json", lab.uri("file")))["exports"][0]
        for name, wanted in (("is_read_only", False), ("can_flush", True), ("can_fua", True), ("can_trim", True),
                             ("can_zero", True), ("can_multi_conn", True), ("can_df", True), ("can_cache", True),
                             ("can_fast_zero", False), ("block_size_minimum", 512), ("block_size_maximum", 32 * MIB)):
            tap.equal(about[name], wanted, name)
        tap.contains(about["description"], "64M")
        for what in ("connect", "read", "write", "flush", "fua", "trim", "zero", "multi-conn", "df", "cache"):
            tool("nbdinfo", "--can", what, lab.uri("file"))
        tool("nbdinfo", "--is", "read-only", lab.tcp())
        for what in ("write", "trim", "zero", "fast-zero"):
            tool("nbdinfo", "--can", what, lab.tcp(), fails=True)
        tool("nbdinfo", "--is", "tls", lab.uri("file"), fails=True)
        tap.contains(tool("nbdinfo", "--map", lab.uri("file"), fails=True), "base:allocation")


for engine in ("uring", "threads"):
    @tap.test(f"nbdcopy: there and back, from export to export, with one and with several connections ({engine})")
    def _(engine=engine):
        with Exports(engine) as lab:
            image = lab.random()
            for connections in (1, 4):
                options = (f"--connections={connections}", "--requests=64", "--flush")
                tool("nbdcopy", *options, image, lab.uri("file"))
                tap.check(lab.path("disk.img").read_bytes() == image.read_bytes(), "the file is another after a flush")
                tool("nbdcopy", *options, lab.uri("file"), lab.uri("mem"))
                tool("nbdcopy", *options, lab.tcp(), lab.path(f"back{connections}"))
                tap.check(lab.path(f"back{connections}").read_bytes() == image.read_bytes(), "it came back changed")
            tool("nbdcopy", image, lab.tcp(), fails=True)


@tap.test("qemu-img info, convert and compare; qemu-io writes, zeroes, discards, and reads back")
def _():
    with Exports() as lab:
        image = lab.random()
        tap.contains(tool("qemu-img", "info", lab.uri("file")), "64 MiB")
        tool("qemu-img", "convert", "-n", "-W", "-m", 16, "-f", "raw", "-O", "raw", image, lab.uri("file"))
        tap.contains(tool("qemu-img", "compare", "-f", "raw", "-F", "raw", image, lab.uri("file")), "identical")
        tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", lab.uri("file"), lab.path("copy.qcow2"))
        tap.contains(tool("qemu-img", "compare", lab.path("copy.qcow2"), "-F", "raw", lab.uri("file")), "identical")
        tool("qemu-io", "-f", "raw", *(word for command in (
            "write -P 7 4096 1M", "write -f -P 8 1052672 512", "write -z 2M 1M", "write -z -u 3M 64k", "discard 8M 1M",
            "flush", "read -P 7 4096 1M", "read -P 8 1052672 512", "read -P 0 2M 1088k") for word in ("-c", command)),
             lab.uri("file"))
        tap.contains(tool("qemu-img", "compare", "-f", "raw", "-F", "raw", image, lab.uri("file"), fails=True), "mismatch")
        tool("qemu-io", "-f", "raw", "-c", "write 0 4096", lab.tcp(), fails=True)


@tap.test("fio's nbd engine with verify, mixed sizes, by several jobs at once")
def _():
    with Exports() as lab:
        for export in ("file", "mem"):
            tool("fio", "--name=verify", "--ioengine=nbd", f"--uri={lab.uri(export)}", "--rw=randwrite", "--bsrange=512-300k",
                 "--bs_unaligned=0", "--blockalign=512", "--iodepth=64", "--numjobs=3", "--size=16M", "--offset_increment=16M",
                 "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--fsync=100", f"--io_size={'4M' if SHORT else '16M'}")


LIBNBD = r"""
import sys, nbd
unix, tcp, size = sys.argv[1], sys.argv[2], int(sys.argv[3])

# What interop/interop.c asks of any server.
for mode in (nbd.TLS_DISABLE, nbd.TLS_ALLOW):
    h = nbd.NBD()
    h.set_tls(mode)
    h.connect_uri(tcp)
    assert not h.get_tls_negotiated() and h.get_size() == size
    assert len(h.pread(512, 0)) == 512
    h.shutdown()

# What interop/list-exports.c and python/t/2*.py ask while haggling.
h = nbd.NBD()
h.set_opt_mode(True)
h.connect_unix(unix)
assert h.get_protocol() == "newstyle-fixed" and h.get_structured_replies_negotiated()
found = []
assert h.opt_list(lambda name, description: found.append(name)) == 2 and found == ["file", "mem"]
h.set_export_name("nothing")
for wrong in (h.opt_info, h.opt_go):
    try:
        wrong()
        raise SystemExit("an export that there is not")
    except nbd.Error as error:
        assert error.errno == "ENOENT", error
h.set_export_name("file")
h.set_full_info(True)
h.opt_info()
assert h.get_size() == size and h.get_canonical_export_name() == "file" and "64M" in h.get_export_description()
assert h.opt_list_meta_context(lambda name: None) == 0
h.add_meta_context("base:allocation")
h.opt_go()
assert not h.can_meta_context("base:allocation")
assert h.get_block_size(nbd.SIZE_MINIMUM) == 512 and h.get_block_size(nbd.SIZE_MAXIMUM) == 32 << 20

# Structured reads, with and without DF; what the client library itself would refuse is sent, too.
h.pwrite(b"1" * 1024, 2048, nbd.CMD_FLAG_FUA)
for flags in (0, nbd.CMD_FLAG_DF):
    chunks = []
    assert h.pread_structured(1024, 2048, lambda *chunk: chunks.append(chunk[:3]), flags) == b"1" * 1024
    assert chunks == [(b"1" * 1024, 2048, nbd.READ_DATA)], chunks
h.set_strict_mode(0)
for call, wanted in ((lambda: h.pread(512, size), "EINVAL"), (lambda: h.pread(100, 0), "EINVAL"),
                     (lambda: h.pwrite(bytes(512), size), "ENOSPC"), (lambda: h.block_status(512, 0, lambda *_: 0), None),
                     (lambda: h.zero(512, 0, nbd.CMD_FLAG_FAST_ZERO), "EINVAL"), (lambda: h.trim(512, size), "EINVAL")):
    try:
        call()
        raise SystemExit("what cannot be was done")
    except nbd.Error as error:
        assert wanted is None or error.errno == wanted, error
h.flush(); h.zero(4096, 0, nbd.CMD_FLAG_NO_HOLE); h.trim(4096, 4096, nbd.CMD_FLAG_FUA); h.cache(1 << 20, 0)

# 200 at once, each to its own place, then read back.
buffers = [nbd.Buffer.from_bytearray(bytearray(bytes((n,)) * 4096)) for n in range(200)]
cookies = [h.aio_pwrite(buffer, n * 4096) for n, buffer in enumerate(buffers)]
while h.aio_in_flight():
    h.poll(-1)
assert all(h.aio_command_completed(cookie) for cookie in cookies)
assert all(h.pread(4096, n * 4096) == bytes((n,)) * 4096 for n in range(200))
h.shutdown()
print("well")
"""


@tap.test("libnbd: what its own interop programs ask of a server")
def _():
    if subprocess.run(["/usr/bin/python3", "-c", "import nbd"], capture_output=True).returncode:
        raise tap.Skip("python3-libnbd is not installed")
    with Exports() as lab:
        tap.contains(tool("/usr/bin/python3", "-c", LIBNBD, lab.path("rw.sock"), lab.tcp(), SIZE), "well")


# --- TLS ---

def certificates(lab):
    """An authority, a server's and a client's certificate in one directory, and another authority's client in another."""
    for directory, names in (("pki", ("ca", "server", "client")), ("other", ("ca", "client"))):
        where = lab.path(directory)
        where.mkdir()
        for name in names:
            template = "cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\nexpiration_days = 2\n" + {
                "ca": "ca\ncert_signing_key\n", "server": "tls_www_server\nsigning_key\n",
                "client": "tls_www_client\nsigning_key\n"}[name]
            lab.write("template", template)
            tool("certtool", "--generate-privkey", "--key-type=ecdsa", "--outfile", where / f"{name}-key.pem")
            sign = ("--generate-self-signed",) if name == "ca" else \
                ("--generate-certificate", "--load-ca-certificate", where / "ca-cert.pem", "--load-ca-privkey", where / "ca-key.pem")
            tool("certtool", *sign, "--template", lab.path("template"), "--load-privkey", where / f"{name}-key.pem",
                 "--outfile", where / f"{name}-cert.pem")
    # The stranger believes our authority, which does not know it.
    (lab.path("other") / "ca-cert.pem").write_bytes((lab.path("pki") / "ca-cert.pem").read_bytes())


@tap.test("TLS with certificates: required, copies, refuses strangers and clients without")
def _():
    with Lab() as lab:
        certificates(lab)
        port = free_port()
        lab.daemon("run", lab.write("c.yaml", f"""\
disks:
  mem:
    stack: [memory: {{size: 16M}}]
nbd:
  - {{listen: "127.0.0.1:{port}", read-only: false, tls-certificates: pki, timeout: 3s}}
  - {{socket: open.sock, tls-certificates: pki, tls-verify: false}}
"""))
        uri = f"nbds://localhost:{port}/mem?tls-certificates="
        tap.contains(tool("nbdinfo", uri + str(lab.path("pki"))), "with TLS")
        lab.path("random.img").write_bytes(os.urandom(16 * MIB))
        tool("nbdcopy", "--connections=3", lab.path("random.img"), uri + str(lab.path("pki")))
        tool("nbdcopy", "--connections=3", uri + str(lab.path("pki")), lab.path("back.img"))
        tap.check(lab.path("back.img").read_bytes() == lab.path("random.img").read_bytes(), "it came back changed")
        objects = f"tls-creds-x509,id=t,endpoint=client,dir={lab.path('pki')}"
        tool("qemu-io", "--object", objects, "--image-opts", "-c", "write -P 3 0 3M", "-c", "read -P 3 0 3M",
             f"driver=nbd,host=localhost,port={port},export=mem,tls-creds=t")
        tool("nbdinfo", uri + str(lab.path("other")), fails=True)
        tool("nbdinfo", f"nbd://localhost:{port}/mem", fails=True)
        tool("nbdinfo", f"nbds+unix:///mem?socket={lab.path('open.sock')}&tls-certificates={lab.path('pki')}&tls-hostname=localhost",
             fails=False)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
            peer = Peer.__new__(Peer)
            peer.socket, peer.cookie = s, 0
            tap.equal(peer.take(18)[:8], b"NBDMAGIC", "greeting")
            tap.equal(peer.flags().option(nbd.OPT_LIST)[-1][0], nbd.ERR_TLS_REQUIRED, "LIST in the clear")
            tap.equal(peer.option(nbd.OPT_GO, nbd.export("mem"))[-1][0], nbd.ERR_TLS_REQUIRED, "GO in the clear")
            tap.equal(peer.option(nbd.OPT_STARTTLS), [(nbd.REP_ACK, b"")], "STARTTLS")
            peer.send(b"this is no TLS" * 10)
            tap.check(peer.closed(), "it is still connected")
        with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
            # An option behind STARTTLS, as somebody between the two would put it there.
            s.sendall(b"\0\0\0\3" + 2 * (b"IHAVEOPT" + bytes((0, 0, 0, 5, 0, 0, 0, 0))))
            peer.socket = s
            tap.check(peer.closed(), "what was sent in the clear counts")


@tap.test("TLS with keys: who has one comes in; the file is read anew for each client")
def _():
    with Lab() as lab:
        tool("psktool", "-u", "alice", "-p", lab.path("keys.psk"))
        lab.daemon("run", lab.write("c.yaml", """\
disks:
  mem:
    stack: [memory: {size: 16M}]
nbd:
  - {socket: s.sock, tls-psk: keys.psk}
"""))

        def uri(user, keys):
            return f"nbds+unix://{user}@/mem?socket={lab.path('s.sock')}&tls-psk-file={lab.path(keys)}"
        tap.contains(tool("nbdinfo", uri("alice", "keys.psk")), "with TLS")
        tool("nbdcopy", uri("alice", "keys.psk"), lab.path("copy"))
        lab.path("bob.psk").write_text("bob:" + "ab" * 32 + "\nalice:" + "cd" * 32 + "\n")
        tool("nbdinfo", uri("bob", "bob.psk"), fails=True)
        tool("nbdinfo", uri("alice", "bob.psk"), fails=True)
        with open(lab.path("keys.psk"), "a") as keys:
            keys.write("bob:" + "ab" * 32 + "\n")
        tool("nbdinfo", uri("bob", "bob.psk"))


# --- who may do what ---

WITH_VM = """\
api: api.sock
disks:
  data:
    stack: [memory: {size: 16M}]
  both:
    shared: true
    stack: [memory: {size: 16M}]
  more:
    stack: [memory: {size: 16M}]
vms:
  web:
    - {virtio-scsi: [data, both], socket: web.sock}
nbd:
  - {socket: n.sock, read-only: false}
"""


@tap.test("a disk of a VM is for reading only, unless it is shared; who writes keeps it from VMs; who has it, from removal")
def _():
    with Lab() as lab:
        lab.daemon("run", lab.write("c.yaml", WITH_VM))

        def ask(*arguments):
            return lab.penstock(*arguments, "--api", lab.path("api.sock"))

        def flags(name):
            with Peer(lab.path("n.sock")) as peer:
                return peer.go(name)[1]
        tap.equal([flags(name) & 2 for name in ("data", "both", "more")], [2, 0, 0], "read-only")
        with Peer(lab.path("n.sock")) as peer:
            peer.go("data")
            tap.equal(peer.ask(nbd.WRITE, 0, 512, bytes(512))[0], nbd.EPERM, "a write")
            tap.contains(tool("nbdinfo", f"nbd+unix:///data?socket={lab.path('n.sock')}"), "while a VM has it")
        with Peer(lab.path("n.sock")) as peer:
            peer.go("more")
            refused(ask("attach", "web", "virtio-scsi0/2:0", "more"), 1, "more", "n.sock", "may write")
            refused(ask("remove-disk", "more"), 1, "more", "in use", "n.sock", "1 client")
            status = json.loads(ask("status", "--json").stdout)["nbd"][0]
            tap.equal([(disk["disk"], disk["read-only"], disk["connections"]) for disk in status["disks"]],
                      [("data", True, 0), ("both", False, 0), ("more", False, 1)], "status")
            tap.contains(accepted(ask("status")), "n.sock", "may write")
            peer.request(nbd.DISC)
            tap.check(peer.closed(), "DISC did not close")
        wait_until(lambda: json.loads(ask("status", "--json").stdout)["nbd"][0]["disks"][2]["connections"] == 0)
        accepted(ask("attach", "web", "virtio-scsi0/2:0", "more"))
        tap.equal(flags("more") & 2, 2, "read-only, now that the VM has it")


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        tap.check(time.monotonic() < deadline, "it does not come about")
        time.sleep(0.05)


@tap.test("disks that come, grow and go at run time are seen by clients that come then")
def _():
    with Exports() as lab:
        with Peer(lab.path("rw.sock")) as early:
            size, _ = early.go("file")
            accepted(lab.ask("resize", "file", "96M"))
            tap.equal(tool("nbdinfo", "--size", lab.uri("file")).strip(), str(96 * MIB), "the size for new clients")
            tap.equal(early.ask(nbd.READ, size - 512, 512)[0], 0, "a read by the early one")
        lab.image("new.img", 8)
        accepted(lab.ask("add-disk", "new", "{stack: [file: {path: new.img}]}"))
        tap.contains(tool("nbdinfo", "--list", lab.uri()), 'export="new"')
        tool("qemu-io", "-f", "raw", "-c", "write -P 1 0 1M", lab.uri("new"))
        wait_until(lambda: lab.ask("remove-disk", "new").returncode == 0)
        tool("nbdinfo", lab.uri("new"), fails=True)
        with Peer(lab.path("rw.sock")) as peer:
            listed = peer.flags().option(nbd.OPT_LIST)
            tap.equal([data[4:4 + data[3]] for _, data in listed[:-1]], [b"file", b"mem"], "names")


@tap.test("counters: what clients have done stays counted when they are gone")
def _():
    with Exports() as lab:
        with Peer(lab.path("rw.sock")) as peer:
            peer.go("mem")
            for n in range(10):
                peer.ask(nbd.WRITE, n * 4096, 4096, bytes(4096))
            peer.ask(nbd.READ, 1, 512)
            for _ in range(2):
                metrics = tool("curl", "-s", "--unix-socket", lab.path("api.sock"), "http://x/metrics")
                tap.contains(metrics, 'nbd_requests_total{server="rw.sock",disk="mem",op="write"} 10',
                             'nbd_bytes_total{server="rw.sock",disk="mem",op="write"} 40960',
                             'nbd_errors_total{server="rw.sock",disk="mem",op="read"} 1')
                peer.socket.close()
                wait_until(lambda: re.search(r'nbd_connections{server="rw.sock",disk="mem"} 0', tool(
                    "curl", "-s", "--unix-socket", lab.path("api.sock"), "http://x/metrics")))


@tap.test("clients that are connected and idle cost no CPU")
def _():
    def ticks(process):
        fields = open(f"/proc/{process.pid}/stat").read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    with Exports() as lab, Peer(lab.path("rw.sock")) as one, Peer(lab.path("rw.sock")) as two:
        one.go("file")
        two.go("mem")
        for peer in (one, two):
            tap.equal(peer.ask(nbd.READ, 0, 4096)[0], 0, "a read")
        time.sleep(0.5)
        before = ticks(lab.server.process)
        time.sleep(3)
        used = (ticks(lab.server.process) - before) / os.sysconf("SC_CLK_TCK")
        tap.check(used <= 0.02, f"{used} s of CPU in 3 s of idleness")


@tap.test("a disk's layers are changed under clients that write and verify")
def _():
    with Exports() as lab:
        load = subprocess.Popen(["fio", "--name=verify", "--ioengine=nbd", f"--uri={lab.uri('file')}", "--rw=randwrite",
                                 "--bsrange=4k-64k", "--iodepth=32", "--numjobs=2", "--size=16M", "--offset_increment=16M",
                                 "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--time_based=1",
                                 "--runtime=3s"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        changes = 0
        try:
            while load.poll() is None:
                accepted(lab.ask("insert-layer", "file", "0", "pass"))
                accepted(lab.ask("remove-layer", "file", "0"))
                changes += 2
            tap.equal(load.returncode, 0, f"fio: {load.stdout.read()}")
        finally:
            load.kill()
            load.wait()
        tap.check(changes >= 4, f"only {changes} changes")


@tap.test("`penstock config` has the servers: what starts with it is the same")
def _():
    with Exports() as lab:
        lab.write("now.yaml", accepted(lab.ask("config")))
        accepted(lab.penstock("check", lab.path("now.yaml")))
        tap.contains(lab.path("now.yaml").read_text(), "rw.sock", f"127.0.0.1:{lab.port}", "mem")
        tap.equal(lab.server.stop(), 0, "exit status")
        lab.server = lab.daemon("run", lab.path("now.yaml"))
        tool("nbdinfo", "--can", "write", lab.uri("file"))
        tool("nbdinfo", "--is", "read-only", lab.tcp())
        tap.equal(accepted(lab.ask("config")), lab.path("now.yaml").read_text(), "the configuration")


# --- the configuration ---

SERVER = "nbd:\n  - {socket: n.sock}\n"
MISTAKES = [
    ("an option that there is not", "nbd:\n  - {sokcet: n.sock}\n", 9, ["sokcet", "socket"]),
    ("neither socket nor address", "nbd:\n  - {read-only: true}\n", 9, ["socket", "listen"]),
    ("both socket and address", "nbd:\n  - {socket: n.sock, listen: \"127.0.0.1:1\"}\n", 9, ["socket", "listen"]),
    ("an address without a port", "nbd:\n  - {listen: 127.0.0.1}\n", 9, ["127.0.0.1", "10809"]),
    ("a name for an address", "nbd:\n  - {listen: \"example.org:10809\"}\n", 9, ["example.org"]),
    ("a port that there is not", "nbd:\n  - {listen: \"127.0.0.1:70000\"}\n", 9, ["70000"]),
    ("a disk that there is not", "nbd:\n  - {socket: n.sock, disks: [dat]}\n", 9, ["dat", "data"]),
    ("no disks", "nbd:\n  - {socket: n.sock, disks: []}\n", 9, ["disks"]),
    ("a disk where a list belongs", "nbd:\n  - {socket: n.sock, disks: data}\n", 9, ["list"]),
    ("writing to the disk of a VM", "nbd:\n  - {socket: n.sock, disks: [data], read-only: false}\n", 9, ["data", "web", "shared"]),
    ("the socket of a device", "nbd:\n  - {socket: web.sock}\n", 9, ["web.sock", "taken"]),
    ("the socket of another server", SERVER + "  - {socket: n.sock}\n", 10, ["n.sock", "taken"]),
    ("two kinds of TLS", "nbd:\n  - {socket: n.sock, tls-psk: k, tls-certificates: c}\n", 9, ["tls-psk", "tls-certificates"]),
    ("a mapping where a list belongs", "nbd: {socket: n.sock}\n", 8, ["list"]),
    ("no connections", "nbd:\n  - {socket: n.sock, connections: 0}\n", 9, ["connections"]),
]
for what, text, line, wanted in MISTAKES:
    @tap.test(f"configuration: {what}")
    def _(text=text, line=line, wanted=wanted):
        with Lab() as lab:
            lab.image("disk.img", 1)
            path = lab.write("c.yaml", GOOD + text)
            for command in ("check", "run"):
                refused(lab.penstock(command, path), 2, f"{path}:{line}:", *wanted)


@tap.test("configuration: neither VMs nor NBD; certificates that are not there; an address in use")
def _():
    with Lab() as lab, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        disks = "disks:\n  m:\n    stack: [memory: {size: 1M}]\n"
        refused(lab.penstock("check", lab.write("c.yaml", disks)), 2, "vms", "nbd")
        accepted(lab.penstock("check", lab.write("c.yaml", disks + SERVER)))
        refused(lab.penstock("run", lab.write("c.yaml", disks + "nbd:\n  - {socket: n.sock, tls-certificates: gone}\n")), 1,
                "gone/server-cert.pem")
        refused(lab.penstock("run", lab.write("c.yaml", disks + "nbd:\n  - {socket: n.sock, tls-psk: gone}\n")), 1, "gone")
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused(lab.penstock("run", lab.write("c.yaml", disks + f"nbd:\n  - {{listen: \"{address}\"}}\n")), 1, address, "in use")
        tap.equal(list(lab.directory.glob("*.sock")), [], "sockets left behind")


@tap.test("serve --nbd-socket: alone for writing, beside --socket for reading; the device's options need --socket")
def _():
    with Lab() as lab:
        lab.image("disk.img", 4)
        one = lab.daemon("serve", "disk.img", "--nbd-socket", "n.sock")
        uri = f"nbd+unix:///?socket={lab.path('n.sock')}"
        tool("qemu-io", "-f", "raw", "-c", "write -P 5 0 1M", "-c", "flush", uri)
        tap.equal(lab.path("disk.img").read_bytes()[:MIB], b"\5" * MIB, "the image")
        tap.equal((one.stop(), list(lab.directory.glob("*.sock"))), (0, []), "its end")
        two = lab.daemon("serve", "disk.img", "--socket", "s.sock", "--nbd-socket", "n.sock")
        tool("nbdinfo", "--is", "read-only", uri)
        tool("qemu-io", "-f", "raw", "-r", "-c", "read -P 5 0 1M", uri)
        tap.equal(two.stop(), 0, "exit status")
        refused(lab.penstock("serve", "disk.img", "--nbd-socket", "n.sock", "queues=2"), 2, "queues", "--socket")


tap.main()
