"""A rule as `gpuvm check --explain` tells it: its text, and its examples with what is found in them."""

from __future__ import annotations

from gpuvm.report.evidence import Evidence
from gpuvm.report.rules.example import Example
from gpuvm.report.rules.rule import Rule


def explained_text(rule: Rule) -> str:
    """For people: what it is about, a bad example with its finding, a good one without."""
    parts = [
        f"{rule.id}: {rule.text}",
        f"A bad example:\n\n{_calls(rule, rule.bad)}",
        f"A good one, in which nothing is found:\n\n{_calls(rule, rule.good)}",
    ]
    return "\n\n".join(parts) + "\n"


def _calls(rule: Rule, example: Example) -> str:
    from gpuvm.report.call_text import dump_line
    from gpuvm.report.names import TraceNames

    with example.trace() as trace:
        names = TraceNames(trace)
        lines = [f"  {dump_line(record, names)}" for record in trace.records()]
        if example.seen:
            lines += ["", f"  and what a recorder saw besides: {example.seen}"]
        found = [f"  {one.severity}: {one.message}" for one in rule.find(Evidence(trace))]
    return "\n".join([*lines, "", *found]) if found else "\n".join(lines)
