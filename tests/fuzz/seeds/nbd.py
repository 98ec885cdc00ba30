# SPDX-License-Identifier: BSD-3-Clause
"""NBD clients, honest and not; the format is told in nbd_fuzz.c."""

import struct

HAGGLED, STRUCTURED, BY_NAME = 1, 2, 4
EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED_REPLY, LIST_META, SET_META, EXTENDED = 1, 2, 3, 5, 6, 7, 8, 9, 10, 11
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
FLAGS = struct.pack(">I", 3)


def connection(data, how=0, piece=0):
    return bytes((how, piece)) + data


def option(number, data=b"", length=None):
    return b"IHAVEOPT" + struct.pack(">II", number, len(data) if length is None else length) + data


def export(name=b"d", *infos):
    return struct.pack(">I", len(name)) + name + struct.pack(f">H{len(infos)}H", len(infos), *infos)


def query(name, *queries):
    return struct.pack(">I", len(name)) + name + struct.pack(">I", len(queries)) + b"".join(
        struct.pack(">I", len(text)) + text for text in queries)


def request(kind, offset=0, length=0, data=b"", flags=0, cookie=7, magic=0x25609513):
    return struct.pack(">IHHQQI", magic, flags, kind, cookie, offset, length) + data


def seeds():
    options = [option(LIST), option(STRUCTURED_REPLY), option(INFO, export(b"d", 0, 1, 2, 3)),
               option(LIST_META, query(b"d")), option(SET_META, query(b"d", b"base:allocation", b"x:y")),
               option(STARTTLS), option(EXTENDED), option(99, b"abc"), option(GO, export(b"nothing"))]
    requests = [request(READ, 4096, 8192), request(WRITE, 0, 512, b"w" * 512, flags=1), request(FLUSH),
                request(TRIM, 0, 1 << 19, flags=1), request(ZEROES, 4096, 4096, flags=2), request(CACHE, 0, 1 << 20)]
    wrong = [request(READ, 1, 511), request(READ, 1 << 40, 512), request(READ, 0, 0), request(99), request(STATUS, 0, 512),
             request(WRITE, 1 << 40, 600, b"w" * 600), request(READ, 0, 0xfffffe00), request(TRIM, 0, 512, flags=0xfff0)]
    done = request(DISC)
    return {
        "options": connection(FLAGS + b"".join(options) + option(GO, export()) + b"".join(requests) + done),
        "options-slowly": connection(FLAGS + b"".join(options) + option(GO, export()) + done, piece=5),
        "export-name": connection(FLAGS + option(EXPORT_NAME, b"d") + b"".join(requests) + done),
        "zero-padding": connection(bytes(4) + option(EXPORT_NAME) + done),
        "abort": connection(FLAGS + option(ABORT)),
        "flags-unknown": connection(struct.pack(">I", 0xff) + option(LIST)),
        "option-too-big": connection(FLAGS + option(LIST, bytes(20000)) + option(ABORT)),
        "option-absurd": connection(FLAGS + option(LIST, length=0xffffffff)),
        "info-lengths": connection(FLAGS + option(INFO, struct.pack(">I", 0xfffffff0) + b"d" * 8)
                                   + option(INFO, export()[:-1]) + option(SET_META, query(b"d", b"q")[:-1])),
        "requests": connection(b"".join(requests) + done, HAGGLED),
        "requests-structured": connection(b"".join(requests) + done, HAGGLED | STRUCTURED),
        "requests-slowly": connection(b"".join(requests) + done, HAGGLED | BY_NAME, piece=11),
        "wrong": connection(b"".join(wrong) + done, HAGGLED | BY_NAME),
        "wrong-structured": connection(b"".join(wrong) + done, HAGGLED | STRUCTURED),
        "large": connection(request(READ, 0, 1 << 20) * 3 + request(CACHE, 0, 1 << 20) + done, HAGGLED | STRUCTURED),
        "half": connection(request(WRITE, 0, 65536, b"half"), HAGGLED),
        "magic": connection(request(READ, 0, 512, magic=0x25609514), HAGGLED),
        "many": connection(request(READ, 0, 512) * 140 + done, HAGGLED),
    }
