"""Page tables, the CPU's MMU and a model of pages: the same calls, the same bytes, the same faults."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from backend_model import NOWHERE, PAGE, SHIFTS, SPARSE, Model, ModelFault
from gpuvm.errors import GpuvmError, PageFault
from gpuvm.mem import Aperture, Extent
from gpuvm.mem.memory import Memory
from gpuvm.mmu.access import AddressSpace
from gpuvm.mmu.backend import Backend
from gpuvm.mmu.formats.format import PteFlags
from gpuvm.mmu.formats.gp100 import GP100
from gpuvm.mmu.host import HostBackend
from gpuvm.mmu.page_table import PageTable
from gpuvm.mmu.translation import Fault, FaultType, Translation
from host_world import GART, K64, M2, VRAM, stamped_memories
from suite import scaled
from table_memory import ArrayMemory

START = (1 << 38) - M2
"""Tables of every level end within the range."""
LENGTH = 2 * M2
FLAGS = [PteFlags(flags) for flags in (0, 0, 0, PteFlags.READ_ONLY, PteFlags.PRIVILEGED)]
Where = tuple[int, int, int]


class Party:
    """A backend over memories of its own, which hold the same bytes as the others'."""

    def __init__(self, memories: dict[Aperture, Memory], backend: Backend) -> None:
        self.backend = backend
        self.memories = memories
        self.engines = [AddressSpace(backend, memories, privileged=driver) for driver in (False, True)]


def outcome(call: Callable[[], object]) -> object:
    """What a call answers, or how it is refused."""
    try:
        return call()
    except PageFault as error:
        fault = error.value
        assert isinstance(fault, Fault)
        nothing_there = fault.reason in (FaultType.PDE, FaultType.PTE)
        return fault.va, fault.access, None if nothing_there else fault.reason
    except ModelFault as fault:
        return fault.args
    except GpuvmError as error:
        return type(error)


@st.composite
def ranges(draw: st.DrawFn) -> Where:
    """Address, range and shift: mostly around borders of larger pages."""
    shift = draw(st.sampled_from(SHIFTS))
    near = [border + (step << shift) for border in (0, K64, M2) for step in (-2, -1, 0, 1, 15)]
    first = draw(st.sampled_from([addr & -1 << shift for addr in near if 0 <= addr < LENGTH]))
    range_ = draw(st.sampled_from([1, 1, 2, 3, 16, 32])) << shift
    return START + first, min(range_, LENGTH - first), shift


@st.composite
def pieces(draw: st.DrawFn) -> tuple[int, int]:
    """Address and length of an access."""
    first = draw(st.one_of(st.integers(0, LENGTH - 1), st.sampled_from([0, K64 - 3, M2 - 5])))
    return START + first, min(draw(st.sampled_from([1, 8, PAGE + 1, K64, LENGTH])), LENGTH - first)


