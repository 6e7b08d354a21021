"""The picture: how a space is cut into bands, and what ends up in the SVG."""

from __future__ import annotations

import contextlib
import random
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest

from gpuvm.errors import NoSpace
from gpuvm.report.bands import MOST_BANDS, Band, Kind, Piece, cut, pieces_of
from gpuvm.report.colours import NO_OBJECT, object_colour, text_colour
from gpuvm.report.picture import picture
from gpuvm.report.raster import draw, lay_out
from gpuvm.report.svg import Svg
from gpuvm.trace.jsonl import read_records
from gpuvm.trace.replay import Replay
from gpuvm.trace.session import Bo
from gpuvm.trace.snapshot import object_number
from gpuvm.va import Gpuva, GpuvaManager, Regions
from tracefile import bind, gem_new, op, text_of, vm_init

PAGE = 0x1000


def space(
    *mappings: tuple[int, int, int], size: int = 1 << 47, node: tuple[int, int] | None = None
) -> GpuvaManager:
    """A space with ``(addr, range, bo)`` mapped."""
    vm = GpuvaManager("test", range=size, kernel_node=node, regions=Regions.SPARSE)
    objects: dict[int, Bo] = {}
    for addr, extent, bo in mappings:
        obj = objects.setdefault(bo, Bo(bo)) if bo else None
        vm.insert(Gpuva(addr, extent, obj, addr))
    return vm


def pieces(vm: GpuvaManager) -> list[Piece]:
    return pieces_of(vm, object_number)


def svg_of(vm: GpuvaManager, title: str = "title") -> ElementTree.Element:
    return ElementTree.fromstring(picture(vm, title, object_number, object_word="bo"))


def words(root: ElementTree.Element) -> str:
    return "\n".join(element.text or "" for element in root.iter() if element.tag.endswith("text"))


def assert_tiles(bands: list[Band], start: int, end: int) -> None:
    assert bands[0].addr == start
    assert bands[-1].end == end
    flat = [piece for band in bands for piece in band.pieces]
    assert all(left.end == right.addr for left, right in pairwise(flat))
    assert all(piece.addr < piece.end for piece in flat)


