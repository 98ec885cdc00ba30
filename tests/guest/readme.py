#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What README.md tells its readers to type is typed here, in the order of the text, and has to show what the text says.

Blocks and commands are taken out of README.md itself. One that is neither run nor named under NOT_RUN, with the reason,
is a failure; so is a name that finds none. The reader sits in a directory of the test's own, with nothing in it but what
README takes for granted: a kernel, images, a key. What is typed otherwise than README has it stands under TYPED, with the
reason. All of it happens in a network namespace, whose ports are nobody else's."""

import concurrent.futures
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import time

from guest_checks import ROOT, tap, wait_until
import guest_image
import qemu11
from guest import NO_TIMER_CHECK, accelerator
from lab import MIB, PENSTOCK, Lab
from qmp import Qmp
from net_checks import DHCP, OWN, no_ping, own_namespace, ping, uplink, wait_for_ping

# What begins so is not run, because:
NOT_RUN = {
    " guest QEMU penstock host": "it is a picture",
    "make run # installs what": "they install packages; tests/guest/demo.py has the rest of make run",
    "make bench": "it measures, for half an hour",
    "make run": "it is in a block",
    "make install": "it takes root",
    "kill -9": "it is no command; tests/guest/net_crash.py and others do it",
    "cryptsetup luksFormat": "tests/cli/encryption.py",
    "state: FILE": "tests/cli/layers.py, move.py, network.py",
    "penstock status": "it is in a block",
}

# Directories of the machine: here they are in the reader's own, for which $XDG_RUNTIME_DIR says that it is /run.
DIRECTORY = re.compile(r"(?<=[\s'\"=:])/(?=(?:run|var|etc|san|fast)/)")

CHEAP = "pbkdf=pbkdf2 pbkdf-iterations=1000"

# What is typed in place of what README has:
TYPED = (
    # QEMU would take a KVM that can be opened and runs no guest.
    ("accel=kvm:tcg", f"accel={accelerator()}"),
    # QEMU before 9.1 without KVM crashes when a vhost-user card starts with MSI-X, see penstock-qemu-args(1).
    *([("--config net.yaml)", "--config net.yaml | sed s/vectors=[0-9]*/vectors=0/)")] if accelerator() == "tcg" else []),
    # What a failed test kills is QEMU then, and not the shell before it.
    ("qemu-system-x86_64 -M", "exec qemu-system-x86_64 -M"),
    # The reader's own options.
    ("vmlinuz ...", "vmlinuz -initrd initrd -append console=ttyS0 -nographic"),
    # Boots faster, and on a busy host, see scripts/guest.py.
    ("-append console=ttyS0", f"-append \"console=ttyS0 quiet mitigations=off {NO_TIMER_CHECK}\""),
    # The console goes to a file; over the second serial port the test speaks with the guest (scripts/guest-init).
    ("-nographic", "-nographic -monitor none -serial file:console -serial stdio"),
    # Another machine.
    ("nbd://storage-b", "nbd://127.0.0.1"),
    # To turn a passphrase into a key takes seconds of processor time, on purpose.
    ("db.luks size=20G key-file=db.key", f"db.luks size=20G key-file=db.key {CHEAP}"),
    # tshark keeps its lines to itself where it does not write to a terminal.
    ("tshark -r -", "tshark -l -r -"),
)


# --- README -----------------------------------------------------------------

