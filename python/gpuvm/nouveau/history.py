"""BindHistory: which bind call and operation last touched an address: "who unmapped this?"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

from gpuvm.errors import CheckFailed, InvalidArgument
from gpuvm.nouveau.bind import OpCode
from gpuvm.nouveau.uapi.dialects import CURRENT, Dialect

if TYPE_CHECKING:
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


class _Call(NamedTuple):
    """What is kept of a call."""

    time: int
    run_async: bool
    ops_in_all: int
    """Operations that it had; fewer may be kept."""
    first: int
    """Index of the first one that is kept."""
    ops: tuple[VmBindOp, ...]


@dataclass(frozen=True, slots=True)
class BindHistoryStatistics:
    """A snapshot of one history."""

    calls: int
    """Noted in all."""
    kept_calls: int
    kept_ops: int
    run: int
    """The number of the last call whose job has run."""


class BindHistory:
    """The last operations that bind calls of one client asked for, and that took effect in its address space.

    It holds numbers as the program passed them, no object and no mapping, so nothing lives longer for it.

    Locking: ``note`` the VM's lock, so that numbers follow the order in which binds change the space; ``ran``
    none, calls in their order. Looking needs no lock and never waits: calls are written once, and found by
    number, the newest first. Cost: a note that of a tuple and a dictionary entry, whatever is kept; a look-up
    O(operations kept), 2 ms for the default.

    Args:
        kept: operations at most, some 250 bytes each. Older calls are forgotten as a whole, a call without
            operations counts as one, and of a larger call the last ``kept`` stay. Have as many as a program
            makes between a mistake and the access that shows it: the default is some hundred frames of a
            program that streams tiles, and 4 MiB.
        dialect: the client's, which says what the numbers of operations mean.

    Raises:
        InvalidArgument: ``kept`` is less than 1.

    Source: the VM log of msm's ``vm_log_shift``.
    """

    def __init__(self, *, kept: int = KEPT, dialect: Dialect = CURRENT) -> None:
        if kept < 1:
            raise InvalidArgument(f"BindHistory: kept {kept}; pass at least 1 operation", kept, 1)
        self.kept: Final = kept
        self._dialect: Final = dialect
        self._numbers: Final = count(1)
        self._calls: Final[dict[int, _Call]] = {}
        """By number; without gaps."""
        self._newest = 0
        self._oldest = 1
        self._weight = 0
        """Of all calls that are kept."""
        self._run = 0

    # -- writing

    def note(self, call_time: int, ops: Sequence[VmBindOp], run_async: bool) -> int:
        """A bind call was committed. Locking: the VM's lock.

        Args:
            call_time: ns of ``task.now``.

        Returns:
            Its number, for ``ran``.
        """
        first = max(len(ops) - self.kept, 0)
        call = _Call(call_time, run_async, len(ops), first, tuple(ops[first:] if first else ops))
        number = next(self._numbers)
        self._calls[number] = call
        self._newest = number
        self._weight += _weight(call)
        while self._weight > self.kept:
            self._weight -= _weight(self._calls.pop(self._oldest))
            self._oldest += 1
        return number

    def ran(self, number: int) -> None:
        """The job of this call has run, and so have all before it. Locking: none; calls in their order."""
        self._run = number

    # -- looking, at any moment

    @property
    def oldest(self) -> int:
        """The number of the first call that is kept; 1: nothing was forgotten."""
        return self._oldest

    def last_touch(self, addr: int) -> Touch | None:
        """The newest operation whose range has ``addr``; None: none that is kept."""
        return next(self.touches(addr), None)

    def touches(self, addr: int) -> Iterator[Touch]:
        """All operations whose range has ``addr``, newest first."""
        number = self._newest
        while (call := self._calls.get(number)) is not None:
            for place in range(len(call.ops) - 1, -1, -1):
                op = call.ops[place]
                if op.addr <= addr < op.addr + op.range:
                    yield self._touch(number, call, place)
            number -= 1

    def _touch(self, number: int, call: _Call, place: int) -> Touch:
        op = call.ops[place]
        code, sparse_flag = self._dialect.meanings[op.op]
        sparse = bool(op.flags & sparse_flag)
        shows = code is OpCode.MAP and not sparse
        return Touch(
            call=number,
            index=call.first + place,
            ops=call.ops_in_all,
            op=code,
            sparse=sparse,
            addr=op.addr,
            range=op.range,
            handle=op.handle if shows else 0,
            offset=op.bo_offset if shows else 0,
            time=call.time,
            run_async=call.run_async,
            run=number <= self._run,
        )

    # -- itself

    def check(self) -> None:
        """Verify numbers and counts. Locking: the VM's lock, or no call under way.

        Raises:
            CheckFailed: with the state.
        """
        calls = self._calls
        numbers = list(range(self._oldest, self._newest + 1))
        weight = sum(map(_weight, calls.values()))
        whole = all(len(call.ops) == call.ops_in_all - call.first for call in calls.values())
        if list(calls) != numbers or weight != self._weight or weight > self.kept or not whole:
            raise CheckFailed(
                f"{self!r}: calls {list(calls)}, {self._weight} operations counted, not {weight}"
            )
        if self._run > self._newest:
            raise CheckFailed(f"{self!r}: call {self._run} has run, and was never noted")

    def statistics(self) -> BindHistoryStatistics:
        """How much is kept. Locking: none."""
        calls = list(self._calls.values())
        return BindHistoryStatistics(
            self._newest, len(calls), sum(len(call.ops) for call in calls), self._run
        )

    def __repr__(self) -> str:
        return f"<BindHistory calls {self._oldest} to {self._newest}, at most {self.kept} operations>"


def _weight(call: _Call) -> int:
    """How much of ``kept`` it takes."""
    return len(call.ops) or 1
