"""Swap: giving up the memory of pages that are not expected to be used soon."""

from __future__ import annotations

import ctypes
from typing import Final

_PAGEOUT: Final = 21  # MADV_PAGEOUT
_libc = ctypes.CDLL(None)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def page_out(address: int, size: int) -> None:
    """Ask the kernel to swap out the pages at ``address`` in this process; an access brings them back.

    Objects are pages of shared memory already, as TTM's swap storage is. So a hint is all there is to do, and
    a machine without swap may ignore it.

    Source: ``madvise(MADV_PAGEOUT)``, ``ttm_tt_swapout``.
    """
    _libc.madvise(address, size, _PAGEOUT)
