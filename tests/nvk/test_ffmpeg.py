"""Debian's FFmpeg: its Vulkan filters run to their end, and the report names the shaders not executed.

What hwdownload returns says nothing about the device: FFmpeg 7.1.5, without host-memory import, copies it
on the CPU into the mapped buffer instead of out of that. So only the number of frames is looked at.
"""

from __future__ import annotations

import pytest

from nvk import debian

pytestmark = pytest.mark.program("ffmpeg")

FRAMES, WIDTH, HEIGHT = 10, 320, 240
DISPATCH = "TURING_COMPUTE_A SEND_SIGNALING_PCAS_B"  # the method that starts a compute shader


def _filtered(*filters: str) -> debian.Ended:
    chain = ",".join(["format=rgba", "hwupload", *filters, "hwdownload", "format=rgba"])
    return debian.run(
        *("ffmpeg", "-hide_banner", "-nostdin", "-loglevel", "verbose"),
        *("-init_hw_device", "vulkan=gpu:0", "-filter_hw_device", "gpu"),
        *("-f", "lavfi", "-i", f"testsrc=size={WIDTH}x{HEIGHT}:rate={FRAMES}:duration=1"),
        *("-vf", chain, "-f", "rawvideo", "pipe:1"),
        timeout=120,
    )


def test_frames_go_up_and_down() -> None:
    ended = _filtered()
    assert ended.status == 0, ended
    assert len(ended.output) == FRAMES * WIDTH * HEIGHT * 4, ended
    assert "NVK" in ended.errors, ended
    assert DISPATCH not in ended.row("not executed"), ended


@pytest.mark.parametrize(
    ("shader", "width", "height"), [("avgblur_vulkan", WIDTH, HEIGHT), ("scale_vulkan=w=160:h=120", 160, 120)]
)
def test_a_filter_of_shaders_runs_to_its_end_and_its_dispatches_are_named(
    shader: str, width: int, height: int
) -> None:
    ended = _filtered(shader)
    assert ended.status == 0, ended
    assert len(ended.output) == FRAMES * width * height * 4, ended
    assert "NVK" in ended.errors, ended
    assert f"{FRAMES} dispatches ({DISPATCH})" in ended.row("not executed"), ended
