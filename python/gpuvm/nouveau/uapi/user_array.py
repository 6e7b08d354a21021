"""UserArray: numbers that a program passes by their address, copied when somebody looks at them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal, overload

from gpuvm.nouveau.uapi.user_memory import UserMemory

KMALLOC_MAX: Final = 1 << 22
"""The longest array, in bytes (``kmalloc_array``)."""


class UserArray(Sequence[int]):
    """An array in a program's memory.

    The kernel looks at a call's flags before it copies arrays. So does a call that is given this: only the
    length is known at once. The array is copied when an item is asked for, and no second time; what is wrong
    with it is said then.

    Args:
        memory: whose.
        addr, count: where, and how many; as the program has it.
        format: "I" u32, "Q" u64.

    Raises (looking at items):
        GpuvmError: as ``UserMemory.read_array``.
    """

    __slots__ = ("_addr", "_count", "_format", "_items", "_memory")

    def __init__(self, memory: UserMemory, addr: int, count: int, format: Literal["I", "Q"]) -> None:
        self._memory: Final = memory
        self._addr: Final = addr
        self._count: Final = count
        self._format: Final = format
        self._items: list[int] | None = None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        return iter(self._copied())

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        return self._copied()[index]

    def _copied(self) -> list[int]:
        if self._items is None:
            size = 4 if self._format == "I" else 8
            data = self._memory.read_array(self._addr, self._count, size, KMALLOC_MAX)
            self._items = memoryview(data).cast(self._format).tolist()
        return self._items

    def __repr__(self) -> str:
        return f"<UserArray of {self._count} at {self._addr:#x}>"
