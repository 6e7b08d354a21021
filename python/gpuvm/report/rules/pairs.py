"""How an EXEC and a VM_BIND that nothing orders are told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter

from gpuvm.report.evidence import Evidence
from gpuvm.report.findings import Finding, Role, Severity, range_text
from gpuvm.trace.conflicts import Certainty, Conflict, Kind

_TOUCH = {"read": "reads", "write": "writes", "fetch": "fetches", "atomic": "changes"}

_BIND_FIRST = (Kind.UNMAPPED_BEFORE, Kind.NOT_BOUND_YET)

_CERTAIN = {
    (False, Certainty.SEEN): ": {} was still running then",
    (False, Certainty.LUCK): ": {} happened to be done in time",
    (False, Certainty.UNKNOWN): "",
    (True, Certainty.SEEN): ": {} had not run by then",
    (True, Certainty.LUCK): ": {} happened to have run in time",
    (True, Certainty.UNKNOWN): "",
}
"""What is known of the one that should come first; by whether that is the VM_BIND."""


def touch_text(access: str | None) -> str:
    """The verb of an access: ``reads``."""
    return _TOUCH.get(access or "", "touches")


def explained(
    evidence: Evidence, rule: str, pairs: Sequence[Conflict], does: str, verb: str
) -> Iterator[Finding]:
    """A finding for each pair; of all that cannot be judged, one for a client.

    Args:
        does: what the VM_BIND does, as in ``unmaps it``.
        verb: the same as its role.
    """
    blind = not evidence.order.tells_waits
    doubtful = [one for one in pairs if blind and one.certainty is Certainty.UNKNOWN]
    for one in pairs:
        if not (blind and one.certainty is Certainty.UNKNOWN):
            yield _pair(evidence, rule, one, does, verb)
    for client, group in groupby(sorted(doubtful, key=attrgetter("client")), key=attrgetter("client")):
        several = [*group]
        first = several[0]
        roles = (Role(first.exec, touch_text(first.access)), Role(first.bind, verb))
        others = f"; the same goes for {len(several) - 1:,} more" if len(several) > 1 else ""
        message = (
            f"{evidence.name(first.exec)} {touch_text(first.access)} {range_text(first.addr, first.end)}, "
            f"and {evidence.name(first.bind)} {does}: this trace tells no waits, "
            f"so it cannot be judged{others}"
        )
        yield Finding(rule, Severity.NOTE, message, roles, evidence.number(client), first.addr, first.end)


def _pair(evidence: Evidence, rule: str, one: Conflict, does: str, verb: str) -> Finding:
    touches = touch_text(one.access)
    exec_, bind = evidence.name(one.exec), evidence.name(one.bind)
    what = f"{exec_} {touches} {range_text(one.addr, one.end)}"
    severity = Severity.ERROR if one.certainty is Certainty.SEEN else Severity.WARNING
    match one.kind:
        case Kind.UNMAPPED_BEFORE:
            message = f"{what}, which {bind} had unmapped before"
        case Kind.BOUND_LATER:
            message = f"{what}, where nothing is mapped; {bind} {does} only after it"
        case _:
            first, second = (one.bind, one.exec) if one.kind in _BIND_FIRST else (one.exec, one.bind)
            message = f"{what}; {bind} {does}, and nothing makes {second} wait for {first}"
            message += _CERTAIN[one.kind in _BIND_FIRST, one.certainty].format(first)
    roles = (Role(one.exec, touches), Role(one.bind, verb))
    return Finding(rule, severity, message, roles, evidence.number(one.client), one.addr, one.end)
