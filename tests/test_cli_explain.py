"""`gpuvm explain`: the drawing, the ops and the reasons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpuvm.cli import main
from tracefile import PAGE, STREAMING, bind, gem_close, gem_new, op, vm_init, write, write_trace

SPACE = """\
init 0 0x100000 0xf0000 0x10000
map 0x0 0x4000 1 0
map 0x4000 0x1000 2 0x1000
map 0x5000 0x3000 1 0x5000
map 0x8000 0x1000 0 0
"""

KEEP = "keep, for the request maps the same bytes of the same object there: page-table entries may stay."


@pytest.fixture
def space(tmp_path: Path) -> str:
    return write(tmp_path, SPACE, "space.txt")


def explained(
    request: str, path: str, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0
) -> str:
    assert main(["explain", request, "--on", path, *arguments]) == code
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "\x1b" not in captured.out
    return captured.out


def document(
    request: str, path: str, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0
) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(explained(request, path, capsys, "--json", *arguments, code=code))
    return found


def test_old_request_and_new_are_drawn(space: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = explained("map 0x2000 0x4000 bo=1 off=0x2000", space, capsys)
    assert out.splitlines()[2:8] == [
        "     0x0                      0x4000          0x5000                      0x8000",
        "old: |------ bo 1 +0x0 -------|- bo 2 +0x1000 |------- bo 1 +0x5000 ------|",
        "                  0x2000                                  0x6000",
        "req:              |------------- bo 1 +0x2000 ------------|",
        "     0x0          0x2000                                  0x6000          0x8000",
        "new: | bo 1 +0x0 -|------------- bo 1 +0x2000 ------------|- bo 1 +0x6000 |",
    ]


def test_ops_have_numbers_and_reasons(space: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = explained("map 0x2000 0x4000 bo=1 off=0x2000", space, capsys).splitlines()[9:]
    assert lines == [
        "  1. remap [0x0, 0x4000) range 0x4000, bo 1, offset 0x0, keep",
        "     prev [0x0, 0x2000) range 0x2000, bo 1, offset 0x0",
        "     next none",
        "     The mapping begins before the request, so its first 0x2000 bytes stay "
        f"(prev, offset unchanged); {KEEP}",
        "",
        "  2. unmap [0x4000, 0x5000) range 0x1000, bo 2, offset 0x1000",
        "     The mapping lies wholly inside the request, so all of it goes; no keep, because the request "
        "puts another object there.",
        "",
        "  3. remap [0x5000, 0x8000) range 0x3000, bo 1, offset 0x5000, keep",
        "     prev none",
        "     next [0x6000, 0x8000) range 0x2000, bo 1, offset 0x6000",
        "     The mapping ends after the request, so its last 0x2000 bytes stay "
        f"(next, offset 0x5000 + 0x1000); {KEEP}",
        "",
        "  4. map [0x2000, 0x6000) range 0x4000, bo 1, offset 0x2000",
        "     This is the request itself: the one map, always last, after all that was in its way.",
    ]


@pytest.mark.parametrize(
    ("request_", "reasons"),
    [
        ("unmap 0x1000 0x1000", ["reaches over both ends", "are cleared"]),
        ("unmap 0x9000 0x1000", ["no ops. Nothing is mapped in the range; an unmap of a hole is free."]),
        ("prefetch 0x9000 0x1000", ["a prefetch of a hole is free"]),
        ("prefetch 0x3fff 2", ["prefetch [0x0, 0x4000)", "prefetch [0x4000, 0x5000)", "does not clip"]),
        ("map 0x4000 0x1000 bo=2", ["is exactly the requested range", "offset at 0x4000 is 0x1000, not 0x0"]),
        ("map 0x8000 0x1000", ["a mapping without object never counts as the same"]),
        ("map 0x0 0x9000 bo=3", ["4. unmap", "5. map"]),
    ],
)
def test_reasons(request_: str, reasons: list[str], space: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = explained(request_, space, capsys)
    for reason in reasons:
        assert reason in out


def test_reasons_of_a_merge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "init 0 0x100 0 0\nmap 0 0x10 1 0\nmap 0x20 0x10 1 0x20\n")
    out = explained("map 0x10 0x10 bo=1 off=0x10", path, capsys, "--merge", "always")
    assert "merge policy always" in out
    assert "It meets the request at 0x10 and continues its object, so policy always merges it." in out
    assert "It meets the request at 0x20" in out
    assert "grown on the left and the right" in out
    out = explained("map 0x2 0x2 bo=1 off=0x2", path, capsys, "--merge", "always")
    assert "The same bytes of the same object are mapped there already" in out
    out = explained("map 0x8 0x10 bo=1 off=0x8", path, capsys, "--merge", "always")
    assert "It sticks out of the request but continues its object" in out


def test_json(space: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = document("map 0x1000 0x1000 bo=2", space, capsys)
    assert {key: found[key] for key in ("file", "line", "client", "merge", "err")} == {
        "file": space,
        "line": 5,
        "client": None,
        "merge": "never",
        "err": 0,
    }
    assert found["request"] == {"op": "map", "addr": 0x1000, "range": 0x1000, "bo": 2, "offset": 0}
    assert [one["addr"] for one in found["old"]] == [0]
    assert [one["op"] for one in found["ops"]] == ["remap", "map"]
    assert found["ops"][0]["next"] == {"addr": 0x2000, "range": 0x2000, "bo": 1, "offset": 0x2000}
    assert all(one["why"].endswith(".") for one in found["ops"])
    assert [(one["addr"], one["bo"]) for one in found["new"]] == [(0, 1), (0x1000, 2), (0x2000, 1)]


@pytest.mark.parametrize(
    "request_", ["map 0xf0000 1", "map 0 0", "unmap 0xfffff 2", "map 0xffffffffffffffff 2 bo=1"]
)
def test_a_refused_request_is_1(request_: str, space: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = explained(request_, space, capsys, code=1)
    assert "refused, nothing changes: " in out
    assert out.endswith("[EINVAL]\n")
    found = document(request_, space, capsys, code=1)
    assert (found["err"], found["ops"]) == (-22, [])
    assert "EINVAL" in found["why"]


def test_an_empty_request_to_an_empty_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = explained("map 0 0", write(tmp_path, "init 0 16 0 0"), capsys, code=1)
    assert "old: (nothing)" in out
    assert "refused" in out


def test_many_mappings_are_drawn_together(capsys: pytest.CaptureFixture[str]) -> None:
    out = explained("unmap 0x3f5aa40000 0x40000000", str(STREAMING), capsys, "--until", "10548")
    assert " more ~" in out
    assert out.count(" unmap [") == 2310
    assert "page-table entries of the part that goes become sparse again" in out
    assert max(len(line) for line in out.splitlines()[2:9]) <= 140


def test_bo_is_a_handle_in_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls = (vm_init(), gem_new(3), bind(op("map", 0, 2 * PAGE, 3)), gem_close(3))
    path = write_trace(tmp_path, *calls)
    assert "keep" in document("map 0 0x1000 bo=3", path, capsys)["ops"][0]["why"]
    assert main(["explain", "map 0 0x1000 bo=4", "--on", path]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"gpuvm: {path}:4: no object of client 1 had handle 4 so far\n"


def test_until_and_client(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls = (vm_init(1), vm_init(2), gem_new(3, client=2), bind(op("map", 0, PAGE, 3), client=2))
    path = write_trace(tmp_path, *calls)
    assert document("unmap 0 0x1000", path, capsys)["client"] == 2
    assert document("unmap 0 0x1000", path, capsys, "--until", "3")["ops"] == []
    assert document("unmap 0 0x1000", path, capsys, "--client", "1")["ops"] == []


@pytest.mark.parametrize(
    ("request_", "column", "message"),
    [
        ("", 1, "expected map, unmap or prefetch"),
        ("remap 1 2", 1, "not 'remap'"),
        ("map 1", 6, "map takes 2 numbers, not 1: map ADDR RANGE [bo=N] [off=BYTES]"),
        ("unmap 1 2 3", 11, "unmap takes 2 numbers, not 3"),
        ("map 1 2 bo=x", 12, "bo is not a number: 'x'"),
        ("map 1 2 size=3", 9, "unknown 'size'"),
        ("unmap 1 2 bo=1", 11, "unknown 'bo'"),
        ("map -1 2", 5, "ADDR is negative: -1"),
        ("map 1 0x10000000000000000", 7, "RANGE is above 2^64-1"),
    ],
)
def test_a_request_that_is_none(
    request_: str, column: int, message: str, space: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", request_, "--on", space]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"gpuvm: <request>:1:{column}: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
