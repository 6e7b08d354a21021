"""Whose is what: that nothing handed out is lost, and that objects are where they think."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from gpuvm.errors import CheckFailed
from gpuvm.mem.aperture import Domain
from gpuvm.mem.memory import Memory
from gpuvm.mem.object_file import ObjectFile
from gpuvm.mem.resource import Resource

if TYPE_CHECKING:
    from gpuvm.mem.gem import Backing


def check_ownership(
    resources: Collection[Resource],
    memories: Iterable[Memory],
    *,
    instances: Collection[Resource],
    dying: Collection[Resource | None],
) -> None:
    """Verify that each of ``resources`` is somebody's, and that just what objects lie in is wired.

    Args:
        resources: all that is handed out.
        memories: where it is from.
        instances: those that no object lies in.
        dying: those whose object is gone.

    Raises:
        CheckFailed: with the state.
    """
    for resource in resources:
        _check_owner(resource, resource in instances or resource in dying)
    for memory in memories:
        wired = sorted((addr, range) for addr, range, *_ in memory.wired)
        lying = sorted(
            (extent.addr, extent.range)
            for resource in resources
            if resource not in instances
            for extent in resource.extents
            if extent.aperture == memory.aperture
        )
        if wired != lying:
            raise CheckFailed(f"{memory!r}: wired {wired}, objects lie at {lying}")


def check_parts(file: ObjectFile, backings: Iterable[Backing]) -> None:
    """Verify that what ``file`` handed out is just what objects have, and those that are gone.

    Raises:
        CheckFailed: with the state.
    """
    owned = {(backing.pages.offset, backing.size) for backing in backings if backing.pages.fd == file.fd}
    if owned != set(file.parts):
        raise CheckFailed(f"{file!r}: handed out {file.parts}, objects have {sorted(owned)}")


def _check_owner(resource: Resource, accounted: bool) -> None:
    owner = resource.owner
    if owner is None:
        if not accounted and resource.domain != Domain.CPU:
            raise CheckFailed(f"{resource!r} is nobody's")
    elif owner.domain != resource.domain or owner.extents != resource.extents:
        raise CheckFailed(f"{resource!r} of {owner!r}, which lies in {owner.resource!r}")
    elif owner.swapped:
        raise CheckFailed(f"{resource!r} of {owner!r}, which is swapped out")
    elif resource.manager.is_pinned(resource) != (owner.pin_count > 0):
        raise CheckFailed(f"{resource!r} of {owner!r}, which is pinned {owner.pin_count} times")
