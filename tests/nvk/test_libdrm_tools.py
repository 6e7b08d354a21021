"""Debian's small tools: what of libdrm's own concerns a render node, and IGT's list of devices."""

from __future__ import annotations

import pytest

from nvk import debian


@pytest.mark.program("drmdevice")
def test_drmdevice_finds_one_pci_device_with_two_nodes_and_opens_both() -> None:
    ended = debian.run("drmdevice")
    assert ended.status == 0, ended
    assert "--- Devices reported 1 ---" in ended.text, ended
    for line in (
        "available_nodes 0x05",
        "nodes[0] /dev/dri/card0",
        "nodes[2] /dev/dri/renderD128",
        "vendor_id     10de",
        "device_id     1e04",
    ):
        # Once in the list of devices, and once for each of the two nodes that it then opens.
        assert ended.text.count(line) == 3, ended
    assert "Failed" not in ended.text, ended


@pytest.mark.program("modetest")
@pytest.mark.parametrize(("tool", "status"), [("modetest -p", 255), ("proptest", 1), ("vbltest", 1)])
def test_tools_for_displays_find_a_device_that_drives_none(tool: str, status: int) -> None:
    ended = debian.run(*tool.split())
    assert ended.status == status, ended
    assert "trying to open device '/dev/dri/card0'... is not a KMS device" in ended.text, ended
    assert "no device found" in ended.errors, ended


@pytest.mark.program("modetest")
def test_one_that_insists_on_nouveau_is_told_that_it_sets_no_modes() -> None:
    ended = debian.run("modetest", "-M", "nouveau")
    assert ended.status == 1, ended
    assert "driver `nouveau` (version 1.4.0" in ended.text, ended
    assert "drmModeGetResources failed: Operation not supported" in ended.errors, ended


@pytest.mark.program("lsgpu")
def test_lsgpu_lists_the_card_and_its_render_node() -> None:
    ended = debian.run("lsgpu")
    assert ended.status == 0, ended
    assert "/dev/dri/card0" in ended.text, ended
    assert "/dev/dri/renderD128" in ended.text, ended
