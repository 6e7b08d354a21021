"""The history of an address told to people: a verdict, what happened in order, what lies around it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from textwrap import wrap
from typing import Any

from gpuvm.errors import ERRNO_NAMES
from gpuvm.report.call_text import dump_line
from gpuvm.report.history import Event, History, Kind, Mapping
from gpuvm.report.names import TraceNames
from gpuvm.report.sizes import size_text
from gpuvm.report.verdict import Verdict, byte_of, duration, interval, object_text, verdict
from gpuvm.trace.recorded import DOMAIN_GART, DOMAIN_VRAM
from gpuvm.trace.source import printable
from gpuvm.trace.trace import Trace

_WIDTH = 110
_WHERE = 48
"""Columns of an event before its sentence."""
_SHOWN = 16
"""So many events are told one by one; of more, the first, those around the moment, and the last."""
_FIRST, _AROUND, _LAST = 3, 4, 3
_DOMAINS = ((DOMAIN_VRAM, "VRAM"), (DOMAIN_GART, "GART"))
_PLACES = {"vram": "VRAM", "gart": "GART", "cpu": "the CPU's side", None: "nowhere"}


def why_text(history: History, *, everything: bool = False) -> str:
    """All of it, for a terminal or a bug report.

    Args:
        everything: no event is left out.
    """
    name = f' "{printable(history.client_name)}"' if history.client_name else ""
    lines = [f"{history.addr:#x} of client {history.client}{name}", ""]
    lines += wrap(verdict(history).text, _WIDTH, initial_indent="  ", subsequent_indent="  ")
    first, end = history.stretch
    if history.events:
        head = f"history of {interval(first, end)}, {size_text(end - first)} that no bind ever told apart"
        lines += ["", head, *_events(history, everything)]
    lines += ["", f"around it after call {history.at}", *_around(history)]
    return "\n".join(lines) + "\n"


def why_document(history: History) -> dict[str, Any]:
    """The same as data that JSON can hold, with all events."""
    said: Verdict = verdict(history)
    return {"verdict": said.text, "calls": said.calls, **asdict(history)}


def calls_text(trace: Trace, calls: Sequence[int]) -> str:
    """The calls as ``gpuvm dump`` prints them."""
    names = TraceNames(trace)
    return "\n".join(["the calls", *(f"  {dump_line(trace.call(call), names)}" for call in calls)])


# -- what happened


def _events(history: History, everything: bool) -> Iterator[str]:
    events = history.events
    shown = set(range(len(events))) if everything else _chosen(history)
    hidden: list[Event] = []
    for i, event in enumerate(events):
        if i not in shown:
            hidden.append(event)
            continue
        if hidden:
            yield _folded(hidden)
            hidden = []
        yield from _line(history, event)
    if hidden:
        yield _folded(hidden)


def _chosen(history: History) -> set[int]:
    """The indices of what is told one by one."""
    count = len(history.events)
    if count <= _SHOWN:
        return set(range(count))
    moment = _moment(history)
    around = range(max(moment - _AROUND, 0), min(moment + 2, count))
    return {*range(_FIRST), *around, *range(count - _LAST, count)}


def _moment(history: History) -> int:
    """The index of the fault, or of the last event up to the call in question."""
    if history.fault is not None:
        return history.events.index(history.fault)
    calls = ((i, event.call) for i, event in enumerate(history.events) if event.call is not None)
    before = [i for i, call in calls if call <= history.at]
    return before[-1] if before else 0


def _folded(events: Sequence[Event]) -> str:
    counts = Counter(event.kind.value for event in events)
    told = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    return f"    ... {len(events):,} more, --all shows them: {told}"


def _line(history: History, event: Event) -> Iterator[str]:
    mark = ">" if event is history.fault else " "
    time = "" if event.t is None else f"{event.t / 1e9:.6f} s"
    call = event.name if event.call is None else f"call {event.call} {event.name}"
    if "channel" in event.facts:
        call += f" on channel {event.facts['channel']}"
    head = f"{mark} {time:>14}  {call}"
    lines = wrap(_sentence(history, event), _WIDTH - _WHERE)
    yield f"{head:<{_WHERE - 2}}  {lines[0]}"
    yield from (" " * _WHERE + line for line in lines[1:])


def _sentence(history: History, event: Event) -> str:
    facts = event.facts
    where = interval(facts["first"], facts["end"]) if "first" in facts else ""
    match event.kind:
        case Kind.MADE:
            size = "made elsewhere" if facts["size"] is None else size_text(facts["size"])
            may_be = facts["domain"] or 0
            domain = " or ".join(name for bit, name in _DOMAINS if may_be & bit)
            owner = f" by client {facts['client']}" if "client" in facts else ""
            what = f"{object_text(history, facts['object'])}{owner}: {size}"
            return f"makes {what}{f' in {domain}' if domain else ''}"
        case Kind.MAPPED:
            byte = byte_of(history, facts["object"], facts["offset"] - facts["first"])
            return f"maps {byte}; {where}{_effect(event)}"
        case Kind.CUT:
            return f"cuts the mapping; of it {_pieces(facts['pieces'])}"
        case Kind.REPLACED:
            cut = f"; of its mapping {_pieces(facts['pieces'])}" if facts["pieces"] else ""
            what = "the same bytes again" if facts["keep"] else "another mapping"
            return f"unmaps {object_text(history, facts['object'])}, for {what}{cut}"
        case Kind.UNMAPPED:
            if facts.get("ended"):
                return f"unmaps {where}, for the space ends"
            cut = facts["pieces"]
            return f"unmaps {f'it from {where}; {_pieces(cut)}' if cut else where}{_effect(event)}"
        case Kind.REGION_MADE:
            return f"makes the sparse region {where}: it reads as zeros"
        case Kind.REGION_DROPPED:
            return f"drops the sparse region {where}"
        case Kind.REFUSED:
            reason = ERRNO_NAMES.get(-facts["ret"], str(-facts["ret"]))
            return f"is refused, {reason}; it was to {'map' if facts['map'] else 'unmap'} {where}"
        case Kind.IDLE:
            return f"unmaps {where}; nothing was there"
        case Kind.CLOSED:
            return f"closes handle {facts['handle']} of object {facts['object']}; the mapping stays"
        case Kind.QUEUED:
            return f"is queued{_ran(history, event)}"
        case Kind.PUSH:
            return f"executes a push buffer from there, {where}"
        case Kind.TOUCHED:
            return _touched(history, event)
        case Kind.FAULTED:
            cause = str(facts["cause"]).lower().replace("_", " ")
            access = str(facts["access"] or "access").lower()
            return f"faults: {access} of {facts['addr']:#x} by the {facts['engine']} engine, {cause}"
        case Kind.MOVED:
            why = ", to make room" if facts["evicted"] else ""
            source, target = (_PLACES.get(facts[end], facts[end]) for end in ("source", "target"))
            if facts["source"] is None:
                return f"gives object {facts['object']} its place, in {target}"
            return f"moves object {facts['object']} from {source} to {target}{why}"


_VERBS = {"read": "reads", "write": "writes", "atomic": "changes", "fetch": "fetches a push buffer from"}


def _touched(history: History, event: Event) -> str:
    facts = event.facts
    times = f", {facts['times']:,} times" if facts["times"] > 1 else ""
    return f"{_VERBS[facts['access']]} it, by the {facts['engine']} engine{times}"


def _ran(history: History, event: Event) -> str:
    job = history.jobs.get(event.call or 0)
    if job is None or event.t is None:
        return ""
    if job.done is None:
        return "; when it ended is not known"
    return f"; ended {duration(max(job.done - event.t, 0))} later"


def _effect(event: Event) -> str:
    """What became of a bind's job and of page tables."""
    facts = event.facts
    text = ""
    if facts.get("job"):
        done = facts.get("done")
        text = "; asynchronously"
        if done is not None and event.t is not None:
            text = f"; in the page table {duration(max(done - event.t, 0))} later"
    changed = [f"{facts[what]:,} {what}" for what in ("written", "cleared") if facts.get(what)]
    return f"{text}; page table: {', '.join(changed)}" if changed else text


