"""`gpuvm diff`: what it prints, as text and JSON, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from driver_traces import READY
from gpuvm.cli import main
from trace_scenes import records_of_lines, write_sqlite
from tracefile import PAGE, SPARSE_BUFFER, bind, call, gem_close, gem_new, op, write_trace

CALLS = (*READY, gem_new(2), bind(op("map", 32 * PAGE, PAGE, 2)))
NEW = "GEM_NEW({size=0x100000, domain=VRAM|GART} => {handle=2<object 5>}) = 0"
MAP = "VM_BIND({ops=[{MAP, handle=2<object 5>, addr=0x20000, range=0x1000, bo_offset=0}]}) = 0"


def test_no_difference_between_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_trace(tmp_path, *CALLS)
    b = write_sqlite(tmp_path / "b.gpuvm", records_of_lines(*CALLS))
    assert main(["diff", a, b]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [f"A  {a}", f"B  {b}", "", "no difference in 6 calls"]
    assert lines[5].split() == ["A", "B"]
    assert [line.split() for line in lines[6:]] == [
        ["channel_alloc", "1", "1"],
        ["gem_new", "2", "2"],
        ["vm_bind", "2", "2"],
        ["vm_init", "1", "1"],
        ["all", "calls", "6", "6"],
        ["time", "in", "calls,", "ms", "-", "-"],
    ]


def test_the_first_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_trace(tmp_path, *CALLS, gem_close(2), name="a.jsonl")
    refused = {**CALLS[-1], "ret": -22}
    b = write_trace(tmp_path, *CALLS[:-1], call("getparam", param=17), refused, name="b.jsonl")
    assert main(["diff", a, b]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[3:12] == [
        "first difference: a call that A does not have",
        "B  [call 6] client 1  GETPARAM({param=EXEC_PUSH_MAX}) = 0",
        f"after, in A, [call 5] client 1  {NEW}",
        "",
        "next differences",
        "  call A 6, B 7: VM_BIND: result",
        "  call A 7: GEM_CLOSE: only in A",
        "",
        "                                A             B     only in A     only in B        result",
    ]
    rows = {line.split()[0]: line.split()[1:] for line in lines[12:]}
    assert rows["getparam"] == ["0", "1", "0", "1", "0"]
    assert rows["vm_bind"] == ["2", "2", "0", "0", "1"]
    assert rows["all"] == ["calls", "7", "7", "1", "1", "1"]


def test_both_calls_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_trace(tmp_path, *CALLS, name="a.jsonl")
    b = write_trace(tmp_path, *CALLS[:-1], {**CALLS[-1], "ret": -22}, name="b.jsonl")
    assert main(["diff", a, b]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[3:6] == [
        "first difference: another result",
        f"A  [call 6] client 1  {MAP}",
        f"B  [call 6] client 1  {MAP.removesuffix('0')}-1 EINVAL (Invalid argument)",
    ]


def test_a_close_is_called_as_in_dump(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_trace(tmp_path, *CALLS, gem_close(2), call("close"), name="a.jsonl")
    assert main(["diff", a, write_trace(tmp_path, *CALLS, name="b.jsonl")]) == 1
    assert "  call A 8: close: only in A\n" in capsys.readouterr().out


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_trace(tmp_path, *CALLS, name="a.jsonl")
    b = write_trace(tmp_path, *CALLS[:-1], name="b.jsonl")
    assert main(["diff", a, b, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["alike"] == 5
    assert document["differences"] == [{"kind": "only in A", "call": "vm_bind", "a": 6, "b": None}]
    assert document["a"]["calls"] == {"channel_alloc": 1, "gem_new": 2, "vm_bind": 2, "vm_init": 1}
    assert document["b"]["trace"] == b


def test_a_flood_of_differences_is_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_trace(tmp_path, *READY, *[gem_new(2), gem_close(2)] * 10, name="a.jsonl")
    b = write_trace(tmp_path, *READY, name="b.jsonl")
    assert main(["diff", a, b]) == 1
    assert "  and 9 more; --json has them all" in capsys.readouterr().out.splitlines()


def test_unusable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(SPARSE_BUFFER), str(tmp_path / "nowhere")]) == 2
    assert "nowhere: cannot open" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["diff", "-", "-"])
    assert caught.value.code == 2
