"""Exceptions of callbacks, which have no caller to go to."""

from __future__ import annotations

import weakref


def report(error: BaseException, where: str) -> None:
    """Hand an exception that has no caller to ``sys.unraisablehook``.

    Only the interpreter can make the hook's argument. It does so for a weak reference's callback that raises.
    """

    class Raises:
        def __call__(self, _reference: object) -> None:
            raise error

        def __repr__(self) -> str:
            return where

    class Gone:
        __slots__ = ("__weakref__",)

    gone = Gone()
    reference = weakref.ref(gone, Raises())
    del gone
    del reference
