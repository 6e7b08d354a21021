"""Suppressions: which findings they mean, and what is wrong with a line that is none."""

from __future__ import annotations

import pytest

from gpuvm.report.findings import Finding, Role, Severity
from gpuvm.report.suppressions import Suppression, read_suppressions
from gpuvm.trace.errors import TraceError

RULES = ("use-after-unmap", "leak-at-exit")
FINDING = Finding(
    "use-after-unmap", Severity.ERROR, "it", (Role(57, "reads"), Role(58, "unmaps")), 2, 0x3000, 0x5000
)
NOWHERE = Finding("leak-at-exit", Severity.WARNING, "it", (Role(3, "made"),), 2)


def read(text: str) -> list[Suppression]:
    return read_suppressions("file", enumerate(text.splitlines(), 1), RULES)


@pytest.mark.parametrize(
    ("line", "matches"),
    [
        ("use-after-unmap", True),
        ("leak-at-exit", False),
        ("use-after-unmap client=2", True),
        ("use-after-unmap client=1", False),
        ("use-after-unmap addr=0x1000-0x3000", False),
        ("use-after-unmap addr=0x1000-0x3001", True),
        ("use-after-unmap addr=20479-20480", True),
        ("use-after-unmap addr=0x5000-0x6000", False),
        ("use-after-unmap calls=58-58", True),
        ("use-after-unmap calls=0-57", True),
        ("use-after-unmap calls=59-100", False),
        ("use-after-unmap client=2 addr=0-0x10000 calls=1-60", True),
        ("use-after-unmap calls=1-60 client=3", False),
    ],
)
def test_which_findings_are_meant(line: str, matches: bool) -> None:
    (one,) = read(f"{line} # known")
    assert one.matches(FINDING) is matches
    assert one.text == line


def test_a_finding_about_no_address_is_meant_by_no_address() -> None:
    one, other = read("leak-at-exit addr=0-0x1000 # no\n\n# a comment\nleak-at-exit # yes\n")
    assert not one.matches(NOWHERE)
    assert other.matches(NOWHERE)
    assert other.line == 4


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        ("leak-at-exit", 13, "say behind a # why"),
        ("leak-at-exit #", 15, "say behind a # why"),
        (" leak # why", 2, "no rule 'leak': gpuvm check --rules lists them"),
        ("leak-at-exit where # why", 14, "'where' is not one of client=N"),
        ("leak-at-exit client # why", 14, "'client' is not one of"),
        ("leak-at-exit client=1 client=2 # why", 23, "'client=2' is not one of"),
        ("leak-at-exit client=one # why", 21, "the client is not a number: 'one'"),
        ("leak-at-exit addr=5 # why", 19, "addr is two numbers with a dash between, not '5'"),
        ("leak-at-exit addr=5-x # why", 21, "addr is not a number: 'x'"),
        ("leak-at-exit calls=9-2 # why", 20, "calls ends before it begins: 9-2"),
    ],
)
def test_a_line_that_is_none(line: str, column: int, message: str) -> None:
    with pytest.raises(TraceError) as caught:
        read(f"# fine\n{line}")
    assert (caught.value.path, caught.value.line, caught.value.column) == ("file", 2, column)
    assert message in caught.value.message
