"""WatchedMemory: an engine's memory that tells what was accessed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gpuvm._core import Surface
from gpuvm.mmu.access import AddressSpace, Components
from gpuvm.nouveau.engine.memory import EngineMemory
from gpuvm.nouveau.watcher import ATOMIC, FETCH, READ, WRITE
from gpuvm.sync import task

Accessed = Callable[[str, int, int, int, int, int], None]
"""Is told of an access: engine, READ or alike, address, range, when it began and ended."""


class WatchedMemory(EngineMemory):
    """As ``EngineMemory``. Accesses are told once they are done; those that fault are not.

    A wait for a semaphore is told as one read, from the first look to the last.

    Args:
        accessed: is told.
    """

    def __init__(self, space: AddressSpace, name: str, accessed: Accessed) -> None:
        super().__init__(space, name)
        self._accessed: Final = accessed

    def fetch(self, addr: int, range: int) -> bytes:
        """As without."""
        began = task.now()
        data = super().fetch(addr, range)
        self._accessed("host", FETCH, addr, range, began, task.now())
        return data

    def acquired(self, addr: int, size: int, began: int) -> None:
        """Tell of the wait."""
        self._accessed(self.engine, READ, addr, size, began, task.now())

    def write(self, addr: int, data: bytes) -> None:
        """As without."""
        began = task.now()
        super().write(addr, data)
        self._accessed(self.engine, WRITE, addr, len(data), began, task.now())

    def fill(self, addr: int, range: int, pattern: bytes) -> None:
        """As without."""
        began = task.now()
        super().fill(addr, range, pattern)
        self._accessed(self.engine, WRITE, addr, range, began, task.now())

    def copy(self, dst: int, src: int, range: int, step: int | None = None) -> None:
        """As without."""
        began = task.now()
        super().copy(dst, src, range, step)
        ended = task.now()
        self._accessed(self.engine, READ, src, range, began, ended)
        self._accessed(self.engine, WRITE, dst, range, began, ended)

    def reduce(self, addr: int, size: int, operation: int, operand: int, signed: bool) -> None:
        """As without."""
        began = task.now()
        super().reduce(addr, size, operation, operand, signed)
        self._accessed(self.engine, ATOMIC, addr, size, began, task.now())

    def move_lines(
        self,
        target: Surface,
        source: Surface | bytes | None,
        elements: int,
        lines: int,
        components: Components | None,
        go_on: Callable[[], None],
    ) -> None:
        """As without."""
        began = task.now()
        super().move_lines(target, source, elements, lines, components, go_on)
        ended = task.now()
        sizes = (1, 1) if components is None else (components.source_size, components.target_size)
        if isinstance(source, Surface):
            self._tell_surface(READ, source, elements * sizes[0], lines, began, ended)
        self._tell_surface(WRITE, target, elements * sizes[1], lines, began, ended)

    def _tell_surface(
        self, access: int, surface: Surface, length: int, lines: int, began: int, ended: int
    ) -> None:
        first, end = surface.span(length, lines)
        self._accessed(self.engine, access, first, end - first, began, ended)
