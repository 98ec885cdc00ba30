#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Encrypted volumes: made by penstock create and read by cryptsetup, and the other way round; keys that show nowhere.

There is no device-mapper in these tests. What is in a volume is seen through penstock's NBD server, through cryptsetup
reencrypt, which decrypts and encrypts image files by itself, through QEMU's own LUKS driver (LUKS1), and through
openssl's command line."""

import contextlib
import hashlib
import json
import os
import random
import subprocess

from cli_checks import accepted, refused, tap
from lab import MIB, Lab

DATA = 16 * MIB                                             # where the data of a LUKS2 volume begin
KEY = b"correct horse battery staple\n"
CHEAP = ("pbkdf=pbkdf2", "pbkdf-iterations=1000")
CHEAP_THEIRS = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")


def tool(*command, input=None, status=0):
    """Run a tool of somebody else's; what it printed, as text."""
    done = subprocess.run([str(word) for word in command], input=input, capture_output=True, timeout=120,
                          stdin=subprocess.DEVNULL if input is None else None)
    tap.equal(done.returncode, status, f"exit status of {' '.join(map(str, command))} ({done.stderr!r})")
    return done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Volumes(Lab):
    """A directory with the key file `key`."""

    def __enter__(self):
        super().__enter__()
        self.path("key").write_bytes(KEY)
        return self

    def create(self, *arguments, size="4M", key="key-file=key"):
        accepted(self.penstock("create", "crypt", "v.luks", f"size={size}", key, *CHEAP, *arguments, timeout=120))
        return self.path("v.luks")

    def config(self, block=512, **options):
        options = options or {"key-file": "key"}
        return self.write("c.json", json.dumps({
            "api": "api.sock", "nbd": [{"socket": "n.sock", "read-only": False}],
            "disks": {"v": {"block-size": block, "stack": [{"crypt": options}, {"file": {"path": "v.luks"}}]}}}))

    @contextlib.contextmanager
    def serve(self, block=512, **options):
        """A daemon that exports the disk v, encrypted in v.luks."""
        daemon = self.daemon("run", self.config(block, **options))
        yield daemon
        if daemon.running():
            tap.equal(daemon.stop(), 0, "penstock's exit status")

    @property
    def uri(self):
        return f"nbd+unix:///v?socket={self.path('n.sock')}"

    def read(self, block=512):
        """All that a guest would see."""
        with self.serve(block):
            tool("nbdcopy", self.uri, self.path("seen"))
        return self.path("seen").read_bytes()

    def write_data(self, data, block=512):
        self.path("data").write_bytes(data)
        with self.serve(block):
            tool("nbdcopy", self.path("data"), self.uri)

    def unlocked(self):
        """cryptsetup opens a key slot of v.luks."""
        tool("cryptsetup", "open", "--test-passphrase", "--key-file", self.path("key"), self.path("v.luks"))


