"""One address space as it is after a line of a file, be it a trace or a request file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpuvm.trace.errors import TraceError
from gpuvm.trace.recorded import Record
from gpuvm.trace.replay import GemHandle, Replay, with_space
from gpuvm.trace.requests import read_requests
from gpuvm.trace.session import Bo, Session
from gpuvm.trace.stream import Stream
from gpuvm.va import GpuvaManager, Merge, Plan


@dataclass(frozen=True)
class Snapshot:
    """A space and where it comes from.

    Attributes:
        vm: the space; nobody else changes it.
        name: the file.
        line: the last line that was replayed.
        client: whose space it is, None for a request file.
        clients: every client of the trace that has a space.
        objects: by handle (trace) or BO number (request file).
    """

    vm: GpuvaManager
    name: str
    line: int
    client: int | None
    clients: tuple[int, ...]
    objects: dict[int, GemHandle] | dict[int, Bo]

    @property
    def title(self) -> str:
        """``FILE:LINE, client N``."""
        client = "" if self.client is None else f", client {self.client}"
        return f"{self.name}:{self.line}{client}"

    def object_named(self, number: int) -> GemHandle | Bo | None:
        """The object a request means by ``bo=number``; None for 0.

        Raises:
            TraceError: nothing in the trace had that handle so far.
        """
        if number == 0:
            return None
        found = self.objects.get(number)
        if found is not None:
            return found
        if self.client is not None:
            message = f"no object of client {self.client} had handle {number} so far"
            raise TraceError(self.name, message, line=self.line)
        return Bo(number)

    def plan(self, verb: str, addr: int, extent: int, obj: object, offset: int) -> Plan:
        """What ``map``, ``unmap`` or ``prefetch`` of the range would do; nothing changes.

        Raises:
            GpuvmError: the manager refuses it.
        """
        if verb == "prefetch":
            return self.vm.prefetch(addr, extent)
        if verb == "unmap":
            return self.vm.sm_unmap(addr, extent)
        return self.vm.sm_map(addr, extent, obj, offset)


def object_number(obj: object) -> int:
    """What the file calls the object: its handle or BO number; 0 for none."""
    return obj.number if isinstance(obj, GemHandle | Bo) else 0


def take_snapshot(stream: Stream, *, client: int | None = None, merge: Merge = Merge.NEVER) -> Snapshot:
    """Replay all of a stream and keep one space.

    Args:
        client: of a trace; by default the one with the most requests.
        merge: policy of the space, from its beginning.

    Raises:
        TraceError: a broken file, no such client, no space at all.
        ReplayError: the manager refuses what a trace says was accepted.
    """
    name = stream.name
    records, lines = stream.split()
    if records is not None:
        return _of_trace(name, records, client, merge)
    if client is not None:
        raise TraceError(name, "a request file has no clients")
    session = Session(name, merge=merge)
    for request in read_requests(name, lines):
        session.answer(request)
    vm = session.space("a look at the space")
    return Snapshot(vm, name, session.line, None, (), session.bos)


def _of_trace(name: str, records: Iterable[Record], client: int | None, merge: Merge) -> Snapshot:
    # All clients are replayed, so that the default can be chosen and an error in any is seen.
    replay = Replay(name, client=client, merge=merge).run(records)
    found = with_space(replay.clients, name, client)
    if not found:
        raise TraceError(name, "no client did a successful vm_init up to here")
    chosen = max(found.values(), key=lambda one: (one.requests, -one.number))
    vm = chosen.vm
    assert vm is not None
    objects = {**chosen.last_objects, **chosen.objects}
    return Snapshot(vm, name, replay.line, chosen.number, tuple(found), objects)
