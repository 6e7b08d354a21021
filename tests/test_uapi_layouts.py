"""Layouts, request codes and constants of the uAPI are those of the kernel's and libdrm's headers."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gpuvm.mem import Domain
from gpuvm.nouveau import gem, sync
from gpuvm.nouveau.getparam import Param
from gpuvm.nouveau.uapi import dialects, numbers, structs
from gpuvm.nouveau.uapi.calls import CALLS
from gpuvm.nouveau.uapi.dialects import CURRENT, SERIES
from gpuvm.nouveau.uapi.layout import Layout
from gpuvm.sync import syncobj_table
from uapi_reference import OFFSETS, REQUESTS, SERIES_OFFSETS

INCLUDE = Path(__file__).parents[1] / "build" / "uapi-headers" / "usr" / "include"

LAYOUTS = [
    layout
    for layout in vars(structs).values()
    if isinstance(layout, Layout) and layout is not structs.EXEC_PUSH_SERIES
]
IOCTLS = {
    f"DRM_IOCTL_{ioctl.name}": ioctl for ioctl in vars(numbers).values() if isinstance(ioctl, numbers.Ioctl)
}
CONSTANTS = {
    "DRM_COMMAND_BASE": numbers.COMMAND_BASE,
    "DRM_IOCTL_BASE": numbers.TYPE,
    "DRM_SYNCOBJ_CREATE_SIGNALED": syncobj_table.CREATE_SIGNALED,
    "DRM_SYNCOBJ_HANDLE_TO_FD_FLAGS_EXPORT_SYNC_FILE": syncobj_table.HANDLE_TO_FD_EXPORT_SYNC_FILE,
    "DRM_SYNCOBJ_FD_TO_HANDLE_FLAGS_IMPORT_SYNC_FILE": syncobj_table.FD_TO_HANDLE_IMPORT_SYNC_FILE,
    "DRM_SYNCOBJ_WAIT_FLAGS_WAIT_ALL": syncobj_table.WAIT_ALL,
    "DRM_SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT": syncobj_table.WAIT_FOR_SUBMIT,
    "DRM_SYNCOBJ_WAIT_FLAGS_WAIT_AVAILABLE": syncobj_table.WAIT_AVAILABLE,
    "DRM_SYNCOBJ_WAIT_FLAGS_WAIT_DEADLINE": syncobj_table.WAIT_DEADLINE,
    "DRM_SYNCOBJ_QUERY_FLAGS_LAST_SUBMITTED": syncobj_table.QUERY_LAST_SUBMITTED,
    "DRM_NOUVEAU_SYNC_SYNCOBJ": sync.SYNC_SYNCOBJ,
    "DRM_NOUVEAU_SYNC_TIMELINE_SYNCOBJ": sync.SYNC_TIMELINE,
    "DRM_NOUVEAU_SYNC_TYPE_MASK": sync.SYNC_TYPE_MASK,
    "DRM_NOUVEAU_VM_BIND_RUN_ASYNC": dialects.VM_BIND_RUN_ASYNC,
    "DRM_NOUVEAU_VM_BIND_SPARSE": dialects.VM_BIND_SPARSE,
    "NOUVEAU_GEM_DOMAIN_CPU": Domain.CPU,
    "NOUVEAU_GEM_DOMAIN_VRAM": Domain.VRAM,
    "NOUVEAU_GEM_DOMAIN_GART": Domain.GART,
    "NOUVEAU_GEM_DOMAIN_NO_SHARE": gem.GEM_DOMAIN_NO_SHARE,
    "NOUVEAU_GEM_TILE_NONCONTIG": gem.GEM_TILE_NONCONTIG,
    "NOUVEAU_GEM_CPU_PREP_NOWAIT": gem.CPU_PREP_NOWAIT,
    "NOUVEAU_GEM_CPU_PREP_WRITE": gem.CPU_PREP_WRITE,
    **{f"NOUVEAU_GETPARAM_{param.name}": param for param in Param},
    **{
        f"DRM_{ioctl.name}": ioctl.number - numbers.COMMAND_BASE
        for ioctl in IOCTLS.values()
        if ioctl.name.startswith("NOUVEAU_")
    },
    **{f"DRM_NOUVEAU_VM_BIND_OP_{meaning.code.name}": number for number, meaning in CURRENT.meanings.items()},
}

NO_HEADER_HAS = {"DRM_IOCTL_NOUVEAU_NVIF"}
NEWER = {"drm_syncobj_handle.point"}
"""What Linux got after these headers. An older program's structure is shorter: see test_uapi_dispatch."""


def told(layout: Layout) -> str:
    fields = [f"{field.name}@{field.offset}" for field in layout.fields if field.name != "gap"]
    return " ".join([*fields, str(layout.size)])


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.c_name)
def test_layouts_are_as_taken_down(layout: Layout) -> None:
    assert told(layout) == OFFSETS[layout.c_name]


def test_nothing_taken_down_is_missing() -> None:
    assert {layout.c_name for layout in LAYOUTS} == OFFSETS.keys()
    assert told(SERIES.push) == SERIES_OFFSETS["drm_nouveau_exec_push"]
    assert told(CURRENT.push) == OFFSETS["drm_nouveau_exec_push"]


