"""OpenFile: whether a client is open, and who is inside one of its calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

from gpuvm._core import Entrance
from gpuvm.errors import BadFile, GpuvmError
from gpuvm.sync.fence import Fence, fence_context_alloc


class OpenFile(Entrance):
    """Like a file of the kernel, which every call that is under way keeps, and which goes with the last.

    ``with file:`` is inside; that may nest. So closing waits for nobody, and nobody loses what he works with:
    if calls are under way the last one to end releases all.

    Locking: any thread. Nothing may be held where a call ends.

    Args:
        name: for messages.
        release: called when it is closed and nobody is inside; again, by the next ``close``, only if it
            raised something.

    Attributes:
        is_open: False once ``close`` was called.
        inside: calls that are under way.
        released: signalled after that.

    Raises, at ``with``:
        BadFile: it is closed.

    Source: ``struct file``, ``fget``, ``fput``.
    """

    __slots__ = ("_name", "_release", "released")

    def __init__(self, name: str, release: Callable[[], None]) -> None:
        self._name: Final = name
        self._release: Final = release
        self.released: Final = Fence(fence_context_alloc(), 1, driver="nouveau", timeline=f"{name} released")

    def _refuse(self) -> NoReturn:
        raise BadFile(f'client "{self._name}" is closed; open another one', self._name)

    def _left(self) -> None:
        """Somebody did, after it was closed."""
        with suppress(GpuvmError):  # it is not this call that wants it; who closes again goes on
            self._release_if_last()

    def close(self) -> None:
        """Let nobody in any more; again: nothing, or what could not be released before.

        Raises:
            GpuvmError: from ``release``.
        """
        self._shut()
        self._release_if_last()

    @contextmanager
    def closing(self) -> Iterator[None]:
        """``close``, and be inside for the time of a ``with`` block."""
        self._shut(enter=True)
        try:
            yield
        finally:
            self.__exit__(None, None, None)

    def _release_if_last(self) -> None:
        if self._is_to_release():
            try:
                self._release()
            except BaseException:
                self._cannot()
                raise
            self.released.signal()
