# SPDX-License-Identifier: BSD-3-Clause
"""Tests that report in TAP.

    import tap

    @tap.test("a disk has a size")
    def _():
        tap.equal(size(), 4096, "the disk's size")

    tap.main()

A test fails by raising. `PROGRAM PATTERN...` runs the tests whose name contains one of the patterns.
"""

import signal
import sys
import traceback

_tests = []


class Failure(Exception):
    """A check did not hold."""


class Skip(Exception):
    """This machine cannot run the test; the text says why."""


def test(name):
    def register(function):
        _tests.append((name, function))
        return function
    return register


def check(condition, reason):
    """Fail with `reason` unless `condition` holds."""
    if not condition:
        raise Failure(reason)


def equal(got, wanted, what):
    check(got == wanted, f"{what}: got {got!r}, wanted {wanted!r}")


def contains(text, *wanted):
    """Every one of `wanted` (strings) stands in `text`."""
    for part in wanted:
        check(part in text, f"{part!r} is not in:\n{text}")


def main():
    # So that `with` blocks and finally clauses clean up when the runner's patience ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tests = [(name, function) for name, function in _tests
             if not sys.argv[1:] or any(pattern in name for pattern in sys.argv[1:])]
    print(f"1..{len(tests)}", flush=True)
    failed = 0
    for number, (name, function) in enumerate(tests, start=1):
        try:
            function()
        except Skip as reason:
            print(f"ok {number} - {name} # SKIP {reason}", flush=True)
        except Exception as error:
            failed += 1
            print(f"not ok {number} - {name}")
            text = str(error) if isinstance(error, Failure) else traceback.format_exc()
            print("".join(f"# {line}\n" for line in text.splitlines()), end="", flush=True)
        else:
            print(f"ok {number} - {name}", flush=True)
    sys.exit(1 if failed else 0)
