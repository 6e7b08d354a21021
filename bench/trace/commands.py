"""What somebody waits for at the terminal: a command on a long trace, as a process; a unit is one command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache

from bench.sampling.contender import Contender, Job
from bench.selfcheck import Disagreement
from bench.trace.files import new_path, written
from bench.trace.forms import Form, LinesForm, OwnForm
from bench.trace.synthetic import LOWEST, TILE
from gpuvm.report.page import page
from gpuvm.trace.trace import Trace

_THERE = LOWEST + 5 * TILE
ADDRESS = f"{_THERE:#x}"
PATIENCE = 300.0

INFO = ("info", "{trace}")
DUMP = ("dump", "{trace}", "--calls", "0-100")
WHY = ("why", "{trace}", ADDRESS)
VIEW = ("view", "{trace}", "-o", "{out}", "-f")

_ASK = "import sqlite3, sys; db = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True); " + (
    "rows = db.execute('%s').fetchall(); "
)
_PRINT = _ASK + "print(rows)"
COUNTS = _PRINT % "SELECT nr, count(*), sum(took) FROM calls GROUP BY nr"
FIRST = _PRINT % "SELECT * FROM calls LEFT JOIN bind_ops ON bind_ops.call = id WHERE id <= 100"
THERE = _PRINT % f"SELECT * FROM mappings WHERE addr <= {_THERE} AND addr + range > {_THERE}"
MAPPINGS = (
    _ASK % "SELECT addr, range, object, born, died FROM mappings"
    + "import json; json.dump(rows, open(sys.argv[2], 'w')); print(len(rows))"
)
LINES = "import json, sys; print(sum(1 for line in open(sys.argv[1]) if json.loads(line)))"


CHROMIUM = shutil.which("chromium")
_BROWSER = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
_UNTIL_IDLE = ("--virtual-time-budget=600000", "--dump-dom")
_EMPTY = "data:text/html,<html%20data-ready=0>"


class Command(Contender):
    """A process, from its start to its end; what it prints has ``words`` in it."""

    def __init__(self, form: type[Form], calls: int, command: Sequence[str], words: str = "") -> None:
        self._trace = written(form, calls, form is OwnForm)
        self._command = command
        self._words = words
        self._ended: list[subprocess.CompletedProcess[str]] = []

    def jobs(self, units: int) -> list[Job]:
        places = {"{trace}": self._trace, "{out}": new_path("view.html")}
        command = [places.get(word, word) for word in self._command]
        environment = {**os.environ, "NO_COLOR": "1"}

        def job() -> None:
            for _ in range(units):
                self._ended.append(
                    subprocess.run(
                        command,
                        capture_output=True,
                        text=True,
                        timeout=PATIENCE,
                        check=False,
                        env=environment,
                    )
                )

        return [job]

    def check(self) -> int:
        """Commands that ended well."""
        ended, self._ended = self._ended, []
        for one in ended:
            if one.returncode or not one.stdout + one.stderr or self._words not in one.stdout:
                raise Disagreement(f"{self._command}: exit code {one.returncode}: {one.stderr.strip()}")
        return len(ended)


def verb(calls: int, words: Sequence[str]) -> Command:
    """One of gpuvm's."""
    return Command(OwnForm, calls, (sys.executable, "-m", "gpuvm", *words))


def bare(calls: int, program: str) -> Command:
    """A line of Python that asks SQLite for what the verb is about."""
    return Command(OwnForm, calls, (sys.executable, "-c", program, "{trace}", "{out}"))


def lines(calls: int) -> Command:
    """One that reads JSON Lines, and does nothing with them."""
    return Command(LinesForm, calls, (sys.executable, "-c", LINES, "{trace}"))


def screen(calls: int, empty: bool) -> Command:
    """A browser that is started, draws the page of a trace, or none, and ends."""
    place = _EMPTY if empty else f"file://{_page(calls)}"
    return Command(OwnForm, calls, (CHROMIUM or "chromium", *_BROWSER, *_UNTIL_IDLE, place), 'data-ready="')


@cache
def _page(calls: int) -> str:
    path = new_path(f"page-{calls}.html")
    with Trace.open(written(OwnForm, calls, True)) as trace, open(path, "w", encoding="utf-8") as file:
        file.write(page(trace))
    return path
