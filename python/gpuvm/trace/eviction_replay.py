"""Replay with less VRAM than the trace wants: what an eviction policy finds in place, and what it moves.

What counts as a use is said in `uses`. A job is taken to run until its client's next one is submitted, for a
trace does not tell when the GPU was done: moving what the latest job uses is a stall.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from gpuvm.errors import GpuvmError, NoSpace, OutOfMemory
from gpuvm.exec import Exec, ExecFlags
from gpuvm.mem.aperture import Domain
from gpuvm.mem.gem import GemObject
from gpuvm.mem.placement import placement_of
from gpuvm.mem.policy import Clock, EvictionPolicy, FarthestNextUse, Lru
from gpuvm.mmu.formats import Format
from gpuvm.sync.fence import Fence, fence_context_alloc
from gpuvm.sync.resv import Usage
from gpuvm.trace import recorded
from gpuvm.trace.errors import ReplayError
from gpuvm.trace.memory_replay import MemoryClient, MemoryReplay, object_name
from gpuvm.trace.uses import all_uses, bound_objects, pushed_objects

_VALIDATIONS = 2
"""How often a use validates its object: where it belongs, then in the call itself."""


class _Job(Fence):
    """Work that is still going on; who waits for it finds it done."""

    def enable_signaling(self) -> bool:
        """Nothing to watch: it is done as soon as somebody cares."""
        return False


@dataclass(slots=True)
class UseCounts:
    """What became of the uses."""

    uses: int = 0
    first_uses: int = 0
    """Of these those of objects that were not used before: nothing is there to be moved."""
    hits: int = 0
    """Those that found the object where it belongs."""
    without_room: int = 0
    """Those of an object that belongs in VRAM and was used in GART: what else the call uses left no room."""
    seen: set[str] = field(default_factory=set)
    """Names of objects that were used."""


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """One policy's way through a trace. Sizes are bytes.

    Attributes:
        policy: its name.
        uses, first_uses, hits, without_room: see `UseCounts`.
        evictions: objects that made room for others.
        moved_in, moved_out: bytes that went towards VRAM, and away from it.
        stalls: moves that had to wait for a job.
        refused: why the replay ended early; None if it did not.
    """

    policy: str
    uses: int
    first_uses: int
    hits: int
    without_room: int
    evictions: int
    moved_in: int
    moved_out: int
    stalls: int
    refused: ReplayError | None

    @property
    def hit_rate(self) -> float:
        """Hits for each use; 1 if there was none."""
        return self.hits / self.uses if self.uses else 1.0


class EvictionReplay(MemoryReplay):
    """A replay in which an object belongs in VRAM if the trace allows it there and VRAM is large enough.

    It is brought there for each of its uses, at the expense of others. Where those that the call uses itself
    leave no room it goes to GART, if the trace allows that; if not, the call is refused.
    """

    def __init__(
        self,
        name: str,
        records: Iterable[recorded.Record],
        format: Format,
        *,
        vram: int,
        gart: int,
        policy: EvictionPolicy,
        client: int | None = None,
    ) -> None:
        super().__init__(name, records, format, vram=vram, gart=gart, policy=policy, client=client)
        self.counts = UseCounts()
        self._jobs: dict[int, _Job] = {}
        self._contexts: dict[int, int] = {}

    def _bind(self, client: MemoryClient, record: recorded.VmBind) -> None:
        used = bound_objects(record.ops, client.objects)
        self._bring_home(record.line, used)
        super()._bind(client, record)
        self._submitted(client, used)

    def _submit(self, client: MemoryClient, record: recorded.Submission) -> None:
        if client.vm is None:
            return
        used = [obj for obj in pushed_objects(record.pushes, client.vm) if isinstance(obj, GemObject)]
        self._bring_home(record.line, used)
        client.vm.validate_objects(used)
        self._submitted(client, used)

    def _kind(self, kind: int) -> int:
        # A compressed page cannot lie in GART, and nothing is compressed anyway.
        return self._format.kinds.uncompressed[kind] or 0 if self._format.kinds.has(kind) else kind

    def _refuse(
        self, line: int, message: str, cause: GpuvmError | None = None, op: int | None = None
    ) -> NoReturn:
        # A NoSpace that is about an operation is about sparse regions.
        if isinstance(cause, OutOfMemory) or (isinstance(cause, NoSpace) and op is None):
            message = f"{message}; raise --vram or --gart"
        super()._refuse(line, message, cause, op)

    # -- one use

    def _home(self, obj: GemObject) -> Domain:
        """Where it belongs."""
        domains = Domain(0)
        for place in obj.allowed:
            domains |= place.domain
        fits = obj.size <= self.device.vram.size
        return Domain.VRAM if Domain.VRAM in domains and (fits or Domain.GART not in domains) else Domain.GART

    def _bring_home(self, line: int, used: Sequence[GemObject]) -> None:
        """Have all of them in memory at once, where they belong as far as there is room."""
        before = [(obj, obj.domain) for obj in used]
        try:
            with Exec(ExecFlags.IGNORE_DUPLICATES) as exec:
                for attempt in exec.until_all_locked():
                    with attempt:
                        for obj in used:
                            exec.lock_obj(obj)
                        self._validate(used, exec)
        except GpuvmError as error:
            self._refuse(line, f"the objects that this call uses do not fit together: {error}", error)
        for obj, domain in before:
            home = self._home(obj)
            self.counts.uses += 1
            self.counts.first_uses += obj.name not in self.counts.seen
            self.counts.hits += domain == home
            self.counts.without_room += obj.domain != home
            self.counts.seen.add(obj.name)

    def _validate(self, used: Iterable[GemObject], exec: Exec) -> None:
        """One after the other; nobody is evicted in vain for one that cannot fit beside those before."""
        tables = [client.page_table for client in self.clients.values()]
        room = self.device.vram.size - sum(one.table_bytes for one in tables if one is not None)
        for obj in used:
            home = self._home(obj)
            elsewhere = home == Domain.VRAM and any(place.domain == Domain.GART for place in obj.allowed)
            if elsewhere and obj.size > room:
                home = Domain.GART
            try:
                self.device.validate(obj, placement_of(home), exec=exec)
            except (NoSpace, OutOfMemory):
                if home == Domain.GART or not elsewhere:
                    raise
                self.device.validate(obj, placement_of(Domain.GART), exec=exec)
            room -= obj.size if obj.domain == Domain.VRAM else 0

    def _submitted(self, client: MemoryClient, used: Sequence[GemObject]) -> None:
        """The call's job uses them from now on; the one before is done."""
        done = self._jobs.get(client.number)
        context = self._contexts.setdefault(client.number, fence_context_alloc())
        job = _Job(context, 1 if done is None else done.seqno + 1, driver=self._name, timeline="job")
        for obj in used:
            with obj.resv:
                obj.resv.reserve_fences(1)
                obj.resv.add_fence(job, Usage.BOOKKEEP)
        self._jobs[client.number] = job
        if done is not None and not done.signalled:
            done.signal()

    def clear(self) -> None:
        """As `MemoryReplay.clear`, once the last jobs are done."""
        for job in self._jobs.values():
            if not job.signalled:
                job.signal()
        super().clear()

    def result(self, policy: str, refused: ReplayError | None) -> PolicyResult:
        """Where it stands."""
        counts, device = self.counts, self.device.statistics()
        into = sum(move.bytes for move in device.moves if _distance(move.target) < _distance(move.source))
        return PolicyResult(
            policy,
            counts.uses,
            counts.first_uses,
            counts.hits,
            counts.without_room,
            device.evictions,
            into,
            device.bytes_moved - into,
            device.stalls,
            refused,
        )


