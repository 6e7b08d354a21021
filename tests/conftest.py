"""What all tests share: one deterministic profile of Hypothesis for each suite, and the lock validator."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from gpuvm.sync import lockdep
from suite import FULL

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
_COMMON = settings(
    deadline=None, derandomize=True, database=None, print_blob=True, suppress_health_check=_SLOW
)

settings.register_profile("quick", _COMMON, max_examples=60, stateful_step_count=40)
settings.register_profile("full", _COMMON, max_examples=1500, stateful_step_count=80)
settings.load_profile("full" if FULL else "quick")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so began a shell's background job, and all it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def lock_validator() -> Iterator[None]:
    """Every test runs under the validator, which begins knowing no order, and lets go of what it locked."""
    lockdep.enable()
    yield
    try:
        lockdep.check_nothing_held("the test")
    finally:
        lockdep.disable()
