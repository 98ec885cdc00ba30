# SPDX-License-Identifier: BSD-3-Clause
"""An NBD server that may lie, forget and die.

    python3 nbd_server.py --socket PATH --image FILE [--size BYTES] [--fault FAULT [--times N]] [--flags ...]

What is written is in its memory until a FLUSH, or FUA, brings it into the image: who kills it takes the rest away, as
the loss of power does with a real one. FAULT is one of FAULTS; it is done on the first N connections (all of them if
N is 0), after AFTER good replies where it is about replies. The protocol: doc/proto.md of the NBD project, simple
replies only.
"""

import argparse
import os
import socket
import struct
import threading
import time

FAULTS = ("none", "magic", "mute", "hang-up", "go-mute", "reply-magic", "reply-handle", "cut-reply", "no-reply", "shutdown",
          "errors", "blocks")
NBDMAGIC, IHAVEOPT, REPLY_OPTION = 0x4e42444d41474943, 0x49484156454f5054, 0x3e889045565a9
REQUEST, REPLY = 0x25609513, 0x67446698
OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_INFO, OPT_GO = 1, 2, 3, 6, 7
ACK, SERVER, INFO, UNSUP, UNKNOWN = 1, 2, 3, 0x80000001, 0x80000006
READ, WRITE, DISC, FLUSH, TRIM, ZEROES = 0, 1, 2, 3, 4, 6
BLOCK = 512
EIO, ESHUTDOWN = 5, 108


class Gone(Exception):
    """The connection is over."""


class Store:
    """Bytes: the image, and what is newer in memory, by block."""

    def __init__(self, path, size, slow):
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if size:
            os.ftruncate(self.file, size)
        self.size = os.fstat(self.file).st_size
        self.newer = {}
        self.slow = slow
        self.lock = threading.Lock()

    def read(self, offset, length):
        with self.lock:
            data = bytearray(os.pread(self.file, length, offset))
            for start in range(0, length, BLOCK):
                newer = self.newer.get((offset + start) // BLOCK)
                if newer is not None:
                    data[start:start + BLOCK] = newer
            return bytes(data)

    def write(self, offset, data, fua):
        with self.lock:
            for start in range(0, len(data), BLOCK):
                block = (offset + start) // BLOCK
                if fua:
                    self.newer.pop(block, None)
                else:
                    self.newer[block] = data[start:start + BLOCK]
            if fua:
                os.pwrite(self.file, data, offset)

    def flush(self):
        time.sleep(self.slow)
        with self.lock:
            for block, data in self.newer.items():
                os.pwrite(self.file, data, block * BLOCK)
            self.newer.clear()


class Connection:
    """One client."""

    def __init__(self, peer, store, arguments, fault):
        self.peer, self.store, self.arguments, self.fault = peer, store, arguments, fault
        self.replies = 0

    def take(self, length):
        data = b""
        while len(data) < length:
            more = self.peer.recv(length - len(data))
            if not more:
                raise Gone
            data += more
        return data

    def option_reply(self, option, kind, data=b""):
        self.peer.sendall(struct.pack(">QIII", REPLY_OPTION, option, kind, len(data)) + data)

    def shake_hands(self):
        if self.fault == "hang-up":
            raise Gone
        if self.fault == "mute":
            time.sleep(3600)
        self.peer.sendall(struct.pack(">QQH", NBDMAGIC + (self.fault == "magic"), IHAVEOPT, 3))
        self.take(4)
        while True:
            _, option, length = struct.unpack(">QII", self.take(16))
            data = self.take(length)
            if option in (OPT_GO, OPT_INFO):
                if self.fault == "go-mute":
                    time.sleep(3600)
                name = data[4:4 + struct.unpack(">I", data[:4])[0]].decode()
                if name != self.arguments.export:
                    self.option_reply(option, UNKNOWN)
                    continue
                self.option_reply(option, INFO, struct.pack(">HQH", 0, self.store.size, self.arguments.flags))
                blocks = self.arguments.blocks if self.fault == "blocks" else None
                if blocks:
                    self.option_reply(option, INFO, struct.pack(">HIII", 3, *blocks))
                self.option_reply(option, ACK)
                if option == OPT_GO:
                    return
            elif option == OPT_LIST:
                name = self.arguments.export.encode()
                self.option_reply(option, SERVER, struct.pack(">I", len(name)) + name)
                self.option_reply(option, ACK)
            elif option == OPT_ABORT:
                raise Gone
            else:
                self.option_reply(option, UNSUP)

    def reply(self, handle, error=0, data=b""):
        self.replies += 1
        if self.fault != "none" and self.replies > self.arguments.after:
            if self.fault == "no-reply":
                return
            if self.fault == "shutdown":
                error, data = ESHUTDOWN, b""
            if self.fault == "errors":
                error, data = EIO, b""
            header = struct.pack(">IIQ", REPLY + (self.fault == "reply-magic"), error,
                                 handle + 7777 * (self.fault == "reply-handle"))
            if self.fault == "cut-reply":
                self.peer.sendall((header + data)[:9 + len(data) // 2])
                raise Gone
            self.peer.sendall(header + data)
            return
        self.peer.sendall(struct.pack(">IIQ", REPLY, error, handle) + data)

    def serve(self):
        self.shake_hands()
        while True:
            _, flags, kind, handle, offset, length = struct.unpack(">IHHQQI", self.take(28))
            if kind == DISC:
                return
            data = self.take(length) if kind == WRITE else b""
            answer = b""
            if kind == READ:
                answer = self.store.read(offset, length)
            elif kind == FLUSH:
                self.store.flush()
            elif kind in (WRITE, TRIM, ZEROES):
                self.store.write(offset, data or bytes(length), flags & 1)
            self.reply(handle, data=answer)

    def run(self):
        try:
            self.serve()
        except (Gone, OSError):
            pass
        self.peer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--image", required=True)
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--export", default="")
    parser.add_argument("--fault", choices=FAULTS, default="none")
    parser.add_argument("--times", type=int, default=0)
    parser.add_argument("--after", type=int, default=0)
    parser.add_argument("--slow", type=float, default=0, help="seconds of a flush")
    # HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, CAN_MULTI_CONN
    parser.add_argument("--flags", type=lambda text: int(text, 0), default=0x1 | 0x4 | 0x8 | 0x20 | 0x40)
    parser.add_argument("--blocks", type=lambda text: tuple(map(int, text.split(","))))
    arguments = parser.parse_args()
    store = Store(arguments.image, arguments.size, arguments.slow)
    if os.path.exists(arguments.socket):
        os.unlink(arguments.socket)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(arguments.socket + ".new")
        listener.listen(16)
        os.rename(arguments.socket + ".new", arguments.socket)
        count = 0
        while True:
            peer, _ = listener.accept()
            bad = not arguments.times or count < arguments.times
            count += 1
            connection = Connection(peer, store, arguments, arguments.fault if bad else "none")
            threading.Thread(target=connection.run, daemon=True).start()


if __name__ == "__main__":
    main()
