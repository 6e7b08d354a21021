"""The walk of an address and the tree of tables: what they say is what the words in VRAM say."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gpuvm.mmu.formats import FORMATS
from gpuvm.mmu.translation import RunState
from gpuvm.report.page_table import EntryRun, Tree
from gpuvm.report.policies import policy_json, policy_table
from gpuvm.report.walk import Walk
from gpuvm.trace.errors import ReplayError
from gpuvm.trace.eviction_replay import PolicyResult
from gpuvm.trace.memory_snapshot import MemorySnapshot, memory_snapshot
from gpuvm.trace.stream import Stream
from tracefile import KERNEL_ADDR, PAGE, Call, bind, gem_new, op, text_of, vm_init

BIG, HUGE = 0x10000, 0x200000

# A page of 2 MiB, one of 64 KiB with a kind, small ones beside it in GART, and a sparse region.
SPACE = (
    vm_init(1),
    vm_init(2),
    gem_new(1, client=2, size=HUGE, domain=2),
    gem_new(2, client=2, size=2 * BIG, domain=2),
    gem_new(3, client=2, size=4 * PAGE, domain=4),
    bind(op("map", HUGE, HUGE, 1), client=2),
    bind(op("map", 2 * HUGE, BIG, 2, BIG, flags=6), op("map", 2 * HUGE + BIG, 3 * PAGE, 3, PAGE), client=2),
    bind(op("map", 1 << 40, 2 * HUGE + 3 * PAGE, flags=0x100), client=2),
)
SMALL = 2 * HUGE + BIG


@contextmanager
def snapshot(*calls: Call, format: str = "tu102", client: int | None = None) -> Iterator[MemorySnapshot]:
    lines = enumerate(text_of(*(calls or SPACE)).splitlines(), 1)
    with memory_snapshot(Stream("trace", lines, None), FORMATS[format], client=client) as space:
        yield space


def raw(space: MemorySnapshot, table: int, index: int, count: int) -> list[str]:
    at = table + 8 * index * count
    words = struct.unpack(f"<{count}Q", bytes(space.device.vram.view[at : at + 8 * count]))
    return [f"0x{word:016x}" for word in words]


def test_each_entry_has_its_place_its_words_and_its_fields() -> None:
    with snapshot() as space:
        lines = Walk(space, SMALL + 2 * PAGE + 0x123).text()
        assert lines[:2] == ["trace:8, client 2, tu102: address 0x412123", ""]
        heads = [line.split() for line in lines[2:14:2]]
        assert [head[0] for head in heads] == ["PD3", "PD2", "PD1", "PD0", "LPT", "SPT"]
        table = f"vram:{space.page_table.root:#x}"
        for name, where, *rest in heads:
            count = 2 if name == "PD0" else 1
            match = re.fullmatch(r"(vram:0x[0-9a-f]+)\[(\d+)\]", where)
            assert match is not None
            assert match[1] == table
            assert rest[:count] == raw(space, int(table[5:], 16), int(match[2]), count)
            if name == "PD0":
                assert (rest[2], rest[4]) == ("LPT", "SPT")
                table, small = rest[3].removesuffix(","), rest[5]
            elif name == "LPT":
                assert rest[1:] == ["no", "page;", "SPT", "decides"]
                table = small
            elif name == "SPT":
                assert rest[1:3] == ["page", "at"]
            else:
                table = rest[-1]
        assert [line.startswith("      ") and " 0" in line for line in lines[3:15:2]] == [True] * 6
        assert "VALID 1, APERTURE 2, VOL 1" in lines[13]


def test_a_page_is_traced_to_its_object_and_mapping() -> None:
    with snapshot() as space:
        lines = Walk(space, SMALL + 2 * PAGE + 0x123).text()[15:]
        address = space.vm.mappings(SMALL, PAGE)  # keeps the order of the address space in view
        assert [va.obj.domain.name for va in address] == ["GART"]
        start = next(iter(space.page_table.runs(SMALL, PAGE))).address
        assert lines == [
            f"page     [0x412000, 0x413000) 4 KiB at system:{start + 2 * PAGE:#x}, kind 0x0, volatile",
            f"byte     system:{start + 2 * PAGE + 0x123:#x}",
            "object   handle 3 + 0x3123",
            "mapping  [0x410000, 0x413000) handle 3, offset 0x1000",
        ]
        del address
        lines = Walk(space, 2 * HUGE).text()
        assert re.search(r"^page     \[0x400000, 0x410000\) 64 KiB at vram:0x\w+0000, kind 0x6$", lines[-4])
        assert lines[-2] == "object   handle 2 + 0x10000"
        assert len(Walk(space, HUGE + 5).steps) == 4  # the page is in PD0


def test_a_fault_has_its_reason_and_the_nearest_mappings() -> None:
    with snapshot() as space:
        lines = Walk(space, SMALL + 3 * PAGE).text()
        assert lines[-3:] == [
            "fault    PTE at SPT: the entry of this page table has no page",
            "below    [0x410000, 0x413000) handle 3, offset 0x1000, ends 0x0 before it",
            "above    [0x8000000000, 0x10000000000) the kernel's node, begins 0x7fffbed000 after it",
        ]
        lines = Walk(space, KERNEL_ADDR + 1).text()
        assert lines[-3].startswith("fault    PDE at PD2: ")
        assert lines[-2] == "mapping  [0x8000000000, 0x10000000000) the kernel's node"
        lines = Walk(space, 0).text()
        assert lines[-1] == "above    [0x200000, 0x400000) handle 1, offset 0x0, begins 0x200000 after it"
        lines = Walk(space, (1 << 64) - 1).text()
        why = "the address is longer than the format's 49 bits"
        assert lines[1:3] == ["", f"fault    VA_LIMIT_VIOLATION: {why}"]
        assert len(lines) == 4
    with snapshot(vm_init(kernel_addr=0, kernel_size=0)) as space:
        assert Walk(space, 0).text()[-1] == "         nothing is mapped in this space"


def test_sparse_addresses_fault_not() -> None:
    with snapshot() as space:
        assert (
            "sparse   reads give zeros, writes vanish; the entry of PD0 spans 2 MiB"
            in Walk(space, (1 << 40) + 1).text()
        )
        text = Walk(space, (1 << 40) + 2 * HUGE + PAGE).text()
        assert "sparse   reads give zeros, writes vanish; the entry of SPT spans 4 KiB" in text
        assert text[-1].startswith("below    [0x8000000000")


@pytest.mark.parametrize("addr", [0, HUGE, 2 * HUGE + 1, SMALL, SMALL + 3 * PAGE, 1 << 40, (1 << 64) - 1])
def test_a_walk_as_data(addr: int) -> None:
    with snapshot() as space:
        document = Walk(space, addr).document()
        assert (document["file"], document["line"], document["client"]) == ("trace", 8, 2)
        for step in document["steps"]:
            assert step["words"] == raw(space, step["table"], step["index"], len(step["words"]))
        assert document["result"] in document
        match document["result"]:
            case "page":
                page, mapping = document["page"], document["mapping"]
                assert page["addr"] <= addr < page["addr"] + page["size"]
                assert mapping["addr"] <= addr < mapping["addr"] + mapping["range"]
                assert set(mapping) == {"addr", "range", "object", "offset"}
            case "sparse":
                assert document["sparse"]["spans"] == HUGE
            case "fault":
                assert document["fault"]["reason"] in ("PDE", "PTE", "VA_LIMIT_VIOLATION")
                assert document["mapping"] is None


@pytest.mark.parametrize("name", ["gp100", "tu102", "gh100"])
def test_the_tree_has_every_page_once(name: str) -> None:
    """Runs of the tree against the translation of every address."""
    with snapshot(format=name) as space:
        tree = Tree(space)
        pages = 0
        for position in range(len(space.page_table.tables())):
            for run in tree.runs[position]:
                size = run.count << run.entry.level.shift
                (found,) = space.page_table.runs(run.va, size)
                if run.number is None:
                    assert found.state == RunState.SPARSE
                    continue
                pages += size
                assert (found.aperture, found.address) == (run.entry.aperture, run.entry.address)
                assert found.kind == run.entry.kind
                (va,) = [one for one in space.vm.mappings() if one.addr <= run.va < one.end]
                assert space.number_of(va.obj) == run.number
                assert run.offset == va.offset + run.va - va.addr
        assert pages == sum(va.range for va in space.vm.mappings() if not va.kernel)


def test_entries_that_continue_each_other_are_one_line() -> None:
    with snapshot() as space:
        text = "\n".join(Tree(space).text())
        for line in (
            r"^        \[1\] 0x200000: 2 MiB at vram:0x\w+, handle 1 \+ 0x0$",
            r"^          \[0\] 0x400000: 64 KiB at vram:0x\w+, kind 0x6, handle 2 \+ 0x10000$",
            r"^          \[16-18\] 0x410000: 3 x 4 KiB at system:0x\w+, volatile, handle 3 \+ 0x1000$",
            r"^        \[0-1\] 0x10000000000: 2 x 2 MiB sparse$",
            r"^          \[0-2\] 0x10000400000: 3 x 4 KiB sparse$",
        ):
            assert re.search(line, text, re.MULTILINE), line
        assert "invalid" not in text


def test_pages_of_one_object_that_lie_apart_are_two_lines() -> None:
    calls = (*SPACE[:2], gem_new(1, client=2, size=8 * PAGE, domain=4))
    apart = bind(op("map", 0, 2 * PAGE, 1), op("map", 2 * PAGE, 2 * PAGE, 1, 4 * PAGE), client=2)
    again = bind(op("map", 4 * PAGE, 2 * PAGE, 1, 6 * PAGE, flags=0), client=2)
    with snapshot(*calls, apart, again) as space:
        tables = space.page_table.tables()
        runs = list(Tree(space).runs[len(tables) - 1])
        assert [(run.first, run.count, run.offset) for run in runs] == [(0, 2, 0), (2, 4, 4 * PAGE)]
        assert isinstance(runs[0], EntryRun)


def test_statistics_of_the_tree() -> None:
    with snapshot() as space:
        stats = space.page_table.statistics()
        lines = Tree(space).text()
        rows = {line.split()[0]: line.split() for line in lines if line[:3] in ("PD0", "LPT", "SPT")}
        assert rows["LPT"][1] == str(stats.tables["LPT"])
        pages = [int(rows[name][-2]) for name in ("PD0", "LPT", "SPT")]
        assert pages == list(stats.mapped.values()) == [1, 1, 3]
        assert lines[-2] == "pages: 1 of 2 MiB, 1 of 64 KiB, 3 of 4 KiB"
        assert re.fullmatch(r"waste: .* of the tables, \d\d\.\d%, hold no entry in use", lines[-1])
        document = Tree(space).document()
        levels = {one["level"]: one for one in document["levels"]}
        assert [levels[name]["pages"] for name in ("PD0", "LPT", "SPT")] == [1, 1, 3]
        assert [one["tables"] for one in document["levels"]] == list(stats.tables.values())
        assert [levels[name]["sparse"] for name in ("PD0", "LPT", "SPT")] == [2, 0, 3]
        used = [(table["level"], table["used"]) for table in document["tables"]]
        # An entry of PD0 with two tables is one entry; the sparse region has two of PD0 and its end.
        mapped = [("PD1", 1), ("PD0", 2), ("LPT", 1), ("SPT", 3)]
        assert used == [("PD3", 1), ("PD2", 2), *mapped, ("PD1", 1), ("PD0", 3), ("SPT", 3)]
        bytes_used = 8 * (1 + 2 + 1 + 1 + 1 + 3 + 3) + 16 * (2 + 3)
        assert sum(one["waste"] for one in document["levels"]) == stats.table_bytes - bytes_used
        assert [table["level"] for table in document["tables"]][:4] == ["PD3", "PD2", "PD1", "PD0"]
        (run,) = document["tables"][3]["runs"]
        assert (run["va"], run["count"], run["object"], run["aperture"]) == (HUGE, 1, 1, "vram")


def test_kinds_that_a_format_lacks_are_told() -> None:
    with snapshot(*SPACE[:-1], format="gp100") as space:
        lines = Tree(space).text()
        assert lines[-1] == "kinds: gp100 does not have 0x6; such pages are plain here"
        assert Tree(space).document()["kinds_left_out"] == [6]
    with snapshot(*SPACE[:-1], format="x86_64") as space:
        assert "PML4" in Tree(space).text()[2]
        assert Walk(space, SMALL).result.va == SMALL


def test_colour() -> None:
    with snapshot() as space:
        assert Walk(space, 0).text(colour=True)[0].startswith("\x1b[1mtrace:8")
        assert Tree(space).text(colour=True)[0].startswith("\x1b[1mtrace:8")


def test_the_table_of_policies() -> None:
    whole = PolicyResult("lru", 10, 4, 5, 1, 2, 3 << 20, 4 << 20, 1, None)
    refusal = ReplayError("trace", "it does not fit", line=7)
    ended = PolicyResult("clock", 0, 0, 0, 0, 0, 0, 0, 0, refusal)
    text = policy_table("title", [whole, ended], vram=64 << 20, gart=1 << 30)
    lines = text.splitlines()
    assert lines[:2] == ["title", "64 MiB of VRAM, 1 GiB of GART"]
    rows = {line[:18].strip(): line[18:].split() for line in lines[3:14]}
    assert rows[""] == ["lru", "clock"]
    assert rows["hit rate"] == ["50.0%", "100.0%"]
    assert rows["moved in"] == ["3", "MiB", "0", "B"]
    assert rows["ended at line"] == ["-", "7"]
    assert lines[-1] == "clock ended there: trace:7: it does not fit"
    assert policy_json(whole)["refused"] is None
    assert policy_json(ended)["refused"] == "trace:7: it does not fit"
