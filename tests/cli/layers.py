#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Layers that change while penstock runs, and the configuration as it now is: stack, insert-layer, remove-layer, move-layer,
set-layer, add-leg, remove-leg, config, and the routes behind them."""

import json
import re
import subprocess
import threading
import time

from cli_checks import accepted, refused, tap
from lab import Lab

CONFIG = """\
disks:
  data:
    stack:
      - flaky: {delay: 1ms}
      - file: {path: disk.img}
  ram:
    stack: [memory: {size: 4M}]
vms:
  web:
    - {virtio-blk: data, socket: web.sock}
    - {virtio-scsi: [], socket: scsi.sock}
    - {ide: [{type: cdrom}], socket: ide.sock}
"""


class Running:
    """A daemon with CONFIG, and penstock commands on it."""

    def __init__(self, lab, text=CONFIG):
        self.lab = lab
        lab.image("disk.img", 8)
        self.daemon = lab.daemon("run", lab.write("penstock.yaml", text), "--api", "api.sock")

    def run(self, *arguments):
        return self.lab.penstock(*arguments, "--api", "api.sock")

    def ok(self, *arguments):
        return accepted(self.run(*arguments))

    def curl(self, method, path, body=None):
        """(HTTP status, JSON) of a request."""
        done = subprocess.run(["curl", "-sS", "--max-time", "20", "--unix-socket", self.lab.path("api.sock"), "-X", method,
                               "-w", r"\n%{http_code}", *(["--data", json.dumps(body)] if body is not None else []),
                               f"http://penstock{path}"], text=True, capture_output=True, timeout=30, check=True)
        text, _, code = done.stdout.rpartition("\n")
        return int(code), json.loads(text)


@tap.test("layers are inserted, reordered, reconfigured and removed; each command says what the stack is, and the pause")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        for arguments, stack in ((("insert-layer", "data", "0", "pass"), "0 pass, 1 flaky, 2 file"),
                                 (("move-layer", "data", "pass", "flaky"), "0 flaky, 1 pass, 2 file"),
                                 (("set-layer", "data", "flaky", "delay=", "errors=1%"), "0 flaky, 1 pass, 2 file"),
                                 (("insert-layer", "data", "file", "extent: {size: 16M}"),
                                  "0 flaky, 1 pass, 2 extent, 3 file"),
                                 (("remove-layer", "data", "flaky"), "0 pass, 1 extent, 2 file"),
                                 (("stack", "data", "pass", "file: {path: disk.img}"), "0 pass, 1 file")):
            said = penstock.ok(*arguments)
            tap.check(re.fullmatch(rf"disk data: {re.escape(stack)}; requests waited \d+\.\d{{3}} ms at most\n", said),
                      f"{arguments}: {said!r}")
        tap.equal(penstock.ok("stack", "data"), "- pass\n- file: {path: disk.img}\n", "penstock stack")
        disk = penstock.curl("GET", "/v1/disks/data")[1]
        tap.equal(disk["changes"]["count"], 6, "changes counted")
        tap.contains(penstock.curl("GET", "/v1/disks/data/stack")[1]["layers"], "0 pass, 1 file")


@tap.test("options of a layer that changes are those that are reported")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        penstock.ok("set-layer", "data", "flaky", "delay=", "jitter=2ms")
        tap.equal(penstock.ok("stack", "data"), "- flaky: {jitter: 2ms}\n- file: {path: disk.img}\n", "the stack")
        code, disk = penstock.curl("PATCH", "/v1/disks/data/layers/flaky", {"options": {"jitter": None, "delay": "3ms"}})
        tap.equal((code, disk["stack"][0]["flaky"]["delay"]), (200, "3ms"), "the answer to PATCH")
        tap.check("jitter" not in penstock.ok("stack", "data"), "what was taken away is there still")


@tap.test("what is wrong with a change is said, with the stack as it is, and nothing changes")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        now = "its stack is now: 0 flaky, 1 file"
        for arguments, status, names in (
                (["insert-layer", "data", "fiel", "pass"], 1, ["no layer 'fiel'", "did you mean 'file'?", now]),
                (["insert-layer", "data", "7", "pass"], 1, ["no layer 7", now]),
                (["insert-layer", "data", "0", "pas"], 1, ["no kind of layer 'pas'"]),
                (["insert-layer", "data", "0", "flaky: {dely: 1ms}"], 1, ["no option 'dely'", "did you mean 'delay'?"]),
                (["insert-layer", "data", "0", "flaky: {delay: soon}"], 1, ["delay", "soon"]),
                (["insert-layer", "data", "0", "null"], 1, ["null is a back-end"]),
                (["insert-layer", "data", "0", "[pass]"], 1, ["expected one"]),
                (["insert-layer", "data", "0", "{"], 2, ["LAYER:", "not YAML"]),
                (["insert-layer", "data", "0 1", "pass"], 2, ["no place in a stack"]),
                (["insert-layer", "daat", "0", "pass"], 1, ["no disk 'daat'", "did you mean 'data'?"]),
                (["remove-layer", "data", "file"], 1, ["file is the back-end", "penstock move"]),
                (["remove-layer", "data", "flaky", "--keep", "0"], 1, ["flaky has no legs"]),
                (["remove-layer", "data", "flaky", "--keep", "x"], 1, ["keep: 'x'"]),
                (["move-layer", "data", "file", "0"], 1, ["file ends a stack"]),
                (["move-layer", "data", "0", "1"], 1, ["file is a back-end", "must come last"]),
                (["set-layer", "data", "flaky", "delay"], 2, ["'delay' is not understood"]),
                (["set-layer", "data", "flaky", "=1"], 2, ["'=1' is not understood"]),
                (["set-layer", "data", "file", "path="], 1, ["'path' is missing"]),
                (["add-leg", "data", "file", "null"], 1, ["file has no legs"]),
                (["remove-leg", "data", "file/0"], 1, ["file has no legs"]),
                (["remove-leg", "data", "file"], 1, ["'file' names a layer"]),
                (["stack", "data", "pass"], 1, ["pass is not a back-end"]),
                (["stack", "data", "file: {path: gone.img}"], 1, ["would find other data there", "penstock move"]),
                (["stack", "data", "memory: {size: 8M}"], 1, ["would find other data there", "penstock move"])):
            refused(penstock.run(*arguments), status, *names)
        tap.equal(penstock.ok("stack", "data"), "- flaky: {delay: 1ms}\n- file: {path: disk.img}\n", "the stack afterwards")
        tap.equal(penstock.curl("GET", "/v1/disks/data")[1]["changes"]["count"], 0, "changes counted")


@tap.test("layers that would cut a request into more parts than there is memory for are refused, at the start and at run time")
def _():
    with Lab() as lab:
        stack = "[memory: {size: 8M}]"
        for _ in range(3):
            stack = f"[concat: {{legs: {stack}}}]"
        config = "api: api.sock\ndisks: {d: {stack: STACK}}\nvms: {v: [{virtio-blk: d, socket: s}]}\n"
        caches = "cache: {size: 1M}, " * 2
        refused(lab.penstock("run", lab.write("c.yaml", config.replace("STACK", "[" + caches + stack[1:]))), 1,
                "disk 'd'", "could cut a request into")
        lab.daemon("run", lab.write("c.yaml", config.replace("STACK", stack)))
        accepted(lab.penstock("insert-layer", "d", "0", "cache: {size: 1M}", "--api", "api.sock"))
        before = accepted(lab.penstock("stack", "d", "--api", "api.sock"))
        done = lab.penstock("insert-layer", "d", "0", "cache: {size: 1M}", "--api", "api.sock")
        refused(done, 1, "could cut a request into")
        tap.equal(accepted(lab.penstock("stack", "d", "--api", "api.sock")), before, "the stack afterwards")


@tap.test("bodies of the routes that change layers are checked, and answered with the status that fits")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        for method, path, body, wanted in (
                ("PUT", "stack", {"stack": "null"}, 400), ("PUT", "stack", {}, 400), ("PUT", "stack", {"stack": []}, 400),
                ("PUT", "stack", {"stack": [5]}, 400), ("PUT", "stack", {"stack": ["null"], "x": 1}, 400),
                ("POST", "layers/0", {"layer": {"a": 1, "b": 2}}, 400), ("POST", "layers/0", {"layer": 7}, 400),
                ("POST", "layers/a%2fb", {"layer": "pass"}, 404), ("POST", "layers", {"layer": "pass"}, 404),
                ("DELETE", "layers/9", None, 404), ("DELETE", "layers/flaky", {"x": 1}, 400),
                ("PATCH", "layers/flaky", {"options": {}}, 400), ("PATCH", "layers/flaky", {"options": {"delay": []}}, 400),
                ("POST", "order", {"from": "0"}, 400), ("POST", "legs/file", {"leg": []}, 400),
                ("GET", "move", None, 404), ("PATCH", "move", {"limit": "1M"}, 404), ("DELETE", "move", None, 404),
                ("POST", "move", {}, 400), ("POST", "move", {"to": "nul"}, 400),
                ("POST", "move", {"to": "null", "limit": "much"}, 400)):
            code, answer = penstock.curl(method, f"/v1/disks/data/{path}", body)
            tap.equal(code, wanted, f"answer to {method} {path} {body}, which said {answer}")
            tap.check(answer.get("error"), f"no error text in {answer}")
        tap.equal(penstock.curl("PUT", "/v1/disks/none/stack", {"stack": ["null"]})[0], 404, "answer for a disk that is not")
        tap.equal(penstock.ok("stack", "data"), "- flaky: {delay: 1ms}\n- file: {path: disk.img}\n", "the stack afterwards")


@tap.test("PUT of what GET answers changes nothing: a memory disk keeps its bytes' layer, grown as it is")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        penstock.ok("resize", "ram", "16M")
        stack = penstock.curl("GET", "/v1/disks/ram/stack")[1]["stack"]
        tap.equal(stack, [{"memory": {"size": "16M"}}], "the stack of a disk that has grown")
        code, disk = penstock.curl("PUT", "/v1/disks/ram/stack", {"stack": stack})
        tap.equal((code, disk["size"]), (200, 16 << 20), "the answer to PUT")


@tap.test("an image whose size is an option grows, and starts with the size it has then")
def _():
    with Lab() as lab:
        penstock = Running(lab, CONFIG.replace("path: disk.img", "path: disk.img, size: 8M"))
        penstock.ok("resize", "data", "24M")
        tap.contains(penstock.ok("config"), "- file: {path: disk.img, size: 24M}")
        lab.write("now.yaml", penstock.ok("config"))
        tap.equal(penstock.daemon.stop(), 0, "exit status")
        penstock.daemon = lab.daemon("run", "now.yaml")
        tap.equal(penstock.curl("GET", "/v1/disks/data")[1]["size"], 24 << 20, "the size")


@tap.test("/metrics tells of changes and pauses")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        penstock.ok("insert-layer", "data", "0", "pass")
        text = subprocess.run(["curl", "-sS", "--max-time", "20", "--unix-socket", lab.path("api.sock"),
                               "http://penstock/metrics"], text=True, capture_output=True, timeout=30, check=True).stdout
        tap.contains(text, 'penstock_disk_changes_total{disk="data"} 1\n', 'penstock_disk_changes_total{disk="ram"} 0\n',
                     'penstock_disk_change_pause_seconds_count{disk="data"} 1\n',
                     'penstock_disk_change_longest_pause_seconds{disk="data"} 0.0')


# --- the configuration as it now is --------------------------------------------

def report(penstock):
    """What is served, without what differs from run to run."""
    status = json.loads(penstock.ok("status", "--json"))
    for disk in status["disks"]:
        for gone in ("changes", "move"):
            disk.pop(gone, None)
        for layer in disk["stack"]:
            for options in layer.values():
                for gone in ("create", "size"):
                    options.pop(gone, None)
    devices = [{name: device[name] for name in ("name", "socket", "units", "free-units")}
               for vm in status["vms"] for device in vm["devices"]]
    for device in devices:
        device["units"] = [(unit["unit"], unit["type"], unit.get("disk")) for unit in device["units"]]
    return sorted(status["disks"], key=lambda disk: disk["name"]), devices


def change_everything(penstock):
    """Disks that come, go, grow and have other layers; units that come, change and go."""
    lab = penstock.lab
    lab.image("cd.iso", 1)
    penstock.ok("add-disk", "more", "{cache: writethrough, stack: [file: {path: more.img, create: true, size: 4M}]}")
    penstock.ok("add-disk", "gone", "{stack: ['null']}")
    penstock.ok("add-disk", "odd name".replace(" ", "-"), "{size: 1M, block-size: 4096, stack: ['null': {size: 8M}]}")
    penstock.ok("resize", "data", "16M")
    penstock.ok("insert-layer", "data", "0", "pass")
    penstock.ok("set-layer", "data", "flaky", "delay=", "errors=0.5", "ops=flush")
    penstock.ok("attach", "web", "virtio-scsi0/3:0", "more")
    penstock.ok("attach", "web", "virtio-scsi0/5:0", "odd-name")
    penstock.ok("attach", "web", "virtio-scsi0/4:0", "ram")
    penstock.ok("detach", "web", "virtio-scsi0/4:0")
    penstock.ok("insert", "web", "ide0/primary-master", "--iso", "cd.iso")
    penstock.ok("remove-disk", "gone")
    penstock.ok("remove-disk", "ram")


@tap.test("penstock config prints what check accepts, and what starts with it reports the same")
def _():
    with Lab() as lab:
        penstock = Running(lab)
        change_everything(penstock)
        text, before = penstock.ok("config"), report(penstock)
        tap.equal(json.loads(penstock.ok("config", "--json")), penstock.curl("GET", "/v1/config")[1], "config --json")
        tap.equal(penstock.daemon.stop(), 0, "exit status")
        tap.check("create" not in text, f"an image that is there would be made again:\n{text}")
        lab.write("now.yaml", text)
        tap.equal(accepted(lab.penstock("check", "now.yaml")), "", "what check says")
        penstock.daemon = lab.daemon("run", "now.yaml")
        tap.equal(report(penstock), before, "the report of what runs from it")
        tap.equal(penstock.ok("config"), text, "and its configuration")


# --- the state file --------------------------------------------------------------

STATE = "state: state.yaml\n" + CONFIG


@tap.test("with a state file a restart, and a start after kill -9, come back to what was changed")
def _():
    with Lab() as lab:
        penstock = Running(lab, STATE)
        tap.check(not lab.path("state.yaml").exists(), "there is a state file before anything was changed")
        change_everything(penstock)
        before = report(penstock)
        penstock.daemon.kill()
        penstock.daemon = lab.daemon("run", "penstock.yaml", "--api", "api.sock")
        tap.equal(report(penstock), before, "the report after kill -9")
        penstock.ok("remove-layer", "data", "pass")
        before = report(penstock)
        tap.equal(penstock.daemon.stop(), 0, "exit status")
        penstock.daemon = lab.daemon("run", "penstock.yaml", "--api", "api.sock")
        tap.equal(report(penstock), before, "the report after a restart")
        tap.equal(lab.path("state.yaml").stat().st_mode & 0o777, 0o600, "mode of the state file")
        tap.check(not lab.path("state.yaml.new").exists(), "the temporary file was left")


@tap.test("a disk that is edited after it was changed is not served until the two agree; others are")
def _():
    with Lab() as lab:
        penstock = Running(lab, STATE)
        penstock.ok("insert-layer", "data", "0", "pass")
        penstock.ok("remove-disk", "ram")
        tap.equal(penstock.daemon.stop(), 0, "exit status")
        done = lab.penstock("check", "penstock.yaml")
        tap.equal(done.returncode, 0, "status of check")
        tap.contains(done.stderr, "penstock.yaml:3: warning: disk 'data' was changed while penstock ran",
                     "penstock.yaml:7: warning: disk 'ram' was removed while penstock ran")
        lab.write("edited.yaml", STATE.replace("delay: 1ms", "delay: 9ms"))
        for command in ("check", "run"):
            refused(lab.penstock(command, "edited.yaml"), 2, "edited.yaml:3: disk 'data' was changed while penstock ran",
                    "state.yaml:", "take the disk out of there")
        # The user writes what is so: the two agree, and the entry is no longer needed.
        lab.write("agreed.yaml", STATE.replace("      - flaky", "      - pass\n      - flaky"))
        done = lab.penstock("check", "agreed.yaml")
        tap.equal((done.returncode, "'data'" in done.stderr), (0, False), f"check of what agrees ({done.stderr})")
        # Formatting and order of options are no edit.
        lab.write("same.yaml", STATE.replace("- flaky: {delay: 1ms}", "- flaky:\n          delay: '1ms'  # slow"))
        tap.equal(lab.penstock("check", "same.yaml").returncode, 0, "status of check of the same in other words")
        # A disk that is gone from the configuration is gone.
        lab.write("less.yaml", "state: state.yaml\ndisks: {ram: {stack: [memory]}}\nvms: {v: [{virtio-blk: ram, socket: s}]}\n")
        tap.contains(lab.penstock("check", "less.yaml").stderr, "warning: disk 'data' is not in the configuration any more")


@tap.test("a device that is edited after it was changed is as edited; a disk that was added stays out of the way")
def _():
    with Lab() as lab:
        penstock = Running(lab, STATE)
        penstock.ok("add-disk", "more", "{stack: ['null']}")
        penstock.ok("attach", "web", "virtio-scsi0/3:0", "more")
        tap.equal(penstock.daemon.stop(), 0, "exit status")
        lab.write("edited.yaml", STATE.replace("virtio-scsi: []", "virtio-scsi: [{disk: ram, target: 1}]"))
        done = lab.penstock("check", "edited.yaml")
        tap.equal(done.returncode, 0, "status of check")
        tap.contains(done.stderr, "virtio-scsi0 was changed here after")
        lab.write("taken.yaml", STATE.replace("  ram:", "  more: {stack: [memory]}\n  ram:"))
        refused(lab.penstock("check", "taken.yaml"), 2, "disk 'more' was changed while penstock ran")


@tap.test("a state file that cannot be read or written is said so")
def _():
    with Lab() as lab:
        lab.image("disk.img", 8)
        lab.write("penstock.yaml", STATE)
        for text, names in (("{", ["state.yaml:", "not YAML"]), ("disks: {}\n", ["state.yaml", "version"]),
                            ("version: 1\ndisks: {data: {configured: 1}}\n", ["state.yaml:2", "data", "now"]),
                            ("version: 1\nvms: {web: {virtio-blk0: {configured: 1}}}\n", ["state.yaml:2", "units"]),
                            ("version: 1\ndisks: {x: {now: {stack: [nul]}}}\n", ["no layer or back-end 'nul'"]),
                            ("version: 2\n", ["version: 1"])):
            lab.write("state.yaml", text)
            refused(lab.penstock("check", "penstock.yaml"), 2, *names)
        for text in ("version: 1\n", "version: 1\ndisks:\nvms:\n", "version: 1\ndisks: []\nvms: x\n"):
            lab.write("state.yaml", text)
            tap.check(lab.penstock("check", "penstock.yaml").returncode in (0, 2), "it died")
        refused(lab.penstock("run", "penstock.yaml", "--state", "nowhere/state.yaml"), 1, "state:", "nowhere")
        lab.write("state.yaml", "version: 1\n")
        penstock = Running(lab, STATE)
        lab.path("state.yaml.new").mkdir()
        refused(penstock.run("insert-layer", "data", "0", "pass"), 1, "it is changed, but a restart will not know of it")
        tap.contains(penstock.ok("stack", "data"), "- pass")
        lab.path("state.yaml.new").rmdir()
        penstock.ok("resize", "data", "16M")
        tap.contains(lab.path("state.yaml").read_text(), "- pass")


@tap.test("a state file is one penstock's alone, until that ends, however it ends")
def _():
    with Lab() as lab:
        penstock = Running(lab, STATE)
        penstock.ok("remove-disk", "ram")
        # Nothing but the file is common to the two.
        lab.write("other.yaml", "state: state.yaml\ndisks: {own: {stack: [memory: {size: 1M}]}}\n"
                  "vms: {v: [{virtio-blk: own, socket: s}]}\n")
        done = lab.penstock("run", "other.yaml", timeout=90)
        refused(done, 1, "state: state.yaml is in use by another penstock", "state.yaml.lock")
        tap.check(not lab.path("s").exists(), "it has made sockets")
        refused(lab.penstock("run", "other.yaml", "--state", lab.path("state.yaml"), timeout=90), 1, "in use by another penstock")
        done = lab.penstock("check", "other.yaml")
        tap.equal((done.returncode, "in use" in done.stderr), (0, False), f"check ({done.stderr})")
        penstock.ok("add-disk", "more", "{stack: ['null']}")
        # The next one waits for the end of the first, and goes on from what that changed last.
        told = threading.Event()
        threading.Timer(2, lambda process: (told.set(), process.terminate()), [penstock.daemon.process]).start()
        first, penstock.daemon = penstock.daemon, lab.daemon("run", "penstock.yaml", "--api", "api.sock")
        tap.check(told.is_set(), "it did not wait")
        tap.equal(first.process.wait(30), 0, f"exit status {first.last_lines()}")
        tap.equal({disk["name"] for disk in report(penstock)[0]}, {"data", "more"}, "disks")
        penstock.daemon.kill()
        tap.check(lab.path("state.yaml.lock").exists(), "there is no file to lock")
        # A lock that was left behind would end it.
        penstock.daemon = lab.daemon("run", "penstock.yaml", "--api", "api.sock")
        penstock.ok("remove-disk", "more")


tap.main()
