//! Undoing changes, in reverse order.
//!
//! While a journal is open, slots that go keep their content and their number. Lists heal because an unlinked
//! slot still knows its neighbours. A plan that is stepped is nearly its own journal: what goes is in its operations.

use super::{Counters, IN_TREE, LINKED, Slot, Space};
use crate::memory::{Refused, reserve_anywhere};
use crate::object::End;
use crate::plan::Op;
use crate::regions::Region;
use crate::tree::{Cursor, Entry, NONE};

/// Most mappings that the operations of one plan make: each border of a madvise may cut off a piece and map anew.
const MOST_STEPPED: usize = 6;

pub enum Journal {
    Closed,
    /// Of changes of any kind.
    Recorded(Recorded),
    /// Of a plan's operations, one change each.
    Stepped(Stepped),
}

/// One applied change, as far as undoing it needs.
struct Step {
    /// Where the change's own entries are in `Recorded::gone`.
    gone: std::ops::Range<usize>,
    added: [u32; 3],
    count: u32,
}

/// Changes that were made while the journal was open, as far as undoing them needs.
#[derive(Default)]
pub struct Recorded {
    steps: Vec<Step>,
    gone: Vec<Entry>,
    /// Regions that came (true) or went.
    regions: Vec<(Region, bool)>,
    counters: Counters,
}

impl Recorded {
    /// Slots of mappings that went.
    pub fn gone(&self) -> impl Iterator<Item = u32> + '_ {
        self.gone.iter().map(|entry| entry.slot)
    }

    /// Slots of mappings that came.
    pub fn added(&self) -> impl Iterator<Item = u32> + '_ {
        self.steps.iter().flat_map(|step| &step.added[..step.count as usize]).copied()
    }
}

pub struct Stepped {
    /// Operations applied.
    done: usize,
    /// Slots that came, in order.
    added: [u32; MOST_STEPPED],
    count: usize,
    counters: Counters,
}

impl Journal {
    #[inline(always)]
    pub fn is_open(&self) -> bool {
        !matches!(self, Journal::Closed)
    }
}

impl Space {
    /// From here on changes can be undone.
    pub fn open_journal(&mut self) {
        // What is planned from here on knows a state that may be undone.
        self.epoch += 1;
        self.journal = Journal::Recorded(Recorded { counters: self.counters, ..Recorded::default() });
    }

    /// The same for the operations of a plan, which are passed again to keep or undo them.
    pub fn open_steps(&mut self) {
        self.epoch += 1;
        let (added, counters) = ([NONE; MOST_STEPPED], self.counters);
        self.journal = Journal::Stepped(Stepped { done: 0, added, count: 0, counters });
    }

    /// Close the journal, and keep what it says: `keep_changes` or `undo_changes` goes on from there, the last that was closed
    /// first if it is undone. Until then the mappings that went have their slots, and their references.
    pub fn detach_journal(&mut self) -> Recorded {
        let journal = self.close();
        for entry in &journal.gone {
            self.slot_mut(entry.slot).flags &= !IN_TREE;
        }
        journal
    }

    /// Make room in the journal for a change by which `gone` mappings or a region go.
    pub fn reserve_journal(&mut self, gone: usize) -> Result<(), Refused> {
        match &mut self.journal {
            Journal::Recorded(journal) => {
                reserve_anywhere(&mut journal.steps, 1)?;
                reserve_anywhere(&mut journal.gone, gone)?;
                reserve_anywhere(&mut journal.regions, 1)
            }
            _ => Ok(()),
        }
    }

