"""What goes into the tables comes out again: the same records, the same output of verbs, the same results."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuvm.cli import main
from gpuvm.trace import recorded
from gpuvm.trace.call_fields import FIELDS
from gpuvm.trace.call_numbers import NUMBERS
from gpuvm.trace.driver_replay import DriverReplay
from gpuvm.trace.jsonl import read_records
from gpuvm.trace.recorded import BindOp, Push, Record, Sync
from gpuvm.trace.source import Source
from gpuvm.trace.trace import Form, Trace
from random_traces import random_records, renumbered
from suite import scaled
from trace_scenes import records_of_lines, trace_of_records, write_sqlite
from tracefile import (
    SPARSE_BUFFER,
    STREAMING,
    VULKANINFO,
    bind,
    call,
    gem_new,
    op,
    records_in,
    vm_init,
    write_trace,
)

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
S32 = st.integers(-(2**31), 2**31 - 1)
_RET = st.sampled_from([-2, -22])
_OPS = st.builds(BindOp, st.integers(0, 1), U32, U32, st.just(0), U64, U64, U64)
_SYNCS = st.lists(st.builds(Sync, U32, U32, U64), max_size=3).map(tuple)
_PUSHES = st.lists(st.builds(Push, U64, U64, U32), max_size=3).map(tuple)
_FEW = st.integers(1, 3)


def _head(ret: st.SearchStrategy[int]) -> tuple[st.SearchStrategy[int], ...]:
    return st.just(0), U64, st.sampled_from([1, 2, 2**64 - 1]), ret


def _field(field: Any, refused: bool) -> st.SearchStrategy[Any]:
    if refused and field.result:
        return st.just(field.default)
    number = st.integers(field.least, field.most)
    value = st.lists(number, max_size=3).map(tuple) if field.many else number
    return value if field.needed else st.just(field.default) | value


def _others(name: str, refused: bool) -> st.SearchStrategy[Record]:
    kind, told = FIELDS[name]
    ret = _RET if refused else st.just(0)
    built = st.builds(kind, *_head(ret), st.just(name), *[_field(field, refused) for field in told])
    needed = [field.name for field in told if field.needed]
    if not needed:
        return built
    return built | st.builds(recorded.Untold, *_head(ret), st.just(name), st.sampled_from(needed))


_ANY = st.one_of(
    st.builds(recorded.VmInit, *_head(_RET), U64, U64),
    st.builds(recorded.VmInit, *_head(st.just(0)), st.just(1 << 39), st.just(1 << 39)),
    st.builds(recorded.GemNew, *_head(_RET), st.just(0), U64, U32, U32, U32, U32),
    st.builds(recorded.GemNew, *_head(st.just(0)), _FEW, U64, U32, U32, U32, U32),
    *[
        st.builds(recorded.GemImport, *_head(ret), st.just(name), handle, st.none() | S32)
        for name in ("gem_open", "prime_fd_to_handle")
        for ret, handle in ((_RET, st.just(0)), (st.just(0), _FEW))
    ],
    st.builds(recorded.GemClose, *_head(_RET | st.just(0)), _FEW),
    st.builds(
        recorded.VmBind, *_head(_RET | st.just(0)), st.lists(_OPS, max_size=3).map(tuple), U32, _SYNCS, _SYNCS
    ),
    st.builds(recorded.Submission, *_head(_RET | st.just(0)), _PUSHES, st.none() | U32, _SYNCS, _SYNCS),
    *[_others(name, refused) for name in FIELDS for refused in (False, True)],
)


@given(st.lists(_ANY, min_size=1, max_size=12))
def test_every_record_comes_back(drawn: list[Record]) -> None:
    records = [replace(record, line=line) for line, record in enumerate(drawn, 1)]
    with trace_of_records(records) as trace:
        assert list(trace.records()) == records
        for record in records:
            assert trace.call(record.line) == record
        for client in (1, 2, 2**64 - 1):
            assert list(trace.records(client=client)) == [one for one in records if one.client == client]
        trace.check()


def test_every_call_has_a_number_and_every_record_a_field_strategy() -> None:
    named = {"vm_bind", "vm_init", "exec", "gem_new", "gem_close", "gem_open", "prime_fd_to_handle"}
    assert NUMBERS.keys() == FIELDS.keys() | named
    assert len(set(NUMBERS.values())) == len(NUMBERS)
    for kind, told in FIELDS.values():
        own = [field.name for field in fields(kind)][len(fields(recorded.Other)) :]
        assert own == [field.name for field in told]


@settings(max_examples=scaled(20, 300))
@given(random_records(scaled(16, 60)))
def test_what_a_driver_answered_comes_back(records: list[Record]) -> None:
    with trace_of_records(renumbered(records)) as trace:
        assert list(trace.records()) == renumbered(records)
        assert not trace.db.execute("SELECT * FROM doubts").fetchall()
        trace.check()


@pytest.mark.parametrize("path", [SPARSE_BUFFER, VULKANINFO], ids=lambda path: path.name)
def test_the_examples_come_back_from_a_file(tmp_path: Path, path: Path) -> None:
    records = records_in(path)
    with Trace.open(write_sqlite(tmp_path / "app.gpuvm", records)) as trace:
        assert trace.form is Form.SQLITE
        assert trace.whole
        assert list(trace.records()) == records
        assert trace.last_call() == records[-1].line
        trace.check()
    with DriverReplay(path.name, records) as replay:
        assert not replay.run(trace_records(tmp_path / "app.gpuvm")).differences


def trace_records(path: Path) -> list[Record]:
    with Trace.open(str(path)) as trace:
        return list(trace.records())


def test_numbers_of_lines_have_gaps(tmp_path: Path) -> None:
    path = tmp_path / "gaps.jsonl"
    lines = Path(write_trace(tmp_path, vm_init(), gem_new(1), gem_new(2))).read_text().splitlines()
    path.write_text("\n\n".join(lines) + "\n\n")
    with Trace.open(str(path)) as trace:
        assert trace.form is Form.JSON_LINES
        assert [record.line for record in trace.records()] == [1, 3, 5]
        assert [record.line for record in trace.records(first=2, last=4)] == [3]
        assert trace.last_call() == 5


def test_more_calls_than_are_fetched_at_a_time() -> None:
    count = scaled(4500, 20_000)
    records = records_of_lines(vm_init(), *[call("getparam", param=n) for n in range(count)])
    with trace_of_records(records) as trace:
        assert list(trace.records()) == records
        assert [one.line for one in trace.records(first=count)] == [count, count + 1]


def _printed(capsys: pytest.CaptureFixture[str], name: str, *words: str) -> tuple[int, str]:
    code = main(list(words))
    printed = capsys.readouterr().out.replace(name, "TRACE").replace("calls 1-", "lines 1-")
    return code, re.sub(r"(time per request|wall time|bind ops per).*", "", printed)


VERBS = [
    ["replay"],
    ["replay", "--until", "40"],
    ["replay", "--no-driver", "--json"],
    ["replay", "--vram", "1M", "--policy", "lru,clock"],
    ["show", "-f", "--until", "60"],
    ["show", "-f", "--client", "2", "--json"],
    ["pagetable", "--until", "60"],
    ["pagetable", "--until", "60", "--addr", "0x3fffa45678"],
]


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_a_verb_prints_the_same_of_both_forms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_sqlite(tmp_path / "app.gpuvm", records_in(SPARSE_BUFFER))
    verb, *rest = words
    told = _printed(capsys, str(SPARSE_BUFFER), verb, str(SPARSE_BUFFER), *rest)
    assert _printed(capsys, path, verb, path, *rest) == told


def test_explain_takes_both_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sqlite(tmp_path / "app.gpuvm", records_in(SPARSE_BUFFER))
    request = ["explain", "unmap 0x3fffa40000 0x80000", "--until", "60", "--on"]
    told = _printed(capsys, str(SPARSE_BUFFER), *request, str(SPARSE_BUFFER))
    assert _printed(capsys, path, *request, path) == told


def test_until_is_a_call_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sqlite(tmp_path / "app.gpuvm", records_of_lines(vm_init(), gem_new(1)))
    assert main(["replay", path, "--until", "3"]) == 2
    assert capsys.readouterr().err == f"gpuvm: {path}: call 3 was asked for, but the last one is 2\n"


def test_a_refusal_is_told_with_its_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sqlite(tmp_path / "app.gpuvm", records_of_lines(vm_init(), bind(op("map", 0, 1 << 12, 7))))
    assert main(["replay", path, "--no-driver"]) == 1
    assert capsys.readouterr().err.startswith(f"gpuvm: {path}:2: op 0 of this vm_bind was accepted when")


def test_a_long_one() -> None:
    """In the long suite all of it, with 52,675 binds."""
    with Source(str(STREAMING)) as source:
        records = list(islice(read_records(source.name, source), scaled(500, 10_855)))
    with trace_of_records(records) as trace:
        assert list(trace.records()) == records
        trace.check()
