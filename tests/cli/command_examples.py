#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The examples in the man pages of commands and of the API are typed as they stand there, and do what they are there for:
those of a page one after the other, beside a penstock that has the disks, layers and ports which they speak of. What begins
with a directory of the machine stands below the test's own here."""

import functools
import os
import re
import shlex
import struct
import subprocess

from cli_checks import COMMANDS, accepted, tap
from lab import PENSTOCK, Lab

DIRECTORY = re.compile(r"(?<=[\s'\"=:])/(?=(?:var|etc|san|srv)/)")
CHEAP = "pbkdf=pbkdf2 pbkdf-iterations=1000"

# What begins so is not run, because:
NOT_RUN = {
    "penstock create crypt /dev/vg0/db": "it takes a volume group, and pass",
    "penstock capture": "tests/cli/capture.py has all of it but the screen that wireshark takes",
    "curl -sN --unix-socket penstock-api.sock http://penstock/v1/ports/web0/capture": "tests/cli/capture.py",
}

# What is typed otherwise: a key is made of a passphrase in no time, there is no machine called store, and CPU 1 may not be
# ours.
TYPED = (("iter-time=100ms", CHEAP), ("nbd://store/db", "nbd+unix:///db?socket=store.sock"),
         ("--cpus 1", f"--cpus {min(os.sched_getaffinity(0))}"))

CONFIG = """\
disks:
  db: {stack: DB}
  web1: {stack: [overlay: {store: {file: {path: /var/lib/penstock/web1.ovl, create: true}}}, file: {path: golden.img}]}
  tools: {stack: [iso: {path: tools.iso}]}
  more: {stack: [memory: {size: 1M}]}
switches: {lan: {}}
nics: {web0: {switch: lan}, db0: {switch: lan}, probe: {switch: lan}}
uplinks: {inet: {switch: lan, pcap: {replay: every-second.pcap}}}
nbd: [{socket: nbd.sock, read-only: false}]
vms:
  web:
    - {ide: [{type: cdrom, position: secondary-master}], socket: ide.sock}
    - {virtio-scsi: [{type: cdrom}], socket: scsi.sock}
    - {virtio-net: web0, socket: web0.sock}
    - {virtio-net: db0, socket: db0.sock}
    - {virtio-net: probe, socket: probe.sock}
"""
PLAIN = "[file: {path: db.img}]"
MIRROR = "[mirror: {create: true, legs: [file: {path: /san/a/db.img}, file: {path: /san/b/db.img}]}]"
# What the disk db is where it is more than an image.
STACKS = {
    "stack": "[crypt: {key-file: /etc/old.key}, file: {path: /srv/db.img}]",
    "remove-layer": f"[flaky, {MIRROR[1:-1]}]",
    "move-layer": "[pass, flaky, file: {path: db.img}]",
    "set-layer": "[flaky: {errors: 1%}, file: {path: db.img}]",
    "add-leg": MIRROR, "remove-leg": MIRROR, "inspect": MIRROR,
}
LEARNED = "until said=$(penstock addresses lan) && grep inet <<<\"$said\"; do sleep 0.1; done"
WEB1 = "'nbd+unix:///web1?socket=nbd.sock'"
# Typed before an example.
BEFORE = {
    "penstock add-disk tools": "penstock remove-disk tools && penstock remove-disk more",
    "penstock eject": "penstock insert web ide0/secondary-master tools",
    "penstock detach": "penstock attach web virtio-scsi0/3:0 more",
    "penstock stack db 'crypt": "cryptsetup luksAddKey --batch-mode --key-file etc/old.key --pbkdf pbkdf2 "
                               "--pbkdf-force-iterations 1000 srv/db.img etc/db.key",
    "penstock remove-layer db mirror": "until said=$(penstock status --json) && ! grep -q resyncing <<<\"$said\"; "
                                           "do sleep 0.1; done",
    "penstock move db 'crypt": f"penstock create crypt /san/db.luks size=SIZEM key-file=/etc/db.key {CHEAP}",
    "penstock move db --limit": "penstock move db 'file: {path: slow.img, create: true}' --limit 1M --detach",
    "penstock addresses": LEARNED,
    "penstock forget": LEARNED,
    "penstock undo": f"qemu-io -f raw -c 'write -P 7 0 64k' {WEB1}",
}


