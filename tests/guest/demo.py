#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What `make run` does once all is installed and built, twice: the second guest finds the files of the first one."""

import os
import re
import subprocess

from guest_checks import ROOT, tap
from lab import PENSTOCK, Lab


def demo(lab):
    """What scripts/demo says."""
    # Both may be relative to where it is typed.
    environment = {**os.environ, "BUILD_RUN": os.path.relpath(lab.path("run")), "PENSTOCK": os.path.relpath(PENSTOCK)}
    with subprocess.Popen([ROOT / "scripts" / "demo"], env=environment, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            said, _ = process.communicate(timeout=400)
        finally:
            process.terminate()     # It ends its QEMU and its penstock then.
    tap.equal(process.returncode, 0, f"status of scripts/demo, which said\n{said}")
    return said


with Lab() as lab:
    @tap.test("the first guest makes a file system and files, and reads them back from the disk")
    def _():
        tap.contains(demo(lab), "no files of an earlier run", "run-1: read back 16 MiB from the disk, checksums good",
                     "All good")

    @tap.test("the second guest finds them; it is told how to attach a VM of one's own")
    def _():
        said = demo(lab)
        tap.contains(said, "found the ext4 file system of an earlier run", "run-2: read back 16 MiB from the disk",
                     "All good", "To attach a VM of your own", "qemu-system-x86_64 -M q35", "vhost-user-blk-pci")
        tap.check(re.search("run-1, written .*: 4 files, checksums good", said), f"nothing of run-1 in\n{said}")

    tap.main()
