"""A fault told to people: what was accessed, what is there, who touched it last, and what to do about it.

What it tells is what RADV's hang reports do, and what its ``radv_check_va.py`` finds in their logs.
"""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from gpuvm.mem.aperture import Domain
from gpuvm.nouveau.engine.classes import class_name, method_name
from gpuvm.nouveau.fault import Cause, FaultReport, Neighbour, ObjectState
from gpuvm.nouveau.history import Touch
from gpuvm.report.sizes import hex_text, size_text

_WIDTH = 100
_LABEL = 12

_PLACES = {Domain.VRAM: "VRAM", Domain.GART: "GART", Domain.CPU: "the CPU's side"}

_ADVICE = {
    Cause.USE_AFTER_UNMAP: (
        "Unmap later, or use it earlier: let the bind wait for a sync object that the work signals. If the "
        "work came after the unmap, look for what still keeps the address: a descriptor, a pointer in a "
        "buffer, a recorded command buffer."
    ),
    Cause.OUT_OF_BOUNDS: (
        "Compare offset, pitch, line length and line count of the work with the object's size, and its "
        "address with where the object is mapped. If more of it should be reachable, map more of it."
    ),
    Cause.EVICTED: (
        "The driver has to validate evicted objects before each use: in an exec after locking, before its "
        "fence is published. If a job ran without that, it is the driver's bug, not the program's."
    ),
    Cause.NOT_BOUND_YET: (
        "Let the work wait for a sync object that the bind signals, or bind without RUN_ASYNC."
    ),
    Cause.READ_ONLY: "Write elsewhere, or have the page mapped writable.",
    Cause.NO_ATOMICS: "Use a page that allows atomics: those of the GPU's own memory do.",
    Cause.PRIVILEGED: "The page is the driver's; no program can use it. Look for how its address was made.",
    Cause.KERNEL_AREA: (
        "Nothing of a program is there. Look for how the address was made; VM_INIT says where the area is."
    ),
    Cause.OUTSIDE: "No bind can map it. Look for how the address was made: a sum that overflowed, a sign.",
    Cause.NEVER_MAPPED: (
        "Look for how the address was made, and whether the bind that should have mapped it was refused. If "
        "it is meant to be a hole that reads as zeros, map a sparse region around it."
    ),
    Cause.MAPPED_MEANWHILE: (
        "Let the work wait for a sync object that the bind signals: now the two come in any order."
    ),
    Cause.METHOD_REFUSED: "Look at what was pushed to this method; memory and binds have no part in it.",
}


def fault_text(report: FaultReport) -> str:
    """All of ``report``, for a terminal or a bug report: some 20 lines."""
    lines = [_title(report), "", *_facts(report)]
    if report.addr is not None:
        lines += ["", "around the address", *_around(report, report.addr)]
        lines += ["", "binds that touched it, newest first", *_history(report)]
    return "\n".join([*lines, "", "what to do", *_paragraph(_ADVICE[report.cause])]) + "\n"


def diagnosis(report: FaultReport) -> str:
    """One sentence: what makes ``report.cause`` the most likely cause."""
    last, here, unmapped = report.last, report.here, report.unmapped
    match report.cause:
        case Cause.USE_AFTER_UNMAP if unmapped is not None:
            return f"{_name(unmapped)} unmapped it {_ago(report, unmapped)}; {_what_it_was(report)}"
        case Cause.OUT_OF_BOUNDS if report.missed is not None:
            return f"{_off_by(report, report.missed)}, and nothing was ever mapped there{_since(report)}"
        case Cause.EVICTED if here is not None and here.object is not None:
            return f"{_object(here.object)} was moved to {_place(here.object)}, and not validated since"
        case Cause.NOT_BOUND_YET if last is not None:
            return f"{_name(last)} maps it, but its job has not run yet"
        case Cause.KERNEL_AREA if here is not None:
            return f"{_interval(here.addr, here.end)} is the kernel's, as VM_INIT was told"
        case Cause.NEVER_MAPPED:
            return f"no bind mapped it{_since(report)}, and no object is near"
        case Cause.METHOD_REFUSED:
            return report.error
    return _ALWAYS[report.cause]


_ALWAYS = {
    Cause.READ_ONLY: "the page is there, but cannot be written",
    Cause.NO_ATOMICS: "the page is there, but allows no atomics",
    Cause.PRIVILEGED: "the page is there, for requests of the driver only",
    Cause.OUTSIDE: "the address space of the client does not reach so far",
    Cause.MAPPED_MEANWHILE: "it is mapped by now, but was not at the moment of the access",
}


# -- the head


def _title(report: FaultReport) -> str:
    if report.addr is None:
        return f"GPU method refused: {report.engine} engine, {report.error}"
    access = "access" if report.access is None else report.access.name.lower()
    return f"GPU page fault: {report.engine} engine, {access} of {hex_text(report.addr)}"


