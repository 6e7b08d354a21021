"""Settings that all tests share: one deterministic profile of Hypothesis for each suite."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from suite import FULL

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
_COMMON = settings(
    deadline=None, derandomize=True, database=None, print_blob=True, suppress_health_check=_SLOW
)

settings.register_profile("quick", _COMMON, max_examples=60, stateful_step_count=40)
settings.register_profile("full", _COMMON, max_examples=1500, stateful_step_count=80)
settings.load_profile("full" if FULL else "quick")
