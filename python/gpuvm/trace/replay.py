"""Replay of a trace: every client gets its own `GpuvaManager` and makes the binds that were recorded.

Objects are told apart as the kernel does: each gem_new is a new one, whatever its handle, and closing a
handle leaves the mappings. Sparse maps and unmaps make and drop sparse regions, as nouveau does. Calls
that failed when they were recorded changed nothing then and are skipped and counted now.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from gpuvm.errors import GpuvmError
from gpuvm.trace.errors import ReplayError, TraceError
from gpuvm.trace.recorded import (
    OP_MAP,
    OP_SPARSE,
    OP_UNMAP,
    BindOp,
    GemClose,
    GemImport,
    GemNew,
    Other,
    Record,
    Submission,
    VmBind,
    VmInit,
)
from gpuvm.va import GpuvaManager, Merge, Regions

if TYPE_CHECKING:
    import numpy.typing as npt

# nouveau gives user space the lower 47 bits.
SPACE_RANGE = 1 << 47

_REQUEST = struct.Struct("<IIIIQQQ").pack
_FLAGS = {OP_MAP: OP_SPARSE | 0xFF, OP_UNMAP: OP_SPARSE}

# Values of the ``op`` field of gpuvm.BIND_OP.
_OP_KINDS = ("map", "remap", "unmap", "prefetch")


class _MayHaveSpace(Protocol):
    @property
    def vm(self) -> GpuvaManager | None: ...


_Client = TypeVar("_Client", bound=_MayHaveSpace)


class GemHandle:
    """What a handle named from one gem_new to its gem_close: the object that gets mapped.

    Attributes:
        number: the handle that user space knew it by.
        size: in bytes, None for an imported object.
        line: where it was made.
    """

    __slots__ = ("__weakref__", "line", "number", "size")

    def __init__(self, number: int, size: int | None, line: int) -> None:
        self.number = number
        self.size = size
        self.line = line

    def __repr__(self) -> str:
        return f"GemHandle({self.number}, size={self.size}, line={self.line})"


@dataclass(slots=True)
class Client:
    """One open of the device and its space.

    Attributes:
        number: as recorded.
        vm: None until the client's vm_init.
        objects: what the open handles name.
        last_objects: what every handle named last, closed ones too.
        requests: plain maps and all unmaps that were made.
        sparse_maps: sparse maps that were made; not in ``requests``.
        ops: ops the manager emitted for them, by kind.
        failed_calls: vm_bind and vm_init that had failed when recorded.
        bind_ns: nanoseconds spent in `GpuvaManager.bind`.
    """

    number: int
    vm: GpuvaManager | None = None
    objects: dict[int, GemHandle] = field(default_factory=dict)
    last_objects: dict[int, GemHandle] = field(default_factory=dict)
    requests: int = 0
    sparse_maps: int = 0
    ops: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_OP_KINDS[:3], 0))
    failed_calls: int = 0
    bind_ns: int = 0

    def mappings(self) -> list[list[int]]:
        """``[addr, range, handle, bo_offset]`` of every mapping in address order, in bytes."""
        if self.vm is None:
            return []
        rows = self.vm.to_array()[["addr", "range", "handle", "bo_offset"]]
        return [list(row) for row in rows.tolist()]


class Replay:
    """Clients as they are after the last record fed.

    Attributes:
        clients: by number, in the order of their first record; those without vm_init have no ``vm``.
        line: the last line fed.
    """

    def __init__(self, name: str, *, client: int | None = None, merge: Merge = Merge.NEVER) -> None:
        """Args: ``name`` of the trace for messages; ``client``: replay this one alone; ``merge``: policy."""
        import numpy as np

        self._bincount = np.bincount
        self._name = name
        self._only = client
        self._merge = merge
        self.clients: dict[int, Client] = {}
        self.line = 0

    def run(self, records: Iterable[Record]) -> Replay:
        """Feed every record.

        Raises:
            ReplayError: the manager refuses what the recording says was accepted.
            TraceError: from the reader.
        """
        for record in records:
            self.line = record.line
            if self._only is None or record.client == self._only:
                self.feed(record)
        return self

    def feed(self, record: Record) -> None:
        """Make one recorded call. Raises ReplayError as `run` does."""
        client = self.clients.get(record.client)
        if client is None:
            client = self.clients[record.client] = Client(record.client)
        if record.ret != 0:
            client.failed_calls += isinstance(record, VmInit | VmBind)
            return
        match record:
            case VmBind():
                self._bind(client, record)
            case GemNew():
                self._name_object(client, GemHandle(record.handle, record.size, record.line))
            case GemImport() if record.handle not in client.objects:
                self._name_object(client, GemHandle(record.handle, None, record.line))
            case GemClose():
                client.objects.pop(record.handle, None)
            case VmInit():
                self._init(client, record)
            case GemImport() | Submission() | Other():
                pass

    def _name_object(self, client: Client, obj: GemHandle) -> None:
        client.objects[obj.number] = client.last_objects[obj.number] = obj

    def _init(self, client: Client, record: VmInit) -> None:
        if client.vm is not None:
            raise self._refusal(record.line, f"client {client.number} already has a space; a second vm_init")
        node = (record.kernel_addr, record.kernel_size) if record.kernel_size else None
        try:
            client.vm = GpuvaManager(
                f"client {client.number}",
                range=SPACE_RANGE,
                kernel_node=node,
                merge=self._merge,
                regions=Regions.SPARSE,
            )
        except GpuvmError as error:
            raise self._refusal(record.line, f"vm_init of client {client.number}: {error}") from error

    def _bind(self, client: Client, record: VmBind) -> None:
        if client.vm is None:
            raise self._refusal(record.line, f"client {client.number} binds before its vm_init")
        ops = record.ops
        if not ops:  # a pure sync job
            return
        requests = requests_of(ops)
        begin = perf_counter_ns()
        try:
            emitted = client.vm.bind(requests, client.objects)
        except GpuvmError as error:
            index = error.request or 0
            what = f"op {index} of this vm_bind was accepted when recorded, but {describe_op(ops[index])}"
            raise self._refusal(record.line, f"{what} is refused: {error}", index) from error
        client.bind_ns += perf_counter_ns() - begin

        sparse_maps = sum(op.sparse and op.op == OP_MAP for op in ops)
        client.sparse_maps += sparse_maps
        client.requests += len(ops) - sparse_maps
        counts = self._bincount(emitted["op"], minlength=len(_OP_KINDS)).tolist()
        for kind in client.ops:
            client.ops[kind] += counts[_OP_KINDS.index(kind)]

    def _refusal(self, line: int, message: str, op: int | None = None) -> ReplayError:
        return ReplayError(self._name, message, line=line, op=op)


def requests_of(ops: Iterable[BindOp]) -> npt.NDArray[Any]:
    """The ops as an array of ``VM_BIND_OP``, without the flags that nouveau overlooks."""
    import numpy as np

    from gpuvm.va.arrays import VM_BIND_OP

    packed = [_REQUEST(op[0], op[1] & _FLAGS[op[0]], *op[2:]) for op in ops]
    return np.frombuffer(b"".join(packed), dtype=VM_BIND_OP)


def describe_op(op: BindOp) -> str:
    """The op in words, for messages."""
    sparse = " sparse" if op.sparse else ""
    where = f"[{op.addr:#x}, {op.addr + op.range:#x})"
    if op.op == OP_MAP:
        backing = "" if op.sparse else f" to handle {op.handle} at {op.bo_offset:#x}"
        return f"map{sparse} {where}{backing}"
    return f"unmap{sparse} {where}"


def with_space(clients: dict[int, _Client], name: str, only: int | None = None) -> dict[int, _Client]:
    """The clients that have a space, by number; ``only`` that one, where given.

    Raises:
        TraceError: ``only`` has none.
    """
    found = {number: clients[number] for number in sorted(clients) if clients[number].vm is not None}
    if only is None:
        return found
    if only not in found:
        raise TraceError(name, f"client {only} did no successful vm_init up to here")
    return {only: found[only]}
