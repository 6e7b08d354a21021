"""Which calls a call needs, before and behind it, so that it can be made again as it was."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from gpuvm.trace import recorded
from gpuvm.trace.births import Births
from gpuvm.trace.fence_needs import FenceNeeds
from gpuvm.trace.recorded import Record
from gpuvm.trace.references import references
from gpuvm.trace.space_needs import SpaceNeeds
from gpuvm.trace.trace import Trace


class Needs:
    """The needs of calls, while a trace is read from its beginning.

    A call needs those that made what it is about: objects, channels, sync objects, files; the address space;
    the binds that map its push buffers; what put in the fences that it looks at. What is made needs its end,
    if it has one, or there would be things that were gone. What a submission waits for is told apart.

    Cost: O(calls + ops), some hundred bytes a call.
    """

    def __init__(self, trace: Trace) -> None:
        self._of: Final[defaultdict[int, list[int]]] = defaultdict(list)
        self._births: Final = Births()
        self._spaces: Final = SpaceNeeds(trace, self._add)
        self._fences: Final = FenceNeeds(self._births, self._add)
        self._begun: Final[dict[int, list[int]]] = {}
        """By client: the first call that made it used, and its vm_init."""

    def _add(self, call: int, needed: int) -> None:
        if call != needed:
            self._of[call].append(needed)

    def feed(self, record: Record) -> None:
        """The next call was made."""
        line, client = record.line, record.client
        parts = references(record)
        for one in parts.uses:
            self._maybe(line, self._births.of(client, one))
        if record.ret == 0:
            for one in parts.makes:  # an import of what has a number already
                self._maybe(line, self._births.of(client, one))
        self._fences.feed(record)
        for _, born in self._births.feed(record, parts):
            self._add(born, line)
        self._begin(record)
        self._spaces.feed(record)

    def _maybe(self, call: int, needed: int | None) -> None:
        if needed is not None:
            self._add(call, needed)

    def _begin(self, record: Record) -> None:
        begun = self._begun.setdefault(record.client, [])
        if record.ret == 0:
            match record:
                case recorded.VmInit():
                    if begun:  # another open of the same number
                        self._spaces.close(record.client)
                        begun.clear()
                    begun.append(record.line)
                case recorded.GemNew() | recorded.ChannelAlloc() if not begun:
                    begun.append(record.line)
                case recorded.Other(call="close"):
                    self._spaces.close(record.client)
                    begun.clear()
                case _:
                    pass
        for needed in begun:
            self._add(record.line, needed)

    def living(self, client: int) -> Iterator[int]:
        """The calls that made what is now mapped in the client's space, and its sparse regions."""
        yield from self._spaces.living(client)

    def waits(self, call: int) -> tuple[int | None, ...]:
        """For each wait of a submission, the call that put in what it waits for; None: nobody told."""
        return self._fences.waits.get(call, ())

    def all_of(self, calls: Iterable[int], last: int) -> set[int]:
        """The calls, with all that they need up to call ``last``. Cost: O(what comes out)."""
        found: set[int] = set()
        todo = [*calls]
        while todo:
            call = todo.pop()
            if call <= last and call not in found:
                found.add(call)
                todo += self._of.get(call, ())
        return found
