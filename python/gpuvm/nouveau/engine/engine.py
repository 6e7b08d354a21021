"""Engine: what methods of one class go to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from gpuvm._core import Pbdma
from gpuvm.nouveau.engine.counts import MethodCounts


class Engine:
    """The methods of one unit of a channel: most are state, which is kept; some do something at once.

    Args:
        name: what faults call it.
        class_: its class.
        unit: its number in ``pbdma``.
        pbdma: decodes methods and keeps the state.
        counts: of the channel.

    Cost: a method that does nothing costs no step in Python.
    """

    def __init__(self, name: str, class_: int, unit: int, pbdma: Pbdma, counts: MethodCounts) -> None:
        self.name: Final = name
        self.class_: Final = class_
        self.unit: Final = unit
        self.pbdma: Final = pbdma
        self.counts: Final = counts
        self.handlers: Final[dict[int, Callable[[Any], None]]] = {}
        self._executed: Final[set[int]] = set()

    def on_word(self, method: int, handler: Callable[[int], None]) -> None:
        """Have ``handler`` called with each word that is sent to the method."""
        self.pbdma.act(self.unit, method, False)
        self.handlers[method] = handler
        self._executed.add(method)

    def on_words(self, method: int, handler: Callable[[bytes], None]) -> None:
        """Have ``handler`` called with all words of a sequence at once."""
        self.pbdma.act(self.unit, method, True)
        self.handlers[method] = handler
        self._executed.add(method)

    def uses(self, methods: Iterable[int]) -> None:
        """State that some handler looks at, so that it counts as executed."""
        self._executed.update(methods)

    def ready(self) -> None:
        """All handlers are there: begin to count."""
        self.counts.watch(self.class_, lambda: self.pbdma.sent(self.unit), frozenset(self._executed))

    def state(self, method: int, count: int) -> tuple[int, ...]:
        """What was sent last to so many methods from this one on; zeros at first."""
        return self.pbdma.state(self.unit, method, count)

    def word(self, method: int) -> int:
        """What was sent to it last."""
        return self.pbdma.state(self.unit, method, 1)[0]