def test_pieces_tile_the_space() -> None:
    vm = space((8 * PAGE, PAGE, 1), (9 * PAGE, PAGE, 0), size=64 * PAGE, node=(32 * PAGE, 2 * PAGE))
    vm.region_insert(16 * PAGE, 4 * PAGE, sparse=True)
    found = pieces(vm)
    assert_tiles([Band((one,)) for one in found], 0, 64 * PAGE)
    assert [(one.kind, one.range // PAGE) for one in found] == [
        (Kind.HOLE, 8),
        (Kind.MAPPING, 1),
        (Kind.MAPPING, 1),
        (Kind.HOLE, 6),
        (Kind.UNBOUND, 4),
        (Kind.HOLE, 12),
        (Kind.KERNEL, 2),
        (Kind.HOLE, 30),
    ]
    assert [one.number for one in found[1:3]] == [1, 0]


def test_a_mapping_in_a_region_belongs_to_it() -> None:
    vm = space(size=64 * PAGE)
    vm.region_insert(16 * PAGE, 4 * PAGE, sparse=True)
    vm.sm_map(17 * PAGE, PAGE, Bo(1)).apply()
    vm.sm_map(18 * PAGE, PAGE, Bo(2)).apply()
    inside = [one for one in pieces(vm) if one.region is not None]
    assert [one.kind for one in inside] == [Kind.UNBOUND, Kind.MAPPING, Kind.MAPPING, Kind.UNBOUND]


def test_a_binds_kind_is_shown() -> None:
    lines = text_of(vm_init(), gem_new(1), bind(op("map", 0, PAGE, 1, flags=0x06))).splitlines()
    vm = Replay("trace").run(read_records("trace", enumerate(lines, 1))).clients[1].vm
    assert vm is not None
    assert pieces(vm)[0].pte_kind == 6
    assert "4 KiB, offset 0x0, kind 0x06" in words(svg_of(vm))


def test_few_pieces_are_bands_of_their_own() -> None:
    vm = space(*[(i * 2 * PAGE, PAGE, i) for i in range(20)])
    assert not any(band.dense for band in cut(pieces(vm)))


def test_many_pieces_are_gathered() -> None:
    low = [(i * 2 * PAGE, PAGE, i) for i in range(500)]
    high = [((1 << 40) + i * PAGE, PAGE, i) for i in range(3)]
    vm = space(*low, *high, node=(1 << 41, 1 << 20))
    bands = cut(pieces(vm))
    assert len(bands) <= MOST_BANDS
    assert_tiles(bands, 0, 1 << 47)
    dense = [band for band in bands if band.dense]
    assert [len(band.mappings()) for band in dense] == [500]
    kinds = [band.pieces[0].kind for band in bands if not band.dense]
    assert kinds == [Kind.HOLE, Kind.MAPPING, Kind.MAPPING, Kind.MAPPING, Kind.HOLE, Kind.KERNEL, Kind.HOLE]


@pytest.mark.parametrize("seed", range(8))
def test_any_space_is_tiled(seed: int) -> None:
    rng = random.Random(seed)
    vm = GpuvaManager("test", range=1 << rng.choice((12, 30, 47, 63)), regions=Regions.SPARSE)
    objects = [Bo(i) for i in range(9)]
    for sixteenth in rng.sample(range(16), 5):
        vm.region_insert(sixteenth * (vm.end // 16), vm.end // 20, sparse=rng.random() < 0.7)
    for _ in range(rng.choice((3, 40, 400))):
        addr = rng.randrange(vm.end)
        extent = rng.randrange(1, min(vm.end - addr, vm.end // 50) + 1)
        with contextlib.suppress(NoSpace):  # it crosses a region's border
            vm.sm_map(addr, extent, rng.choice(objects)).apply()
    bands = cut(pieces(vm))
    assert_tiles(bands, vm.start, vm.end)
    assert len(bands) <= MOST_BANDS + 2
    svg_of(vm)


def test_a_raster_covers_its_band_once() -> None:
    vm = space(*[(PAGE * i, PAGE, i % 7) for i in range(300)], size=300 * PAGE)
    (band,) = cut(pieces(vm))
    raster = lay_out(band, 720.0, 20)
    assert raster.origin <= band.addr
    assert raster.origin + raster.rows * raster.row_bytes >= band.end
    assert raster.rows <= 21
    spans = list(raster.spans(band.addr, band.end))
    assert sum(right - left for _, left, right in spans) == pytest.approx(band.end / raster.bytes_a_pixel)
    drawn = draw(band, raster, 0, 0)
    assert sorted(drawn.by_number) == list(range(7))
    assert drawn.crowded == 0


def test_mappings_narrower_than_a_pixel_share_it_and_it_is_said() -> None:
    vm = space(*[(PAGE * i, PAGE, 1 + i % 2) for i in range(20_000)], size=20_000 * PAGE)
    root = svg_of(vm)
    assert "mappings share a pixel" in words(root)
    assert len(ElementTree.tostring(root)) < 500_000


def test_the_picture_says_what_it_shows() -> None:
    vm = space((PAGE, 2 * PAGE, 7), (1 << 30, 3 << 20, 0), node=(1 << 39, 1 << 39))
    vm.region_insert(1 << 34, 1 << 20, sparse=True)
    text = words(svg_of(vm, "trace.jsonl:60, client 2"))
    for expected in (
        "trace.jsonl:60, client 2",
        "GPU VA space [0x0, 0x8000_0000_0000), 128 TiB",
        "2 mappings of 1 object, 3.01 MiB mapped, 1 sparse region; largest hole 127 TiB, fragmentation 0.4%",
        "bo 7",
        "8 KiB, offset 0x1000",
        "no object",
        "kernel reserved node",
        "sparse region, 1 MiB, [0x4_0000_0000, 0x4_0010_0000)",
        "1 MiB sparse, unbound",
        "hole, 127 TiB",
        "bo 7: 8 KiB, 1 mapping",
        "holes are compressed",
        "0x4_0000_0000",
        "0x8000_0000_0000",
    ):
        assert expected in text


def test_an_empty_space() -> None:
    text = words(svg_of(space(size=1 << 20)))
    assert "nothing is mapped; largest hole 1 MiB, fragmentation 0.0%" in text
    assert "hole, 1 MiB" in text
    assert "objects by size" not in text


def test_a_full_space() -> None:
    text = words(svg_of(space((0, PAGE, 1), size=PAGE)))
    assert "largest hole 0 B, fragmentation 0.0%" in text


def test_titles_are_escaped() -> None:
    text = words(svg_of(space(size=PAGE), "<a> & \x01 b"))
    assert text.startswith("<a> & ? b")


def test_attributes_are_escaped() -> None:
    svg = Svg(10)
    svg.rect(0, 0, 1, 1, "red", title="a<b", stroke_width='"2"')
    root = ElementTree.fromstring(svg.document(10, "t", ""))
    assert [one.get("stroke-width") for one in root.iter() if one.get("stroke-width")] == ['"2"']


def test_colours_follow_from_the_number() -> None:
    colours = [object_colour(number) for number in range(200)]
    assert colours == [object_colour(number) for number in range(200)]
    assert colours[0] == NO_OBJECT
    assert len(set(colours[:60])) == 60
    assert all(len(colour) == 7 and text_colour(colour) for colour in colours)
