"""All rules on one trace: what they found, and how it is told as text and as JSON."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from gpuvm.report.evidence import Evidence
from gpuvm.report.findings import Finding, Severity
from gpuvm.report.rules import RULES
from gpuvm.report.suppressions import Suppression

if TYPE_CHECKING:
    from gpuvm.trace.trace import Trace

_SHOWN: Final = 10
"""So many findings of a rule are told as text; of the rest, how many there are."""

_COLOURS: Final = {Severity.ERROR: "31", Severity.WARNING: "33", Severity.NOTE: "36"}


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of a trace's check."""

    name: str
    calls: int
    findings: tuple[Finding, ...]
    """Of each rule those that are not suppressed; worst rules first."""
    suppressed: int
    unused: tuple[Suppression, ...]
    """Suppressions that nothing matched, of rules that were asked."""
    cut_short: bool
    """The recording goes on, or was killed."""

    def count(self, severity: Severity) -> int:
        """How many findings are as bad as that."""
        return sum(one.severity is severity for one in self.findings)

    def clean(self, *, strict: bool) -> bool:
        """Nothing that counts was found; notes count if it is ``strict``."""
        return all(one.severity is Severity.NOTE and not strict for one in self.findings)


def check_trace(
    trace: Trace,
    *,
    ignored: Collection[str] = (),
    suppressions: Sequence[Suppression] = (),
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Checked:
    """Ask all rules. A million calls take about a minute.

    Args:
        ignored: ids of rules that are not asked.
        progress: told how many rules were asked, twice, before each.
    """
    evidence = Evidence(trace)
    rules = [rule for rule in RULES if rule.id not in ignored]
    found: list[Finding] = []
    used: Counter[int] = Counter()
    for at, rule in enumerate(rules):
        progress(at, at)
        for finding in rule.find(evidence):
            match = next((one for one in suppressions if one.matches(finding)), None)
            if match is None:
                found.append(finding)
            else:
                used[match.line] += 1
    unused = tuple(one for one in suppressions if not used[one.line] and one.rule not in ignored)
    calls = trace.db.execute("SELECT count(*) FROM calls").fetchone()[0]
    return Checked(trace.name, calls, tuple(found), used.total(), unused, not trace.whole)


def check_text(checked: Checked, *, file: str | None = None, colour: bool = False) -> str:
    """For people: worst first, ten of a rule at most.

    Args:
        file: the trace, to be named in commands that tell more; None: it is gone.
    """
    lines = []
    for _, group in groupby(checked.findings, key=lambda finding: finding.rule):
        findings = sorted(group, key=lambda finding: [*Severity].index(finding.severity))
        for finding in findings[:_SHOWN]:
            lines += [*_finding_lines(finding, file, colour), ""]
        if len(findings) > _SHOWN:
            lines += [f"{len(findings) - _SHOWN:,} more of {findings[0].rule}; --json tells all", ""]
    lines.append(_summary(checked))
    return "\n".join(lines) + "\n"


def _finding_lines(finding: Finding, file: str | None, colour: bool) -> Iterator[str]:
    severity = finding.severity.value
    if colour:
        severity = f"\x1b[1;{_COLOURS[finding.severity]}m{severity}\x1b[0m"
    yield f"{severity}: {finding.message} [{finding.rule}]"
    if file is not None and finding.addr is not None and finding.severity is not Severity.NOTE:
        yield f"  next: gpuvm why {shlex.quote(file)} {finding.addr:#x} --client {finding.client}"


def _summary(checked: Checked) -> str:
    counts = [(checked.count(severity), severity.value) for severity in Severity]
    told = ", ".join(f"{count:,} {name}{'s' if count > 1 else ''}" for count, name in counts if count)
    suppressed = f"; {checked.suppressed:,} suppressed" if checked.suppressed else ""
    cut = "; the recording was cut short" if checked.cut_short else ""
    return f"{checked.name}: {told or 'nothing found'} in {checked.calls:,} calls{suppressed}{cut}"


def check_document(checked: Checked) -> dict[str, Any]:
    """As JSON has it: every finding, with numbers."""
    return {
        "trace": checked.name,
        "calls": checked.calls,
        "whole": not checked.cut_short,
        "findings": [finding.document() for finding in checked.findings],
        "suppressed": checked.suppressed,
        "unused_suppressions": [one.text for one in checked.unused],
    }
