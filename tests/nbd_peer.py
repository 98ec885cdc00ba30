# SPDX-License-Identifier: BSD-3-Clause
"""A client of NBD that says what a test wants it to, right or wrong."""

import socket
import struct

OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_STARTTLS, OPT_INFO, OPT_GO, OPT_STRUCTURED = 1, 2, 3, 5, 6, 7, 8
OPT_LIST_META, OPT_SET_META = 9, 10
REP_ACK, REP_SERVER, REP_INFO = 1, 2, 3
ERR_UNSUP, ERR_POLICY, ERR_INVALID, ERR_TLS_REQUIRED, ERR_UNKNOWN, ERR_TOO_BIG = (1 << 31 | n for n in (1, 2, 3, 5, 6, 9))
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
FUA, NO_HOLE, DF = 1, 2, 4
EPERM, EIO, EINVAL, ENOSPC, EOVERFLOW = 1, 5, 22, 28, 75
OPTION, OPTION_REPLY = 0x49484156454f5054, 0x3e889045565a9
SIMPLE, CHUNK = 0x67446698, 0x668e33ef


class Closed(Exception):
    """The server has closed the connection."""


class Peer:
    """A connection, up to and including the greeting."""

    def __init__(self, path, timeout=20):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        try:
            self.greeting = self.take(18)
        except Closed:
            self.socket.close()
            raise
        self.cookie = 0
        self.structured = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            raise Closed from None

    def take(self, size):
        data = bytearray()
        while len(data) < size:
            try:
                part = self.socket.recv(size - len(data))
            except ConnectionResetError:
                part = b""
            if not part:
                raise Closed
            data += part
        return bytes(data)

    def closed(self):
        """True if the server closes, within the time that the socket waits; what it sends before is dropped."""
        try:
            while self.socket.recv(1 << 16):
                pass
        except ConnectionResetError:
            pass
        except TimeoutError:
            return False
        return True

    # --- haggling ---

    def flags(self, value=3):
        self.send(struct.pack(">I", value))
        return self

    def option(self, number, data=b"", length=None):
        """Send an option; its replies, as (type, data), the last one an ACK or an error."""
        self.send(struct.pack(">QII", OPTION, number, len(data) if length is None else length) + data)
        return self.replies(number)

    def replies(self, number):
        found = []
        while not found or found[-1][0] in (REP_SERVER, REP_INFO):
            magic, option, kind, length = struct.unpack(">QIII", self.take(20))
            assert (magic, option) == (OPTION_REPLY, number), (hex(magic), option)
            found.append((kind, self.take(length)))
        return found

    def go(self, name="", structured=False, infos=()):
        """Haggle to the end; what the export is: (size, flags)."""
        self.flags()
        if structured:
            assert self.option(OPT_STRUCTURED) == [(REP_ACK, b"")]
            self.structured = True
        replies = self.option(OPT_GO, export(name, *infos))
        assert replies[-1][0] == REP_ACK, replies
        self.infos = {struct.unpack(">H", data[:2])[0]: data[2:] for kind, data in replies if kind == REP_INFO}
        return struct.unpack(">QH", self.infos[0])

    # --- requests ---

    def request(self, kind, offset=0, length=0, data=b"", flags=0, magic=0x25609513):
        """Send a request; its cookie."""
        self.cookie += 1
        self.send(struct.pack(">IHHQQI", magic, flags, kind, self.cookie, offset, length) + data)
        return self.cookie

    def answer(self, length=0):
        """The next answer: its cookie, its error, and its data: `length` bytes of a simple reply without error."""
        magic, = struct.unpack(">I", self.take(4))
        if magic == SIMPLE:
            error, cookie = struct.unpack(">IQ", self.take(12))
            return cookie, error, self.take(0 if error else length)
        assert magic == CHUNK, hex(magic)
        flags, kind, cookie, size = struct.unpack(">HHQI", self.take(16))
        data = self.take(size)
        assert flags == 1, flags
        if kind & 1 << 15:
            error, text = struct.unpack(">IH", data[:6])
            assert len(data) == 6 + text, data
            return cookie, error, data[6:]
        assert (kind == 0 and not data) or kind == 1, (kind, data)
        return cookie, 0, data[8:]

    def ask(self, kind, offset=0, length=0, data=b"", flags=0):
        """A request and its answer: error and data."""
        cookie = self.request(kind, offset, length, data, flags)
        got, error, data = self.answer(length if kind == READ else 0)
        assert got == cookie, (got, cookie)
        return error, data


def export(name, *infos):
    """The data of INFO and GO."""
    name = name.encode() if isinstance(name, str) else name
    return struct.pack(">I", len(name)) + name + struct.pack(f">H{len(infos)}H", len(infos), *infos)
