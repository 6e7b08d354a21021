//! What page tables say of themselves.

use super::layout::LEVELS;
use super::node::{PAGE, SPARSE};
use super::*;

/// Words written since the tables were made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    /// For pages that were mapped.
    pub pages: u64,
    /// For pages that were unmapped.
    pub clears: u64,
    /// For tables and sparse entries that came or went.
    pub pointers: u64,
    /// In new tables.
    pub initialised: u64,
}

/// What there is at one level.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    pub tables: u64,
    pub pages: u64,
    pub sparse: u64,
    pub references: u64,
    /// Entries that map a page, are a piece of a sparse range or point to a table; each once.
    pub used: u64,
}

/// A table, for a picture of the tree.
pub struct TableView {
    /// Position in the list of the table above.
    pub parent: Option<u64>,
    pub level: usize,
    pub va: u64,
    pub addr: u64,
    pub count: Count,
}

impl PageTable {
    fn count(&self, id: u32) -> Count {
        let node = &self.nodes[id];
        let flagged = |flag| node.flags.iter().filter(|flags| *flags & flag != 0).count() as u64;
        let ways = self.layout.ways(node.level as usize);
        let points = |index| node.children[index * ways..][..ways].iter().any(|child| *child != NONE);
        let used = |(index, flags): &(usize, &u8)| **flags & (PAGE | SPARSE) != 0 || points(*index);
        let used = node.flags.iter().enumerate().filter(used).count() as u64;
        let references = node.refs.iter().map(|refs| u64::from(*refs)).sum();
        Count { tables: 1, pages: flagged(PAGE), sparse: flagged(SPARSE), references, used }
    }

    /// Tables from the root on, each before those below it.
    fn for_each_table(&self, mut act: impl FnMut(u32, Option<u64>)) {
        let mut waiting = vec![(ROOT, None)];
        let mut position = 0;
        while let Some((id, parent)) = waiting.pop() {
            act(id, parent);
            let children = self.nodes[id].children.iter().rev().filter(|child| **child != NONE);
            waiting.extend(children.map(|child| (*child, Some(position))));
            position += 1;
        }
    }

    /// What there is at each level. O(tables).
    pub fn counts(&self) -> [Count; LEVELS] {
        let mut counts = [Count::default(); LEVELS];
        self.for_each_table(|id, _| {
            let (sum, count) = (&mut counts[self.nodes[id].level as usize], self.count(id));
            sum.tables += count.tables;
            sum.pages += count.pages;
            sum.sparse += count.sparse;
            sum.references += count.references;
            sum.used += count.used;
        });
        counts
    }

    /// All tables, each before those below it.
    pub fn tables(&self) -> Vec<TableView> {
        let mut tables = Vec::new();
        self.for_each_table(|id, parent| {
            let node = &self.nodes[id];
            let (level, va, addr) = (node.level as usize, node.va, node.addr);
            tables.push(TableView { parent, level, va, addr, count: self.count(id) });
        });
        tables
    }

    pub fn written(&self) -> Written {
        self.written
    }

    /// Length of all sparse ranges.
    pub fn sparse_bytes(&self) -> u64 {
        self.ranges.iter().map(|(start, end)| end - start).sum()
    }

    /// Sparse ranges as (address, length).
    pub fn sparse_ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ranges.iter().map(|(start, end)| (*start, end - start))
    }

    /// Memory of the core.
    pub fn bytes(&self) -> u64 {
        let ranges = self.ranges.capacity() * size_of::<(u64, u64)>();
        (self.nodes.bytes() + self.nodes.iter().map(Node::bytes).sum::<usize>() + ranges) as u64
    }
}