def test_requests_are_as_taken_down() -> None:
    assert {name: ioctl.request for name, ioctl in IOCTLS.items()} == REQUESTS
    assert set(CALLS) == set(IOCTLS.values())


def test_numbers_of_operations() -> None:
    assert {number: meaning.code.name for number, meaning in SERIES.meanings.items()} == {
        0: "ALLOC",
        1: "FREE",
        2: "MAP",
        3: "UNMAP",
    }


def test_a_new_begins_with_an_info() -> None:
    assert structs.GEM_NEW.fields[: len(structs.GEM_INFO.fields)] == structs.GEM_INFO.fields


@pytest.fixture(scope="module", params=["drm", "libdrm"])
def from_headers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What a C program says that was compiled with one set of headers."""
    include = INCLUDE / request.param
    if not include.is_dir():
        pytest.skip(f"no {include}: `make test` fetches it where it reaches a mirror of Debian")
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    source = tmp_path_factory.mktemp(request.param) / "headers.c"
    source.write_text(program("".join((include / name).read_text() for name in ("drm.h", "nouveau_drm.h"))))
    executable = source.with_suffix("")
    subprocess.run(["cc", "-I", include, source, "-o", executable], check=True)
    lines = subprocess.run([executable], check=True, capture_output=True, text=True).stdout.splitlines()
    found = {name: int(value) for name, value in map(str.split, lines)}
    if request.param == "drm":  # libdrm's copy is older; what it has is compared all the same
        assert {*IOCTLS, *CONSTANTS} - found.keys() == NO_HEADER_HAS
        assert {layout.c_name for layout in LAYOUTS} - found.keys() == {
            layout.c_name for layout in LAYOUTS if not layout.c_name.startswith("drm_")
        }
    return found


def program(headers: str) -> str:
    """C that prints a name and a number a line, of all that there is in the headers."""
    lines = []
    for name in (*IOCTLS, *CONSTANTS):
        lines += [f"#ifdef {name}", f'printf("{name} %llu\\n", (unsigned long long){name});', "#endif"]
    for layout in LAYOUTS:
        if f"struct {layout.c_name} {{" in headers:
            lines.append(f'printf("{layout.c_name} %zu\\n", sizeof(struct {layout.c_name}));')
            lines += [
                f'printf("{name} %zu\\n", offsetof(struct {layout.c_name}, {member}));'
                for name, member, _ in fields_of(layout)
            ]
    return "\n".join(
        [
            "#include <stddef.h>",
            "#include <stdint.h>",
            "#include <stdio.h>",
            '#include "drm.h"',
            '#include "nouveau_drm.h"',
            "int main(void) {",
            *lines,
            "return 0; }\n",
        ]
    )


def fields_of(layout: Layout) -> list[tuple[str, str, int]]:
    """Names for the table, names in C, offsets."""
    info = {field.name for field in structs.GEM_INFO.fields} if layout is structs.GEM_NEW else set()
    fields = [
        (f"{layout.c_name}.{field.name}", ("info." if field.name in info else "") + field.name, field.offset)
        for field in layout.fields
        if field.name != "gap"
    ]
    return [field for field in fields if field[0] not in NEWER]


def newer_bytes(layout: Layout) -> int:
    return sum(field.size for field in layout.fields if f"{layout.c_name}.{field.name}" in NEWER)


def test_requests_are_the_headers(from_headers: dict[str, int]) -> None:
    for name in IOCTLS.keys() & from_headers.keys():
        ioctl = IOCTLS[name]
        newer = newer_bytes(ioctl.layout) if ioctl.layout is not None else 0
        assert from_headers[name] == ioctl.request - (newer << 16), name


def test_constants_are_the_headers(from_headers: dict[str, int]) -> None:
    names = CONSTANTS.keys() & from_headers.keys()
    assert {name: from_headers[name] for name in names} == {name: CONSTANTS[name] for name in names}


def test_layouts_are_the_headers(from_headers: dict[str, int]) -> None:
    for layout in LAYOUTS:
        if layout.c_name in from_headers:
            assert from_headers[layout.c_name] == layout.size - newer_bytes(layout), layout
            offsets = {name: offset for name, _, offset in fields_of(layout)}
            assert {name: from_headers[name] for name in offsets} == offsets


def test_numbers_of_displays_are_the_headers() -> None:
    """SET_CLIENT_CAP and all that is called MODE, but not dumb buffers, which need no display."""
    header = INCLUDE / "drm" / "drm.h"
    if not header.is_file():
        pytest.skip(f"no {header}: `make test` fetches it where it reaches a mirror of Debian")
    calls = re.findall(r"#define DRM_IOCTL_(\w+)\s+DRM_IO\w*\(\s*(0x\w+)", header.read_text())
    assert {
        int(number, 16)
        for name, number in calls
        if name == "SET_CLIENT_CAP" or (name.startswith("MODE_") and not name.endswith("_DUMB"))
    } == numbers.OF_DISPLAYS
