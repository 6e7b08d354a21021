"""Addresses translated: a unit is one page that the answer tells of."""

from __future__ import annotations

from random import Random

import numpy as np

from bench.paging.python_walker import PythonWalker
from bench.paging.tables import BASE, PAGE, page_table, vram
from bench.sampling.contender import Contender, Job
from bench.selfcheck import Disagreement
from gpuvm.mmu import PageTable

PAGES = 1 << 14


def _scattered() -> list[int]:
    """Where each page lies; none continues another."""
    places = [2 * PAGE * page for page in range(PAGES)]
    Random(PAGES).shuffle(places)
    return places


def _mapped(places: list[int]) -> PageTable:
    tables = page_table(4 << 20)
    tables.get(BASE, PAGE * PAGES, 12)
    for page, place in enumerate(places):
        tables.map(BASE + PAGE * page, PAGE, 12, vram(place, PAGE))
    return tables


class Translations(Contender):
    """`PageTable.translate` for each page: a result object with all the entry says."""

    def __init__(self) -> None:
        self._places = _scattered()
        self._tables = _mapped(self._places)
        self._found: list[int] = []

    def jobs(self, units: int) -> list[Job]:
        translate = self._tables.translate
        addresses = [BASE + PAGE * (unit % PAGES) for unit in range(units)]
        found: list[int] = []
        self._found = found

        def look_up() -> None:
            for addr in addresses:
                found.append(translate(addr).address)  # type: ignore[union-attr]  # a fault ends the run

        return [look_up]

    def check(self) -> int:
        return _compare(self, self._found, self._places)


class RunArrays(Contender):
    """`PageTable.run_arrays` over the whole range, again and again."""

    def __init__(self) -> None:
        self._places = _scattered()
        self._tables = _mapped(self._places)
        self._found: list[int] = []

    def jobs(self, units: int) -> list[Job]:
        tables, rounds = self._tables, units // PAGES
        found: list[int] = []
        self._found = found

        def look_up() -> None:
            for _ in range(rounds):
                addresses = [array["address"].copy() for array in tables.run_arrays(BASE, PAGE * PAGES)]
                found.extend(np.concatenate(addresses).tolist() if not found else [])

        return [look_up]

    def check(self) -> int:
        return _compare(self, self._found, self._places)


class PythonTranslations(Contender):
    """The walker in Python: the address alone."""

    def __init__(self) -> None:
        self._places = _scattered()
        self._walker = PythonWalker(64)
        for page, place in enumerate(self._places):
            self._walker.map(BASE + PAGE * page, PAGE, place, 12)
        self._found: list[int] = []

    def jobs(self, units: int) -> list[Job]:
        translate = self._walker.translate
        addresses = [BASE + PAGE * (unit % PAGES) for unit in range(units)]
        found: list[int] = []
        self._found = found

        def look_up() -> None:
            for addr in addresses:
                found.append(translate(addr) or 0)

        return [look_up]

    def check(self) -> int:
        return _compare(self, self._found, self._places)


def _compare(who: Contender, found: list[int], places: list[int]) -> int:
    """The first round of answers against where the pages are."""
    count = min(len(found), PAGES)
    if found[:count] != places[:count]:
        raise Disagreement(f"{type(who).__name__}: pages are found elsewhere")
    return count
