"""A fault's report, back from the JSON that a trace keeps of it."""

from __future__ import annotations

import json
import types
import typing
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from gpuvm.nouveau.fault import FaultReport
from gpuvm.trace.errors import TraceError


def report_of(name: str, text: str) -> FaultReport:
    """The report that ``json.dumps(asdict(report))`` is, with enums by their names.

    Args:
        name: the trace's, for messages.
        text: what `faults.report` has.

    Raises:
        TraceError: it is something else.
    """
    try:
        made: FaultReport = _made(FaultReport, json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise TraceError(name, f"a fault's report cannot be read: {error!r}; the file is damaged") from None
    return made


def _made(kind: Any, value: Any) -> Any:
    """The value of type ``kind`` that became ``value`` in JSON."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        (kind,) = (one for one in typing.get_args(kind) if one is not type(None))
        return None if value is None else _made(kind, value)
    if typing.get_origin(kind) is tuple:
        return tuple(_made(typing.get_args(kind)[0], one) for one in value)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{one.name: _made(hints[one.name], value[one.name]) for one in fields(kind)})
    if issubclass(kind, Enum):
        return kind[value]
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
