"""The example of two programs that share a buffer: what it prints, and that it stays short."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "shared_buffer.py"


def test_the_reader_has_the_words_where_the_tiles_are(capsys: pytest.CaptureFixture[str]) -> None:
    device = runpy.run_path(str(EXAMPLE))["device"]
    assert capsys.readouterr().out == ".B..I.N......D..\n.E..X.E......C..\n.D..O.N......E..\n"
    assert (device.clients, [*device.faults], device.statistics().memory.objects) == ((), [], 0)


def test_it_is_read_in_a_minute() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 60
