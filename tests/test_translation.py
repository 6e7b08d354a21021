"""What translations say of themselves, permissions, and runs in arrays."""

from __future__ import annotations

import numpy as np
import pytest

from gpuvm.mem import Aperture
from gpuvm.mmu.formats import PteFlags
from gpuvm.mmu.translation import (
    RUN,
    Access,
    Fault,
    FaultType,
    Run,
    RunState,
    Sparse,
    Translation,
    permitted,
    runs_of,
)

READ_ONLY, PRIVILEGED, VOLATILE, NO_ATOMICS = PteFlags
READ, WRITE, ATOMIC = Access


def page(flags: PteFlags) -> Translation:
    return Translation(0x12345, Aperture.VRAM, 0x6345, 12, 6, flags, "SPT", 0xABC)


def test_a_translation_tells_its_page_and_its_flags() -> None:
    found = Translation(0x1234567, Aperture.SYSTEM_COHERENT, 0xABC4567, 16, 0, READ_ONLY | VOLATILE, "LPT", 1)
    assert (found.page_va, found.page_address) == (0x1230000, 0xABC0000)
    assert (found.read_only, found.privileged, found.volatile, found.no_atomics) == (True, False, True, False)
    found = page(PRIVILEGED | NO_ATOMICS)
    assert (found.read_only, found.privileged, found.volatile, found.no_atomics) == (False, True, False, True)


@pytest.mark.parametrize("bits", range(16))
@pytest.mark.parametrize("access", Access)
@pytest.mark.parametrize("privileged", [False, True])
def test_permissions(bits: int, access: Access, privileged: bool) -> None:
    """Every combination, against a table of what is refused and why; the first reason is told."""
    flags = PteFlags(bits)
    refusals = [
        (PRIVILEGED, {READ, WRITE, ATOMIC} if not privileged else set(), FaultType.PRIV_VIOLATION),
        (READ_ONLY, {WRITE, ATOMIC}, FaultType.RO_VIOLATION),
        (NO_ATOMICS, {ATOMIC}, FaultType.ATOMIC_VIOLATION),
    ]
    reasons = [reason for flag, refused, reason in refusals if flags & flag and access in refused]
    found = permitted(page(flags), access, privileged=privileged)
    if reasons:
        assert found == Fault(0x12345, reasons[0], "SPT", 0xABC, access)
    else:
        assert found is None


@pytest.mark.parametrize("access", Access)
@pytest.mark.parametrize("privileged", [False, True])
def test_sparse_permits_everything_and_a_fault_nothing(access: Access, privileged: bool) -> None:
    assert permitted(Sparse(0x1000, 16, "LPT", 8), access, privileged=privileged) is None
    fault = Fault(0x1000, FaultType.PTE, "SPT", 0)
    refused = permitted(fault, access, privileged=privileged)
    assert refused == Fault(0x1000, FaultType.PTE, "SPT", 0, access)


def test_numbers_of_the_hardware() -> None:
    """``NV_PFAULT_FAULT_TYPE_*`` of NVIDIA's dev_fault.h for gp100."""
    assert {reason.name: reason.value for reason in FaultType} == {
        "PDE": 0,
        "PTE": 2,
        "VA_LIMIT_VIOLATION": 3,
        "PRIV_VIOLATION": 5,
        "RO_VIOLATION": 6,
        "UNSUPPORTED_APERTURE": 10,
        "ATOMIC_VIOLATION": 15,
    }
    assert [access.value for access in Access] == [0, 1, 2]


def test_results_are_values() -> None:
    assert page(READ_ONLY) == page(READ_ONLY)
    assert len({page(READ_ONLY), page(READ_ONLY), page(VOLATILE)}) == 2


def test_runs_in_an_array() -> None:
    assert RUN.itemsize == 32
    array = np.zeros(3, RUN)
    array[0] = (0x1000, 0x3000, 0x7000, Aperture.SYSTEM_COHERENT, RunState.VALID, 6, READ_ONLY | VOLATILE, 0)
    array[1] = (0x4000, 0x1_0000, 0, 0, RunState.SPARSE, 0, 0, 0)
    array[2] = (0x1_4000, (1 << 57) - 0x1_4000, 0, 0, RunState.INVALID, 0, 0, 0)
    assert list(runs_of(array)) == [
        Run(0x1000, 0x3000, RunState.VALID, Aperture.SYSTEM_COHERENT, 0x7000, 6, READ_ONLY | VOLATILE),
        Run(0x4000, 0x1_0000, RunState.SPARSE, Aperture.VRAM, 0, 0, PteFlags(0)),
        Run(0x1_4000, (1 << 57) - 0x1_4000, RunState.INVALID, Aperture.VRAM, 0, 0, PteFlags(0)),
    ]
    assert list(runs_of(array[:0])) == []
