"""History: everything that a trace tells of one address of one client, in order, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

Facts: TypeAlias = dict[str, Any]
"""What JSON can hold. ``first`` and ``end`` are of the mapping, the region or the operation it is about."""


class Kind(StrEnum):
    """What happened."""

    MADE = "made"
    """The object that is mapped here later."""
    MAPPED = "mapped"
    CUT = "cut"
    """A bind beside it left a smaller mapping, with the same bytes here."""
    REPLACED = "replaced"
    """Unmapped for another mapping by the same operation."""
    UNMAPPED = "unmapped"
    REGION_MADE = "region made"
    REGION_DROPPED = "region dropped"
    REFUSED = "refused"
    IDLE = "idle"
    """An unmap that found nothing here."""
    CLOSED = "closed"
    """A handle of the object that is mapped here; the mapping stays."""
    QUEUED = "queued"
    """An EXEC that comes here later."""
    PUSH = "push"
    """An EXEC has a push buffer here, and when that was fetched is not known."""
    TOUCHED = "touched"
    FAULTED = "faulted"
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class Event:
    """One of the things that happened; times in ns since the recording began."""

    kind: Kind
    t: int | None
    call: int | None
    """Whose doing it is; None: the driver's."""
    name: str
    """That call's, or who it was."""
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mapping:
    """A row of ``mappings``. Bytes; ``died`` None: it was there at the end."""

    id: int
    addr: int
    range: int
    object: int | None
    offset: int
    kind: int
    born: int
    died: int | None

    @property
    def end(self) -> int:
        """First address behind it."""
        return self.addr + self.range

    def alive(self, call: int) -> bool:
        """Whether it was there after that call."""
        return self.born <= call and (self.died is None or self.died > call)


@dataclass(frozen=True, slots=True)
class Job:
    """When an EXEC was executed, as far as the trace knows."""

    call: int
    channel: int
    queued: int | None
    started: int | None
    done: int | None

    def ran_at(self, t: int | None) -> bool:
        """Whether it is known to have been queued, and not done, at a time."""
        if t is None or self.queued is None or self.queued > t:
            return False
        return self.done > t if self.done is not None else self.started is not None


@dataclass(frozen=True, slots=True)
class History:
    """What happened to ``addr`` of a client."""

    addr: int
    client: int
    """Its number."""
    client_name: str | None
    kernel: tuple[int, int] | None
    """The kernel's part of the space."""
    stretch: tuple[int, int]
    """First and end of the addresses that no bind ever told apart from this one."""
    at: int
    """The call after which the state below was: the one asked for, the last before the first fault, or the
    last."""
    fault: Event | None
    """The first one here, unless a call was asked for."""
    events: tuple[Event, ...]
    jobs: dict[int, Job]
    """Of the EXECs among the events, by call."""
    here: Mapping | None
    region: tuple[int, int, int] | None
    """The sparse region around it: first, end, and the call that made it."""
    around: tuple[Mapping, ...]
    """The nearest mappings on both sides."""
    handles: dict[int, int]
    """Of objects, by the last handle that the client had for them."""
    timed: bool
    """The trace has times of jobs and accesses of engines."""
