#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Does what docs/adding-a-layer.md and docs/adding-a-packet-layer.md say, each in a copy of the tree.

A guide marks its blocks of code:

    <!-- file: PATH -->   the block is the next piece of that file
    <!-- edit: PATH -->   the block is a diff; its old lines stand in the file once (indentation aside)
    <!-- run -->          lines that begin with `$ ` are run, and must succeed; the lines after
                          one must stand in what it prints, in that order
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import tap

GUIDES = ("adding-a-layer.md", "adding-a-packet-layer.md")
BLOCK = re.compile(r"<!-- (file|edit|run)(?:: (\S+))? -->\n```\w+\n(.*?)```\n", re.DOTALL)
COPIED = ("meson.build", "meson_options.txt", "LICENSE", "src", "docs", "systemd", "completion", "tests", "scripts")
SECONDS = 200


def blocks(guide):
    text = (ROOT / "docs" / guide).read_text()
    found = [match.groups() for match in BLOCK.finditer(text)]
    tap.equal(len(found), text.count("<!-- "), "blocks of code under marks")
    return found


def apply(path, diff):
    lines = diff.splitlines()
    old = [line[1:].strip() for line in lines if line[0] in " -"]
    have = path.read_text().splitlines()
    places = [at for at in range(len(have) - len(old) + 1)
              if [line.strip() for line in have[at:at + len(old)]] == old]
    tap.equal(len(places), 1, f"places in {path.name} for\n{diff}")
    kept = iter(have[places[0]:places[0] + len(old)])
    new = []
    for line in lines:
        if line[0] == "+":
            new.append(line[1:])
        elif line[0] == " ":
            new.append(next(kept))
        else:
            next(kept)
    have[places[0]:places[0] + len(old)] = new
    path.write_text("\n".join(have) + "\n")


def run(directory, block):
    commands = []
    for line in block.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], []))
        else:
            commands[-1][1].append(line)
    # Without sanitizers and optimization, so that it takes seconds.
    environment = {**os.environ, "CC": "cc", "CFLAGS": "-O0"}
    environment.pop("CMOCKA_MESSAGE_OUTPUT", None)
    for command, expected in commands:
        result = subprocess.run(command, shell=True, cwd=directory, env=environment, timeout=SECONDS, text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        tap.equal(result.returncode, 0, f"status of `{command}`, which printed\n{result.stdout}")
        rest = result.stdout
        for line in expected:
            tap.check(line in rest, f"`{command}` did not print {line!r} there, but\n{result.stdout}")
            rest = rest[rest.index(line) + len(line):]


for name in GUIDES:
    @tap.test(f"docs/{name} builds and works")
    def _(guide=name):
        with tempfile.TemporaryDirectory(prefix="penstock-guide-") as temporary:
            directory = Path(temporary)
            for name in COPIED:
                source = ROOT / name
                if source.is_dir():
                    shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("corpus", "__pycache__"))
                elif source.exists():
                    shutil.copy(source, directory / name)
            for kind, path, block in blocks(guide):
                if kind == "file":
                    with open(directory / path, "a") as file:
                        file.write(block)
                elif kind == "edit":
                    apply(directory / path, block)
                else:
                    run(directory, block)


tap.main()
