//! Nodes as such: made, freed, hung below a parent, marked for the gap search.

use super::{Inner, Leaf, NONE, Tree};

impl Tree {
    pub(super) fn parent_of(&self, node: u32, height: u8) -> u32 {
        if height == 0 { self.leaf(node).parent } else { self.inner(node).parent }
    }

    pub(super) fn set_parent(&mut self, node: u32, height: u8, parent: u32) {
        if height == 0 {
            self.leaves[node].parent = parent;
        } else {
            self.inners[node].parent = parent;
        }
    }

    /// Take a leaf out of the chain and put it on the free list, its fences closed.
    pub(super) fn unlink_leaf(&mut self, leaf: u32) {
        let (prev, next) = (self.leaf(leaf).prev, self.leaf(leaf).next);
        if prev != NONE {
            self.leaves[prev].next = next;
        }
        if next != NONE {
            self.leaves[next].prev = prev;
        }
        let node = &mut self.leaves[leaf];
        *node = Leaf::new(u64::MAX, 0);
        node.next = self.free_leaf;
        self.free_leaf = leaf;
        self.free_leaves += 1;
    }

    pub(super) fn new_leaf(&mut self) -> u32 {
        if self.free_leaf == NONE {
            return self.leaves.push(Leaf::new(u64::MAX, 0));
        }
        let leaf = self.free_leaf;
        self.free_leaf = self.leaf(leaf).next;
        self.free_leaves -= 1;
        leaf
    }

    pub(super) fn new_inner(&mut self, inner: Inner) -> u32 {
        if self.free_inner == NONE {
            return self.inners.push(inner);
        }
        let id = self.free_inner;
        self.free_inner = self.inner(id).parent;
        self.free_inners -= 1;
        self.inners[id] = inner;
        id
    }

    pub(super) fn free_inner(&mut self, id: u32) {
        let node = &mut self.inners[id];
        *node = Inner::new(u64::MAX, 0, 0);
        node.parent = self.free_inner;
        self.free_inner = id;
        self.free_inners += 1;
    }

    /// The holes in front of the entries of `leaf` changed; if its last entry did, so did the next leaf's first.
    #[inline(always)]
    pub(super) fn mark_gaps(&mut self, leaf: u32, at_end: bool) {
        self.mark_leaf(leaf);
        if at_end {
            let next = self.leaf(leaf).next;
            if next != NONE {
                self.mark_leaf(next);
            }
        }
    }

    #[inline(always)]
    pub(super) fn mark_leaf(&mut self, leaf: u32) {
        let node = &mut self.leaves[leaf];
        if !node.gap_stale {
            node.gap_stale = true;
            let (lo, parent) = (node.lo, node.parent);
            self.mark_path(parent, lo);
        }
    }

    pub(super) fn mark_inner(&mut self, inner: u32) {
        let node = &mut self.inners[inner];
        node.gap_stale = u32::MAX;
        let (lo, parent) = (node.lo, node.parent);
        self.mark_path(parent, lo);
    }

    /// Mark the child at `lo` in `node` and in all above it. A marked child means a marked path.
    pub(super) fn mark_path(&mut self, mut node: u32, lo: u64) {
        while node != NONE {
            let inner = &mut self.inners[node];
            let bit = 1 << inner.index_of(lo);
            if inner.gap_stale & bit != 0 {
                return;
            }
            inner.gap_stale |= bit;
            node = inner.parent;
        }
    }
}
