# SPDX-License-Identifier: BSD-3-Clause
"""A real Linux guest in a stock QEMU, with disks that a vhost-user server provides.

    with Guest(attach([Disk(socket)])) as guest:
        print(guest.run("cat /sys/block/vda/size"))

The guest's first serial port is its console (kept in a log file), the second
carries scripts to run and their output (scripts/guest-init is the other side).
Every wait has a limit. QEMU runs with KVM where a probe has shown that KVM really
runs a guest (a /dev/kvm that opens is not enough: nested hypervisors may hang), else with
its own interpreter, TCG.
"""

import base64
import dataclasses
import os
import re
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import guest_image
from guest_image import Missing

BOOT_SECONDS = 180      # for a guest on a busy machine, by TCG; 5 to 10 is usual
PROBE_SECONDS = 10      # a guest that KVM runs is up in 2

# Linux counts ticks of its timer against the processor's clock, and panics if there are none ("IO-APIC + timer doesn't
# work!"): on a busy host QEMU without KVM may not come to make any in that time.
NO_TIMER_CHECK = "no_timer_check"


class GuestError(Exception):
    """The guest died, fell silent, or a script failed in it; the text holds what it said."""


@dataclasses.dataclass
class Disk:
    """One vhost-user-blk-pci device: its server's socket and the properties QEMU takes."""
    socket: os.PathLike | str
    properties: str = ""        # such as "num-queues=4,packed=on"


def qemu_binary():
    found = shutil.which("qemu-system-x86_64")
    if not found:
        raise Missing("qemu-system-x86_64 is missing on this machine. Type, and then try again:\n"
                      "    scripts/install-packages run")
    return found


def accelerator():
    """"kvm" or "tcg", by a probe that boots a guest; the answer is kept until the host reboots."""
    if os.environ.get("GUEST_ACCEL"):
        return os.environ["GUEST_ACCEL"]
    kept = guest_image.CACHE / "accelerator"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    try:
        answer, at_boot = kept.read_text().split()
        if at_boot == boot:
            return answer
    except (OSError, ValueError):
        pass
    answer = "kvm" if kvm_runs_a_guest() else "tcg"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(f"{answer} {boot}\n")
    return answer


def kvm_runs_a_guest():
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    command = [qemu_binary(), "-M", "q35,accel=kvm", "-cpu", "max", "-m", "256", "-nodefaults",
               "-display", "none", "-no-reboot", "-kernel", guest_image.vmlinuz(),
               "-initrd", guest_image.initramfs(),
               "-append", "console=ttyS0 quiet panic=-1 rdinit=/init penstock.probe",
               "-serial", "null", "-serial", "stdio"]
    try:
        said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=PROBE_SECONDS).stdout
    except subprocess.TimeoutExpired:
        return False
    return b"@probe ok" in said


def processors(count=1):
    """QEMU's arguments for so many. Of a machine that can have only one, TCG leaves out the barrier of a locked
    instruction, as if no thread but the processor's looked at memory. A driver then looks whether it must notify us
    before what it offers can be seen, and now and then both sides wait for each other for ever."""
    return ["-smp", f"{count},maxcpus={max(count, 2)}"]


def attach(disks, memory=256):
    """QEMU's arguments for `memory` MiB that are shared, and `disks` (of class Disk)."""
    arguments = ["-m", str(memory), "-machine", "memory-backend=memory",
                 "-object", f"memory-backend-memfd,id=memory,size={memory}M,share=on"]
    for number, disk in enumerate(disks):
        properties = f",{disk.properties}" if disk.properties else ""
        arguments += ["-chardev", f"socket,id=disk{number},path={disk.socket},reconnect=1",
                      "-device", f"vhost-user-blk-pci,chardev=disk{number}{properties}"]
    return arguments


