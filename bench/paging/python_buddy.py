"""A buddy allocator as one writes it in Python: a set of free blocks for each order."""

from __future__ import annotations


class PythonBuddy:
    """Powers of two of `block` bytes; the whole is one, too."""

    def __init__(self, size: int, block: int) -> None:
        self._block = block
        self._top = (size // block).bit_length() - 1
        self._free: list[set[int]] = [set() for _ in range(self._top + 1)]
        self._free[self._top].add(0)
        self._orders: dict[int, int] = {}

    def alloc(self, size: int) -> int:
        """The address of a block that is at least `size` bytes long."""
        wanted = (-(-size // self._block) - 1).bit_length()
        order = wanted
        while not self._free[order]:
            order += 1
            if order > self._top:
                raise MemoryError(f"PythonBuddy: no block of {size} bytes is free")
        addr = self._free[order].pop()
        while order > wanted:
            order -= 1
            self._free[order].add(addr + (self._block << order))
        self._orders[addr] = wanted
        return addr

    def free(self, addr: int) -> None:
        """Give it back, and merge it with its buddy as long as that is free."""
        order = self._orders.pop(addr)
        while order < self._top:
            buddy = addr ^ self._block << order
            if buddy not in self._free[order]:
                break
            self._free[order].remove(buddy)
            addr = min(addr, buddy)
            order += 1
        self._free[order].add(addr)
