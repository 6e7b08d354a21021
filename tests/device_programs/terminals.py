"""Pseudo terminals are those of the machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if len(sys.argv) > 1:
    os.setresuid(1234, 1234, 1234)
master, slave = os.openpty()
name = os.ttyname(slave)
print(name.startswith("/dev/pts/"), os.stat(name).st_rdev == os.fstat(slave).st_rdev)
os.write(master, b"typed\n")
print(os.read(slave, 9), os.lstat("/dev/ptmx").st_rdev == os.makedev(5, 2))
another = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
print(
    os.get_inheritable(another),
    Path("/dev/null").read_bytes(),
    len(os.read(os.open("/dev/zero", os.O_RDONLY), 5)),
)
