"""`PageTable`: Python code that runs within a call, since objects are made there, finds no call under way."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from page_table_scene import GIB, MIB, Scene, vram


@contextmanager
def at_every_collection(act: Callable[[], None]) -> Iterator[list[int]]:
    """Collect garbage as often as can be, and act then, as finalizers would; counts how often."""
    times = [0]

    def collecting(phase: str, _: object) -> None:
        if phase == "start":
            act()
            times[0] += 1

    thresholds = gc.get_threshold()
    gc.callbacks.append(collecting)
    gc.set_threshold(1)
    try:
        yield times
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(collecting)


@pytest.mark.parametrize(
    "name", ["get", "put", "sparse", "tables", "statistics", "sparse ranges", "translate"]
)
def test_an_address_can_be_mapped_and_looked_at(name: str) -> None:
    scene = Scene()
    tables = scene.tables
    tables.get(GIB, 4096, 12)
    tables.get(0, 256 * MIB, 12)
    tables.sparse(2 * GIB, 0x3000, True)
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: tables.get(256 * MIB, 64 * MIB, 12),
        "put": lambda: tables.put(0, 256 * MIB, 12),
        "sparse": lambda: tables.sparse(2 * GIB, 0x3000, False),
        "tables": tables.tables,
        "statistics": tables.statistics,
        "sparse ranges": tables.sparse_ranges,
        "translate": lambda: tables.translate(0),
    }
    failures: list[str] = []

    def act() -> None:
        # By the core: this thread may hold the locks, which another thread would wait for.
        try:
            tables.core.map(GIB, 4096, 12, scene.format.pte(5, vram(0, 0).aperture, 0x7000))
            assert tables.core.translate(GIB)[5][0] == 0x7000
        except RuntimeError as failure:
            failures.append(repr(failure))

    with at_every_collection(act):
        calls[name]()
    assert failures == []
    scene.tables.check()
