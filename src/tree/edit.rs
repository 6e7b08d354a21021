//! Changing the tree: splice entries in and out, split what is full.

use super::refill::LEAF_MIN;
use super::{Cursor, Entry, INNER_CAP, Inner, LEAF_CAP, Leaf, NONE, Tree};
use crate::memory::forbidden;

/// A full leaf rather moves entries to a sibling than splits, if that one has this much room.
const LEAF_ROOM: usize = 4;

impl Tree {
    /// Replace the `removed` entries from `at` on by `added`, which are in address order and fill a part of
    /// the hole that this leaves. Nothing shifts when as many come as go.
    #[inline(always)]
    pub fn splice(&mut self, at: Cursor, removed: usize, added: &[Entry]) {
        if !self.splice_in_leaf(at, removed, added) {
            self.splice_across(at, removed, added);
        }
    }

    #[inline(always)]
    fn splice_in_leaf(&mut self, at: Cursor, removed: usize, added: &[Entry]) -> bool {
        let is_root = self.height == 0;
        let leaf = &mut self.leaves[at.leaf];
        let (index, len) = (at.index as usize, leaf.len as usize);
        let behind = index + removed;
        if behind > len || !added.iter().all(|entry| leaf.encloses(entry.addr)) {
            return false;
        }
        let new_len = len - removed + added.len();
        if new_len > LEAF_CAP || (new_len < LEAF_MIN && new_len < len && !is_root) {
            return false;
        }
        let same_shape = removed == 1
            && added.len() == 1
            && leaf.keys[index] == added[0].addr
            && leaf.ranges[index] == added[0].range;
        if removed != added.len() {
            leaf.shift(behind, index + added.len());
        }
        for (offset, entry) in added.iter().enumerate() {
            leaf.set(index + offset, entry);
        }
        self.len = self.len + added.len() - removed;
        if !same_shape {
            self.mark_gaps(at.leaf, behind == len);
        }
        true
    }

    #[cold]
    #[inline(never)]
    fn splice_across(&mut self, mut at: Cursor, mut removed: usize, added: &[Entry]) {
        let mut addr = match self.entry(&mut at) {
            Some(entry) if removed > 0 => entry.addr,
            _ => 0,
        };
        while removed > 0 {
            let leaf = self.leaf_of(addr);
            let node = self.leaf(leaf);
            let index = node.upper_bound(addr) - 1;
            let run = removed.min(node.len as usize - index);
            removed -= run;
            if removed > 0 {
                addr = self.leaf(node.next).keys[0];
            }
            self.remove_run(leaf, index, run);
        }
        for entry in added {
            self.insert(entry);
        }
    }

    fn remove_run(&mut self, leaf: u32, index: usize, run: usize) {
        let node = &mut self.leaves[leaf];
        let at_end = index + run == node.len as usize;
        node.shift(index + run, index);
        self.len -= run;
        self.mark_gaps(leaf, at_end);
        self.refill_leaf(leaf);
    }

    fn insert(&mut self, entry: &Entry) {
        let mut leaf = self.leaf_of(entry.addr);
        if self.leaf(leaf).len as usize == LEAF_CAP {
            self.make_room(leaf, entry.addr);
            leaf = self.leaf_of(entry.addr);
        }
        let node = &mut self.leaves[leaf];
        let (index, len) = (node.upper_bound(entry.addr), node.len as usize);
        node.shift(index, index + 1);
        node.set(index, entry);
        self.len += 1;
        self.mark_gaps(leaf, index == len);
    }

    /// Give the full `leaf` room for an entry at `addr`: a sibling takes some entries, or the leaf splits.
    fn make_room(&mut self, leaf: u32, addr: u64) {
        let node = self.leaf(leaf);
        if node.parent != NONE {
            let parent = self.inner(node.parent);
            let index = parent.index_of(node.lo);
            let has_room = |&(a, b, _): &(u32, u32, usize)| {
                let sibling = if a == leaf { b } else { a };
                self.leaf(sibling).len as usize <= LEAF_CAP - LEAF_ROOM
            };
            let pair = parent.pairs_of(index).find(has_room);
            if let Some((a, b, right)) = pair {
                return self.balance(a, b, right);
            }
        }
        let (len, keys) = (node.len as usize, &node.keys);
        // Addresses given out upwards or downwards leave full leaves behind.
        let (at, fence) = if addr > keys[len - 1] {
            (len, addr)
        } else if addr < keys[0] {
            (0, keys[0])
        } else {
            (len / 2, keys[len / 2])
        };
        self.split_leaf(leaf, at, fence);
    }

