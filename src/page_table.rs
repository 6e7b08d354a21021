//! Page tables: raw operations on words in VRAM, and the counts that say which tables there are.
//!
//! What a word is at any moment: the page, if one is mapped by this very entry; else the pointer to the table
//! below, if there is one; else sparse, if a sparse range lies over the entry; else invalid. Of a pair of tables the
//! larger entry says "consult the smaller ones" instead of sparse or invalid while one of those is of use. So a page
//! covers what is below it, whose tables and pages may come and go meanwhile.
//!
//! Whether a larger entry is valid is one bit of it, and whether smaller ones are of use is read off them: the two
//! are never one count, which is how putting small pages away once overwrote a valid large one (nouveau, 2026).

pub mod check;
mod get;
mod layout;
mod map;
mod node;
mod put;
mod sparse;
pub mod statistics;
pub mod translate;
mod vram;

pub use get::{Table, Wanted};
pub use layout::{Layout, Level, Match, Page, Pointer};
pub use node::Node;
pub use vram::Vram;

use crate::arena::Arena;
use crate::memory::Refused;
use crate::tree::NONE;
use layout::LEVELS;
use node::{CONSULT, COVERED, PAGE, SPARSE};
use statistics::Written;

/// The root's id.
const ROOT: u32 = 0;

/// Why a call was refused; nothing was changed.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// No pages of this shift.
    Shift(u32),
    /// An empty range, one that is no multiple of `1 << shift`, or one that leaves the space.
    Range(u64, u64, u32),
    /// The slot at this address has no reference.
    NotReferenced(u64),
    /// The slot at this address would lose its last reference while a page is mapped there.
    Mapped(u64),
    /// The slot at this address has as many references as can be counted.
    Saturated(u64),
    /// No word of this kind maps a page here.
    Word(u64),
    /// The last page's address does not fit into a word.
    Address(u64),
    /// No table of this many bytes can be there.
    Place(u64, u64),
    /// The format has no sparse entries.
    NoSparse,
    /// This range is sparse already.
    Sparse(u64, u64),
    /// Nobody made the range sparse.
    NotSparse,
    Memory(Refused),
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Refusal::Memory(refused)
    }
}

/// Entries of one size: `[start, end)` at a level.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    level: usize,
    start: u64,
    end: u64,
}

/// The entries of a piece that are in one table.
struct Part {
    id: u32,
    first: usize,
    count: usize,
    end: u64,
}

pub struct PageTable {
    pub layout: Layout,
    vram: Vram,
    nodes: Arena<Node, 64>,
    /// Nodes without table, chained by `parent`.
    spare: u32,
    spares: usize,
    /// Tables that nothing points to any more, chained by `parent`, for the caller to give back.
    freed: u32,
    /// Sparse ranges, [start, end), in address order.
    ranges: Vec<(u64, u64)>,
    written: Written,
}

impl PageTable {
    /// The tables of an empty address space: an empty root at `root`.
    pub fn new(layout: Layout, vram: Vram, root: u64) -> Result<Self, Refusal> {
        let mut nodes = Arena::new();
        nodes.reserve(1, &Node::FREE)?;
        let node = Node::new(&layout, 0, root)?;
        let mut tables = PageTable {
            layout,
            vram,
            nodes,
            spare: NONE,
            spares: 0,
            freed: NONE,
            ranges: Vec::new(),
            written: Written::default(),
        };
        tables.check_place(0, root)?;
        tables.nodes.push(node);
        tables.write_empty(ROOT);
        Ok(tables)
    }

    /// Where the root is.
    pub fn root(&self) -> u64 {
        self.nodes[ROOT].addr
    }

    /// True if no slot is referenced and nothing is sparse.
    pub fn idle(&self) -> bool {
        self.nodes[ROOT].uses == 0
    }

    fn level(&self, id: u32) -> &Level {
        &self.layout.levels[self.nodes[id].level as usize]
    }

    fn check_place(&self, level: usize, addr: u64) -> Result<(), Refusal> {
        let bytes = self.layout.levels[level].table_bytes;
        let reached = level == 0 || self.layout.pointer(level).holds(addr);
        if addr.is_multiple_of(bytes) && self.vram.holds(addr, bytes) && reached {
            Ok(())
        } else {
            Err(Refusal::Place(addr, bytes))
        }
    }

    /// The end of a range, which must be a whole number of units.
    fn end_of(&self, addr: u64, range: u64, shift: u32) -> Result<u64, Refusal> {
        let whole = (addr | range).trailing_zeros() >= shift && range > 0;
        let end = addr.checked_add(range).filter(|end| *end <= 1 << self.layout.va_bits());
        end.filter(|_| whole).ok_or(Refusal::Range(addr, range, shift))
    }

