"""Fences made of fences: arrays (all or any of several), chains (timelines); flattening and merging them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from gpuvm.errors import CheckFailed, InvalidArgument
from gpuvm.sync.callbacks import repeatable
from gpuvm.sync.fence import Fence, FenceStatistics, check_fence, check_u64, fence_context_alloc, stub_fence


@dataclass(frozen=True, slots=True)
class ContainerStatistics(FenceStatistics):
    """A snapshot of a fence that is made of fences."""

    contained: int
    """Fences in it; for a chain, links that were not collected yet."""
    pending: int
    """How many of these are not signalled."""


class FenceArray(Fence):
    """Signalled when all of its fences are, or the first of them.

    It takes over the error of the fence that failed first, by timestamp; with ``signal_on_any`` that of the
    fence that was signalled first. It watches its fences once somebody waits for it; until then ``signalled``
    looks at each of them.

    Args:
        fences: what it is made of; at least one, no containers.
        context: as for ``Fence``. Default: a fresh one.
        seqno: as for ``Fence``.
        signal_on_any: do not wait for all.

    Raises:
        InvalidArgument: no fences, or one is a container.
        TypeError: one is no fence.

    Source: ``dma_fence_array_create``.
    """

    __slots__ = ("_arrivals", "_watched", "fences", "signal_on_any")
    relays = True

    def __init__(
        self,
        fences: Iterable[Fence],
        context: int | None = None,
        seqno: int = 1,
        *,
        signal_on_any: bool = False,
    ) -> None:
        super().__init__(
            fence_context_alloc() if context is None else context, seqno, driver="array", timeline="unbound"
        )
        self.fences = tuple(fences)
        self.signal_on_any = signal_on_any
        self._arrivals = itertools.count(1)
        self._watched: list[tuple[Fence, int]] = []
        """The tickets of the callbacks on its fences."""
        if not self.fences:
            raise InvalidArgument(
                "FenceArray: no fences; use stub_fence() where there is nothing to wait for"
            )
        for fence in self.fences:
            check_fence("FenceArray", fence)
            if is_container(fence):
                raise InvalidArgument(f"FenceArray: {fence!r} is a container; pass what unwrap yields", fence)

    def poll(self) -> bool:
        """Whether all of its fences are signalled, or one."""
        enough = any if self.signal_on_any else all
        return enough(fence.signalled for fence in self.fences)

    @property
    def error(self) -> int:
        """The errno it took over, 0 if none."""
        return super().error if self.signalled else 0

    @property
    def contexts(self) -> Sequence[int]:
        """Those of its fences."""
        return [fence.context for fence in self.fences]

    def enable_signaling(self) -> bool:
        """Watch the fences."""
        return self._watch_fences(lambda fence: fence._add(self._arrived))

    def _watch_anyway(self) -> bool:
        return self._watch_fences(lambda fence: fence._add_for(self, self._arrived))

    def _watch_fences(self, add: Callable[[Fence], int | None]) -> bool:
        self._arrivals = itertools.count(1)
        try:
            for fence in self.fences:
                if self._done:
                    break
                ticket = add(fence)
                if ticket is None:
                    self._arrived(fence)
                else:
                    self._watched.append((fence, ticket))
        except BaseException:
            self._watch_no_more()
            raise
        if self._done:
            self._watch_no_more()
        return not self._done

    @repeatable
    def _arrived(self, _fence: Fence) -> None:
        arrived = next(self._arrivals)
        if self.signal_on_any:
            self._finish()
            self._watch_no_more()
        elif arrived >= len(self.fences) and self.poll():  # an attempt that failed may have counted one, too
            self._finish()

    def _watch_no_more(self) -> None:
        for fence, ticket in self._watched:
            fence._remove(ticket)
        self._watched.clear()

    def _finish(self, timestamp: int | None = None, error: int = 0) -> bool:
        return super()._finish(timestamp, error or self._first_error())

    def _first_error(self) -> int:
        """What it should report, from the fences that are signalled so far."""
        done = [fence for fence in self.fences if fence.signalled]
        if not self.signal_on_any:
            done = [fence for fence in done if fence.error]
        return min(done, key=_when).error if done else 0

    def set_deadline(self, deadline: int) -> None:
        """Pass the hint on to each fence (``dma_fence_array_set_deadline``)."""
        super().set_deadline(deadline)
        for fence in self.fences:
            fence.set_deadline(deadline)

    def check(self) -> None:
        """As ``Fence.check``, and: it is not signalled before its fences, and its error is one of theirs."""
        super().check()
        done = [fence.signalled for fence in self.fences]
        early = self._done and not (any(done) if self.signal_on_any else all(done))
        if early or self.error not in {0, *(fence.error for fence in self.fences)}:
            raise CheckFailed(f"{self!r}: error {self.error}, of {self.fences!r}")

    def statistics(self) -> ContainerStatistics:
        """Where it stands."""
        return _statistics(self, self.fences)


def _when(fence: Fence) -> int:
    return fence.timestamp or 0


class FenceChain(Fence):
    """A link of a timeline: signalled when its own fence is and all links before it.

    Its ``seqno`` is the point. If the link before has no lower one, this one begins a context of its own and
    takes the higher number. Links that are done are let go of while walking. A chain does not take over the
    errors of its fences.

    Args:
        prev: the newest link so far, or any fence, or None.
        fence: what this link waits for; no chain.
        seqno: the point.

    Raises:
        InvalidArgument: ``fence`` is a chain, or the point is not a u64.
        TypeError: ``prev`` or ``fence`` is no fence.

    Source: ``dma_fence_chain_init``.
    """

    __slots__ = ("_prev", "fence", "prev_seqno")
    relays = True

    def __init__(self, prev: Fence | None, fence: Fence, seqno: int) -> None:
        for part in (fence,) if prev is None else (prev, fence):
            check_fence("FenceChain", part)
        if isinstance(fence, FenceChain):
            raise InvalidArgument(f"FenceChain: {fence!r} is a link itself; pass the fence in it", fence)
        check_u64("FenceChain: seqno", seqno)
        self._prev = prev
        self.fence = fence
        self.prev_seqno = 0
        """The point before it on its context, 0 if there is none."""
        if isinstance(prev, FenceChain) and seqno > prev.seqno:
            self.prev_seqno = prev.seqno
            context = prev.context
        else:
            context = fence_context_alloc()
            if isinstance(prev, FenceChain):
                seqno = prev.seqno
        super().__init__(context, seqno, driver="chain", timeline="unbound")

    @property
    def prev(self) -> Fence | None:
        """The newest fence before this link that is pending; what is done before it is let go of.

        Source: ``dma_fence_chain_walk``.
        """
        prev = self._prev
        while prev is not None and contained(prev).signalled:
            prev = prev._prev if isinstance(prev, FenceChain) else None
            self._prev = prev
        return prev

    def poll(self) -> bool:
        """Whether its fence and all links before it are signalled."""
        return all(contained(link).signalled for link in walk(self))

    @property
    def contexts(self) -> Sequence[int]:
        """Those of the fences in its links, as far as these are pending."""
        return [fence.context for fence in unwrap(self)]

    def enable_signaling(self) -> bool:
        """Watch the newest fence that is pending; when it is signalled, the next."""
        return any(contained(link)._add(self._arrived) is not None for link in walk(self))

    def _watch_anyway(self) -> bool:
        return any(contained(link)._add_for(self, self._arrived) is not None for link in walk(self))

    @repeatable
    def _arrived(self, _fence: Fence) -> None:
        if not self._watch_anyway():
            self._finish()

    def set_deadline(self, deadline: int) -> None:
        """Pass the hint on along the chain (``dma_fence_chain_set_deadline``)."""
        super().set_deadline(deadline)
        for link in walk(self):
            contained(link).set_deadline(deadline)

    def check(self) -> None:
        """As ``Fence.check``, and: points grow within a context, and it is not signalled before its links."""
        super().check()
        links = self._links()
        for newer, older in itertools.pairwise(links):
            unordered = newer.context == older.context and newer.seqno <= older.seqno
            if unordered or (isinstance(older, FenceChain) and newer.seqno < older.seqno):
                raise CheckFailed(f"{newer!r} follows {older!r}")
        if self._done and not all(contained(link).signalled for link in links):
            raise CheckFailed(f"{self!r} is signalled before its links: {links!r}")

    def statistics(self) -> ContainerStatistics:
        """Where it stands. O(links)."""
        return _statistics(self, [contained(link) for link in self._links()])

    def _links(self) -> list[Fence]:
        """This link and all before it, without letting go of any."""
        links: list[Fence] = []
        link: Fence | None = self
        while link is not None:
            links.append(link)
            link = link._prev if isinstance(link, FenceChain) else None
        return links


def _statistics(fence: Fence, parts: Iterable[Fence]) -> ContainerStatistics:
    pending = [not part.signalled for part in parts]
    return ContainerStatistics(
        fence.context,
        fence.seqno,
        fence.status,
        len(fence._callbacks),
        fence.timestamp,
        fence.deadline,
        len(pending),
        sum(pending),
    )


def is_container(fence: Fence) -> TypeGuard[FenceArray | FenceChain]:
    """True for arrays and chains (``dma_fence_is_container``)."""
    return isinstance(fence, FenceArray | FenceChain)


def contained(fence: Fence) -> Fence:
    """The fence in a chain's link; any other fence itself (``dma_fence_chain_contained``)."""
    return fence.fence if isinstance(fence, FenceChain) else fence


