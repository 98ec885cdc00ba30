#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""NBD clients that break the protocol, or are slow, or die: each hurts itself only."""

import os
import socket
import struct
import subprocess
import time

from cli_checks import tap
from lab import MIB, Lab

import nbd_peer as nbd
from nbd_peer import Closed, Peer

CONFIG = """\
api: api.sock
disks:
  a:
    stack: [memory: {size: 64M}]
  b:
    stack: [memory: {size: 8M}]
nbd:
  - {socket: n.sock, read-only: false, connections: 6, timeout: 2s}
  - {socket: one.sock, disks: [b]}
"""


class Server(Lab):
    """A daemon with two exports; at the end it must be well and end well."""

    def __enter__(self):
        super().__enter__()
        self.server = self.daemon("run", self.write("c.yaml", CONFIG))
        return self

    def __exit__(self, kind, *rest):
        try:
            if kind is None:
                self.well()
                tap.equal(self.server.stop(), 0, "exit status")
        finally:
            super().__exit__(kind, *rest)

    def peer(self, name="n.sock", **kwargs):
        return Peer(self.path(name), **kwargs)

    def well(self):
        """Another client is served."""
        with self.peer() as peer:
            tap.equal(peer.go("b")[0], 8 * MIB, "size")
            tap.equal(peer.ask(nbd.WRITE, 0, 512, b"w" * 512), (0, b""), "a write")
            tap.equal(peer.ask(nbd.READ, 0, 512), (0, b"w" * 512), "a read")
            peer.request(nbd.DISC)


@tap.test("options: each is answered as the protocol has it, known or not, right or wrong")
def _():
    with Server() as lab, lab.peer() as peer:
        tap.equal(peer.greeting, b"NBDMAGICIHAVEOPT\0\3", "greeting")
        peer.flags()
        listed = peer.option(nbd.OPT_LIST)
        tap.equal([kind for kind, _ in listed], [nbd.REP_SERVER, nbd.REP_SERVER, nbd.REP_ACK], "LIST")
        tap.equal([data[4:5] for _, data in listed[:2]], [b"a", b"b"], "names")
        for what, wanted, number, data in (
                ("LIST with data", nbd.ERR_INVALID, nbd.OPT_LIST, b"x"),
                ("STARTTLS without keys", nbd.ERR_POLICY, nbd.OPT_STARTTLS, b""),
                ("an option that is unknown", nbd.ERR_UNSUP, 77, b"data"),
                ("INFO that is too short", nbd.ERR_INVALID, nbd.OPT_INFO, b"\0\0"),
                ("INFO whose name is longer than itself", nbd.ERR_INVALID, nbd.OPT_INFO, b"\xff\xff\xff\xf0a\0\0"),
                ("INFO with a tail", nbd.ERR_INVALID, nbd.OPT_INFO, nbd.export("a") + b"x"),
                ("INFO with fewer items than it says", nbd.ERR_INVALID, nbd.OPT_INFO, b"\0\0\0\1a\0\2\0\1"),
                ("INFO with a NUL in its name", nbd.ERR_INVALID, nbd.OPT_INFO, nbd.export(b"a\0")),
                ("INFO of nothing", nbd.ERR_UNKNOWN, nbd.OPT_INFO, nbd.export("nothing")),
                ("INFO of the only export of two", nbd.ERR_UNKNOWN, nbd.OPT_INFO, nbd.export("")),
                ("GO of nothing", nbd.ERR_UNKNOWN, nbd.OPT_GO, nbd.export("nothing")),
                ("contexts without structured replies", nbd.ERR_INVALID, nbd.OPT_SET_META, b"\0\0\0\1a\0\0\0\0"),
                ("an option of 20000 bytes", nbd.ERR_TOO_BIG, nbd.OPT_INFO, bytes(20000)),
                ("structured replies with data", nbd.ERR_INVALID, nbd.OPT_STRUCTURED, b"x"),
                ("structured replies", nbd.REP_ACK, nbd.OPT_STRUCTURED, b""),
                ("contexts", nbd.REP_ACK, nbd.OPT_SET_META, b"\0\0\0\1a\0\0\0\1\0\0\0\x0fbase:allocation"),
                ("contexts, cut off", nbd.ERR_INVALID, nbd.OPT_SET_META, b"\0\0\0\1a\0\0\0\2\0\0\0\x0fbase:allocation"),
                ("contexts of nothing", nbd.ERR_UNKNOWN, nbd.OPT_LIST_META, b"\0\0\0\1x\0\0\0\0")):
            tap.equal(peer.option(number, data)[-1][0], wanted, what)
        infos = dict((data[1], data[2:]) for kind, data in peer.option(nbd.OPT_INFO, nbd.export("a", 1, 2, 3))[:-1])
        tap.equal(infos[1], b"a", "INFO_NAME")
        tap.equal(struct.unpack(">III", infos[3]), (512, 4096, 32 * MIB), "INFO_BLOCK_SIZE")
        tap.contains(infos[2].decode(), "64M")
        tap.equal(peer.option(nbd.OPT_ABORT), [(nbd.REP_ACK, b"")], "ABORT")
        tap.check(peer.closed(), "ABORT did not close")


