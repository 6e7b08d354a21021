"""The program of the tutorial: it always breaks in the same way, and `check` and `why` say what it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from compiled import compiled, needs_cc
from gpuvm.cli import main
from running import both_modes, gpuvm_run

EXAMPLES = Path(__file__).parent.parent / "examples"
SHOWN = "abcd bcde cdef defg efgh fghi ghij hijk ijkl hijk ghij fghi"
HOME = "efgh defg cdef bcde abcd"
TILE_H = "0x100070000"


def program() -> str:
    return compiled("broken_streaming", folder=EXAMPLES)


@needs_cc
@both_modes
@pytest.mark.parametrize("chip", ["turing", "ampere"])
def test_it_breaks_in_the_same_frame(mode: tuple[str, ...], chip: str) -> None:
    ran = gpuvm_run(program(), options=(*mode, "--chipset", chip))
    assert (ran.status, ran.out) == (1, f"{SHOWN} fghi")
    assert ran.err.startswith("\nbroken: frame 13: EXEC: No such device\n")
    assert re.fullmatch(
        rf'READ of {TILE_H} by channel 1 of ".*", copy: PTE, use after unmap', ran.report["faults"]
    )


@needs_cc
def test_the_fixed_one_gets_home_and_leaves_nothing() -> None:
    ran = gpuvm_run(program(), "--fixed")
    assert (ran.status, ran.out) == (0, f"{SHOWN} {HOME}\n")
    assert (ran.report["faults"], ran.report["left at exit"]) == ("none", "nothing")


@needs_cc
def test_check_and_why_name_the_exec_and_the_bind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = str(tmp_path / "broken.gpuvm")
    assert gpuvm_run(program(), verb="record", options=("-o", trace)).status == 1
    assert main(["why", trace, TILE_H, "--json"]) == 0
    why = json.loads(capsys.readouterr().out)["clients"][0]
    job, bind = why["calls"]
    assert why["verdict"].startswith(f"unmapped by call {bind} (vm_bind), ")
    queued = f"after call {job} (exec on channel 1) was queued, which reads it and had not ended"
    assert queued in why["verdict"]
    assert [event["call"] for event in why["events"] if event["kind"] == "unmapped"] == [bind]
    assert [event["call"] for event in why["events"] if event["kind"] == "faulted"] == [job]
    assert main(["check", trace]) == 99
    found = f"call {job} (exec on channel 1) reads {TILE_H} and faults: call {bind} (vm_bind) unmaps it"
    assert found in capsys.readouterr().out


@needs_cc
def test_check_finds_nothing_in_the_fixed_one() -> None:
    ran = gpuvm_run(program(), "--fixed", verb="check")
    assert (ran.status, ran.out) == (0, f"{SHOWN} {HOME}\n")
    assert "nothing found" in ran.err


def test_it_is_read_in_five_minutes() -> None:
    text = (EXAMPLES / "broken_streaming.c").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 230
    assert max(map(len, text.splitlines())) <= 110
