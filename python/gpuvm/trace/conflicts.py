"""Where EXECs touch what VM_BINDs change, and nothing, or not enough, says which comes first.

What an EXEC touched are the accesses that were recorded, else its push buffers: it fetches these in any case.
The calls are gone through once; of each address it is known which VM_BIND showed something there or took it
away, and which EXEC of each channel touched it last.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gpuvm.trace.address_map import AddressMap, Span
from gpuvm.trace.bind_effects import Effect, EffectKind, effects
from gpuvm.trace.order import Order
from gpuvm.trace.touches import Times, Touch, bind_times, touches

if TYPE_CHECKING:
    from gpuvm.trace.trace import Trace


class Kind(Enum):
    """What the two calls do to each other."""

    UNMAPPED_UNDER = auto()
    """The EXEC touches what the later VM_BIND unmaps."""
    REPLACED_UNDER = auto()
    """The EXEC touches what the later VM_BIND maps to something else."""
    UNMAPPED_BEFORE = auto()
    """The EXEC touches what the earlier VM_BIND has unmapped."""
    NOT_BOUND_YET = auto()
    """The EXEC touches what the earlier VM_BIND, which is asynchronous, maps."""
    BOUND_LATER = auto()
    """The EXEC touches what nobody but the later VM_BIND maps."""


class Certainty(Enum):
    """What is known of their order."""

    SEEN = auto()
    """The wrong one came first, by the times that were recorded, or by the order of the calls."""
    LUCK = auto()
    """The right one came first, but nothing made the other wait."""
    UNKNOWN = auto()
    """Nothing makes one wait for the other, and no times were recorded."""


class Conflict(NamedTuple):
    """An EXEC and a VM_BIND of one client."""

    kind: Kind
    certainty: Certainty
    client: int
    channel: int
    exec: int
    """Its call."""
    bind: int
    access: str
    """'read', 'write', 'fetch' or 'atomic'."""
    addr: int
    end: int


@dataclass(frozen=True, slots=True)
class ConflictStatistics:
    """How much there was to look at."""

    touches: int
    effects: int
    conflicts: int


class _Shown(NamedTuple):
    """What a VM_BIND left at an address."""

    call: int
    mapped: bool


class _Space:
    """One client's."""

    def __init__(self) -> None:
        self.shown: AddressMap[_Shown] = AddressMap()
        self.touched: defaultdict[int, AddressMap[Touch]] = defaultdict(AddressMap)
        self.early: AddressMap[Touch] = AddressMap()  # touches of what was never mapped
        self.sparse: AddressMap[None] = AddressMap()


_CHANGES: Final = {EffectKind.UNMAP: Kind.UNMAPPED_UNDER, EffectKind.REPLACE: Kind.REPLACED_UNDER}


class Conflicts:
    """All of a trace, in the order in which they are met.

    Attributes:
        found: one for each pair of calls and kind: of several ranges the first.
        changing: the VM_BINDs that changed anything.
    """

    def __init__(self, trace: Trace, order: Order) -> None:
        self._order = order
        self._times = bind_times(trace)
        self._spaces: defaultdict[int, _Space] = defaultdict(_Space)
        self._touches = self._effects = 0
        self.changing: Final[set[int]] = set()
        found: dict[tuple[Kind, int, int], Conflict] = {}
        for conflict in self._all(trace):
            found.setdefault((conflict.kind, conflict.exec, conflict.bind), conflict)
        self.found: Final = tuple(found.values())

    def _all(self, trace: Trace) -> Iterator[Conflict]:
        binds = effects(trace)
        bind = next(binds, None)
        for touch in touches(trace):
            while bind is not None and bind.call < touch.call:
                yield from self._changed(bind)
                bind = next(binds, None)
            yield from self._touched(touch)
        while bind is not None:
            yield from self._changed(bind)
            bind = next(binds, None)

    def _touched(self, touch: Touch) -> Iterator[Conflict]:
        self._touches += 1
        space = self._spaces[touch.client]
        touched = space.touched[touch.channel]
        at = touch.addr
        for span in space.shown.over(touch.addr, touch.end):
            self._nothing_there(space, touch, at, span.addr)
            at = span.end
            if span.value.mapped or touch.seen:
                touched.put(span.addr, span.end, touch)
            if not span.value.mapped:
                if not touch.seen:
                    yield _conflict(Kind.UNMAPPED_BEFORE, Certainty.SEEN, touch, span.value.call, span)
            elif not self._order.before(span.value.call, touch.call):
                certainty = _order_of_times(self._times(span.value.call), touch.times)
                if certainty is not None:
                    yield _conflict(Kind.NOT_BOUND_YET, certainty, touch, span.value.call, span)
        self._nothing_there(space, touch, at, touch.end)

    def _nothing_there(self, space: _Space, touch: Touch, addr: int, end: int) -> None:
        """It is mapped later; if the engine was seen there, in time."""
        if touch.seen:
            space.touched[touch.channel].put(addr, end, touch)
        else:
            space.early.put(addr, end, touch)

    def _changed(self, bind: Effect) -> Iterator[Conflict]:
        self._effects += 1
        self.changing.add(bind.call)
        space = self._spaces[bind.client]
        if bind.kind in _CHANGES:
            for touched in space.touched.values():
                for span in touched.cut(bind.addr, bind.end):
                    if not self._order.before(span.value.call, bind.call):
                        certainty = _order_of_times(span.value.times, self._times(bind.call))
                        if certainty is not None:
                            yield _conflict(_CHANGES[bind.kind], certainty, span.value, bind.call, span)
        match bind.kind:
            case EffectKind.UNMAP:
                for old in space.shown.over(bind.addr, bind.end):
                    space.shown.put(old.addr, old.end, _Shown(bind.call, mapped=False))
                for hole in space.sparse.over(bind.addr, bind.end):
                    space.shown.put(hole.addr, hole.end, _Shown(bind.call, mapped=True))
            case EffectKind.DROP:
                space.sparse.cut(bind.addr, bind.end)
            case _:
                for early in space.early.cut(bind.addr, bind.end):
                    yield _conflict(Kind.BOUND_LATER, Certainty.SEEN, early.value, bind.call, early)
                space.shown.put(bind.addr, bind.end, _Shown(bind.call, mapped=True))
                if bind.kind is EffectKind.SPARSE:
                    space.sparse.put(bind.addr, bind.end, None)

    # -- looking at it

    def statistics(self) -> ConflictStatistics:
        """Counts."""
        return ConflictStatistics(self._touches, self._effects, len(self.found))

    def check(self) -> None:
        """Verify the maps it was found with. Raises CheckFailed."""
        for space in self._spaces.values():
            maps: list[AddressMap[Any]] = [space.shown, space.early, space.sparse, *space.touched.values()]
            for one in maps:
                one.check()


def _conflict(kind: Kind, certainty: Certainty, touch: Touch, bind: int, span: Span[Any]) -> Conflict:
    return Conflict(
        kind, certainty, touch.client, touch.channel, touch.call, bind, touch.access, span.addr, span.end
    )


def _order_of_times(first: Times | None, second: Times | None) -> Certainty | None:
    """Of two that nothing orders; None: ``first`` was over before ``second`` was even asked for."""
    if first is None or second is None or second.effect is None:
        return Certainty.UNKNOWN
    if first.done is None or first.done > second.effect:
        return Certainty.SEEN
    return None if first.done <= second.asked else Certainty.LUCK
