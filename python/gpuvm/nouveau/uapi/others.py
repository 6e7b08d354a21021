"""Ioctls that DRM or nouveau have, or had, and this driver has not: their names, for whoever asks for them.

Source: ``drm.h``, ``nouveau_drm.h``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

OTHERS: Final[Mapping[int, str]] = {
    0x01: "GET_UNIQUE",
    0x02: "GET_MAGIC",
    0x05: "GET_CLIENT",
    0x06: "GET_STATS",
    0x07: "SET_VERSION",
    0x0A: "GEM_FLINK",
    0x0B: "GEM_OPEN",
    0x0D: "SET_CLIENT_CAP",
    0x1E: "SET_MASTER",
    0x1F: "DROP_MASTER",
    0x3A: "WAIT_VBLANK",
    0x3B: "CRTC_GET_SEQUENCE",
    0x3C: "CRTC_QUEUE_SEQUENCE",
    0x41: "NOUVEAU_SETPARAM",
    0x44: "NOUVEAU_GROBJ_ALLOC",
    0x45: "NOUVEAU_NOTIFIEROBJ_ALLOC",
    0x46: "NOUVEAU_GPUOBJ_FREE",
    0x48: "NOUVEAU_SVM_INIT",
    0x49: "NOUVEAU_SVM_BIND",
    0x53: "NOUVEAU_GET_ZCULL_INFO",
    0xA0: "MODE_GETRESOURCES",
    0xA1: "MODE_GETCRTC",
    0xA2: "MODE_SETCRTC",
    0xA6: "MODE_GETENCODER",
    0xA7: "MODE_GETCONNECTOR",
    0xAA: "MODE_GETPROPERTY",
    0xAC: "MODE_GETPROPBLOB",
    0xAE: "MODE_ADDFB",
    0xAF: "MODE_RMFB",
    0xB2: "MODE_CREATE_DUMB",
    0xB3: "MODE_MAP_DUMB",
    0xB4: "MODE_DESTROY_DUMB",
    0xB5: "MODE_GETPLANERESOURCES",
    0xB6: "MODE_GETPLANE",
    0xB8: "MODE_ADDFB2",
    0xB9: "MODE_OBJ_GETPROPERTIES",
    0xBC: "MODE_ATOMIC",
    0xC6: "MODE_CREATE_LEASE",
    0xCE: "MODE_GETFB2",
    0xD1: "SET_CLIENT_NAME",
}
"""By number."""
