"""What tests of `Exec` do in the loop, and contention in it that nobody causes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec

from contention import Obj
from gpuvm.exec.exec import Exec, ExecFlags
from gpuvm.sync.ww_acquire import reservation_ww_class

IGNORE = ExecFlags.IGNORE_DUPLICATES
P = ParamSpec("P")


def free(*objs: Obj) -> bool:
    for obj in objs:
        obj.resv.check()
    return not any(obj.resv.locked for obj in objs)


def lock(exec: Exec, *objs: Obj) -> None:
    """The whole loop."""
    for attempt in exec.until_all_locked():
        with attempt:
            for obj in objs:
                exec.lock_obj(obj)


def in_loop(exec: Exec, function: Callable[P, object], *args: P.args, **named: P.kwargs) -> None:
    for attempt in exec.until_all_locked():
        with attempt:
            function(*args, **named)


def lock_two(exec: Exec, first: Obj, second: Obj) -> None:
    exec.lock_obj(first)
    exec.lock_obj(second)


@contextmanager
def contended_once(exec: Exec, *objs: Obj) -> Iterator[None]:
    """Who holds something and locks the first of these that comes gets `Contended`, once."""
    left = [True]

    def injection() -> bool:
        ticket = exec._ticket
        hit = bool(left) and ticket is not None and any(obj.resv.ticket is ticket for obj in objs)
        if hit:
            left.clear()
        return hit

    reservation_ww_class.injection = injection
    try:
        yield
    finally:
        reservation_ww_class.injection = None
