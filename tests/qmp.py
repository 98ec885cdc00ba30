# SPDX-License-Identifier: BSD-3-Clause
"""QEMU's machine protocol, QMP: commands to a running QEMU, and its events."""

import json
import socket
import time


class QmpError(Exception):
    """QEMU refused a command, ended, or fell silent."""


class Qmp:
    """A connection to the socket of `-qmp unix:PATH,server=on,wait=off`."""

    def __init__(self, path, timeout=30):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        self._socket.connect(str(path))
        self._stream = self._socket.makefile("rw")
        self._events = []
        self._message()                             # its greeting
        self.execute("qmp_capabilities")

    def close(self):
        self._stream.close()
        self._socket.close()

    def execute(self, command, **arguments):
        """A command's result. `_` in an argument's name stands for `-`."""
        arguments = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._stream.flush()
        while True:
            message = self._message()
            if "event" in message:
                self._events.append(message)
            elif "error" in message:
                raise QmpError(f"{command}: {message['error']['desc']}")
            else:
                return message["return"]

    def wait_for(self, event, timeout=30):
        """The data of the next event of this name, waiting for it where it has not come yet."""
        deadline = time.monotonic() + timeout
        while True:
            for message in self._events:
                if message["event"] == event:
                    self._events.remove(message)
                    return message.get("data", {})
            if time.monotonic() > deadline:
                raise QmpError(f"no event {event} in {timeout} s")
            self._events.append(self._message())

    def _message(self):
        try:
            line = self._stream.readline()
        except TimeoutError:
            raise QmpError("QEMU says nothing") from None
        if not line:
            raise QmpError("QEMU has closed the connection")
        return json.loads(line)