def _distance(domain: Domain) -> int:
    """From the GPU."""
    return (Domain.VRAM, Domain.GART, Domain.CPU).index(domain)


def compare_policies(
    name: str,
    records: Sequence[recorded.Record],
    policies: Iterable[str],
    format: Format,
    *,
    vram: int,
    gart: int,
    client: int | None = None,
    watch: Callable[[Sequence[recorded.Record]], Iterable[recorded.Record]] = iter,
) -> list[PolicyResult]:
    """The same trace with one policy after the other, each on a device of its own.

    A policy under which a call's objects do not fit ends there; what it did until then is told.

    Args:
        policies: ``lru``, ``clock`` or ``farthest``.
        vram, gart: bytes.
        client: replay this one alone.
        watch: gives the records back one by one; how a progress bar looks in.

    Raises:
        ReplayError: what a trace says was accepted is refused, for another reason than a lack of memory.
    """
    uses = all_uses(name, records, client=client)
    results = []
    for one in policies:
        policy = _policy(one, uses)
        replay = EvictionReplay(name, records, format, vram=vram, gart=gart, policy=policy, client=client)
        results.append(_played(replay, one, watch(records)))
    return results


def _policy(name: str, uses: Sequence[tuple[int, int]]) -> EvictionPolicy:
    match name:
        case "lru":
            return Lru()
        case "clock":
            return Clock()
        case _:
            return FarthestNextUse(object_name(*use) for use in uses for _ in range(_VALIDATIONS))


def _played(replay: EvictionReplay, policy: str, records: Iterable[recorded.Record]) -> PolicyResult:
    try:
        replay.run(records).check()
    except ReplayError as error:
        if not isinstance(error.__cause__, NoSpace | OutOfMemory):
            raise
        return replay.result(policy, error)
    result = replay.result(policy, None)
    replay.close()
    return result
