"""What is measured, with whom: tables of cases."""

from __future__ import annotations

import time
from functools import partial

from bench import targets
from bench.driver.binds import IoctlBinds, MmapBinds, ModelBinds, SpaceBinds, TypedBinds
from bench.driver.blocks import ArraysFromBlocks, ArraysToBlocks, FromBlocks, ToBlocks
from bench.driver.copies import UNIT, EngineCopies, ManyLaunches, OneLaunch, PlainCopies
from bench.driver.execs import ExecutorExecs, IoctlExecs, TypedExecs
from bench.driver.streaming import DriverStream, ManagerStream, SpaceStream, operations
from bench.driver.waits import EventWaits, IoctlWaits, TypedWaits
from bench.sampling.case import Case, Table, Target

COPIED = 256 << 20
"""Bytes."""
MANY = 256
"""Operations of a large VM_BIND."""


def _binds(title: str, count: int, over: bool) -> Case:
    return Case(
        f"{title}, {count} a call",
        {
            "typed": partial(TypedBinds, count, over),
            "bytes": partial(IoctlBinds, count, over),
            "space": partial(SpaceBinds, count, over),
            "model": partial(ModelBinds, count, over),
            "mmap": partial(MmapBinds, count, over),
        },
        units=4_000 if count == 1 else 40 * count,
        step=2 * count,
        targets=(Target(targets.BIND_NS if count == 1 else targets.BIND_OP_NS),),
    )


def _execs(title: str, copying: bool, waiting: bool) -> Case:
    return Case(
        f"{title}, {'to its end' if waiting else 'submitted'}",
        {
            "typed": partial(TypedExecs, copying, waiting),
            "bytes": partial(IoctlExecs, copying, waiting),
            "executor": partial(ExecutorExecs, copying, waiting),
        },
        units=2_000,
    )


def _copies(size: int) -> tuple[Case, ...]:
    plain = partial(PlainCopies, size)

    def case(title: str, engine: type[EngineCopies], arrays: type[PlainCopies] | None = None) -> Case:
        return Case(
            f"{size >> 20} MiB, {title}",
            {
                "engine": partial(engine, size),
                "plain": plain,
                **({} if arrays is None else {"arrays": partial(arrays, size)}),
            },
            units=2 * size // UNIT,
            step=size // UNIT,
            targets=(Target(targets.ENGINE_COPY_RATIO, "plain"),) if arrays is None else (),
        )

    return (
        case("one launch", OneLaunch),
        case("launches of 128 KiB", ManyLaunches),
        case("lines to blocks", ToBlocks, ArraysToBlocks),
        case("blocks to lines", FromBlocks, ArraysFromBlocks),
    )


def tables(copied: int = COPIED) -> tuple[Table, ...]:
    """All of them; `copied` bytes at a time, a multiple of `blocks.LEAST`."""
    return (
        Table(
            "bind",
            "VM_BIND, sync, 64 KiB an operation: time an operation",
            {
                "typed": "vm_bind",
                "bytes": "ioctl",
                "space": "Uvmm.bind",
                "model": "Python model",
                "mmap": "mmap",
            },
            (("typed", "space"), ("typed", "model"), ("typed", "mmap")),
            (
                _binds("map, unmap", 1, over=False),
                _binds("map, unmap", MANY, over=False),
                _binds("map over another", 1, over=True),
                _binds("map over another", MANY, over=True),
            ),
            rate="operations a second",
        ),
        Table(
            "exec",
            "EXEC: time a call",
            {"typed": "exec", "bytes": "ioctl", "executor": "executor"},
            (("typed", "executor"),),
            (
                _execs("no push", copying=False, waiting=False),
                _execs("no push", copying=False, waiting=True),
                _execs("a push that copies 4 KiB", copying=True, waiting=False),
                _execs("a push that copies 4 KiB", copying=True, waiting=True),
            ),
        ),
        Table(
            "wait",
            "SYNCOBJ_WAIT, signalled: CPU time a call",
            {"typed": "wait", "bytes": "ioctl", "event": "Event"},
            (("typed", "event"),),
            (
                Case(
                    "one sync object",
                    {"typed": TypedWaits, "bytes": IoctlWaits, "event": EventWaits},
                    units=20_000,
                ),
            ),
            clock=time.thread_time_ns,
        ),
        Table(
            "trace",
            "a recorded renderer, end to end: time an operation of its binds",
            {"driver": "driver", "space": "Uvmm", "manager": "manager"},
            (("driver", "space"), ("driver", "manager")),
            (
                Case(
                    "streaming of tiles",
                    {"driver": DriverStream, "space": SpaceStream, "manager": ManagerStream},
                    units=operations(),
                ),
            ),
            rate="operations a second",
        ),
        Table(
            "engine",
            "bytes copied by an EXEC: time a KiB",
            {"engine": "copy engine", "plain": "memcpy", "arrays": "NumPy"},
            (("engine", "plain"), ("engine", "arrays")),
            _copies(copied),
        ),
    )
