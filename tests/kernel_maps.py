"""What the kernel says about this process's addresses: the word of the one who translates them."""

from __future__ import annotations

import os
from typing import NamedTuple

from gpuvm.mem.remapping import NO_FILE, Run


class KernelMap(NamedTuple):
    start: int
    end: int
    access: str
    """Like "rw-"."""
    file: tuple[int, int] | None
    """Device and inode."""
    offset: int


def kernel_maps(address: int, size: int) -> list[KernelMap]:
    """The maps that lie in a range, cut to it: at its ends the kernel may have joined them with others."""
    found = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            bounds, access, offset, device, inode = line.split()[:5]
            first, last = (int(bound, 16) for bound in bounds.split("-"))
            start, end = max(first, address), min(last, address + size)
            if start < end:
                major, minor = (int(part, 16) for part in device.split(":"))
                file = (os.makedev(major, minor), int(inode)) if int(inode) else None
                inside = int(offset, 16) + start - first if file else 0
                found.append(KernelMap(start, end, access[:3], file, inside))
    return found


def expected(address: int, runs: tuple[Run, ...]) -> list[KernelMap]:
    """The same, as the books of a mapping at ``address`` have it."""
    maps = []
    for run in runs:
        access = "".join(letter if run.protection & bit else "-" for letter, bit in (("r", 1), ("w", 2)))
        file = None
        if run.fd != NO_FILE:
            status = os.fstat(run.fd)
            file = (status.st_dev, status.st_ino)
        start = address + run.addr
        maps.append(KernelMap(start, start + run.range, f"{access}-", file, run.offset))
    return maps