def _pieces(pieces: Sequence[Sequence[int]]) -> str:
    told = " and ".join(interval(first, end) for first, end in pieces)
    return f"{told} {'is' if len(pieces) == 1 else 'are'} left"


# -- what lies around it


def _around(history: History) -> Iterator[str]:
    told = False
    for one in history.around:
        if one.addr > history.addr and not told:
            yield _here(history)
            told = True
        yield _neighbour(history, one)
    if not told:
        yield _here(history)


def _here(history: History) -> str:
    if history.here is not None:
        one = history.here
        return _row(one, f"has it at +{history.addr - one.addr:#x}", history, ">")
    what = "nothing is mapped"
    if history.region is not None:
        what = f"nothing is mapped; sparse, {interval(*history.region[:2])}"
    return f"> {history.addr:<#16x}            {what}"


def _neighbour(history: History, one: Mapping) -> str:
    if one.end <= history.addr:
        distance = history.addr - one.end
        return _row(one, "ends right before" if not distance else f"ends {distance:#x} before", history)
    return _row(one, f"begins {one.addr - history.addr:#x} behind", history)


def _row(one: Mapping, place: str, history: History, mark: str = " ") -> str:
    what = f"{object_text(history, one.object)} from +{one.offset:#x}"
    kind = f", kind {one.kind:#04x}" if one.kind else ""
    row = f"{mark} {one.addr:<#16x} {size_text(one.range):>8}  {place:<26} {what}{kind}"
    return f"{row}, call {one.born}"
