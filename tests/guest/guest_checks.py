# SPDX-License-Identifier: BSD-3-Clause
"""Shell scripts that several guest tests run, and what they look at afterwards."""

import re
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

import tap  # noqa: E402


def fio(target, size, **options):
    """A script that writes `size` at random with checksums, reads it all back and verifies it."""
    options = {"rw": "randwrite", "bsrange": "4k-64k", "iodepth": 16, **options}
    arguments = " ".join(f"--{name}={value}" for name, value in options.items())
    return (f"fio --name=verify --filename={target} --size={size} --ioengine=libaio --direct=1 "
            f"--verify=crc32c --verify_fatal=1 --verify_state_save=0 --group_reporting "
            f"--output=/tmp/fio.log {arguments} >/tmp/fio.out 2>&1 || "
            "{ tail -n 30 /tmp/fio.log /tmp/fio.out; exit 1; }\n")


def begin_load(guest, job):
    """Run fio's script `job`, of a few seconds, again and again until end_load()."""
    guest.run(f"{{ (while [ ! -e /tmp/enough ]; do {job} done; echo verified) >/tmp/load 2>&1; echo $? >/tmp/status; }} &")


def end_load(guest):
    """The load was there all the time, and has seen no error."""
    status, output = guest.attempt("""
[ ! -e /tmp/status ] || { echo "the load ended by itself"; cat /tmp/load; exit 1; }
touch /tmp/enough
until [ -s /tmp/status ]; do sleep 0.1; done
cat /tmp/load
exit $(cat /tmp/status)
""", timeout=180)
    tap.check(status == 0 and "verified" in output, f"the load in the guest:\n{output}")


def no_io_errors(guest):
    """The guest's kernel has logged no failed request, no file system error, no stuck task."""
    bad = re.findall(r".*(?:I/O error|EXT4-fs error|XFS.*(?:[Cc]orrupt|error)|blocked for more than|"
                     r"Call Trace).*", guest.dmesg())
    tap.check(not bad, "the guest's kernel complains:\n" + "\n".join(bad))


def feature(guest, disk, bit):
    """Whether the guest's driver negotiated a virtio feature bit for a disk such as vda."""
    return guest.run(f"cat /sys/block/{disk}/device/features")[bit] == "1"


def reload(guest, module, parameters="", above=()):
    """Unload a module and those `above` that use it, load them again, it with other parameters; its disks are back."""
    disks = guest.run("ls -d /sys/block/sd* | wc -l").strip()
    guest.run(f"rmmod {' '.join(above)} {module} && insmod /modules/*-{module}.ko {parameters}\n"
              + "".join(f"insmod /modules/*-{name}.ko\n" for name in above))
    wait_until(guest, f"[ $(ls -d /sys/bus/scsi/drivers/sd/*/block/sd* | wc -l) = {disks} ]",
               "the guest finds its disks again")


def wait_until(guest, condition, what, seconds=20):
    """Wait until a script's status in the guest is 0."""
    deadline = time.monotonic() + seconds
    while guest.attempt(condition)[0]:
        tap.check(time.monotonic() < deadline, f"not after {seconds} s: {what}")
        time.sleep(0.2)
