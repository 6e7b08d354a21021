"""The benchmark of traces must not rot: it runs here on little, and no time is asserted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bench import run, selfcheck
from bench.driver import streaming
from bench.sampling import selfcheck as sampling_selfcheck
from bench.sampling.case import Case, Table
from bench.sampling.contender import Contender
from bench.trace import cases, commands, overhead, size, streaming_calls, synthetic
from bench.trace.forms import Form, LinesForm, OwnForm, PickleForm, PlainForm
from bench.trace.reading import Reads
from bench.trace.reports import Report
from bench.trace.writing import Writes

import suite
from gpuvm.trace.recorded import Record
from gpuvm.trace.trace import Trace


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The program that streams tiles ends early."""
    beginning = streaming.records()[:150]
    caches = (streaming_calls.steps, overhead.program)
    for one in caches:
        one.cache_clear()
    monkeypatch.setattr(streaming_calls, "records", lambda: beginning)
    yield
    for one in caches:
        one.cache_clear()


@pytest.mark.usefixtures("few_steps")
def test_the_whole_command_on_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "QUICK_SHARE", 10)
    monkeypatch.setattr(run, "QUICK_TRACE", (500, 1_000))
    monkeypatch.setattr(commands, "CHROMIUM", None)
    # Who is measured is checked again, and processes are slow.
    monkeypatch.setattr(sampling_selfcheck, "self_check", lambda tables: 1)
    samples = tmp_path / "samples.json"
    assert run.main(["--quick", "--part", "trace", "--repeats", "1", "--json", str(samples)]) == 0
    printed = capsys.readouterr().out
    tables = cases.tables(500, 1_000)
    for table in tables:
        assert f"| {table.title} |" in printed
    assert "| bytes a call, of 1,000 |" in printed
    part = json.loads(samples.read_text())["trace"]
    assert {(cell["table"], cell["case"], cell["contender"]) for cell in part["results"]} == {
        (table.name, case.title, who) for table in tables for case in table.cases for who in case.contenders
    }
    assert {target["table"] for target in part["targets"]} == {"overhead", "open"}
    assert [one["limit"] for one in part["sizes"] if one["limit"]] == [120]


@pytest.mark.parametrize("form", [OwnForm, LinesForm, PickleForm])
def test_a_form_gives_the_records_that_it_got(form: type[Form], tmp_path: Path) -> None:
    made = form(str(tmp_path / "a"))
    synthetic.tell(made.writer, synthetic.records(300), runtime=False)
    made.close()
    assert list(form.read(str(tmp_path / "a"))) == list(synthetic.records(300))


def test_the_plain_form_has_what_the_trace_has(tmp_path: Path) -> None:
    forms: tuple[type[Form], ...] = (PlainForm, OwnForm)
    for form in forms:
        made = form(str(tmp_path / form.__name__))
        synthetic.tell(made.writer, synthetic.records(300), runtime=True)
        made.close()
    plain = list(PlainForm.read(str(tmp_path / "PlainForm")))
    with Trace.open(str(tmp_path / "OwnForm")) as trace:
        calls = trace.db.execute("SELECT id, t, took, client, call, ret FROM calls").fetchall()
        ops = trace.statistics().bind_ops
        trace.check()
    assert [(*call[:5], call[6]) for call in plain] == calls
    assert sum(len(call[7]) for call in plain) == ops


@pytest.mark.skipif(not suite.FULL or commands.CHROMIUM is None, reason="the long suite, where Chromium is")
@pytest.mark.parametrize("empty", [True, False])
def test_a_browser_draws_the_page(empty: bool) -> None:
    screen = commands.screen(500, empty)
    (job,) = screen.jobs(1)
    job()
    assert screen.check() == 1


class LosesACall(LinesForm):
    def call(self, record: Record, took: int | None) -> None:
        if record.line != 3:
            super().call(record, took)


class SkipsACall(LinesForm):
    @staticmethod
    def read(path: str) -> Iterator[Any]:
        yield from list(LinesForm.read(path))[1:]


@pytest.mark.parametrize(
    ("makes", "words"),
    [
        ([lambda: Writes(LosesACall, False)], "LosesACall: 9 calls in the file, not 10"),
        ([lambda: Reads(OwnForm), lambda: Reads(SkipsACall)], "a table, a case: {"),
        ([lambda: commands.bare(10, commands.COUNTS.replace("calls", "callers"))], "exit code 1: .*callers"),
        ([lambda: Report(("info", "nowhere"))], "gpuvm info: exit code 2"),
    ],
)
def test_who_does_not_do_the_work_is_found_out(makes: list[Callable[[], Contender]], words: str) -> None:
    case = Case("a case", {f"contender {number}": make for number, make in enumerate(makes)}, 500)
    with pytest.raises(selfcheck.Disagreement, match=f"(?s){words}"):
        sampling_selfcheck.self_check([Table("liar", "a table", {}, (), (case,))])


def test_sizes_are_of_the_files() -> None:
    sizes = {one.title: one.per_call for one in size.measure(2_000)}
    assert (
        sizes["JSON Lines, gzipped"]
        < sizes["SQLite trace"]
        < sizes["plain sqlite3, with jobs, accesses and page-table work"]
    )
