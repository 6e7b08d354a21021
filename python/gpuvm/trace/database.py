"""The SQLite file of a trace: made, opened, and told from everything else."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from contextlib import suppress
from importlib import resources
from typing import Final
from urllib.parse import quote

from gpuvm.errors import ERRNO_NAMES
from gpuvm.trace.call_numbers import NUMBERS
from gpuvm.trace.errors import TraceError
from gpuvm.trace.source import SQLITE_MAGIC, display_name

APPLICATION_ID: Final = 0x67707576
"""``gpuv`` in ASCII, at byte 68 of the file."""
VERSION: Final = 1
"""Of the tables; SQLite's ``user_version``."""

_PAGE_SIZE: Final = 4096
_JOURNALS: Final = ("-wal", "-journal")
"""What SQLite has beside a database that is being written."""
_HEADER: Final = 100
_NOT_A_NUMBER_OF_64_BITS: Final = 1 << 63


def signed(number: int) -> int:
    """A u64 as SQLite keeps it: from 2**63 on, itself minus 2**64."""
    return number if number < _NOT_A_NUMBER_OF_64_BITS else number - (1 << 64)


def unsigned(number: int) -> int:
    """The u64 that SQLite keeps as ``number``."""
    return number if number >= 0 else number + (1 << 64)


# -- making


def create(path: str) -> sqlite3.Connection:
    """A new trace for `Writer`, in WAL mode, in a file that is not there yet or is empty.

    Raises:
        TraceError: it cannot be written, or there is something in it.
    """
    name = display_name(path)
    try:
        if os.path.exists(path) and os.path.getsize(path):
            raise TraceError(name, "there is something in it; a trace is written to a new file")
        db = sqlite3.connect(path, isolation_level=None)
        _make_tables(db)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
    except (OSError, sqlite3.Error) as error:
        raise TraceError(name, f"cannot write a trace there: {error}") from None
    return db


def create_temporary() -> sqlite3.Connection:
    """The same in a file of SQLite's own that goes with the connection, in memory while it is small."""
    db = sqlite3.connect("", isolation_level=None)
    _make_tables(db)
    db.execute("PRAGMA journal_mode = OFF")
    db.execute("PRAGMA synchronous = OFF")
    return db


def _make_tables(db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA page_size = {_PAGE_SIZE}")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {VERSION}")
    names = " ".join(f"WHEN {number} THEN '{name}'" for name, number in NUMBERS.items())
    db.executescript(f"BEGIN;{_sql('schema.sql').replace('/*calls*/', names)};COMMIT")


def complete(db: sqlite3.Connection) -> None:
    """Pack the tables of a trace, make its indexes, and make it one file.

    Raises:
        sqlite3.Error: the disk is full, ...
    """
    if not _in_wal_mode(db):
        db.executescript(_sql("indexes.sql"))
        return
    with suppress(sqlite3.OperationalError):  # there need not be room for two
        db.execute("VACUUM")
    db.executescript(_sql("indexes.sql"))
    try:
        db.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError:  # somebody reads it; then the last to go does that
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _in_wal_mode(db: sqlite3.Connection) -> bool:
    mode: str = db.execute("PRAGMA journal_mode").fetchone()[0]
    return mode == "wal"


def _sql(name: str) -> str:
    return resources.files("gpuvm.trace").joinpath(name).read_text()


# -- opening


def open_database(path: str) -> sqlite3.Connection:
    """An SQLite trace, read-only. One that is being recorded is seen as it is now; so is one that was killed.

    Raises:
        TraceError: it is missing, unreadable, truncated, damaged, of a later version, or no trace.
    """
    name = display_name(path)
    _look_at_header(path, name)
    try:
        db = _connect(path)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise damaged(name, error) from None
    register_functions(db)
    return db


