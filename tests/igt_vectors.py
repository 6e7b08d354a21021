"""Vectors that the kernel's own user-space test suite (IGT: ``xe_vm.c``) has for unmapping in the middle."""

from __future__ import annotations

MUNMAP_STYLE = {
    "all": (4, 2, 0, 4),
    "one-partial": (4, 1, 1, 3),
    "either-side-partial": (4, 2, 1, 3),
    "either-side-full": (4, 4, 1, 3),
    "end": (4, 2, 0, 3),
    "front": (4, 2, 1, 4),
    "many-all": (32, 16, 0, 32),
    "many-either-side-partial": (32, 16, 1, 31),
    "many-either-side-full": (32, 32, 8, 24),
    "many-end": (32, 4, 0, 26),
    "many-front": (32, 4, 6, 32),
    "hammer": (6, 2, 2, 4),
}
"""Units in the object, mappings of it of the same length, and the units that are unbound or bound over."""