class Readme:
    """The blocks of code in README.md, and what stands there between backquotes and is more than a word."""

    def __init__(self):
        self.text = (ROOT / "README.md").read_text()
        block = re.compile(r"^```\w*\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
        self.left = block.findall(self.text)
        spans = re.findall(r"`([^`]+)`", block.sub("", self.text))
        self.left += [" ".join(span.split()) for span in spans if re.search(r"[\s=]", span)]

    def take(self, begin):
        """The one that is this, or begins so; a space stands for several."""
        pattern = re.compile(r"\s+".join(map(re.escape, begin.split(" "))))
        found = [text for text in self.left if text == begin] or [text for text in self.left if pattern.match(text)]
        tap.equal(len(set(found)), 1, f"blocks and commands in README.md that begin with {begin!r}")
        self.left = [text for text in self.left if text != found[0]]
        return found[0]


def commands(block, checks):
    """Make a test of each command of a block: what each begins with, in their order, and the function that types it and
    looks at what it shows."""
    lines = [re.sub(r"\s+# .*", "", line) for line in block.replace("\\\n", "").splitlines()]
    tap.equal(len(lines), len(checks), f"commands in\n{block}")
    for line, (begin, check) in zip(lines, checks.items()):
        tap.check(line.startswith(begin), f"{line!r} where this test expects {begin!r}")

        @tap.test(f"$ {line}")
        def _(line=line, check=check):
            check(line)


# --- the reader -------------------------------------------------------------

def with_children(pid):
    """Process IDs: this one, and all that it has started."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
            return [pid, *(below for child in children.read().split() for below in with_children(int(child)))]
    except (FileNotFoundError, ProcessLookupError):
        return []


class Job:
    """A command that runs until it is ended: all of a pipeline, as by a shell that somebody types into. It stays in the
    test's process group, whose end is its end."""

    def __init__(self, line, output, **popen):
        self.line = line
        self.output = output
        with open(output, "wb") as out:
            self.process = subprocess.Popen(["bash", "-c", line], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                            **popen)

    def said(self):
        return self.output.read_text(errors="replace")

    def interrupt(self):
        """Ctrl-C; it ends then."""
        tap.check(self.process.poll() is None, f"{self.line} has ended, and said\n{self.said()}")
        self.send(signal.SIGINT)
        self.process.wait(60)

    def kill(self):
        if self.process.poll() is None:
            self.send(signal.SIGKILL)

    def send(self, number):
        for pid in with_children(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def wait(self):
        self.process.wait(30)


class Reader:
    """Somebody with a shell in the lab's directory, and penstock on $PATH."""

    def __init__(self, lab):
        self.lab = lab
        self.environment = {**os.environ, "PATH": f"{PENSTOCK.parent}:{os.environ['PATH']}",
                            "XDG_RUNTIME_DIR": str(lab.path("run")), "LC_ALL": "C.UTF-8"}
        for name in list(self.environment):
            if name == "PENSTOCK_API" or name.lower().endswith("_proxy"):
                del self.environment[name]
        self.api = [lab.path("penstock-api.sock"), lab.path("run/penstock.sock")]
        self.started = 0
        self.jobs = []
        self.guests = []

    def begins_anew(self):
        """Ends what a part of README that failed has left running, so that the next one does not fail of it."""
        for guest in self.guests:
            guest.close()
        for job in self.jobs:
            job.kill()
            job.wait()
        for socket in self.api:
            socket.unlink(missing_ok=True)
        self.guests, self.jobs = [], []

    def here(self, text):
        """A text of README's as it is typed here."""
        for old, new in TYPED:
            text = text.replace(old, new)
        return DIRECTORY.sub(f"{self.lab.directory}/", text)

    def types(self, line, timeout=120):
        """What a command prints on standard output; it must succeed."""
        done = subprocess.run(["bash", "-c", self.here(line)], cwd=self.lab.directory, env=self.environment, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
        tap.equal(done.returncode, 0, f"status of `{line}`, which said\n{done.stdout}{done.stderr}")
        return done.stdout

    def starts(self, line):
        """A Job. `line` may end with &."""
        self.started += 1
        self.jobs.append(self.lab.end_with(Job(self.here(line.removesuffix("&")), self.lab.path(f"job-{self.started}"),
                                               cwd=self.lab.directory, env=self.environment)))
        return self.jobs[-1]

    def boots(self, line, console="console"):
        """The guest of a QEMU that a command starts."""
        line = self.here(line).replace("file:console", f"file:{console}")
        return self.boots_with((), command=["bash", "-c", line], log=self.lab.path(console), cwd=self.lab.directory,
                               env=self.environment)

    def boots_with(self, arguments, **kwargs):
        """A guest with these arguments of QEMU's."""
        guest = self.lab.boot(arguments, **kwargs)
        self.guests.append(guest)
        return guest

    def status(self):
        """What the reader's penstock says; nothing while it has no socket: the machine may have a penstock of its own."""
        if not any(socket.exists() for socket in self.api):
            return {}
        return json.loads(subprocess.run([PENSTOCK, "status", "--json"], cwd=self.lab.directory, env=self.environment,
                                         text=True, capture_output=True, timeout=60).stdout or "{}")


def wait_for(condition, what, job=None, seconds=60):
    """Wait until a function's result is true; it."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        tap.check(not job or job.process.poll() is None, f"{what}: it has ended, and said\n{job and job.said()}")
        tap.check(time.monotonic() < deadline, f"not after {seconds} s: {what}\n{job.said() if job else ''}")
        time.sleep(0.1)
    return result


def ended(job):
    """It ends in good order at Ctrl-C."""
    job.interrupt()
    tap.equal(job.process.returncode, 0, f"status of {job.line}, which said\n{job.said()}")


def rows(text, *words):
    """The lines with all these words."""
    return [line for line in text.splitlines() if all(word in line.split() for word in words)]


def connected(path):
    """A Qmp; None while nobody listens."""
    try:
        return Qmp(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return None


# --- Use it -----------------------------------------------------------------

def five_lines(reader, block, newer):
    serve, qemu = block.replace("\\\n", "").splitlines()
    word, old = re.fullmatch("(reconnect-ms=1000), (reconnect=1)", newer).groups()
    running = []

    @tap.test(f"$ {serve}; {qemu}: the guest has a disk of 10 GiB, and its data are in the image")
    def _():
        running.append(reader.starts(serve))
        guest = reader.boots(qemu)
        tap.equal(guest.run("cat /sys/block/vda/size").strip(), str(10 << 21), "sectors of the disk")
        guest.run("echo what the guest wrote | dd of=/dev/vda bs=512 seek=8192 conv=sync,fsync 2>/dev/null")
        guest.power_off()
        with open(reader.lab.path("disk.img"), "rb") as image:
            tap.equal(image.seek(0, os.SEEK_END), 10 << 30, "the image's size")
            image.seek(8192 * 512)
            tap.equal(image.readline(), b"what the guest wrote\n", "in the image")

    @tap.test(f"a QEMU after 10, with {word} in place of {old}, gets the disk")
    def _():
        tap.equal(qemu.count(old), 1, f"times {old} in {qemu}")
        newer = reader.starts(qemu.replace(old, word).replace(
            "qemu-system-x86_64", f"{shlex.join(qemu11.command())} -S -qmp unix:newer.qmp,server=on,wait=off"))
        qmp = wait_for(lambda: connected(reader.lab.path("newer.qmp")), "it runs", newer)
        # It answers when it has all its devices.
        tap.contains(str(qmp.execute("qom-list", path="/machine/peripheral-anon")), "vhost-user-blk-pci")
        tap.check(running[0].said().count("a VMM connected") >= 2, f"it has not connected:\n{running[0].said()}")
        qmp.execute("quit")
        newer.wait()
        ended(running[0])


def several_disks(reader, configuration, block):
    lab = reader.lab
    running = []
    guest = []

    def check(line):
        reader.begins_anew()
        lab.write("penstock.yaml", reader.here(configuration))
        lab.image("var/lib/penstock/old.img", 64)
        lab.image("var/lib/penstock/vmware.img", 64)
        tap.equal(reader.types(line), "", "what check prints")
        lab.write("wrong.yaml", lab.path("penstock.yaml").read_text().replace("block-size", "block-sise"))
        wrong = lab.penstock("check", "wrong.yaml")
        tap.equal(wrong.returncode, 2, "status of check of a wrong file")
        tap.contains(wrong.stderr, "wrong.yaml:4:", "block-sise")

    def run(line):
        running.append(reader.starts(line))
        wait_for(reader.status, "penstock answers", running[0])

    def qemu_args(line):
        said = reader.types(line)
        tap.equal([said.count(device) for device in ("vhost-user-blk-pci", "vhost-user-scsi-pci")], [2, 1], "devices")
        guest.append(reader.boots_with(shlex.split(said.replace("\\\n", "")), modules=MODULES))

    def status(line):
        said = reader.types(line)
        tap.check(rows(said, "web", "virtio-blk0", "connected", "db", "20.0G"), f"no row of db in\n{said}")
        tap.check(rows(said, "virtio-blk1", "connected", "scratch", "4.0G"), f"no row of scratch in\n{said}")
        tap.check(rows(said, "virtio-scsi0", "connected") and rows(said, "4:0", "cdrom", "(empty)"),
                  f"no rows of the CD-ROM drive in\n{said}")
        tap.check(rows(said, "old", "ide0", "waiting"), f"no row of the IDE adapter in\n{said}")
        tap.check(rows(said, "migrated", "pvscsi0", "waiting"), f"no row of the PVSCSI adapter in\n{said}")

    def resize(line):
        sysfs = "/sys/block/vda"
        tap.equal(guest[0].run(f"cat {sysfs}/size {sysfs}/queue/logical_block_size").split(), [str(20 << 21), "4096"],
                  "sectors before, bytes of a block")
        tap.contains(reader.types(line), "40G")
        wait_until(guest[0], f"[ $(cat {sysfs}/size) = {40 << 21} ]", "the guest sees 40 GiB", 60)

    def insert(line):
        lab.write("hello.txt", "a file on the CD\n")
        subprocess.run(["genisoimage", "-quiet", "-r", "-o", lab.path("debian.iso"), lab.path("hello.txt")], check=True,
                       timeout=60)
        tap.contains(reader.types(line), "virtio-scsi0/4:0", "debian")
        wait_until(guest[0], "mount -t iso9660 -o ro /dev/sr0 /mnt", "there is a medium in the drive", 60)
        tap.equal(guest[0].run("cat /mnt/hello.txt"), "a file on the CD\n", "the file on the CD")
        guest[0].power_off()
        ended(running[0])

    commands(block, {"penstock check": check, "penstock run": run, "penstock qemu-args web": qemu_args,
                     "penstock status": status, "penstock resize db 40G": resize, "penstock insert web": insert})


# --- Layers -----------------------------------------------------------------

def layers(reader, configuration, block):
    lab = reader.lab
    running = []

    @tap.test("disks of layers: what the configuration has runs, and nbdinfo lists the disks")
    def _():
        reader.begins_anew()
        config = lab.write("layers.yaml", reader.here(configuration))
        lab.path("etc/penstock/db.key").write_bytes(os.urandom(32))
        lab.path("var/lib/penstock/golden.img").write_bytes(os.urandom(4 * MIB))
        reader.types(f"penstock create crypt /san/a/db.img size=64M key-file=/etc/penstock/db.key {CHEAP}")
        # storage-b: it stays, as the mirror does not start without a leg that may be newer.
        server = lab.end_with(Job("exec nbdkit --foreground --ipaddr 127.0.0.1 memory 128M", lab.path("nbdkit")))
        wait_for(lambda: f":{10809:04X} " in open("/proc/net/tcp").read(), "nbdkit listens", server)
        reader.types(f"penstock check {config}")
        running.append(reader.starts(f"exec penstock run {config}"))
        wait_for(reader.status, "penstock answers", running[0])
        said = reader.types(re.search(r"nbdinfo --list \S+", configuration)[0])
        tap.equal(re.findall(r'export="(\w+)"', said), ["db", "web1"], "disks")
        tap.equal(said.count("is_read_only: true"), 2, "of them read-only")

    def stack(line):
        said = reader.types(line)
        tap.contains(said, "- crypt: {key-file: ", "- mirror:", "san/a/db.img", "nbd://127.0.0.1/db", "connections: 4")

    def insert(line):
        said = reader.types(line)
        tap.contains(said, "0 cache, 1 crypt, 2 mirror")
        tap.check(re.search(r"requests waited \d+\.\d+ ms", said), f"nothing of how long requests waited in {said}")

    def add_leg(line):
        tap.contains(reader.types(line), "0 cache, 1 crypt, 2 mirror (0: 0 file; 1: 0 nbd; 2: 0 file)")
        tap.equal(lab.path("san/c/db.img").stat().st_size, 21 << 30, "the new leg's size")

    def move(line):
        tap.contains(reader.types(line), "web1: moved")
        with open(lab.path("fast/web1.img"), "rb") as image:
            tap.equal(image.read(4 * MIB), lab.path("var/lib/penstock/golden.img").read_bytes(), "the data that moved")

    def config(line):
        reader.types(line)
        said = lab.path("penstock.yaml").read_text()
        tap.contains(said, "cache: {size: 512M}", "san/c/db.img", "fast/web1.img")
        reader.types("penstock check penstock.yaml")
        ended(running[0])

    commands(block, {"penstock stack db": stack, "penstock insert-layer db 0 'cache:": insert,
                     "penstock add-leg db mirror": add_leg, "penstock move web1": move, "penstock config >": config})

    @tap.test("penstock starts again with what `penstock config` printed")
    def _():
        running[0] = reader.starts("exec penstock run penstock.yaml")
        wait_for(reader.status, "penstock answers", running[0])
        tap.contains(reader.types("penstock stack db"), "cache", "crypt", "san/a/db.img", "san/c/db.img")
        ended(running[0])


PLAIN = """\
api: ./penstock-api.sock
disks:
  db: {stack: [file: {path: plain.img}]}
  web1:
    stack:
      - overlay: {store: {file: {path: own.ovl, create: true}}}
      - file: {path: base.img}
  old:
    stack:
      OLD
nbd:
  - {socket: nbd.sock, read-only: false}
"""


def on_the_way(reader, readme):
    """The commands between the blocks: disks as the text speaks of them, plain, an overlay, behind qemu-nbd."""
    lab = reader.lab
    create = readme.take("penstock create crypt")
    move = readme.take("penstock move db 'crypt:")
    undo = readme.take("penstock undo web1")
    qemu_nbd = readme.take("qemu-nbd --persistent")
    back_end = readme.take("- nbd: {uri:")

    def content(disk):
        reader.types(f"nbdcopy 'nbd+unix:///{disk}?socket=nbd.sock' {disk}.copy")
        return lab.path(f"{disk}.copy").read_bytes()

    @tap.test(f"$ {qemu_nbd}; {back_end}; {create}; {move}; {undo}")
    def _():
        reader.begins_anew()
        data = os.urandom(4 * MIB)
        for name in ("plain.img", "base.img"):
            lab.path(name).write_bytes(data)
        reader.types("qemu-img convert -q -O qcow2 plain.img /run/old.qcow2 && mv run/old.qcow2 .")
        lab.path("db.key").write_bytes(os.urandom(32))
        server = reader.starts(f"exec {qemu_nbd}")
        wait_for(lab.path("run/old.sock").exists, "qemu-nbd listens", server)
        lab.write("plain.yaml", reader.here(PLAIN.replace("OLD", back_end)))
        job = reader.starts("exec penstock run plain.yaml")
        wait_for(reader.status, "penstock answers", job)
        tap.check(content("old") == data, "another content of the qcow2 image")
        reader.types(create)
        tap.contains(reader.types(move), "db: moved")
        tap.contains(reader.types("penstock stack db"), "- crypt:", "db.luks")
        tap.check(content("db") == data, "another content of the encrypted disk")
        tap.check(data[:512] not in lab.path("db.luks").open("rb").read(64 * MIB), "the disk is not encrypted")
        reader.types("qemu-io -f raw -c 'write -P 7 0 64k' 'nbd+unix:///web1?socket=nbd.sock'")
        tap.check(content("web1") == b"\7" * 65536 + data[65536:], "another content of the overlay")
        tap.contains(reader.types(undo), "web1")
        tap.check(content("web1") == data, "another content of the overlay after undo")
        ended(job)


# --- A network for your VMs -------------------------------------------------

def network(reader, configuration, block):
    lab = reader.lab
    running, guests = [], {}

    def port(name):
        return next(port for port in reader.status()["ports"] if port["name"] == name)

    def run(line):
        reader.begins_anew()
        lab.write("net.yaml", reader.here(configuration))
        running.append(reader.starts(line))

    def boot(line):
        # The other VM is started in the same way.
        both = {vm: line.replace("web-vm", vm) for vm in ("web-vm", "db-vm")}
        with concurrent.futures.ThreadPoolExecutor() as pool:
            booting = {vm: pool.submit(reader.boots, line, f"console-{vm}") for vm, line in both.items()}
            guests.update({vm: guest.result() for vm, guest in booting.items()})
        web, db = guests["web-vm"], guests["db-vm"]
        web.run("ip link set lo up; ip link set eth0 up; ip link set eth1 up; ip addr add 10.0.0.1/24 dev eth1")
        db.run("ip link set lo up; ip link set eth0 up; ip addr add 10.0.0.2/24 dev eth0; "
               "nc -ll -p 5432 -e /bin/cat </dev/null >/dev/null 2>&1 &")
        tap.contains(web.run(DHCP.format(dev="eth0")), f"ip={OWN}\n")
        tap.equal(web.run("cat /sys/class/net/eth1/address").strip(), "52:54:00:00:00:01", "the card's address")
        wait_for_ping(web, "10.0.0.2", 60)
        ping(web, "10.0.0.2")
        ping(db, "10.0.0.1", size=1400)

    def curl(line):
        guests["web-vm"].run("mkdir /tmp/www && echo the guest greets >/tmp/www/index.html && httpd -p 80 -h /tmp/www")
        tap.equal(reader.types(line), "the guest greets\n", "what the server in the guest answers")

    def status(line):
        web = guests["web-vm"]
        web.run("ip addr add 10.0.0.9/24 dev eth1")
        tap.check(web.attempt("ping -c 2 -W 1 -I 10.0.0.9 10.0.0.2")[0], "a false address goes through")
        web.run("ip addr del 10.0.0.9/24 dev eth1")
        said = reader.types(line)
        for row in (("web-vm", "virtio-net0", "connected"), ("db-vm", "virtio-net0", "connected"), ("inet", "user", "up"),
                    ("web", "virtio-net", "up"), ("antispoof", "in", "dropped", "ipv4")):
            tap.check(rows(said, *row), f"no row with {row} in\n{said}")

    def addresses(line):
        said = reader.types(line)
        tap.check(rows(said, "52:54:00:00:00:01", "web") and rows(said, "52:54:00:00:00:02", "db"), f"addresses:\n{said}")

    def capture(line):
        job = reader.starts(line)
        wait_for(lambda: "capture" in json.dumps(port("web")["layers"]), "the capture has begun", job)
        ping(guests["web-vm"], "10.0.0.2", count=1)
        tap.equal(guests["web-vm"].run("echo a question | nc -w 20 10.0.0.2 5432"), "a question\n", "the answer")
        wait_for(lambda: job.said().count("5432") >= 5, "tshark shows the packets", job)
        job.interrupt()
        # Port 5432 is PostgreSQL's, and tshark may say so of what a connection carries.
        odd = [row for row in job.said().splitlines() if "10.0.0." in row and not {"TCP", "PGSQL"} & set(row.split())]
        tap.equal(odd, [], "rows of what the filter leaves out")
        wait_for(lambda: "capture" not in json.dumps(port("web")["layers"]), "the capture has gone")

    def round_trip():
        """The fastest of some echo requests, in ms."""
        said = guests["web-vm"].attempt("ping -c 5 -i 0.2 -W 5 10.0.0.2")[1]
        found = re.search(r"round-trip min/avg/max = ([\d.]+)", said)
        tap.check(found, f"no answer:\n{said}")
        return float(found[1])

    def insert(line):
        tap.contains(reader.types(line), "0 impair, 1 antispoof")
        tap.check(round_trip() >= 20, "the packets have no delay")

    def set_layer(line):
        reader.types(line)
        tap.contains(reader.types("penstock stack db"), "delay: 20ms", "loss: 5%")

    def set_port(line):
        reader.types(line)
        no_ping(guests["web-vm"], "10.0.0.2")
        no_ping(guests["db-vm"], "10.0.0.1")
        reader.types(line.replace("false", "true"))
        wait_for_ping(guests["web-vm"], "10.0.0.2", 60)
        for guest in guests.values():
            guest.power_off()
        ended(running[0])

    commands(block, {"penstock check net.yaml && penstock run net.yaml &": run, "eval 'qemu-system-x86_64": boot,
                     "curl http://127.0.0.1:8080/": curl, "penstock status": status, "penstock addresses lan": addresses,
                     "penstock capture web": capture, "penstock insert-layer db 0 'impair": insert,
                     "penstock set-layer db impair": set_layer, "penstock set-port db up=false": set_port})


def the_rest(reader, texts, metrics):
    for line, wanted in texts.items():
        @tap.test(f"$ {line}")
        def _(line=line, wanted=wanted):
            tap.contains(reader.types(line), *wanted)

    @tap.test(f"$ {metrics}")
    def _():
        reader.begins_anew()
        job = reader.starts("exec penstock run penstock.yaml")
        wait_for(reader.status, "penstock answers", job)
        tap.contains(reader.types(metrics), "# TYPE penstock_", 'disk="db"')
        ended(job)


MODULES = ("virtio_net", "virtio_scsi", "sr_mod", "isofs")


def main():
    own_namespace()
    readme = Readme()
    with Lab() as lab:
        uplink(lab)
        reader = Reader(lab)
        for directory in ("run/penstock", "var/lib/penstock", "etc/penstock", "san/a", "san/c", "fast"):
            lab.path(directory).mkdir(parents=True)
        lab.path("build").symlink_to(PENSTOCK.parent)
        lab.path("vmlinuz").symlink_to(guest_image.vmlinuz())
        lab.path("initrd").symlink_to(guest_image.initramfs(modules=MODULES))

        five_lines(reader, readme.take("build/penstock serve"),
                   ", ".join(map(readme.take, ("reconnect-ms=1000", "reconnect=1"))))
        several_disks(reader, readme.take("api: /run/penstock.sock\ndisks:\n db:\n block-size"),
                      readme.take("penstock check penstock.yaml"))
        layers(reader, readme.take("api: /run/penstock.sock\ndisks:\n db: # encrypted"), readme.take("penstock stack db"))
        on_the_way(reader, readme)
        network(reader, readme.take("api: ./penstock-api.sock"), readme.take("penstock check net.yaml"))
        the_rest(reader, {readme.take("penstock help"): ("link", "tap", "packet", "pcap"),
                          readme.take("penstock --help"): ("serve", "run"),
                          readme.take("penstock help file"): ("path", "create")},
                 readme.take("curl --unix-socket"))
        for begin in NOT_RUN:
            readme.take(begin)

        @tap.test("all that README tells to type has been typed, or is in this test's list of what is not")
        def _():
            tap.equal(readme.left, [], "what this test does not know of")
            tap.equal([old for old, _ in TYPED if old not in readme.text], [], "what is typed otherwise, and is not there")

        tap.main()


main()
