"""Rows on their way into a database: collected, changed while they wait, written many at a time."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any, Final


class Table(ABC):
    """Rows of a table that wait.

    Args:
        table: its name.
        columns: those that are written, in the order of rows.
    """

    def __init__(self, table: str, columns: tuple[str, ...]) -> None:
        places = ", ".join("?" * len(columns))
        self._insert: Final = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"
        self._written = 0

    @property
    @abstractmethod
    def total(self) -> int:
        """How many rows there are, written or not."""

    @abstractmethod
    def __len__(self) -> int:
        """What waits."""

    @abstractmethod
    def write(self, db: sqlite3.Connection) -> None:
        """All that waits."""


class Rows(Table):
    """Rows that stay as they are."""

    def __init__(self, table: str, *columns: str) -> None:
        super().__init__(table, columns)
        self._rows: Final[list[tuple[Any, ...]]] = []

    @property
    def total(self) -> int:
        """As `Table.total`."""
        return self._written + len(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: tuple[Any, ...]) -> None:
        """One more."""
        self._rows.append(row)

    def write(self, db: sqlite3.Connection) -> None:
        """As `Table.write`."""
        if self._rows:
            db.executemany(self._insert, self._rows)
            self._written += len(self._rows)
            self._rows.clear()


class Batch(Table):
    """Rows that change, as long as they wait and later.

    Args:
        key: how many columns, from the first on, are the primary key.
    """

    def __init__(self, table: str, *columns: str, key: int = 1) -> None:
        super().__init__(table, columns)
        where = " AND ".join(f"{column} = ?" for column in columns[:key])
        self._update: Final = {
            column: f"UPDATE {table} SET {column} = ? WHERE {where}" for column in columns[key:]
        }
        self._at: Final = {column: at for at, column in enumerate(columns)}
        self._rows: Final[dict[Hashable, list[Any]]] = {}
        self._changes: Final[dict[str, list[tuple[Any, ...]]]] = {}

    @property
    def total(self) -> int:
        """As `Table.total`."""
        return self._written + len(self._rows)

    def __len__(self) -> int:
        return len(self._rows) + sum(map(len, self._changes.values()))

    def add(self, key: Hashable, row: list[Any]) -> None:
        """A row; ``key`` is its primary key, a number, or a tuple if it has several columns."""
        self._rows[key] = row

    def change(self, key: Hashable, column: str, value: object) -> None:
        """Another value for a row that was added once."""
        row = self._rows.get(key)
        if row is not None:
            row[self._at[column]] = value
            return
        keys = key if isinstance(key, tuple) else (key,)
        self._changes.setdefault(column, []).append((value, *keys))

    def write(self, db: sqlite3.Connection) -> None:
        """As `Table.write`."""
        if self._rows:
            db.executemany(self._insert, self._rows.values())
            self._written += len(self._rows)
            self._rows.clear()
        for column, changes in self._changes.items():
            db.executemany(self._update[column], changes)
        self._changes.clear()
