"""A trace of any length, as a program leaves it that streams tiles: ordinary calls, with what became of them.

A frame is 13 calls: two tiles come and two go, each with a bind; two are bound anew by jobs of a timeline;
two EXECs copy and draw, and the CPU waits for them. Everything is drawn from a seeded generator.
"""

from __future__ import annotations

import argparse
import random
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from gpuvm.trace import database
from gpuvm.trace.recorded import (
    BIND_RUN_ASYNC,
    OP_MAP,
    OP_UNMAP,
    SYNC_TIMELINE,
    BindOp,
    ChannelAlloc,
    GemClose,
    GemNew,
    Push,
    Record,
    Submission,
    Sync,
    SyncobjCreate,
    SyncobjTimelineWait,
    VmBind,
    VmInit,
)
from gpuvm.trace.writer import Writer

TILE: Final = 64 << 10
TILES: Final = 2000
"""That are mapped at a time."""

_CLIENT: Final = 1
_KERNEL: Final = 1 << 39
LOWEST: Final = 0x3F_0000_0000
_PUSH_BUFFER: Final = 0x3F_F000_0000
_TIMELINE: Final = 1
_FETCH, _READ, _WRITE = 2, 0, 1


@dataclass(slots=True)
class _Program:
    """What a program has, and the number and the time of its next call."""

    random: random.Random
    line: int = 0
    t: int = 0
    tiles: deque[tuple[int, int]] = field(default_factory=deque)
    """Handle and address of those that are mapped."""
    handle: int = 0
    point: int = 0
    free: list[int] = field(default_factory=list)
    """Addresses that tiles have left."""

    def head(self) -> tuple[int, int, int, int]:
        self.line += 1
        self.t += self.random.randrange(5_000, 100_000)
        return self.line, self.t, _CLIENT, 0


def records(count: int, seed: int = 1) -> Iterator[Record]:
    """The first ``count`` calls; the same for the same seed."""
    return islice(_calls(_Program(random.Random(seed))), count)


def _calls(program: _Program) -> Iterator[Record]:
    yield VmInit(*program.head(), _KERNEL, _KERNEL)
    yield ChannelAlloc(*program.head(), "channel_alloc", 1)
    yield SyncobjCreate(*program.head(), "syncobj_create", 0, _TIMELINE)
    yield from _new_tile(program, _PUSH_BUFFER)
    program.tiles.clear()
    while True:
        for _ in range(2):
            if len(program.tiles) >= TILES:
                yield from _drop_tile(program)
            yield from _new_tile(program, _address(program))
        for _ in range(2):
            yield _rebind(program)
        for _ in range(2):
            yield _exec(program)
        head = program.head()
        yield SyncobjTimelineWait(*head, "syncobj_timeline_wait", (_TIMELINE,), (program.point,), 1)


def _address(program: _Program) -> int:
    if program.free:
        return program.free.pop(program.random.randrange(len(program.free)))
    return LOWEST + len(program.tiles) * TILE


def _new_tile(program: _Program, addr: int) -> Iterator[Record]:
    program.handle += 1
    yield GemNew(*program.head(), program.handle, TILE, 6, 0x1000, 0, 0)
    yield _bind(program, OP_MAP, program.handle, addr, 0)
    program.tiles.append((program.handle, addr))


def _drop_tile(program: _Program) -> Iterator[Record]:
    handle, addr = program.tiles.popleft()
    yield _bind(program, OP_UNMAP, 0, addr, 0)
    yield GemClose(*program.head(), handle)
    program.free.append(addr)


def _rebind(program: _Program) -> Record:
    """A tile shows another part of its object, once the jobs so far are done."""
    handle, addr = program.random.choice(program.tiles)
    return _bind(program, OP_MAP, handle, addr, 0, queued=True)


def _bind(program: _Program, op: int, handle: int, addr: int, offset: int, queued: bool = False) -> VmBind:
    ops = (BindOp(op, 0, handle, 0, addr, offset, TILE),)
    if not queued:
        return VmBind(*program.head(), ops, 0, (), ())
    program.point += 1
    waits, signals = _syncs(program.point)
    return VmBind(*program.head(), ops, BIND_RUN_ASYNC, waits, signals)


def _exec(program: _Program) -> Submission:
    program.point += 1
    push = Push(_PUSH_BUFFER + program.random.randrange(TILE // 256) * 256, 256, 0)
    return Submission(*program.head(), (push,), 1, *_syncs(program.point))


def _syncs(point: int) -> tuple[tuple[Sync, ...], tuple[Sync, ...]]:
    return (Sync(SYNC_TIMELINE, _TIMELINE, point - 1),), (Sync(SYNC_TIMELINE, _TIMELINE, point),)


def tell(writer: Writer, calls: Iterable[Record], seed: int = 1, *, runtime: bool = True) -> None:
    """Give calls to a writer; with ``runtime`` all that a recording tells of them, too."""
    drawn = random.Random(seed)
    seqno = {0: 0, 1: 0}
    if runtime:
        writer.opened(_CLIENT, 0, "tiles", 4242, "tiles")
    for record in calls:
        writer.call(record, drawn.randrange(2_000, 40_000) if runtime else None)
        if not runtime:
            continue
        match record:
            case VmBind():
                writer.page_work(record.line, 16 * (record.ops[0].op == OP_MAP), 16, 0, 0)
                if record.flags:
                    _job(writer, record, 0, seqno, drawn)
            case Submission():
                _job(writer, record, 1, seqno, drawn)
                ran = record.t + 60_000
                written = LOWEST + drawn.randrange(TILES) * TILE
                for engine, code, addr in (("host", _FETCH, record.pushes[0].va), ("copy", _WRITE, written)):
                    writer.accessed(ran, 3_000, _CLIENT, 1, record.line, engine, code, addr, 256)
            case _:
                pass
        if record.line % 2_000 == 0:
            writer.commit()


def _job(writer: Writer, record: Record, channel: int, seqno: dict[int, int], drawn: random.Random) -> None:
    seqno[channel] += 1
    fence = 10 + channel, seqno[channel]
    writer.queued(record.line, *fence, f"channel {channel}", record.t + 5_000)
    writer.started(*fence, record.t + drawn.randrange(10_000, 50_000))
    writer.done(*fence, record.t + drawn.randrange(100_000, 500_000), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", metavar="OUT.gpuvm", help="a file that is not there yet")
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--asked", action="store_true", help="only the calls, as JSON Lines have them")
    arguments = parser.parse_args()
    db = database.create(arguments.output)
    writer = Writer(db)
    tell(writer, records(arguments.calls, arguments.seed), arguments.seed, runtime=not arguments.asked)
    writer.finish()
    db.close()


if __name__ == "__main__":
    main()
