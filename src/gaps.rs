//! Holes of the address space: the lowest, the highest or the smallest that fits, without walking every leaf.
//!
//! A hole belongs to the entry behind it; the one behind the last entry is looked at apart. Each inner node keeps
//! the largest hole below each child. Updates only mark what they touch (`Tree::mark_gaps`), one bit that is
//! mostly set already; a search first looks again at what is marked. So a workload without searches pays nothing.
//!
//! Only the kernel's node may lie outside the space; holes are clipped to it.
//!
//! Best fit needs holes by size. That index is made by the first such search. Later ones add the holes of leaves
//! that changed since; a hole that has gone is noticed when it is met, since a hole is easily looked up.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use crate::tree::{NONE, Tree};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    Lowest,
    Highest,
    Best,
}

/// What is looked for: `range` bytes at a multiple of `align`, inside `[start, end)`.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub range: u64,
    pub align: u64,
    pub start: u64,
    pub end: u64,
}

impl Wanted {
    /// The lowest address in the hole `[start, end)` that does.
    fn lowest_in(&self, start: u64, end: u64) -> Option<u64> {
        let start = start.max(self.start);
        let addr = match start % self.align {
            0 => start,
            rest => start.checked_add(self.align - rest)?,
        };
        let last = end.min(self.end).checked_sub(self.range)?;
        (addr <= last).then_some(addr)
    }

    /// The highest address in the hole `[start, end)` that does.
    fn highest_in(&self, start: u64, end: u64) -> Option<u64> {
        let last = end.min(self.end).checked_sub(self.range)?;
        let addr = last - last % self.align;
        (addr >= start.max(self.start)).then_some(addr)
    }
}

/// Holes of the space `[start, end)` whose mappings are in a tree.
pub struct Gaps {
    start: u64,
    end: u64,
    /// (size, address) of every hole but the last, and of some that are gone; made when first needed.
    by_size: Option<BTreeSet<(u64, u64)>>,
    /// Leaves refreshed since the index last took their holes in.
    unindexed: Vec<u32>,
}

impl Gaps {
    pub fn new(start: u64, end: u64) -> Self {
        Gaps { start, end, by_size: None, unindexed: Vec::new() }
    }

    pub fn bytes(&self) -> usize {
        // A B-tree of the standard library is about two thirds full.
        let index = self.by_size.as_ref().map_or(0, |index| index.len() * size_of::<(u64, u64)>() * 3 / 2);
        index + self.unindexed.capacity() * size_of::<u32>()
    }

    /// The address of a hole's part that is `wanted`, or None.
    pub fn find(&mut self, tree: &mut Tree, wanted: &Wanted, fit: Fit) -> Option<u64> {
        self.refresh(tree);
        match fit {
            Fit::Lowest => self.lowest(tree, wanted),
            Fit::Highest => self.highest(tree, wanted),
            Fit::Best => {
                self.refresh_index(tree);
                self.best(tree, wanted)
            }
        }
    }

    /// The largest hole's size.
    pub fn largest(&mut self, tree: &mut Tree) -> u64 {
        self.refresh(tree);
        let tail = self.tail(tree);
        let inside = if tree.height == 0 {
            self.largest_in_leaf(tree, tree.root)
        } else {
            let root = tree.inner(tree.root);
            root.gaps[..root.len as usize].iter().copied().max().unwrap_or(0)
        };
        inside.max(tail.1 - tail.0)
    }

    /// Every hole as (start, end), in address order. Walks every leaf.
    pub fn iter<'a>(&'a self, tree: &'a Tree) -> impl Iterator<Item = (u64, u64)> + 'a {
        let mut behind = self.start;
        let tail = self.tail(tree);
        tree.iter_from(0)
            .map(move |entry| self.clip(std::mem::replace(&mut behind, entry.end()), entry.addr))
            .chain([tail])
            .filter(|(start, end)| start < end)
    }

    /// The part of `[start, end)` inside the space, empty if there is none.
    fn clip(&self, start: u64, end: u64) -> (u64, u64) {
        let start = start.clamp(self.start, self.end);
        (start, end.clamp(start, self.end))
    }