def walk(head: Fence | None) -> Iterator[Fence]:
    """``head``, then what is pending before it, newest first (``dma_fence_chain_for_each``)."""
    while head is not None:
        yield head
        head = head.prev if isinstance(head, FenceChain) else None


def find_seqno(head: Fence | None, seqno: int) -> Fence | None:
    """What to wait for so that the timeline with the newest link ``head`` has reached ``seqno``.

    Returns:
        The oldest link that covers the point; None if the point is done; ``head`` for point 0.

    Raises:
        InvalidArgument: no link for the point was added yet, or ``head`` is no link.

    Cost: O(pending links above it). Source: ``dma_fence_chain_find_seqno``.
    """
    if seqno == 0:
        return head
    if not isinstance(head, FenceChain):
        raise InvalidArgument(f"find_seqno: {head!r} is no timeline; only point 0 can be asked for", seqno, 0)
    if head.seqno < seqno:
        raise InvalidArgument(
            f"find_seqno: point {seqno} was not added yet; the last one is {head.seqno}", seqno, head.seqno
        )
    for link in walk(head):
        if link.context != head.context or not isinstance(link, FenceChain) or link.prev_seqno < seqno:
            return link
    return None


def unwrap(fence: Fence | None) -> Iterator[Fence]:
    """Every fence in arrays in links of a chain, newest link first; a plain fence itself.

    Source: ``dma_fence_unwrap_for_each``.
    """
    for link in walk(fence):
        payload = contained(link)
        if isinstance(payload, FenceArray):
            yield from payload.fences
        else:
            yield payload


def merge(*fences: Fence | None) -> Fence:
    """One fence for all: what is pending in them, flattened, the latest of each context.

    Returns:
        The stub if nothing is pending, the fence itself if one is, else an array ordered by context.

    Source: ``dma_fence_unwrap_merge``.
    """
    latest: dict[int, Fence] = {}
    for fence in itertools.chain.from_iterable(map(unwrap, fences)):
        if not fence.signalled:
            known = latest.get(fence.context)
            if known is None or fence.is_later(known):
                latest[fence.context] = fence
    pending = [latest[context] for context in sorted(latest)]
    if len(pending) > 1:
        return FenceArray(pending)
    return pending[0] if pending else stub_fence()
