# SPDX-License-Identifier: BSD-3-Clause
"""Debian's packages beyond what this machine has installed: trees made of them, once each.

A tree is made with mmdebstrap from the mirror that this machine's own apt uses, verified by apt against
Debian's keys. It stands under build/, complete or not at all, and is kept; two that want the same
one at a time make it once. Where something is missing, `Missing` says what and how to get it.
"""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess

from guest_image import Missing, last_lines, progress

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def made_once(path, make):
    """`path`, a directory; where it is not there, make(part) fills another, which gets that name."""
    if path.is_dir():
        return path
    with one_at_a_time(path):
        if not path.is_dir():
            part = path.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)     # what an interrupted run left
            part.mkdir()
            make(part)
            part.rename(path)
    return path


@contextlib.contextmanager
def one_at_a_time(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def mmdebstrap(directory, what, suites, include, *options):
    """Fill `directory` with `include` (packages) and what they need, of `suites`, the first of them leading.

    `what` names it in messages; `options` are further ones of mmdebstrap."""
    if not shutil.which("mmdebstrap"):
        raise Missing(f"mmdebstrap, which makes {what}, is missing on this machine. Type, and then try again:\n"
                      "    scripts/install-packages test")
    where = mirror()
    progress(f"{what}: fetching Debian {suites[-1]} from {where} (once)")
    sources = "".join(f"deb [signed-by={KEYRING}] {where} {suite} main\n" for suite in suites)
    made = subprocess.run(["mmdebstrap", "--format=directory", '--aptopt=APT::Install-Recommends "false"',
                           f"--include={','.join(include)}", *options, suites[0], directory, "-"],
                          input=sources, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900)
    if made.returncode:
        raise Missing(f"{what} could not be made; mmdebstrap said:\n{last_lines(made.stdout, 12)}\n"
                      f"This needs a Debian mirror that has {' and '.join(suites)}; the one asked was {where}.\n"
                      "Mend the network or /etc/apt/sources.list, and try again.")


def mirror():
    """Where this machine's apt gets Debian's main archive from."""
    found = known_mirror()
    if not found and os.geteuid() == 0:
        progress("apt-get update")
        subprocess.run(["apt-get", "-q", "update"], stdin=subprocess.DEVNULL, capture_output=True, timeout=600)
        found = known_mirror()
    if not found:
        raise Missing("apt knows no Debian mirror here. Name one in /etc/apt/sources.list, type this, and\n"
                      "then try again:\n"
                      "    sudo apt-get update")
    return found


def known_mirror():
    targets = subprocess.run(["apt-get", "indextargets", "Created-By: Packages", "Component: main"], text=True,
                             capture_output=True, timeout=60).stdout
    for target in targets.split("\n\n"):
        # The security archive and other vendors have labels and origins of their own.
        if "\nLabel: Debian\n" in target and "\nOrigin: Debian\n" in target:
            return re.search(r"^Repo-URI: (\S+)", target, re.MULTILINE)[1]
    return None
