"""Which objects a recorded call uses, as far as a trace can tell.

A trace has what was asked of the kernel, not what the GPU touched. So a *use* is what the kernel can see: an
object is used by a vm_bind that maps it, and by an exec that has a push buffer in it; once by each call.
What shaders read and write through their mappings is not recorded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from gpuvm.trace.recorded import OP_MAP, BindOp, Push, Record, Submission, VmBind
from gpuvm.trace.replay import GemHandle, Replay
from gpuvm.va import GpuvaManager

_Object = TypeVar("_Object")


def bound_objects(ops: Iterable[BindOp], objects: dict[int, _Object]) -> list[_Object]:
    """The objects that ``ops`` map, each once, in the order of the ops; ``objects`` by handle."""
    handles = dict.fromkeys(op.handle for op in ops if op.op == OP_MAP and not op.sparse)
    return [objects[handle] for handle in handles if handle in objects]


def pushed_objects(pushes: Iterable[Push], vm: GpuvaManager) -> list[object]:
    """The objects that hold ``pushes`` in the space, each once, in their order."""
    inside = [push for push in pushes if push.va_len and push.va + push.va_len <= vm.end]
    return list(dict.fromkeys(va.obj for push in inside for va in vm.mappings(push.va, push.va_len)))


def all_uses(name: str, records: Iterable[Record], *, client: int | None = None) -> list[tuple[int, int]]:
    """Every use of a trace in order, as the object's handle and the line that made or imported it.

    Args:
        name: of the trace, for messages.
        client: of this one alone.

    Raises:
        ReplayError: as `Replay.run`.
    """
    replay = Replay(name, client=client)
    uses: list[tuple[int, int]] = []
    for record in records:
        replay.run((record,))
        owner = replay.clients.get(record.client)
        if owner is None or owner.vm is None or record.ret:
            continue
        match record:
            case VmBind():
                used: list[object] = [*bound_objects(record.ops, owner.objects)]
            case Submission():
                used = pushed_objects(record.pushes, owner.vm)
            case _:
                continue
        uses += [(one.number, one.line) for one in used if isinstance(one, GemHandle)]
    return uses
