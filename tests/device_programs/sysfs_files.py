"""The files below directories, a line each, with what they contain; and that nobody can change them."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

DEVICE = "/sys/devices/pci0000:01/0000:01:00.0"


def show(path: Path) -> None:
    for name in sorted(os.listdir(path)):
        one = path / name
        if one.is_symlink():
            print(one, "->", os.path.realpath(one))
        elif one.is_dir():
            show(one)
        elif one.is_file() and os.access(one, os.R_OK):
            data = one.read_bytes()
            print(one, "=", data.hex() if name == "config" else data.decode().strip().replace("\n", "|"))


for place in sys.argv[1:]:
    show(Path(place))
for place in ("class/drm/card0/device", "dev/char/226:128/device", "bus/pci/drivers/nouveau/0000:01:00.0"):
    assert os.path.realpath("/sys/" + place) == DEVICE, place
for place in ("class", "class/drm", "devices/pci0000:01", "dev/char"):
    with suppress(OSError):
        os.mkdir(f"/sys/{place}/x")
        print("made", place)
with suppress(OSError):
    Path("/sys/class/drm/card0/uevent").write_text("change")
    print("written")
