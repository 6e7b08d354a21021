"""Push buffers for tests: fields of methods, and operations that no driver sends."""

from __future__ import annotations

from gpuvm.nouveau.engine.push_buffer import COMPUTE, COPY, INLINE, THREED, TWOD, PushBuffer, halves

__all__ = ["COMPUTE", "COPY", "INLINE", "THREED", "TWOD", "Push", "execute", "halves", "legacy"]

# Fields of the copy engine's LAUNCH_DMA.
PIPELINED, NON_PIPELINED = 1, 2
FLUSH = 1 << 2
SRC_PITCH, DST_PITCH = 1 << 7, 1 << 8
MULTI_LINE, REMAP = 1 << 9, 1 << 10

CONST_A, CONST_B, NO_WRITE = 4, 5, 6
"""Besides 0 to 3, a component of the source, for what a component of the target is."""

ACQUIRE, RELEASE, STRICT_GEQ, CIRC_GEQ, AND, NOR, REDUCTION = range(7)
"""Operations of SEM_EXECUTE, and further fields of it."""
WIDE, TIMESTAMP, UNSIGNED = 1 << 24, 1 << 25, 1 << 31


class Push(PushBuffer):
    """Pushes can be put together."""

    def __add__(self, other: Push) -> Push:
        return Push().raw(self.words).raw(other.words)


def execute(addr: int, payload: int, operation: int) -> Push:
    """SEM_EXECUTE; the payload has 8 bytes, of which the operation may use 4."""
    words = addr & 0xFFFFFFFF, addr >> 32, payload & 0xFFFFFFFF, payload >> 32
    return Push().inc(0, 0x5C, *words, operation)


def legacy(addr: int, payload: int, operation: int) -> Push:
    """SEMAPHORED."""
    return Push().inc(0, 0x10, *halves(addr), payload, operation)