@tap.test("EXPORT_NAME: with and without padding; a name that is not there closes; the only export needs none")
def _():
    with Server() as lab:
        for flags, padding in ((3, 0), (1, 124), (0, 124)):
            with lab.peer("one.sock") as peer:
                peer.flags(flags).send(struct.pack(">QII", nbd.OPTION, nbd.OPT_EXPORT_NAME, 0))
                size, flags = struct.unpack(">QH", peer.take(10))
                tap.equal(size, 8 * MIB, "size")
                tap.check(flags & 2, "it is not read-only")
                tap.equal(peer.take(padding), bytes(padding), "padding")
                tap.equal(peer.ask(nbd.READ, 0, 1024)[0], 0, "a read")
                tap.equal(peer.ask(nbd.WRITE, 0, 512, bytes(512))[0], nbd.EPERM, "a write")
        with lab.peer() as peer:
            peer.flags().send(struct.pack(">QII", nbd.OPTION, nbd.OPT_EXPORT_NAME, 1) + b"x")
            tap.check(peer.closed(), "it goes on without an export")


@tap.test("requests: what cannot be is refused with the error that the protocol names, and the connection goes on")
def _():
    with Server() as lab:
        for structured in (False, True):
            with lab.peer() as peer:
                size, _ = peer.go("a", structured)
                for what, wanted, arguments in (
                        ("beyond the end", nbd.EINVAL, (nbd.READ, size, 512)),
                        ("across the end", nbd.EINVAL, (nbd.READ, size - 512, 1024)),
                        ("an offset that wraps", nbd.EINVAL, (nbd.READ, 2**64 - 512, 1024)),
                        ("half a block", nbd.EINVAL, (nbd.READ, 0, 256)),
                        ("between blocks", nbd.EINVAL, (nbd.READ, 256, 512)),
                        ("more than a payload", nbd.EOVERFLOW if structured else nbd.EINVAL, (nbd.READ, 0, 33 * MIB)),
                        ("a write beyond the end", nbd.ENOSPC, (nbd.WRITE, size, 512, bytes(512))),
                        ("a write of half a block", nbd.EINVAL, (nbd.WRITE, 0, 100, bytes(100))),
                        ("zeroes beyond the end", nbd.ENOSPC, (nbd.ZEROES, size, 512)),
                        ("a trim beyond the end", nbd.EINVAL, (nbd.TRIM, size, 512)),
                        ("a flush of a range", nbd.EINVAL, (nbd.FLUSH, 0, 512)),
                        ("BLOCK_STATUS, which nobody offered", nbd.EINVAL, (nbd.STATUS, 0, 512)),
                        ("a command that there is not", nbd.EINVAL, (4711, 0, 512)),
                        ("a flag that there is not", nbd.EINVAL, (nbd.READ, 0, 512, b"", 0x80)),
                        ("FAST_ZERO, which nobody offered", nbd.EINVAL, (nbd.ZEROES, 0, 512, b"", 16)),
                        ("DF of a write", nbd.EINVAL, (nbd.WRITE, 0, 512, bytes(512), nbd.DF))):
                    tap.equal(peer.ask(*arguments)[0], wanted, what)
                tap.equal(peer.ask(nbd.READ, 0, 0), (0, b""), "a read of nothing")
                tap.equal(peer.ask(nbd.READ, 0, 4096, flags=nbd.FUA | nbd.DF if structured else nbd.FUA), (0, bytes(4096)),
                          "a read")


