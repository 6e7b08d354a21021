"""Traces that are written once, for all who read them; they are gone when the process ends."""

from __future__ import annotations

import os
from functools import cache
from tempfile import TemporaryDirectory

from bench.trace import synthetic
from bench.trace.forms import Form


@cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="gpuvm-bench-")


def new_path(name: str) -> str:
    """Where nothing is yet."""
    path = os.path.join(_folder().name, name)
    if os.path.exists(path):
        os.unlink(path)
    return path


@cache
def written(form: type[Form], calls: int, runtime: bool) -> str:
    """The path of a synthetic trace in this form; with ``runtime`` what became of the calls is in it."""
    path = new_path(f"{form.__name__}-{calls}{'-runtime' * runtime}")
    made = form(path)
    synthetic.tell(made.writer, synthetic.records(calls), runtime=runtime)
    made.close()
    return path
