# SPDX-License-Identifier: BSD-3-Clause
"""A penstock process: start it, know when it is ready, stop it, kill it, start it again."""

import os
import select
import signal
import socket
import subprocess
import tempfile
import time


class DaemonError(Exception):
    """penstock did not do as asked; the text ends with the last lines of its log."""


class Daemon:
    """penstock with the given arguments. Leaving the `with` block kills it if it still runs.

    Its log goes to the file `log`; readiness is what it reports by sd_notify."""

    def __init__(self, binary, *arguments, log, cwd=None, env=None):
        self.command = [str(binary), *map(str, arguments)]
        self.log = log
        self.cwd = cwd
        self.env = {**os.environ, **(env or {})}
        self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()

    def start(self, timeout=30):
        """Start it and wait until it is ready."""
        with tempfile.TemporaryDirectory(prefix="penstock-notify-") as directory, \
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, \
                open(self.log, "ab") as log:
            self.env["NOTIFY_SOCKET"] = os.path.join(directory, "notify")
            notify.bind(self.env["NOTIFY_SOCKET"])
            try:
                self.process = subprocess.Popen(self.command, cwd=self.cwd, env=self.env,
                                                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            except FileNotFoundError:
                raise DaemonError(f"there is no {self.command[0]}; `make` builds it") from None
            deadline = time.monotonic() + timeout
            while True:
                if select.select([notify], [], [], 0.1)[0] and b"READY=1" in notify.recv(4096):
                    return self
                if self.process.poll() is not None:
                    raise DaemonError(f"{self} ended with status {self.process.returncode}{self.last_lines()}")
                if time.monotonic() > deadline:
                    self.kill()
                    raise DaemonError(f"{self} was not ready in {timeout} s{self.last_lines()}")

    def stop(self, timeout=30):
        """SIGTERM; its exit status (minus the signal's number if one ended it)."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise DaemonError(f"{self} did not end in {timeout} s after SIGTERM{self.last_lines()}") from None

    def kill(self):
        """SIGKILL, if it still runs."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)

    def running(self):
        return self.process.poll() is None

    def last_lines(self, count=15):
        try:
            with open(self.log, errors="replace") as log:
                return "".join(f"\n    {line.rstrip()}" for line in log.readlines()[-count:])
        except OSError:
            return ""

    def __str__(self):
        return " ".join(self.command)
