"""What programs asked the virtual device for and did not get, all of it: told by ``gpuvm sniff``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gpuvm.device.lacks import KEPT
from gpuvm.nouveau.engine.classes import action, class_name, method_name
from gpuvm.nouveau.uapi import nvif
from gpuvm.nouveau.uapi.numbers import TYPE
from gpuvm.nouveau.uapi.others import OTHERS
from gpuvm.report.run import ending, program_text

if TYPE_CHECKING:
    from gpuvm.device.lacks import UnknownIoctl
    from gpuvm.device.supervisor import RunResult

_Key = TypeVar("_Key")
_NVIF_TYPES: Final = {nvif.SCLASS: "SCLASS", nvif.DEL: "DEL", nvif.MTHD: "MTHD"}


def sniff_report(result: RunResult) -> str:
    """A line for each kind of thing that was missing, and how often it was asked for."""
    rows = [*_rows(result)]
    head = f"gpuvm: {program_text(result)} {ending(result)}"
    if not rows:
        what = "nothing it asked for is missing" if result.tally.opens else "it did not open the GPU"
        return f"{head}; {what} ({result.chip})\n"
    width = max(len(what) for _, what, _ in rows)
    lines = [f"  {kind:<13} {what:<{width}} {times:>9,}" for kind, what, times in rows]
    return "\n".join([f"{head}; {result.chip} has none of what follows, asked for so often:", *lines]) + "\n"


def _rows(result: RunResult) -> Iterator[tuple[str, str, int]]:
    """Kind, name, times."""
    lacks = result.tally.lacks
    for calls in (lacks.ioctls, lacks.displays):
        for call, times in _sorted(calls.items()):
            yield "ioctl", ioctl_text(call), times
    for param, times in _sorted(lacks.params.items()):
        yield "param", f"GETPARAM {param}", times
    for capability, times in _sorted(lacks.capabilities.items()):
        yield "capability", f"GET_CAP {capability:#x}", times
    for class_, times in _sorted(lacks.nvif_classes.items()):
        yield "NVIF class", class_name(class_), times
    for (type_, method), times in _sorted(lacks.nvif_methods.items()):
        name = _NVIF_TYPES.get(type_, f"type {type_}")
        yield "NVIF method", f"{name} {method:#x}" if type_ == nvif.MTHD else name, times
    for path, times in _sorted(lacks.paths.items()):
        yield "path", path.decode(errors="backslashreplace"), times
    if lacks.others:
        yield "others", f"kinds beyond the first {KEPT}", lacks.others
    methods = result.tally.work.not_executed.items()
    for done in (True, False):
        for (class_, method), times in _sorted(methods):
            what = action(class_, method)
            if (what is not None) == done:
                yield what or "state", f"{class_name(class_)} {method_name(class_, method)}", times


def _sorted(items: Iterable[tuple[_Key, int]]) -> list[tuple[_Key, int]]:
    """The most frequent first."""

    def order(item: tuple[_Key, int]) -> tuple[int, Any]:
        return -item[1], item[0]

    return sorted(items, key=order)


def ioctl_text(call: UnknownIoctl) -> str:
    """``0xc04064a0 MODE_GETRESOURCES, 64 bytes``."""
    kind = f"'{chr(call.type)}'" if 0x20 < call.type < 0x7F else f"{call.type:#x}"
    name = OTHERS.get(call.number) if call.type == TYPE else None
    what = f"type {kind} number {call.number:#04x}" if name is None else name
    return f"{call.request:#010x} {what}, {call.size} bytes"
