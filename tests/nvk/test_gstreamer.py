"""Debian's GStreamer: frames that pass through images in VRAM come out byte by byte as they went in."""

from __future__ import annotations

import pytest

from nvk import debian

pytestmark = pytest.mark.program("gst-launch-1.0")

SIZES = [(64, 64), (318, 202), (1000, 7), (1, 1), (7, 1000), (1280, 720)]


def _pipeline(pattern: str, layout: str, width: int, height: int, *through: str) -> list[str]:
    caps = f"video/x-raw,format={layout},width={width},height={height}"
    source = ["videotestsrc", "num-buffers=3", f"pattern={pattern}"]
    elements = [source, [caps], *([element] for element in through), ["fdsink", "fd=1"]]
    words = [word for element in elements for word in ["!", *element]][1:]
    return ["gst-launch-1.0", "-q", *words]


@pytest.mark.parametrize("layout", ["RGBA", "BGRA"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_bytes_that_went_in_come_out(layout: str, width: int, height: int) -> None:
    pipeline = _pipeline("smpte", layout, width, height)
    expected = debian.run_on_lavapipe(*pipeline)
    assert expected.status == 0, expected
    assert len(expected.output) == 3 * width * height * 4, expected
    ended = debian.run(*_pipeline("smpte", layout, width, height, "vulkanupload", "vulkandownload"))
    assert ended.status == 0, ended
    assert ended.output == expected.output, ended
    assert ended.row("bytes moved") != "none", ended
    assert ended.row("faults") == "none", ended


def test_in_a_user_namespace() -> None:
    expected = debian.run_on_lavapipe(*_pipeline("smpte", "RGBA", 318, 202))
    pipeline = _pipeline("smpte", "RGBA", 318, 202, "vulkanupload", "vulkandownload")
    ended = debian.run(*pipeline, options=("--userns",))
    assert ended.status == 0, ended
    assert ended.output == expected.output, ended
