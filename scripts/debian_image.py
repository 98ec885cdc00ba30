#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""An installed Debian on a disk image: GRUB in the boot sectors, kernel, initrd, systemd.

    scripts/debian_image.py         makes build/debian where it is not there (1 to 2 min), prints where

Once up, it says on the first serial port

    debian: up, / on sda by sd ata_piix

(the drivers from the disk to the bus), notes the same line in /var/log/boots, and switches the machine off. / is
found by its label and the initrd has the drivers of every disk that penstock offers, so one image
boots through each of them. It takes root to make, since Debian's packages configure themselves in
a chroot; but no loop device, no mount, and no guest: mke2fs fills the file system from a
directory, and the boot sectors are put together here.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import debian
from guest_image import ROOT, Missing

TREE = Path(os.environ.get("DEBIAN_IMAGE", ROOT / "build" / "debian")).absolute()
MIB = 1 << 20
PARTITION, SIZE = MIB, 512 * MIB        # where the partition begins (GRUB's core is before it), and the whole disk
LABEL = "debian"
PACKAGES = ("linux-image-cloud-amd64", "initramfs-tools", "systemd-sysv", "udev")
UNUSED = ("/usr/share/doc", "/usr/share/man", "/usr/share/locale", "/usr/share/info")
DRIVERS = ("virtio_pci", "virtio_blk", "virtio_scsi", "vmw_pvscsi", "ata_piix", "sd_mod", "ext4")
GRUB = Path("/usr/lib/grub/i386-pc")
GRUB_MODULES = ("biosdisk", "part_msdos", "ext2", "search", "search_label", "configfile", "linux",
                "normal", "serial", "terminal")
# The console's speed means nothing to an emulated port; the kernel's messages take a third of a boot by TCG.
KERNEL_ARGUMENTS = f"root=LABEL={LABEL} rw console=ttyS0 quiet mitigations=off nowatchdog"

FILES = {
    "etc/hostname": "debian\n",
    "etc/fstab": f"LABEL={LABEL} / ext4 defaults 0 1\n",
    "boot/grub/grub.cfg": f"linux /vmlinuz {KERNEL_ARGUMENTS}\ninitrd /initrd.img\nboot\n",
    "usr/local/sbin/report": """#!/bin/sh
disk=$(lsblk -no PKNAME "$(findmnt -no SOURCE /)")
path=$(readlink -f /sys/block/$disk)
drivers=
while [ "$path" != /sys ]; do
	[ ! -e $path/driver ] || drivers="$drivers $(basename "$(readlink -f $path/driver)")"
	path=${path%/*}
done
echo "debian: up, / on $disk by$drivers" | tee -a /var/log/boots >/dev/ttyS0
""",
    "etc/systemd/system/report.service": """[Unit]
Description=Say which disk this Debian runs from, and switch off
After=basic.target
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/report
""",
}


def made():
    """The directory with `disk.img`, and copies of its `vmlinuz` and `initrd.img`."""
    return debian.made_once(TREE, make)


def kernel_arguments():
    """QEMU's arguments to boot it without its boot loader."""
    return ["-kernel", made() / "vmlinuz", "-initrd", made() / "initrd.img", "-append", KERNEL_ARGUMENTS]


def make(part):
    if os.geteuid() != 0:
        raise Missing("Installing a Debian into an image takes root: sudo scripts/debian_image.py")
    for program in (GRUB / "boot.img", shutil.which("grub-mkimage") or Path("/usr/bin/grub-mkimage")):
        if not Path(program).exists():
            raise Missing(f"{program} is missing on this machine. Type, and then try again:\n"
                          "    scripts/install-packages test")
    root = part / "root"
    install(root)
    for name in ("vmlinuz", "initrd.img"):
        shutil.copy(root / name, part / name)
    write_disk(part / "disk.img", root)
    shutil.rmtree(root)


def install(root):
    setup = ("mkdir -p $1/etc/initramfs-tools/conf.d $1/usr/share/initramfs-tools/modules.d; "
             "printf 'MODULES=list\\nCOMPRESS=gzip\\n' >$1/etc/initramfs-tools/conf.d/list; "
             f"printf '%s\\n' {' '.join(DRIVERS)} >$1/usr/share/initramfs-tools/modules.d/disks")
    debian.mmdebstrap(root, "the Debian image", ("bookworm",), PACKAGES, "--variant=minbase", "--mode=root",
                      f"--setup-hook={setup}", *(f"--dpkgopt=path-exclude={path}/*" for path in UNUSED))
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "usr/local/sbin/report").chmod(0o755)
    units = root / "etc/systemd/system"
    (units / "default.target").symlink_to("/lib/systemd/system/basic.target")
    (units / "basic.target.wants").mkdir()
    (units / "basic.target.wants/report.service").symlink_to("/etc/systemd/system/report.service")
    shutil.rmtree(units / "timers.target.wants")


def write_disk(disk, root):
    with open(disk, "wb") as out:
        out.truncate(SIZE)
    run("mke2fs", "-q", "-t", "ext4", "-L", LABEL, "-d", root, "-E", f"offset={PARTITION}", disk,
        f"{(SIZE - PARTITION) >> 10}k")
    core = disk.with_name("core.img")
    config = disk.with_name("early.cfg")
    # The BIOS's number of the disk is not known beforehand, so GRUB looks for the label too.
    config.write_text(f"serial\nterminal_output serial\nsearch --label {LABEL} --set root\n"
                      "configfile /boot/grub/grub.cfg\n")
    run("grub-mkimage", "-O", "i386-pc", "-o", core, "-p", "/boot/grub", "-c", config, *GRUB_MODULES)
    with open(disk, "r+b") as out:
        write_boot_sectors(out, (GRUB / "boot.img").read_bytes(), core.read_bytes())
    core.unlink()
    config.unlink()


def write_boot_sectors(out, boot, core):
    """The MBR with GRUB's boot.img and one partition, and GRUB's core behind it.

    Both images are as they must be for a core that begins at sector 1 (GRUB manual, "Images": the embedding
    area)."""
    assert 512 + len(core) <= PARTITION
    entry = bytes((0x80, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff))       # active, Linux; CHS says "use LBA"
    entry += (PARTITION // 512).to_bytes(4, "little") + ((SIZE - PARTITION) // 512).to_bytes(4, "little")
    out.write(boot[:440] + b"\xde\xb1\xa2\x12\0\0" + entry + bytes(48) + b"\x55\xaa" + core)


def run(*command):
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL, timeout=300)
    if done.returncode:
        raise Missing(f"{' '.join(map(str, command))} ended with status {done.returncode}:\n{done.stdout}")


if __name__ == "__main__":
    try:
        print(made())
    except (Missing, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"debian_image: {error}")
    except KeyboardInterrupt:
        sys.exit("debian_image: interrupted")