@tap.test("writes, zeroes, trims and caching do what they say, of all sizes, also in pieces")
def _():
    with Server() as lab, lab.peer() as peer:
        peer.go("a", structured=True)
        data = os.urandom(20 * MIB)
        for start in (0, 512, 20 * MIB - 100 * 512):
            for length in (512, 4096, 65536 + 512, 256 * 1024, 300 * 1024, 3 * MIB):
                part = data[start:start + length]
                part += bytes(-len(part) % 512)
                tap.equal(peer.ask(nbd.WRITE, start, len(part), part, nbd.FUA)[0], 0, "a write")
                tap.equal(peer.ask(nbd.READ, start, len(part)), (0, part), f"{len(part)} bytes at {start}")
        tap.equal(peer.ask(nbd.WRITE, MIB, 20 * MIB, data), (0, b""), "a large write")
        tap.equal(peer.ask(nbd.CACHE, 0, 64 * MIB)[0], 0, "caching all")
        tap.equal(peer.ask(nbd.FLUSH)[0], 0, "a flush")
        tap.equal(peer.ask(nbd.ZEROES, 2 * MIB, MIB, flags=nbd.NO_HOLE)[0], 0, "zeroes")
        tap.equal(peer.ask(nbd.TRIM, 4 * MIB, MIB, flags=nbd.FUA)[0], 0, "a trim")
        tap.equal(peer.ask(nbd.READ, MIB, 3 * MIB), (0, data[:MIB] + bytes(MIB) + data[2 * MIB:3 * MIB]), "what is there")
        # One byte at a time, two requests long.
        for byte in struct.pack(">IHHQQI", 0x25609513, 0, nbd.WRITE, 1, 0, 512) + b"s" * 512 + \
                struct.pack(">IHHQQI", 0x25609513, 0, nbd.READ, 2, 0, 512):
            peer.send(bytes((byte,)))
        tap.equal([peer.answer(), peer.answer(512)], [(1, 0, b""), (2, 0, b"s" * 512)], "slow answers")


@tap.test("300 requests at once: all are answered, none waits for another")
def _():
    with Server() as lab, lab.peer() as peer:
        peer.go("a")
        peer.send(b"".join(struct.pack(">IHHQQI", 0x25609513, 0, nbd.READ, n, n * 512, 512) for n in range(300)))
        tap.equal(sorted(peer.answer(512)[0] for _ in range(300)), list(range(300)), "cookies")
        # Large ones share the memory of a connection.
        for n in range(6):
            peer.request(nbd.READ, n * 4 * MIB, 16 * MIB)
        for n in range(6):
            tap.equal(peer.answer(16 * MIB)[1], 0, "a large read")


@tap.test("a client that sends what is no request, or no option, is dropped, and only it")
def _():
    with Server() as lab, lab.peer() as good:
        good.go("a")
        for what, prepare, data in (
                ("flags that there are not", lambda peer: None, struct.pack(">I", 1 << 7)),
                ("no option", lambda peer: peer.flags(), b"GET / HTTP/1.1\r\n\r\n"),
                ("an option of 4 GiB", lambda peer: peer.flags(), struct.pack(">QII", nbd.OPTION, nbd.OPT_LIST, 2**32 - 1)),
                ("no request", lambda peer: peer.go("a"), b"x" * 28),
                ("a historic request", lambda peer: peer.go("a"), struct.pack(">IHHQQI", 0x12560953, 0, 0, 0, 0, 512))):
            with lab.peer() as peer:
                prepare(peer)
                peer.send(data)
                tap.check(peer.closed(), f"{what}: it is still connected")
        tap.equal(good.ask(nbd.READ, 0, 512)[0], 0, "the good one's read")


