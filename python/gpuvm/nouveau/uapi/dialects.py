"""Dialects of nouveau's VM_BIND uAPI: today's, and that of the series of patches which first proposed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from gpuvm._core import BindDecoder, BindOps
from gpuvm.errors import GpuvmError, InvalidArgument
from gpuvm.nouveau.bind import OpCode
from gpuvm.nouveau.uapi import structs
from gpuvm.nouveau.uapi.layout import Layout
from gpuvm.nouveau.uapi.requests import VmBindOp, VmBindOps, typed
from gpuvm.va import Regions

if TYPE_CHECKING:
    from gpuvm.mem.handles import GemHandles

VM_BIND_RUN_ASYNC: Final = 1 << 0
"""Of a VM_BIND: do not wait until it has run."""
VM_BIND_OP_MAP: Final = 0
VM_BIND_OP_UNMAP: Final = 1
"""Operations, in today's dialect."""
VM_BIND_SPARSE: Final = 1 << 8
"""Of an operation: about a sparse region."""
KIND: Final = 0xFF
"""Bits of an operation's flags that are the storage kind of a MAP."""


class Meaning(NamedTuple):
    """What the number of an operation says."""

    code: OpCode
    sparse: int
    """``VM_BIND_SPARSE`` if the operation knows that flag, else 0."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What sets one dialect apart from the other.

    Args:
        name: for messages and reports.
        meanings: of the numbers that operations have, which are those from 0 on.
        regions: what regions ask of mappings.
        empty_kernel_area: VM_INIT accepts an area of length 0.
        push: the structure that EXEC takes an array of.
    """

    name: str
    meanings: Mapping[int, Meaning]
    regions: Regions
    empty_kernel_area: bool
    push: Layout
    _decoder: BindDecoder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        meanings = [self.meanings[number] for number in range(len(self.meanings))]
        object.__setattr__(self, "_decoder", BindDecoder([(int(code), sparse) for code, sparse in meanings]))

    def bind_ops(self, ops: VmBindOps, handles: GemHandles) -> BindOps:
        """``ops`` as ``Uvmm`` takes them. First all numbers are looked at, then all handles.

        Flags that nobody knows are ignored, as the kernel does. Cost: O(ops), 50 ns each.

        Args:
            handles: has the objects that MAPs show.

        Raises:
            InvalidArgument: no operation has such a number.
            NotFound: there is no such handle. ``request`` is the index of the operation, here and above.

        Source: ``bind_job_op_from_uop``, ``bind_validate_ops``.
        """
        decoded = self._decoder.decode(ops, handles.by_handle)
        if isinstance(decoded, BindOps):
            return decoded
        raise self._refused(decoded, typed(ops)[decoded], handles)

    def tell(self, error: GpuvmError, asked: VmBindOps) -> None:
        """Note on ``error`` which of several operations it is about, ``error.request``, counted from 0."""
        ops = typed(asked)
        if error.request is None or len(ops) < 2:
            return
        number, flags, handle, addr, _, range = ops[error.request]
        meaning = self.meanings.get(number)
        what = str(number) if meaning is None else meaning.code.name
        if meaning is not None and flags & meaning.sparse:
            what += " sparse"
        shown = f" handle {handle}" if what == OpCode.MAP.name else ""
        error.add_note(
            f"VM_BIND: operation {error.request} of {len(ops)}: {what} [{addr:#x}, {addr + range:#x}){shown}"
        )

    def _refused(self, index: int, op: VmBindOp, handles: GemHandles) -> GpuvmError:
        if op.op not in self.meanings:
            known = ", ".join(f"{number} {meaning.code.name}" for number, meaning in self.meanings.items())
            return InvalidArgument(
                f'VM_BIND: operation {index} is {op.op}; the dialect "{self.name}" has {known}',
                op.op,
                tuple(self.meanings),
                index,
            )
        error = handles.unknown("lookup", op.handle)
        error.request = index
        return error


CURRENT: Final = Dialect(
    "current",
    meanings={
        VM_BIND_OP_MAP: Meaning(OpCode.MAP, VM_BIND_SPARSE),
        VM_BIND_OP_UNMAP: Meaning(OpCode.UNMAP, VM_BIND_SPARSE),
    },
    regions=Regions.SPARSE,
    empty_kernel_area=True,
    push=structs.EXEC_PUSH,
)
"""Today's, of Linux 6.6 and later."""

SERIES: Final = Dialect(
    "series",
    meanings={
        0: Meaning(OpCode.ALLOC, VM_BIND_SPARSE),
        1: Meaning(OpCode.FREE, 0),
        2: Meaning(OpCode.MAP, 0),
        3: Meaning(OpCode.UNMAP, 0),
    },
    regions=Regions.REQUIRED,
    empty_kernel_area=False,
    push=structs.EXEC_PUSH_SERIES,
)
"""The original series', second version: mappings lie in regions that are allocated before."""
