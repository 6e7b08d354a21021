"""What every rule has: a text, examples, and a way to find."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import cleandoc
from types import ModuleType

from gpuvm.report.evidence import Evidence
from gpuvm.report.findings import Finding
from gpuvm.report.rules.example import Example


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of `gpuvm check`."""

    id: str
    text: str
    """What it is about, why that matters, what to do. The first line says it in one sentence."""
    bad: Example
    good: Example
    find: Callable[[Evidence], Iterator[Finding]]

    @property
    def summary(self) -> str:
        """The first line."""
        return self.text.partition("\n")[0]


def rule_of(module: ModuleType) -> Rule:
    """The rule that a module has: its docstring, `ID`, `BAD`, `GOOD` and `find`."""
    return Rule(module.ID, cleandoc(module.__doc__ or ""), module.BAD, module.GOOD, module.find)
