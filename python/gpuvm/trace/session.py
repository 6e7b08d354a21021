"""Answers to the request language: one address space at a time, made anew by every ``init``."""

from __future__ import annotations

from typing import Any, TypeAlias

from gpuvm.errors import GpuvmError, InvalidArgument
from gpuvm.trace.errors import TraceError
from gpuvm.trace.requests import Request
from gpuvm.va import Gpuva, GpuvaManager, Map, Merge, Plan, Prefetch, Regions, Remap, Unmap

Answer: TypeAlias = dict[str, Any]

# The key an answer carries, and what stands there when the request was refused.
_ANSWER_KEYS: dict[str, tuple[str, Any]] = {
    "find": ("va", None),
    "find_first": ("va", None),
    "find_prev": ("va", None),
    "find_next": ("va", None),
    "valid": ("ret", False),
    "empty": ("ret", False),
    "dump": ("dump", []),
}


class Bo:
    """The object that the number ``BO`` of a request stands for; one per number and session."""

    __slots__ = ("__weakref__", "number")

    def __init__(self, number: int) -> None:
        self.number = number

    def __repr__(self) -> str:
        return f"Bo({self.number})"


class Session:
    """Carries requests out and answers each with the recorded answers' keys, in their order.

    Attributes:
        vm: the space of the last ``init``, None before it or when that was refused.
        line: of the last request.
        bos: the objects of this space, by number.
    """

    def __init__(self, name: str, *, merge: Merge = Merge.NEVER) -> None:
        """Args: ``name`` of the file for messages; ``merge``: policy of every space made."""
        self._name = name
        self._merge = merge
        self._seq = -1
        self._req = 0
        self._init_line = 0
        self.line = 0
        self.bos: dict[int, Bo] = {}
        self.vm: GpuvaManager | None = None

    def bo(self, number: int) -> Bo | None:
        """The object of that number, made on first use; None for 0."""
        if number == 0:
            return None
        return self.bos.setdefault(number, Bo(number))

    def answer(self, request: Request) -> Answer:
        """Carry one request out. A refusal is an answer too: its negative errno is in ``err``.

        Raises:
            TraceError: there is no space to ask, because no ``init`` came before or it was refused.
        """
        self.line = request.line
        self._count(request)
        key, refused = _ANSWER_KEYS.get(request.verb, ("ops", []))
        err = 0
        try:
            result = self._init(request) if request.verb == "init" else self._carry_out(request)
        except GpuvmError as error:
            result, err = refused, -(error.errno or 0)
        head: Answer = {"seq": self._seq, "req": self._req}
        if request.label is not None:
            head["class"] = request.label
        return {**head, "in": request.text, key: result, "err": err}

    def _count(self, request: Request) -> None:
        if request.verb == "init":
            self._seq += 1
            self._req = 0
        else:
            self._req += 1
        self._seq = self._seq if request.seq is None else request.seq
        self._req = self._req if request.req is None else request.req

    def _init(self, request: Request) -> list[Answer]:
        start, extent, kernel_addr, kernel_range = request.numbers
        self.vm = None
        self._init_line = request.line
        self.vm = GpuvaManager(
            f"sequence {self._seq}",
            start=start,
            range=extent,
            kernel_node=(kernel_addr, kernel_range) if kernel_range else None,
            kernel_node_anywhere=True,
            merge=self._merge,
            regions=Regions.SPARSE,
        )
        self.bos = {}
        return []

    def space(self, what: str) -> GpuvaManager:
        """The space; ``what`` needs it. Raises TraceError when there is none."""
        if self.vm is not None:
            return self.vm
        if self._init_line:
            why = f"the init in line {self._init_line} was refused"
        elif self.line:
            why = "no init came before"
        else:
            why = "the file is empty, or all comments; pass a trace, or requests, of which init is the first"
        message = f"{what} has no space to work on: {why}"
        raise TraceError(self._name, message, line=self.line or None, column=1 if self.line else None)

    def _carry_out(self, request: Request) -> Any:
        vm = self.space(request.verb)
        numbers = request.numbers
        if len(numbers) > 1 and numbers[1] == 0:
            if request.verb == "find":  # as the kernel: nothing is exactly an empty range
                return None
            raise InvalidArgument("a range of 0", value=0)
        match request.verb, numbers:
            case "map", (addr, extent, bo, offset):
                return self._apply(vm.sm_map(addr, extent, self.bo(bo), offset))
            case "unmap", (addr, extent):
                return self._apply(vm.sm_unmap(addr, extent))
            case "prefetch", (addr, extent):
                return [op_json(op) for op in vm.prefetch(addr, extent)]
            case "insert", (addr, extent, bo, offset):
                vm.insert(Gpuva(addr, extent, self.bo(bo), offset))
                return []
            case "find", (addr, extent):
                return va_json(vm.find(addr, extent))
            case "find_first", (addr, extent):
                return va_json(vm.find_first(addr, extent))
            case "find_prev", (addr,):
                return va_json(vm.find_prev(addr))
            case "find_next", (addr,):
                return va_json(vm.find_next(addr))
            case "valid", (addr, extent):
                return vm.range_valid(addr, extent)
            case "empty", (addr, extent):
                return vm.interval_empty(addr, extent)
            case "region", (addr, extent):
                vm.region_insert(addr, extent, sparse=request.sparse)
                return []
        return [va_json(va) for va in vm.mappings()]

    def _apply(self, plan: Plan) -> list[Answer]:
        answer = [op_json(op) for op in plan]
        plan.apply()
        return answer


def _piece(addr: int, extent: int, obj: object, offset: int) -> Answer:
    return {"addr": addr, "range": extent, "bo": getattr(obj, "number", 0), "offset": offset}


def va_json(va: Gpuva | None) -> Answer | None:
    """A mapping as the recorded answers write it; the kernel's node is marked."""
    if va is None:
        return None
    piece = _piece(va.addr, va.range, va.obj, va.offset)
    return {**piece, "kernel": True} if va.kernel else piece


def _map_json(op: Map | None) -> Answer | None:
    return None if op is None else _piece(op.addr, op.range, op.obj, op.offset)


def op_json(op: Map | Remap | Unmap | Prefetch) -> Answer:
    """An op as the recorded answers write it."""
    match op:
        case Map():
            return {"op": "map", **_piece(op.addr, op.range, op.obj, op.offset)}
        case Unmap(va, keep):
            return {"op": "unmap", **_piece(va.addr, va.range, va.obj, va.offset), "keep": keep}
        case Remap(prev, after, unmap):
            va = unmap.va
            gone = {**_piece(va.addr, va.range, va.obj, va.offset), "keep": unmap.keep}
            return {"op": "remap", "prev": _map_json(prev), "next": _map_json(after), "unmap": gone}
        case Prefetch(va):
            return {"op": "prefetch", **_piece(va.addr, va.range, va.obj, va.offset)}
