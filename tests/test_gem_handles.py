"""`GemHandles`: handles, names, private objects; several clients of one device, several threads."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvm.errors import CheckFailed, GpuvmError, InvalidArgument, NotFound, OutOfMemory, PermissionDenied
from gpuvm.mem import faults
from gpuvm.mem.device import Device
from gpuvm.mem.gem import GemObject
from gpuvm.mem.handles import GemHandles
from gpuvm.sync.resv import Resv
from gpuvm.testing import Interleaving, explore, sample
from memories import PAGE
from suite import scaled


@pytest.fixture
def device() -> Iterator[Device]:
    device = Device(vram=1 << 20, gart=1 << 20)
    yield device
    device.check()


def private(device: Device) -> GemObject:
    return device.create(PAGE, resv=Resv("vm"), no_share=True)


def test_the_lowest_free_handle_is_given(device: Device) -> None:
    client = GemHandles(device, "one")
    objs = [device.create(PAGE) for _ in range(4)]
    assert [client.create(obj) for obj in objs] == [1, 2, 3, 4]
    client.close(3)
    client.close(2)
    assert [client.create(objs[0]) for _ in range(3)] == [2, 3, 5]
    assert client.lookup(3) is objs[0]
    assert objs[0].handle_count == 4
    assert sorted(client) == [1, 2, 3, 4, 5]
    assert len(client) == 5
    client.check()
    numbers = client.statistics()
    assert (numbers.name, numbers.handles, numbers.objects, numbers.size) == ("one", 5, 2, 2 * PAGE)
    assert repr(client).startswith('<GemHandles "one" of')


def test_an_unknown_handle(device: Device) -> None:
    client = GemHandles(device, "one")
    handle = client.create(device.create(PAGE))
    client.close(handle)
    calls = (client.lookup, client.close, client.flink, client.export, client.export_fd)
    for call in calls:
        for number in (handle, 0, -1, 1 << 40):
            with pytest.raises(NotFound, match=rf'"one" has no handle {number};'):
                call(number)


def test_handles_are_references(device: Device) -> None:
    client, other = GemHandles(device), GemHandles(device)
    obj = device.create(PAGE)
    known = weakref.ref(obj)
    first, second = client.create(obj), other.create(obj)
    del obj
    client.close(first)
    assert known() is other.lookup(second)
    other.close_all()
    assert known() is None
    assert device.reap() == 1


def test_a_client_that_ends_closes_its_handles(device: Device) -> None:
    obj = device.create(PAGE)
    with GemHandles(device) as client:
        name = client.flink(client.create(obj))
        client.create(obj)
        assert obj.handle_count == 2
    assert obj.handle_count == len(client) == 0
    with pytest.raises(NotFound):
        GemHandles(device).open(name)


def test_names_are_the_devices(device: Device) -> None:
    one, two = GemHandles(device), GemHandles(device)
    obj, another = device.create(PAGE), device.create(PAGE)
    handle = one.create(obj)
    name = one.flink(handle)
    assert one.flink(handle) == name == obj.flink_name == 1
    assert one.flink(one.create(another)) == 2
    assert two.lookup(two.open(name)) is obj
    assert [two.open(name), two.open(name)] == [2, 3]  # a new one each time, as in the kernel
    assert device.names.statistics().names == 2
    device.names.check()
    with pytest.raises(NotFound, match="name 3"):
        two.open(3)


def test_a_name_goes_with_the_last_handle(device: Device) -> None:
    one, two = GemHandles(device), GemHandles(device)
    obj = device.create(PAGE)
    name = one.flink(one.create(obj))
    two.open(name)
    one.close_all()
    assert two.open(name) == 2
    two.close_all()
    assert obj.flink_name == 0
    with pytest.raises(NotFound):
        two.open(name)
    assert one.flink(one.create(device.create(PAGE))) == name


def test_a_name_holds_no_reference(device: Device) -> None:
    client = GemHandles(device)
    name = client.flink(client.create(device.create(PAGE)))
    del client  # without closing
    gc.collect()
    with pytest.raises(NotFound):
        GemHandles(device).open(name)
    device.names.check()


def test_an_object_of_another_device_gets_no_handle(device: Device) -> None:
    stranger = Device(vram=1 << 20, gart=1 << 20, name="stranger").create(PAGE)
    client = GemHandles(device)
    with pytest.raises(InvalidArgument, match="export and import"):
        client.create(stranger)
    assert (len(client), stranger.handle_count) == (0, 0)


def test_a_private_object_belongs_to_the_client_of_its_first_handle(device: Device) -> None:
    owner, other = GemHandles(device, "owner"), GemHandles(device, "other")
    obj = private(device)
    handle = owner.create(obj)
    assert owner.create(obj) == 2
    with pytest.raises(PermissionDenied, match='another client than "other"'):
        other.create(obj)
    for call in (owner.flink, owner.export, owner.export_fd):
        with pytest.raises(PermissionDenied, match="private"):
            call(handle)
    assert (len(owner), len(other), obj.handle_count, obj.flink_name) == (2, 0, 2, 0)
    owner.check()
    owner.close_all()
    with pytest.raises(PermissionDenied):
        other.create(obj)
    del owner
    gc.collect()
    with pytest.raises(PermissionDenied):
        other.create(obj)
    assert other.statistics().handles == 0


def test_faults(device: Device) -> None:
    client = GemHandles(device)
    obj = device.create(PAGE)
    with faults.refuse_allocation(0), pytest.raises(OutOfMemory):
        client.create(obj)
    assert (obj.handle_count, len(client)) == (0, 0)
    handle = client.create(obj)
    with faults.refuse_allocation(0), pytest.raises(OutOfMemory):
        client.flink(handle)
    assert obj.flink_name == 0
    name = client.flink(handle)
    with faults.refuse_allocation(0), pytest.raises(OutOfMemory):
        client.open(name)
    assert obj.handle_count == 1
    client.check()
    device.names.check()


def test_check_finds_what_is_wrong(device: Device) -> None:
    client = GemHandles(device)
    obj = device.create(PAGE)
    handle = client.create(obj)
    client.flink(handle)
    obj.handle_count = 0
    for check in (client.check, device.names.check):
        with pytest.raises(CheckFailed):
            check()
    obj.handle_count, obj.flink_name = 1, 5
    with pytest.raises(CheckFailed, match="name 1"):
        device.names.check()
    obj.flink_name = 1


calls = st.lists(
    st.tuples(
        st.sampled_from(["create", "create", "close", "flink", "open", "export", "import", "close all"]),
        st.integers(0, 1),
        st.integers(0, 5),
    ),
    max_size=40,
)


@given(calls)
def test_against_plain_dictionaries(program: list[tuple[str, int, int]]) -> None:
    """Model: each client's handles, each object's name, and by which handle a client shares an object."""
    device = Device(vram=1 << 20, gart=1 << 20)
    clients = [GemHandles(device, f"client {each}") for each in range(2)]
    objs = [device.create(PAGE, name=f"object {each}") for each in range(4)]
    handles: list[dict[int, GemObject]] = [{}, {}]
    shared: list[list[int]] = [[], []]
    names: dict[GemObject, int] = {}
    for what, which, number in program:
        client, mine, sharing = clients[which], handles[which], shared[which]
        free = min(set(range(1, len(mine) + 2)) - set(mine))
        if what == "create":
            obj = objs[number % 4]
            assert client.create(obj) == free
            mine[free] = obj
        elif what == "close all":
            client.close_all()
            mine.clear()
            sharing.clear()
        elif what == "open":
            obj = objs[number % 4]
            if obj in names:
                assert client.open(names[obj]) == free
                mine[free] = obj
        elif what == "import":
            obj = objs[number % 4]
            exporter = clients[1 - which]
            other = next((each for each, its in handles[1 - which].items() if its is obj), None)
            if other is not None:
                dma_buf = exporter.export(other)
                if other not in shared[1 - which]:
                    shared[1 - which].append(other)
                known = next((each for each in sharing if mine[each] is obj), None)
                assert client.import_(dma_buf) == (known or free)
                if known is None:
                    mine[free] = obj
                    sharing.append(free)
        elif number not in mine:
            with pytest.raises(NotFound):
                {"close": client.close, "flink": client.flink, "export": client.export}[what](number)
        elif what == "close":
            client.close(number)
            del mine[number]
            if number in sharing:
                sharing.remove(number)
        elif what == "flink":
            name = client.flink(number)
            unused = min(set(range(1, 9)) - set(names.values()))
            assert name == names.setdefault(mine[number], unused)
        else:
            assert client.export(number).obj is mine[number]
            if number not in sharing:
                sharing.append(number)
        for obj in objs:
            count = sum(each is obj for its in handles for each in its.values())
            if not count:
                names.pop(obj, None)
            assert (obj.handle_count, obj.flink_name) == (count, names.get(obj, 0))
        for each, expected in zip(clients, handles, strict=True):
            assert {handle: each.lookup(handle) for handle in each} == expected
            each.check()
        device.check()


def test_clients_open_what_another_one_closes() -> None:
    """The name is there or it is not; whatever happens first, counts are right."""

    def scenario(run: Interleaving) -> Callable[[], None]:
        device = Device(vram=1 << 16, gart=1 << 16)
        one, two = GemHandles(device), GemHandles(device)
        obj = device.create(PAGE)
        handle = one.create(obj)
        name = one.flink(handle)

        def open_and_close() -> bool:
            try:
                two.close(two.open(name))
            except NotFound:
                return False
            return True

        run.spawn(one.close, handle)
        run.spawn(open_and_close)
        twice = run.spawn(create_twice, one, obj)

        def check() -> None:
            assert len(set(twice.result)) == 2
            assert obj.handle_count == 2 == len(one)
            for checked in (one, two, device.names):
                checked.check()

        return check

    sample(scenario, range(scaled(40, 2_000)))
    assert explore(scenario, preemptions=1, limit=scaled(60, 5_000)).schedules > 20


def create_twice(client: GemHandles, obj: GemObject) -> list[int]:
    return [client.create(obj), client.create(obj)]


def test_one_handle_is_closed_once() -> None:
    def scenario(run: Interleaving) -> Callable[[], None]:
        device = Device(vram=1 << 16, gart=1 << 16)
        client = GemHandles(device)
        handle = client.create(device.create(PAGE))

        def close() -> bool:
            try:
                client.close(handle)
            except GpuvmError:
                return False
            return True

        closers = [run.spawn(close) for _ in range(3)]

        def check() -> None:
            assert sorted(closer.result for closer in closers) == [False, False, True]
            assert len(client) == 0
            client.check()

        return check

    assert explore(scenario, preemptions=1, limit=scaled(60, 5_000)).schedules > 3


def test_closing_all_does_not_mind_who_closes_one_of_them() -> None:
    def scenario(run: Interleaving) -> Callable[[], None]:
        client = GemHandles(Device(vram=PAGE, gart=PAGE))
        handles = [client.create(client.device.create(PAGE)) for _ in range(2)]

        def close_one() -> None:
            with suppress(NotFound):
                client.close(handles[1])

        run.spawn(client.close_all)
        run.spawn(close_one)

        def finish() -> None:
            assert len(client) == 0
            client.check()

        return finish

    assert explore(scenario, preemptions=1, limit=scaled(60, 5_000)).schedules > 3
