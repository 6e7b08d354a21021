"""Verdict: one sentence about what became of an address, and the calls to look at next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpuvm.report.history import Event, History, Kind, Mapping
from gpuvm.report.sizes import size_text
from gpuvm.trace.replay import SPACE_RANGE

ACCESSES = {
    "read": "reads it",
    "write": "writes it",
    "fetch": "has a push buffer there",
    "atomic": "changes it",
}
"""By the name of an access, what the EXEC does."""

_REACH = 0x10000
"""An access this near to a mapping was probably meant for it, as for the driver's report of a fault."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``calls`` are those that the sentence names, in their order."""

    text: str
    calls: tuple[int, ...]


def verdict(history: History) -> Verdict:
    """What is most worth knowing: the first fault's cause, else what is there, or was."""
    sentence = _Sentence(history)
    if history.fault is not None:
        text = sentence.of_fault(history.fault)
    elif history.kernel is not None and history.kernel[0] <= history.addr < history.kernel[1]:
        text = f"in the kernel's part of the space, {interval(*history.kernel)}: no bind maps anything there"
    elif history.addr >= SPACE_RANGE:
        text = f"outside: address spaces end at {SPACE_RANGE:#x}"
    elif history.here is not None:
        text = sentence.of_mapping(history.here)
    else:
        text = sentence.of_nothing()
    return Verdict(text, tuple(sorted(sentence.calls)))


