"""Global names of a device's objects, by which one client opens what another one named (flink)."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gpuvm.errors import CheckFailed, NotFound
from gpuvm.mem.idr import Idr
from gpuvm.sync import lockdep
from gpuvm.sync.mutex import Mutex

if TYPE_CHECKING:
    from gpuvm.mem.gem import GemObject


@dataclass(frozen=True, slots=True)
class GemNamesStatistics:
    """A snapshot of a device's names."""

    names: int


class GemNames:
    """Which object has which name: the lowest number from 1 on that was free.

    A name holds no reference. It goes with the object's last handle.

    Locking: ``lock`` held, but for ``find`` and what is below it. It also guards the handles of all clients
    of the device, and how many an object has. Order: ``lock``, reservations.

    Source: ``drm_device.object_name_idr`` and ``object_name_lock``.
    """

    def __init__(self, device: str) -> None:
        self.lock: Final = Mutex(f"{device} object_name_lock", lockdep.lock_class("object_name_lock"))
        self._named: Final[Idr[weakref.ref[GemObject]]] = Idr("name of an object")

    def give(self, obj: GemObject) -> int:
        """The name of ``obj``; a new one if it has none.

        Raises:
            OutOfMemory: a test wants so; nothing was changed.
        """
        lockdep.assert_held(self.lock)
        if not obj.flink_name:
            obj.flink_name = self._named.insert(weakref.ref(obj))
        return obj.flink_name

    def drop(self, obj: GemObject) -> None:
        """Forget the name of ``obj``, if it has one."""
        lockdep.assert_held(self.lock)
        if obj.flink_name:
            self._named.remove(obj.flink_name)
            obj.flink_name = 0

    def find(self, name: int) -> GemObject:
        """The object with that name.

        Raises:
            NotFound: there is none.
        """
        named = self._named.get(name)
        obj = None if named is None else named()
        if obj is None:
            raise NotFound(f"open: no object has the name {name}; pass what flink returned", name)
        return obj

    def knows(self, obj: GemObject) -> bool:
        """Whether it is ``obj`` that has the name that it thinks."""
        named = self._named.get(obj.flink_name)
        return named is not None and named() is obj

    def check(self) -> None:
        """Verify that names and objects agree. Call it while no thread is inside a call.

        Raises:
            CheckFailed: with the state.
        """
        self._named.check()
        for name, named in self._named.items():
            obj = named()
            if obj is not None and (obj.flink_name != name or not obj.handle_count):
                raise CheckFailed(f"name {name}: {obj!r}, named {obj.flink_name}, {obj.handle_count} handles")

    def statistics(self) -> GemNamesStatistics:
        """How many there are."""
        return GemNamesStatistics(len(self._named))
