"""What programs did on the virtual device, told at the end of ``gpuvm run``."""

from __future__ import annotations

import errno
import shlex
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten, wrap
from typing import TYPE_CHECKING, Final

from gpuvm.errors import ERRNO_NAMES
from gpuvm.nouveau.engine.classes import action, class_name, method_name
from gpuvm.report.sizes import size_text
from gpuvm.trace.source import display_name, printable

if TYPE_CHECKING:
    from gpuvm.device.server import ServerStatistics
    from gpuvm.device.supervisor import Options, RunResult
    from gpuvm.device.tally import Left, Refusal, TallyStatistics

_LABEL: Final = 16
_WIDTH: Final = 110
_WAITED: Final = frozenset([errno.ETIME, errno.EINTR])
"""What waits that end early are answered."""
_LONGEST: Final = 90
"""Characters of an error's text."""
_SHOWN: Final = 4
"""Of calls, methods, faults and opens; of others it is told how many there are."""


@dataclass(frozen=True, slots=True)
class TraceMade:
    """What was recorded, and where."""

    path: str
    calls: int
    closes: int
    """Of opens, which stand in a trace as calls do."""
    whole: bool
    """All that was told could be written; if not, nobody knows how much was."""


def run_report(result: RunResult, trace: TraceMade | None = None) -> str:
    """A few lines: how the program ended, what it asked for, what was not done for it, what to do next.

    Args:
        trace: where the calls were recorded.
    """
    return "\n".join(_lines(result, trace)) + "\n"


def _lines(result: RunResult, trace: TraceMade | None) -> Iterator[str]:
    tally = result.tally
    where = f"{result.chip}, {size_text(result.options.vram)}"
    if not tally.opens:
        no_trace = f", so there is no {trace.path}" if trace is not None else ""
        yield f"gpuvm: {program_text(result)} {ending(result)}; nothing opened the GPU ({where}){no_trace}"
        yield from _not_served_row(result.server)
        return
    yield f"gpuvm: {program_text(result)} {ending(result)} on {where}"
    opens = _count(tally.opens, "open", "opens")
    yield from _row("calls", f"{sum(tally.calls.values()):,} in {opens}: {_most(tally.calls)}")
    if tally.opens > tally.closed:
        left = _count(tally.opens - tally.closed, "open", "opens")
        yield from _row("still open", f"{left} of processes that go on; below, what these did is missing")
    if tally.lacks.ioctls:
        yield from _row("unknown calls", unknown_text(tally))
    refusals = [one for one in tally.refusals if one.errno not in _WAITED and one.call != "AUTH_MAGIC"]
    if refusals:
        yield from _row("refused", _refused(refusals))
    operations = _count(tally.bind_ops, "operation", "operations")
    yield from _row("binds", f"{tally.binds:,} with {operations}" if tally.binds else "none")
    yield from _row("bytes moved", _moved(result))
    yield from _row("not executed", methods_text(tally.work.not_executed))
    yield from _row("faults", _faults(result))
    if result.cut_off:
        times = _count(result.cut_off, "time", "times")
        yield from _row("cut off", f"{times} a program cut off the file of all objects; bytes are lost")
    yield from _not_served_row(result.server)
    yield from _row("left at exit", _left(tally.left, tally.left_more))
    if trace is not None:
        closes = f", {trace.closes} of them the close of an open" if trace.closes else ""
        calls = _count(trace.calls + trace.closes, "call", "calls")
        told = f"{calls}{closes}" if trace.whole else "not complete, and why is told above"
        yield from _row("trace", f"{display_name(trace.path)}: {told}")
    yield "  next".ljust(_LABEL) + _next(result, trace)  # in one line, to be copied


def ending(result: RunResult) -> str:
    """How the program ended: ``ended with 0``, ``was killed by SIGSEGV (core dumped)``."""
    if result.returncode >= 0:
        return f"ended with {result.returncode}"
    core = " (core dumped)" if result.core_dumped else ""
    return f"was killed by {signal_name(-result.returncode)}{core}"


