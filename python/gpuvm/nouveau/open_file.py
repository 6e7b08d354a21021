"""OpenFile: whether a client is open, and who is inside one of its calls."""

from __future__ import annotations

from _thread import allocate_lock
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Final

from gpuvm.errors import BadFile, GpuvmError
from gpuvm.sync.fence import Fence, fence_context_alloc


class OpenFile:
    """Like a file of the kernel, which every call that is under way keeps, and which goes with the last.

    ``with file:`` is inside; that may nest. So closing waits for nobody, and nobody loses what he works with:
    if calls are under way the last one to end releases all.

    Locking: any thread. Nothing may be held where a call ends.

    Args:
        name: for messages.
        release: called when it is closed and nobody is inside; again, by the next ``close``, only if it
            raised something.

    Attributes:
        released: signalled after that.

    Raises, at ``with``:
        BadFile: it is closed.

    Source: ``struct file``, ``fget``, ``fput``.
    """

    __slots__ = ("_guard", "_inside", "_name", "_open", "_release", "_releasing", "released")

    def __init__(self, name: str, release: Callable[[], None]) -> None:
        self._name: Final = name
        self._release: Final = release
        self._guard: Final = allocate_lock()
        self._open = True
        self._inside = 0
        self._releasing = False
        self.released: Final = Fence(fence_context_alloc(), 1, driver="nouveau", timeline=f"{name} released")

    @property
    def is_open(self) -> bool:
        """False once ``close`` was called."""
        return self._open

    @property
    def inside(self) -> int:
        """Calls that are under way."""
        return self._inside

    def __enter__(self) -> None:
        with self._guard:
            is_open = self._open
            self._inside += is_open
        if not is_open:
            raise BadFile(f'client "{self._name}" is closed; open another one', self._name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._guard:
            self._inside -= 1
            is_open = self._open
        if not is_open:
            with suppress(GpuvmError):  # it is not this call that wants it; who closes again goes on
                self._release_if_last()

    def close(self) -> None:
        """Let nobody in any more; again: nothing, or what could not be released before.

        Raises:
            GpuvmError: from ``release``.
        """
        self._open = False
        self._release_if_last()

    @contextmanager
    def closing(self) -> Iterator[None]:
        """``close``, and be inside for the time of a ``with`` block."""
        with self._guard:
            self._open = False
            self._inside += 1
        try:
            yield
        finally:
            self.__exit__(None, None, None)

    def _release_if_last(self) -> None:
        with self._guard:
            last = not (self._inside or self._releasing)
            self._releasing |= last
        if last:
            try:
                self._release()
            except BaseException:
                self._releasing = False
                raise
            self.released.signal()
