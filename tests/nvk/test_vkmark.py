"""Debian's vkmark presents to a surface without a window: nothing is drawn here, and nothing hangs.

Mesa 25.0 cannot do that with a driver that does not scan out, on any device: its headless swapchain submits
command buffers that it never made (issue 12534, mended since). So scenes run with the NVK of backports.
"""

from __future__ import annotations

import signal

import pytest

from nvk import debian

SCENES = ["clear", "cube", "vertex", "texture", "shading", "desktop", "effect2d"]


def _scene(scene: str) -> list[str]:
    return ["vkmark", "--winsys", "headless", "--size", "320x240", "-b", f"{scene}:duration=0.2"]


@pytest.mark.program("vkmark", debian.BACKPORTS)
@pytest.mark.parametrize("scene", SCENES)
def test_a_scene_runs_to_its_end(scene: str) -> None:
    ended = debian.run(*_scene(scene), root=debian.BACKPORTS, timeout=120)
    assert ended.status == 0, ended
    assert "NVK" in ended.text, ended
    assert f"[{scene}] duration=0.2: FPS:" in ended.text, ended
    assert "vkmark Score" in ended.text, ended
    assert ended.row("faults") == "none", ended
    assert ended.row("left at exit") == "nothing", ended


@pytest.mark.program("vkmark")
def test_where_mesa_dies_in_itself_so_does_the_run_and_all_is_released() -> None:
    ended = debian.run(*_scene("clear"))
    assert ended.status == -signal.SIGSEGV, ended
    assert "was killed by SIGSEGV" in ended.report, ended
    assert ended.row("faults") == "none", ended
    assert "objects" in ended.row("left at exit"), ended