def lacks(pattern, rest=""):
    """A pattern for a text without the one pattern, and with the other."""
    return rf"\A(?!(?:.|\n)*{pattern})(?:.|\n)*{rest}"


# What is to be seen in what an example prints, or a command after it: a pattern.
SHOWS = {
    "penstock check": ("sed s/switch:/swich:/ /etc/penstock/penstock.yaml >wrong.yaml; "
                       "penstock check wrong.yaml 2>&1 || echo status $?", r"wrong.yaml:\d+: .*swich(.|\n)*status 2\n"),
    "penstock inspect /san/a": ("", "leg"),
    "penstock inspect /var": ("", "overlay"),
    "penstock inspect --wipe": ("penstock inspect /san/b/db.img || echo none", "none"),
    "penstock status": ("", "virtio-net0"),
    "penstock status --json": ("", '"virtio-net"'),
    "penstock resize": ("stat -c %s db.img", str(40 << 30)),
    "penstock add-disk tools": ("penstock stack tools", "iso: "),
    "penstock add-disk more": ("penstock stack more", "/srv/more.img"),
    "penstock remove-disk tools": ("penstock status | grep 'Disks that no VM has' | grep -v tools", "more"),
    "penstock insert web ide0/secondary-master tools": ("", "disk tools"),
    "penstock insert web ide0/secondary-master --iso": ("", "disk debian-12-netinst"),
    "penstock eject": ("", "ide0/secondary-master: empty"),
    "penstock attach": ("penstock status", "3:0 +disk +more"),
    "penstock detach": ("penstock status", lacks("3:0 .*disk", "virtio-scsi0")),
    "penstock stack db": ("", "crypt"),
    "penstock stack db 'crypt": ("penstock stack db", "/etc/db.key"),
    "penstock insert-layer db 0 pass": ("", "0 pass, 1 file"),
    "penstock insert-layer web0 0 'count": ("", "0 count"),
    "penstock insert-layer db file": ("", r"1 mirror \(0: 0 file; 1: 0 file\)"),
    "penstock remove-layer db flaky": ("", "db: 0 mirror"),
    "penstock remove-layer db mirror": ("penstock stack db", "file: .*/san/b/db.img"),
    "penstock move-layer": ("", "0 flaky, 1 pass, 2 file"),
    "penstock set-layer": ("penstock stack db", lacks("errors", "delay: 5ms")),
    "penstock set-port web0 up=false": ("penstock status", "web0 +virtio-net +down"),
    "penstock set-port web0 vlan": ("penstock config", "web0: .*vlan: 20.*isolated: true"),
    "penstock set-port probe": ("penstock config", "mirror: .*web0,db0"),
    "penstock addresses": ("", "02:00:00:00:00:01.* inet"),
    "penstock forget": ("", "lan: [1-9][0-9]* addresses forgotten"),
    "penstock add-leg": ("", "2: 0 file"),
    "penstock remove-leg": ("", r"mirror \(0: 0 file\)"),
    "penstock undo": (f"qemu-io -r -f raw -c 'read -v 0 16' {WEB1}", "00000000:  00 00 00 00"),
    "penstock move db 'file": ("", "db: moved"),
    "penstock move db 'nbd": ("until penstock stack db | grep nbd:; do sleep 0.1; done", "store.sock"),
    "penstock move db 'crypt": ("penstock stack db", "db.luks"),
    "penstock move db --limit": ("penstock status --json", '"limit": ?20971520\\b'),
    "penstock move db --cancel": ("penstock status --json | grep '\"state\": \"canceled\"' && penstock stack db",
                               lacks("slow.img", "db.luks")),
    "penstock config": ("penstock check /etc/penstock/penstock.yaml && cat /etc/penstock/penstock.yaml", "golden.img"),
    "penstock qemu-args web --memory": ("", "size=4G"),
    "penstock qemu-args web --config": ("", "virtio-net-pci"),
    "penstock help": ("", "raw image file"),
    "dd ": ("stat -c %s db.key", "32"),
    "penstock create crypt db.luks": ("cryptsetup isLuks db.luks && stat -c %s db.luks", "21491613696"),
}
SERVE = ("serve", "run")     # until they are ended


