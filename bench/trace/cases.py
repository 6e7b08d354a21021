"""What is measured, with whom: tables of cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from bench import targets
from bench.sampling.case import Case, Table, Target
from bench.sampling.contender import Contender
from bench.trace import commands, overhead, reports
from bench.trace.forms import Form, LinesForm, OwnForm, PickleForm, PlainForm
from bench.trace.reading import Reads
from bench.trace.writing import Writes

OPENED = 1_000_000
"""Calls of the trace on which commands are started."""
HANDLED = 50_000
"""Calls that are written and read, and of which reports are made."""

_FORMS: Mapping[str, type[Form]] = {
    "own": OwnForm,
    "lines": LinesForm,
    "pickle": PickleForm,
    "plain": PlainForm,
}
_TITLES = {"own": "SQLite trace", "lines": "JSON Lines", "pickle": "pickle", "plain": "plain sqlite3"}
_RATIOS = (("own", "lines"), ("own", "plain"))


def tables(opened: int = OPENED, handled: int = HANDLED) -> tuple[Table, ...]:
    """All of them, on traces of so many calls."""
    return (
        overhead.table(),
        Table(
            "write",
            "calls written: time a call",
            _TITLES,
            _RATIOS,
            (
                Case(
                    "the calls",
                    {name: partial(Writes, form, False) for name, form in _FORMS.items()},
                    units=handled,
                ),
                Case(
                    "with jobs, accesses and page-table work",
                    {name: partial(Writes, _FORMS[name], True) for name in ("own", "plain")},
                    units=handled,
                ),
            ),
            rate="calls a second",
        ),
        Table(
            "read",
            "calls read: time a call",
            _TITLES,
            _RATIOS,
            (
                Case(
                    "one by one", {name: partial(Reads, form) for name, form in _FORMS.items()}, units=handled
                ),
            ),
            rate="calls a second",
        ),
        Table(
            "open",
            f"a trace of {opened:,} calls: time a command",
            {"own": "gpuvm", "bare": "bare sqlite3", "lines": "JSON Lines"},
            (("own", "bare"), ("own", "lines")),
            (
                _command(opened, "info", commands.INFO, commands.COUNTS),
                _command(opened, "dump --calls 0-100", commands.DUMP, commands.FIRST),
                _command(opened, f"why {commands.ADDRESS}", commands.WHY, commands.THERE),
                _command(opened, "view, until the page is written", commands.VIEW, commands.MAPPINGS),
                *_screen(opened),
            ),
        ),
        Table(
            "report",
            f"reports of {handled:,} calls: time a call",
            {"own": "gpuvm", "rows": "all rows"},
            (("own", "rows"),),
            (
                _report(handled, "check", reports.CHECK),
                _report(handled, "view", reports.VIEW),
                _report(handled, "export --format perfetto", reports.PERFETTO),
                _report(handled, "export --format json", reports.JSON),
            ),
            rate="calls a second",
        ),
    )


def _command(calls: int, title: str, words: tuple[str, ...], program: str) -> Case:
    makes: dict[str, Callable[[], Contender]] = {
        "own": partial(commands.verb, calls, words),
        "bare": partial(commands.bare, calls, program),
        "lines": partial(commands.lines, calls),
    }
    return Case(title, makes, units=1, targets=(Target(targets.OPEN_NS),))


def _screen(calls: int) -> tuple[Case, ...]:
    """Nothing, where there is no browser."""
    if commands.CHROMIUM is None:
        return ()
    makes: dict[str, Callable[[], Contender]] = {
        "own": partial(commands.screen, calls, empty=False),
        "bare": partial(commands.screen, calls, empty=True),
    }
    return (Case("Chromium, until that page is drawn; beside it an empty one", makes, units=1),)


def _report(calls: int, title: str, words: tuple[str, ...]) -> Case:
    makes: dict[str, Callable[[], Contender]] = {
        "own": partial(reports.Report, words),
        "rows": reports.Rows,
    }
    return Case(title, makes, units=calls)
