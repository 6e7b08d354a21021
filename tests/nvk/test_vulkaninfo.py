"""Debian's vulkaninfo: the whole of NVK's device, from its enumeration to the last limit."""

from __future__ import annotations

import re

import pytest

from nvk import debian

BOTH_DRIVERS = {"VK_DRIVER_FILES": ":".join([*debian.LAVAPIPE.values(), *debian.NVK.values()])}


def _nvk(ended: debian.Ended) -> dict[str, str]:
    """What the summary says of the one device whose driver is NVK."""
    assert ended.status == 0, ended
    (device,) = [part for part in re.split(r"\nGPU\d+:", ended.text)[1:] if "DRIVER_ID_MESA_NVK" in part]
    pairs = [line.split("=", 1) for line in device.splitlines() if "=" in line]
    return {name.strip(): value.strip() for name, value in pairs}


@pytest.mark.parametrize(
    ("chipset", "device", "name"),
    [
        pytest.param(
            *("turing", "0x1e04", "NVIDIA GeForce RTX 2080 Ti (NVK TU102)"), marks=pytest.mark.short_form
        ),
        ("ampere", "0x2204", "NVIDIA GeForce RTX 3090 (NVK GA102)"),
    ],
)
def test_the_summary_names_the_chip_and_its_driver(chipset: str, device: str, name: str) -> None:
    ended = debian.run(*("vulkaninfo", "--summary"), options=("--chipset", chipset), environment=BOTH_DRIVERS)
    nvk = _nvk(ended)
    assert nvk["deviceName"] == name, ended
    assert nvk["vendorID"] == "0x10de", ended
    assert nvk["deviceID"] == device, ended
    assert nvk["deviceType"] == "PHYSICAL_DEVICE_TYPE_DISCRETE_GPU", ended
    assert nvk["driverName"] == "NVK", ended


@pytest.mark.short_form
def test_the_full_text_is_written_to_its_end() -> None:
    ended = debian.run("vulkaninfo")
    assert ended.status == 0, ended
    for line in (
        "Device Properties and Extensions",
        "VkPhysicalDeviceMemoryProperties",
        "memoryHeaps: count = ",
        "sparseBinding",
        "sparseResidencyImage2D",
        "VkPhysicalDeviceVulkan14Features",
    ):
        assert line in ended.text, ended
    assert "ERROR" not in ended.errors, ended
    assert ended.row("faults") == "none", ended
    assert ended.row("left at exit") == "nothing", ended


def test_it_needs_no_root() -> None:
    ended = debian.run("vulkaninfo", "--summary", options=("--userns",))
    assert _nvk(ended)["deviceName"] == "NVIDIA GeForce RTX 2080 Ti (NVK TU102)", ended


@pytest.mark.program("vulkaninfo", debian.BACKPORTS)
def test_the_nvk_of_backports_finds_the_device_too() -> None:
    nvk = _nvk(debian.run("vulkaninfo", "--summary", root=debian.BACKPORTS))
    assert nvk["deviceName"] == "NVIDIA GeForce RTX 2080 Ti (NVK TU102)"


def test_no_call_of_nvk_is_unknown() -> None:
    ended = debian.run("vulkaninfo")
    assert ended.report.startswith("gpuvm: vulkaninfo ended with 0 on TU102"), ended
    assert "unknown calls" not in ended.report, ended
