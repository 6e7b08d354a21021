"""Our own Vulkan programs (tests/vulkan, a subject each) on NVK, and on a software driver as their oracle."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvk import debian

SOURCES = Path(__file__).parents[1] / "vulkan"
SHARED = sorted(SOURCES.glob("vk*.c"))
PROGRAMS = sorted(source.stem for source in SOURCES.glob("*.c") if source not in SHARED)
SHORT_FORM = {"sparse_buffer_holes", "sparse_mip_tail"}

LITTLE_MEMORY = ("--vram", "256M")
OPTIONS = {
    "memory_exhausted": LITTLE_MEMORY,
    "memory_overcommit": LITTLE_MEMORY,
    "memory_types": LITTLE_MEMORY,
}
ARGUMENTS = {"memory_types": ["256"]}
ARGUMENTS_ON_LAVAPIPE = {"memory_exhausted": ["64"], "memory_overcommit": ["60"]}
LACKS = 77  # the exit status of a program whose driver lacks a feature
LAVAPIPE_LACKS = {
    *("sparse_mip_tail", "memory_types"),  # mip tails; a count of the memory that is used
    *("external_memory", "external_fence"),  # dma-bufs; descriptors of fences
    *("external_semaphore", "devices"),  # descriptors of semaphores
}
NOT_FOR_LAVAPIPE = {
    # There a submission that waits for a binary semaphore returns only when the job that signals it has
    # ended, and the host lets that job go on afterwards.
    *("semaphore_chain", "sparse_queue_bind", "sparse_bind_order"),
    "device_lost",  # uses memory that was freed
}
FAULTS = {"device_lost": "use after unmap"}  # as the report has it; none elsewhere
LEAVES = {"forked"}  # a child that is killed


def built(program: str) -> str:
    """What the programs share is compiled once, as a library that is found where it lies."""
    shared = debian.build(*SHARED, flags=("-std=gnu17", "-shared", "-fPIC"))
    return debian.build(SOURCES / f"{program}.c", flags=("-std=gnu17", "-Wl,--no-as-needed", shared))


def parameters() -> list[object]:
    """Each program with Debian's NVK and with that of its backports."""
    cases: list[object] = []
    for name in PROGRAMS:
        marks = [pytest.mark.short_form] if name in SHORT_FORM else []
        cases.append(pytest.param(name, debian.ROOT, marks=marks, id=name))
        newer = pytest.mark.program("vulkaninfo", debian.BACKPORTS)
        cases.append(pytest.param(name, debian.BACKPORTS, marks=newer, id=f"{name}-backports"))
    return cases


@pytest.mark.parametrize(("program", "root"), parameters())
def test_on_nvk(program: str, root: Path) -> None:
    arguments = ARGUMENTS.get(program, [])
    options = OPTIONS.get(program, ())
    ended = debian.run(built(program), *arguments, root=root, options=options, timeout=180)
    assert ended.status == 0, ended
    assert ended.text.count("\nok ") or ended.text.startswith("ok "), ended
    assert ended.row("binds") != "none", ended  # it was NVK that ran, not the software driver beside it
    assert FAULTS.get(program, "none") in ended.row("faults"), ended
    assert (ended.row("left at exit") == "nothing") == (program not in LEAVES), ended


MORE_THAN_THERE_IS = {  # MiB, beside the 8 GiB of system memory that the GPU reaches
    "memory_overcommit": ("4096", "evicted and brought back"),
    "memory_exhausted": ("12288", "EXEC ENOMEM"),
}


@pytest.mark.parametrize("program", MORE_THAN_THERE_IS)
def test_more_memory_than_there_is(program: str) -> None:
    """What the driver refuses it refuses as it should, all else is as it was written."""
    mib, in_report = MORE_THAN_THERE_IS[program]
    ended = debian.run(built(program), mib, options=LITTLE_MEMORY, timeout=180)
    assert ended.status == 0, ended
    assert in_report in ended.report, ended
    assert ended.row("left at exit") == "nothing", ended
    if program == "memory_exhausted":
        assert "of 24: VK_ERROR_OUT_OF_DEVICE_MEMORY" in ended.text, ended
        assert "the submit that uses 24 chunks: VK_ERROR_DEVICE_LOST" in ended.text, ended


@pytest.mark.parametrize("program", sorted(set(PROGRAMS) - NOT_FOR_LAVAPIPE))
def test_on_a_software_driver(program: str) -> None:
    ended = debian.run_on_lavapipe(built(program), *ARGUMENTS_ON_LAVAPIPE.get(program, []), timeout=180)
    assert ended.status == (LACKS if program in LAVAPIPE_LACKS else 0), ended
