"""The benchmark of the driver must not rot: it runs here on little, and no time is asserted."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from bench import run, selfcheck
from bench.driver import cases, execs
from bench.driver.binds import Call, ModelBinds, Range, TypedBinds
from bench.driver.blocks import LEAST, ArraysToBlocks, blocks, lines
from bench.driver.copies import UNIT, PlainCopies
from bench.driver.execs import ExecutorExecs
from bench.driver.streaming import ManagerStream, SpaceStream
from bench.driver.waits import EventWaits
from bench.sampling import selfcheck as sampling_selfcheck
from bench.sampling.case import Case, Table
from bench.sampling.contender import Contender

from gpuvm.trace.recorded import Record
from gpuvm.trace.replay import Replay


def test_the_whole_command_on_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = cases.tables(LEAST)
    monkeypatch.setattr(run, "QUICK_SHARE", 500)
    monkeypatch.setattr(cases, "tables", lambda: tables)
    samples = tmp_path / "samples.json"
    assert run.main(["--quick", "--part", "driver", "--repeats", "1", "--json", str(samples)]) == 0
    printed = capsys.readouterr().out
    for table in tables:
        assert f"| {table.title} |" in printed
    part = json.loads(samples.read_text())["driver"]
    assert {(cell["table"], cell["case"], cell["contender"]) for cell in part["results"]} == {
        (table.name, case.title, who) for table in tables for case in table.cases for who in case.contenders
    }
    assert {target["table"] for target in part["targets"]} == {"bind", "engine"}


class UnmapsNothing(ModelBinds):
    def _call(self, ranges: list[Range]) -> Call:
        return super()._call([one for one in ranges if one.handle])


class MapsTheFirstSlot(TypedBinds):
    def _call(self, ranges: list[Range]) -> Call:
        return super()._call([one._replace(offset=0) for one in ranges])


class LosesAJob(ExecutorExecs):
    def _done(self) -> int:
        return super()._done() - 1


class CopiesNothing(ExecutorExecs):
    def _work(self) -> None:
        self._count += 1


class NeverWaits(EventWaits):
    def __init__(self) -> None:
        super().__init__()
        self.wait = lambda: False


class CopiesLess(PlainCopies):
    def _copy(self) -> None:
        self.target[1:] = self.source[1:]


class KeepsLines(ArraysToBlocks):
    def _copy(self) -> None:
        lines(self.target)[:] = lines(self.source)


class LeavesACallOut(ManagerStream):
    def _make(self, part: Sequence[Record]) -> Replay:
        class Skips(Replay):
            def run(self, records: Sequence[Record]) -> Replay:  # type: ignore[override]  # it gets one
                return super().run(records[:-1])

        return Skips("skips")


@pytest.mark.parametrize(
    ("makes", "units", "words"),
    [
        ([lambda: UnmapsNothing(3, over=False)], 6, "slot 0 shows 0x10000000000, not 0x0"),
        ([lambda: MapsTheFirstSlot(2, over=True)], 4, "slot 1 shows 0x10000000000, not 0x10000010000"),
        ([lambda: LosesAJob(copying=False, waiting=True)], 4, "3 of 4 jobs were done"),
        ([lambda: CopiesNothing(copying=True, waiting=False)], 4, "other bytes arrived"),
        ([NeverWaits], 4, "it answered {False}"),
        ([lambda: CopiesLess(4096)], 4096 // UNIT, "other bytes arrived"),
        ([lambda: KeepsLines(LEAST)], LEAST // UNIT, "other bytes arrived"),
        ([SpaceStream, LeavesACallOut], 40, "a table, a case: {"),
    ],
)
def test_who_does_not_do_the_work_is_found_out(
    makes: list[Callable[[], Contender]], units: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execs, "PATIENCE", 0.01)
    case = Case("a case", {f"contender {number}": make for number, make in enumerate(makes)}, units, units)
    with pytest.raises(selfcheck.Disagreement, match=words):
        sampling_selfcheck.self_check([Table("liar", "a table", {}, (), (case,))])


def test_lines_and_blocks_are_the_same_pieces() -> None:
    import numpy as np

    data = np.arange(LEAST // 16, dtype=np.complex128).view(np.uint8)
    image = np.empty_like(data)
    blocks(image)[:] = lines(data)
    first = image[:512].view(np.complex128).real.astype(int).tolist()
    beside, below = 1, 8192 * 4 // 16  # a piece further across, a line further down
    assert first[:4] == [0, below, 2 * below, 3 * below]
    assert first[4:8] == [beside, beside + below, beside + 2 * below, beside + 3 * below]
