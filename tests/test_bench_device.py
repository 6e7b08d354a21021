"""The benchmark of the virtual device must not rot: it runs here on little, and no time is asserted."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from bench import run
from bench.device import cases, measure, ways
from bench.device.ways import BARE, DRM_SHIM, GPUVM, NATIVE, Way
from bench.machine import machine
from bench.selfcheck import Disagreement

from compiled import needs_cc

OF_ALL = {call.name for call in cases.CALLS}
OF_ANY_FILE = {call.name for call in cases.CALLS if not call.of_node}


@needs_cc
def test_the_whole_command_on_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "QUICK_DEVICE_ROUNDS", (2, 4))
    samples = tmp_path / "samples.json"
    assert run.main(["--quick", "--part", "device", "--repeats", "2", "--json", str(samples)]) == 0
    printed = capsys.readouterr().out
    for call in cases.CALLS:
        assert f"| {call.title} |" in printed
    for title in ("natively", "drm-shim", "bare notification", "gpuvm run", "gpuvm / floor"):
        assert f" {title} |" in printed
    part = json.loads(samples.read_text())["device"]
    measured: dict[str, set[str]] = {}
    for cell in part["results"]:
        assert len(cell["least"]) == len(cell["medians"]) == 2
        assert all(0 < least <= middle for least, middle in zip(cell["least"], cell["medians"], strict=True))
        measured.setdefault(cell["way"], set()).add(cell["call"])
    for way in (BARE, GPUVM):
        assert way in part["lacking"] or measured[way] == OF_ALL
    assert measured[NATIVE] >= OF_ANY_FILE
    assert DRM_SHIM in part["lacking"] or measured[DRM_SHIM] >= OF_ANY_FILE
    for way in part["lacking"]:
        assert way not in measured
        assert "Not taking part in this run: " in printed
    assert {target["call"] for target in part["targets"]} >= {"getpid", "bind_1", "bind_256"}


@needs_cc
def test_a_column_that_lacks_is_said_and_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on = machine(quick=True)
    monkeypatch.setattr(run, "machine", lambda quick: on)
    monkeypatch.setattr(run, "DEVICE_ROUNDS", (1, 1))
    monkeypatch.setattr(ways, "_ways", lambda _bare: (Way(NATIVE, "natively", (), False), ways._drm_shim()))
    monkeypatch.setattr(ways, "SHIM", tmp_path / "none.so")
    page = tmp_path / "page.md"
    assert run.main(["--part", "device", "--repeats", "1"]) == 0
    printed = capsys.readouterr().out
    assert "Not taking part in this run: drm-shim: no mesa-drm-shim in build/debian13" in printed
    with pytest.raises(SystemExit):
        run.main(["--part", "device", "--repeats", "1", "--write", str(page)])
    assert "--write needs every column; drm-shim: no mesa-drm-shim" in capsys.readouterr().err
    assert not page.exists()


def test_without_a_compiler_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ways, "CC", "no-such-compiler")
    assert run.main(["--quick", "--part", "device"]) == 0
    assert "there is no cc" in capsys.readouterr().out


ROWS = "\n".join(f"{call.name} 100.0 110.0" for call in cases.CALLS)


@pytest.mark.parametrize(
    ("output", "status", "words"),
    [
        (
            ROWS.replace("bind_1 100.0 110.0", "bind_1 - - Invalid argument"),
            0,
            "1 operation: Invalid argument",
        ),
        (ROWS.replace("getpid 100.0 110.0\n", ""), 0, "the program measured read, "),
        (ROWS, 3, "the program ended with 3: a reason"),
    ],
)
def test_who_does_not_answer_is_found_out(output: str, status: int, words: str) -> None:
    done = subprocess.CompletedProcess[str]([], status, output, "a reason\n")
    with pytest.raises(Disagreement, match=words):
        measure._times(Way(GPUVM, "gpuvm run", (), has_node=True), done)
