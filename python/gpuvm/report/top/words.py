"""A moment of a recorded program in words and short columns; the terminal view only places them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from gpuvm.report.sizes import size_text
from gpuvm.report.top.rates import column_slots
from gpuvm.report.top.watch import ClientNumbers, Fault, Moment

SPACE_COLUMNS: Final = (
    "client",
    "mappings",
    "mapped",
    "sparse",
    "holes",
    "frag.",
    "tables",
    "binds/s",
    "ops/s",
)
QUEUE_COLUMNS: Final = ("queue", "wait", "run", "oldest", "done", "failed")
CALL_COLUMNS: Final = ("call", "count", "/s", "refused")
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_BAR: Final = 8
_WIDE: Final = 110
"""Columns from which on a line has room for more than numbers."""
_UNKNOWN: Final = "-"

Row = tuple[str, ...]


def space_rows(moment: Moment) -> list[Row]:
    """A row of ``SPACE_COLUMNS`` for each client; the open ones first, then those closed last."""
    ordered = sorted(moment.clients, key=lambda one: (one.closed is not None, -(one.closed or 0), one.id))
    return [_space_row(one) for one in ordered]


def _space_row(client: ClientNumbers) -> Row:
    space, is_open = client.space, client.closed is None
    return (
        client.name,
        f"{space.mappings:,}",
        size_text(space.mapped_bytes),
        f"{space.regions:,}",
        f"{space.holes:,}",
        f"{space.fragmentation:.1%}",
        f"{client.tables.tables:,}",
        f"{client.binds_per_second:,}" if is_open else "closed",
        f"{client.ops_per_second:,}" if is_open else "",
    )


def queue_rows(moment: Moment) -> list[Row]:
    """A row of ``QUEUE_COLUMNS`` for each queue of an open client; those with jobs first."""
    if moment.queues is None:
        return [("not recorded",) + ("",) * (len(QUEUE_COLUMNS) - 1)]
    names = {one.id: one.name for one in moment.clients}
    ordered = sorted(moment.queues, key=lambda one: (one.since is None, one.since, one.client, one.channel))
    return [
        (
            f"{names.get(one.client, one.client)} {f'ch {one.channel}' if one.channel else 'binds'}",
            f"{one.queued:,}",
            f"{one.running:,}",
            _UNKNOWN if one.since is None else duration(moment.now - one.since),
            f"{one.done:,}",
            f"{one.failed:,}",
        )
        for one in ordered
    ]


def call_rows(moment: Moment) -> list[Row]:
    """A row of ``CALL_COLUMNS`` for each kind of call, the most frequent first, all clients together."""
    sums: dict[str, tuple[int, int, int]] = {}
    for client in moment.clients:
        for call in client.calls:
            count, rate, refused = sums.get(call.name, (0, 0, 0))
            sums[call.name] = count + call.count, rate + call.per_second, refused + call.refused
    ordered = sorted(sums.items(), key=lambda item: (-item[1][0], item[0]))
    return [(name, *(f"{number:,}" for number in numbers)) for name, numbers in ordered]


def rates_line(moment: Moment, width: int) -> str:
    """``binds/s 120 ▁▃█▂  ops/s 240  calls/s 600``; ``width`` is of all of it."""
    binds, ops = (
        sum(getattr(one, name) for one in moment.clients) for name in ("binds_per_second", "ops_per_second")
    )
    calls = sum(call.per_second for client in moment.clients for call in client.calls)
    head, tail = f"binds/s {binds:>7,}  ", f"  ops/s {ops:>8,}  calls/s {calls:>7,}"
    seconds = "1 s" if column_slots(moment.now) > 1 else "0.1 s"
    note = f"  a column: {seconds}" if width >= _WIDE else ""
    columns = added(one.binds for one in moment.clients)
    return head + sparkline(columns, width - len(head) - len(tail) - len(note)) + tail + note


def added(histories: Iterable[Sequence[int]]) -> list[int]:
    """Sums of columns; each history has all of them or none."""
    return [sum(column) for column in zip(*filter(None, histories), strict=True)]


def sparkline(columns: Sequence[int], width: int) -> str:
    """The last ``width`` columns, the highest one full; what is not 0 is seen."""
    shown = [0] * max(width - len(columns), 0) + list(columns[-width:] if width > 0 else ())
    most = max(shown, default=0)
    levels = (-(-one * (len(_BLOCKS) - 1) // most) if most else 0 for one in shown)
    return "".join(_BLOCKS[level] for level in levels)


def memory_line(moment: Moment, width: int) -> str:
    """``VRAM █░░░░░░░ 12 MiB of 8 GiB   GART ...   evictions 3, 1.2 MiB``; no bars in a short line."""
    memory = moment.memory
    if memory is None:
        return "memory: not recorded"
    bar = _BAR if width >= _WIDE else 0
    parts = [_memory("VRAM", memory.vram, moment.vram, bar), _memory("GART", memory.gart, moment.gart, bar)]
    if memory.swapped:
        parts.append(f"swapped {size_text(memory.swapped)}")
    evicted = f", {size_text(memory.evicted_bytes)}" if memory.evictions else ""
    return "   ".join([*parts, f"evictions {memory.evictions:,}{evicted}"])


def _memory(name: str, used: int, whole: int | None, bar: int) -> str:
    if not whole:
        return f"{name} {size_text(used)}"
    filled = -(-used * bar // whole)
    shown = f"{'█' * filled}{'░' * (bar - filled)} " if bar else ""
    return f"{name} {shown}{size_text(used)} of {size_text(whole)}"


def tables_line(moment: Moment) -> str:
    """``page tables 12, entries written 1,074, cleared 1,042``."""
    if moment.memory is None:
        return "page tables: not recorded"
    each = [one.tables for one in moment.clients]
    tables, written, cleared = (
        sum(getattr(one, name) for one in each) for name in ("tables", "written", "cleared")
    )
    return f"page tables {tables:,}   entries written {written:,}, cleared {cleared:,}"


def fault_line(moment: Moment) -> str:
    """How many faults there were, and the last one."""
    if not moment.faults:
        return "no faults"
    last = moment.faults[0]
    count = "a fault" if moment.faults_total == 1 else f"{moment.faults_total:,} faults, the last"
    return f"{count} {duration(moment.now - last.t)} ago: {fault_words(moment, last)}"


def fault_words(moment: Moment, fault: Fault) -> str:
    """One fault: why nothing was there, what was accessed, by whom."""
    names = {one.id: one.name for one in moment.clients}
    cause = fault.cause.lower().replace("_", " ")
    access = "" if fault.addr is None else f", {(fault.access or 'access').lower()} of {fault.addr:#x}"
    return f"{cause}{access}, ch {fault.channel} of {names.get(fault.client, fault.client)}, {fault.engine}"


def duration(nanoseconds: int) -> str:
    """``850 us``, ``1.5 s``, ``2:05``, ``1:02:05``."""
    if nanoseconds < 60_000_000_000:
        for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000)):
            if nanoseconds >= size:
                return f"{nanoseconds / size:.3g} {unit}"
        return f"{max(nanoseconds, 0) // 1000} us"
    minutes, seconds = divmod(nanoseconds // 1_000_000_000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
