//! Every word against what it should be, every count against what it counts.

use super::node::{CONSULT, COVERED, PAGE, SPARSE};
use super::*;
use crate::ensure;

impl PageTable {
    /// The first invariant that does not hold, in words.
    pub fn check(&self) -> Result<(), String> {
        let mut places = Vec::new();
        self.check_table(ROOT, false, &mut places)?;
        places.sort_unstable();
        for pair in places.windows(2) {
            ensure!(pair[0].1 <= pair[1].0, "the tables at {:#x} and {:#x} overlap", pair[0].0, pair[1].0);
        }
        let mut freed = 0;
        let mut id = self.freed;
        while id != NONE {
            (id, freed) = (self.nodes[id].parent, freed + 1);
        }
        let there = self.nodes.len();
        let accounted = places.len() + freed + self.spares;
        ensure!(accounted == there, "{accounted} tables are there, freed or spare, {there} were made");
        for pair in self.ranges.windows(2) {
            ensure!(pair[0].1 <= pair[1].0, "sparse ranges at {:#x} and {:#x} overlap", pair[0].0, pair[1].0);
        }
        self.check_sparse()
    }

    fn describe(&self, id: u32) -> String {
        let node = &self.nodes[id];
        format!("level {} table at {:#x} for {:#x}", node.level, node.addr, node.va)
    }

    fn check_table(&self, id: u32, covered: bool, places: &mut Vec<(u64, u64)>) -> Result<(), String> {
        let (node, level) = (&self.nodes[id], self.level(id));
        let (place, number) = (self.describe(id), node.level as usize);
        places.push((node.addr, node.addr + level.table_bytes));
        let ways = self.layout.ways(number);
        let mut uses: u64 = node.refs.iter().map(|refs| u64::from(*refs)).sum();
        let sibling = self.sibling(id);
        for index in 0..level.entries() {
            let entry = format!("{place}, entry {index}");
            let flags = node.flags[index];
            uses += u64::from(flags & SPARSE != 0);
            let group_sparse = self.layout.smaller() == Some(number)
                && sibling != NONE
                && self.nodes[sibling].flags[index / self.layout.group()] & SPARSE != 0;
            let expected = covered || group_sparse;
            ensure!((flags & COVERED != 0) == expected, "{entry}: flags {flags:#x}, covered is {expected}");
            ensure!(flags & SPARSE == 0 || !expected, "{entry}: sparse twice, flags {flags:#x}");
            let consult = self.layout.larger() == Some(number)
                && sibling != NONE
                && self.nodes[sibling].in_use(index * self.layout.group(), self.layout.group());
            ensure!((flags & CONSULT != 0) == consult, "{entry}: flags {flags:#x}, consult is {consult}");
            if flags & PAGE != 0 {
                ensure!(node.refs.get(index).is_some_and(|refs| *refs > 0), "{entry}: a page, no reference");
            }
            for way in 0..ways {
                let child = node.children[index * ways + way];
                if child == NONE {
                    continue;
                }
                uses += 1;
                let below = &self.nodes[child];
                let (parent, va) = (below.parent, node.va_of(level, index));
                ensure!((parent, below.va) == (id, va), "{entry}: its table says {:#x}", below.va);
                ensure!(below.uses > 0, "{}: is of no use", self.describe(child));
                self.check_table(child, expected || flags & SPARSE != 0, places)?;
            }
            self.check_words(id, index)?;
        }
        ensure!(uses == node.uses, "{place}: {uses} uses, {} counted", node.uses);
        let (from, to) = (level.entry_bytes << level.bits, level.table_bytes);
        for at in (from..to).step_by(8) {
            let word = self.vram.load(node.addr + at);
            ensure!(word == 0, "{place}: {word:#x} behind its entries, at byte {at:#x}");
        }
        Ok(())
    }

    /// Entry `index` of a table in VRAM against what the core knows.
    fn check_words(&self, id: u32, index: usize) -> Result<(), String> {
        let (node, level) = (&self.nodes[id], self.level(id));
        let at = node.word_at(level, index);
        let word = self.vram.load(at);
        let place = || format!("{}, entry {index}", self.describe(id));
        if node.flags[index] & PAGE != 0 {
            ensure!(level.leaf.matches(word), "{}: {word:#x} in VRAM, which is no page", place());
        } else {
            let expected = self.below(id, index);
            ensure!(word == expected, "{}: {word:#x} in VRAM, {expected:#x} expected", place());
        }
        if self.layout.ways(node.level as usize) == 2 {
            let child = node.children[2 * index + 1];
            let expected = if child == NONE {
                0
            } else {
                self.layout.pointer(self.layout.last()).to(self.nodes[child].addr)
            };
            let word = self.vram.load(at + 8);
            ensure!(word == expected, "{}: high word {word:#x}, {expected:#x} expected", place());
        }
        Ok(())
    }

    /// The entries that are sparse, against the ranges that were made so.
    fn check_sparse(&self) -> Result<(), String> {
        let counted: u64 = self.ranges.iter().map(|(start, end)| end - start).sum();
        let mut bytes = 0;
        for (count, level) in self.counts().iter().zip(&self.layout.levels) {
            bytes += count.sparse << level.shift;
        }
        ensure!(bytes == counted, "entries make {bytes:#x} bytes sparse, ranges {counted:#x}");
        Ok(())
    }
}
