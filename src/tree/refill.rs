//! Nodes that lost entries: merge with a neighbour, or go when empty.

use super::{INNER_CAP, LEAF_CAP, NONE, Tree};

/// A node with fewer entries looks for a neighbour to merge with.
pub(super) const LEAF_MIN: usize = LEAF_CAP / 4;
const INNER_MIN: usize = INNER_CAP / 4;
/// Merging stops here, so that the next insert does not split again at once.
const LEAF_MERGED: usize = LEAF_CAP * 3 / 4;
const INNER_MERGED: usize = INNER_CAP * 3 / 4;

impl Tree {
    pub(super) fn refill_leaf(&mut self, leaf: u32) {
        let node = self.leaf(leaf);
        let (len, parent) = (node.len as usize, node.parent);
        if len >= LEAF_MIN || parent == NONE {
            return;
        }
        let siblings = self.inner(parent);
        let index = siblings.index_of(node.lo);
        let fits = |&(a, b, _): &(u32, u32, usize)| {
            self.leaf(a).len as usize + self.leaf(b).len as usize <= LEAF_MERGED
        };
        let pair = siblings.pairs_of(index).find(fits);
        if let Some((a, b, right)) = pair {
            return self.merge_leaves(a, b, right);
        }
        if len == 0 {
            self.unlink_leaf(leaf);
            self.drop_child(parent, index);
        }
    }

    pub(super) fn merge_leaves(&mut self, left: u32, right: u32, right_index: usize) {
        let (a, b) = self.leaves.pair(left, right);
        a.extend_from(b, 0..b.len as usize);
        a.hi = b.hi;
        let parent = a.parent;
        self.unlink_leaf(right);
        self.inners[parent].remove_child(right_index);
        self.mark_inner(parent);
        self.mark_gaps(left, true);
        self.refill_inner(parent);
    }

    /// Take the empty child `index` out of `parent`; a neighbour inherits its key range.
    pub(super) fn drop_child(&mut self, parent: u32, index: usize) {
        let node = &mut self.inners[parent];
        let (lo, hi, height, len) = (node.lo, node.hi, node.height, node.len as usize);
        let child_lo = if index == 0 { lo } else { node.keys[index - 1] };
        let child_hi = if index + 1 == len { hi } else { node.keys[index] };
        node.remove_child(index);
        if index > 0 {
            let left = node.children[index - 1];
            self.extend_hi(left, height - 1, child_hi);
        } else if len > 1 {
            let right = node.children[0];
            self.extend_lo(right, height - 1, child_lo);
        } else {
            let grandparent = node.parent;
            let index = self.inner(grandparent).index_of(lo);
            self.free_inner(parent);
            return self.drop_child(grandparent, index);
        }
        self.mark_inner(parent);
        self.refill_inner(parent);
    }

    pub(super) fn extend_hi(&mut self, mut node: u32, mut height: u8, hi: u64) {
        while height > 0 {
            let inner = &mut self.inners[node];
            inner.hi = hi;
            node = inner.children[inner.len as usize - 1];
            height -= 1;
        }
        self.leaves[node].hi = hi;
        self.mark_gaps(node, true);
    }

    pub(super) fn extend_lo(&mut self, mut node: u32, mut height: u8, lo: u64) {
        while height > 0 {
            let inner = &mut self.inners[node];
            inner.lo = lo;
            node = inner.children[0];
            height -= 1;
        }
        self.leaves[node].lo = lo;
        self.mark_gaps(node, false);
    }

    pub(super) fn refill_inner(&mut self, node: u32) {
        if node == self.root {
            return self.lower_root();
        }
        let inner = self.inner(node);
        if inner.len as usize >= INNER_MIN {
            return;
        }
        let parent = inner.parent;
        let siblings = self.inner(parent);
        let index = siblings.index_of(inner.lo);
        let fits = |&(a, b, _): &(u32, u32, usize)| {
            self.inner(a).len as usize + self.inner(b).len as usize <= INNER_MERGED
        };
        let pair = siblings.pairs_of(index).find(fits);
        if let Some((a, b, right)) = pair {
            self.merge_inners(a, b, right);
        }
    }

    pub(super) fn merge_inners(&mut self, left: u32, right: u32, right_index: usize) {
        let (a, b) = self.inners.pair(left, right);
        let (a_len, b_len, height) = (a.len as usize, b.len as usize, a.height);
        a.keys[a_len - 1] = b.lo;
        a.keys[a_len..a_len + b_len - 1].copy_from_slice(&b.keys[..b_len - 1]);
        a.children[a_len..a_len + b_len].copy_from_slice(b.children());
        a.len += b.len;
        a.hi = b.hi;
        a.gap_stale = u32::MAX;
        let parent = a.parent;
        for index in a_len..a_len + b_len {
            self.set_parent(self.inner(left).children[index], height - 1, left);
        }
        self.free_inner(right);
        self.inners[parent].remove_child(right_index);
        self.mark_inner(parent);
        self.mark_inner(left);
        self.refill_inner(parent);
    }

    pub(super) fn lower_root(&mut self) {
        while self.height > 0 && self.inner(self.root).len == 1 {
            let child = self.inner(self.root).children[0];
            self.free_inner(self.root);
            self.height -= 1;
            self.root = child;
            self.set_parent(child, self.height, NONE);
        }
    }
}
