#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""File systems on overlays and mirrors, whose VM and daemon are killed in mid-load.

The guest writes files, each with fsync, and tells their checksums; beside them goes a load without any
fsync. First the daemon alone is killed and starts again, and the guest must not notice; then both are
killed, at a random instant. What comes up must replay its log, be found clean by fsck, and hold every
file that was told. The seed is printed, and $SEED repeats it."""

import hashlib
import json
import os
import random
import time

from guest_checks import no_io_errors, tap
from lab import MIB, SHORT, Lab

SEED = int(os.environ.get("SEED") or random.randrange(1 << 32))
CRASHES = 1 if SHORT else 2

print(f"# SEED={SEED}", flush=True)

MAKE = {"ext4": "mkfs.ext4 -q", "xfs": "mkfs.xfs -q"}
CHECK = {"ext4": "e2fsck -fn", "xfs": "xfs_repair -n"}
SIZE = 320      # MiB; XFS refuses less than 300

LOAD = """
(while :; do dd if=/dev/zero of=/mnt/noise bs=64k count=64 conv=notrunc seek=$((i % 7)) 2>/dev/null
 i=$((i + 1)); echo $i >/mnt/small$((i % 50)); rm -f /mnt/small$((i * 7 % 50)); done) &
n={first}
while :; do
 dd if=/dev/urandom of=/mnt/file$n bs=4k count=$((1 + n % 9)) conv=fsync 2>/dev/null || exit 1
 sum=$(md5sum </mnt/file$n); echo told file$n ${{sum%% *}}
 n=$((n + 1))
done
"""


class Enough(Exception):
    """The load has gone on for long enough."""


def load(guest, told, seconds, first):
    """Run the load for so long; what it tells goes to `told`. It is still running then."""
    deadline = time.monotonic() + seconds

    def progress(line):
        words = (line.decode(errors="replace") if isinstance(line, bytes) else line).split()
        if words[:1] == ["told"] and len(words) == 3:
            told[words[1]] = words[2]
        if time.monotonic() > deadline:
            raise Enough
    if first is not None:
        guest.send(LOAD.format(first=first))
    try:
        status, output = guest.finish(seconds + 60, progress)
    except Enough:
        return
    raise tap.Failure(f"the load ended with status {status}:\n{output}")


def find_everything(guest, kind, told):
    """What was told is there; the file system has replayed its log and is clean."""
    guest.run(f"mount -t {kind} /dev/vda /mnt", timeout=40)
    names = sorted(told)
    for at in range(0, len(names), 40):
        sums = "".join(f"{told[name]}  /mnt/{name}\n" for name in names[at:at + 40])
        guest.run(f"printf '{sums}' | md5sum -c >/tmp/sums 2>&1 || {{ grep -v OK /tmp/sums; exit 1; }}")
    guest.run("umount /mnt")
    guest.run(f"{CHECK[kind]} /dev/vda >/tmp/fsck 2>&1 || {{ cat /tmp/fsck; exit 1; }}")


def crash(kind, stack, images, finally_check):
    chance = random.Random(f"{SEED} {kind} {stack}")
    with Lab() as lab:
        for name, mib in images.items():
            lab.image(name, mib)
        config = lab.write("crash.yaml", json.dumps({
            "disks": {"disk": {"size": f"{SIZE}M", "stack": stack}},
            "vms": {"guest": [{"virtio-blk": "disk", "socket": "disk.sock"}]}}))
        daemon = lab.daemon("run", config, "--api", "api.sock")
        told = {}
        for life in range(CRASHES + 1):
            guest = lab.guest([lab.path("disk.sock")], memory=512, modules=["xfs"] if kind == "xfs" else [],
                              programs=[MAKE[kind].split()[0], CHECK[kind].split()[0]])
            if life:
                find_everything(guest, kind, told)
            else:
                guest.run(f"{MAKE[kind]} /dev/vda")
            if life == CRASHES:
                break
            guest.run(f"mount -t {kind} /dev/vda /mnt")
            first = len(told)
            load(guest, told, chance.uniform(1.5, 2.5), first)
            daemon.kill()
            time.sleep(chance.uniform(0, 0.3))
            daemon.start()
            load(guest, told, chance.uniform(1.5, 3), None)
            tap.check(len(told) > first + 2, f"the load told only of {len(told) - first} files")
            for victim in chance.sample([guest, daemon], 2):
                victim.kill()
                time.sleep(chance.uniform(0, 0.1))
            daemon.start()
        no_io_errors(guest)
        guest.power_off()
        finally_check(lab)
        tap.equal(daemon.stop(), 0, "penstock's exit status")
    print(f"# {len(told)} files were there", flush=True)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


OVERLAY = [{"overlay": {"store": [{"file": {"path": "store.img", "create": True}}]}}, {"file": {"path": "base.img"}}]
MIRROR = [{"mirror": {"create": True, "legs": [[{"file": {"path": "a.img"}}], [{"file": {"path": "b.img"}}]]}}]


@tap.test("ext4 on an overlay, daemon and VM killed: clean after log replay, all that was synced is there")
def _():
    def base_is_as_it_was(lab):
        tap.equal(digest(lab.path("base.img")), hashlib.sha256(bytes(SIZE * MIB)).hexdigest(), "the base's bytes")
    crash("ext4", OVERLAY, {"base.img": SIZE}, base_is_as_it_was)


@tap.test("XFS on a mirror, daemon and VM killed: clean after log replay, all that was synced is there, legs agree")
def _():
    def legs_agree(lab):
        deadline = time.monotonic() + 30
        while "resyncing" in lab.penstock("status", "--json", "--api", "api.sock").stdout:
            tap.check(time.monotonic() < deadline, "the mirror's legs are not in sync after 30 s")
            time.sleep(0.2)
        with open(lab.path("a.img"), "rb") as a, open(lab.path("b.img"), "rb") as b:
            for mib in range(SIZE):
                tap.check(a.read(MIB) == b.read(MIB), f"the legs differ in MiB {mib}")
    crash("xfs", MIRROR, {"a.img": SIZE + 2, "b.img": SIZE + 2}, legs_agree)


tap.main()
