"""Classes: what the engines of a channel are, and what they and their methods are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Classes(NamedTuple):
    """The classes of a channel's engines: the host's, then those of the subchannels from 0 on.

    Source: what nouveau lists for the chips (SCLASS); NVIDIA's class headers.
    """

    host: int
    threed: int
    compute: int
    inline: int
    """Inline-to-memory."""
    twod: int
    copy: int


TURING: Final = Classes(0xC46F, 0xC597, 0xC5C0, 0xA140, 0x902D, 0xC5B5)
AMPERE: Final = Classes(0xC56F, 0xC797, 0xC7C0, 0xA140, 0x902D, 0xC7B5)

_CLASSES: Final = {
    0xC46F: "TURING_CHANNEL_GPFIFO_A",
    0xC56F: "AMPERE_CHANNEL_GPFIFO_A",
    0xC597: "TURING_A",
    0xC797: "AMPERE_B",
    0xC5C0: "TURING_COMPUTE_A",
    0xC7C0: "AMPERE_COMPUTE_B",
    0xA140: "KEPLER_INLINE_TO_MEMORY_B",
    0x902D: "FERMI_TWOD_A",
    0xC5B5: "TURING_DMA_COPY_A",
    0xC6B5: "AMPERE_DMA_COPY_A",
    0xC7B5: "AMPERE_DMA_COPY_B",
}

_HOST: Final = {
    0x00: "SET_OBJECT",
    0x04: "ILLEGAL",
    0x08: "NOP",
    0x10: "SEMAPHOREA",
    0x14: "SEMAPHOREB",
    0x18: "SEMAPHOREC",
    0x1C: "SEMAPHORED",
    0x20: "NON_STALL_INTERRUPT",
    0x24: "FB_FLUSH",
    0x28: "MEM_OP_A",
    0x2C: "MEM_OP_B",
    0x30: "MEM_OP_C",
    0x34: "MEM_OP_D",
    0x50: "SET_REFERENCE",
    0x5C: "SEM_ADDR_LO",
    0x60: "SEM_ADDR_HI",
    0x64: "SEM_PAYLOAD_LO",
    0x68: "SEM_PAYLOAD_HI",
    0x6C: "SEM_EXECUTE",
    0x78: "WFI",
    0x7C: "CRC_CHECK",
    0x80: "YIELD",
    0x84: "CLEAR_FAULTED",
}

_COMMON: Final = {
    0x100: "NO_OPERATION",
    0x110: "WAIT_FOR_IDLE",
    0x140: "PM_TRIGGER",
    0x1114: "PM_TRIGGER_END",
}

_INLINE: Final = _COMMON | {
    0x180: "LINE_LENGTH_IN",
    0x184: "LINE_COUNT",
    0x188: "OFFSET_OUT_UPPER",
    0x18C: "OFFSET_OUT",
    0x190: "PITCH_OUT",
    0x194: "SET_DST_BLOCK_SIZE",
    0x198: "SET_DST_WIDTH",
    0x19C: "SET_DST_HEIGHT",
    0x1A0: "SET_DST_DEPTH",
    0x1A4: "SET_DST_LAYER",
    0x1A8: "SET_DST_ORIGIN_BYTES_X",
    0x1AC: "SET_DST_ORIGIN_SAMPLES_Y",
    0x1B0: "LAUNCH_DMA",
    0x1B4: "LOAD_INLINE_DATA",
    0x1DC: "SET_I2M_SEMAPHORE_A",
    0x1E0: "SET_I2M_SEMAPHORE_B",
    0x1E4: "SET_I2M_SEMAPHORE_C",
}

_FRONT_END: Final = _INLINE | {
    0x114: "LOAD_MME_INSTRUCTION_RAM_POINTER",
    0x118: "LOAD_MME_INSTRUCTION_RAM",
    0x11C: "LOAD_MME_START_ADDRESS_RAM_POINTER",
    0x120: "LOAD_MME_START_ADDRESS_RAM",
    0x124: "SET_MME_SHADOW_RAM_CONTROL",
    0x21C: "INVALIDATE_SHADER_CACHES",
    0x1330: "INVALIDATE_SAMPLER_CACHE",
    0x1334: "INVALIDATE_TEXTURE_HEADER_CACHE",
    0x1338: "INVALIDATE_TEXTURE_DATA_CACHE",
    0x1550: "SET_RENDER_ENABLE_A",
    0x1554: "SET_RENDER_ENABLE_B",
    0x1558: "SET_RENDER_ENABLE_C",
    0x1698: "INVALIDATE_SHADER_CACHES_NO_WFI",
    0x1944: "SET_RENDER_ENABLE_OVERRIDE",
    0x1B00: "SET_REPORT_SEMAPHORE_A",
    0x1B04: "SET_REPORT_SEMAPHORE_B",
    0x1B08: "SET_REPORT_SEMAPHORE_C",
    0x1B0C: "SET_REPORT_SEMAPHORE_D",
}

_THREED: Final = _FRONT_END | {
    0x268: "DRAW_INDEX_BUFFER_BEGIN_END_A",
    0x26C: "DRAW_INDEX_BUFFER_BEGIN_END_B",
    0x270: "DRAW_VERTEX_ARRAY_BEGIN_END_A",
    0x274: "DRAW_VERTEX_ARRAY_BEGIN_END_B",
    0x1144: "FLUSH_PENDING_WRITES",
    0x1530: "CLEAR_REPORT_VALUE",
    0x19D0: "CLEAR_SURFACE",
}

_COMPUTE: Final = _FRONT_END | {
    0x298: "INVALIDATE_SKED_CACHES",
    0x2B4: "SEND_PCAS_A",
    0x2B8: "SEND_PCAS_B",
    0x2BC: "SEND_SIGNALING_PCAS_B",
    0x2C0: "SEND_SIGNALING_PCAS2_B",
}

_COPY: Final = {
    0x100: "NOP",
    0x140: "PM_TRIGGER",
    0x240: "SET_SEMAPHORE_A",
    0x244: "SET_SEMAPHORE_B",
    0x248: "SET_SEMAPHORE_PAYLOAD",
    0x24C: "SET_SEMAPHORE_PAYLOAD_UPPER",
    0x254: "SET_RENDER_ENABLE_A",
    0x258: "SET_RENDER_ENABLE_B",
    0x25C: "SET_RENDER_ENABLE_C",
    0x260: "SET_SRC_PHYS_MODE",
    0x264: "SET_DST_PHYS_MODE",
    0x300: "LAUNCH_DMA",
    0x400: "OFFSET_IN_UPPER",
    0x404: "OFFSET_IN_LOWER",
    0x408: "OFFSET_OUT_UPPER",
    0x40C: "OFFSET_OUT_LOWER",
    0x410: "PITCH_IN",
    0x414: "PITCH_OUT",
    0x418: "LINE_LENGTH_IN",
    0x41C: "LINE_COUNT",
    0x700: "SET_REMAP_CONST_A",
    0x704: "SET_REMAP_CONST_B",
    0x708: "SET_REMAP_COMPONENTS",
    0x70C: "SET_DST_BLOCK_SIZE",
    0x710: "SET_DST_WIDTH",
    0x714: "SET_DST_HEIGHT",
    0x718: "SET_DST_DEPTH",
    0x71C: "SET_DST_LAYER",
    0x720: "SET_DST_ORIGIN",
    0x728: "SET_SRC_BLOCK_SIZE",
    0x72C: "SET_SRC_WIDTH",
    0x730: "SET_SRC_HEIGHT",
    0x734: "SET_SRC_DEPTH",
    0x738: "SET_SRC_LAYER",
    0x73C: "SET_SRC_ORIGIN",
    0x744: "SRC_ORIGIN_X",
    0x748: "SRC_ORIGIN_Y",
    0x74C: "DST_ORIGIN_X",
    0x750: "DST_ORIGIN_Y",
    0x1114: "PM_TRIGGER_END",
}

_METHODS: Final[Mapping[int, Mapping[int, str]]] = {
    0x6F: _HOST,
    0x97: _THREED,
    0xC0: _COMPUTE,
    0x40: _INLINE,
    0x2D: _COMMON,
    0xB5: _COPY,
}
"""By the lower byte of the class, which says what kind of engine it is."""

_ACTIONS: Final = {
    "DRAW_INDEX_BUFFER_BEGIN_END_B": "draw",
    "DRAW_VERTEX_ARRAY_BEGIN_END_B": "draw",
    "CLEAR_SURFACE": "clear",
    "SEND_PCAS_B": "dispatch",
    "SEND_SIGNALING_PCAS_B": "dispatch",
    "SEND_SIGNALING_PCAS2_B": "dispatch",
    "LAUNCH_DMA": "transfer",
    "SET_REPORT_SEMAPHORE_D": "report",
}
"""What has an engine do something. Other methods only say how."""

_MACROS: Final = 0x3800
"""From here on methods of the 3D class start macros, or hand them data."""


def class_name(class_: int) -> str:
    """What NVIDIA calls a class; its number, if that is not known here."""
    return _CLASSES.get(class_, f"{class_:04x}")


def method_name(class_: int, method: int) -> str:
    """What NVIDIA calls a method; its address, if that is not known here. Not all are."""
    known = _METHODS.get(class_ & 0xFF, {}).get(method)
    if known is not None:
        return known
    if class_ & 0xFF == 0x97 and method >= _MACROS:
        return f"CALL_MME_{'DATA' if method & 4 else 'MACRO'}({(method - _MACROS) >> 3})"
    return f"{method:04x}"


def action(class_: int, method: int) -> str | None:
    """What the method has an engine do that a program can see, in a word; None: nothing.

    All else sets state, waits for what is not overlapped here, or invalidates caches that are not there. Of
    methods whose name is not known here that is taken for granted.
    """
    if class_ & 0xFF == 0x97 and method >= _MACROS:
        return None if method & 4 else "macro"
    return _ACTIONS.get(method_name(class_, method))
