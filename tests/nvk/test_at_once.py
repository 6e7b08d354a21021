"""Four programs at once: each under its own `gpuvm run`, and all four as processes of one, on one device."""

from __future__ import annotations

import shlex
from concurrent.futures import ThreadPoolExecutor

import pytest

from nvk import debian

pytestmark = [pytest.mark.program("gst-launch-1.0"), pytest.mark.program("ffmpeg")]

WIDTH, HEIGHT, FRAMES = 318, 202, 20
CAPS = f"video/x-raw,format=RGBA,width={WIDTH},height={HEIGHT}"
SOURCE = ["gst-launch-1.0", "-q", "videotestsrc", f"num-buffers={FRAMES}", "!", CAPS, "!"]
SINK = ["fdsink", "fd=1"]
FRAMES_THROUGH_VRAM = [*SOURCE, "vulkanupload", "!", "vulkandownload", "!", *SINK]
FILTER = [
    *("ffmpeg", "-hide_banner", "-nostdin", "-loglevel", "error"),
    *("-init_hw_device", "vulkan=gpu:0", "-filter_hw_device", "gpu"),
    *("-f", "lavfi", "-i", "testsrc=size=320x240:rate=10:duration=1"),
    *("-vf", "format=rgba,hwupload,avgblur_vulkan,hwdownload,format=rgba", "-f", "null", "-"),
]
INFO = ["vulkaninfo"]
TIMEOUT = 240


@pytest.fixture(scope="module")
def frames() -> bytes:
    ended = debian.run_on_lavapipe(*SOURCE, *SINK)
    assert ended.status == 0, ended
    assert len(ended.output) == FRAMES * WIDTH * HEIGHT * 4, ended
    return ended.output


def test_four_runs_at_once(frames: bytes) -> None:
    programs = [FRAMES_THROUGH_VRAM, FILTER, INFO, FRAMES_THROUGH_VRAM]
    with ThreadPoolExecutor(len(programs)) as pool:
        runs = [pool.submit(debian.run, *program, timeout=TIMEOUT) for program in programs]
        ended = [run.result() for run in runs]
    for run in ended:
        assert run.status == 0, run
    assert ended[0].output == frames, ended[0]
    assert ended[3].output == frames, ended[3]


def test_four_processes_on_one_device(frames: bytes) -> None:
    """Two upload and download frames, one filters, one asks; what fails fails the shell."""
    script = f"""
        {shlex.join(FRAMES_THROUGH_VRAM)} >/tmp/$$.first & first=$!
        {shlex.join(FILTER)} & filter=$!
        {shlex.join(INFO)} >/tmp/$$.info & info=$!
        {shlex.join(FRAMES_THROUGH_VRAM)} >/tmp/$$.second & second=$!
        wait $first && wait $filter && wait $info && wait $second || exit
        cat /tmp/$$.first /tmp/$$.second
        rm /tmp/$$.first /tmp/$$.second /tmp/$$.info
    """
    ended = debian.run("sh", "-c", script, timeout=TIMEOUT)
    assert ended.status == 0, ended
    assert ended.output == 2 * frames, ended
