//! `Work`: what a change of an address space leaves to be done in its page table, and the way back.

use pyo3::prelude::*;

use super::space::Space;
use super::vm_bind::leave;
use crate::object::End;
use crate::page_change::{Effects, NOWHERE};
use crate::page_slots::Slots;
use crate::pages::Runs;
use crate::paging::Paging;
use crate::regions::Region;
use crate::space::{INVALIDATED, LINKED, Recorded, Room};
use crate::tree::{Entry, NONE};

/// Slots as the calls of a page table take them: address, range, shift.
type SlotsRow = (u64, u64, u8);

/// A write: the slots, and of pages that are mapped aperture, physical address and kind.
type WriteRow = (u64, u64, u8, Option<(u8, u64, u8)>);

/// What a bind, or an object that comes or goes, leaves to be done in the page table, in this order.
///
/// - what may fail: regions to make sparse, ``next_sparse`` until there is none; then references of page slots to
///   take, ``next_get``
/// - ``commit``: what was prepared stays; or ``roll_back``: all is as before
/// - entries to write, ``writes``
/// - references to drop, ``puts``, and regions
///
/// A `PageTable` does all of one kind in one call; anybody else is told one by one.
#[pyclass(module = "gpuvm._core")]
#[derive(Default)]
pub struct Work {
    pub effects: Effects,
    /// References taken so far, of `effects.gets`.
    pub got: usize,
    /// Regions made sparse so far, of `sparse`.
    made: usize,
    /// Which bind it is.
    pub bind: u64,
    /// How the space was; None for good once it is committed, and where it was not changed.
    pub journal: Option<Recorded>,
    /// Changes that room was promised for, to undo with.
    pub promised: usize,
    /// Regions to make sparse, by the operation that makes them.
    pub sparse: Vec<(u32, Region)>,
    /// Regions that go in the end.
    pub dropped: Vec<Region>,
    /// Pages that mappings get when it is committed, and are not invalidated any more.
    pub fresh: Vec<(u32, Runs)>,
}

impl Work {
    /// The space is as before, without what came.
    pub fn undo(&mut self, py: Python<'_>, space: &mut Space, paging: &mut Paging) -> Vec<Py<PyAny>> {
        let Some(journal) = self.journal.take() else { return Vec::new() };
        let records = records(space, journal.added());
        self.release(space);
        space.core.undo_changes(&journal);
        for slot in journal.added() {
            paging.set(slot, Runs::None);
        }
        paging.dropping.retain(|dropping| dropping.bind != self.bind);
        space.ended(py, records)
    }

    /// Take everything out of the space, for good: where nothing can fail, and what it takes is not undone.
    pub fn unmap_all(&mut self, py: Python<'_>, space: &mut Space, paging: &mut Paging) -> Vec<Py<PyAny>> {
        let kernel = space.core.kernel;
        let entries: Vec<Entry> = space.core.tree.iter_from(0).filter(|entry| entry.slot != kernel).collect();
        let records = records(space, entries.iter().map(|entry| entry.slot));
        for entry in &entries {
            let (slot, pages) = (*space.core.slot(entry.slot), paging.pages_of(entry.slot));
            if slot.flags & INVALIDATED == 0 {
                self.effects.clear(pages);
            }
            self.effects.put(pages);
            paging.set(entry.slot, Runs::None);
            if slot.flags & LINKED != 0 {
                space.core.unlink(entry.slot, End::Destroyed);
            }
            space.core.remove(entry);
        }
        space.core.generation += 1;
        self.dropped = space.core.regions.iter().copied().collect();
        space.ended(py, records)
    }

    /// There is no way back any more.
    fn keep(&mut self, py: Python<'_>, space: &mut Space, paging: &mut Paging) -> Vec<Py<PyAny>> {
        for (slot, pages) in self.fresh.drain(..) {
            paging.set(slot, pages);
            let flags = space.core.slot(slot).flags & !INVALIDATED;
            space.core.set_flags(slot, flags);
        }
        let Some(journal) = self.journal.take() else { return Vec::new() };
        let records = records(space, journal.gone());
        for slot in journal.gone() {
            paging.set(slot, Runs::None);
        }
        space.core.keep_changes(&journal);
        self.release(space);
        space.ended(py, records)
    }

    fn release(&mut self, space: &mut Space) {
        let promised = Room { changes: std::mem::take(&mut self.promised), objects: 0 };
        space.core.release_promise(promised);
    }
}

/// The objects of the mappings in `slots`, each once.
fn records(space: &Space, slots: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut records: Vec<u32> = Vec::new();
    for object in slots.map(|slot| space.core.slot(slot).object) {
        if object != NONE && records.last() != Some(&object) {
            records.push(object);
        }
    }
    records.sort_unstable();
    records.dedup();
    records
}