def signal_name(number: int) -> str:
    """``SIGSEGV``, ``SIGRTMIN+3``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


def methods_text(not_executed: Mapping[tuple[int, int], int]) -> str:
    """What would have been done by name, how many methods there were besides."""
    actions: dict[str, Counter[str]] = {}
    others = 0
    for (class_, method), times in not_executed.items():
        what = action(class_, method)
        if what is None:
            others += times
        else:
            actions.setdefault(what, Counter())[f"{class_name(class_)} {method_name(class_, method)}"] += (
                times
            )
    parts = [_action_text(what, methods) for what, methods in sorted(actions.items())]
    if others:
        parts.append(f"{_count(others, 'method', 'methods')} that only set state or invalidate caches")
    return "; ".join(parts) or "none"


def _action_text(what: str, methods: Counter[str]) -> str:
    """``10 dispatches (TURING_COMPUTE_A SEND_SIGNALING_PCAS_B)``."""
    names = [name for name, _ in methods.most_common(_SHOWN)]
    shown = ", ".join(names) + (", ..." if len(methods) > len(names) else "")
    return f"{_count(methods.total(), what, what + ('es' if what.endswith('ch') else 's'))} ({shown})"


def unknown_text(tally: TallyStatistics) -> str:
    """Unknown calls by request, with how often."""
    return _most({f"{call.request:#x}": times for call, times in tally.lacks.ioctls.items()})


def program_text(result: RunResult) -> str:
    """The program and its arguments as a shell takes them, in one line, cut if they are many."""
    words = "".join(one if one.isprintable() else " " for one in shlex.join(result.argv))
    return words if len(words) <= 60 else f"{words[:57]}..."


def _moved(result: RunResult) -> str:
    work = result.tally.work
    by_kind = {
        "copied": work.bytes_copied,
        "filled": work.bytes_filled,
        "evicted and brought back": result.bytes_evicted,
    }
    return ", ".join(f"{size_text(size)} {kind}" for kind, size in by_kind.items() if size) or "none"


def _refused(refusals: Sequence[Refusal]) -> str:
    shown = "; ".join(map(refusal_text, refusals[:_SHOWN]))
    more = len(refusals) - _SHOWN
    return shown + (f"; and {_count(more, 'more kind', 'more kinds')}" if more > 0 else "")


def refusal_text(refusal: Refusal) -> str:
    """How often a call was refused, and what was wrong the first time, shortly."""
    name = ERRNO_NAMES.get(refusal.errno, str(refusal.errno))
    why = refusal.first.partition("\n")[0].removesuffix(f" [{name}]").removeprefix(f"{refusal.call}: ")
    return f"{refusal.times:,} {refusal.call} {name} ({shorten(why, _LONGEST, placeholder=' ...')})"


def _faults(result: RunResult) -> str:
    if not result.faults_total:
        return "none"
    shown = "; ".join(str(one) for one in result.faults[:_SHOWN])
    more = result.faults_total - min(len(result.faults), _SHOWN)
    return f"{shown}; and {more} more" if more else shown


def _not_served_row(server: ServerStatistics) -> list[str]:
    parts = []
    if server.failures:
        parts.append(f"{_count(server.failures, 'call', 'calls')} because of a bug of gpuvm, told above")
    if server.refused:
        parts.append(f"{_count(server.refused, 'call', 'calls')} for which no thread could be started")
    return _row("not served", "; ".join(parts)) if parts else []


def _left(left: Sequence[Left], more: int) -> str:
    if not left:
        return "nothing"
    shown = "; ".join(f"{one.client}: {left_text(one)}" for one in left[:_SHOWN])
    more += max(len(left) - _SHOWN, 0)
    return f"{shown}; and {_count(more, 'more open', 'more opens')}" if more else shown


def left_text(left: Left) -> str:
    """What an open never gave back: ``2 objects of 3 MiB, 1 mapping``."""
    parts = []
    if left.objects:
        parts.append(f"{_count(left.objects, 'object', 'objects')} of {size_text(left.bytes)}")
    for number, one, many in (
        (left.mappings, "mapping", "mappings"),
        (left.regions, "sparse region", "sparse regions"),
        (left.syncobjs, "sync object", "sync objects"),
        (left.channels, "channel", "channels"),
    ):
        if number:
            parts.append(_count(number, one, many))
    return ", ".join(parts)


def _next(result: RunResult, trace: TraceMade | None) -> str:
    again = shlex.join([*_option_words(result.options), "--", *result.argv])
    if result.tally.lacks.ioctls:
        return f"gpuvm sniff {again}"
    if trace is None:
        return f"gpuvm record {again}"
    return f"gpuvm check {shlex.quote(trace.path)}"


def _option_words(options: Options) -> Iterator[str]:
    """Those of the command line that gave the device these."""
    usual = type(options)()
    if options.chipset != usual.chipset:
        yield from ("--chipset", f"{options.chipset:#x}")
    if options.vram != usual.vram:
        yield from ("--vram", _memory_word(options.vram))
    if options.root is not None:
        yield from ("--root", options.root)
    if options.userns:
        yield "--userns"


def _memory_word(size: int) -> str:
    """Whole pages as options take them: ``8G``, ``4100K``."""
    shift, unit = next(one for one in ((30, "G"), (20, "M"), (10, "K")) if not size % (1 << one[0]))
    return f"{size >> shift}{unit}"


def _most(times: Mapping[str, int]) -> str:
    """The most frequent by name, how many others there are."""
    ordered = sorted(times.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{number:,} {name}" for name, number in ordered[:_SHOWN]]
    others = sum(number for _, number in ordered[_SHOWN:])
    return ", ".join(parts) + (f" and {others:,} others" if others else "") or "none"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _row(label: str, text: str) -> list[str]:
    head = f"  {label}".ljust(_LABEL)
    return wrap(
        printable(text),
        _WIDTH,
        initial_indent=head,
        subsequent_indent=" " * _LABEL,
        break_long_words=False,
        break_on_hyphens=False,
    )
