"""Delayed delete: an object is gone, but jobs may still use its memory (``ttm_bo_delayed_delete``)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gpuvm.sync import lockdep
from gpuvm.sync.fence import Fence
from gpuvm.sync.mutex import Mutex
from gpuvm.sync.resv import Usage

if TYPE_CHECKING:
    from gpuvm.mem.gem import Backing


class _Dying:
    """What is left of an object, and whom its memory waits for."""

    __slots__ = ("backing", "fences")

    def __init__(self, backing: Backing) -> None:
        self.backing = backing
        self.fences: list[Fence] | None = None

    def pending(self) -> list[Fence]:
        """Who still uses it.

        Asked for the first time, when nobody can use it any more, it takes leave of a reservation that it
        shares with others, who go on adding fences (``ttm_bo_individualize_resv``).
        """
        fences = self.backing.resv.fences(Usage.BOOKKEEP) if self.fences is None else self.fences
        self.fences = [fence for fence in fences if not fence.signalled]
        return self.fences


class DelayedDelete:
    """What is left of objects that are gone, until their fences have signalled.

    Locking: ``add`` takes no lock, as a finalizer may call it at any moment. The others take one that comes
    after reservations, and under which nobody waits for a fence.

    Args:
        free: gives back the memory of one, or returns False: then it is asked again later.

    Attributes:
        queue: those that wait.
    """

    def __init__(self, free: Callable[[Backing], bool]) -> None:
        self._free: Final = free
        self._lock: Final = Mutex("delayed delete", lockdep.lock_class("delayed_delete"))
        self.queue: Final = deque[_Dying]()
        """Finalizers append; the others have the lock."""

    def add(self, backing: Backing) -> None:
        """Its object is gone. Only appends."""
        self.queue.append(_Dying(backing))

    def reap(self) -> int:
        """Free what nobody uses any more; how many that were. Cost: O(those that wait)."""
        if not self.queue:
            return 0
        freed = 0
        with self._lock:
            for _ in range(len(self.queue)):
                dying = self.queue[0]
                if dying.pending() or not self._free(dying.backing):
                    self.queue.rotate(-1)
                else:
                    self.queue.popleft()
                    freed += 1
        return freed

    def wait_for_one(self, helps: Callable[[Backing], bool], interruptible: bool = False) -> bool:
        """Wait until one that ``helps`` can be freed; False if none was freed.

        Raises:
            Interrupted: ``interruptible``, and the task was interrupted.
        """
        for dying in self._entries():
            if helps(dying.backing):
                for fence in dying.pending():
                    fence.wait(interruptible=interruptible)
                return self.reap() > 0
        return False

    def wait(self) -> None:
        """Wait for all of them."""
        for dying in self._entries():
            for fence in dying.pending():
                fence.wait()
        self.reap()

    def backings(self) -> list[Backing]:
        """What is left of them."""
        return [dying.backing for dying in self._entries()]

    def _entries(self) -> list[_Dying]:
        """By index: an iterator breaks when a finalizer appends."""
        with self._lock:
            return [self.queue[index] for index in range(len(self.queue))]

    def __len__(self) -> int:
        return len(self.queue)
