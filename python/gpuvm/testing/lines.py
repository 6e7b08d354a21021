"""Lines: steps between the lines of chosen modules, for code that shares data without a lock."""

from __future__ import annotations

import ast
from _thread import LockType, get_ident
from collections.abc import Callable
from functools import cache
from inspect import getsource
from types import CodeType, FrameType, ModuleType
from typing import Any, Final

from gpuvm.sync import task

_ONE_STEP: Final = task.Threads.unpark.__code__
"""What the scheduler of the threads itself calls, and must have done before another thread goes on."""


@cache
def _guards_of(module: ModuleType) -> dict[tuple[str | None, int], CodeType]:
    """By file and line what a ``with`` statement there enters, if that has a name."""
    return {
        (module.__file__, node.lineno): compile(ast.Expression(entered), "<guard>", "eval")
        for node in ast.walk(ast.parse(getsource(module)))
        if isinstance(node, ast.With)
        and isinstance(entered := node.items[0].context_expr, ast.Name | ast.Attribute)
    }


class Lines:
    """A trace function that makes a step before each line of some modules.

    Raw locks, which guard a few lines there, would really block whoever meets one that is held. So a thread
    that comes to a ``with`` statement of such a lock sleeps here until the holder has left. A holder whose
    module has no steps cannot be seen to leave; then ``let_in`` wakes those who sleep.

    Args:
        modules: where steps are wanted.
        step: perhaps another thread goes on.
    """

    def __init__(self, modules: tuple[ModuleType, ...], step: Callable[[], None]) -> None:
        self._step = step
        self._files = {module.__file__ for module in modules}
        self._guards = {place: guard for each in modules for place, guard in _guards_of(each).items()}
        self._holders: dict[LockType, int] = {}
        self._waiting: dict[LockType, list[task.Waiter]] = {}
        self._left: dict[int, LockType] = {}
        """By thread the guard that it is about to let go."""

    def trace(
        self, frame: FrameType, event: str, _arg: object
    ) -> Callable[[FrameType, str, Any], Any] | None:
        """For ``sys.settrace``."""
        code = frame.f_code
        if code.co_filename not in self._files or code is _ONE_STEP or task.preempt is None:
            return None
        left = self._left.pop(get_ident(), None)
        if left is not None:
            for waiter in self._waiting.pop(left, ()):
                waiter.wake()
        if event == "line":
            expression = self._guards.get((code.co_filename, frame.f_lineno))
            guard = None if expression is None else eval(expression, frame.f_globals, frame.f_locals)
            if isinstance(guard, LockType):
                self._meet(guard)
            else:
                self._step()
        return self.trace

    def let_in(self) -> bool:
        """Wake who sleeps before a lock that is free by now; False if there is nobody."""
        free = [guard for guard in self._waiting if not guard.locked()]
        for guard in free:
            for waiter in self._waiting.pop(guard):
                waiter.wake()
        return bool(free)

    def _meet(self, guard: LockType) -> None:
        """Enter or leave: the line of a ``with`` statement comes up both times."""
        me = get_ident()
        if self._holders.get(guard) == me:
            del self._holders[guard]
            self._left[me] = guard
            return
        self._step()
        while guard.locked():
            waiter = task.Waiter()
            self._waiting.setdefault(guard, []).append(waiter)
            waiter.wait()
        self._holders[guard] = me