class Agreement(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        own, tables = stamped_memories(LENGTH), stamped_memories(LENGTH)
        self.host = HostBackend(START, LENGTH, own)
        self.tables = PageTable(GP100, ArrayMemory())
        self.parties = [Party(own, self.host), Party(tables, self.tables)]
        self.model = Model(START, LENGTH, {aperture: memory.view for aperture, memory in own.items()})
        self.got: list[Where] = []

    def all_do(self, call: Callable[[Party], object], model: Callable[[], object]) -> object:
        """The same of both and of the model."""
        expected = outcome(model)
        for party in self.parties:
            assert outcome(lambda party=party: call(party)) == expected, party.backend  # type: ignore[misc]
        return expected

    # -- the five calls

    @rule(where=ranges())
    def get(self, where: Where) -> None:
        self.all_do(lambda party: party.backend.get(*where), lambda: self.model.get(*where))
        self.got.append(where)

    @rule(where=ranges(), flags=st.sampled_from(FLAGS), data=st.data())
    def get_and_map(self, where: Where, flags: PteFlags, data: st.DataObject) -> None:
        self.get(where)
        self.map_there(where, flags, data)

    @precondition(lambda self: self.got)
    @rule(flags=st.sampled_from(FLAGS), data=st.data())
    def map(self, flags: PteFlags, data: st.DataObject) -> None:
        self.map_there(data.draw(st.sampled_from(self.got)), flags, data)

    def map_there(self, where: Where, flags: PteFlags, data: st.DataObject) -> None:
        _, range_, shift = where
        aperture = data.draw(st.sampled_from([VRAM, GART])) if shift == 12 else VRAM
        last = (self.parties[0].memories[aperture].size - range_) >> shift
        first = data.draw(st.sampled_from([0, 1, 2, 3, 16, 17])) % (last + 1) << shift
        call = (*where, Extent(aperture, first, range_), 0, flags)
        self.all_do(lambda party: party.backend.map(*call), lambda: self.model.map(*call))

    @precondition(lambda self: self.got)
    @rule(data=st.data(), unmap=st.booleans(), put=st.booleans())
    def take_away(self, data: st.DataObject, unmap: bool, put: bool) -> None:
        where = data.draw(st.sampled_from(self.got))
        if unmap:
            self.all_do(lambda party: party.backend.unmap(*where), lambda: self.model.unmap(*where))
        if (
            put
            and self.all_do(lambda party: party.backend.put(*where), lambda: self.model.put(*where)) is None
        ):
            self.got.remove(where)

    @rule(where=ranges())
    def call_without_get(self, where: Where) -> None:
        """Mostly refused; a put that is not takes a reference of somebody else."""
        self.all_do(lambda party: party.backend.unmap(*where), lambda: self.model.unmap(*where))
        self.all_do(lambda party: party.backend.put(*where), lambda: self.model.put(*where))

    @rule(where=ranges(), ref=st.booleans(), data=st.data())
    def sparse(self, where: Where, ref: bool, data: st.DataObject) -> None:
        known = [*self.model.ranges.items()]
        addr, range_ = data.draw(st.sampled_from(known)) if known and not ref else where[:2]
        self.all_do(
            lambda party: party.backend.sparse(addr, range_, ref),
            lambda: self.model.make_sparse(addr, range_, ref),
        )

    # -- bytes

    @rule(piece=pieces(), driver=st.booleans())
    def read(self, piece: tuple[int, int], driver: bool) -> None:
        self.all_do(lambda party: party.engines[driver].read(*piece), lambda: self.model.read(*piece, driver))

    @rule(piece=pieces(), driver=st.booleans(), seed=st.integers(0, 255))
    def write(self, piece: tuple[int, int], driver: bool, seed: int) -> None:
        addr, length = piece
        data = (np.arange(length) * 7 + seed).astype(np.uint8).tobytes()
        self.all_do(
            lambda party: party.engines[driver].write(addr, data),
            lambda: self.model.write(addr, data, driver),
        )

    @rule(piece=pieces(), pattern=st.binary(min_size=1, max_size=9))
    def fill(self, piece: tuple[int, int], pattern: bytes) -> None:
        addr, length = piece
        data = (pattern * length)[:length]
        self.all_do(
            lambda party: party.engines[0].fill(addr, length, pattern), lambda: self.model.write(addr, data)
        )

    @rule(piece=pieces(), seed=st.integers(0, 255))
    def write_to_the_array(self, piece: tuple[int, int], seed: int) -> None:
        """What the CPU may write it writes; the others are told."""
        addr, length = piece
        length = min(length, PAGE - addr % PAGE)
        leads, flags, _ = self.model.shown()
        page = (addr - START) // PAGE
        if leads[page] >= 0 and not flags[page]:
            self.host.array[addr - START : addr - START + length] = seed
            self.parties[1].engines[0].write(addr, bytes([seed]) * length)
            self.model.write(addr, bytes([seed]) * length)

    # -- what must hold

    @invariant()
    def the_same_shows(self) -> None:
        if not hasattr(self, "model"):
            return
        expected = self.model.runs()
        for party in self.parties:
            assert list(party.backend.runs(START, LENGTH)) == expected

    @invariant()
    def the_array_has_these_bytes(self) -> None:
        """The first ones of each page that may be accessed."""
        if not hasattr(self, "model"):
            return
        leads, flags, _ = self.model.shown()
        words = self.host.array.view(np.uint64)
        for page in np.flatnonzero((leads != NOWHERE) & (flags & PteFlags.PRIVILEGED == 0))[::7].tolist():
            lead = int(leads[page])
            content = 0
            if lead != SPARSE:
                address = lead & (1 << 56) - 1
                content = int(
                    self.model.memory[Aperture(lead >> 56)][address : address + 8].view(np.uint64)[0]
                )
            assert int(words[page * PAGE // 8]) == content

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        self.require_equal_bytes()
        self.require_equal_translations()
        for party in self.parties:
            party.backend.check()
            for shift, references in self.model.references.items():
                mapped = self.model.leads[shift]
                for page in range(0, LENGTH // PAGE, (1 << shift) // PAGE):
                    where = (START + page * PAGE, 1 << shift, shift)
                    if mapped[page] != NOWHERE:
                        party.backend.unmap(*where)
                    for _ in range(int(references[page])):
                        party.backend.put(*where)
            for addr, range_ in self.model.ranges.items():
                party.backend.sparse(addr, range_, False)
            party.backend.check()
        assert sum(self.tables.statistics().tables.values()) == 1
        assert self.host.statistics().maps == 1
        for party in self.parties:
            party.backend.close()

    def require_equal_bytes(self) -> None:
        for party in self.parties:
            for aperture, memory in party.memories.items():
                assert (memory.view == self.model.memory[aperture]).all()

    def require_equal_translations(self) -> None:
        """Of the first page of each run, and of every ninth."""
        leads, flags, shifts = self.model.shown()
        pages = {(run.va - START) // PAGE for run in self.model.runs()} | {*range(0, LENGTH // PAGE, 9)}
        for party in self.parties:
            for page in pages:
                addr = START + page * PAGE + 5
                found = party.backend.translate(addr)
                if leads[page] < 0:
                    assert not isinstance(found, Translation)
                    assert isinstance(found, Fault) == (leads[page] == NOWHERE)
                    continue
                assert isinstance(found, Translation)
                assert (found.aperture << 56 | found.address) == leads[page] + 5
                assert (found.shift, found.kind, found.flags) == (shifts[page], 0, flags[page])


Agreement.TestCase.settings = settings(
    max_examples=scaled(10, 300), stateful_step_count=scaled(40, 80), print_blob=True
)
TestAgreement = Agreement.TestCase
