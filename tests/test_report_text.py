"""Tables, drawings and sizes as text."""

from __future__ import annotations

import pytest

from gpuvm.report.diagram import Bar, draw_rows
from gpuvm.report.sizes import hex_text, size_text
from gpuvm.report.table import replay_table
from gpuvm.trace.replay import Client
from gpuvm.trace.session import Bo
from gpuvm.trace.snapshot import object_number
from gpuvm.va import Gpuva, GpuvaManager
from gpuvm.va.gpuvas import gpuvas_lines

GPUVAS = [
    "DRM GPU VA space (a name) [0x0000000000001000;0x0000000000010000]",
    "Kernel reserved node [0x0000000000008000;0x0000000000009000]",
    "",
    " VAs | start              | range              | end                "
    "| object             | object offset",
    "-" * 109,
    "     | 0x0000000000002000 | 0x0000000000001000 | 0x0000000000003000 "
    "| 0x0000000000000007 | 0x123456789abcdef0",
    "     | 0x0000000000009000 | 0x0000000000007000 | 0x0000000000010000 "
    "| 0x0000000000000000 | 0x0000000000000000",
]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (4096, "4 KiB"),
        ((1 << 20) - 1, "1024 KiB"),
        (1 << 20, "1 MiB"),
        (1000 << 20, "1000 MiB"),
        (123456789, "118 MiB"),
        (1 << 47, "128 TiB"),
        ((1 << 64) - 1, "16 EiB"),
    ],
)
def test_size_text(size: int, text: str) -> None:
    assert size_text(size) == text


def test_hex_text() -> None:
    assert [hex_text(addr) for addr in (0, 0xF0000, 0x3FFFEC6000)] == ["0x0", "0xf0000", "0x3f_ffec_6000"]


def test_gpuvas_is_what_the_kernel_prints() -> None:
    vm = GpuvaManager("a name", start=0x1000, range=0xF000, kernel_node=(0x8000, 0x1000))
    vm.insert(Gpuva(0x2000, 0x1000, Bo(7), 0x123456789ABCDEF0))
    vm.insert(Gpuva(0x9000, 0x7000, None))
    assert list(gpuvas_lines(vm, object_number)) == GPUVAS


def test_gpuvas_without_kernel_node() -> None:
    lines = list(gpuvas_lines(GpuvaManager("n", range=16), object_number))
    assert lines[1] == "Kernel reserved node [0x0000000000000000;0x0000000000000000]"
    assert len(lines) == 5


def test_the_table_puts_a_few_clients_side_by_side() -> None:
    clients = [Client(number, GpuvaManager("n", range=16), requests=number) for number in range(1, 8)]
    lines = replay_table("title", clients, 0, {}).splitlines()
    assert [line.split()[1::2] for line in lines if "client" in line] == [list("12345"), list("67")]
    assert [line.split()[1:] for line in lines if line.startswith("requests")] == [list("12345"), list("67")]
    assert max(map(len, lines)) <= 100
    assert "\x1b[1mtitle\x1b[0m" in replay_table("title", clients, 0, {}, colour=True)


def test_time_per_request() -> None:
    client = Client(1, GpuvaManager("n", range=16), requests=10, bind_ns=4560)
    assert "456 ns" in replay_table("t", [client], 0, {})
    client.bind_ns = 45_600
    assert "4.6 us" in replay_table("t", [client], 0, {})
    assert Client(1).mappings() == []


def test_bars_share_borders() -> None:
    rows = [
        ("old", [Bar(0, 2, ("a",)), Bar(2, 3, ())]),
        ("new", [Bar(0, 1, ("long text here", "b")), Bar(2, 3, ())]),
    ]
    assert draw_rows(rows) == [
        "     0x0                           0x2         0x3",
        "old: |------------- a -------------|-----------|",
        "     0x0               0x1         0x2         0x3",
        "new: |- long text here |           |-----------|",
    ]


def test_rows_without_bars() -> None:
    assert draw_rows([("old", [])]) == ["", "old: (nothing)"]
