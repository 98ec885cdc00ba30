#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""QEMU 11.1 of Debian's trixie-backports, beside the system: the client of vfio-user.

    scripts/qemu11.py -M q35 -device ...            runs qemu-system-x86_64 with these arguments
    scripts/qemu11.py qemu-img bench ...            runs another of its programs
    scripts/qemu11.py                               fetches it where that has not happened yet

The packages are unpacked under build/qemu11 (or $QEMU11), once: 10 to 60 s, 80 MB to download, 230 MB.
Nothing is installed, nothing of it is run at that time, and it takes neither root nor mounts.

The programs run from there by their own loader with their own libraries, in this system's file
tree: paths, sockets and descriptors are the caller's. QEMU looks for its modules and firmware below
`qemu-bundle` beside /proc/self/exe, which is then the loader; so a copy of it stands in usr/bin.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import debian
from guest_image import ROOT, Missing

TREE = Path(os.environ.get("QEMU11", ROOT / "build" / "qemu11")).absolute()
PACKAGES = ("qemu-system-x86", "seabios", "qemu-utils", "qemu-block-extra")
# What is newer there than in trixie, and all that QEMU needs of it.
PREFERENCES = "Package: qemu* seabios libngtcp2*\nPin: release n=trixie-backports\nPin-Priority: 900\n"
LIBRARIES = "usr/lib/x86_64-linux-gnu"


def command(program="qemu-system-x86_64"):
    """The words that run a program of QEMU 11.1; it is fetched first where it is not there."""
    tree = debian.made_once(TREE, unpack)
    return [f"{tree}/usr/bin/ld.so", "--library-path", f"{tree}/{LIBRARIES}", "--argv0", program,
            f"{tree}/usr/bin/{program}"]


def unpack(part):
    preferences = part.with_suffix(".preferences")
    preferences.write_text(PREFERENCES)
    try:
        debian.mmdebstrap(part, "QEMU 11.1", ("trixie", "trixie-backports"), PACKAGES, "--mode=chrootless",
                          "--variant=extract", f'--aptopt=Dir::Etc::Preferences "{preferences}"')
    finally:
        preferences.unlink()
    shutil.copy(part / LIBRARIES / "ld-linux-x86-64.so.2", part / "usr/bin/ld.so")
    (part / "usr/bin/qemu-bundle").symlink_to("../..")


def main(arguments):
    if not arguments:
        command()
        print(TREE)
        return
    program = "qemu-system-x86_64" if arguments[0].startswith("-") else arguments.pop(0)
    words = command(program)
    os.execv(words[0], [*words, *arguments])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (Missing, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"qemu11: {error}")
    except KeyboardInterrupt:
        sys.exit("qemu11: interrupted")
