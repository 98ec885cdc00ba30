# SPDX-License-Identifier: BSD-3-Clause
"""A virtual machine whose disks are behind any of penstock's front-ends.

    machine = Machine(lab, {"root": lab.image("root.img", 64)}, [{"pvscsi": ["root"]}])
    guest = machine.boot(programs=["fio"])
    ...
    machine.stop()

Where another one follows in the same test, `with` ends penstock in any case.

Devices are written as in penstock's configuration. With $DEVICES=qemu the same machine has QEMU's own devices
of these kinds and no penstock: what a test then finds it expects wrongly of the guest.
"""

import contextlib
import json
import os
import re
import shlex
from pathlib import Path

import qemu11
import tap
from guest import qemu_binary
from qmp import Qmp

QEMUS_OWN = os.environ.get("DEVICES") == "qemu"

# Kind -> the modules with which a guest drives it.
MODULES = {"virtio-blk": (), "virtio-scsi": ("virtio_scsi",), "pvscsi": ("vmw_pvscsi",), "ide": ("ata_piix",)}
SCSI_MODULES = ("sd_mod", "sr_mod", "sg")
ON_VFIO_USER = ("pvscsi", "ide")
IDE_POSITIONS = ("primary-master", "primary-slave", "secondary-master", "secondary-slave")


