"""Reader of traces: JSON Lines in, the records of `recorded` out.

Strict, because a trace is evidence: a field that is missing or of the wrong type, a number that does
not fit, an unknown call or op is an error with line and column, never a guess.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any, NoReturn, TypeAlias, TypeVar

from gpuvm.trace.call_fields import FIELDS, S32_MAX, S32_MIN, U32_MAX, U64_MAX, Field
from gpuvm.trace.errors import TraceError
from gpuvm.trace.position import column_of
from gpuvm.trace.recorded import (
    DOMAIN_ANY,
    OP_NAMES,
    SYNC_NAMES,
    BindOp,
    GemClose,
    GemImport,
    GemNew,
    Push,
    Record,
    Submission,
    Sync,
    Untold,
    VmBind,
    VmInit,
)

ERRNO_MAX = 4095

# Keys and list indexes that lead to a value.
Path: TypeAlias = tuple[str | int, ...]
# What every record begins with: line, t, client, ret.
Head: TypeAlias = tuple[int, int, int, int]

_Item = TypeVar("_Item")

_op_fields = itemgetter("op", "flags", "handle", "addr", "bo_offset", "range")


def read_records(name: str, lines: Iterable[tuple[int, str]]) -> Iterator[Record]:
    """The records of a trace, in file order; blank lines are passed over.

    Args:
        name: the file, for messages.
        lines: ``(line number, text)``, as `source.Source` yields them.

    Raises:
        TraceError: at the first defect, or when there is no record at all.
    """
    empty = True
    for number, text in lines:
        if text and not text.isspace():
            empty = False
            yield _Line(name, number, text).record()
    if empty:
        raise TraceError(name, "no record in it: a trace has one JSON object a line")


def load_json(name: str, number: int, text: str) -> Any:
    """One line of JSON.

    Raises:
        TraceError: not JSON, with the column; NaN and Infinity are not JSON either.
    """

    def no_constant(constant: str) -> NoReturn:
        raise TraceError(name, f"{constant} is not JSON", line=number, column=text.find(constant) + 1)

    try:
        return json.loads(text, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        message = f"not valid JSON: {error.msg}"
        raise TraceError(name, message, line=number, column=error.pos + 1) from None
    except RecursionError:
        raise TraceError(name, "JSON nested too deeply", line=number, column=1) from None
    except ValueError:  # more digits than Python converts
        digits = re.search(r"\d{4000}", text)
        column = digits.start() + 1 if digits else 1
        raise TraceError(name, "a number of thousands of digits", line=number, column=column) from None


class _Line:
    """One line while it is checked; every complaint knows its place."""

    def __init__(self, name: str, number: int, text: str) -> None:
        self.name = name
        self.number = number
        self.text = text
        self.value = load_json(name, number, text)

    def record(self) -> Record:
        value = self.value
        if type(value) is not dict:
            self.fail("expected a JSON object, one recorded call", ())
        self.integer(value, "t", ())
        self.integer(value, "client", ())
        call = value.get("call")
        if type(call) is not str:
            self.wrong(value, "call", (), "a call's name in quotes")
        ret = value.get("ret")
        if type(ret) is not int or not -ERRNO_MAX <= ret <= 0:
            self.wrong(value, "ret", (), "0 or a negative errno")
        return self.body(call, value, (self.number, value["t"], value["client"], ret))

    def body(self, call: str, value: dict[str, Any], head: Head) -> Record:
        match call:
            case "vm_bind":
                ops = self.listed(value, "ops", "a list of bind ops", self.op)
                return VmBind(*head, ops, self.optional(value, "flags"), *self.syncs(value))
            case "gem_new":
                return self.gem_new(value, head)
            case "gem_close":
                return GemClose(*head, self.integer(value, "handle", (), U32_MAX))
            case "gem_open" | "prime_fd_to_handle":
                handle = self.integer(value, "handle", (), U32_MAX) if head[-1] == 0 else 0
                fd = self.integer(value, "fd", (), S32_MAX, S32_MIN) if "fd" in value else None
                return GemImport(*head, call, handle, fd)
            case "vm_init":
                addr = self.integer(value, "kernel_addr", ())
                return VmInit(*head, addr, self.integer(value, "kernel_size", ()))
            case "exec":
                return self.submission(value, head)
            case _ if call in FIELDS:
                return self.by_table(call, value, head)
        self.fail(f"unknown call {json.dumps(call)[:60]}", ("call",))

    def gem_new(self, value: dict[str, Any], head: Head) -> GemNew:
        # A refused call made no handle; it may have been left out or be 0.
        handle = self.integer(value, "handle", (), U32_MAX) if head[-1] == 0 else 0
        size = self.integer(value, "size", ())
        domain = self.optional(value, "domain", DOMAIN_ANY)
        rest = [self.optional(value, field) for field in ("align", "tile_mode", "tile_flags")]
        return GemNew(*head, handle, size, domain, *rest)

    def submission(self, value: dict[str, Any], head: Head) -> Submission:
        expected = "a list of push buffers"
        pushes = self.listed(value, "pushes", expected, self.push) if "pushes" in value else ()
        channel = self.integer(value, "channel", (), U32_MAX) if "channel" in value else None
        return Submission(*head, pushes, channel, *self.syncs(value))

    def by_table(self, call: str, value: dict[str, Any], head: Head) -> Record:
        kind, fields = FIELDS[call]
        for field in fields:
            if field.needed and field.name not in value:
                return Untold(*head, call, field.name)
        return kind(*head, call, *[self.field(value, field, head[-1]) for field in fields])

    def field(self, value: dict[str, Any], field: Field, ret: int) -> int | tuple[int, ...] | None:
        name = field.name
        if name not in value or (field.result and ret != 0):
            return field.default
        if not field.many:
            return self.integer(value, name, (), field.most, field.least)
        if type(value[name]) is not list:
            self.wrong(value, name, (), "a list of whole numbers")
        numbers = dict(enumerate(value[name]))
        return tuple([self.integer(numbers, at, (name,), field.most, field.least) for at in numbers])

    # -- what calls consist of

    def listed(
        self,
        value: dict[str, Any],
        field: str,
        expected: str,
        item: Callable[[Any, Path], _Item],
    ) -> tuple[_Item, ...]:
        items = value.get(field)
        if type(items) is not list:
            self.wrong(value, field, (), expected)
        return tuple([item(one, (field, index)) for index, one in enumerate(items)])

    def op(self, op: Any, path: Path) -> BindOp:
        # Most of a trace is this: look at everything at once, and only then for what is wrong.
        try:
            name, flags, handle, addr, offset, range_ = _op_fields(op)
            if (
                type(flags) is type(handle) is type(addr) is type(offset) is type(range_) is int
                and 0 <= flags <= U32_MAX >= handle >= 0
                and 0 <= addr <= U64_MAX >= offset >= 0 <= range_ <= U64_MAX
            ):
                return BindOp(OP_NAMES[name], flags, handle, 0, addr, offset, range_)
        except (KeyError, TypeError):
            pass
        return self.doubtful_op(op, path)

    def doubtful_op(self, op: Any, path: Path) -> BindOp:
        if type(op) is not dict:
            self.fail(f"op {path[-1]} is not a JSON object", path)
        name = op.get("op")
        if type(name) is not str:
            self.wrong(op, "op", path, '"map" or "unmap"')
        if name not in OP_NAMES:
            self.fail(f'unknown op {json.dumps(name)[:60]}: expected "map" or "unmap"', (*path, "op"))
        return BindOp(
            OP_NAMES[name],
            self.integer(op, "flags", path, U32_MAX),
            self.integer(op, "handle", path, U32_MAX),
            0,
            self.integer(op, "addr", path),
            self.integer(op, "bo_offset", path),
            self.integer(op, "range", path),
        )

    def syncs(self, value: dict[str, Any]) -> tuple[tuple[Sync, ...], tuple[Sync, ...]]:
        expected = "a list of sync objects"
        return (
            self.listed(value, "waits", expected, self.sync) if "waits" in value else (),
            self.listed(value, "signals", expected, self.sync) if "signals" in value else (),
        )

    def sync(self, sync: Any, path: Path) -> Sync:
        if type(sync) is not dict:
            self.fail(f"{_quoted(path[-1], path[:-1])} is not a JSON object", path)
        kind = sync.get("type")
        if type(kind) is str and kind not in SYNC_NAMES:
            self.fail(
                f'unknown type {json.dumps(kind)[:60]}: expected "syncobj" or "timeline"', (*path, "type")
            )
        flags = SYNC_NAMES[kind] if type(kind) is str else self.integer(sync, "type", path, U32_MAX)
        value = self.integer(sync, "value", path) if "value" in sync else 0
        return Sync(flags, self.integer(sync, "handle", path, U32_MAX), value)

    def push(self, push: Any, path: Path) -> Push:
        if type(push) is not dict:
            self.fail(f"push {path[-1]} is not a JSON object", path)
        flags = self.integer(push, "flags", path, U32_MAX) if "flags" in push else 0
        return Push(self.integer(push, "va", path), self.integer(push, "va_len", path), flags)

    def optional(self, value: dict[str, Any], field: str, default: int = 0) -> int:
        return self.integer(value, field, (), U32_MAX) if field in value else default

    def integer(
        self, holder: dict[Any, Any], field: str | int, path: Path, most: int = U64_MAX, least: int = 0
    ) -> int:
        number = holder.get(field)
        # type() and not isinstance(): JSON's true is no number here.
        if type(number) is int and least <= number <= most:
            return number
        if type(number) is not int:
            self.wrong(holder, field, path, "a whole number")
        bits = most.bit_length() + (least < 0)
        short = str(number) if abs(number) < 10**40 else f"a number of {len(str(abs(number)))} digits"
        why = "is negative" if number < 0 == least else f"does not fit {bits} bits"
        self.fail(f"{_quoted(field, path)} is {short}, which {why}", (*path, field))

    def wrong(self, holder: dict[Any, Any], field: str | int, path: Path, expected: str) -> NoReturn:
        if field not in holder:
            self.fail(f"{_quoted(field, path)} is missing: expected {expected}", path)
        got = json.dumps(holder[field])
        got = got if len(got) <= 40 else f"{got[:37]}..."
        self.fail(f"{_quoted(field, path)} is {got}: expected {expected}", (*path, field))

    def fail(self, message: str, path: Path) -> NoReturn:
        column = column_of(self.text, path)
        raise TraceError(self.name, message, line=self.number, column=column)


def _quoted(field: str | int, path: Path) -> str:
    """What messages call a field, or an element of a list."""
    return f'"{field}"' if type(field) is str else f'element {field} of "{path[-1]}"'
