"""The data of a page: columns, bundles, curves; and what `gpuvm view` says."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvm.cli import main
from gpuvm.report.page import page, tables
from gpuvm.report.page.bundles import Mappings, bundled
from gpuvm.report.page.columns import column, halves, unsigned
from gpuvm.report.page.curves import curve
from gpuvm.report.page.document import page_document
from gpuvm.trace.errors import TraceError
from gpuvm.trace.trace import Trace
from gpuvm.va import GpuvaManager
from trace_scenes import trace_of
from tracefile import REPOSITORY, bind, gem_new, op, vm_init, write_trace
from viewer_scenes import SIZE, TEXTURE, TILE, UNMAP, many_mappings, write_scene

VIEWER = REPOSITORY / "viewer"
PAGE = 0x1000


def numbers(written: dict[str, Any]) -> np.ndarray[Any, np.dtype[Any]]:
    """A column, read as the page reads it."""
    kind = np.dtype(
        {"u": "<u", "i": "<i", "f": "<f"}[written["type"][0]] + str(int(written["type"][1:]) // 8)
    )
    data = np.frombuffer(zlib.decompress(base64.b64decode(written["data"])), dtype=np.uint8)
    values = np.ascontiguousarray(data.reshape(kind.itemsize, -1).T).view(kind).reshape(-1)
    return values.cumsum(dtype=kind) if written["delta"] else values


@given(st.lists(st.integers(0, (1 << 53) - 1)))
def test_columns_come_back(values: list[int]) -> None:
    for delta in (False, True):
        written = column(np.array(values, dtype=np.int64), "f64", delta=delta)
        if not delta or sorted(values) == values:
            assert numbers(written).tolist() == values


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1)))
def test_addresses_keep_each_bit(values: list[int]) -> None:
    high, low = halves(np.array(values, dtype=np.int64))
    assert [int(one) << 32 | int(other) for one, other in zip(high, low, strict=True)] == [
        v % (1 << 64) for v in values
    ]
    assert (unsigned(np.array(values, dtype=np.int64)) >= 0).all()


def test_the_scene(tmp_path: Path) -> None:
    with Trace.open(str(write_scene(tmp_path / "t.gpuvm"))) as trace:
        document = page_document(trace, None)
        columns = {name: numbers(written).tolist() for name, written in document["columns"].items()}
        rows = trace.db.execute(
            "SELECT addr, range, born, coalesce(died, 17) FROM mappings ORDER BY born, id"
        )
        expected = [tuple(row) for row in rows]
    assert columns["calls.id"] == [*range(1, 17)]
    found = [
        (addr, size, born + 1, died + 1)
        for addr, size, born, died in zip(
            *(columns[f"mappings.{name}"] for name in ("addr", "range", "born", "died")), strict=True
        )
    ]
    assert found == expected
    assert (TEXTURE + 2 * TILE, SIZE - 2 * TILE, UNMAP, 17) in found
    assert columns["ops.maps"] == [1, 1, 0, 0, 1, 0]
    assert columns["ops.remaps"] == [0, 0, 1, 0, 0, 0]
    assert columns["jobs.error"] == [0, 5]
    assert columns["moves.evicted"] == [0, 1]
    assert document["places"] == ["vram", "gart"]
    (fault,) = document["faults"]
    assert (fault["addr"], fault["unmapped"], fault["call"]) == (TEXTURE + TILE, UNMAP, 7)
    json.dumps(document, allow_nan=False)


@given(st.data())
def test_curves_are_the_managers_statistics(data: st.DataObject) -> None:
    space = 64 * PAGE
    kernel = (40 * PAGE, 8 * PAGE) if data.draw(st.booleans()) else None
    vm = GpuvaManager("t", range=space, kernel_node=kernel)
    expected: list[tuple[int, int, float]] = []
    mappings: list[tuple[int, int, int, int]] = []
    alive: dict[tuple[int, int], int] = {}
    steps = data.draw(st.lists(st.tuples(st.booleans(), st.integers(0, 39), st.integers(1, 12)), min_size=1))
    for call, (maps, first, size) in enumerate(steps):
        size = min(size, 40 - first)
        (
            vm.sm_map(first * PAGE, size * PAGE, "o") if maps else vm.sm_unmap(first * PAGE, size * PAGE)
        ).apply()
        now = {(va.addr, va.end) for va in vm.mappings() if not va.kernel}
        for gone in alive.keys() - now:
            mappings.append((*gone, alive.pop(gone), call))
        for new in now - alive.keys():
            alive[new] = call
        statistics = vm.statistics()
        expected.append((statistics.mapped_bytes, statistics.mappings, statistics.fragmentation))
    mappings += [(*extent, born, len(steps)) for extent, born in alive.items()]
    if not mappings:
        return
    addr, end, born, died = (np.array(part, dtype=np.int64) for part in zip(*mappings, strict=True))
    made = curve(addr, end, born, died, kernel, space)
    assert made.every == 1
    for call, mapped, count, fragmentation in zip(
        made.call, made.mapped, made.count, made.fragmentation, strict=True
    ):
        if call < len(steps):
            assert (mapped, count) == expected[call][:2]
            assert fragmentation == pytest.approx(expected[call][2], abs=1e-8)


@given(st.integers(0, 2**32 - 1), st.integers(2, 400))
def test_bundles_hold_all_and_only_what_they_bundle(seed: int, most: int) -> None:
    drawn = np.random.default_rng(seed)
    count = int(drawn.integers(1, 800))
    born = np.sort(drawn.integers(0, 300, count))
    whole = Mappings(
        client=drawn.integers(0, 3, count),
        addr=drawn.integers(0, 1 << 16, count) * PAGE,
        range=drawn.integers(1, 16, count) * PAGE,
        object=np.arange(count),
        offset=np.zeros(count, dtype=np.int64),
        kind=np.zeros(count, dtype=np.int64),
        born=born,
        died=born + drawn.integers(1, 100, count),
        members=np.ones(count, dtype=np.int64),
    )
    made = bundled(whole, most)
    assert made.members.sum() == count
    assert (np.diff(made.born) >= 0).all()
    if count <= most:
        assert made is whole
        return
    single = made.members == 1
    kept = set(made.object[single].tolist())
    assert (made.died - made.born)[~single].size == 0 or made.longest > 0
    for item in range(count):
        if item in kept:
            continue
        assert whole.died[item] - whole.born[item] <= made.longest
        inside = (
            (made.client == whole.client[item])
            & (made.addr <= whole.addr[item])
            & (made.addr + made.range >= whole.addr[item] + whole.range[item])
            & (made.born <= whole.born[item])
            & (made.died >= whole.died[item])
        )
        assert inside.any()
    mapped = made.range[single].sum() + made.offset[~single].sum()
    assert mapped == whole.range.sum()


def test_more_calls_than_a_page_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_CALLS", 3)
    with pytest.raises(TraceError, match=r"4 calls are more than a page holds, 3: `gpuvm trim` cuts"):
        page(trace_of(*(vm_init(client) for client in range(1, 5))))


def test_ops_and_accesses_that_are_too_many_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MOST_OPS", 3)
    monkeypatch.setattr(tables, "MOST_ACCESSES", 1)
    with Trace.open(str(write_scene(tmp_path / "t.gpuvm"))) as trace:
        document = page_document(trace, None)
    assert [note.split(" are more")[0] for note in document["notes"]] == [
        "6 ops of VM_BINDs",
        "2 accesses of engines",
    ]
    assert numbers(document["columns"]["ops.call"]).size == 0


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = write_trace(tmp_path, vm_init(1), gem_new(1), bind(op("map", TEXTURE, PAGE, 1)))
    out = str(tmp_path / "out.html")
    assert main(["view", trace, "-o", out]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"written: {out}, ")
    assert main(["view", trace, "-o", out]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["view", trace, "-o", out, "-f", "--client", "1"]) == 0
    capsys.readouterr()
    assert main(["view", trace, "-o", out, "-f", "--client", "9"]) == 2
    assert "there is no client 9; clients: 1" in capsys.readouterr().err
    assert os.path.getsize(out) > 100_000


def test_hostile_values_are_no_traceback(tmp_path: Path) -> None:
    far = (1 << 64) - PAGE
    refused = bind(op("map", far, far, 0xFFFFFFFF, far, 0xFFFFFFFF), ret=-22)
    trace = trace_of(vm_init(0xFFFFFFFF), {**refused, "client": 0xFFFFFFFF})
    columns = page_document(trace, None)["columns"]
    assert numbers(columns["ops.addr_high"]).tolist() == [0xFFFFFFFF]
    assert numbers(columns["ops.addr_low"]).tolist() == [0xFFFFF000]


def test_large_traces_make_small_pages() -> None:
    text = page(trace_of(*many_mappings(3000, 300)))
    assert len(text) < 300_000


@pytest.mark.skipif(
    shutil.which("npx") is None or not (VIEWER / "node_modules").is_dir(), reason="no npm; make test says why"
)
def test_the_viewers_own_tests() -> None:
    ran = subprocess.run(
        ["npx", "vitest", "run", "--reporter=dot"],
        cwd=VIEWER,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
