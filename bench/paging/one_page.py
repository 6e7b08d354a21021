"""A page mapped and unmapped again by Python calls; a unit is the one or the other, tables included."""

from __future__ import annotations

from random import Random

from bench.paging.python_walker import PythonWalker
from bench.paging.tables import BASE, PAGE, page_table, vram
from bench.sampling.contender import Contender, Job
from bench.selfcheck import Disagreement

PAGES = 1 << 18
"""A gibibyte."""


def _addresses(count: int) -> list[int]:
    return [BASE + PAGE * page for page in Random(count).sample(range(PAGES), count)]


class TablePages(Contender):
    """`get` and `map` for each page, and later `unmap` and `put`: tables come and go with the pages."""

    def __init__(self) -> None:
        self._tables = page_table(16 << 20)
        self._done = 0

    def jobs(self, units: int) -> list[Job]:
        addresses = _addresses(units // 2)
        tables, targets = self._tables, [vram(addr - BASE, PAGE) for addr in addresses]
        self._done = 2 * len(addresses)

        def map_and_unmap() -> None:
            for addr, target in zip(addresses, targets, strict=True):
                tables.get(addr, PAGE, 12)
                tables.map(addr, PAGE, 12, target)
            for addr in addresses:
                tables.unmap(addr, PAGE, 12)
                tables.put(addr, PAGE, 12)

        return [map_and_unmap]

    def check(self) -> int:
        self._tables.check()
        if self._tables.statistics().references:
            raise Disagreement("TablePages: pages are left")
        return self._done

    def close(self) -> None:
        self._tables.close()


class PythonPages(Contender):
    """The walker in Python, which keeps its tables."""

    def __init__(self) -> None:
        self._walker = PythonWalker(600)
        self._addresses: list[int] = []

    def jobs(self, units: int) -> list[Job]:
        addresses = self._addresses = _addresses(units // 2)
        walker = self._walker

        def map_and_unmap() -> None:
            for addr in addresses:
                walker.map(addr, PAGE, addr - BASE, 12)
            for addr in addresses:
                walker.unmap(addr, PAGE, 12)

        return [map_and_unmap]

    def check(self) -> int:
        if any(self._walker.translate(addr) is not None for addr in self._addresses):
            raise Disagreement("PythonPages: pages are left")
        return 2 * len(self._addresses)