class Machine:
    """Its disks and devices, penstock that serves them, and the guests that boot with them.

    `disks`: name -> path of an image (an ISO image if it ends in .iso), or a disk as in the configuration; those that
    no device has may be inserted or attached later. `own`: with QEMU's own devices."""

    def __init__(self, lab, disks, devices, memory=512, own=QEMUS_OWN):
        self.lab = lab
        self.own = own
        self.memory = memory
        self.disks = {name: disk if isinstance(disk, dict) else
                      {"stack": [{"iso" if str(disk).endswith(".iso") else "file": {"path": str(disk)}}]}
                      for name, disk in disks.items()}
        self.devices = [{**device} for device in devices]
        self.kinds = [next(iter(device)) for device in devices]
        self.daemon = None if own else self._serve()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.daemon:
            self.daemon.kill()

    # --- what QEMU is started with ------------------------------------------

    def qemu(self):
        """The words of the QEMU that can have these devices."""
        vfio_user = not self.own and any(kind in ON_VFIO_USER for kind in self.kinds)
        return qemu11.command() if vfio_user else [qemu_binary()]

    def type(self):
        """-M: QEMU's own IDE is part of its older machine."""
        return "pc" if self.own and "ide" in self.kinds else "q35"

    def arguments(self):
        """QEMU's arguments for the devices, the memory and QMP."""
        devices = self._own_devices() if self.own else shlex.split(self._penstock(
            "qemu-args", "guest", "--memory", f"{self.memory}M").replace("\\\n", ""))
        return [*devices, "-qmp", f"unix:{self.lab.path('qmp')},server=on,wait=off"]

    def boot(self, *, modules=(), **kwargs):
        """A booted guest with the modules for all devices."""
        needed = [*SCSI_MODULES, *modules]
        for kind in self.kinds:
            needed += MODULES[kind]
        return self.lab.boot(self.arguments(), modules=needed, machine=self.type(), **{"qemu": self.qemu(), **kwargs})

    def qmp(self):
        """A connection to the running QEMU's machine protocol."""
        return Qmp(self.lab.path("qmp"))

    # --- while it runs ----------------------------------------------------------

    def insert(self, unit, disk):
        """Put `disk` into a drive, such as ide0/secondary-slave."""
        if self.own:
            self._qmp("blockdev-change-medium", id=own_id(unit), filename=self._path(disk), format="raw")
        else:
            self._penstock("insert", "guest", unit, disk)

    def eject(self, unit, force=False):
        """Take the medium out. tap.Failure when the guest has locked the drive, unless forced."""
        if self.own:
            self._qmp("eject", id=own_id(unit), force=force)
        else:
            self._penstock("eject", "guest", unit, *["--force"][:force])

    def attach(self, unit, disk):
        """Hot plug: a disk comes, as virtio-scsi0/3:0."""
        if self.own:
            name, target, lun = re.match(r"(.+)/(\d+):(\d+)$", unit).groups()
            self._qmp("device_add", driver="scsi-hd", id=own_id(unit), bus=f"{name}.0", scsi_id=int(target),
                      lun=int(lun), drive=disk)
        else:
            self._penstock("attach", "guest", unit, disk)

    def detach(self, unit):
        """Hot unplug."""
        if self.own:
            self._qmp("device_del", id=own_id(unit), until="DEVICE_DELETED")
        else:
            self._penstock("detach", "guest", unit)

    def resize(self, disk, size):
        """Make a disk `size` bytes large."""
        if self.own:
            self._qmp("block_resize", node_name=disk, size=size)
        else:
            self._penstock("resize", disk, str(size))

    def status(self):
        """What penstock says of itself."""
        return json.loads(self._penstock("status", "--json"))

    def stop(self):
        """Stop penstock, if there is one; it must end in good order."""
        if self.daemon:
            tap.equal(self.daemon.stop(), 0, "penstock's exit status")

    # --- penstock ---------------------------------------------------------------

    def _serve(self):
        devices = [{**device, "socket": f"{kind}{number}.sock"}
                   for number, (kind, device) in enumerate(zip(self.kinds, self.devices))]
        config = self.lab.write("machine.yaml", json.dumps({"disks": self.disks, "vms": {"guest": devices}}, indent=1))
        return self.lab.daemon("run", config, "--api", "api.sock")

    def _penstock(self, *arguments):
        done = self.lab.penstock(*arguments, "--api", "api.sock")
        tap.equal(done.returncode, 0, f"status of penstock {' '.join(arguments)}, which said {done.stderr!r}")
        return done.stdout

    # --- QEMU's own devices -----------------------------------------------------

    def _own_devices(self):
        arguments = ["-m", str(self.memory)]
        for name in self.disks:
            arguments += ["-blockdev", f"driver=raw,node-name={name},discard=unmap,"
                          f"read-only={'on' if self._is_iso(name) else 'off'},"
                          f"file.driver=file,file.filename={self._path(name)},file.locking=off"]
        counts = {}
        for kind, device in zip(self.kinds, self.devices):
            name = f"{kind}{counts.setdefault(kind, 0)}"
            counts[kind] += 1
            units = device[kind] if isinstance(device[kind], list) else [device[kind]]
            units = [unit if isinstance(unit, dict) else {"disk": unit} for unit in units]
            if kind == "virtio-blk":
                arguments += ["-device", f"virtio-blk-pci,id={name},drive={units[0]['disk']}"]
                continue
            if kind != "ide":
                driver = {"virtio-scsi": f"virtio-scsi-pci,num_queues={device.get('queues', 1)}",
                          "pvscsi": "pvscsi"}[kind]
                arguments += ["-device", f"{driver},id={name}"]
            for number, unit in enumerate(units):
                arguments += ["-device", self._own_unit(kind, name, number, unit)]
        return arguments

    def _own_unit(self, kind, name, number, unit):
        disk = unit.get("disk")
        cdrom = unit.get("type") == "cdrom" or disk and self._is_iso(disk)
        if kind == "ide":
            position = unit.get("position", IDE_POSITIONS[number])
            where = "bus=ide.{},unit={}".format(*divmod(IDE_POSITIONS.index(position), 2))
            text = f"ide-{'cd' if cdrom else 'hd'},id={own_id(f'{name}/{position}')},{where}"
        else:
            target, lun = unit.get("target", number), unit.get("lun", 0)
            text = (f"scsi-{'cd' if cdrom else 'hd'},id={own_id(f'{name}/{target}:{lun}')},bus={name}.0,"
                    f"scsi-id={target},lun={lun}")
        return text + (f",drive={disk}" if disk else "") + (f",serial={unit['serial']}" if "serial" in unit else "")

    def _path(self, disk):
        return next(iter(self.disks[disk]["stack"][-1].values()))["path"]

    def _is_iso(self, disk):
        return "iso" in self.disks[disk]["stack"][-1]

    def _qmp(self, command, until=None, **arguments):
        with contextlib.closing(self.qmp()) as qmp:
            qmp.execute(command, **arguments)
            if until:
                qmp.wait_for(until)


def own_id(unit):
    """QEMU's id for a unit: its alphabet has neither / nor :"""
    return unit.replace("/", ".").replace(":", "-")
