# SPDX-License-Identifier: BSD-3-Clause
"""What the tests in tests/guest and tests/cli have in common: a directory of their own, and in it
images, penstock processes and guests that go when the test ends."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import tap  # noqa: E402
from daemon import Daemon  # noqa: E402
from guest import Disk, Guest, attach  # noqa: E402

PENSTOCK = Path(os.environ.get("PENSTOCK", ROOT / "build" / "penstock")).absolute()
# A sanitizer's build is several times slower: tests that can do less, do less.
SHORT = bool(os.environ.get("SHORT"))
MIB = 1 << 20
ATTACH_SECONDS = 60     # QEMU dials once a second


class Lab:
    """A test's own directory; all that is made through it ends with the `with` block."""

    def __enter__(self):
        self._closing = contextlib.ExitStack()
        self.directory = Path(tempfile.mkdtemp(prefix="penstock-test-"))
        self._closing.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.log = self.directory / "penstock.log"
        return self

    def __exit__(self, *_):
        self._closing.close()

    def end_with(self, process):
        """`process`, a subprocess.Popen, which is killed when the test ends."""
        self._closing.callback(process.wait)
        self._closing.callback(process.kill)
        return process

    def path(self, name):
        return self.directory / name

    def image(self, name, mib):
        """A sparse image of `mib` MiB."""
        with open(self.path(name), "wb") as image:
            image.truncate(mib * MIB)
        return self.path(name)

    def write(self, name, text):
        self.path(name).write_text(text)
        return self.path(name)

    def daemon(self, *arguments, **kwargs):
        """A running, ready penstock."""
        daemon = Daemon(PENSTOCK, *arguments, log=kwargs.pop("log", self.log), cwd=self.directory, **kwargs)
        self._closing.enter_context(daemon)
        return daemon

    def wait_until_attached(self, queues=1, api="api.sock"):
        """Wait until the VMMs have found the daemon again, and so many queues of each device run.

        QEMU 7.2 never dials again if its server dies in the middle of the handshake."""
        deadline = time.monotonic() + ATTACH_SECONDS
        while True:
            status = json.loads(self.penstock("status", "--json", "--api", api).stdout)
            missing = [device for vm in status["vms"] for device in vm["devices"]
                       if not device["connected"] or device["running-queues"] < queues]
            if not missing:
                return
            tap.check(time.monotonic() < deadline, f"not attached {ATTACH_SECONDS} s after a restart: {missing}")
            time.sleep(0.1)

    def guest(self, disks, memory=256, **kwargs):
        """A booted guest. `disks` are sockets, or guest.Disk where QEMU's properties matter."""
        disks = [disk if isinstance(disk, Disk) else Disk(disk) for disk in disks]
        return self.boot(attach(disks, memory), **kwargs)

    def boot(self, arguments, **kwargs):
        """A booted guest.Guest with QEMU's `arguments`."""
        return self._closing.enter_context(Guest(arguments, **kwargs))

    def penstock(self, *arguments, timeout=30, **kwargs):
        """Run penstock to its end; the subprocess.CompletedProcess, with text output."""
        return subprocess.run([PENSTOCK, *map(str, arguments)], cwd=self.directory, text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout, **kwargs)
