//! Every invariant of the tree, verified from the root down.

use crate::ensure;

use super::{INNER_CAP, Inner, LEAF_CAP, NONE, Tree};

impl Tree {
    /// The first invariant that does not hold, in words.
    pub fn check(&self) -> Result<(), String> {
        let mut leaves = Vec::new();
        let mut inners = 0;
        self.check_node(self.root, self.height, NONE, (0, u64::MAX), &mut leaves, &mut inners)?;
        let mut entries = 0;
        let mut last_end = 0;
        for (position, &id) in leaves.iter().enumerate() {
            let leaf = self.leaf(id);
            let prev = if position == 0 { NONE } else { leaves[position - 1] };
            let next = leaves.get(position + 1).copied().unwrap_or(NONE);
            ensure!(
                leaf.prev == prev && leaf.next == next,
                "leaf {id} is chained {}..{}, not {prev}..{next}",
                leaf.prev,
                leaf.next
            );
            ensure!(leaf.len > 0 || leaves.len() == 1, "leaf {id} is empty");
            for index in 0..leaf.len as usize {
                let entry = leaf.entry(index);
                ensure!(entry.range > 0, "entry at {:#x} is empty", entry.addr);
                ensure!(
                    entry.addr.checked_add(entry.range).is_some(),
                    "entry at {:#x} overflows",
                    entry.addr
                );
                ensure!(
                    entry.addr >= last_end,
                    "entry at {:#x} begins before the one before ends, {last_end:#x}",
                    entry.addr
                );
                ensure!(
                    leaf.encloses(entry.addr),
                    "entry at {:#x} is outside the fences of leaf {id}",
                    entry.addr
                );
                last_end = entry.end();
            }
            ensure!(
                leaf.keys[leaf.len as usize..].iter().all(|&key| key == u64::MAX),
                "leaf {id} has a used key behind its end"
            );
            entries += leaf.len as usize;
        }
        ensure!(entries == self.len, "the tree counts {} entries and holds {entries}", self.len);
        ensure!(
            leaves.len() == self.leaf_count(),
            "{} leaves in use, {} counted",
            leaves.len(),
            self.leaf_count()
        );
        ensure!(inners == self.inner_count(), "{inners} inner nodes in use, {} counted", self.inner_count());
        self.check_free_lists()
    }

    fn check_node(
        &self,
        id: u32,
        height: u8,
        parent: u32,
        fences: (u64, u64),
        leaves: &mut Vec<u32>,
        inners: &mut usize,
    ) -> Result<(), String> {
        if height == 0 {
            let leaf = self.leaf(id);
            ensure!(
                (leaf.lo, leaf.hi) == fences,
                "leaf {id} has fences {:#x}..{:#x}, its parent says {fences:#x?}",
                leaf.lo,
                leaf.hi
            );
            ensure!(leaf.parent == parent, "leaf {id} names parent {}, not {parent}", leaf.parent);
            ensure!(leaf.len as usize <= LEAF_CAP, "leaf {id} holds {} entries", leaf.len);
            leaves.push(id);
            return Ok(());
        }
        *inners += 1;
        let node = self.inner(id);
        self.check_inner(id, node, height, parent, fences)?;
        for (index, &child) in node.children().iter().enumerate() {
            let lo = if index == 0 { node.lo } else { node.keys[index - 1] };
            let hi = if index + 1 == node.len as usize { node.hi } else { node.keys[index] };
            ensure!(lo < hi, "child {index} of inner node {id} has fences {lo:#x}..{hi:#x}");
            let stale = node.gap_stale >> index & 1 == 1;
            ensure!(
                stale || !self.is_gap_stale(child, height - 1),
                "child {index} of inner node {id} has stale gaps unseen"
            );
            self.check_node(child, height - 1, id, (lo, hi), leaves, inners)?;
        }
        Ok(())
    }

    fn check_inner(
        &self,
        id: u32,
        node: &Inner,
        height: u8,
        parent: u32,
        fences: (u64, u64),
    ) -> Result<(), String> {
        let least = if parent == NONE { 2 } else { 1 };
        let len = node.len as usize;
        ensure!((least..=INNER_CAP).contains(&len), "inner node {id} has {len} children");
        ensure!(
            (node.lo, node.hi) == fences,
            "inner node {id} has fences {:#x}..{:#x}, its parent says {fences:#x?}",
            node.lo,
            node.hi
        );
        ensure!(node.parent == parent, "inner node {id} names parent {}, not {parent}", node.parent);
        ensure!(node.height == height, "inner node {id} has height {}, not {height}", node.height);
        ensure!(
            node.keys[len - 1..].iter().all(|&key| key == u64::MAX),
            "inner node {id} has a used key behind its end"
        );
        Ok(())
    }

    fn is_gap_stale(&self, node: u32, height: u8) -> bool {
        if height == 0 {
            return self.leaf(node).gap_stale;
        }
        let node = self.inner(node);
        let used = u32::MAX >> (INNER_CAP - node.len as usize);
        node.gap_stale & used != 0
    }

    fn check_free_lists(&self) -> Result<(), String> {
        let mut count = 0;
        let mut leaf = self.free_leaf;
        while leaf != NONE && count <= self.free_leaves {
            ensure!(self.leaf(leaf).lo > self.leaf(leaf).hi, "free leaf {leaf} has open fences");
            leaf = self.leaf(leaf).next;
            count += 1;
        }
        ensure!(count == self.free_leaves, "{count} leaves on the free list, {} counted", self.free_leaves);
        let mut count = 0;
        let mut inner = self.free_inner;
        while inner != NONE && count <= self.free_inners {
            ensure!(self.inner(inner).lo > self.inner(inner).hi, "free inner node {inner} has open fences");
            inner = self.inner(inner).parent;
            count += 1;
        }
        ensure!(
            count == self.free_inners,
            "{count} inner nodes on the free list, {} counted",
            self.free_inners
        );
        Ok(())
    }
}
