"""Many maps continue each other, in the address space and in the object: one would do.

Each operation costs a mapping, page-table work, and later an unmap. And where pages of the GPU are larger
than what is mapped at a time, small maps get small entries: more of them, and more misses in the TLB.

- warning: 1,000 operations or more could be one.
- note: 16 or more.

Only maps of a run count that follow each other with no EXEC between them: a program that streams cannot
know what comes next.

What to do: collect neighbours before the call, and map them as one.

Source: Documentation/gpu/drm-vm-bind-async.rst on batching; drm_gpuvm_sm_map, which does not merge.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from gpuvm.report.evidence import Evidence
from gpuvm.report.findings import Finding, Role, Severity, range_text
from gpuvm.report.rules.example import (
    ADDR,
    KIB,
    VM_INIT,
    Example,
    gem_close,
    gem_new,
    mapped,
    text_of,
    unmapped,
    vm_bind,
)
from gpuvm.report.sizes import size_text

ID = "mergeable-neighbours"

_COUNT, _SIZE = 16, 64 * KIB
_TILES = [mapped(1, ADDR + at, _SIZE, at) for at in range(0, _COUNT * _SIZE, _SIZE)]
_START = (VM_INIT, gem_new(1, _COUNT * _SIZE))
_END = (vm_bind(unmapped(ADDR, _COUNT * _SIZE)), gem_close(1))
BAD = Example(text_of(*_START, *(vm_bind(tile) for tile in _TILES), *_END))
GOOD = Example(text_of(*_START, vm_bind(mapped(1, ADDR, _COUNT * _SIZE)), *_END))

_NOTED = 16
_WARNED = 1000


class _Map(NamedTuple):
    """One operation. Neighbours have the same object, distance and kind."""

    client: int
    call: int
    addr: int
    end: int
    shows: tuple[int, int, int]


def find(evidence: Evidence) -> Iterator[Finding]:
    """Runs of maps, upwards or downwards."""
    execs: defaultdict[int, list[int]] = defaultdict(list)
    for client, call in evidence.db.execute("SELECT client, call FROM jobs WHERE channel != 0 ORDER BY call"):
        execs[client].append(call)
    for client, maps in groupby(_maps(evidence), key=itemgetter(0)):
        for run in _runs(maps, execs[client]):
            if len(run) >= _NOTED:
                yield _finding(evidence, run)


def _maps(evidence: Evidence) -> Iterator[_Map]:
    rows = evidence.db.execute(
        "SELECT m.client, o.call, m.addr, m.addr + m.range, m.object, m.addr - m.bo_offset, m.pte_kind "
        "FROM ops o JOIN mappings m ON m.id = o.mapping WHERE o.code = 0 AND m.object NOTNULL "
        "ORDER BY m.client, o.call, o.i"
    )
    for client, call, addr, end, *shows in rows:
        yield _Map(client, call, addr, end, (shows[0], shows[1], shows[2]))


def _runs(maps: Iterator[_Map], execs: list[int]) -> Iterator[list[_Map]]:
    run: list[_Map] = []
    upwards = True
    for one in maps:
        last = run[-1] if run else None
        if last is not None and last.shows == one.shows and not _any_between(execs, last.call, one.call):
            up, down = one.addr == last.end, one.end == last.addr
            if (up or down) and (len(run) == 1 or up == upwards):
                upwards = up
                run.append(one)
                continue
        if last is not None:
            yield run
        run = [one]
    if run:
        yield run


def _any_between(calls: list[int], first: int, last: int) -> bool:
    at = bisect_left(calls, first)
    return at < len(calls) and calls[at] < last


def _finding(evidence: Evidence, run: list[_Map]) -> Finding:
    addr, end = min(one.addr for one in run), max(one.end for one in run)
    first, last = run[0], run[-1]
    each = (end - addr) // len(run)
    where = evidence.name(first.call)
    if last.call != first.call:
        where = f"{where} to {evidence.name(last.call)}"
    message = (
        f"{where}: {len(run):,} maps, {size_text(each)} each on average, continue each other: "
        f"one map of {range_text(addr, end)} would do"
    )
    severity = Severity.WARNING if len(run) >= _WARNED else Severity.NOTE
    roles = [Role(first.call, "maps the first")]
    if last.call != first.call:
        roles.append(Role(last.call, "maps the last"))
    return Finding(ID, severity, message, tuple(roles), evidence.number(first.client), addr, end)
