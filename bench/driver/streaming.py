"""A renderer that streams tiles, recorded: its calls are made again; a unit is an operation of its binds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from bench.sampling.contender import Contender, Job
from bench.selfcheck import Disagreement
from gpuvm.mmu.formats import TU102
from gpuvm.trace.driver_replay import DriverReplay
from gpuvm.trace.jsonl import read_records
from gpuvm.trace.memory_replay import MemoryReplay
from gpuvm.trace.recorded import Record, VmBind
from gpuvm.trace.replay import Replay
from gpuvm.trace.source import Source

TRACE = Path(__file__).resolve().parents[2] / "examples" / "nvk-tile-streaming.jsonl.gz"


@cache
def records() -> tuple[Record, ...]:
    with Source(str(TRACE)) as source:
        return tuple(read_records(source.name, source))


def operations() -> int:
    """Of all binds that were accepted."""
    return sum(map(_operations, records()))


def _operations(record: Record) -> int:
    return len(record.ops) if isinstance(record, VmBind) and record.ret == 0 else 0


def beginning(units: int) -> Sequence[Record]:
    """So much of the trace that it has that many operations, or a call's worth more."""
    done = 0
    for place, record in enumerate(records()):
        if done >= units:
            return records()[:place]
        done += _operations(record)
    return records()


class Runs(Protocol):
    def run(self, records: Sequence[Record]) -> object: ...


Made = TypeVar("Made", bound=Runs)


class Stream(Contender, Generic[Made]):
    """One of the ways to replay a trace."""

    replay: Made | None = None

    def jobs(self, units: int) -> list[Job]:
        part = beginning(units)
        replay = self.replay = self._make(part)

        def job() -> None:
            replay.run(part)

        return [job]

    def check(self) -> int:
        """Operations that were made, and mappings that they left."""
        assert self.replay is not None
        found = self._found(self.replay)
        self._end(self.replay)
        self.replay = None
        return found

    @abstractmethod
    def _make(self, part: Sequence[Record]) -> Made: ...

    @abstractmethod
    def _found(self, replay: Made) -> int: ...

    def _end(self, replay: Made) -> None:
        """Close it."""


class DriverStream(Stream[DriverReplay]):
    """Through the driver: every call, execs and sync objects among them; push buffers are zeros."""

    def _make(self, part: Sequence[Record]) -> DriverReplay:
        return DriverReplay(TRACE.name, part)

    def _found(self, replay: DriverReplay) -> int:
        if replay.differences:
            raise Disagreement(f"DriverStream: {replay.differences[0]}")
        spaces = [client.client.vm for client in replay.clients.values()]
        return replay.submitted.bind_ops + sum(len(vm) for vm in spaces if vm is not None)

    def _end(self, replay: DriverReplay) -> None:
        replay.close()


class SpaceStream(Stream[MemoryReplay]):
    """Binds alone, by `Uvmm.bind`: memory and page tables, no jobs, no fences."""

    def _make(self, part: Sequence[Record]) -> MemoryReplay:
        return MemoryReplay(TRACE.name, part, TU102)

    def _found(self, replay: MemoryReplay) -> int:
        spaces = [client.vm for client in replay.clients.values() if client.vm is not None]
        return sum(vm.statistics().bind_ops + len(vm) for vm in spaces)

    def _end(self, replay: MemoryReplay) -> None:
        replay.close()


class ManagerStream(Stream[Replay]):
    """Binds alone, by the manager: what is mapped where, no memory."""

    def _make(self, part: Sequence[Record]) -> Replay:
        return Replay(TRACE.name)

    def _found(self, replay: Replay) -> int:
        clients = [client for client in replay.clients.values() if client.vm is not None]
        return sum(client.requests + client.sparse_maps + len(client.mappings()) for client in clients)
