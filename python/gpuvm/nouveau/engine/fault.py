"""How a push ends before its end: an engine faults, or its channel is told to stop."""

from __future__ import annotations

from gpuvm.errors import PageFault
from gpuvm.mmu.translation import Fault
from gpuvm.nouveau.engine.classes import class_name, method_name


class EngineFault(Exception):
    """A method that an engine could not execute. The push ends there; a driver kills the channel.

    Attributes:
        engine: whose method it was: "host", "3d", "compute", "inline", "2d" or "copy".
        class_: the class that the method is of.
        method: its address, in bytes; 0 of the host: the push could not be read.
        fault: the access that the MMU refused, if that is what happened.
        error: what else was wrong, beginning with the hardware's name for it; "" for an access.
    """

    def __init__(self, engine: str, class_: int, method: int, fault: Fault | None, error: str = "") -> None:
        super().__init__(engine, class_, method, fault, error)
        self.engine = engine
        self.class_ = class_
        self.method = method
        self.fault = fault
        self.error = error

    @classmethod
    def of_access(cls, engine: str, class_: int, method: int, error: PageFault) -> EngineFault:
        """An access that was refused."""
        fault = error.value
        assert isinstance(fault, Fault)
        return cls(engine, class_, method, fault)

    def __str__(self) -> str:
        method = f"{class_name(self.class_)} {method_name(self.class_, self.method)} ({self.method:#x})"
        if self.engine == "host" and (self.fault is not None or self.error.startswith("PBENTRY")):
            method = "a push" if self.method == 0 else method
        return f"{self.engine} engine, {method}: {self.error or self.fault}"


class Rejected(Exception):
    """What the data of a method asks for cannot be done; ``error`` begins with the hardware's name for that.

    Handlers raise it; who called them knows the method.
    """

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


class Stopped(Exception):
    """The channel was told to stop while it executed a push."""
