//! Reading tables as the hardware does: from the words alone.

use super::layout::{Layout, Level, Match};
use super::vram::Vram;

pub const VALID: u8 = 0;
pub const SPARSE: u8 = 1;
pub const INVALID: u8 = 2;

/// Why an address faults, by the hardware's numbers: no entry of a directory, none of a page table, a table that is
/// not in VRAM.
const NO_PDE: u8 = 0x0;
const NO_PTE: u8 = 0x2;
const UNSUPPORTED_APERTURE: u8 = 0xa;

/// Addresses that lead to contiguous bytes, or to none, as an array in memory has them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    pub va: u64,
    pub range: u64,
    pub address: u64,
    pub aperture: u8,
    pub state: u8,
    pub kind: u8,
    pub flags: u8,
    pub pad: [u8; 4],
}

/// The bytes of a run.
pub type Record = [u8; size_of::<Run>()];

impl Run {
    /// The run that was written to memory as these bytes; any are one.
    #[inline(always)]
    pub fn of_record(record: &Record) -> Run {
        // SAFETY: a run is integers without gaps between them, and as long as the record.
        unsafe { std::mem::transmute_copy(record) }
    }

    fn nothing(va: u64, range: u64, state: u8) -> Run {
        Run { va, range, state, ..Run::default() }
    }

    /// The part of this run in `[from, to)`, which it overlaps.
    fn clip(self, from: u64, to: u64) -> Run {
        let (start, end) = (self.va.max(from), (self.va + self.range).min(to));
        let skipped = if self.state == VALID { start - self.va } else { 0 };
        Run { va: start, range: end - start, address: self.address + skipped, ..self }
    }

    fn is_continued_by(&self, next: &Run) -> bool {
        let address = if self.state == VALID { self.address + self.range } else { 0 };
        (self.aperture, self.state, self.kind, self.flags, address)
            == (next.aperture, next.state, next.kind, next.flags, next.address)
    }
}

/// What one address leads to: the entry that says so.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// All that the entry spans.
    pub run: Run,
    pub level: usize,
    pub word: u64,
    /// If the run is invalid, why.
    pub fault: u8,
}

/// The tables below `root` in VRAM.
#[derive(Clone, Copy)]
pub struct Walk<'a> {
    pub layout: &'a Layout,
    pub vram: Vram,
    pub root: u64,
}

/// What the words of an entry say.
enum Entry {
    Page,
    Sparse,
    Stop,
    /// Pointers to tables below.
    Tables([Option<Below>; 2]),
    /// Of the larger table of a pair: it leaves the decision to the smaller one.
    Consult,
}

/// Where a table is in VRAM, and the flags that the pointer gives all below; None if it is out of reach.
type Below = Option<(u64, u8)>;

