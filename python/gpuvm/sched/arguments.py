"""What schedulers and entities are made of is looked at before any thread begins."""

from __future__ import annotations

from typing import Any, Final

from gpuvm.errors import InvalidArgument
from gpuvm.sched.backend import SchedulerBackend, overrides
from gpuvm.sched.run_queue import Policy, Priority
from gpuvm.sync import task

LONGEST_TIMEOUT: Final = ((1 << 63) - 1) // task.NSEC_PER_SEC
"""Seconds: of ns, 63 bits (``KTIME_MAX``)."""


def require_backend(backend: object) -> None:
    """An object, not its class."""
    if not isinstance(backend, SchedulerBackend):
        raise InvalidArgument(f"Scheduler: {backend!r} is no backend; pass a SchedulerBackend", backend)


def require_credit_limit(credit_limit: object) -> None:
    """Enough for one job."""
    if not isinstance(credit_limit, int) or credit_limit < 1:
        raise InvalidArgument(
            f"Scheduler: credit_limit is {credit_limit!r}; pass an int, at least 1, what a job takes",
            credit_limit,
            1,
        )


def require_policy(policy: object) -> None:
    """Its member, not its value."""
    if not isinstance(policy, Policy):
        choices = " or ".join(map(str, Policy))
        raise InvalidArgument(f"Scheduler: {policy!r} is no policy; pass {choices}", policy, tuple(Policy))


def require_timeout(timeout: object, backend: SchedulerBackend[Any]) -> None:
    """A time that can pass, and somebody who is told."""
    require_seconds("Scheduler", timeout)
    if not overrides(backend, "timedout_job"):
        raise InvalidArgument(
            f"Scheduler: with a timeout of {timeout} s, {type(backend).__name__} needs a timedout_job",
            timeout,
        )


def require_seconds(call: str, timeout: object) -> None:
    """A time that can pass."""
    if not (isinstance(timeout, int | float) and 0 < timeout <= LONGEST_TIMEOUT):
        raise InvalidArgument(
            f"{call}: timeout is {timeout!r}; pass seconds, positive and at most {LONGEST_TIMEOUT}, or None",
            timeout,
            LONGEST_TIMEOUT,
        )


def require_priority(call: str, priority: int) -> Priority:
    """It, or its number."""
    try:
        return Priority(priority)
    except ValueError:
        raise InvalidArgument(f"{call}: {priority!r} is no priority", priority, tuple(Priority)) from None
