"""Every recorded answer of the kernel, asked of the library in three styles.

The differences are those that the recording's README names: a prefetch never reports the kernel's node, and
a neighbour is a mapping that really touches the address.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

import gpuvm
from arrays import bind_array, emitted, map_row, unmap_row
from drivers import Driver
from gpuvm import Gpuva, GpuVm, Plan
from recording import Answer, op_of, sequences, va_of
from shapes import MapShape, Objects, OpShape, Va, op_shapes, va_shape

LINES = 27_012
CHECK_EVERY = 16
OBJECTS = Objects(8)

Style = Callable[[GpuVm, str, list[int]], list[OpShape]]


def plan(vm: GpuVm, verb: str, numbers: list[int]) -> Plan:
    if verb == "map":
        addr, size, bo, offset = numbers
        return vm.sm_map(addr, size, OBJECTS[bo], offset)
    return vm.sm_unmap(*numbers)


def listed(vm: GpuVm, verb: str, numbers: list[int]) -> list[OpShape]:
    ops = plan(vm, verb, numbers)
    ops.apply()
    return op_shapes(ops, OBJECTS.label)


def stepped(vm: GpuVm, verb: str, numbers: list[int]) -> list[OpShape]:
    ops, driver = plan(vm, verb, numbers), Driver(vm)
    ops.step(driver)
    assert driver.seen == list(ops)
    return op_shapes(ops, OBJECTS.label)


def bulk(vm: GpuVm, verb: str, numbers: list[int]) -> list[OpShape]:
    row = map_row(*numbers) if verb == "map" else unmap_row(*numbers)
    return emitted(vm.bind(bind_array([row]), OBJECTS.handles()))


def found(va: Gpuva | None) -> tuple[Va, bool] | None:
    return None if va is None else (va_shape(va, OBJECTS.label), va.kernel)


def recorded_va(
    recorded: Answer | None, touches: Callable[[Va], bool] = lambda va: True
) -> tuple[Va, bool] | None:
    if recorded is None or not touches(va_of(recorded)):
        return None
    return va_of(recorded), recorded.get("kernel", False)


def recorded_space(start: int, size: int, kernel_start: int, kernel_size: int) -> GpuVm:
    """As the kernel: its node may lie outside the space (five of the sequences have such a one)."""
    node = (kernel_start, kernel_size) if kernel_size else None
    return GpuVm("recorded", start=start, range=size, kernel_node=node, kernel_node_anywhere=True)


def answer(vm: GpuVm, verb: str, numbers: list[int], recorded: Answer, style: Style) -> None:
    """Ask one request and compare; what the library raises is the caller's to compare."""
    match verb:
        case "map" | "unmap":
            assert style(vm, verb, numbers) == [op_of(op) for op in recorded["ops"]]
        case "prefetch":
            want = [op_of(op) for op in recorded["ops"] if not op.get("kernel")]
            assert op_shapes(vm.prefetch(*numbers), OBJECTS.label) == want
        case "insert":
            addr, size, bo, offset = numbers
            if (
                style is bulk and recorded["err"] == 0
            ):  # only a bind gives an object the handle that arrays name
                assert style(vm, "map", numbers) == [MapShape(Va(addr, size, bo, offset))]
            else:
                vm.insert(Gpuva(addr, size, OBJECTS[bo], offset))
        case "find":
            assert found(vm.find(*numbers)) == recorded_va(recorded["va"])
        case "find_first":
            assert found(vm.find_first(*numbers)) == recorded_va(recorded["va"])
        case "find_prev":
            assert found(vm.find_prev(*numbers)) == recorded_va(
                recorded["va"], lambda va: va.end == numbers[0]
            )
        case "find_next":
            assert found(vm.find_next(*numbers)) == recorded_va(
                recorded["va"], lambda va: va.addr == numbers[0]
            )
        case "valid":
            assert vm.range_valid(*numbers) is recorded["ret"]
        case "empty":
            assert vm.interval_empty(*numbers) is recorded["ret"]
        case "dump":
            assert [found(va) for va in vm] == [recorded_va(va) for va in recorded["dump"]]
            vm.check()
        case _:
            raise AssertionError(f"request {verb} is unknown")


def replay(answers: list[Answer], style: Style) -> int:
    vm: GpuVm | None = None
    for recorded in answers:
        verb, *words = recorded["in"].split()
        numbers = [int(word) for word in words]
        where = f"sequence {recorded['seq']}, request {recorded['req']}: {recorded['in']}"
        try:
            if vm is None:
                assert verb == "init"
                vm, code = recorded_space(*numbers), 0
            else:
                code = asked(vm, verb, numbers, recorded, style)
            assert code == recorded["err"]
            if recorded["req"] % CHECK_EVERY == 0:
                vm.check()
        except AssertionError as wrong:
            raise AssertionError(f"{where}: {wrong}") from wrong
    return len(answers)


def asked(vm: GpuVm, verb: str, numbers: list[int], recorded: Answer, style: Style) -> int:
    try:
        answer(vm, verb, numbers, recorded, style)
    except gpuvm.GpuvmError as error:
        assert recorded.get("ops", []) == [], "an error, but the kernel emitted ops"
        return -(error.errno or 0)
    return 0


@pytest.mark.parametrize("style", [listed, stepped, bulk], ids=lambda style: style.__name__)
def test_every_recorded_answer(style: Style) -> None:
    assert sum(replay(answers, style) for answers in sequences()) == LINES
