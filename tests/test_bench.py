"""The benchmark must not rot: it runs here on a few mappings, and no time is asserted."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from bench import page, run, selfcheck  # noqa: E402
from bench.cases import CASES  # noqa: E402
from bench.contender import Contender  # noqa: E402
from bench.contenders import REGISTRY, available, contender_class  # noqa: E402
from bench.layouts import Records  # noqa: E402
from bench.locking import cases as locking  # noqa: E402
from bench.locking.commit import Buffer, ExecCommit, Plain, SortedLocks  # noqa: E402
from bench.locking.jobs import QueueJobs  # noqa: E402
from bench.memory import measure_memory  # noqa: E402
from bench.paging import cases as paging  # noqa: E402
from bench.paging.buddies import CoreBuddies, PythonBuddies  # noqa: E402
from bench.paging.copies import SIZE, UNIT, PlainCopies  # noqa: E402
from bench.paging.fills import PythonFills  # noqa: E402
from bench.paging.lookups import PAGES, Translations  # noqa: E402
from bench.paging.one_page import TablePages  # noqa: E402
from bench.paging.tables import BASE, PAGE  # noqa: E402
from bench.sampling import selfcheck as sampling_selfcheck  # noqa: E402
from bench.sampling.case import Case, Table  # noqa: E402
from bench.sampling.contender import Contender as Sampled  # noqa: E402
from bench.sampling.contender import Job  # noqa: E402

# The rivals in Rust are built by `make bench` only; without them the ones in Python remain.
PRESENT = [name for name in REGISTRY if available(name)]

if len(PRESENT) < 2:
    pytest.skip("no rival is installed", allow_module_level=True)


def classes() -> dict[str, type[Contender]]:
    return {name: contender_class(name) for name in PRESENT}


def test_all_contenders_do_the_same() -> None:
    assert selfcheck.self_check(classes(), rounds=6) > 1000


def test_a_contender_that_lies_is_found_out() -> None:
    class Liar(contender_class(PRESENT[-1])):  # type: ignore[misc]  # a base class known at run time only
        def bind(self, requests: Records) -> Records:
            ops: Records = super().bind(requests).copy()
            ops["keep"][-1] ^= 1
            return ops

    with pytest.raises(selfcheck.Disagreement, match="operations of round 0"):
        selfcheck.self_check({PRESENT[0]: contender_class(PRESENT[0]), "liar": Liar})


def test_no_numbers_are_printed_when_they_disagree(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def disagree(_classes: object) -> int:
        raise selfcheck.Disagreement("operations of round 0: 1 and 2")

    monkeypatch.setattr(run, "self_check", disagree)
    assert run.main(["--quick"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "no numbers" in err


def test_the_whole_command_on_a_small_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = tmp_path / "samples.json"
    arguments = ["--quick", "--part", "mappings", "--sizes", "200", "--repeats", "1", "--no-memory"]
    assert run.main([*arguments, "--json", str(samples)]) == 0
    table = capsys.readouterr().out
    for case in CASES:
        assert f"| {case.title} |" in table
    cells = json.loads(samples.read_text())["mappings"]["results"]
    assert {(cell["case"], cell["contender"]) for cell in cells} == {
        (case.name, name) for case in CASES for name in PRESENT
    }


@pytest.mark.parametrize("order", ["random", "sorted", "random, searched"])
def test_memory_is_measured_in_a_process_of_its_own(order: str) -> None:
    assert 8 < measure_memory(PRESENT[-1], 5000, order).bytes_each < 5000


def test_publishing_needs_the_whole_run() -> None:
    with pytest.raises(SystemExit):
        run.main(["--quick", "--write", "page.md"])


def test_only_the_measured_blocks_of_the_page_are_renewed(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    begin, end = page.markers("mappings")
    other_begin, other_end = page.markers("locking")
    other = f"{other_begin}\nother\n{other_end}\n"
    path.write_text(f"before\n{begin}\nold\n{end}\nbetween\n{other}after\n")
    page.renew_blocks(path, {"mappings": "new\n"})
    assert path.read_text() == f"before\n{begin}\n\nnew\n\n{end}\nbetween\n{other}after\n"


def test_a_page_without_one_of_the_blocks_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    begin, end = page.markers("mappings")
    text = f"{begin}\nold\n{end}\n"
    path.write_text(text)
    with pytest.raises(ValueError, match="bench:locking:begin"):
        page.renew_blocks(path, {"mappings": "new\n", "locking": "new\n"})
    assert path.read_text() == text


def test_the_published_page_has_a_block_for_each_part() -> None:
    text = (ROOT / "docs" / "performance.md").read_text()
    for part in run.PARTS:
        page.renew(text, part, "new\n")


@pytest.mark.parametrize(("name", "tables"), [("locking", locking.TABLES), ("paging", paging.TABLES)])
def test_the_whole_command_on_little(
    name: str,
    tables: Sequence[Table],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(run, "QUICK_SHARE", 500)
    samples = tmp_path / "samples.json"
    assert run.main(["--quick", "--part", name, "--repeats", "1", "--json", str(samples)]) == 0
    printed = capsys.readouterr().out
    for table in tables:
        assert f"| {table.title} |" in printed
    part = json.loads(samples.read_text())[name]
    assert {(cell["table"], cell["case"], cell["contender"]) for cell in part["results"]} == {
        (table.name, case.title, who) for table in tables for case in table.cases for who in case.contenders
    }
    assert all(target["measured"] > 0 for target in part["targets"])


class Forgets(ExecCommit):
    """Leaves one object out."""

    def _job(self, thread: int, objs: Sequence[Buffer], rounds: int) -> Job:
        return super()._job(thread, objs[1:], rounds)


class Keeps(SortedLocks):
    """Leaves one object locked."""

    def _job(self, thread: int, objs: Sequence[Plain], rounds: int) -> Job:
        job = super()._job(thread, objs, rounds)

        def keep() -> None:
            job()
            objs[0].lock.acquire()

        return keep


class Skips(QueueJobs):
    """Leaves the last job of a batch out."""

    def _run_batch(self, numbers: range) -> None:
        super()._run_batch(numbers[:-1])


def after(done: Callable[[], object]) -> Callable[[list[Job]], list[Job]]:
    """Jobs, and then something else that should not have happened."""

    def both(jobs: list[Job]) -> list[Job]:
        def job() -> None:
            jobs[0]()
            done()

        return [job]

    return both


class ClearsNothing(PythonFills):
    def jobs(self, units: int) -> list[Job]:
        return after(lambda: self._walker.map(BASE, self._size, 0, self._shift))(super().jobs(units))


class LeavesPages(TablePages):
    def jobs(self, units: int) -> list[Job]:
        return after(lambda: self._tables.get(BASE, PAGE, 12))(super().jobs(units))

    def close(self) -> None:
        self._tables.put(BASE, PAGE, 12)
        super().close()


class FindsOthers(Translations):
    def jobs(self, units: int) -> list[Job]:
        return after(lambda: self._found.reverse())(super().jobs(units))


class CopiesLess(PlainCopies):
    def jobs(self, units: int) -> list[Job]:
        return after(lambda: self._bytes[-1:].fill(self._bytes[-1] ^ 1))(super().jobs(units))


class LosesABlock(CoreBuddies):
    def jobs(self, units: int) -> list[Job]:
        return after(lambda: self._buddy.alloc(4096))(super().jobs(units))


class GivesTwice(PythonBuddies):
    def jobs(self, units: int) -> list[Job]:
        return after(lambda: self._live.__setitem__(0, self._live[1]))(super().jobs(units))


@pytest.mark.parametrize(
    ("make", "units", "words"),
    [
        (lambda: ClearsNothing(1 << 21, 12), 1024, "was not cleared"),
        (LeavesPages, 8, "pages are left"),
        (FindsOthers, PAGES, "found elsewhere"),
        (CopiesLess, SIZE // UNIT, "other bytes"),
        (LosesABlock, 8, "blocks were lost"),
        (GivesTwice, 8, "given out twice"),
    ],
)
def test_who_pages_wrongly_is_found_out(make: Callable[[], Sampled], units: int, words: str) -> None:
    case = Case("a case", {"liar": make}, units=units, step=units)
    table = Table("liar", "a table", {"liar": "liar"}, (), (case,))
    with pytest.raises(selfcheck.Disagreement, match=words):
        sampling_selfcheck.self_check([table])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Forgets(3, 1), "not in all objects"),
        (lambda: Keeps(3, 1), "1 objects are left locked"),
        (lambda: Skips(2), "not every job ran"),
    ],
)
def test_who_does_not_do_the_work_is_found_out(make: Callable[[], Sampled], words: str) -> None:
    table = Table("liar", "a table", {"liar": "liar"}, (), (Case("a case", {"liar": make}, units=100),))
    with pytest.raises(selfcheck.Disagreement, match=words):
        sampling_selfcheck.self_check([table])
