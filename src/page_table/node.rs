//! What the core knows of one table besides its words.

use super::layout::{Layout, Level};
use crate::memory::{Refused, reserve};
use crate::tree::NONE;

/// A page is mapped by the entry.
pub const PAGE: u8 = 1;
/// A sparse range has the whole entry as one of its pieces.
pub const SPARSE: u8 = 2;
/// A sparse range has a larger entry as a piece, and this one lies under it.
pub const COVERED: u8 = 4;
/// Of a pair's larger entry: smaller entries under it are referenced or pieces of sparse ranges, so look there.
pub const CONSULT: u8 = 8;

#[derive(Clone)]
pub struct Node {
    /// Where the table is in VRAM.
    pub addr: u64,
    /// First address that it translates.
    pub va: u64,
    pub level: u8,
    /// The table above; of a table that is free, the next such one.
    pub parent: u32,
    /// References, sparse pieces and tables below, together. A table of no use is freed.
    pub uses: u64,
    /// References of page slots, by entry; empty if pages have other sizes.
    pub refs: Vec<u16>,
    pub flags: Vec<u8>,
    /// Tables below, by entry, two for each where tables come in pairs; empty at the lowest levels.
    pub children: Vec<u32>,
}

impl Node {
    /// Stands in an arena where no table is.
    pub const FREE: Node = Node {
        addr: 0,
        va: 0,
        level: 0,
        parent: NONE,
        uses: 0,
        refs: Vec::new(),
        flags: Vec::new(),
        children: Vec::new(),
    };

    /// A table at `addr` that no other points to yet.
    pub fn new(layout: &Layout, number: usize, addr: u64) -> Result<Node, Refused> {
        let level = &layout.levels[number];
        let slots = if level.pages { level.entries() } else { 0 };
        let mut node = Node { addr, level: number as u8, ..Node::FREE };
        reserve(&mut node.refs, slots)?;
        reserve(&mut node.flags, level.entries())?;
        reserve(&mut node.children, level.entries() * layout.ways(number))?;
        node.refs.resize(slots, 0);
        node.flags.resize(level.entries(), 0);
        node.children.resize(level.entries() * layout.ways(number), NONE);
        Ok(node)
    }

    /// Where the word of entry `index` is; of a pair of words, the low one.
    #[inline(always)]
    pub fn word_at(&self, level: &Level, index: usize) -> u64 {
        self.addr + index as u64 * level.entry_bytes
    }

    /// First address of entry `index`.
    #[inline(always)]
    pub fn va_of(&self, level: &Level, index: usize) -> u64 {
        self.va + ((index as u64) << level.shift)
    }

    /// True if one of `count` entries from `first` on is of use by itself.
    #[inline(always)]
    pub fn in_use(&self, first: usize, count: usize) -> bool {
        let refs = self.refs[first..first + count].iter().fold(0, |all, refs| all | refs);
        let flags = self.flags[first..first + count].iter().fold(0, |all, flags| all | flags);
        refs != 0 || flags & SPARSE != 0
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.refs) + size_of_val(&*self.flags) + size_of_val(&*self.children)
    }
}
