"""Sync: what a submission waits for or signals: a sync object, or a point of its timeline."""

from __future__ import annotations

from typing import Final, NamedTuple

SYNC_SYNCOBJ: Final = 0
"""The whole of a sync object (``DRM_NOUVEAU_SYNC_SYNCOBJ``)."""
SYNC_TIMELINE: Final = 1
"""A point of its timeline (``DRM_NOUVEAU_SYNC_TIMELINE_SYNCOBJ``)."""
SYNC_TYPE_MASK: Final = 0xF
"""The bits of the flags that say which of these it is."""


class Sync(NamedTuple):
    """One entry of a list of waits or signals (``struct drm_nouveau_sync``)."""

    flags: int
    """Its type in the low 4 bits; the others mean nothing."""
    handle: int
    """Of a sync object of the client."""
    value: int = 0
    """The point, for ``SYNC_TIMELINE``."""
