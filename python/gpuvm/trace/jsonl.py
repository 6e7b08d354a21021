"""Reader of traces: JSON Lines in, the records of `schema` out.

Strict, because a trace is evidence: a field that is missing or of the wrong type, a number that does
not fit, an unknown call or op is an error with line and column, never a guess.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn, TypeAlias

from gpuvm.trace.errors import TraceError
from gpuvm.trace.position import column_of
from gpuvm.trace.schema import (
    DOMAIN_ANY,
    OP_NAMES,
    OTHER_CALLS,
    BindOp,
    Call,
    GemClose,
    GemImport,
    GemNew,
    Other,
    Push,
    Record,
    Submission,
    VmBind,
    VmInit,
)

U64_MAX = 2**64 - 1
U32_MAX = 2**32 - 1
ERRNO_MAX = 4095

# Keys and list indexes that lead to a value.
Path: TypeAlias = tuple[str | int, ...]


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
        head = Call(self.number, value["t"], value["client"], ret)
        return self.body(call, value, head)

    def body(self, call: str, value: dict[str, Any], head: Call) -> Record:
        common = (head.line, head.t, head.client, head.ret)
        match call:
            case "vm_bind":
                return VmBind(*common, self.ops(value))
            case "gem_new":
                # A refused call made no handle; it may have been left out or be 0.
                handle = self.integer(value, "handle", (), U32_MAX) if head.ret == 0 else 0
                size = self.integer(value, "size", ())
                return GemNew(*common, handle, size, self.domain(value))
            case "gem_close":
                return GemClose(*common, self.integer(value, "handle", (), U32_MAX))
            case "gem_open" | "prime_fd_to_handle":
                handle = self.integer(value, "handle", (), U32_MAX) if head.ret == 0 else 0
                return GemImport(*common, handle)
            case "vm_init":
                addr = self.integer(value, "kernel_addr", ())
                return VmInit(*common, addr, self.integer(value, "kernel_size", ()))
            case "exec":
                return Submission(*common, self.pushes(value))
            case _ if call in OTHER_CALLS:
                return Other(*common, call)
        self.fail(f"unknown call {json.dumps(call)[:60]}", ("call",))

    def ops(self, value: dict[str, Any]) -> tuple[BindOp, ...]:
        ops = value.get("ops")
        if type(ops) is not list:
            self.wrong(value, "ops", (), "a list of bind ops")
        return tuple([self.op(op, index) for index, op in enumerate(ops)])

    def op(self, op: Any, index: int) -> BindOp:
        path = ("ops", index)
        if type(op) is not dict:
            self.fail(f"op {index} is not a JSON object", path)
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

    def domain(self, value: dict[str, Any]) -> int:
        if "domain" not in value:
            return DOMAIN_ANY
        return self.integer(value, "domain", (), U32_MAX)

    def pushes(self, value: dict[str, Any]) -> tuple[Push, ...]:
        pushes = value.get("pushes", [])
        if type(pushes) is not list:
            self.wrong(value, "pushes", (), "a list of push buffers")
        return tuple([self.push(push, index) for index, push in enumerate(pushes)])

    def push(self, push: Any, index: int) -> Push:
        path = ("pushes", index)
        if type(push) is not dict:
            self.fail(f"push {index} is not a JSON object", path)
        return Push(self.integer(push, "va", path), self.integer(push, "va_len", path))

    def integer(self, holder: dict[str, Any], field: str, path: Path, limit: int = U64_MAX) -> int:
        number = holder.get(field)
        # type() and not isinstance(): JSON's true is no number here.
        if type(number) is int and 0 <= number <= limit:
            return number
        if type(number) is not int:
            self.wrong(holder, field, path, "a whole number")
        bits = limit.bit_length()
        short = str(number) if abs(number) < 10**40 else f"a number of {len(str(abs(number)))} digits"
        why = "is negative" if number < 0 else f"does not fit {bits} bits"
        self.fail(f'"{field}" is {short}, which {why}', (*path, field))

    def wrong(self, holder: dict[str, Any], field: str, path: Path, expected: str) -> NoReturn:
        if field not in holder:
            self.fail(f'"{field}" is missing: expected {expected}', path)
        got = json.dumps(holder[field])
        got = got if len(got) <= 40 else f"{got[:37]}..."
        self.fail(f'"{field}" is {got}: expected {expected}', (*path, field))

    def fail(self, message: str, path: Path) -> NoReturn:
        column = column_of(self.text, path)
        raise TraceError(self.name, message, line=self.number, column=column)
