"""Random requests, dense enough that mappings touch, overlap, continue and cover each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from page_model import WORD, PageModel

KINDS = ("map",) * 24 + ("unmap",) * 10 + ("prefetch",) * 3 + ("madvise",)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of cells `[first, last)`."""

    kind: str
    first: int
    last: int
    bo: int = 0
    offset: int = 0
    flags: int = 0

    @property
    def pages(self) -> list[int]:
        return list(range(self.first, self.last))


def requests(
    random: Random, model: PageModel, count: int, *, objects: int = 3, longest: int = 12
) -> Iterator[Request]:
    """`count` requests; each is drawn with a look at what the model holds by then."""
    for _ in range(count):
        first = random.randrange(len(model.grid))
        length = min(random.choice((1, 1, 2, 3, random.randint(1, longest))), len(model.grid) - first)
        pages = _aligned_with_a_mapping(random, model, first, first + length)
        kind = random.choice(KINDS)
        if kind != "map":
            yield Request(kind, *pages)
            continue
        bo, offset, flags = _content(random, model, pages[0], objects)
        yield Request(kind, *pages, bo, offset, flags)


def _aligned_with_a_mapping(random: Random, model: PageModel, first: int, last: int) -> tuple[int, int]:
    """Often make a border coincide with a mapping's: that is where the cases of the tables differ."""
    cell = model.cells.get(first)
    if cell is None or random.random() < 0.5:
        return first, last
    owned = model.pages(cell.owner)
    first = random.choice((owned[0], first, owned[-1] + 1 if owned[-1] + 1 < len(model.grid) else first))
    last = random.choice((owned[-1] + 1, max(last, first + 1)))
    return (first, last) if first < last else (owned[0], owned[-1] + 1)


def _content(random: Random, model: PageModel, first: int, objects: int) -> tuple[int, int, int]:
    """Object, offset and flags; usually such that equal objects continue each other."""
    bo = random.randint(0, objects)
    flags = 4 * random.choice((0, 0, 0, 0, 1))
    addr = model.grid.edges[first]
    offset = random.choice((addr, addr, addr, 0, (addr - 7) % WORD, WORD - 1))
    near = model.cells.get(first)
    if near is not None and random.random() < 0.3:
        bo, offset, flags = near.content
    return bo, offset, flags