def _look_at_header(path: str, name: str) -> None:
    try:
        with open(path, "rb") as file:
            header = file.read(_HEADER)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise TraceError(name, f"cannot open: {error.strerror}") from None
    if not header:
        raise TraceError(name, "the file is empty; `gpuvm record -o FILE -- PROGRAM` makes a trace")
    if not header.startswith(SQLITE_MAGIC):
        raise TraceError(name, "not an SQLite trace: its first bytes are others; `gpuvm record` makes one")
    if len(header) < _HEADER:
        raise TraceError(name, f"truncated: {size} bytes, where the header alone has {_HEADER}")
    version, application = (int.from_bytes(header[at : at + 4], "big") for at in (60, 68))
    if application != APPLICATION_ID:
        message = f"an SQLite database, but not a trace: its application_id is {application:#x}, not "
        raise TraceError(name, f"{message}{APPLICATION_ID:#x}; `gpuvm record` makes traces")
    if version > VERSION:
        message = f"a trace of version {version}, and this gpuvm reads up to {VERSION}; take a newer gpuvm"
        raise TraceError(name, message)
    if version < 1:
        raise TraceError(name, f"a trace of version {version}, which there never was; the file is damaged")
    page_size = int.from_bytes(header[16:18], "big")
    pages = int.from_bytes(header[28:32], "big")
    current = header[24:28] == header[92:96]
    if current and size < page_size * pages and not os.path.exists(f"{path}-wal"):
        whole = page_size * pages
        raise TraceError(name, f"truncated: {size} bytes of {whole}; copy it again, or record again")


def _connect(path: str) -> sqlite3.Connection:
    try:
        return _connect_to(path, "ro")
    except sqlite3.OperationalError:
        journals = [f"{path}{end}" for end in _JOURNALS if os.path.exists(f"{path}{end}")]
        if not journals:
            raise
    # The recorder was killed, and who only reads cannot end what it had begun: a copy is made, for that.
    with tempfile.TemporaryDirectory(prefix="gpuvm-") as folder:
        copy = os.path.join(folder, "trace")
        for file in (path, *journals):
            shutil.copyfile(file, copy + file.removeprefix(path))
        return _connect_to(copy, "rw")


def _connect_to(path: str, mode: str) -> sqlite3.Connection:
    uri = f"file:{quote(os.fsencode(os.path.abspath(path)))}?mode={mode}"
    db = sqlite3.connect(uri, uri=True, isolation_level=None)
    try:
        # All that is read is of one moment, even while the file is being written.
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM about").fetchone()
        db.execute("PRAGMA query_only = ON")
    except (sqlite3.Error, UnicodeDecodeError):  # what SQLite says of broken text need not be text
        db.close()
        raise
    return db


def damaged(name: str, error: sqlite3.Error | UnicodeDecodeError) -> TraceError:
    """What SQLite, or who read its text, found wrong with a trace."""
    return TraceError(name, f"damaged ({error}); what `sqlite3 {name} .recover` saves may be read")


# -- what SQL can call


def register_functions(db: sqlite3.Connection) -> None:
    """``addr(x)`` gives '0x3fff06000', ``size(x)`` '64 KiB', ``errno_name(x)`` 'ENOENT', or NULL of NULL."""
    for function in (addr, size, errno_name):
        db.create_function(function.__name__, 1, function, deterministic=True)


def addr(number: int | None) -> str | None:
    """An address as it is written everywhere."""
    return None if number is None else f"{unsigned(number):#x}"


def size(number: int | None) -> str | None:
    """A number of bytes in the largest unit that has no fraction."""
    if number is None:
        return None
    number, units = unsigned(number), ["B", "KiB", "MiB", "GiB", "TiB"]
    while number and number % 1024 == 0 and len(units) > 1:
        number //= 1024
        del units[0]
    return f"{number:,} {units[0]}"


def errno_name(number: int | None) -> str | None:
    """Such as ENOENT; 0 for none."""
    if number is None:
        return None
    return ERRNO_NAMES.get(abs(number), str(abs(number)))
