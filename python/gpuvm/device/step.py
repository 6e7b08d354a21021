"""Steps of a start: what each one takes of the machine, so that one that fails says what is missing."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """Something that a start does.

    Attributes:
        call: the system call, as a person would write it.
        feature: what of the kernel it uses, and the Linux that first had it.
        remedy: what to do if it is refused.
    """

    call: str
    feature: str
    remedy: str

    def told(self, code: int) -> str:
        """What is to be said if it fails with this errno."""
        name = errno.errorcode.get(code, str(code))
        return f"{self.call} failed with {name} ({os.strerror(code)}): it takes {self.feature}; {self.remedy}"


class StepFailed(Exception):
    """A step was refused by the kernel."""

    def __init__(self, step: Step, code: int) -> None:
        super().__init__(step.told(code))
        self.code = code


@contextmanager
def taking(call: str, feature: str, remedy: str) -> Iterator[None]:
    """Errors of the system call within are this step's.

    Raises:
        StepFailed: with the errno.
    """
    try:
        yield
    except StepFailed:
        raise
    except OSError as error:
        raise StepFailed(Step(call, feature, remedy), error.errno or errno.EIO) from error