    /// The page slots of a request.
    fn slots(&self, addr: u64, range: u64, shift: u32) -> Result<Piece, Refusal> {
        let pages = |level: &Level| level.pages && level.shift == shift;
        let level = self.layout.levels.iter().position(pages).ok_or(Refusal::Shift(shift))?;
        Ok(Piece { level, start: addr, end: self.end_of(addr, range, shift)? })
    }

    /// The table of `level` that translates `va`; without one, the last table on the way to it.
    #[inline]
    fn find(&self, level: usize, va: u64) -> Result<u32, u32> {
        let (mut id, mut at) = (ROOT, 0);
        while at != level {
            let next = self.layout.towards(at, level);
            let child = self.child(id, self.layout.levels[at].index(va), next);
            if child == NONE {
                return Err(id);
            }
            (id, at) = (child, next);
        }
        Ok(id)
    }

    /// The table of level `next` below entry `index`.
    #[inline]
    fn child(&self, id: u32, index: usize, next: usize) -> u32 {
        let node = &self.nodes[id];
        node.children[index * self.layout.ways(node.level as usize) + self.layout.way(next)]
    }

    /// The entries of `piece` from `va` on that are in one table; without it, the last table on the way.
    ///
    /// `near` remembers the table above for the next call, NONE at first.
    #[inline]
    fn part(&self, piece: &Piece, va: u64, near: &mut u32) -> Result<Part, u32> {
        let level = &self.layout.levels[piece.level];
        let start = va >> level.table_shift() << level.table_shift();
        let id = if self.spans(*near, va) {
            let child = self.child(*near, self.level(*near).index(va), piece.level);
            if child == NONE {
                return Err(*near);
            }
            child
        } else {
            let id = self.find(piece.level, va)?;
            *near = self.nodes[id].parent;
            id
        };
        let end = piece.end.min(start + (1 << level.table_shift()));
        Ok(Part { id, first: level.index(va), count: ((end - va) >> level.shift) as usize, end })
    }

    /// Whether a table, if it is one, translates `va`.
    #[inline]
    fn spans(&self, id: u32, va: u64) -> bool {
        id != NONE && (va ^ self.nodes[id].va) >> self.level(id).table_shift() == 0
    }

    /// The word that entry `index` shows while no page is mapped by it.
    #[inline]
    fn below(&self, id: u32, index: usize) -> u64 {
        let node = &self.nodes[id];
        let number = node.level as usize;
        let (level, ways) = (&self.layout.levels[number], self.layout.ways(number));
        let children = if ways == 0 { &[] } else { &node.children[index * ways..][..ways] };
        match children {
            [first, ..] if *first != NONE => self.layout.pointer(number + 1).to(self.nodes[*first].addr),
            [_, second] if *second != NONE => level.empty().word(CONSULT),
            _ => level.empty().word(node.flags[index]),
        }
    }

    /// Write the low word of entry `index` anew, unless a page is mapped there.
    fn rewrite(&mut self, id: u32, index: usize) {
        let node = &self.nodes[id];
        if node.flags[index] & PAGE == 0 {
            self.vram.store(node.word_at(self.level(id), index), self.below(id, index));
            self.written.pointers += 1;
        }
    }

    /// Write all words of a table that has neither pages nor tables below it.
    fn write_empty(&mut self, id: u32) {
        let (node, level) = (&self.nodes[id], self.level(id));
        self.vram.fill(node.addr, 8, (level.table_bytes / 8) as usize, 0, 0);
        let (empty, flags) = (level.empty(), &node.flags[..level.entries()]);
        self.vram.each(node.addr, level.entry_bytes as usize, flags.len(), |index| empty.word(flags[index]));
        self.written.initialised += level.entries() as u64;
    }

    /// The other table of the pair that `id` is of, NONE if it is missing; `id` may be of any level.
    fn sibling(&self, id: u32) -> u32 {
        let node = &self.nodes[id];
        let number = node.level as usize;
        let other = match (self.layout.larger(), self.layout.smaller()) {
            (Some(larger), Some(smaller)) if number == smaller => larger,
            (Some(larger), Some(smaller)) if number == larger => smaller,
            _ => return NONE,
        };
        let index = self.level(node.parent).index(node.va);
        self.child(node.parent, index, other)
    }

    /// After uses of smaller entries of a pair changed: the larger ones say whether to consult them.
    fn refresh_consult(&mut self, smaller: u32, first: usize, count: usize) {
        if self.layout.smaller() != Some(self.nodes[smaller].level as usize) {
            return;
        }
        let larger = self.sibling(smaller);
        if larger == NONE {
            return;
        }
        let group = self.layout.group();
        for index in first / group..(first + count).div_ceil(group) {
            let consult = self.nodes[smaller].in_use(index * group, group);
            let flags = &mut self.nodes[larger].flags[index];
            if (*flags & CONSULT != 0) != consult {
                *flags ^= CONSULT;
                self.rewrite(larger, index);
            }
        }
    }
}