class Guest:
    """A running guest. Leaving the `with` block kills it; power_off() ends it in good order.

    `arguments` are QEMU's for the guest's disks and the memory it shares with their server, as
    `penstock qemu-args` prints them; attach() makes some of sockets. `qemu` is the words of another QEMU's
    command than the system's. `polite`: it gives way to others that want the host's processors. `command` is the words
    of a whole command in place of all this, whose QEMU has the console in the file `log` and the second serial port on
    stdio; `popen` is what subprocess.Popen is to know besides."""

    def __init__(self, arguments, *, programs=(), modules=(), cpus=1, log=None, qemu=None, machine="q35", polite=False,
                 command=None, **popen):
        self.directory = tempfile.mkdtemp(prefix="penstock-guest-")
        self.console = Path(log or os.path.join(self.directory, "console"))
        self.errors = Path(self.directory, "qemu-stderr")
        self.number = 0
        self.unread = b""
        if not command:
            command = [*(["nice"] if polite else []), *(qemu or [qemu_binary()]),
                       "-M", f"{machine},accel={accelerator()}", "-cpu", "max", *processors(cpus),
                       "-nodefaults", "-display", "none", "-no-reboot",
                       "-kernel", guest_image.vmlinuz(),
                       "-initrd", guest_image.initramfs(programs, modules),
                       "-append", f"console=ttyS0 panic=-1 rdinit=/init nowatchdog mitigations=off {NO_TIMER_CHECK}",
                       "-serial", f"file:{self.console}", "-serial", "stdio", *arguments]
        with open(self.errors, "wb") as errors:
            self.qemu = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=errors, **popen)
        try:
            self._wait_for(rb"@ready\r?\n", BOOT_SECONDS)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def run(self, script, timeout=120):
        """Run a shell script in the guest; its output. GuestError when it fails or takes too long."""
        status, output = self.attempt(script, timeout)
        if status:
            raise GuestError(f"status {status} from the guest's\n{script}\n{output}{self.complaints()}")
        return output

    def attempt(self, script, timeout=120):
        """As run(), but a failing script is no error: (exit status, output)."""
        self.send(script)
        return self.finish(timeout)

    def send(self, script):
        """Start a script and return at once; finish() waits for it. One at a time."""
        encoded = base64.b64encode(script.encode())
        # The guest's tty line discipline holds 4,095 bytes while nobody reads.
        if len(encoded) > 3900:
            raise ValueError("the script is too long for the guest's serial port")
        self.number += 1
        try:
            self.qemu.stdin.write(b"%d %s\n" % (self.number, encoded))
            self.qemu.stdin.flush()
        except BrokenPipeError:
            raise GuestError("QEMU has ended" + self.complaints()) from None

    def finish(self, timeout=120, progress=None):
        """Wait for the script that send() began: (exit status, output).

        `progress` is called with each line of output as it comes."""
        done = self._wait_for(rb"@done %d (\d+)\r?\n" % self.number, timeout, progress)
        return int(done[1]), done.string[:done.start()].decode(errors="replace").replace("\r\n", "\n")

    def dmesg(self):
        """The kernel's log so far."""
        return self.run("dmesg")

    def complaints(self):
        """What QEMU wrote to stderr and the end of the guest's console, to explain a failure."""
        text = ""
        for name, path in (("QEMU", self.errors), ("console", self.console)):
            try:
                lines = path.read_text(errors="replace").strip().splitlines()[-15:]
            except OSError:
                continue
            text += "".join(f"\n{name}: {line}" for line in lines)
        return text

    def power_off(self, timeout=60):
        """Switch the guest off (file systems must be unmounted by then) and wait for QEMU to end."""
        self.send("poweroff -f")
        self.qemu.wait(timeout)

    def kill(self):
        """SIGKILL, as a power cut does."""
        self.qemu.kill()
        self.qemu.wait(30)

    def close(self):
        if self.qemu.poll() is None:
            self.kill()
        self.qemu.stdout.close()
        try:
            self.qemu.stdin.close()
        except BrokenPipeError:
            pass
        shutil.rmtree(self.directory, ignore_errors=True)

    def _wait_for(self, pattern, timeout, progress=None):
        deadline = time.monotonic() + timeout
        shown = 0
        while True:
            found = re.search(pattern, self.unread)
            if progress:
                end = found.start() if found else self.unread.rfind(b"\n") + 1
                for line in self.unread[shown:end].decode(errors="replace").splitlines():
                    progress(line)
                shown = max(shown, end)
            if found:
                self.unread = self.unread[found.end():]
                return found
            left = deadline - time.monotonic()
            if left <= 0:
                raise GuestError(f"the guest said nothing like {pattern.decode()!r} in {timeout} s; it said:\n"
                                 f"{self.unread.decode(errors='replace')}{self.complaints()}")
            if select.select([self.qemu.stdout], [], [], left)[0]:
                more = os.read(self.qemu.stdout.fileno(), 65536)
                if not more:
                    raise GuestError("QEMU has ended" + self.complaints())
                self.unread += more
