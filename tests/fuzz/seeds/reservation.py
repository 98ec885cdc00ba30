# SPDX-License-Identifier: BSD-3-Clause
"""Files of persistent reservations, good and damaged."""

def reservations(kind, holder, *registrants, version=1, disk="d"):
    lines = [f"penstock-reservations {version}", f"disk {disk}", f"type {kind}", f"holder {holder}",
             f"registrants {len(registrants)}", *(f"{key:016x} {nexus}" for key, nexus in registrants)]
    return b"\x01" + "".join(line + "\n" for line in lines).encode()


def seeds():
    two = (1, "vm1/scsi0:0"), (0xdeadbeef, "vm2/scsi0:0")
    return {
        "none": reservations(0, -1),
        "registered": reservations(0, -1, *two),
        "held": reservations(5, 1, *two),
        "all": reservations(8, -1, *two),
        "other-disk": reservations(5, 1, *two, disk="e"),
        "other-version": reservations(5, 1, *two, version=2),
        "no-checksum": b"\x00" + reservations(5, 1, *two)[1:],
        "twice": reservations(5, 1, two[0], two[0]),
    }