def beginning(table, line):
    """The entry of the longest key that a line begins with."""
    keys = [key for key in table if line.startswith(key)]
    return table[max(keys, key=len)] if keys else None


def every_second():
    """A capture of a frame a second, for a quarter of an hour."""
    frame = b"\xff" * 6 + bytes([2, 0, 0, 0, 0, 1]) + b"\x88\xb5" + bytes(46)
    return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + b"".join(
        struct.pack("<IIII", second, 0, len(frame), len(frame)) + frame for second in range(900))


@functools.cache
def iso():
    """A CD's image."""
    with Lab() as lab:
        lab.write("hello.txt", "hello")
        subprocess.run(["genisoimage", "-quiet", "-o", lab.path("iso"), lab.path("hello.txt")], check=True, timeout=60)
        return lab.path("iso").read_bytes()


class Typist:
    """Somebody with a shell, and penstock on $PATH, in the lab's directory."""

    def __init__(self, lab, mib=64):
        self.lab = lab
        self.mib = mib              # of each image
        proxies = [name for name in os.environ if name.lower().endswith("_proxy")]
        self.environment = {**os.environ, "PATH": f"{PENSTOCK.parent}:{os.environ['PATH']}",
                            "PENSTOCK_API": str(lab.path("api.sock"))}
        for name in proxies:
            del self.environment[name]
        for directory in ("var/lib/penstock", "etc/penstock", "san/a", "san/b", "srv"):
            lab.path(directory).mkdir(parents=True)
        for image in ("db.img", "golden.img", "disk.img", "san/a/db.img", "san/b/db.img", "srv/copy.img", "srv/third.img",
                      "srv/more.img"):
            lab.image(image, mib)
        for key in ("etc/old.key", "etc/db.key"):
            lab.write(key, f"the passphrase in {key}")
        for image in ("tools.iso", "srv/tools.iso", "srv/debian-12-netinst.iso"):
            lab.path(image).write_bytes(iso())
        lab.path("every-second.pcap").write_bytes(every_second())

    def here(self, text):
        for old, new in (*TYPED, ("SIZE", str(self.mib))):
            text = text.replace(old, new)
        return DIRECTORY.sub(f"{self.lab.directory}/", text)

    def types(self, line):
        """What a command prints; it must succeed."""
        done = subprocess.run(["bash", "-c", self.here(line)], cwd=self.lab.directory, env=self.environment, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=100)
        tap.equal(done.returncode, 0, f"status of `{line}`, which said\n{done.stdout}{done.stderr}")
        return done.stdout

    def configuration(self, command):
        """/etc/penstock/penstock.yaml with what the examples of a command are about."""
        config = self.here(CONFIG.replace("DB", STACKS.get(command, PLAIN)))
        if command == "stack":
            self.types(f"penstock create crypt /srv/db.img key-file=/etc/old.key size=SIZEM {CHEAP}")
        return self.lab.write("etc/penstock/penstock.yaml", config)


def examples_of(lab, command):
    """The lines under "Examples:" in the help of a command."""
    text = accepted(lab.penstock(command, "--help")).partition("\nExamples:\n")[2]
    return [line.strip() for line in text.partition("\n\n")[0].splitlines()]