@tap.test("a client that does not say what it wants is dropped after the time-out; one that is served may idle")
def _():
    with Server() as lab, lab.peer() as good, lab.peer(timeout=10) as silent, lab.peer(timeout=10) as slow:
        good.go("a")
        slow.flags()
        begun = time.monotonic()
        slow.socket.settimeout(0.2)
        try:
            while time.monotonic() < begun + 10:
                slow.send(struct.pack(">QII", nbd.OPTION, 77, 0))
                slow.replies(77)
                time.sleep(0.1)
        except Closed:
            pass
        passed = time.monotonic() - begun
        tap.check(1 < passed < 6, f"dropped after {passed:.1f} s")
        tap.check(silent.closed(), "the silent one is still connected")
        time.sleep(0.5)
        tap.equal(good.ask(nbd.READ, 0, 512)[0], 0, "the idle one's read")


@tap.test("a client that haggles without end is dropped")
def _():
    with Server() as lab, lab.peer() as peer:
        peer.flags()
        try:
            for n in range(2000):
                peer.send(struct.pack(">QII", nbd.OPTION, nbd.OPT_LIST, 0))
                peer.replies(nbd.OPT_LIST)
        except Closed:
            tap.equal(n, 1000, "options that were answered")
            return
        raise tap.Failure("it may haggle for ever")


@tap.test("one connection too many is closed at once; when another goes there is room")
def _():
    with Server() as lab:
        peers = [lab.peer() for _ in range(5)]
        for peer in peers:
            peer.go("a")
        with lab.peer():
            try:
                lab.peer().socket.close()
                raise tap.Failure("a seventh connection was greeted")
            except Closed:
                pass
        for peer in peers:
            peer.socket.close()
        time.sleep(0.3)


@tap.test("a client that takes no answers waits for itself: others are served, and the daemon ends")
def _():
    with Server() as lab, lab.peer() as stuck:
        stuck.go("a")
        stuck.socket.settimeout(1)
        try:
            for n in range(1000):
                stuck.request(nbd.READ, 0, MIB)
        except TimeoutError:
            pass
        lab.well()


@tap.test("half-closed: what was asked is answered, then the server closes")
def _():
    with Server() as lab, lab.peer() as peer:
        peer.go("a")
        cookies = [peer.request(nbd.READ, 0, 65536) for _ in range(20)]
        peer.request(nbd.WRITE, 0, 4096, b"half of it")
        peer.socket.shutdown(socket.SHUT_WR)
        tap.equal(sorted(peer.answer(65536)[0] for _ in cookies), cookies, "answers")
        tap.check(peer.closed(), "it is still connected")


@tap.test("kill -9 of a client in the middle of a transfer, again and again")
def _():
    with Server() as lab:
        uri = f"nbd+unix:///a?socket={lab.path('n.sock')}"
        for n in range(8):
            with subprocess.Popen(["nbdcopy", "--connections=2", "--requests=64", *([uri, "null:"] if n % 2 else ["/dev/zero", uri])],
                                  stderr=subprocess.DEVNULL) as copy:
                time.sleep(0.02 + 0.015 * n)
                copy.kill()
        deadline = time.monotonic() + 10
        while '"connections": 0' not in connections(lab) and time.monotonic() < deadline:
            time.sleep(0.05)
        tap.contains(connections(lab), '"connections": 0')


def connections(lab):
    """What the status says of the first export."""
    text = lab.penstock("status", "--json", "--api", lab.path("api.sock")).stdout
    return text[text.index('"nbd"'):].split('"requests"')[0].split('"disks"')[1]


@tap.test("the daemon ends while clients read: they get whole answers or none")
def _():
    with Server() as lab:
        peers = [lab.peer() for _ in range(3)]
        for peer in peers:
            peer.go("a")
            for _ in range(50):
                peer.request(nbd.READ, 0, 65536)
        begun = time.monotonic()
        tap.equal(lab.server.stop(), 0, "exit status")
        tap.check(time.monotonic() - begun < 10, "it took its time")
        for peer in peers:
            answers = 0
            try:
                while True:
                    tap.equal(peer.answer(65536)[1], 0, "error")
                    answers += 1
            except Closed:
                pass
            tap.check(answers <= 50, f"{answers} answers to 50 requests")
            peer.socket.close()
        lab.server.start()


tap.main()
