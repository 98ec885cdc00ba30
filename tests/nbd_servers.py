# SPDX-License-Identifier: BSD-3-Clause
"""NBD servers for tests of the nbd back-end: nbdkit, qemu-nbd, and our own (nbd_server.py), to be killed and started again."""

import contextlib
import signal
import subprocess
import sys
import time

import tap
from lab import ROOT


class Server:
    """A server process on a UNIX socket of the lab. Leaving the `with` block ends it."""

    def __init__(self, lab, *command, name="nbd"):
        self.lab, self.command = lab, [str(word).format(socket=lab.path(f"{name}.sock")) for word in command]
        self.socket = lab.path(f"{name}.sock")
        self.log = lab.path(f"{name}.log")
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self):
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            cwd=self.lab.directory, start_new_session=True)
        deadline = time.monotonic() + 10
        while not self.socket.is_socket():
            tap.check(self.process.poll() is None and time.monotonic() < deadline,
                      f"{self.command} does not start: {self.log.read_text()}")
            time.sleep(0.01)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def uri(self, export=""):
        return f"nbd+unix:///{export}?socket={self.socket}"


def nbdkit(lab, *words, name="nbd"):
    return Server(lab, "nbdkit", "--foreground", "--exit-with-parent", "--unix", "{socket}", *words, name=name)


def own(lab, *words, name="nbd"):
    return Server(lab, sys.executable, ROOT / "tests" / "nbd_server.py", "--socket", "{socket}", "--image", lab.path("own.img"), *words,
                  name=name)


def qemu_nbd(lab, format, image, *words, name="nbd"):
    return Server(lab, "qemu-nbd", "--persistent", "--socket", "{socket}", "--format", format, *words, image, name=name)