impl Space {
    /// Of `records`, the objects whose vm_bo has ended.
    fn ended(&self, py: Python<'_>, records: Vec<u32>) -> Vec<Py<PyAny>> {
        let ended = records.into_iter().filter(|&record| self.core.objects.get(record).refs == 0);
        ended.filter_map(|record| self.object(py, record)).collect()
    }
}

fn row(slots: &Slots) -> SlotsRow {
    (slots.addr, slots.range, slots.shift)
}

#[pymethods]
impl Work {
    /// Whether there is anything to take, references or sparse regions.
    #[getter]
    pub fn takes(&self) -> bool {
        !self.effects.gets.is_empty() || !self.sparse.is_empty()
    }

    /// Whether there is anything to put in the end, references or regions.
    #[getter]
    pub fn leaves(&self) -> bool {
        !self.effects.puts.is_empty() || !self.dropped.is_empty()
    }

    /// Slots to reference now, None if all are: address, range, shift.
    #[getter]
    pub fn next_get(&self) -> Option<SlotsRow> {
        self.effects.gets.get(self.got).map(|get| row(&get.slots))
    }

    /// They were referenced.
    fn got(&mut self) {
        self.got += 1;
    }

    /// The region to make sparse now, None if all are: address, range.
    #[getter]
    fn next_sparse(&self) -> Option<(u64, u64)> {
        self.sparse.get(self.made).map(|(_, region)| (region.addr, region.end - region.addr))
    }

    /// It is sparse.
    fn made_sparse(&mut self) {
        self.made += 1;
    }

    /// The operation of the call that the next of these is for.
    #[getter]
    fn next_op(&self) -> Option<u32> {
        let region = self.sparse.get(self.made).map(|(op, _)| *op);
        region.or_else(|| self.effects.gets.get(self.got).map(|get| get.op))
    }

    /// Regions that were made sparse, to be made as they were if there is no going on. None are left.
    fn take_sparse(&mut self) -> Vec<(u64, u64)> {
        let made = std::mem::take(&mut self.made);
        let row = |(_, region): &(u32, Region)| (region.addr, region.end - region.addr);
        self.sparse[..made].iter().rev().map(row).collect()
    }

    /// Slots that were referenced, to be put if there is no going on. None are left.
    fn take_got(&mut self) -> Vec<SlotsRow> {
        let got = std::mem::take(&mut self.got);
        self.effects.gets[..got].iter().rev().map(|get| row(&get.slots)).collect()
    }

    /// Entries to write, in order: address, range, shift; and aperture, physical address and kind, or None to unmap.
    #[getter]
    fn writes(&self) -> Vec<WriteRow> {
        let writes = self.effects.writes.iter();
        writes
            .map(|write| {
                let (addr, range, shift) = row(&write.slots);
                let target = (write.aperture, write.physical, write.kind);
                (addr, range, shift, (write.aperture != NOWHERE).then_some(target))
            })
            .collect()
    }

    /// Slots whose references are to be dropped.
    #[getter]
    fn puts(&self) -> Vec<SlotsRow> {
        self.effects.puts.iter().map(row).collect()
    }

    /// How many page slots these are.
    #[getter]
    fn references(&self) -> u64 {
        self.effects.puts.iter().map(Slots::count).sum()
    }

    /// Page slots whose entries are written over without being cleared first.
    #[getter]
    pub fn kept(&self) -> u64 {
        self.effects.kept
    }

    /// Regions that go in the end: address, range, whether sparse.
    #[getter]
    fn dropped(&self) -> Vec<(u64, u64, bool)> {
        let row = |region: &Region| (region.addr, region.end - region.addr, region.sparse);
        self.dropped.iter().map(row).collect()
    }

    /// What was prepared stays; the objects that this space knows no longer, and which do not have it among theirs.
    pub fn commit(&mut self, vm: &Bound<'_, Space>) -> PyResult<Vec<Py<PyAny>>> {
        let gone = Space::with_paging(vm, |space, paging, py| Ok(self.keep(py, space, paging)))?;
        leave(vm, &gone)?;
        Ok(gone)
    }

    /// The space is as before, and unknown to objects that it knows no longer. References that were taken are not its
    /// business.
    pub fn roll_back(&mut self, vm: &Bound<'_, Space>) -> PyResult<()> {
        leave(vm, &Space::with_paging(vm, |space, paging, py| Ok(self.undo(py, space, paging)))?)
    }

    /// The regions that go are gone.
    pub fn finish(&mut self, vm: &Bound<'_, Space>) -> PyResult<()> {
        Space::with_paging(vm, |space, paging, _| {
            for region in self.dropped.drain(..) {
                space.core.regions.remove(region.addr);
                space.core.generation += 1;
            }
            paging.dropping.retain(|dropping| dropping.bind != self.bind);
            Ok(())
        })
    }
}