impl Walk<'_> {
    /// Decode the low word of the entry at `at`, with the high word where there is one.
    #[inline]
    fn entry(&self, number: usize, at: u64, word: u64) -> Entry {
        let level = &self.layout.levels[number];
        if level.leaf.matches(word) {
            return Entry::Page;
        }
        let ways = self.layout.ways(number);
        if ways > 0 {
            let mut tables = [self.below(number + 1, word), None];
            if ways == 2 {
                tables[1] = self.below(self.layout.last(), self.vram.load(at + 8));
            }
            if tables != [None, None] {
                return Entry::Tables(tables);
            }
        }
        if level.sparse.matches(word) {
            Entry::Sparse
        } else if self.layout.larger() == Some(number) && !level.stop.matches(word) {
            Entry::Consult
        } else {
            Entry::Stop
        }
    }

    /// The pointer to a table of level `number` that a word is. Nothing is read outside of VRAM, whatever it says.
    fn below(&self, number: usize, word: u64) -> Option<Below> {
        let pointer = self.layout.pointer(number);
        let addr = pointer.addr(word)?;
        let reached =
            pointer.vram.matches(word) && self.vram.holds(addr, self.layout.levels[number].table_bytes);
        Some(reached.then(|| (addr, flags_of(&pointer.flags, word))))
    }

    /// What a page's word says; `va` is where it is mapped.
    fn page(&self, level: &Level, va: u64, word: u64, flags: u8) -> Run {
        let page = &self.layout.page;
        Run {
            va,
            range: 1 << level.shift,
            address: (word & self.layout.address_mask(level, word)) << page.address_shift,
            aperture: page.aperture(word) as u8,
            state: VALID,
            kind: page.kind(word),
            flags: flags | flags_of(&page.flags, word),
            pad: [0; 4],
        }
    }

    /// The entry that decides about `va`.
    pub fn translate(&self, va: u64) -> Found {
        let mut table = Table { number: 0, addr: self.root, flags: 0 };
        // Of a pair, where to go when the larger table does not decide: the smaller one, or the fault without it.
        let mut smaller = None;
        loop {
            let level = &self.layout.levels[table.number];
            let at = table.addr + level.index(va) as u64 * level.entry_bytes;
            let word = self.vram.load(at);
            let base = va >> level.shift << level.shift;
            let found = |run| Found { run, level: table.number, word, fault: 0 };
            let fault = |way, word| Err(self.fault(base, table.number, way, word));
            let next = match self.entry(table.number, at, word) {
                Entry::Page => return found(self.page(level, base, word, table.flags)),
                Entry::Sparse => return found(Run::nothing(base, 1 << level.shift, SPARSE)),
                Entry::Stop => fault(0, word),
                Entry::Consult => smaller.unwrap_or_else(|| fault(0, word)),
                Entry::Tables(tables) => {
                    let [first, second] = self.tables(&table, tables);
                    let high = || fault(1, self.vram.load(at + 8));
                    if tables[0].is_none() {
                        first.map_or_else(high, Ok)
                    } else {
                        smaller = tables[1].map(|_| second.map_or_else(high, Ok));
                        first.map_or_else(|| fault(0, word), Ok)
                    }
                }
            };
            match next {
                Ok(next) => table = next,
                Err(fault) => return fault,
            }
        }
    }

    /// The entry at `base` of a level leads nowhere; `word` is that of it which says so, of way `way`.
    fn fault(&self, base: u64, number: usize, way: usize, word: u64) -> Found {
        let level = &self.layout.levels[number];
        let fault = match &level.pointers[way] {
            None => NO_PTE,
            Some(pointer) if pointer.addr(word).is_some() && !pointer.vram.matches(word) => {
                UNSUPPORTED_APERTURE
            }
            Some(_) => NO_PDE,
        };
        Found { run: Run::nothing(base, 1 << level.shift, INVALID), level: number, word, fault }
    }

    /// The table to look at first, and the one that it may leave the decision to.
    #[inline]
    fn tables(&self, above: &Table, tables: [Option<Below>; 2]) -> [Option<Table>; 2] {
        let table = |number, (addr, flags)| Table { number, addr, flags: above.flags | flags };
        let second = tables[1].flatten().map(|below| table(self.layout.last(), below));
        match tables[0] {
            Some(first) => [first.map(|below| table(above.number + 1, below)), second],
            None => [second, None],
        }
    }

    /// What `[from, to)` leads to, until `runs` is full; where to go on.
    pub fn runs(&self, from: u64, to: u64, runs: &mut Runs<'_>) -> u64 {
        let root = Table { number: 0, addr: self.root, flags: 0 };
        if self.scan(root, from, to, runs) && runs.flush() {
            return to;
        }
        runs.next
    }

    /// Emit what the entries of one table lead to in `[from, to)`, which it spans; false if `runs` is full.
    fn scan(&self, table: Table, from: u64, to: u64, runs: &mut Runs<'_>) -> bool {
        let level = &self.layout.levels[table.number];
        if self.layout.ways(table.number) == 0 {
            return self.scan_leaf(table, from, to, runs);
        }
        let mut va = from;
        while va < to {
            let at = table.addr + level.index(va) as u64 * level.entry_bytes;
            let word = self.vram.load(at);
            let base = va >> level.shift << level.shift;
            let end = (base + (1 << level.shift)).min(to);
            let going = match self.entry(table.number, at, word) {
                Entry::Page => runs.emit(self.page(level, base, word, table.flags).clip(from, to)),
                Entry::Sparse => runs.emit(Run::nothing(va, end - va, SPARSE)),
                Entry::Tables(tables) => match self.tables(&table, tables) {
                    [Some(larger), smaller] if self.layout.larger() == Some(larger.number) => {
                        self.scan_pair(larger, smaller, va, end, runs)
                    }
                    [Some(below), _] => self.scan(below, va, end, runs),
                    [None, _] => runs.emit(Run::nothing(va, end - va, INVALID)),
                },
                Entry::Stop | Entry::Consult => runs.emit(Run::nothing(va, end - va, INVALID)),
            };
            if !going {
                return false;
            }
            va = end;
        }
        true
    }

    fn scan_pair(
        &self,
        table: Table,
        smaller: Option<Table>,
        from: u64,
        to: u64,
        runs: &mut Runs<'_>,
    ) -> bool {
        let Table { number, addr, flags } = table;
        let level = &self.layout.levels[number];
        let mut va = from;
        while va < to {
            let at = addr + level.index(va) as u64 * level.entry_bytes;
            let word = self.vram.load(at);
            let base = va >> level.shift << level.shift;
            let end = (base + (1 << level.shift)).min(to);
            let going = match (self.entry(number, at, word), smaller) {
                (Entry::Page, _) => runs.emit(self.page(level, base, word, flags).clip(from, to)),
                (Entry::Sparse, _) => runs.emit(Run::nothing(va, end - va, SPARSE)),
                (Entry::Consult, Some(table)) => self.scan_leaf(table, va, end, runs),
                _ => runs.emit(Run::nothing(va, end - va, INVALID)),
            };
            if !going {
                return false;
            }
            va = end;
        }
        true
    }

    /// Entries without tables below: as many at a time as continue the first of them.
    fn scan_leaf(&self, table: Table, from: u64, to: u64, runs: &mut Runs<'_>) -> bool {
        let level = &self.layout.levels[table.number];
        let first = level.index(from) as u64;
        let count = ((to - 1) >> level.shift) - (from >> level.shift) + 1;
        let word_at = |index: u64| self.vram.load(table.addr + (first + index) * 8);
        let start = from >> level.shift << level.shift;
        let mut index = 0;
        while index < count {
            let word = word_at(index);
            let page = level.leaf.matches(word);
            let (mask, step) =
                if page { (self.layout.address_mask(level, word), level.step) } else { (0, 0) };
            let (mut address, mut pages) = (word & mask, 1);
            while index + pages < count {
                let next = word_at(index + pages);
                // The address one step on, all other bits the same.
                address = address.wrapping_add(step);
                if next & mask != address || (next ^ word) & !mask != 0 {
                    break;
                }
                pages += 1;
            }
            let (va, range) = (start + (index << level.shift), pages << level.shift);
            let run = if page {
                Run { range, ..self.page(level, va, word, table.flags) }
            } else {
                Run::nothing(va, range, if level.sparse.matches(word) { SPARSE } else { INVALID })
            };
            if !runs.emit(run.clip(from, to)) {
                return false;
            }
            index += pages;
        }
        true
    }
}

