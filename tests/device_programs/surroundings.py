"""What a program is given besides its files: a line each."""

from __future__ import annotations

import os
import resource
import signal
import sys


def told(path: str, *keys: str) -> dict[str, str]:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        lines = dict(line.rstrip("\n").partition(":")[::2] for line in file)
    return {key: lines[key].strip() for key in keys}


with open("/proc/self/cmdline", "rb") as file:
    print("words", file.read())
with open("/proc/self/environ", "rb") as file:
    print("environment", sorted(file.read().split(b"\0")))
ignored = int(told("/proc/self/status", "SigIgn")["SigIgn"], 16) & ~(3 << 31)  # 32, 33: the C library
print("signals", hex(ignored), told("/proc/self/status", "SigBlk", "SigCgt", "ShdPnd", "SigPnd"))
print("handlers", [number for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN])
print("mask", oct(os.umask(0)), "directory", os.getcwd(), "nice", os.nice(0))
print("user", os.getresuid(), "group", os.getresgid())
print("group of processes", os.getpgrp() != os.getpid(), "session", os.getsid(0) != os.getpid())
print("limits", [resource.getrlimit(number) for number in range(16)])
for fd in sorted(map(int, os.listdir("/proc/self/fd"))):
    try:
        print("descriptor", fd, os.readlink(f"/proc/self/fd/{fd}"))
    except FileNotFoundError:  # of the listing
        continue
if "capabilities" in sys.argv:
    print(told("/proc/self/status", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Groups"))
