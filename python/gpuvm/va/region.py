"""Reserved ranges of an address space, some of them sparse."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Region:
    """``[addr, addr + range)``, in bytes; in a sparse one, what is not mapped reads as zero."""

    addr: int
    range: int
    sparse: bool = False

    @property
    def end(self) -> int:
        """First address behind the region."""
        return self.addr + self.range
