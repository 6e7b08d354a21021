"""TableWork: how much was done to page tables."""

from __future__ import annotations

from functools import partial
from typing import Final, NamedTuple


class TableWork(NamedTuple):
    """What was done to page tables, or had been until some moment."""

    written: int = 0
    """Entries, for pages that were mapped."""
    cleared: int = 0
    made: int = 0
    """Tables."""
    freed: int = 0

    def since(self, before: TableWork) -> TableWork:
        """What came after ``before``."""
        if self == before:
            return NONE
        written, cleared, made, freed = self
        then_written, then_cleared, then_made, then_freed = before
        return table_work(
            (written - then_written, cleared - then_cleared, made - then_made, freed - then_freed)
        )

    @property
    def of_entries(self) -> TableWork:
        """The part that jobs do."""
        return self._replace(made=0, freed=0)

    @property
    def of_tables(self) -> TableWork:
        """The part that is done before and after them."""
        return self._replace(written=0, cleared=0)

    def plus(self, other: TableWork) -> TableWork:
        """Both together."""
        return TableWork(
            self.written + other.written,
            self.cleared + other.cleared,
            self.made + other.made,
            self.freed + other.freed,
        )


NONE: Final = TableWork()
table_work: Final = partial(tuple.__new__, TableWork)
"""Makes one of a tuple."""
