"""Telling: what a recorder's frames say, told to who writes a trace."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gpuvm.nouveau.uapi import numbers
from gpuvm.trace import frames
from gpuvm.trace.recorded import Other
from gpuvm.trace.told_calls import Copies, Made, map_handle_of, record_of

if TYPE_CHECKING:
    from gpuvm.trace.frames import Frame
    from gpuvm.trace.line_writer import LineWriter
    from gpuvm.trace.writer import Writer

_NAME: Final = re.compile(r"(.*) \((\d+)\)", re.DOTALL)
"""What `gpuvm run` calls a client: the program, and its process."""
_OWN_NAME: Final = re.compile(r"process (\d+)")
"""What a `testing.Node` does."""

_Job = tuple[int, int, int]
"""Client, channel, the call."""


class Telling:
    """Tells frames, in their order, to who writes. Calls get their numbers here.

    Args:
        target: who writes; times are told to it as ns since the recording began.
        begun: when the recording began, in ns of the recorder's ``task.now``.

    Attributes:
        numbers: how many calls there were, closes of opens among them.
        closes: how many of these.
    """

    def __init__(self, target: Writer | LineWriter, begun: int) -> None:
        self._target: Final = target
        self._begun: Final = begun
        self.numbers = 0
        self.closes = 0
        self._binds: Final[dict[int, array[int]]] = {}
        """By client: the calls of its binds, from the first on; 0: it is not told."""
        self._jobs: Final[dict[tuple[int, int], _Job]] = {}
        """By fence; those that are not done."""
        self._running: Final[dict[tuple[int, int], int]] = {}
        """By client and channel: the call whose job it executes."""
        self._tell: Final[dict[int, Callable[..., None]]] = {
            frames.CALL: self._call,
            frames.OPENED: self._opened,
            frames.CLOSED: self._closed,
            frames.QUEUED: self._queued,
            frames.STARTED: self._started,
            frames.DONE: self._done,
            frames.ACCESSED: self._accessed,
            frames.MOVED: self._moved,
            frames.TABLES: self._tables,
            frames.FAULTED: self._faulted,
            frames.DEVICE: target.device,
            frames.ABOUT: target.about,
            frames.NOTHING: lambda: None,
        }

    def take(self, frame: Frame) -> None:
        """One more."""
        self._tell[frame[1]](*frame[2:])

    def _since(self, time: int) -> int:
        return time - self._begun

    def _call(
        self,
        number: int,
        client: int,
        began: int,
        took: int,
        result: int,
        size: int,
        arg: int,
        copied: tuple[Copies, Copies],
        file: int | None,
        bind: int,
        job: tuple[int, int, int, str, int] | None,
        tables: tuple[int, int, int, int] | None,
        _unused: int,
    ) -> None:
        self.numbers += 1
        made = Made(size, arg, *copied, file)
        record = record_of(number, (self.numbers, self._since(began), client, result), made)
        map_handle = map_handle_of(made) if number == numbers.GEM_NEW.number and result == 0 else None
        self._target.call(record, took, map_handle=map_handle)
        if bind:
            binds = self._binds.setdefault(client, array("q"))
            binds.extend([0] * (bind - len(binds)))
            binds[bind - 1] = self.numbers
        if job is not None:
            channel, context, seqno, timeline, queued = job
            self._jobs[context, seqno] = client, channel, self.numbers
            self._target.queued(self.numbers, context, seqno, timeline, self._since(queued))
        if tables is not None:
            self._target.page_work(self.numbers, *tables)

    def _opened(self, time: int, client: int, name: str) -> None:
        named, own = _NAME.fullmatch(name), _OWN_NAME.fullmatch(name)
        pid = named[2] if named else own[1] if own else None
        program = named[1] if named else None
        self._target.opened(client, self._since(time), name, None if pid is None else int(pid), program)

    def _closed(self, time: int, client: int) -> None:
        self.numbers += 1
        self.closes += 1
        self._binds.pop(client, None)
        self._target.call(Other(self.numbers, self._since(time), client, 0, "close"))

    def _call_of(self, client: int, bind: int) -> int | None:
        binds = self._binds.get(client, ())
        return (binds[bind - 1] or None) if 0 < bind <= len(binds) else None

    # -- jobs

    def _queued(self, time: int, context: int, seqno: int, timeline: str) -> None:
        self._target.queued(None, context, seqno, timeline, self._since(time))

    def _started(self, time: int, context: int, seqno: int) -> None:
        self._target.started(context, seqno, self._since(time))
        job = self._jobs.get((context, seqno))
        if job is not None:
            client, channel, call = job
            self._running[client, channel] = call

    def _done(self, time: int, context: int, seqno: int, error: int) -> None:
        self._target.done(context, seqno, self._since(time), error)
        job = self._jobs.pop((context, seqno), None)
        if job is not None and self._running.get(job[:2]) == job[2]:
            del self._running[job[:2]]

    def _accessed(
        self,
        began: int,
        ended: int,
        client: int,
        channel: int,
        engine: str,
        access: int,
        addr: int,
        range: int,
    ) -> None:
        call = self._running.get((client, channel))
        self._target.accessed(
            self._since(began), ended - began, client, channel, call, engine, access, addr, range
        )

    def _moved(
        self,
        began: int,
        ended: int,
        offset: int,
        size: int,
        source: str | None,
        target: str | None,
        evicted: bool,
    ) -> None:
        self._target.moved(self._since(began), ended - began, offset, size, source, target, evicted)

    def _tables(self, client: int, bind: int, written: int, cleared: int, made: int, freed: int) -> None:
        call = self._call_of(client, bind)
        if call is not None:
            self._target.page_work(call, written, cleared, made, freed)

    def _faulted(
        self,
        time: int,
        client: int,
        channel: int,
        addr: int | None,
        access: str | None,
        reason: str | None,
        cause: str,
        engine: str,
        unmapped: int,
        mapped: int,
        report: str,
    ) -> None:
        self._target.faulted(
            self._since(time),
            client,
            channel,
            self._running.get((client, channel)),
            addr,
            access,
            reason,
            cause,
            engine,
            self._call_of(client, unmapped),
            self._call_of(client, mapped),
            report,
        )