    /// The hole behind the last entry; may be empty.
    fn tail(&self, tree: &Tree) -> (u64, u64) {
        self.clip(tree.leaf(tree.last_leaf()).last_end().unwrap_or(self.start), self.end)
    }

    /// Where the hole in front of the first entry of `leaf` begins.
    fn behind_previous(&self, tree: &Tree, leaf: u32) -> u64 {
        let prev = tree.leaf(leaf).prev;
        if prev == NONE {
            return self.start;
        }
        tree.leaf(prev).last_end().unwrap_or(self.start)
    }

    /// The holes in front of the entries of `leaf`, in address order.
    fn in_leaf<'a>(&'a self, tree: &'a Tree, leaf: u32) -> impl DoubleEndedIterator<Item = (u64, u64)> + 'a {
        let first = self.behind_previous(tree, leaf);
        let node = tree.leaf(leaf);
        (0..node.len as usize).map(move |index| {
            self.clip(if index == 0 { first } else { node.end(index - 1) }, node.keys[index])
        })
    }

    fn largest_in_leaf(&self, tree: &Tree, leaf: u32) -> u64 {
        self.in_leaf(tree, leaf).map(|(start, end)| end - start).max().unwrap_or(0)
    }

    /// Look again at everything that is marked.
    fn refresh(&mut self, tree: &mut Tree) {
        if tree.height > 0 {
            self.refresh_inner(tree, tree.root);
        } else if tree.leaf(tree.root).gap_stale {
            self.refresh_leaf(tree, tree.root);
        }
    }

    fn refresh_inner(&mut self, tree: &mut Tree, id: u32) {
        let node = tree.inner(id);
        let (len, height) = (node.len as usize, node.height);
        let mut stale = node.gap_stale & (u32::MAX >> (32 - len));
        while stale != 0 {
            let index = stale.trailing_zeros() as usize;
            stale &= stale - 1;
            let child = tree.inner(id).children[index];
            let largest = if height == 1 {
                self.refresh_leaf(tree, child)
            } else {
                self.refresh_inner(tree, child);
                let child = tree.inner(child);
                child.gaps[..child.len as usize].iter().copied().max().unwrap_or(0)
            };
            tree.inners[id].gaps[index] = largest;
        }
        tree.inners[id].gap_stale = 0;
    }

    fn refresh_leaf(&mut self, tree: &mut Tree, leaf: u32) -> u64 {
        tree.leaves[leaf].gap_stale = false;
        if self.by_size.is_some() {
            self.unindexed.push(leaf);
        }
        self.largest_in_leaf(tree, leaf)
    }

    /// Make the index by size, or take in what changed. Made anew when that is less work, or most of it is gone.
    fn refresh_index(&mut self, tree: &Tree) {
        let outdated = |index: &BTreeSet<_>| index.len() > 4 * tree.len + 1024;
        let changed = std::mem::take(&mut self.unindexed);
        match self.by_size.take().filter(|index| changed.len() < tree.leaf_count() && !outdated(index)) {
            Some(mut index) => {
                let holes = changed.iter().flat_map(|&leaf| self.in_leaf(tree, leaf)).filter(|(a, b)| a < b);
                index.extend(holes.map(|(a, b)| (b - a, a)));
                self.by_size = Some(index);
            }
            None => self.by_size = Some(self.iter(tree).map(|(a, b)| (b - a, a)).collect()),
        }
    }

    fn lowest(&self, tree: &Tree, wanted: &Wanted) -> Option<u64> {
        let search = Descent { gaps: self, tree, wanted };
        match search.upwards(tree.root, tree.height) {
            ControlFlow::Break(found) => found,
            ControlFlow::Continue(()) => {
                let (start, end) = self.tail(tree);
                wanted.lowest_in(start, end)
            }
        }
    }

    fn highest(&self, tree: &Tree, wanted: &Wanted) -> Option<u64> {
        let (start, end) = self.tail(tree);
        wanted.highest_in(start, end).or_else(|| {
            let search = Descent { gaps: self, tree, wanted };
            match search.downwards(tree.root, tree.height) {
                ControlFlow::Break(found) => found,
                ControlFlow::Continue(()) => None,
            }
        })
    }