def _facts(report: FaultReport) -> Iterator[str]:
    yield from _labelled("diagnosis", f"{report.cause}: {diagnosis(report)}")
    yield from _labelled(
        "channel", f'{report.channel} of client "{report.client}" on {report.chip}, dead now'
    )
    yield from _labelled("method", _method(report))
    if report.reason is not None:
        entry = "" if report.level is None else f", {report.level} entry {report.word:#x}"
        yield from _labelled("reason", f"{report.reason.name}{entry}")
    if report.object is not None:
        now = "what has that handle now: " if report.here is None and report.mapped is not None else ""
        yield from _labelled("object", f"{now}{_state(report.object)}")
    yield from _labelled("time", f"{report.time / 1e9:.6f} s of the monotonic clock")


def _method(report: FaultReport) -> str:
    name = class_name(report.class_)
    if not report.method:
        return f"none, the push buffer was being read by {name}"
    method = method_name(report.class_, report.method)
    return f"{name} {method} ({report.class_:04x}, {report.method:04x})"


def _labelled(label: str, text: str) -> Iterator[str]:
    head = f"  {label}".ljust(_LABEL)
    yield from wrap(text, _WIDTH, initial_indent=head, subsequent_indent=" " * _LABEL)


def _paragraph(text: str) -> list[str]:
    return wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="  ")


# -- the address space


def _around(report: FaultReport, addr: int) -> Iterator[str]:
    if report.before is not None:
        yield _mapping(report.before, f"ends {_bytes(report.before.distance)} before")
    if report.here is None:
        yield f"> {hex_text(addr):<19}            nothing is mapped"
    else:
        yield _mapping(report.here, f"has it at +{addr - report.here.addr:#x}", ">")
    if report.after is not None:
        yield _mapping(report.after, f"begins {_bytes(report.after.distance)} after")
    if report.region is not None:
        kind = "a sparse region" if report.region.sparse else "a region"
        yield f"  in {kind}, {_interval(report.region.addr, report.region.end)}"


def _mapping(one: Neighbour, place: str, mark: str = " ") -> str:
    what = "the kernel's area" if one.object is None else f"{_object(one.object)} from +{one.offset:#x}"
    kind = f", kind {one.kind:#x}" if one.kind else ""
    gone = ", no entries" if one.invalidated else ""
    return f"{mark} {hex_text(one.addr):<19} {size_text(one.range):>8}  {place:<29} {what}{kind}{gone}"


def _history(report: FaultReport) -> Iterator[str]:
    for touch in report.history:
        how = "async" if touch.run_async else "sync"
        run = "" if touch.run else ", not run yet"
        yield f"  {_name(touch):<14} {_asked(touch)}, {how}, {_ago(report, touch)}{run}"
    if not report.history:
        yield f"  none{_since(report)}"
    for older in (report.unmapped, report.mapped):
        if older is not None and older not in report.history:
            yield f"  {_name(older):<14} {_asked(older)}, {_ago(report, older)}"


def _asked(touch: Touch) -> str:
    sparse = " sparse" if touch.sparse else ""
    shown = f" handle {touch.handle} +{touch.offset:#x}" if touch.handle else ""
    return f"{touch.op.name}{sparse} {_interval(touch.addr, touch.end)}{shown}"


# -- phrases


def _what_it_was(report: FaultReport) -> str:
    mapped = report.mapped
    if mapped is None or report.addr is None:
        return f"what had mapped it came before bind #{report.oldest}, the first that is known"
    if not mapped.handle:
        return f"it was in the sparse region that {_name(mapped)} had made"
    closed = " (closed since)" if report.object is None else ""
    at = mapped.offset + report.addr - mapped.addr
    return f"it was byte {at:#x} of handle {mapped.handle}{closed}, mapped by {_name(mapped)}"


def _off_by(report: FaultReport, missed: Neighbour) -> str:
    assert missed.object is not None  # the kernel's area is never meant
    name = _object(missed.object)
    if missed is report.after:
        return f"{_bytes(missed.distance)} before the start of {name}"
    if missed.distance == 0:
        return f"the first byte past the end of {name}"
    return f"{_bytes(missed.distance)} past the end of {name}"


def _since(report: FaultReport) -> str:
    return "" if report.oldest == 1 else f" since bind #{report.oldest}, the first that is known"


def _name(touch: Touch) -> str:
    return f"bind #{touch.call} op {touch.index}"


def _ago(report: FaultReport, touch: Touch) -> str:
    return f"{_duration(max(report.time - touch.time, 0))} before"


def _object(state: ObjectState) -> str:
    handle = f"handle {state.handle}" if state.handle else "all handles closed"
    return f'"{state.name}" ({handle})'


def _state(state: ObjectState) -> str:
    swapped = ", swapped out" if state.swapped else ""
    shared = ", shared" if state.shared else ""
    return f"{_object(state)}, {size_text(state.size)} in {_place(state)}{swapped}{shared}"


def _place(state: ObjectState) -> str:
    return _PLACES[state.domain]


def _interval(addr: int, end: int) -> str:
    return f"[{hex_text(addr)}, {hex_text(end)})"


def _bytes(count: int) -> str:
    return {0: "right", 1: "1 byte"}.get(count, f"{count:#x} bytes")


def _duration(nanoseconds: int) -> str:
    for unit, length in (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000)):
        if nanoseconds >= length:
            return f"{nanoseconds / length:.3g} {unit}"
    return f"{nanoseconds} ns"
