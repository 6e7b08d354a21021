"""Array layouts of bulk binds and lookups."""

import numpy as np

VM_BIND_OP = np.dtype(
    [
        ("op", "<u4"),
        ("flags", "<u4"),
        ("handle", "<u4"),
        ("pad", "<u4"),
        ("addr", "<u8"),
        ("bo_offset", "<u8"),
        ("range", "<u8"),
    ]
)
"""One request, the 40 bytes of ``struct drm_nouveau_vm_bind_op``."""

BIND_OP = np.dtype(
    [
        ("op", "u1"),
        ("keep", "u1"),
        ("pad", "<u2"),
        ("request", "<u4"),
        ("handle", "<u4"),
        ("flags", "<u4"),
        ("addr", "<u8"),
        ("bo_offset", "<u8"),
        ("range", "<u8"),
        ("prev_range", "<u8"),
        ("next_range", "<u8"),
    ]
)
"""One emitted operation; ``op`` is 0 for a map, 1 for a remap, 2 for an unmap.

``request`` is the index of the request it came from. A map tells the new mapping, the others the one that was
there; of a remapped one ``prev_range`` bytes at its start and ``next_range`` at its end stay. ``handle`` is
the one its object was last bound by.
"""

MAPPING = np.dtype(
    [("addr", "<u8"), ("range", "<u8"), ("bo_offset", "<u8"), ("handle", "<u4"), ("flags", "<u4")]
)
"""One mapping; ``range`` 0 stands for none."""
