"""Sparse files without a name: memory that is there when it is written, and can be given back."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from gpuvm.errors import OutOfMemory
from gpuvm.mem.remapping import punch_hole

_TOO_MANY: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EFBIG)


class SparseFile:
    """A memfd; what was never written, or given back, reads as zeros and takes no memory.

    It exists while anybody has it open or mapped, in whatever process. A file in ``directory`` has a name
    there as well, by which it can be opened again and linked: a memfd has none.

    Args:
        name: seen in ``/proc``.
        size: bytes, whole pages.
        directory: descriptor of one on a tmpfs.

    Raises:
        OutOfMemory: out of descriptors; larger than files may be.
        OSError: the name is too long, or there already.
    """

    __slots__ = ("__weakref__", "fd", "size")

    def __init__(self, name: str, size: int, directory: int | None = None) -> None:
        try:
            self.fd: Final = _create(name, directory)
            self.size: Final = size
            os.ftruncate(self.fd, size)
        except OSError as error:
            if error.errno not in _TOO_MANY:
                raise
            raise OutOfMemory(
                f'no file of {size:#x} bytes for "{name}": {error.strerror}; look at `ulimit -n` (open files)'
                " and `ulimit -f` (their size), or close what is not used",
                size,
            ) from error

    def punch(self, offset: int, range: int) -> None:
        """Give back the memory of a part, which is zeros then. Cost: O(pages that there were)."""
        punch_hole(self.fd, offset, range)

    def data(self, offset: int, range: int) -> Iterator[tuple[int, int]]:
        """The parts of ``[offset, offset + range)`` that memory was taken for, as (offset, range).

        Cost: a system call for each part and each hole. Source: ``lseek(SEEK_DATA)``.
        """
        return data_parts(self.fd, offset, range)

    @property
    def allocated(self) -> int:
        """Bytes of memory that it takes."""
        return os.fstat(self.fd).st_blocks * 512

    def __repr__(self) -> str:
        return f"<SparseFile {self.fd} {self.size:#x}>"

    def __del__(self) -> None:
        with suppress(AttributeError):  # there never was one
            _close(self.fd)


def _create(name: str, directory: int | None) -> int:
    if directory is None:
        return os.memfd_create(name, os.MFD_CLOEXEC)
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    os.fchmod(fd, 0o600)  # it is opened again, whatever the umask
    return fd


def data_parts(fd: int, offset: int, range: int) -> Iterator[tuple[int, int]]:
    """As ``SparseFile.data``, of any file."""
    end = offset + range
    while offset < end:
        try:
            begin = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # nothing but a hole up to the end of the file
            raise
        if begin >= end:
            return
        offset = min(os.lseek(fd, begin, os.SEEK_HOLE), end)
        yield begin, offset - begin


_close = os.close  # still there when modules are torn down
