"""Device: the memory of a GPU, and the objects in it (``struct ttm_device``)."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

from gpuvm.errors import Busy, InvalidArgument
from gpuvm.mem.aperture import Aperture, Domain
from gpuvm.mem.arguments import check_memory, check_new, check_quota, policy_or_default
from gpuvm.mem.buddy import Buddy
from gpuvm.mem.delayed_delete import DelayedDelete
from gpuvm.mem.eviction import Claims, Evictor, WorkingSet
from gpuvm.mem.gem import Backing, GemObject, OwnPages
from gpuvm.mem.instance_memory import InstanceMemory
from gpuvm.mem.memory import Memory
from gpuvm.mem.move import Moved, Mover
from gpuvm.mem.move_statistics import DeviceStatistics
from gpuvm.mem.names import GemNames
from gpuvm.mem.object_file import ObjectFile
from gpuvm.mem.ownership import check_ownership, check_parts
from gpuvm.mem.pages import PageAllocator
from gpuvm.mem.placement import PAGE, Placement, check_placement, placement_of
from gpuvm.mem.policy import EvictionPolicy
from gpuvm.mem.residency import Residency
from gpuvm.mem.resource import ResourceManager
from gpuvm.mem.validate import use_in_place, validate
from gpuvm.sync import lockdep
from gpuvm.sync.descriptor import carriers
from gpuvm.sync.resv import Resv

SHOWN: Final = 8
"""How many objects an error lists."""


class Device:
    """The memories of a GPU, the objects in them, and who makes room for whom.

    - objects: ``create``; ``validate`` has one where it may be used, ``evict`` and ``evict_all`` out of the
      way, ``pin`` and ``unpin`` keep it where it is, ``used`` says so of one that nobody validates
    - memory: ``memory`` by aperture, ``vram``, ``gart``; ``instance_memory`` for the GPU's own structures;
      ``object_file`` for clients
    - life: ``reap``, ``close``, ``with``; ``check`` and ``statistics``

    Locking: an object's reservation guards where it is. Below it there is one lock over lists and managers,
    taken inside the calls for a few steps. Most calls begin by freeing what was dropped before.

    Args:
        vram, gart: bytes of the GPU's own memory, and of system memory within its reach.
        system: bytes of objects in GART and on the CPU's side before they are swapped out; None: any number.
        policy: who is evicted first, in this device alone. Default: ``Lru``.
        name: for reports and fences.
        objects: descriptor of a directory where the file of the objects has the name ``{name} objects``.
        moved: is told of moves; see ``Mover``.

    Raises:
        InvalidArgument: a size that is not a positive multiple of 4096, a negative quota, or no policy.
        OutOfMemory: the process has not so many addresses, or no descriptors left.

    Source: ``ttm_device_init``, ``nouveau_ttm_init``.
    """

    def __init__(
        self,
        *,
        vram: int,
        gart: int,
        system: int | None = None,
        policy: EvictionPolicy | None = None,
        name: str = "gpu",
        objects: int | None = None,
        moved: Moved | None = None,
    ) -> None:
        check_memory("vram", vram)
        check_memory("gart", gart)
        check_quota(system)
        policy = policy_or_default(policy)
        self.name: Final = name
        self.vram: Final = Memory(Aperture.VRAM, vram, f"{name} vram")
        self.gart: Final = Memory(Aperture.SYSTEM_COHERENT, gart, f"{name} gart")
        shown = (self.vram.view, self.gart.view)
        self.object_file: Final = ObjectFile(f"{name} objects", directory=objects, shown=shown)
        self.names: Final = GemNames(name)
        """Global names of its objects (flink)."""
        self._memories: Final = {memory.aperture: memory for memory in (self.vram, self.gart)}
        managers = (
            ResourceManager(Domain.VRAM, Aperture.VRAM, Buddy(vram), vram),
            ResourceManager(Domain.GART, Aperture.SYSTEM_COHERENT, PageAllocator(gart), gart),
            ResourceManager(Domain.CPU),
        )
        self._residency: Final = Residency(name, managers, policy, system)
        self._mover: Final = Mover(name, self._memories, self._residency, moved)
        self.dying: Final = DelayedDelete(self._mover.free)
        """Where an object's finalizer leaves what it had."""
        self._evictor: Final = Evictor(self._residency, self._mover, self.dying)
        self.instance_memory: Final = InstanceMemory(self.vram, self._residency, self._evictor)
        self._objects: Final = weakref.WeakSet[GemObject]()

    def memory(self, aperture: Aperture) -> Memory:
        """The memory that addresses of ``aperture`` lead to.

        Raises:
            InvalidArgument: the device has none such.
        """
        memory = self._memories.get(aperture)
        if memory is None:
            there = list(self._memories)
            raise InvalidArgument(f"memory: {self!r} has none of {aperture!r}, but {there}", aperture)
        return memory

    # -- objects

    def create(
        self,
        size: int,
        domains: Domain = Domain.VRAM,
        *,
        resv: Resv | None = None,
        no_share: bool = False,
        name: str = "bo",
        align: int = PAGE,
        priority: int = 0,
    ) -> GemObject:
        """A new object, all zeros. It lies nowhere until it is validated, and takes no memory until written.

        Locking: none.

        Args:
            size: bytes; rounded up to a multiple of ``align``.
            domains: where ``validate`` may put it by default, as by ``placement_of``.
            resv: an address space's, which it shares then. Default: one of its own.
            no_share: it stays with one client; needs ``resv``.
            name: for reports, and for ``FarthestNextUse``.
            align: bytes that its physical addresses are multiples of: a power of two, 4096 to 2**40.
            priority: from 0 to 3; objects of a lower one are evicted first.

        Raises:
            InvalidArgument: an argument outside of what is said above.
            NoSpace: the object file is full.
            OutOfMemory: nothing was changed.

        Source: ``ttm_bo_init_reserved``, ``nouveau_bo_new``.
        """
        self.reap()
        check_new(size, align, priority, no_share, resv)
        placement = placement_of(domains)
        size = -(-size // align) * align
        offset = self.object_file.allocate(size)
        pages = OwnPages(self.object_file, offset, size)
        try:
            obj = GemObject(
                self,
                Backing(pages, size, Resv(name) if resv is None else resv),
                self.dying.add,
                name=name,
                allowed=placement,
                align=align,
                no_share=no_share,
                priority=priority,
            )
        except BaseException:
            pages.free()
            raise
        self.adopt(obj)
        return obj

    def adopt(self, obj: GemObject) -> None:
        """Know of ``obj``, which is this device's; for who makes one otherwise (``DmaBuf.attach``)."""
        self._objects.add(obj)

    def validate(
        self,
        obj: GemObject,
        placement: Placement | None = None,
        *,
        exec: WorkingSet | None = None,
        interruptible: bool = False,
    ) -> bool:
        """Have ``obj`` where it may be used; True if it moved.

        One that lies in one of the places stays. Otherwise it goes to the first place where memory is free;
        if there is none, to the first where others can be evicted: those of lower priority first, then in the
        policy's order. Pinned ones stay, and those outside the window that it asks for. A fallback place is
        taken by an object that would not get any other; one that lies there already moves only to where
        memory is free.

        Evicted objects go from VRAM to GART, or to the CPU's side where GART is full, and from GART to the
        CPU's side.

        Locking: ``obj.resv`` held. With ``exec``, what it locked is the working set and stays; of objects
        that share a reservation (private ones) those do that an address space has a VmBo of. If nobody else
        may go it waits for reservations held by others: call it in the loop (``with attempt``), with all
        locked that belongs to the submission. Without ``exec`` it never waits for a reservation, and objects
        that share that of ``obj`` may go.

        Args:
            placement: where. Default: ``obj.allowed``.
            exec: the ``Exec`` that locked ``obj``.
            interruptible: ``Task.interrupt`` ends waits for fences.

        Raises:
            NoSpace: it never fits, whatever is evicted.
            OutOfMemory: it does not fit now, or some allocation failed.
            Contended: for ``with attempt`` to catch.
            Busy: it is pinned elsewhere.
            Interrupted: the task was interrupted.
            InvalidArgument: no place; VRAM for an imported object; another device's object.

            ``obj`` is where it was then. Others that were evicted stay so; nobody's bytes are lost.

        Source: ``ttm_bo_validate``.
        """
        self._require(obj)
        self.reap()
        places = obj.allowed if placement is None else check_placement(placement)
        return validate(obj, places, self._residency, self._evictor, exec=exec, interruptible=interruptible)

    def use_in_place(self, objs: Iterable[GemObject]) -> bool:
        """``validate`` all, if nobody has to move for it; False, and nothing is done, if somebody has to.

        Locking: their reservations held. Cost: less than a microsecond an object.
        """
        if self.dying.queue:
            self.reap()
        return use_in_place(objs, self._residency)

    def used(self, obj: GemObject) -> None:
        """Note a use of an object that is not validated for it. Locking: ``obj.resv``.

        It counts as a validation would that found it where it is. Source: ``ttm_bo_move_to_lru_tail``.
        """
        self._require(obj)
        now = self._residency.where(obj)
        if now is not None:
            self._residency.use(now, hit=any(map(now.compatible, obj.allowed[:1])))

    def evict(self, obj: GemObject, *, interruptible: bool = False) -> None:
        """Move ``obj`` where evicted objects go; what lies on the CPU's side, or nowhere, stays.

        Locking: ``obj.resv``.

        Raises:
            Busy: it is pinned.
            OutOfMemory, Interrupted: it stays where it is.

        Source: ``ttm_bo_evict``.
        """
        self._require(obj)
        self.reap()
        if obj.pin_count:
            raise Busy(f"evict: {obj!r} is pinned; unpin it first", obj.pin_count, 0)
        self._evictor.evict(obj, Claims(obj, None), interruptible)

    def evict_all(self, domain: Domain) -> None:
        """Evict what lies in ``domain`` and is not pinned, waiting for its users.

        Locking: no reservation may be held. Objects that come meanwhile may stay.

        Raises:
            OutOfMemory: those that are left stay where they are.
            InvalidArgument: several domains or none.

        Source: ``ttm_resource_manager_evict_all``.
        """
        if domain not in self._residency.managers:
            raise InvalidArgument(f"evict_all: {domain!r}; pass one Domain", domain, tuple(Domain))
        self.reap()
        for resource in self._residency.evictable(domain):
            obj = resource.owner
            if obj is None:
                continue
            with obj.resv:
                if self._residency.where(obj) is resource and not obj.pin_count:
                    self._evictor.evict(obj, Claims(obj, None))

    def pin(self, obj: GemObject, domain: Domain) -> None:
        """Have ``obj`` in ``domain``, and keep it there until it is unpinned as often.

        Locking: ``obj.resv``.

        Raises:
            Busy: it is pinned elsewhere.
            GpuvmError: as ``validate``, without ``exec``.

        Source: ``nouveau_bo_pin``.
        """
        self.validate(obj, placement_of(domain))
        now = self._residency.where(obj)
        if not obj.pin_count and now is not None:
            self._residency.pin(now)
        obj.pin_count += 1

    def unpin(self, obj: GemObject) -> None:
        """Take one pin away. Locking: ``obj.resv``.

        Raises:
            InvalidArgument: it is not pinned.

        Source: ``ttm_bo_unpin``.
        """
        self._require(obj)
        if not obj.pin_count:
            raise InvalidArgument(f"unpin: {obj!r} is not pinned", 0, 1)
        now = self._residency.where(obj)
        if obj.pin_count == 1 and now is not None:
            self._residency.unpin(now)
        obj.pin_count -= 1

    def _require(self, obj: GemObject) -> None:
        """That it is ours, and locked."""
        if obj.device is not self:
            raise InvalidArgument(
                f"{obj!r} is of {obj.device!r}, not of {self!r}; import it", obj.device, self
            )
        lockdep.assert_held(obj.resv)

    # -- life

    def reap(self) -> int:
        """Free the memory of objects that are gone and that no job uses any more; how many. Locking: none.

        Source: ``ttm_bo_delayed_delete``.
        """
        return self.dying.reap()

    def close(self) -> None:
        """Wait for the fences of what is gone, and make sure that nothing is left.

        The memory itself goes with the last reference to the device or to a view. Locking: no reservation.

        Raises:
            Busy: objects are alive, or instance memory is allocated.

        Source: ``ttm_device_fini``.
        """
        carriers.collect()  # a file that was closed keeps its object until somebody looks
        self.dying.wait()
        alive = {*self._objects, *self._residency.owners()}
        left = self.instance_memory.statistics()
        if alive or left.allocations:
            names = ", ".join(sorted(map(repr, alive))[:SHOWN]) or "none"
            raise Busy(
                f"close: {self!r} has {len(alive)} objects left ({names}) and {left.used:#x} bytes of "
                "instance memory; drop and free them first",
                len(alive) + left.allocations,
                0,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()

    # -- itself

    def check(self) -> None:
        """Verify all of it. Call it while no call is under way.

        What managers and the object file handed out is disjoint, and belongs to objects, to instance memory,
        or to what is gone and waits for fences. What is wired is where objects lie. Lists, pins, policy and
        quota agree.

        Raises:
            CheckFailed: with the state.
        """
        self.reap()
        for memory in self._memories.values():
            memory.check()
        self.object_file.check()
        self.names.check()
        self.instance_memory.check()
        self._residency.check()
        check_ownership(
            self._residency.resources(),
            self._memories.values(),
            instances=self.instance_memory.resources,
            dying={backing.resource for backing in self.dying.backings()},
        )
        objects = {*self._objects, *self._residency.owners()}
        check_parts(self.object_file, [*(obj.backing for obj in objects), *self.dying.backings()])
        for obj in objects:
            obj.check()

    def statistics(self) -> DeviceStatistics:
        """What was moved, and what lies where. O(1)."""
        return self._residency.statistics(
            name=self.name,
            objects=len(self._objects),
            dying=len(self.dying),
            instance_memory=self.instance_memory.statistics().used,
        )

    def __repr__(self) -> str:
        return f'<Device "{self.name}" {self.vram.size:#x} VRAM, {self.gart.size:#x} GART>'
