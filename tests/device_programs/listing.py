"""What is in /dev and in the parts of /sys that have to do with devices: a line a file."""

from __future__ import annotations

import os
import stat

MANY = ("/dev", "/sys/dev/char", "/sys/dev", "/sys/class", "/sys/bus", "/sys/bus/pci", "/sys/bus/pci/devices")
MORE = (
    "/sys/bus/pci/drivers",
    "/sys/devices",
    "/sys",
    "/dev/pts",
    "/sys/class/tty",
    "/sys/class/net",
    "/dev/net",
)


def told(path: str) -> str:
    status = os.lstat(path)
    words = [oct(status.st_mode), f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"]
    if stat.S_ISLNK(status.st_mode):
        words.append(os.readlink(path))
        if not words[-1].startswith("/proc/"):
            words.append(os.path.realpath(path))
    elif not stat.S_ISDIR(status.st_mode):
        words += [str(status.st_ino)]
    return " ".join(words)


for directory in MANY + MORE:
    if os.path.isdir(directory):
        for name in sorted(os.listdir(directory)):
            print(os.path.join(directory, name), told(os.path.join(directory, name)))
