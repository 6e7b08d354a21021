"""What is measured, with whom: tables of cases."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from bench import targets
from bench.paging.buddies import CoreBuddies, PythonBuddies
from bench.paging.copies import SIZE, UNIT, PlainCopies, TranslatedCopies
from bench.paging.fills import MemoryFills, PythonFills, TableFills
from bench.paging.lookups import PAGES, PythonTranslations, RunArrays, Translations
from bench.paging.one_page import PythonPages, TablePages
from bench.sampling.case import Case, Table, Target
from bench.sampling.contender import Contender

GIB = 1 << 30
PAGE_SIZES = {12: "4 KiB", 16: "64 KiB", 21: "2 MiB"}
WALKED = (12, 21)
"""The walker in Python has no pages of 64 KiB."""


def _fill(size: int, shift: int, title: str) -> Case:
    entries = size >> shift
    contenders: dict[str, Callable[[], Contender]] = {
        "core": partial(TableFills, size, shift),
        "memory": partial(MemoryFills, size, shift, 16 if shift == 21 else 8),
    }
    if shift in WALKED:
        contenders["python"] = partial(PythonFills, size, shift)
    return Case(
        title,
        contenders,
        units=2 * entries * max(16, (4 << 20) // entries),
        step=2 * entries,
        targets=(Target(targets.FILL_RATIO, "memory"), Target(targets.FILL_NS)),
    )


TABLES: tuple[Table, ...] = (
    Table(
        "fill",
        "entries written and cleared: CPU time an entry",
        {"core": "PageTable", "memory": "memory writes", "python": "Python walker"},
        (("core", "memory"), ("core", "python")),
        (
            *(_fill(GIB, shift, f"1 GiB of {size} pages") for shift, size in PAGE_SIZES.items()),
            _fill(64 * GIB, 21, "64 GiB of 2 MiB pages"),
        ),
        clock=time.thread_time_ns,
        rate="entries a second",
    ),
    Table(
        "one-page",
        "one page mapped or unmapped by Python: CPU time a call",
        {"core": "PageTable", "python": "Python walker"},
        (("core", "python"),),
        (
            Case(
                "4 KiB at random in 1 GiB",
                {"core": TablePages, "python": PythonPages},
                units=40_000,
                step=2,
            ),
        ),
        clock=time.thread_time_ns,
        rate="pages a second",
    ),
    Table(
        "translate",
        "addresses translated: CPU time a page",
        {"runs": "run arrays", "one": "translate", "python": "Python walker"},
        (("runs", "python"), ("one", "python")),
        (
            Case(
                "4 KiB pages, none continues another",
                {"runs": RunArrays, "one": Translations, "python": PythonTranslations},
                units=4 * PAGES,
                step=PAGES,
            ),
        ),
        clock=time.thread_time_ns,
        rate="pages a second",
    ),
    Table(
        "copy",
        "bytes copied through page tables: CPU time a KiB",
        {"through": "AddressSpace", "plain": "memcpy"},
        (("through", "plain"),),
        tuple(
            Case(
                f"64 MiB in shuffled blocks of {size}",
                {"through": partial(TranslatedCopies, shift), "plain": PlainCopies},
                units=2 * SIZE // UNIT,
                step=SIZE // UNIT,
                targets=(Target(targets.COPY_RATIO, "plain"),),
            )
            for shift, size in PAGE_SIZES.items()
        ),
        clock=time.thread_time_ns,
    ),
    Table(
        "buddy",
        "blocks allocated or freed: CPU time a call",
        {"core": "Buddy", "python": "Python buddy"},
        (("core", "python"),),
        (
            Case(
                "4 KiB to 2 MiB, 4096 of them live",
                {"core": CoreBuddies, "python": PythonBuddies},
                units=100_000,
                step=2,
            ),
        ),
        clock=time.thread_time_ns,
        rate="calls a second",
    ),
)