class _Sentence:
    """Remembers which calls it named."""

    def __init__(self, history: History) -> None:
        self._history = history
        self.calls: set[int] = set()

    def of_fault(self, fault: Event) -> str:
        history = self._history
        access = ACCESSES.get(str(fault.facts["access"]).lower(), "comes there")
        before = history.events[: history.events.index(fault)]
        unmapped = next((event for event in reversed(before) if event.kind is Kind.UNMAPPED), None)
        who = "an EXEC" if fault.call is None else self._exec(fault)
        if history.here is None and unmapped is not None:
            return self._use_after(unmapped, fault, who, access)
        cause = str(fault.facts["cause"]).lower().replace("_", " ")
        if history.here is not None:
            mapped = self._mapped(history.here)
            return f"{who} {access}, and faulted: {cause}; {mapped}{self._not_run(history.here, fault)}"
        nothing = self.of_nothing()
        return f"{who} {access}, and faulted: {cause if nothing.startswith(cause) else f'{cause}; {nothing}'}"

    def _use_after(self, unmapped: Event, fault: Event, who: str, access: str) -> str:
        """The cause of most faults."""
        job = self._history.jobs.get(fault.call or 0)
        text = f"unmapped by {self._name(unmapped)}"
        if job is None or job.queued is None or unmapped.t is None or fault.t is None:
            return f"{text}; {who} {access} after that, and faulted"
        early = unmapped.t - job.queued
        if early < 0:
            return f"{text}; {who}, queued {duration(-early)} later, {access}, and faulted"
        return (
            f"{text}, {duration(early)} after {who} was queued, which {access} and had not ended: it came "
            f"{duration(max(fault.t - unmapped.t, 0))} too late, and faulted"
        )

    def _not_run(self, here: Mapping, fault: Event) -> str:
        """Whether the page table did not show it yet."""
        mapped = self._bind(here)
        if mapped is None or not mapped.facts.get("job") or fault.t is None:
            return ""
        done = mapped.facts["done"]
        if done is None:
            return "; its job had not run"
        return f"; its job ran {duration(done - fault.t)} too late" if done > fault.t else ""

    def of_mapping(self, here: Mapping) -> str:
        text = self._mapped(here)
        history = self._history
        touched = [one for one in history.events if one.kind in (Kind.TOUCHED, Kind.PUSH)]
        since = [one for one in touched if one.call is not None and here.born <= one.call <= history.at]
        late = self._late(here, touched)
        if late is not None:
            text += f"; {self._exec(late)}, which {using(late)}, was queued before that and had not ended"
        if since:
            last = since[-1]
            return f"{text}; last used by {self._exec(last)}, which {using(last)}{self._early(here, last)}"
        return f"{text}; no engine has used it since" if history.timed and late is None else text

    def _late(self, here: Mapping, touched: Sequence[Event]) -> Event | None:
        """An EXEC from before the bind that used what it maps."""
        mapped = self._bind(here)
        if mapped is None or mapped.t is None:
            return None
        earlier = [one for one in touched if one.call is not None and one.call < here.born]
        return next((one for one in reversed(earlier) if one.facts.get("last", 0) > mapped.t), None)

    def _early(self, here: Mapping, used: Event) -> str:
        """Whether an EXEC from after the bind came before what it maps was in the page table."""
        mapped = self._bind(here)
        done = None if mapped is None or not mapped.facts.get("job") else mapped.facts["done"]
        if done is None or used.t is None or used.t >= done:
            return ""
        return f" {duration(done - used.t)} before the bind was in the page table"

    def _bind(self, here: Mapping) -> Event | None:
        """What made the mapping."""
        events = self._history.events
        return next((one for one in events if one.kind is Kind.MAPPED and one.call == here.born), None)

    def _mapped(self, here: Mapping) -> str:
        history = self._history
        calls = [one for one in history.events if one.kind is Kind.MAPPED and (one.call or 0) <= here.born]
        text = f"it is {byte_of(history, here.object, here.offset - here.addr)}"
        if calls:
            text = f"mapped by {self._name(calls[-1])}: {text}"
            if calls[-1].call != here.born:
                text += f"; {interval(here.addr, here.end)} of that mapping is left"
        return text

    def of_nothing(self) -> str:
        history = self._history
        done = [one for one in history.events if one.call is not None and one.call <= history.at]
        ends = [one for one in done if one.kind is Kind.UNMAPPED]
        region = ""
        if history.region is not None:
            first, end, born = history.region
            self.calls.add(born)
            region = f"in the sparse region {interval(first, end)} of call {born}: reads give zeros"
        if ends:
            last = ends[-1]
            text = f"unmapped by {self._name(last)}{self._running(last)}"
            if last.facts.get("ended"):
                text = f"unmapped when {self._name(last)} ended the space"
            return f"{text}; {region}" if region else text
        if region:
            return f"nothing was ever bound there; it is {region}"
        dropped = [one for one in done if one.kind is Kind.REGION_DROPPED]
        if dropped:
            return f"never bound; it was in a sparse region, which {self._name(dropped[-1])} dropped"
        refused = [one for one in done if one.kind is Kind.REFUSED and one.facts["map"]]
        if refused:
            return f"never mapped: {self._name(refused[-1])}, which was to map it, was refused"
        later = [one for one in history.events if one.kind is Kind.MAPPED]
        if later:
            return f"not mapped yet: {self._name(later[0])} maps it later"
        return f"never mapped{self._near()}"

    def _near(self) -> str:
        """The nearest mapping, if the address may have been meant for it."""
        history = self._history
        below = [one for one in history.around if one.end <= history.addr]
        above = [one for one in history.around if one.addr > history.addr]
        found = [(history.addr - one.end, "past the end of", one) for one in below]
        found += [(one.addr - history.addr, "before the start of", one) for one in above]
        if not found:
            return ""
        distance, side, one = min(found, key=lambda each: each[0])
        if distance > max(_REACH, one.range):
            return ""
        self.calls.add(one.born)
        away = f"{size_text(distance)} {side}" if distance else "right behind"
        return f"; it is {away} what call {one.born} mapped of {object_text(history, one.object)}"

    def _running(self, unmapped: Event) -> str:
        """The EXECs that use it and had not ended."""
        jobs = self._history.jobs
        users = [
            one
            for one in self._history.events
            if one.kind is Kind.TOUCHED and one.call in jobs and jobs[one.call].ran_at(unmapped.t)
        ]
        if not users:
            return ""
        return f" while {self._exec(users[-1])}, which {using(users[-1])}, had not ended"

    def _name(self, event: Event) -> str:
        assert event.call is not None
        self.calls.add(event.call)
        return call_name(event)

    def _exec(self, event: Event) -> str:
        assert event.call is not None
        self.calls.add(event.call)
        return f"call {event.call} (exec on channel {event.facts['channel']})"


# -- phrases that the history has, too


def call_name(event: Event) -> str:
    """``call 58 (vm_bind)``."""
    return f"call {event.call} ({event.name})"


def using(event: Event) -> str:
    """What an EXEC does there."""
    return ACCESSES.get(str(event.facts.get("access", "fetch")), "uses it")


def interval(first: int, end: int) -> str:
    """Addresses, the end exclusive."""
    return f"[{first:#x}, {end:#x})"


def object_text(history: History, number: int | None) -> str:
    """An object by its number and handle."""
    if number is None:
        return "no object"
    handle = history.handles.get(number)
    return f"object {number}" + ("" if handle is None else f" (handle {handle})")


def byte_of(history: History, number: int | None, shift: int) -> str:
    """What the address shows, where offset is address plus ``shift``."""
    return f"byte {history.addr + shift:#x} of {object_text(history, number)}"


def duration(nanoseconds: int) -> str:
    """Three digits and a unit."""
    for unit, length in (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000)):
        if nanoseconds >= length:
            return f"{nanoseconds / length:.3g} {unit}"
    return f"{nanoseconds} ns"
