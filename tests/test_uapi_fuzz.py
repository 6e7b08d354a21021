"""Random ioctls: whatever a program passes, an errno that is written down comes out, and all stays whole."""

from __future__ import annotations

import errno
from collections import Counter

import pytest

from gpuvm.nouveau.device import Device
from gpuvm.nouveau.uapi import numbers
from gpuvm.nouveau.uapi.numbers import Direction
from suite import scaled
from uapi_fuzzer import Fuzzer, Made
from uapi_reference import ERRNOS

SEEDS = 4
CALLS = scaled(1_500, 250_000)
"""For each seed; a million in all, in the full suite."""
CHECKED = 250
"""After how many calls everything is verified."""
REOPENED = 400
"""After how many a client is closed."""
PARTIAL = (numbers.VERSION, numbers.GET_CAP)
"""Calls that answer in part although they fail."""

KNOWN = {
    name: {0, -errno.EINVAL, *(-getattr(errno, one) for one in errnos.split())}
    for name, errnos in ERRNOS.items()
}


def check_answer(made: Made) -> None:
    assert made.result in KNOWN[made.ioctl.name], errno.errorcode.get(-made.result, made.result)
    is_read = made.request < 0x100 or made.request & Direction.IN << 30
    if made.result and made.ioctl not in PARTIAL and is_read:
        assert made.before == made.after


@pytest.mark.parametrize("seed", range(SEEDS))
def test_only_errnos_that_are_written_down(seed: int) -> None:
    chipset = (0x162, 0x172)[seed % 2]
    with Device(chipset=chipset, vram=1 << 20, gart=1 << 20) as device:
        fuzzer = Fuzzer(device, seed)
        try:
            for call in range(1, CALLS + 1):
                check_answer(fuzzer.step())
                if call % CHECKED == 0:
                    fuzzer.settle()
                if call % REOPENED == 0:
                    fuzzer.reopen()
        except BaseException:
            print(f"seed {seed}, the last calls:", *fuzzer.recent, sep="\n")
            raise
        finally:
            fuzzer.close()
    succeeded = Counter({name: count for (name, result), count in fuzzer.results.items() if result == 0})
    assert len(succeeded) > 20
    assert min(succeeded["NOUVEAU_VM_BIND"], succeeded["NOUVEAU_EXEC"]) > 10
