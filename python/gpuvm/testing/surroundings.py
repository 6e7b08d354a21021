"""Surroundings: what a run changes in the process, and puts back when it is over."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpuvm.sync import task


@contextmanager
def taken_over(
    runtime: task.Runtime,
    preempt: Callable[[], None],
    on_unraisable: Callable[[sys.UnraisableHookArgs], None],
) -> Iterator[None]:
    """Have ``runtime`` control the threads, on one processor, undisturbed by the garbage collector.

    Args:
        runtime: becomes that of ``gpuvm.sync.task``.
        preempt: its hook.
        on_unraisable: learns what a callback or a finalizer raises where nobody can catch it.
    """
    processors = _stay_on_one_processor()
    collecting = gc.isenabled()
    gc.disable()
    hook, sys.unraisablehook = sys.unraisablehook, on_unraisable
    before = task.install(runtime, preempt)
    try:
        yield
    finally:
        task.install(*before)
        sys.unraisablehook = hook
        if collecting:
            gc.enable()
        if processors:
            os.sched_setaffinity(0, processors)


def _stay_on_one_processor() -> set[int]:
    """Handing over between two processors takes several times as long; returns those allowed before."""
    try:
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {sorted(allowed)[os.getpid() % len(allowed)]})
    except (AttributeError, OSError):  # not Linux, or not allowed
        return set()
    return allowed
