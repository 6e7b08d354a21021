"""BindHistory: which bind call and operation last touched an address: "who unmapped this?"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from gpuvm._core import BindLog
from gpuvm.errors import CheckFailed, InvalidArgument
from gpuvm.nouveau.bind import OpCode
from gpuvm.nouveau.uapi.dialects import CURRENT, Dialect
from gpuvm.nouveau.uapi.requests import VmBindOp

KEPT: Final = 1 << 14
"""Operations that a history keeps unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class Touch:
    """One operation of one bind call, as the program passed it."""

    call: int
    """The number of the call among the client's, from 1 on."""
    index: int
    """Which operation of the call, from 0 on."""
    ops: int
    """How many the call had."""
    op: OpCode
    sparse: bool
    """It was about a sparse region."""
    addr: int
    range: int
    """Bytes, both."""
    handle: int
    """What a MAP showed, by the client's number for it then; 0: none."""
    offset: int
    """Bytes into that object."""
    time: int
    """When the call came, in ns of ``task.now``."""
    run_async: bool
    run: bool
    """Whether the call's job has run: before that page tables show what was there before."""

    @property
    def end(self) -> int:
        """First address behind the range."""
        return self.addr + self.range

    @property
    def maps(self) -> bool:
        """Whether it made the range readable: by an object, or by a sparse region."""
        return self.op is OpCode.MAP or (self.op is OpCode.ALLOC and self.sparse)

    @property
    def unmaps(self) -> bool:
        """Whether nothing was to be read there any more, or only zeros."""
        return self.op in (OpCode.UNMAP, OpCode.FREE)


@dataclass(frozen=True, slots=True)
class BindHistoryStatistics:
    """A snapshot of one history."""

    calls: int
    """Noted in all."""
    kept_calls: int
    kept_ops: int
    run: int
    """The number of the last call whose job has run."""


class BindHistory(BindLog):
    """The last operations that bind calls of one client asked for, and that took effect in its address space.

    It holds numbers as the program passed them, no object and no mapping, so nothing lives longer for it.

    - ``note(call_time, ops, run_async)``: a bind call was committed, at a moment of ``task.now``; the number
      of the call, for ``ran``
    - ``last_touch``, ``touches``: who looks

    Locking: ``note`` the VM's lock, so that numbers follow the order in which binds change the space; ``ran``
    none, calls in their order. Looking needs no lock and never waits. Cost: a note some 10 ns an operation,
    whatever is kept; a look-up O(operations kept), 20 us for the default.

    Args:
        kept: operations at most, 40 bytes each. Older calls are forgotten as a whole, a call without
            operations counts as one, and of a larger call the last ``kept`` stay. Have as many as a program
            makes between a mistake and the access that shows it: the default is some hundred frames of a
            program that streams tiles, and 1 MiB.
        dialect: the client's, which says what the numbers of operations mean.

    Attributes:
        kept: operations at most.
        oldest, newest: the numbers of the first call that is kept, and of the last; an oldest of 1: nothing
            was forgotten.

    Raises:
        InvalidArgument: ``kept`` is less than 1.

    Source: the VM log of msm's ``vm_log_shift``.
    """

    def __new__(cls, *, kept: int = KEPT, dialect: Dialect = CURRENT) -> Self:
        """As the class says."""
        if kept < 1:
            raise InvalidArgument(f"BindHistory: kept {kept}; pass at least 1 operation", kept, 1)
        return super().__new__(cls, kept=kept)

    def __init__(self, *, kept: int = KEPT, dialect: Dialect = CURRENT) -> None:
        self._dialect: Final = dialect
        self._run = 0

    def ran(self, number: int) -> None:
        """The job of this call has run, and so have all before it. Locking: none; calls in their order."""
        self._run = number

    # -- looking, at any moment

    def last_touch(self, addr: int) -> Touch | None:
        """The newest operation whose range has ``addr``; None: none that is kept."""
        return next(self.touches(addr), None)

    def touches(self, addr: int) -> Iterator[Touch]:
        """All operations whose range has ``addr``, newest first."""
        place: tuple[int, int] | None = None
        while (found := self.find(addr, place)) is not None:
            place, (ops, time, run_async), op = found
            yield self._touch(place, ops, time, run_async, VmBindOp._make(op))

    def _touch(self, place: tuple[int, int], ops: int, time: int, run_async: bool, op: VmBindOp) -> Touch:
        call, index = place
        code, sparse_flag = self._dialect.meanings[op.op]
        sparse = bool(op.flags & sparse_flag)
        shows = code is OpCode.MAP and not sparse
        return Touch(
            call=call,
            index=index,
            ops=ops,
            op=code,
            sparse=sparse,
            addr=op.addr,
            range=op.range,
            handle=op.handle if shows else 0,
            offset=op.bo_offset if shows else 0,
            time=time,
            run_async=run_async,
            run=call <= self._run,
        )

    # -- itself

    def check(self) -> None:
        """Verify numbers and counts. Locking: the VM's lock, or no call under way.

        Raises:
            CheckFailed: with the state.
        """
        if message := self._check():
            raise CheckFailed(f"{self!r}: {message}")
        if self._run > self.newest:
            raise CheckFailed(f"{self!r}: call {self._run} has run, and was never noted")

    def statistics(self) -> BindHistoryStatistics:
        """How much is kept. Locking: none."""
        calls, ops = self._counts()
        return BindHistoryStatistics(self.newest, calls, ops, self._run)

    def __repr__(self) -> str:
        return f"<BindHistory calls {self.oldest} to {self.newest}, at most {self.kept} operations>"
