//! Undoing changes, in reverse order.
//!
//! While a journal is open, slots that go keep their content and their number. Lists heal because an unlinked
//! slot still knows its neighbours.

use super::{Counters, LINKED, Space};
use crate::regions::Regions;
use crate::tree::{Cursor, Entry};

/// One applied change, as far as undoing it needs.
struct Step {
    /// Where the change's own entries are in `Journal::gone`.
    gone: std::ops::Range<usize>,
    added: [u32; 3],
    count: u32,
}

#[derive(Default)]
pub struct Journal {
    steps: Vec<Step>,
    gone: Vec<Entry>,
    counters: Counters,
    regions: Regions,
}

impl Space {
    /// From here on changes can be undone.
    pub fn open_journal(&mut self) {
        // What is planned from here on knows a state that may be undone.
        self.epoch += 1;
        let (counters, regions) = (self.counters, self.regions.clone());
        self.journal = Some(Journal { counters, regions, ..Journal::default() });
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record(&mut self, mut at: Cursor, removed: usize, added: &[u32; 3], count: u32) {
        let mut journal = self.journal.take().unwrap_or_default();
        let first = journal.gone.len();
        for _ in 0..removed {
            journal.gone.extend(self.tree.entry(&mut at));
            at.index += 1;
        }
        journal.steps.push(Step { gone: first..journal.gone.len(), added: *added, count });
        self.journal = Some(journal);
    }

    /// Keep what was done since `open_journal`.
    pub fn commit(&mut self) {
        let journal = self.journal.take().unwrap_or_default();
        for entry in &journal.gone {
            self.release(entry.slot);
        }
    }

    /// Undo everything that was done since `open_journal`.
    pub fn roll_back(&mut self) {
        let journal = self.journal.take().unwrap_or_default();
        for step in journal.steps.iter().rev() {
            let gone = &journal.gone[step.gone.clone()];
            let added = &step.added[..step.count as usize];
            let first =
                added.iter().map(|&id| self.slot(id).addr).chain(gone.iter().map(|entry| entry.addr)).min();
            let Some(first) = first else { continue };
            let at = self.tree.locate(first);
            for entry in gone.iter().rev() {
                if self.slot(entry.slot).flags & LINKED != 0 {
                    self.rechain(entry.slot);
                }
            }
            self.tree.splice(at, added.len(), gone);
            for &id in added.iter().rev() {
                if self.slot(id).flags & LINKED != 0 {
                    self.unchain(id);
                }
                self.release(id);
            }
        }
        // The content is as before, the nodes may not be: whoever remembers a position must look again.
        self.epoch += 1;
        self.counters = journal.counters;
        self.regions = journal.regions;
    }
}
