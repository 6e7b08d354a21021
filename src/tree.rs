//! B+tree of disjoint address ranges: start address -> (length, slot).
//!
//! Leaves hold the entries and are linked in address order. Every node knows its fences: the lowest key it may
//! hold (`lo`) and the lowest it may not (`hi`), so that a node found some requests ago can be checked instead
//! of searched again (see `bulk`). Keys are kept apart from lengths and slots, unused keys are all ones, and a
//! search counts `key <= x` over the whole array: no branch to mispredict.
//!
//! A mapping belongs to the leaf that its start falls into and may reach beyond that leaf's `hi`. No leaf is
//! empty, except the root of an empty tree; so a predecessor is never more than one leaf away.

use crate::arena::Arena;
use crate::processor::{self, prefetch_lines};

mod check;
mod edit;
mod node;
mod nodes;
mod refill;
mod room;

pub use node::{INNER_CAP, Inner, LEAF_CAP, Leaf, NONE};

/// A position: entry `index` of `leaf`; `index == len` stands for the first entry of the next leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub leaf: u32,
    pub index: u32,
}

/// One range of the tree and the slot that describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub addr: u64,
    pub range: u64,
    pub slot: u32,
}

impl Entry {
    pub fn end(&self) -> u64 {
        self.addr + self.range
    }
}

pub struct Tree {
    pub leaves: Arena<Leaf, 32>,
    pub inners: Arena<Inner, 32>,
    free_leaf: u32,
    free_inner: u32,
    free_leaves: usize,
    free_inners: usize,
    pub root: u32,
    /// Levels of inner nodes above the leaves; 0 when the root is a leaf.
    pub height: u8,
    pub len: usize,
    /// Inserts that room is kept for, come what may in between (see `space/promise`).
    pub(crate) promised: usize,
}

impl Tree {
    pub fn new() -> Self {
        let mut leaves = Arena::new();
        leaves.push(Leaf::new(0, u64::MAX));
        Tree {
            leaves,
            inners: Arena::new(),
            free_leaf: NONE,
            free_inner: NONE,
            free_leaves: 0,
            free_inners: 0,
            root: 0,
            height: 0,
            len: 0,
            promised: 0,
        }
    }

    #[inline(always)]
    pub fn leaf(&self, id: u32) -> &Leaf {
        &self.leaves[id]
    }

    #[inline(always)]
    pub fn inner(&self, id: u32) -> &Inner {
        &self.inners[id]
    }

    /// The leaf whose fences enclose `addr`; the last one for 2^64 - 1, where nothing can start.
    #[inline(always)]
    pub fn leaf_of(&self, addr: u64) -> u32 {
        let addr = addr.min(u64::MAX - 1);
        let mut id = self.root;
        for _ in 0..self.height {
            id = self.inner(id).child_of(addr);
        }
        id
    }

    /// The first entry that ends after `addr`, whose leaf is `leaf` and whose `upper_bound` there is `index`.
    #[inline(always)]
    pub fn first_ending_after(&self, leaf: u32, index: usize, addr: u64) -> Cursor {
        if index > 0 {
            let back = self.leaf(leaf).end(index - 1) > addr;
            return Cursor { leaf, index: (index - back as usize) as u32 };
        }
        self.straddler(leaf, addr).unwrap_or(Cursor { leaf, index: 0 })
    }

    /// The last entry of the leaf before, if it reaches beyond `addr`: fences go stale when entries leave.
    #[inline]
    fn straddler(&self, leaf: u32, addr: u64) -> Option<Cursor> {
        let leaf = self.leaf(leaf).prev;
        if leaf == NONE {
            return None;
        }
        let last = self.leaf(leaf).len as usize - 1;
        (self.leaf(leaf).end(last) > addr).then_some(Cursor { leaf, index: last as u32 })
    }

    /// The first entry that ends after `addr`.
    pub fn locate(&self, addr: u64) -> Cursor {
        let (leaf, found) = self.search(addr);
        self.first_ending_after(leaf, found, addr)
    }

    /// The leaf whose fences enclose `addr` and how many of its entries start at or before it.
    ///
    /// Compiled twice, for the vectors of the least processor and for wide ones.
    fn search(&self, addr: u64) -> (u32, usize) {
        #[cfg(target_arch = "x86_64")]
        if processor::has_avx2() {
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { self.search_avx2(addr) };
        }
        self.search_anywhere(addr)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2")]
    fn search_avx2(&self, addr: u64) -> (u32, usize) {
        self.search_anywhere(addr)
    }

    #[inline(always)]
    fn search_anywhere(&self, addr: u64) -> (u32, usize) {
        let leaf = self.leaf_of(addr);
        // Alone, a lookup waits for memory once for the keys and once for the rest, unless all is asked for now.
        prefetch_lines(self.leaves.address(leaf), 0, size_of::<Leaf>());
        let node = self.leaf(leaf);
        (leaf, node.upper_bound(addr).min(node.len as usize))
    }

    /// The entry at `cursor`, which is moved on to the next leaf when it stands behind its last entry.
    #[inline(always)]
    pub fn entry(&self, cursor: &mut Cursor) -> Option<Entry> {
        let mut leaf = self.leaf(cursor.leaf);
        if cursor.index >= leaf.len as u32 {
            if leaf.next == NONE {
                return None;
            }
            *cursor = Cursor { leaf: leaf.next, index: 0 };
            leaf = self.leaf(cursor.leaf);
            if leaf.len == 0 {
                return None;
            }
        }
        Some(leaf.entry(cursor.index as usize))
    }

    /// The entry before `cursor` and its position.
    pub fn before(&self, cursor: Cursor) -> Option<(Cursor, Entry)> {
        let at = if cursor.index > 0 {
            Cursor { leaf: cursor.leaf, index: cursor.index - 1 }
        } else {
            let leaf = self.leaf(cursor.leaf).prev;
            if leaf == NONE {
                return None;
            }
            Cursor { leaf, index: self.leaf(leaf).len as u32 - 1 }
        };
        Some((at, self.leaf(at.leaf).entry(at.index as usize)))
    }

    /// The entry that starts exactly at `addr`.
    pub fn get(&self, addr: u64) -> Option<Entry> {
        let (leaf, found) = self.search(addr);
        self.get_at(leaf, found, addr)
    }

    /// The entry that starts exactly at `addr`, whose leaf is `leaf` and whose `upper_bound` there is `index`.
    #[inline(always)]
    pub fn get_at(&self, leaf: u32, index: usize, addr: u64) -> Option<Entry> {
        let leaf = self.leaf(leaf);
        (index > 0 && leaf.keys[index - 1] == addr).then(|| leaf.entry(index - 1))
    }

    /// All entries from the first that ends after `addr`.
    pub fn iter_from(&self, addr: u64) -> impl Iterator<Item = Entry> + '_ {
        let mut cursor = self.locate(addr);
        std::iter::from_fn(move || {
            let entry = self.entry(&mut cursor)?;
            cursor.index += 1;
            Some(entry)
        })
    }

    pub fn first_leaf(&self) -> u32 {
        self.leaf_of(0)
    }

    pub fn last_leaf(&self) -> u32 {
        self.leaf_of(u64::MAX - 1)
    }

    pub fn leaf_count(&self) -> usize {
        self.leaves.len() - self.free_leaves
    }

    pub fn inner_count(&self) -> usize {
        self.inners.len() - self.free_inners
    }

    pub fn bytes(&self) -> usize {
        self.leaves.bytes() + self.inners.bytes()
    }
}