    fn best(&mut self, tree: &Tree, wanted: &Wanted) -> Option<u64> {
        let mut index = self.by_size.take()?;
        let (tail_start, tail_end) = self.tail(tree);
        let in_tail = wanted.lowest_in(tail_start, tail_end);
        let mut gone = Vec::new();
        let mut found = None;
        for &(size, addr) in index.range((wanted.range, 0)..) {
            if in_tail.is_some() && (tail_end - tail_start, tail_start) < (size, addr) {
                break;
            }
            if !self.is_hole(tree, addr, addr + size) {
                gone.push((size, addr));
            } else if let Some(addr) = wanted.lowest_in(addr, addr + size) {
                found = Some(addr);
                break;
            }
        }
        for hole in gone {
            index.remove(&hole);
        }
        self.by_size = Some(index);
        found.or(in_tail)
    }

    /// True if `[start, end)` is exactly one whole hole.
    fn is_hole(&self, tree: &Tree, start: u64, end: u64) -> bool {
        let mut cursor = tree.locate(start);
        let above = tree.entry(&mut cursor).map_or(self.end, |entry| entry.addr);
        let behind = tree.before(cursor).map_or(self.start, |(_, entry)| entry.end());
        self.clip(behind, above) == (start, end)
    }
}

/// A search over the children whose largest hole is large enough.
struct Descent<'a> {
    gaps: &'a Gaps,
    tree: &'a Tree,
    wanted: &'a Wanted,
}

impl Descent<'_> {
    /// Breaks with the lowest address that does, or with None when the window's end is passed.
    fn upwards(&self, node: u32, height: u8) -> ControlFlow<Option<u64>> {
        if height == 0 {
            for (start, end) in self.gaps.in_leaf(self.tree, node) {
                if let Some(addr) = self.wanted.lowest_in(start, end) {
                    return ControlFlow::Break(Some(addr));
                }
                if start >= self.wanted.end {
                    return ControlFlow::Break(None);
                }
            }
            return ControlFlow::Continue(());
        }
        let inner = self.tree.inner(node);
        // A hole lies in front of its entry, so children that end at or before the window hold none of it.
        for index in inner.index_of(self.wanted.start.max(inner.lo))..inner.len as usize {
            if inner.gaps[index] >= self.wanted.range {
                self.upwards(inner.children[index], height - 1)?;
            }
        }
        ControlFlow::Continue(())
    }

    fn downwards(&self, node: u32, height: u8) -> ControlFlow<Option<u64>> {
        if height == 0 {
            for (start, end) in self.gaps.in_leaf(self.tree, node).rev() {
                if let Some(addr) = self.wanted.highest_in(start, end) {
                    return ControlFlow::Break(Some(addr));
                }
                if end <= self.wanted.start {
                    return ControlFlow::Break(None);
                }
            }
            return ControlFlow::Continue(());
        }
        let inner = self.tree.inner(node);
        for index in (0..inner.len as usize).rev() {
            let hi = if index + 1 == inner.len as usize { inner.hi } else { inner.keys[index] };
            if hi <= self.wanted.start {
                return ControlFlow::Continue(());
            }
            if inner.gaps[index] >= self.wanted.range {
                self.downwards(inner.children[index], height - 1)?;
            }
        }
        ControlFlow::Continue(())
    }
}

/// The summaries agree with the holes where they are not marked.
pub fn check(gaps: &Gaps, tree: &Tree) -> Result<(), String> {
    for (id, node) in tree.inners.iter().enumerate().filter(|(_, node)| node.height == 1 && node.lo < node.hi)
    {
        for (index, &leaf) in node.children().iter().enumerate() {
            let largest = gaps.largest_in_leaf(tree, leaf);
            if node.gap_stale >> index & 1 == 0 && node.gaps[index] != largest {
                let held = node.gaps[index];
                return Err(format!(
                    "inner node {id} says {held:#x} is the largest hole of leaf {leaf}, it is {largest:#x}"
                ));
            }
        }
    }
    Ok(())
}
