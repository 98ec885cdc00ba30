# SPDX-License-Identifier: BSD-3-Clause
"""What the command-line tests share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import tap  # noqa: E402

COMMANDS = ("serve", "run", "check", "create", "inspect", "status", "resize", "add-disk", "remove-disk", "insert", "eject", "attach",
            "detach", "stack", "insert-layer", "remove-layer", "move-layer", "set-layer", "set-port", "addresses", "forget",
            "add-leg", "remove-leg", "undo", "move", "capture", "config", "qemu-args")

# A good configuration, for an image disk.img.
GOOD = """\
disks:
  data:
    stack:
      - file: {path: disk.img}
vms:
  web:
    - {virtio-blk: data, socket: web.sock}
"""


def refused(done, status, *wanted):
    """A finished penstock ended with `status`, and said why: one line with all of `wanted` in it."""
    tap.equal(done.returncode, status, f"exit status (stderr: {done.stderr!r})")
    lines = [line for line in done.stderr.splitlines() if all(part in line for part in wanted)]
    tap.check(lines, f"no line with all of {wanted} in:\n{done.stderr}")
    tap.check("Traceback" not in done.stderr and "Sanitizer" not in done.stderr, done.stderr)


def accepted(done):
    """A finished penstock ended well; what it printed."""
    tap.equal(done.returncode, 0, f"exit status (stderr: {done.stderr!r})")
    return done.stdout
