#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Real guests on encrypted disks: fio's verify with small and large requests, a file system that the host finds clean
inside the volume and nowhere else; the same after the daemon was killed."""

import json
import subprocess

from guest_checks import fio, no_io_errors, tap
from lab import MIB, SHORT, Disk, Lab

SECTORS = (512, 4096)
WORD = "TheGuestWroteThisWord"


def start(lab):
    config = lab.write("all.json", json.dumps({
        "disks": {f"d{sector}": {"block-size": sector, "stack": [{"crypt": {"key-file": "key", "workers-from": "128K"}},
                                                                 {"file": {"path": f"{sector}.luks"}}]} for sector in SECTORS},
        "vms": {"guest": [{"virtio-blk": f"d{sector}", "socket": f"{sector}.sock", "queues": 2} for sector in SECTORS]},
        "nbd": [{"socket": "n.sock"}]}))
    return lab.daemon("run", config)


def run(*command):
    done = subprocess.run([str(word) for word in command], text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=120)
    tap.equal(done.returncode, 0, f"exit status of {command[0]} ({done.stdout} {done.stderr})")


def main():
    with Lab() as lab:
        lab.write("key", "correct horse battery staple")
        for sector in SECTORS:
            done = lab.penstock("create", "crypt", f"{sector}.luks", "size=64M", "key-file=key", f"sector-size={sector}",
                                "pbkdf=pbkdf2", "pbkdf-iterations=1000", timeout=120)
            tap.equal(done.returncode, 0, f"penstock create ({done.stderr})")
        daemon = start(lab)
        guest = lab.guest([Disk(lab.path(f"{sector}.sock"), "num-queues=2") for sector in SECTORS],
                          programs=["fio", "mkfs.ext4"], memory=512, cpus=2)

        for letter, sector in zip("ab", SECTORS):
            @tap.test(f"sectors of {sector}: fio with verify, a file system, and the daemon killed between")
            def _(disk=f"/dev/vd{letter}", sector=sector):
                nonlocal daemon
                size = "2M" if SHORT else "8M"
                guest.run(fio(disk, size, bsrange=f"{sector}-64k"))
                guest.run(fio(disk, size, rw="write", bs="1M", iodepth=4))
                guest.run(f"mkfs.ext4 -q {disk} && mount -t ext4 {disk} /mnt\n"
                          f"for i in $(seq 3000); do echo {WORD}; done >/mnt/words\n"
                          "cd /mnt && sha256sum words >/tmp/sums && sync")
                daemon.kill()
                daemon.start()
                guest.run("echo 3 >/proc/sys/vm/drop_caches; cd /mnt && sha256sum -c -s /tmp/sums && cd / && umount /mnt")

        @tap.test("the guest's kernel saw no error; the host finds a clean file system in the volumes, and no word outside")
        def _():
            no_io_errors(guest)
            guest.power_off()
            for sector in SECTORS:
                run("nbdcopy", f"nbd+unix:///d{sector}?socket={lab.path('n.sock')}", lab.path("plain.img"))
                run("e2fsck", "-fn", lab.path("plain.img"))
                tap.check(WORD.encode() in lab.path("plain.img").read_bytes(), "the word is not in the disk")
                tap.check(WORD.encode() not in lab.path(f"{sector}.luks").read_bytes(), "the word is in the volume")
                tap.check(lab.path("plain.img").stat().st_size == 64 * MIB, "the size of the disk")

        tap.main()


main()
