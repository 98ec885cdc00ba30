#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""An ISO image as an ordinary disk, and one image in two devices: the iso back-end under virtio-blk."""

import hashlib
import os
import subprocess

from guest_checks import no_io_errors, tap
from lab import Lab


@tap.test("a file on an ISO image reads the same in blocks of 2,048 and of 512, to the image's odd end")
def _():
    with Lab() as lab:
        content = lab.path("content")
        content.mkdir()
        data = os.urandom(3000001)
        (content / "file.bin").write_bytes(data)
        image = lab.path("disc.iso")
        subprocess.run(["genisoimage", "-quiet", "-r", "-o", image, content], check=True, timeout=60)
        os.truncate(image, image.stat().st_size - 700)         # of the padding at its end
        config = lab.write("iso.yaml", """
disks:
  natural:
    stack:
      - iso: {path: disc.iso}
  small:
    block-size: 512
    stack:
      - iso: {path: disc.iso}
vms:
  guest:
    - {virtio-blk: natural, socket: a.sock}
    - {virtio-blk: small, socket: b.sock}
""")
        lab.daemon("run", config)
        guest = lab.guest([lab.path("a.sock"), lab.path("b.sock")], modules=["isofs"])
        sectors = str((image.stat().st_size + 2047) // 2048 * 4)
        for disk, block in (("vda", "2048"), ("vdb", "512")):
            said = guest.run(f"cd /sys/block/{disk} && cat queue/logical_block_size size ro").split()
            tap.equal(said, [block, sectors, "1"], f"{disk}'s block size, sectors, read-only")
            said = guest.run(f"mount -t iso9660 -o ro /dev/{disk} /mnt && sha256sum /mnt/file.bin && umount /mnt && "
                             f"dd if=/dev/{disk} of=/dev/null bs=1M 2>/dev/null")
            tap.contains(said, hashlib.sha256(data).hexdigest())
        no_io_errors(guest)


tap.main()
