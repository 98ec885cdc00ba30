#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Media and units that change while penstock runs, without a guest: insert, eject, attach, detach."""

import json

from cli_checks import accepted, refused, tap
from lab import Lab

CONFIG = """\
disks:
  root: {stack: [file: {path: root.img}]}
  data: {stack: [file: {path: data.img}]}
  tools: {stack: [iso: {path: tools.iso}]}
  both: {shared: true, stack: [null]}
vms:
  web:
    - {virtio-scsi: [root, {disk: tools, target: 4}, {type: cdrom, target: 5}], socket: web.sock, units: 6}
  db:
    - {virtio-scsi: [{disk: both, lun: 3}], socket: db.sock}
"""


class Api:
    """A daemon with CONFIG, and the commands that change it."""

    def __init__(self, lab):
        self.lab = lab
        lab.image("root.img", 8)
        lab.image("data.img", 16)
        lab.image("tools.iso", 1)
        lab.image("other.iso", 2)
        self.daemon = lab.daemon("run", lab.write("units.yaml", CONFIG), "--api", "api.sock")

    def __call__(self, *words):
        """A command's result."""
        return self.lab.penstock(*words, "--api", "api.sock")

    def unit(self, vm, name):
        """What the API says of a unit of the VM's adapter; None where there is none."""
        status = json.loads(accepted(self("status", "--json")))
        device = next(entry["devices"][0] for entry in status["vms"] if entry["name"] == vm)
        return next((unit for unit in device["units"] if unit["unit"] == name), None)


@tap.test("a drive is emptied and filled; its old disk can go then, and not before")
def _():
    with Lab() as lab:
        api = Api(lab)
        refused(api("remove-disk", "tools"), 1, "'tools' is in use", "virtio-scsi0/4:0")
        tap.contains(accepted(api("eject", "web", "virtio-scsi0/4:0")), "virtio-scsi0/4:0: empty")
        unit = api.unit("web", "4:0")
        tap.equal((unit["type"], unit.get("disk")), ("cdrom", None), "the emptied drive")
        tap.contains(accepted(api("eject", "web", "virtio-scsi0/4:0")), "empty")       # nothing to do
        tap.contains(accepted(api("insert", "web", "virtio-scsi0/5:0", "tools")), "disk tools")
        tap.equal(api.unit("web", "5:0")["disk"], "tools", "the other drive's disk")
        refused(api("insert", "web", "virtio-scsi0/4:0", "tools"), 1, "'tools' is a device of VM 'web' already")
        accepted(api("eject", "web", "virtio-scsi0/5:0", "--force"))
        accepted(api("remove-disk", "tools"))
        tap.equal(api.daemon.stop(), 0, "exit status")


@tap.test("insert --iso makes a disk of the image once, and finds it again")
def _():
    with Lab() as lab:
        api = Api(lab)
        for _ in range(2):
            tap.contains(accepted(api("insert", "web", "virtio-scsi0/4:0", "--iso", "other.iso")), "disk other.iso")
            accepted(api("eject", "web", "virtio-scsi0/4:0"))
        names = [disk["name"] for disk in json.loads(accepted(api("status", "--json")))["disks"]]
        tap.equal(names, ["root", "data", "tools", "both", "other.iso"], "disks")
        # Another image of that name is not taken for it.
        lab.path("more").mkdir()
        lab.image("more/other.iso", 1)
        refused(api("insert", "web", "virtio-scsi0/4:0", "--iso", "more/other.iso"), 1, "there is a disk 'other.iso'",
                "more/other.iso", "add-disk")
        accepted(api("insert", "web", "virtio-scsi0/4:0", "other.iso"))


@tap.test("units are attached where there is room, and detached")
def _():
    with Lab() as lab:
        api = Api(lab)
        tap.contains(accepted(api("status")), "free: 1:0 2:0 3:0")
        tap.contains(accepted(api("attach", "web", "virtio-scsi0/2:0", "data")), "disk data")
        tap.contains(accepted(api("status")), "free: 1:0 3:0")
        tap.equal(api.unit("web", "2:0")["disk"], "data", "the new unit's disk")
        refused(api("attach", "web", "virtio-scsi0/2:0", "both"), 1, "virtio-scsi0/2:0", "there already")
        refused(api("attach", "web", "virtio-scsi0/9:0", "both"), 1, "no unit '9:0'")
        refused(api("attach", "web", "virtio-scsi0/3:0", "data"), 1, "'data' is a device of VM 'web' already")
        refused(api("insert", "web", "virtio-scsi0/3:0", "both"), 1, "nothing is attached there")
        tap.contains(accepted(api("detach", "web", "virtio-scsi0/2:0")), "detached")
        tap.equal(api.unit("web", "2:0"), None, "the unit that went")
        refused(api("detach", "web", "virtio-scsi0/2:0"), 1, "nothing is attached there")
        tap.contains(accepted(api("attach", "web", "virtio-scsi0/2:0")), "empty")       # a drive
        tap.equal(api.unit("web", "2:0")["type"], "cdrom", "the empty drive's type")
        accepted(api("remove-disk", "data"))


@tap.test("a disk that two VMs may have is attached to both; a disk's medium is not taken out")
def _():
    with Lab() as lab:
        api = Api(lab)
        accepted(api("attach", "web", "virtio-scsi0/1:0", "both"))
        refused(api("attach", "db", "virtio-scsi0/1:0", "root"), 1, "'root' is a device of VM 'web' already")
        accepted(api("insert", "web", "virtio-scsi0/4:0", "tools"))
        accepted(api("attach", "db", "virtio-scsi0/1:0", "tools"))     # an ISO is read-only
        refused(api("eject", "web", "virtio-scsi0/0:0"), 1, "virtio-scsi0/0:0", "cannot be taken out")


@tap.test("status shows each unit of a device on a row of its own, with what it is and has")
def _():
    with Lab() as lab:
        api = Api(lab)
        rows = [line.split() for line in accepted(api("status")).splitlines()]
        for row in (["0:0", "disk", "root", "8.0M"], ["4:0", "cdrom", "tools", "1.0M"], ["5:0", "cdrom", "(empty)", "-"],
                    ["0:3", "disk", "both", "1.0G"]):
            tap.check(row in rows, f"no row {row} in {rows}")
        tap.equal([row[0] for row in rows if "virtio-scsi0" in row], ["web", "db"], "VMs of the devices' rows")


tap.main()
