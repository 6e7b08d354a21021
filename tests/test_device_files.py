"""What a program sees of the machine's files: one GPU more, and all else as it was."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from compiled import SOURCES
from gpuvm.nouveau.chipset import chip_of
from running import MODES, both_modes, gpuvm_run
from suite import scaled

PCI = "/sys/devices/pci0000:01/0000:01:00.0"
BUS_LINK = f"0o120777 0:0 ../../../devices/pci0000:01/0000:01:00.0 {PCI}"


def program(name: str) -> str:
    return str(SOURCES / f"{name}.py")


def listed(text: str) -> dict[str, str]:
    return dict(line.partition(" ")[::2] for line in text.splitlines())


def native_listing() -> dict[str, str]:
    command = [sys.executable, program("listing")]
    return listed(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def drm_link(name: str, up: str) -> str:
    return f"0o120777 0:0 {up}/devices/pci0000:01/0000:01:00.0/drm/{name} {PCI}/drm/{name}"


@both_modes
def test_all_else_is_as_it_was(mode: tuple[str, ...]) -> None:
    ran = gpuvm_run(sys.executable, program("listing"), options=mode)
    assert ran.status == 0, ran
    before, after = native_listing(), listed(ran.out)
    hidden = {
        path for path in before if path.startswith(("/sys/dev/char/226:", "/dev/dri", "/sys/class/drm"))
    }
    new = {path: after[path] for path in after.keys() - before.keys() | hidden}
    changed = {path for path in before.keys() - hidden if before[path] != after.get(path)}
    assert changed <= {"/sys/bus/pci/devices/0000:01:00.0"}, {
        path: (before[path], after[path]) for path in changed
    }
    new.pop("/sys/bus/pci/drivers/nouveau", None)  # a machine may have it
    assert new.pop("/sys/devices/pci0000:01").startswith("0o40755")
    assert new.pop("/dev/dri").startswith("0o40755")
    assert new.pop("/sys/class/drm").startswith("0o40755")
    assert new == {
        "/sys/dev/char/226:0": drm_link("card0", "../.."),
        "/sys/dev/char/226:128": drm_link("renderD128", "../.."),
        "/sys/bus/pci/devices/0000:01:00.0": BUS_LINK,
    }


@both_modes
@pytest.mark.parametrize("chipset", [0x172, 0x162][: scaled(1, 2)])
def test_sysfs_tells_of_the_chip(mode: tuple[str, ...], chipset: int) -> None:
    options = (*mode, "--chipset", hex(chipset))
    ran = gpuvm_run(
        sys.executable, program("sysfs_files"), PCI, "/sys/class/drm", "/dev/dri", options=options
    )
    assert ran.status == 0, ran
    assert "made" not in ran.out
    assert "written" not in ran.out
    files = dict(line.removeprefix(PCI + "/").partition(" ")[::2] for line in ran.out.splitlines())
    chip = chip_of(chipset)
    ids = f"10DE:{chip.device_id:04X}"
    assert files["vendor"] == files["subsystem_vendor"] == "= 0x10de"
    assert files["device"] == f"= {chip.device_id:#06x}"
    assert files["revision"] == "= 0xa1"
    assert files["class"] == "= 0x030000"
    assert f"PCI_ID={ids}|" in files["uevent"]
    assert "|PCI_SLOT_NAME=0000:01:00.0|" in files["uevent"]
    config = bytes.fromhex(files["config"].removeprefix("= "))
    assert len(config) == 256
    assert config[:4] == b"\xde\x10" + chip.device_id.to_bytes(2, "little")
    assert config[8:12] == b"\xa1\x00\x00\x03"
    assert config[0x2C:0x30] == config[:4]
    for name, minor in (("card0", 0), ("renderD128", 128)):
        assert files[f"drm/{name}/dev"] == f"= 226:{minor}"
        assert (
            files[f"drm/{name}/uevent"] == f"= MAJOR=226|MINOR={minor}|DEVNAME=dri/{name}|DEVTYPE=drm_minor"
        )
        assert files[f"drm/{name}/device"] == f"-> {PCI}"
        assert files[f"drm/{name}/subsystem"] == "-> /sys/class/drm"
        assert files[f"/sys/class/drm/{name}"] == f"-> {PCI}/drm/{name}"
        kind = "card" if minor == 0 else "render"
        assert files[f"/dev/dri/by-path/pci-0000:01:00.0-{kind}"] == f"-> /dev/dri/{name}"
    assert files["subsystem"] == "-> /sys/bus/pci"
    assert files["driver"] == "-> /sys/bus/pci/drivers/nouveau"


@pytest.mark.parametrize("mode", MODES[scaled(1, 0) :])
def test_a_machines_own_gpus_are_hidden(mode: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "gpuvm", "run", *mode, "--", sys.executable, program("gpus_seen")]
    ran = subprocess.run(
        [sys.executable, program("with_gpus"), *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout.splitlines()) == (
        0,
        [
            "by-path card0 renderD128",
            "pci-0000:01:00.0-card pci-0000:01:00.0-render",
            "card0 renderD128 version",
            "0000:01:00.0 0000:01:00.1 uevent",
            "226:0 226:128",
            "False False",
            "0000:01:00.0 0x10de",
            "0000:01:00.1 1",
            "['0000:01:00.0', 'bind', 'new_id', 'remove_id', 'uevent', 'unbind']",
        ],
    ), ran


@both_modes
@pytest.mark.parametrize("user", [(), ("another",)])
def test_terminals_work(mode: tuple[str, ...], user: tuple[str, ...]) -> None:
    if user and (mode or os.geteuid()):
        pytest.skip("there is nobody else")
    ran = gpuvm_run(sys.executable, program("terminals"), *user, options=mode)
    assert ran.out.splitlines() == ["True True", "b'typed\\n' True", "False b'' 5"], ran


@both_modes
def test_software_timelines_are_where_debugfs_has_them(mode: tuple[str, ...]) -> None:
    ran = gpuvm_run(sys.executable, program("sw_sync"), options=mode)
    assert (ran.status, ran.out.split()) == (0, ["True", "False", "False", "False", "False", "True"]), ran
