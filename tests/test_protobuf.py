"""The wire format, read back by google's own package."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpuvm.trace.protobuf import fixed64, message, number, text, varint

descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
wrappers_pb2 = pytest.importorskip("google.protobuf.wrappers_pb2")
pb = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2", reason="Perfetto's package")


@given(st.integers(0, 2**64 - 1))
@example(0)
@example(127)
@example(128)
@example(0x3FFF)
@example(0x4000)
@example(0x20_0000)
@example(2**64 - 1)
def test_u64(value: int) -> None:
    assert wrappers_pb2.UInt64Value.FromString(number(1, value)).value == value
    assert number(1, value)[1:] == varint(value)


@given(st.integers(-(2**63), 2**63 - 1))
def test_i64_is_twos_complement(value: int) -> None:
    assert wrappers_pb2.Int64Value.FromString(number(1, value)).value == value


@given(st.integers(-(2**31), 2**31 - 1))
def test_i32(value: int) -> None:
    assert wrappers_pb2.Int32Value.FromString(number(1, value)).value == value


@given(st.integers(0, 2**64 - 1))
def test_fixed64(value: int) -> None:
    assert pb.VulkanMemoryEvent.FromString(fixed64(17, value)).device_memory == value


@given(st.text(), st.lists(st.text(max_size=3), max_size=5))
def test_messages_in_messages(name: str, inner: list[str]) -> None:
    parts = [message(2, text(1, one), number(3, index + 1)) for index, one in enumerate(inner)]
    read = descriptor_pb2.DescriptorProto.FromString(text(1, name) + b"".join(parts))
    assert read.name == name
    assert [(field.name, field.number) for field in read.field] == [
        (one, i + 1) for i, one in enumerate(inner)
    ]


def test_what_has_no_utf8_is_escaped() -> None:
    assert wrappers_pb2.StringValue.FromString(text(1, "a\udcffb")).value == "a\\udcffb"


@pytest.mark.parametrize("field", [1, 15, 16, 62, 411, 1023])
def test_keys(field: int) -> None:
    assert number(field, 1)[:-1] == varint(field << 3)
    unknown = wrappers_pb2.Int32Value.FromString(number(1, 5) + number(field, 9) * (field > 1))
    assert unknown.value == 5