    /// Make room in the journal for what `count` changes mostly come to.
    pub fn reserve_journal_for(&mut self, count: usize) -> Result<(), Refused> {
        match &mut self.journal {
            Journal::Recorded(journal) => {
                reserve_anywhere(&mut journal.steps, count)?;
                reserve_anywhere(&mut journal.gone, count)
            }
            _ => Ok(()),
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record(&mut self, mut at: Cursor, removed: usize, added: &[u32; 3], count: u32) {
        match &mut self.journal {
            Journal::Closed => {}
            Journal::Stepped(journal) => {
                let added = &added[..count as usize];
                journal.added[journal.count..journal.count + added.len()].copy_from_slice(added);
                journal.count += added.len();
                journal.done += 1;
            }
            Journal::Recorded(journal) => {
                let first = journal.gone.len();
                for _ in 0..removed {
                    journal.gone.extend(self.tree.entry(&mut at));
                    at.index += 1;
                }
                journal.steps.push(Step { gone: first..journal.gone.len(), added: *added, count });
            }
        }
    }

    /// Insert a region that overlaps nothing; room in the journal was made.
    pub fn insert_region(&mut self, region: Region) {
        self.regions.insert(region);
        if let Journal::Recorded(journal) = &mut self.journal {
            journal.regions.push((region, true));
        }
    }

    pub fn remove_region(&mut self, region: Region) {
        self.regions.remove(region.addr);
        if let Journal::Recorded(journal) = &mut self.journal {
            journal.regions.push((region, false));
        }
    }

    /// Keep what was done since `open_journal`.
    pub fn commit(&mut self) {
        let journal = self.close();
        self.keep_changes(&journal);
    }

    /// Keep what a journal says that was detached.
    pub fn keep_changes(&mut self, journal: &Recorded) {
        for entry in &journal.gone {
            self.release(entry.slot);
        }
    }

    /// Undo everything that was done since `open_journal`.
    pub fn roll_back(&mut self) {
        let journal = self.close();
        self.undo_changes(&journal);
    }

    /// Undo what a journal says that was detached.
    pub fn undo_changes(&mut self, journal: &Recorded) {
        for step in journal.steps.iter().rev() {
            self.undo(&journal.gone[step.gone.clone()], &step.added[..step.count as usize]);
        }
        for (region, came) in journal.regions.iter().rev() {
            if *came {
                self.regions.remove(region.addr);
            } else {
                self.regions.insert(*region);
            }
        }
        self.rolled_back(journal.counters);
    }

    /// Keep what was done since `open_steps` by the operations of a plan.
    pub fn commit_steps(&mut self, ops: &[Op]) {
        let done = self.close_steps().map_or(0, |journal| journal.done);
        for op in ops[..done].iter().filter(|op| op.slot != NONE) {
            self.release(op.slot);
        }
    }

    /// Undo what was done since `open_steps` by the operations of a plan.
    pub fn roll_back_steps(&mut self, ops: &[Op]) {
        let Some(journal) = self.close_steps() else { return };
        let mut added = &journal.added[..journal.count];
        for op in ops[..journal.done].iter().rev() {
            let (before, own) = added.split_at(added.len() - op.coming().into_iter().flatten().count());
            let gone = (op.slot != NONE).then_some(Entry {
                addr: op.mapping.addr,
                range: op.mapping.range,
                slot: op.slot,
            });
            self.undo(gone.as_slice(), own);
            added = before;
        }
        self.rolled_back(journal.counters);
    }

    /// True if the mapping in slot `id` came with the open step, and may go with it.
    pub fn came_with_step(&self, id: u32) -> bool {
        matches!(&self.journal, Journal::Stepped(journal) if journal.added[..journal.count].contains(&id))
    }

    /// References to the vm_bo of `object` that mappings keep which an open step of `ops` has taken away.
    pub fn references_of_step(&self, ops: &[Op], object: u32) -> u32 {
        let Journal::Stepped(journal) = &self.journal else { return 0 };
        let gone = ops[..journal.done].iter().filter(|op| op.slot != NONE).map(|op| self.slot(op.slot));
        gone.filter(|slot| slot.object == object && slot.flags & LINKED != 0).count() as u32
    }

    fn close(&mut self) -> Recorded {
        match std::mem::replace(&mut self.journal, Journal::Closed) {
            Journal::Recorded(journal) => journal,
            _ => Recorded::default(),
        }
    }

    fn close_steps(&mut self) -> Option<Stepped> {
        match std::mem::replace(&mut self.journal, Journal::Closed) {
            Journal::Stepped(journal) => Some(journal),
            _ => None,
        }
    }

    /// Undo the last change: `gone` come back, `added` go.
    fn undo(&mut self, gone: &[Entry], added: &[u32]) {
        let first =
            added.iter().map(|&id| self.slot(id).addr).chain(gone.iter().map(|entry| entry.addr)).min();
        let Some(first) = first else { return };
        let at = self.tree.locate(first);
        for entry in gone.iter().rev() {
            if self.slot(entry.slot).flags & LINKED != 0 {
                self.rechain(entry.slot);
            }
            self.slot_mut(entry.slot).flags |= IN_TREE;
        }
        self.tree.splice(at, added.len(), gone);
        let end = self.vm_bo_end;
        for &id in added.iter().rev() {
            let Slot { object, flags, .. } = *self.slot(id);
            if flags & LINKED != 0 {
                self.unchain(id);
                // One that came with what is undone is known to nobody: nothing is left to be freed later.
                let known = self.objects.get(object).was_put;
                self.vm_bo_end = if known { end } else { End::Destroyed };
            }
            self.release(id);
        }
        self.vm_bo_end = end;
    }

    /// The content is as before, the nodes may not be: whoever remembers a position must look again.
    ///
    /// Putting back what went can take nodes that no promise is about.
    fn rolled_back(&mut self, counters: Counters) {
        self.tree.keep_promise();
        self.epoch += 1;
        self.counters = counters;
    }
}
