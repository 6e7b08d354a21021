"""What is made of a whole trace; a unit is a call of it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

from bench.sampling.contender import Contender, Job
from bench.selfcheck import Disagreement
from bench.trace.files import new_path, written
from bench.trace.forms import OwnForm
from gpuvm.cli import main
from gpuvm.trace.export import tables
from gpuvm.trace.trace import Trace

CHECK = ("check", "{trace}")
VIEW = ("view", "{trace}", "-f", "-o", "{out}")
PERFETTO = ("export", "{trace}", "--format", "perfetto", "-f", "-o", "{out}")
JSON = ("export", "{trace}", "--format", "json", "-f", "-o", "{out}")

_FINDINGS = 99


class Report(Contender):
    """A verb, in this process."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._code = -1
        self._calls = 0

    def jobs(self, units: int) -> list[Job]:
        self._calls = units
        places = {"{trace}": written(OwnForm, units, True), "{out}": new_path("report")}
        words = [places.get(word, word) for word in self._words]

        def job() -> None:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                self._code = main(words)

        return [job]

    def check(self) -> int:
        """The calls, if all went well and there is a report."""
        if self._code not in (0, _FINDINGS):
            raise Disagreement(f"gpuvm {self._words[0]}: exit code {self._code}")
        return self._calls


class Rows(Contender):
    """Every row of every table, fetched and dropped: what no report can do without."""

    def __init__(self) -> None:
        self._calls = 0

    def jobs(self, units: int) -> list[Job]:
        path = written(OwnForm, units, True)

        def job() -> None:
            with Trace.open(path) as trace:
                counts = {
                    name: sum(1 for _ in trace.db.execute(f"SELECT * FROM {name}")) for name in tables(trace)
                }
            self._calls = counts["calls"]

        return [job]

    def check(self) -> int:
        """Calls among them."""
        return self._calls
