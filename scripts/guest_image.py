# SPDX-License-Identifier: BSD-3-Clause
"""What a guest boots: Debian's cloud kernel and an initramfs written here.

The kernel's package is downloaded with apt-get and unpacked under build/guest/,
never installed, so neither step takes root. The initramfs is a cpio archive that
this file writes itself: busybox, the kernel modules asked for in an order in
which they load, the host's own programs asked for with their shared libraries,
and scripts/guest-init as /init. Both are kept and made again only when what
they are made of changes.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("BUILD_GUEST", ROOT / "build" / "guest"))
KERNEL_PACKAGE = "linux-image-cloud-amd64"
VIRTIO = ("virtio_pci", "virtio_blk")


class Missing(Exception):
    """Something the machine lacks; the text says what, and how to get it."""


def progress(text):
    print(f"    {text}", file=sys.stderr, flush=True)


# --- the kernel -------------------------------------------------------------

def kernel():
    """The unpacked kernel package: a directory with boot/vmlinuz-* and lib/modules/*."""
    unpacked = unpacked_path()
    if not list(unpacked.glob("boot/vmlinuz-*")):
        fetch_kernel(unpacked)
    return unpacked


def unpacked_path():
    return CACHE / "kernel"


def vmlinuz():
    return next(kernel().glob("boot/vmlinuz-*"))


def fetch_kernel(unpacked):
    download = CACHE / "download"
    shutil.rmtree(download, ignore_errors=True)
    download.mkdir(parents=True)
    try:
        archive = download_kernel(download)
        part = unpacked.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        subprocess.run(["dpkg-deb", "-x", archive, part], check=True, timeout=300)
        shutil.rmtree(unpacked, ignore_errors=True)
        part.rename(unpacked)
    finally:
        shutil.rmtree(download, ignore_errors=True)


def download_kernel(directory):
    """Download the kernel's package; its path. The lists of apt may be too old, or none."""
    package, said = kernel_package(), ""
    for update in (False, True):
        if update and os.geteuid() == 0:
            progress("apt-get update")
            apt_get("update", directory)
            package = kernel_package()
        if package:
            progress(f"downloading {package} (27 MB, once; it is unpacked in {CACHE}, not installed)")
            said = apt_get("download", directory, package)
        for archive in directory.glob("*.deb"):
            return archive
    raise Missing(f"The guest's kernel, Debian package {package or KERNEL_PACKAGE}, could not be downloaded.\n"
                  f"{last_lines(said) or '    apt knows no such package.'}\n"
                  "This needs a Debian 12 mirror, and lists of its packages. Mend the network or\n"
                  "/etc/apt/sources.list, type this, and then try again:\n"
                  "    sudo apt-get update\n"
                  "Or unpack the kernel's package by hand:\n"
                  f"    dpkg-deb -x linux-image-*-cloud-amd64_*.deb {unpacked_path()}")


def kernel_package():
    """The package that linux-image-cloud-amd64 stands for today; None if apt does not know it."""
    depends = subprocess.run(["apt-cache", "depends", KERNEL_PACKAGE], text=True, capture_output=True,
                             timeout=60).stdout
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    return found and found[1]


def apt_get(verb, directory, *arguments):
    # No sandbox: apt's own user may not write where we are, and would only warn of it.
    return subprocess.run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", verb, *arguments],
                          cwd=directory, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL, timeout=600).stdout


def last_lines(text, count=5):
    return "\n".join("    " + line for line in text.strip().splitlines()[-count:])


# --- kernel modules ---------------------------------------------------------

def modules_in_order(names):
    """The module files for `names` and all they depend on, each after what it needs."""
    directory = next(kernel().glob("lib/modules/*"))
    files = {path.name.removesuffix(".ko").replace("-", "_"): path
             for path in directory.rglob("*.ko")}
    built_in = {Path(line).name.removesuffix(".ko").replace("-", "_")
                for line in (directory / "modules.builtin").read_text().split()}
    order = []

    def visit(name):
        if name in built_in:
            return
        if name not in files:
            raise Missing(f"The kernel in {kernel()} has no module {name}; remove that directory to\n"
                          "fetch a current one.")
        path = files[name]
        if path in order:
            return
        for needed in module_needs(path):
            visit(needed)
        order.append(path)

    for name in names:
        visit(name)
    return order


def module_needs(path):
    """Names of the modules that a .ko says it depends on (its `depends` and `softdep: pre`)."""
    content = path.read_bytes()
    needs = re.search(rb"\0depends=([^\0]*)\0", content)
    names = needs[1].decode().split(",") if needs else []
    # A crypto algorithm is asked for by name while it loads; crc32c's is built in.
    return [name.replace("-", "_") for name in names if name]


# --- host programs ----------------------------------------------------------

def with_libraries(program):
    """A host program's path and those of its shared libraries and loader."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not found:
        raise Missing(f"The program {program} is missing on this machine. Type, and then try again:\n"
                      "    scripts/install-packages run test")
    listed = subprocess.run(["ldd", found], text=True, capture_output=True, timeout=30).stdout
    return [found] + re.findall(r"(/\S+) \(0x", listed)


# --- the initramfs ----------------------------------------------------------

def initramfs(programs=(), modules=()):
    """The path of an initramfs with busybox, VIRTIO and `modules`, and the host's `programs`."""
    files = {"/bin/busybox": Path(with_libraries("busybox")[0]),
             "/init": ROOT / "scripts" / "guest-init"}
    for program in programs:
        for path in with_libraries(program):
            files[path] = Path(path)
    for number, path in enumerate(modules_in_order([*VIRTIO, *modules])):
        files[f"/modules/{number:02}-{path.name}"] = path

    made_of = "".join(f"{name} {path} {os.stat(path).st_mtime_ns}\n"
                      for name, path in sorted(files.items()))
    archive = CACHE / f"initramfs-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.cpio"
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        part = archive.with_suffix(f".{os.getpid()}")
        with open(part, "wb") as out:
            write_cpio(out, files)
        part.rename(archive)
    return archive


def write_cpio(out, files):
    """Write `files` (path in the archive -> path on the host) as a `newc` cpio archive."""
    directories = {"/dev", "/proc", "/sys", "/tmp", "/mnt"}
    for name in files:
        directories.update(str(parent) for parent in Path(name).parents)
    directories.discard("/")
    entries = [(name, 0o040755, b"") for name in sorted(directories)]
    entries += [(name, 0o100755, path.read_bytes()) for name, path in sorted(files.items())]
    for inode, (name, mode, content) in enumerate([*entries, ("/TRAILER!!!", 0, b"")], start=1):
        name = name.lstrip("/").encode() + b"\0"
        numbers = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
        header = b"070701" + b"".join(b"%08X" % number for number in numbers)
        for piece in (header + name, content):
            out.write(piece + bytes(-len(piece) % 4))