    /// Share the entries of two neighbours, children `right - 1` and `right` of one parent, evenly.
    fn balance(&mut self, left: u32, right: u32, right_index: usize) {
        let (left_len, right_len) = (self.leaf(left).len as usize, self.leaf(right).len as usize);
        let want = (left_len + right_len) / 2;
        let (a, b) = self.leaves.pair(left, right);
        if left_len > want {
            let moved = left_len - want;
            b.shift(0, moved);
            for index in 0..moved {
                b.set(index, &a.entry(want + index));
            }
            a.shift(left_len, want);
        } else {
            let moved = want - left_len;
            a.extend_from(b, 0..moved);
            b.shift(moved, 0);
        }
        let fence = b.keys[0];
        (a.hi, b.lo) = (fence, fence);
        let parent = a.parent;
        self.inners[parent].keys[right_index - 1] = fence;
        self.mark_gaps(left, true);
    }

    fn split_leaf(&mut self, left: u32, at: usize, fence: u64) {
        let right = self.new_leaf();
        let (a, b) = self.leaves.pair(left, right);
        let (len, next) = (a.len as usize, a.next);
        *b = Leaf::new(fence, a.hi);
        b.extend_from(a, at..len);
        a.shift(len, at);
        a.hi = fence;
        (a.next, b.prev, b.next) = (right, left, next);
        if next != NONE {
            self.leaves[next].prev = right;
        }
        self.add_to_parent(left, right, fence, 0);
        self.mark_gaps(left, true);
        if self.promised > 0 && !forbidden() {
            self.keep_promise();
        }
    }

    /// Hang `right`, split off `left` at `fence`, below the parent of `left`; both have `height`.
    fn add_to_parent(&mut self, left: u32, right: u32, fence: u64, height: u8) {
        let mut parent = self.parent_of(left, height);
        if parent == NONE {
            parent = self.new_inner(Inner::new(0, u64::MAX, height + 1));
            let root = &mut self.inners[parent];
            root.children[0] = left;
            root.len = 1;
            self.set_parent(left, height, parent);
            self.root = parent;
            self.height += 1;
        } else if self.inner(parent).len as usize == INNER_CAP {
            parent = self.split_inner(parent, fence);
        }
        let node = &mut self.inners[parent];
        node.insert_child(node.index_of(fence - 1) + 1, fence, right);
        self.set_parent(right, height, parent);
        self.mark_inner(parent);
    }

    /// Split the full inner node `left`; returns the half that encloses `fence`.
    fn split_inner(&mut self, left: u32, fence: u64) -> u32 {
        let node = self.inner(left);
        let (len, hi, height) = (node.len as usize, node.hi, node.height);
        let at = match (node.lo, node.hi) {
            (_, u64::MAX) => len - 1,
            (0, _) => 1,
            _ => len / 2,
        };
        let lo = node.keys[at - 1];
        let mut half = Inner::new(lo, hi, height);
        half.len = (len - at) as u8;
        half.children[..len - at].copy_from_slice(&node.children[at..len]);
        half.keys[..len - at - 1].copy_from_slice(&node.keys[at..len - 1]);
        let right = self.new_inner(half);
        let node = &mut self.inners[left];
        node.keys[at - 1..].fill(u64::MAX);
        node.len = at as u8;
        node.hi = lo;
        node.gap_stale = u32::MAX;
        for index in 0..len - at {
            self.set_parent(self.inner(right).children[index], height - 1, right);
        }
        self.add_to_parent(left, right, lo, height);
        if fence - 1 < lo { left } else { right }
    }
}