def all_examples():
    """Those of all commands."""
    with Lab() as lab:
        commands = [word for word in accepted(lab.penstock("help", "--names")).split() if not word.startswith("-")]
        tap.equal(sorted(commands), sorted((*COMMANDS, "help")), "commands")
        return {command: examples_of(lab, command) for command in commands}


EXAMPLES = all_examples()


@tap.test("each command has an example; this test runs it, or says why not")
def _():
    for command, lines in EXAMPLES.items():
        tap.check(lines, f"there is none in penstock {command} --help")
        unknown = [line for line in lines if command not in SERVE and not beginning(SHOWS | NOT_RUN, line)]
        tap.equal(unknown, [], "what this test does not know of")
    every = [line for lines in EXAMPLES.values() for line in lines]
    for key in (*SHOWS, *BEFORE, *NOT_RUN):
        tap.check(any(line.startswith(key) for line in every), f"no example is {key}")


def serves(lab, line):
    """penstock runs as a line says, with the sockets that it or its configuration names, and ends well."""
    words = shlex.split(line)[1:]
    daemon = lab.daemon(*words)
    wanted = [word for flag, word in zip(words, words[1:]) if flag in ("--socket", "--nbd-socket")]
    for config in (word for word in words if word.endswith(".yaml")):
        wanted += re.findall(r"socket: ([\w.-]+)", lab.path(config).read_text())
    if len(words) == 1:
        wanted += ["penstock-demo.sock", "penstock-api.sock"]   # of the embedded configuration
    tap.check(wanted, f"{line} names no socket")
    for socket in wanted:
        tap.check(lab.path(socket).is_socket(), f"there is no {socket} while {line} runs")
    tap.equal(daemon.stop(), 0, f"status of {line}")


for command, lines in EXAMPLES.items():
    @tap.test(f"the examples of {command}")
    def _(command=command, lines=lines):
        with Lab() as lab:
            # A move must be slow enough to be seen.
            typist = Typist(lab, 256 if command == "move" else 64)
            config = typist.configuration(command)
            if command in SERVE:
                for line in lines:
                    serves(lab, typist.here(line))
                return
            daemon = lab.daemon("run", config, "--api", "api.sock")
            if command == "inspect":
                tap.equal(daemon.stop(), 0, "penstock's exit status")
            if command == "move":
                lab.end_with(subprocess.Popen(["nbdkit", "--foreground", "--unix", lab.path("store.sock"),
                                               "memory", f"{typist.mib}M"]))
            for line in lines:
                if beginning(NOT_RUN, line):
                    continue
                if before := beginning(BEFORE, line):
                    typist.types(before)
                said = typist.types(line)
                after, pattern = beginning(SHOWS, line)
                if after:
                    said = typist.types(after)
                tap.check(re.search(pattern, said), f"no {pattern} after {line}:\n{said}")


@tap.test("the examples of penstock-api(7)")
def _():
    page = (PENSTOCK.parent / "docs" / "penstock-api.7").read_text()
    text = re.search(r"\.Sh EXAMPLES\n\.Bd .*\n((?:[^.].*\n)*)\.Ed", page)[1]
    lines = text.replace("\\-", "-").replace("\\e\n", "").splitlines()
    tap.equal(len(lines), 3, f"commands in\n{text}")
    with Lab() as lab:
        typist = Typist(lab)
        lab.daemon("run", typist.configuration("api"), "--api", "api.sock")
        said = [typist.types(line.replace("/run/penstock.sock", "api.sock")) for line in lines]
        tap.contains(said[0], '"virtio-scsi"', '"golden.img"')
        tap.equal(lab.path("db.img").stat().st_size, 40 << 30, f"the size of db, after {said[1]}")
        tap.check(re.search("secondary-master +cdrom +tools", typist.types("penstock status")), f"no medium, after {said[2]}")


tap.main()