def decrypt(volume, key, length, sector):
    """The data of `volume` by openssl's command line, sector after sector, with the volume key `key` (hex)."""
    # Not -aes-256-xts, which enc does not have: XTS from ECB, as IEEE 1619 defines it.
    half = len(key) // 2
    cipher = f"-aes-{half * 4}-ecb"

    def ecb(way, key, data):
        return subprocess.run(["openssl", "enc", way, cipher, "-K", key, "-nopad"], input=data, capture_output=True,
                              timeout=60, check=True).stdout

    with open(volume, "rb") as file:
        file.seek(DATA)
        data = file.read(length)
    numbers = b"".join((at // 512).to_bytes(16, "little") for at in range(0, length, sector))
    firsts = ecb("-e", key[half:], numbers)
    tweaks = bytearray()
    for n in range(0, len(firsts), 16):
        tweak = int.from_bytes(firsts[n:n + 16], "little")
        for _ in range(sector // 16):
            tweaks += tweak.to_bytes(16, "little")
            tweak = (tweak << 1) ^ (((1 << 128) | 0x87) if tweak >> 127 else 0)

    def xor(a, b):
        return (int.from_bytes(a, "little") ^ int.from_bytes(b, "little")).to_bytes(len(a), "little")

    return xor(ecb("-d", key[:half], xor(data, tweaks)), tweaks)


def volume_key(lab):
    tool("cryptsetup", "luksDump", "-q", "--dump-volume-key", "--volume-key-file", lab.path("mk"),
         "--key-file", lab.path("key"), lab.path("v.luks"))
    return lab.path("mk").read_bytes().hex()


# --- ours, looked at by cryptsetup -------------------------------------------

@tap.test("cryptsetup luksDump reads what penstock create makes, and --test-passphrase opens it")
def _():
    for arguments, wanted in (((), ("sector: 512", "512 bits", "pbkdf2")),
                              (("sector-size=4096", "cipher=aes-128", "label=my-db"), ("sector: 4096", "256 bits", "my-db")),
                              (("pbkdf=argon2id", "pbkdf-iterations=4", "pbkdf-memory=64K"), ("argon2id", "Memory:     64"))):
        with Volumes() as lab:
            volume = lab.create(*arguments)
            tap.equal(volume.stat().st_size, DATA + 4 * MIB, "size of the image")
            tap.equal(volume.stat().st_mode & 0o777, 0o600, "mode of the image")
            tap.contains(tool("cryptsetup", "luksDump", volume), "aes-xts-plain64", "Version:       \t2", *wanted)
            lab.unlocked()
            lab.path("key").write_bytes(KEY[:-1])
            tool("cryptsetup", "open", "--test-passphrase", "--key-file", lab.path("key"), volume, status=2)


@tap.test("what a guest writes is what openssl decrypts with the volume key, in both sector sizes")
def _():
    for sector, cipher in ((512, "aes-256"), (4096, "aes-256"), (512, "aes-128")):
        with Volumes() as lab:
            volume = lab.create(f"sector-size={sector}", f"cipher={cipher}", size="1M")
            data = noise(MIB)
            lab.write_data(data, sector)
            tap.check(decrypt(volume, volume_key(lab), MIB, sector) == data, f"other data in sectors of {sector}, {cipher}")
            tap.check(lab.read(sector) == data, "penstock reads back other data")


@tap.test("cryptsetup reencrypts our volume with another key, and penstock reads the same data")
def _():
    with Volumes() as lab:
        volume = lab.create(size="3M")
        data = noise(3 * MIB, 2)
        lab.write_data(data)
        before = volume_key(lab)
        tool("cryptsetup", "-q", "reencrypt", "--force-offline-reencrypt", *CHEAP_THEIRS, "--key-file", lab.path("key"), volume)
        lab.path("mk").unlink()
        tap.check(volume_key(lab) != before, "cryptsetup has not changed the volume key")
        tap.check(lab.read() == data, "other data after cryptsetup reencrypt")


# --- theirs, looked at by penstock -------------------------------------------

@tap.test("penstock reads what cryptsetup has encrypted in place, in both sector sizes")
def _():
    for sector in (512, 4096):
        with Volumes() as lab:
            data = noise(4 * MIB, sector)
            lab.path("v.luks").write_bytes(data + bytes(32 * MIB))
            tool("cryptsetup", "-q", "reencrypt", "--encrypt", "--reduce-device-size", "32M", "--sector-size", sector,
                 *CHEAP_THEIRS, "--key-file", lab.path("key"), lab.path("v.luks"))
            tap.check(data not in lab.path("v.luks").read_bytes(), "cryptsetup has encrypted nothing")
            tap.check(lab.read(sector)[:len(data)] == data, f"other data in sectors of {sector}")


@tap.test("luksFormat's volumes with argon2id, several key slots and a changed passphrase open")
def _():
    with Volumes() as lab:
        lab.image("v.luks", 20)
        tool("cryptsetup", "-q", "luksFormat", "--sector-size", "512", "--pbkdf-force-iterations", "4",
             "--pbkdf-memory", "64", lab.path("v.luks"), lab.path("key"))
        first = lab.read()
        lab.path("second").write_bytes(b"another one")
        tool("cryptsetup", "-q", "luksAddKey", *CHEAP_THEIRS, "--key-file", lab.path("key"), lab.path("v.luks"),
             lab.path("second"))
        tool("cryptsetup", "-q", "luksKillSlot", lab.path("v.luks"), "0", "--key-file", lab.path("second"))
        refused(lab.penstock("run", lab.config()), 1, "opens none", "key-file key")
        lab.path("key").write_bytes(b"another one")
        tap.check(lab.read() == first, "another key slot gives other data")


@tap.test("a LUKS1 image that QEMU's own driver writes and reads: the same data, both ways")
def _():
    with Volumes() as lab:
        data = noise(2 * MIB, 3)
        lab.path("plain").write_bytes(data)
        lab.path("v.luks").write_bytes(bytes(4 * MIB))
        tool("cryptsetup", "-q", "luksFormat", "--type", "luks1", "--pbkdf-force-iterations", "1000", lab.path("v.luks"),
             lab.path("key"))
        theirs = ("--object", f"secret,id=s,file={lab.path('key')}")
        image = f"driver=luks,key-secret=s,file.filename={lab.path('v.luks')}"
        tool("qemu-img", "convert", "-n", *theirs, "-f", "raw", lab.path("plain"), "--target-image-opts", image)
        tap.check(lab.read()[:len(data)] == data, "penstock reads other data")
        lab.write_data(data[::-1])
        tool("qemu-img", "convert", *theirs, "--image-opts", image, "-O", "raw", lab.path("back"))
        tap.check(lab.path("back").read_bytes()[:len(data)] == data[::-1], "QEMU reads other data")


# --- a disk in use -----------------------------------------------------------

@tap.test("zeroes that qemu-io writes are zeroes to the guest and none on the disk; discards go nowhere")
def _():
    with Volumes() as lab:
        volume = lab.create(size="2M")
        lab.write_data(noise(2 * MIB, 4))
        before = volume.read_bytes()[DATA:]
        with lab.serve():
            tool("qemu-io", "-f", "raw", "-c", "discard 0 512k", "-c", "write -z 1M 512k", "-c", "read -P 0 1M 512k", lab.uri)
            tap.equal(json.loads(tool("nbdinfo", "--json", lab.uri))["exports"][0]["can_trim"], False, "can_trim")
        after = volume.read_bytes()[DATA:]
        tap.check(after[:MIB] == before[:MIB], "a discard came through")
        tap.check(after[MIB:MIB + MIB // 2] != before[MIB:MIB + MIB // 2], "zeroes were not written")
        tap.check(bytes(64) not in after[MIB:MIB + MIB // 2], "zeroes are there in the clear")


@tap.test("under a disk in use: other options, another key, a layer below, and a move; the data stay the same")
def _():
    with Volumes() as lab:
        lab.create(size="4M")
        data = noise(4 * MIB, 5)
        lab.write_data(data)
        lab.path("wrong").write_bytes(b"wrong")
        lab.path("copy").write_bytes(KEY)

        def change(*words, status=0, **kwargs):
            done = lab.penstock(*words, "--api", "api.sock", timeout=60)
            tap.equal(done.returncode, status, f"exit status of {words} ({done.stderr!r})")
            tool("nbdcopy", lab.uri, lab.path("seen"))
            tap.check(lab.path("seen").read_bytes() == data, f"other data after {words}")
            return done.stdout + done.stderr

        with lab.serve():
            change("set-layer", "v", "crypt", "workers=0")
            tap.contains(change("set-layer", "v", "crypt", "key-file=wrong", status=1), "opens none", "wrong")
            change("set-layer", "v", "crypt", "key-file=copy")
            lab.path("copy").unlink()                       # not asked for again
            change("insert-layer", "v", "1", "pass")
            tap.contains(change("remove-layer", "v", "crypt", status=1), "other data")
            change("move", "v", "file: {path: moved.luks, create: true}")
        lab.path("v.luks").unlink()
        lab.path("moved.luks").rename(lab.path("v.luks"))
        tap.check(lab.read() == data, "other data in the volume that was moved")


@tap.test("a plain disk becomes an encrypted one while it is in use, by a move")
def _():
    with Volumes() as lab:
        lab.create(size="4M")
        data = noise(4 * MIB, 6)
        lab.path("plain.img").write_bytes(data)
        config = lab.write("plain.json", json.dumps({
            "api": "api.sock", "nbd": [{"socket": "n.sock", "read-only": False}],
            "disks": {"v": {"stack": [{"file": {"path": "plain.img"}}]}}}))
        daemon = lab.daemon("run", config)
        accepted(lab.penstock("move", "v", "crypt: {key-file: key}", "file: {path: v.luks}", "--api", "api.sock", timeout=60))
        tool("qemu-io", "-f", "raw", "-c", "write -P 0x5a 64k 64k", lab.uri)
        tap.equal(daemon.stop(), 0, "exit status")
        tap.check(lab.path("plain.img").read_bytes() == data, "the plain image was written after the move")
        wanted = data[:65536] + b"\x5a" * 65536 + data[131072:]
        tap.check(lab.read() == wanted, "other data in the volume")
        tap.check(decrypt(lab.path("v.luks"), volume_key(lab), MIB, 512) == wanted[:MIB], "openssl decrypts other data")


@tap.test("the passphrase and the volume key are in no log, process list, API answer or command line")
def _():
    with Volumes() as lab:
        secret = "tremendous-secret-8931"
        lab.write("key", secret)
        volume = lab.create()
        key = bytes.fromhex(volume_key(lab))
        with lab.serve(**{"key-command": "cat key"}):
            api = lab.path("api.sock")
            texts = [tool("curl", "-sS", "--unix-socket", api, f"http://penstock{path}")
                     for path in ("/v1/status", "/v1/disks/v", "/metrics")]
            texts += [accepted(lab.penstock("status", "--api", "api.sock", "--json")), lab.log.read_text(), tool("ps", "auxwwe")]
            tap.contains(texts[0], "cat key")
            for text in texts:
                tap.check(secret not in text and key.hex() not in text, f"a secret in:\n{text}")
        tap.check(secret.encode() not in volume.read_bytes() and key not in volume.read_bytes(), "a secret in the volume")


@tap.test("a daemon that holds keys leaves no core, and no key in the memory that a core would have")
def _():
    with Volumes() as lab:
        secret = b"tremendous-secret-8932"
        lab.path("key").write_bytes(secret)
        lab.create()
        key = bytes.fromhex(volume_key(lab))
        with lab.serve() as daemon:
            tap.equal(places(daemon.process.pid, (secret, key[:32], key[32:])), [], "places of a secret")
            # Written by no process that is not "dumpable", whatever its limits are.
            os.kill(daemon.process.pid, 6)
            daemon.process.wait(30)
            tap.equal([name.name for name in lab.directory.glob("core*")], [], "core files")


def places(pid, secrets):
    """Where in the private memory of a process, but for what core files leave out, one of `secrets` stands."""
    areas, found = [], []
    for line in open(f"/proc/{pid}/smaps"):
        word, *rest = line.split()
        if not word.endswith(":"):
            areas.append({"name": line.strip(), "ends": [int(end, 16) for end in word.split("-")], "mode": rest[0]})
        else:
            areas[-1][word] = rest
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for area in areas:
            if not area["mode"].startswith("rw") or "dd" in area["VmFlags:"] or area["Rss:"][0] == "0":
                continue
            for at in range(area["ends"][0], area["ends"][1], 1 << 24):
                with contextlib.suppress(OSError):
                    memory.seek(at)
                    text = memory.read(min(1 << 24, area["ends"][1] - at))
                    found += [f"secret {n} in {area['name']}" for n, secret in enumerate(secrets) if secret in text]
    return found


@tap.test("the key comes from a command's output or from the user's keyring, too")
def _():
    with Volumes() as lab:
        lab.create(key="key-command=cat key")
        lab.unlocked()
        name = f"penstock-test-{os.getpid()}"
        done = subprocess.run(["keyctl", "padd", "user", name, "@u"], input=KEY, capture_output=True, timeout=30)
        if done.returncode:
            raise tap.Skip(f"no kernel keyring here: {done.stderr.decode()}")
        try:
            with lab.serve(**{"key-keyring": name}):
                tool("qemu-io", "-f", "raw", "-c", "read 0 64k", lab.uri)
        finally:
            tool("keyctl", "unlink", done.stdout.decode().strip(), "@u")
        refused(lab.penstock("run", lab.config(**{"key-keyring": name})), 1, "key-keyring", name)


# --- what goes wrong ---------------------------------------------------------

@tap.test("create: mistakes are named, and nothing is made or overwritten")
def _():
    with Volumes() as lab:
        refused(lab.penstock("create", "cript", "v.luks", "size=4M", "key-file=key"), 2, "cript", "crypt")
        refused(lab.penstock("create", "crypt", "v.luks", "size=4M", "key-fil=key"), 2, "key-fil", "key-file")
        refused(lab.penstock("create", "crypt", "v.luks", "size=4M", "key-file=key", "sector-size=520"), 2, "sector-size")
        refused(lab.penstock("create", "crypt", "v.luks", "key-file=key"), 1, "size")
        refused(lab.penstock("create", "crypt", "v.luks", "size=4M"), 1, "key-file", "key-command", "key-keyring")
        refused(lab.penstock("create", "crypt", "v.luks", "size=4M", "key-file=gone"), 1, "gone")
        refused(lab.penstock("create", "crypt", "v.luks", "size=4M", "key-command=exit 7"), 1, "exit status 7")
        tap.check(not lab.path("v.luks").exists(), "an image was left")
        volume = lab.create()
        before = digest(volume)
        refused(lab.penstock("create", "crypt", "v.luks", "key-file=key", *CHEAP), 1, "v.luks", "force=true")
        tap.equal(digest(volume), before, "the volume")
        lab.create("force=true")
        tap.check(digest(volume) != before, "force=true made no other volume")
        lab.unlocked()


@tap.test("a damaged header is refused, and nothing is written; one of two is enough")
def _():
    with Volumes() as lab:
        volume = lab.create()
        data = lab.read()
        for places, works in (((0,), True), ((4096,), True), ((16384,), True), ((4096, 16384 + 4096), False)):
            whole = volume.read_bytes()
            damaged = bytearray(whole)
            for place in places:
                damaged[place:place + 512] = noise(512)
            volume.write_bytes(damaged)
            before = digest(volume)
            if works:
                tap.check(lab.read() == data, f"other data with a header damaged at {places}")
                tap.contains(lab.log.read_text(), "one of the two LUKS2 headers is damaged")
            else:
                refused(lab.penstock("run", lab.config()), 1, "damaged", "disk 'v'", "crypt")
            tap.equal(digest(volume), before, f"the image, damaged at {places}")
            volume.write_bytes(whole)


@tap.test("sectors of 4096 bytes on a disk with blocks of 512: the message says what to set")
def _():
    with Volumes() as lab:
        lab.create("sector-size=4096")
        refused(lab.penstock("run", lab.config()), 1, "4096", "block-size")


if __name__ == "__main__":
    tap.main()
