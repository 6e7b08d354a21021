"""Which GPUs a program sees."""

from __future__ import annotations

import os
from pathlib import Path

for place in ("/dev/dri", "/dev/dri/by-path", "/sys/class/drm", "/sys/devices/pci0000:01"):
    print(*sorted(os.listdir(place)))
print(*sorted(name for name in os.listdir("/sys/dev/char") if name.startswith("226:")))
print("host" in os.readlink("/sys/dev/char/226:0"), os.path.exists("/dev/dri/card1"))
for slot in ("0000:01:00.0", "0000:01:00.1"):
    print(slot, Path(f"/sys/bus/pci/devices/{slot}/vendor").read_text().strip())
print(sorted(os.listdir("/sys/bus/pci/drivers/nouveau")))
os.close(os.open("/dev/dri/card0", os.O_RDWR))
