"""All calls of a file, read one by one; a unit is a call."""

from __future__ import annotations

from bench.sampling.contender import Contender, Job
from bench.trace.files import written
from bench.trace.forms import Form


class Reads(Contender):
    """In one of the forms."""

    def __init__(self, form: type[Form]) -> None:
        self._form = form
        self._found = 0

    def jobs(self, units: int) -> list[Job]:
        path = written(self._form, units, False)

        def job() -> None:
            self._found = sum(1 for _ in self._form.read(path))

        return [job]

    def check(self) -> int:
        """Calls that were read."""
        return self._found