/// A table on the way down, and the flags that pointers on the way gave all below.
#[derive(Clone, Copy)]
struct Table {
    number: usize,
    addr: u64,
    flags: u8,
}

/// Which of `tests` match, as bits.
#[inline(always)]
fn flags_of(tests: &[Match], word: u64) -> u8 {
    tests.iter().enumerate().map(|(bit, test)| u8::from(test.matches(word)) << bit).sum()
}

/// Where runs go: neighbours that continue each other become one.
pub struct Runs<'a> {
    out: &'a mut [Run],
    pub count: usize,
    current: Option<Run>,
    /// Where to go on once `out` is full.
    next: u64,
}

impl<'a> Runs<'a> {
    pub fn new(out: &'a mut [Run]) -> Self {
        Runs { out, count: 0, current: None, next: 0 }
    }

    /// Add a run; false if there is no room for another.
    fn emit(&mut self, run: Run) -> bool {
        match &mut self.current {
            Some(current) if current.is_continued_by(&run) => current.range += run.range,
            _ => {
                if !self.flush() {
                    return false;
                }
                self.next = run.va;
                self.current = Some(run);
            }
        }
        true
    }

    /// Write the run that is being extended; false without room for it.
    fn flush(&mut self) -> bool {
        let Some(run) = self.current.take() else { return true };
        let Some(place) = self.out.get_mut(self.count) else {
            self.next = run.va;
            return false;
        };
        *place = run;
        self.count += 1;
        true
    }
}
