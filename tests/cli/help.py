#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Help and usage: what penstock says of itself, and to somebody who mistypes."""

from cli_checks import COMMANDS, accepted, refused, tap
from lab import Lab


@tap.test("--help lists every command")
def _():
    with Lab() as lab:
        tap.contains(accepted(lab.penstock("--help")), *COMMANDS)


@tap.test("--version is one line with the name and a number")
def _():
    with Lab() as lab:
        text = accepted(lab.penstock("--version"))
        tap.equal(len(text.splitlines()), 1, "lines")
        tap.contains(text, "penstock")
        tap.check(any(letter.isdigit() for letter in text), f"no number in {text!r}")


for command in COMMANDS:
    @tap.test(f"{command} --help")
    def _(command=command):
        with Lab() as lab:
            tap.contains(accepted(lab.penstock(command, "--help")), f"penstock {command}")


@tap.test("serve --help lists the flags and the options")
def _():
    with Lab() as lab:
        tap.contains(accepted(lab.penstock("serve", "--help")), "--socket", "--api", "--loops", "--cpus",
                     "--engine", "--poll", "--log-level", "size", "block-size", "cache", "read-only", "queues",
                     "queue-size", "serial", "direct", "stack")


for name, options in (("file", ("path", "direct")), ("memory", ("size",)), ("null", ("size",)),
                      ("iso", ("path", "2,048")), ("flaky", ("errors", "delay", "seed")), ("pass", ())):
    @tap.test(f"help {name} describes it and its options")
    def _(name=name, options=options):
        with Lab() as lab:
            tap.contains(accepted(lab.penstock("help", name)), name, *options)


@tap.test("mistyped commands and flags are refused, with what was meant or where to look")
def _():
    with Lab() as lab:
        refused(lab.penstock("sreve"), 2, "sreve")
        tap.contains(lab.penstock("sreve").stderr, "serve")
        refused(lab.penstock("status", "--jsn"), 2, "--jsn")
        refused(lab.penstock("help", "nonesuch"), 2, "nonesuch")
        refused(lab.penstock(), 2, "penstock")


@tap.test("missing and surplus arguments are refused")
def _():
    with Lab() as lab:
        lab.image("disk.img", 1)
        refused(lab.penstock("serve"), 2, "PATH")
        refused(lab.penstock("serve", "disk.img"), 2, "socket")
        refused(lab.penstock("serve", "disk.img", "--socket"), 2, "--socket")
        refused(lab.penstock("check"), 2, "CONFIG")
        refused(lab.penstock("run", "a.yaml", "b.yaml"), 2, "b.yaml")
        refused(lab.penstock("resize", "data"), 2, "SIZE")
        refused(lab.penstock("qemu-args"), 2, "VM")


tap.main()
