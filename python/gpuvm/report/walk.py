"""The walk of one address through page tables, level by level, as text for a bug report and as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpuvm.mem.aperture import Aperture
from gpuvm.mmu.formats import Entry, Level, PteFlags, State
from gpuvm.mmu.translation import Fault, FaultType, Result, Sparse, Translation
from gpuvm.mmu.walk import Step, conclude, walk
from gpuvm.report.columns import bold
from gpuvm.report.sizes import size_text
from gpuvm.trace.memory_snapshot import MemorySnapshot
from gpuvm.va import Gpuva

_APERTURE_WORDS = {
    Aperture.VRAM: "vram",
    Aperture.PEER: "peer",
    Aperture.SYSTEM_COHERENT: "system",
    Aperture.SYSTEM_NON_COHERENT: "system-nc",
}
"""What is in front of a physical address."""

_REASONS = {
    FaultType.PDE: "the entry of this directory has neither a page nor a table",
    FaultType.PTE: "the entry of this page table has no page",
    FaultType.VA_LIMIT_VIOLATION: "the address is longer than the format's {bits} bits",
    FaultType.UNSUPPORTED_APERTURE: "the table below is not in VRAM",
}


class Walk:
    """One address, every entry that is read to translate it, and what that comes to.

    Attributes:
        space: whose address it is.
        addr: the address.
        steps: the entries.
        result: a translation, sparse, or a fault.
    """

    def __init__(self, space: MemorySnapshot, addr: int) -> None:
        tables = space.page_table
        self.space = space
        self.addr = addr
        self.steps = walk(tables.format, space.device.vram.view, tables.root, addr)
        self.result = conclude(addr, self.steps)
        self._below, self._here, self._above = _neighbours(space, addr)

    def text(self, *, colour: bool = False) -> list[str]:
        """Lines: for each entry its words and its fields; then what it comes to, and what is mapped there."""
        title = f"{self.space.title}, {self.space.page_table.format.name}: address {self.addr:#x}"
        lines = [bold(title, colour), ""]
        for index in range(len(self.steps)):
            lines += _step_lines(self.steps, index, self.space.page_table.format.levels)
        return [*lines, *([""] if self.steps else []), *self._end(colour)]

    def document(self) -> dict[str, Any]:
        """The same as JSON values; raw words as text, since they may not fit a double."""
        return {
            "file": self.space.name,
            "line": self.space.line,
            "client": self.space.client,
            "format": self.space.page_table.format.name,
            "addr": self.addr,
            "steps": [_step_json(step) for step in self.steps],
            **_result_json(self.result),
            "mapping": self._mapping_json(self._here),
            "below": self._mapping_json(self._below),
            "above": self._mapping_json(self._above),
        }

    # -- what it comes to

    def _end(self, colour: bool) -> list[str]:
        match self.result:
            case Translation() as found:
                return self._page_lines(found, colour)
            case Sparse() as sparse:
                span = size_text(1 << sparse.shift)
                what = f"reads give zeros, writes vanish; the entry of {sparse.level} spans {span}"
                return [f"{bold('sparse', colour)}   {what}", *self._around()]
            case Fault() as fault:
                where = "" if fault.level is None else f" at {fault.level}"
                head = bold("fault", colour)
                why = _REASONS[fault.reason].format(bits=self.space.page_table.format.va_bits)
                return [f"{head}    {fault.reason.name}{where}: {why}", *self._around()]

    def _page_lines(self, found: Translation, colour: bool) -> list[str]:
        size = 1 << found.shift
        flags = flag_words(found.flags)
        page = f"[{found.page_va:#x}, {found.page_va + size:#x}) {size_text(size)}"
        where = place(found.aperture, found.page_address)
        lines = [
            f"{bold('page', colour)}     {page} at {where}, kind {found.kind:#x}{flags}",
            f"byte     {place(found.aperture, found.address)}",
        ]
        if self._here is None:
            return [*lines, "mapping  none: the page tables show what is not mapped", *self._around()]
        offset = self.addr - self._here.addr + self._here.offset
        return [
            *lines,
            f"object   {self._name(self._here)} + {offset:#x}",
            f"mapping  {self._mapping(self._here)}",
        ]

    def _around(self) -> list[str]:
        lines = []
        if self._here is not None:
            lines.append(f"mapping  {self._mapping(self._here)}")
        if self._below is not None:
            far = self.addr - self._below.end
            lines.append(f"below    {self._mapping(self._below)}, ends {far:#x} before it")
        if self._above is not None:
            far = self._above.addr - self.addr
            lines.append(f"above    {self._mapping(self._above)}, begins {far:#x} after it")
        if not lines:
            lines.append("         nothing is mapped in this space")
        return lines

    def _name(self, va: Gpuva) -> str:
        word = "bo" if self.space.client is None else "handle"
        return f"{word} {self.space.number_of(va.obj)}"

    def _mapping(self, va: Gpuva) -> str:
        what = "the kernel's node" if va.kernel else f"{self._name(va)}, offset {va.offset:#x}"
        return f"[{va.addr:#x}, {va.end:#x}) {what}"

    def _mapping_json(self, va: Gpuva | None) -> dict[str, Any] | None:
        if va is None:
            return None
        if va.kernel:
            return {"addr": va.addr, "range": va.range, "kernel": True}
        number = self.space.number_of(va.obj)
        return {"addr": va.addr, "range": va.range, "object": number, "offset": va.offset}


def _neighbours(space: MemorySnapshot, addr: int) -> tuple[Gpuva | None, Gpuva | None, Gpuva | None]:
    """The mappings next to an address: the nearest below it, the one that holds it, the nearest above."""
    below = here = None
    for va in space.vm.mappings():
        if va.addr > addr:
            return below, here, va
        if va.end <= addr:
            below = va
        else:
            here = va
    return below, here, None


def place(aperture: Aperture, address: int) -> str:
    """A physical address: ``vram:0x12000``."""
    return f"{_APERTURE_WORDS[aperture]}:{address:#x}"


def flag_words(flags: PteFlags) -> str:
    """``, read only, volatile``; nothing for none."""
    return "".join(f", {(flag.name or '').lower().replace('_', ' ')}" for flag in flags)


def _step_lines(steps: Sequence[Step], index: int, levels: Sequence[Level]) -> list[str]:
    step = steps[index]
    entry = step.entry
    words = " ".join(f"0x{word:016x}" for word in entry.words)
    head = f"{entry.level.name:<5} {place(Aperture.VRAM, step.table)}[{step.index}]"
    fields = ", ".join(f"{name} {value if value < 10 else hex(value)}" for name, value in entry.fields)
    meaning = _meaning(entry, levels[step.number + 1 :])
    if entry.state is State.INVALID and index + 1 < len(steps):
        meaning = f"no page; {steps[index + 1].entry.level.name} decides"
    return [f"{head:<28} {words}  {meaning}", f"      {fields}"]


def _meaning(entry: Entry, below: Sequence[Level]) -> str:
    match entry.state:
        case State.PAGE:
            return f"page at {place(entry.aperture, entry.address)}"
        case State.TABLE:
            pointers = (
                (entry.table, entry.table_in_vram, below[0]),
                (entry.small, entry.small_in_vram, below[-1]),
            )
            return ", ".join(
                f"{level.name} {place(Aperture.VRAM, address) if in_vram else f'not in VRAM, {address:#x}'}"
                for address, in_vram, level in pointers
                if address is not None
            )
        case State.STOP:
            return "no page, no small pages"
        case _:
            return str(entry.state.value)


def _step_json(step: Step) -> dict[str, Any]:
    entry = step.entry
    return {
        "level": entry.level.name,
        "table": step.table,
        "index": step.index,
        "words": [f"0x{word:016x}" for word in entry.words],
        "state": entry.state.value,
        "fields": dict(entry.fields),
    }


def _result_json(result: Result) -> dict[str, Any]:
    match result:
        case Translation() as found:
            return {
                "result": "page",
                "page": {
                    "addr": found.page_va,
                    "size": 1 << found.shift,
                    "aperture": _APERTURE_WORDS[found.aperture],
                    "address": found.page_address,
                    "kind": found.kind,
                    "flags": flag_words(found.flags).removeprefix(", ").split(", ") if found.flags else [],
                },
            }
        case Sparse() as sparse:
            return {"result": "sparse", "sparse": {"level": sparse.level, "spans": 1 << sparse.shift}}
        case Fault() as fault:
            return {"result": "fault", "fault": {"reason": fault.reason.name, "level": fault.level}}
