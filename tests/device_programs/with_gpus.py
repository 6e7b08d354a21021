"""Runs a command on a machine that has GPUs: directories laid over it by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from gpuvm.device import mounts, namespaces
from gpuvm.device.tree import Directory, Entry, File, Link


def d(**entries: Entry) -> Directory:
    return Directory(entries)


def links(up: str, *names: str) -> dict[str, Entry]:
    return {name: Link(f"{up}/{name}") for name in names}


SLOTS = ("0000:01:00.0", "0000:01:00.1")
CARDS = links("../../devices/host/drm", "card0", "card1")
TREES = d(
    dev=d(dri=Directory({"card0": File(b"host"), "card1": File(b"host"), "by-path": d(x=Link("../card1"))})),
    sys=Directory(
        {
            "class": d(drm=Directory(CARDS, fixed=True)),
            "dev": d(char=Directory({"226:0": CARDS["card0"], "226:1": CARDS["card1"]})),
            "devices": Directory(
                {
                    "host": d(drm=d(card0=d(), card1=d())),
                    "pci0000:01": Directory({slot: d(vendor=File(slot[-1].encode())) for slot in SLOTS}),
                }
            ),
            "bus": d(
                pci=d(
                    devices=Directory(links("../../../devices/pci0000:01", *SLOTS)),
                    drivers=d(nouveau=d(bind=File(b"host"))),
                )
            ),
        }
    ),
)

namespaces.enter(users=os.geteuid() != 0)
os.umask(0)
os.close(mounts.Grafts(real_nodes=False).lay(os.open("/", os.O_PATH), TREES))
assert Path("/dev/dri/card1").read_text() == "host"
assert Path("/sys/bus/pci/devices/0000:01:00.0/vendor").read_text() == "0"
sys.exit(subprocess.run(sys.argv[1:], check=False).returncode)
