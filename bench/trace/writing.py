"""Calls that are written to a file; a unit is a call."""

from __future__ import annotations

import os
from functools import cache

from bench.sampling.contender import Contender, Job
from bench.selfcheck import Disagreement
from bench.trace import synthetic
from bench.trace.files import new_path
from bench.trace.forms import Form
from gpuvm.trace.recorded import Record


@cache
def told(calls: int) -> tuple[Record, ...]:
    return tuple(synthetic.records(calls))


class Writes(Contender):
    """In one of the forms, until the file is closed."""

    def __init__(self, form: type[Form], runtime: bool) -> None:
        self._form = form
        self._runtime = runtime
        self._path = ""
        self._calls = 0

    def jobs(self, units: int) -> list[Job]:
        calls, self._calls = told(units), units
        path = self._path = new_path(f"writes-{self._form.__name__}")

        def job() -> None:
            made = self._form(path)
            synthetic.tell(made.writer, calls, runtime=self._runtime)
            made.close()

        return [job]

    def check(self) -> int:
        """Calls that are in the file."""
        found = sum(1 for _ in self._form.read(self._path))
        os.unlink(self._path)
        if found != self._calls:
            raise Disagreement(f"{self._form.__name__}: {found} calls in the file, not {self._calls}")
        return found
