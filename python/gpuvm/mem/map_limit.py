"""Raising the machine's limit of maps a process, if somebody asks for it."""

from __future__ import annotations

import errno
from typing import NamedTuple

from gpuvm.errors import InvalidArgument, NotSupported, PermissionDenied
from gpuvm.mem.map_count import LIMIT_FILE, OTHERS, map_count

LARGEST = (1 << 31) - 1


class MapLimit(NamedTuple):
    """What ``raise_map_limit`` found and left: the machine's ``vm.max_map_count``."""

    before: int
    after: int


def raise_map_limit(maps: int) -> MapLimit:
    """Let this process have ``maps`` maps by us at least.

    The limit is the machine's: raising it changes ``vm.max_map_count`` for every process, until it is started
    again. So nothing here calls this by itself. It is never lowered. If it is high enough already, perhaps
    since a moment ago, that is only noticed.

    Args:
        maps: wanted at once; each costs the kernel about 200 bytes. What else the process needs is added.

    Returns:
        The limit before and now; equal if nothing was changed.

    Raises:
        PermissionDenied: it must be raised, and this is not root. The message has the command.
        NotSupported: this machine shows no such limit.
        InvalidArgument: more than the limit can be set to.

    Source: ``Documentation/admin-guide/sysctl/vm.rst``.
    """
    wanted = maps + OTHERS
    if not 0 <= maps <= LARGEST - OTHERS:
        raise InvalidArgument(
            f"raise_map_limit: {maps} maps; pass 0 to {LARGEST - OTHERS}", value=maps, bound=LARGEST - OTHERS
        )
    before = after = _read()
    if before < wanted:
        _write(wanted, before)
        after = _read()
    map_count.limit = after - OTHERS
    return MapLimit(before, after)


def _read() -> int:
    try:
        return int(LIMIT_FILE.read_text())
    except (OSError, ValueError) as error:
        raise NotSupported(f"raise_map_limit: {LIMIT_FILE} cannot be read: {error}") from error


def _write(wanted: int, before: int) -> None:
    try:
        LIMIT_FILE.write_text(str(wanted))
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise PermissionDenied(
            f"raise_map_limit: vm.max_map_count is {before}; only root, outside of containers, may raise it: "
            f"`sysctl -w vm.max_map_count={wanted}`; a file in /etc/sysctl.d keeps it so",
            value=wanted,
            bound=before,
        ) from error
