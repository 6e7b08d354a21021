//! The operations of one bind call, carried out in the space one after the other, all or none.

use pyo3::prelude::*;

use super::bind_ops::{Action, BindOps, Request};
use super::errors::Class;
use super::space::{Space, region_fault};
use super::work::Work;
use crate::bulk::{self, make_region};
use crate::memory::{Refused, push};
use crate::page_change::Scratch;
use crate::pages::{Misfit, Runs, split};
use crate::paging::Paging;
use crate::plan::{self, Op};
use crate::regions::Region;
use crate::space::{Change, Mapping, Room};
use crate::tree::LEAF_CAP;

/// Why an operation was refused.
pub enum Refusal {
    Told(Class, String, Option<(u64, u64)>),
    /// Its object is out of the GPU's reach.
    Unreachable,
    Memory(Refused),
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Refusal::Memory(refused)
    }
}

impl From<Misfit> for Refusal {
    fn from(misfit: Misfit) -> Self {
        match misfit {
            Misfit::Memory(refused) => Refusal::Memory(refused),
            _ => Refusal::Told(Class::InvalidArgument, format!("prepare: {misfit}"), None),
        }
    }
}

/// A call that is being carried out.
pub struct Carried<'a, 'py> {
    py: Python<'py>,
    space: &'a mut Space,
    paging: &'a mut Paging,
    call: &'a BindOps,
    work: &'a mut Work,
    /// Objects without memory have no pages, and everything will be undone.
    rehearsal: bool,
    scratch: Scratch,
    ops: Vec<Op>,
    change: Change,
    /// Targets that the space did not know.
    fresh: Vec<usize>,
}

impl<'a, 'py> Carried<'a, 'py> {
    /// Carry out all of `call`, or nothing: then the index of what was refused, and why. Else the objects that the
    /// space did not know before.
    pub fn out(
        py: Python<'py>,
        space: &'a mut Space,
        paging: &'a mut Paging,
        call: &'a BindOps,
        work: &'a mut Work,
        rehearsal: bool,
    ) -> Result<Vec<usize>, (usize, Refusal)> {
        work.bind = paging.number();
        let scratch = std::mem::take(&mut paging.scratch);
        space.core.open_journal();
        let (ops, change, fresh) = (Vec::new(), Change::default(), Vec::new());
        let mut carried = Carried { py, space, paging, call, work, rehearsal, scratch, ops, change, fresh };
        let done = carried.all();
        let Carried { space, paging, work, scratch, fresh, .. } = carried;
        paging.scratch = scratch;
        work.journal = Some(space.core.detach_journal());
        if done.is_err() {
            work.undo(py, space, paging);
        }
        done.map(|()| fresh)
    }

    fn all(&mut self) -> Result<(), (usize, Refusal)> {
        let requests = &self.call.requests;
        if requests.is_empty() {
            return Ok(());
        }
        let room = self.work.effects.reserve(requests.len());
        room.and_then(|()| self.space.core.reserve_journal_for(requests.len()))
            .map_err(|refused| (0, refused.into()))?;
        for (index, request) in requests.iter().enumerate() {
            let done = match request.action() {
                Action::Map => self.map(request, index as u32),
                Action::Unmap => self.unmap(request, index as u32),
                Action::MakeRegion => self.make_region(request, index as u32),
                Action::DropRegion => self.drop_region(request, index as u32),
            };
            done.map_err(|refusal| (index, refusal))?;
        }
        Ok(())
    }

    fn map(&mut self, request: &Request, number: u32) -> Result<(), Refusal> {
        let target = &self.call.targets[request.target];
        self.require_lasting(request)?;
        self.scratch.new.clear();
        if !target.extents.is_empty() {
            let place = (request.addr, request.range);
            split(&self.paging.sizes, place, &target.extents, request.offset, &mut self.scratch.new)?;
        } else if !self.rehearsal {
            return Err(Refusal::Unreachable);
        }
        let regions = &self.space.core.regions;
        if !regions.allow(request.addr, request.end()) {
            let (class, reason, bound) = region_fault(regions, request.addr, request.end());
            let message = format!("prepare: range [{:#x}, {:#x}) {reason}", request.addr, request.end());
            return Err(Refusal::Told(class, message, bound));
        }
        let unknown = self.space.unknown(target.obj.bind(self.py));
        self.space.core.reserve(1, unknown)?;
        self.space.reserve_beside(unknown)?;
        let record = self.space.intern(target.obj.bind(self.py));
        let is_fresh = self.space.core.objects.get(record).refs == 0;
        let (offset, flags) = (request.offset, request.flags());
        let mapping = Mapping { addr: request.addr, range: request.range, offset, object: record, flags };
        let at = self.space.core.tree.locate(request.addr);
        self.ops.clear();
        plan::map(&self.space.core, at, &mapping, &mut self.change, &mut self.ops);
        if let Err(refusal) = self.apply(request, number) {
            self.space.core.objects.settle(record);
            return Err(refusal);
        }
        if target.external() {
            self.space.core.objects.extobjs.add(record);
        }
        if is_fresh {
            self.fresh.push(request.target);
        }
        Ok(())
    }

    /// Refuse to map into a region that is being dropped.
    fn require_lasting(&self, request: &Request) -> Result<(), Refusal> {
        let Some(dropping) = self.paging.dropping_at(request.addr, request.end()) else { return Ok(()) };
        let Region { addr, end, .. } = dropping.region;
        let (class, how) = if dropping.bind == self.work.bind {
            (Class::InvalidArgument, "which an earlier operation drops; map there in a later bind")
        } else {
            (Class::Busy, "which another bind drops; wait for its cleanup")
        };
        let message = format!(
            "prepare: [{:#x}, {:#x}) touches the region [{addr:#x}, {end:#x}), {how}",
            request.addr,
            request.end()
        );
        Err(Refusal::Told(class, message, Some((addr, end - addr))))
    }

    fn unmap(&mut self, request: &Request, number: u32) -> Result<(), Refusal> {
        self.scratch.new.clear();
        self.space.core.reserve(1, 0)?;
        let at = self.space.core.tree.locate(request.addr);
        self.ops.clear();
        plan::unmap(&self.space.core, at, request.addr, request.end(), &mut self.change, &mut self.ops);
        self.apply(request, number)
    }

    /// Change the space as planned, once it is certain that it can be undone.
    fn apply(&mut self, request: &Request, number: u32) -> Result<(), Refusal> {
        if self.ops.is_empty() {
            return Ok(());
        }
        let gone = self.change.removed as usize;
        let kind_and_number = (request.kind, number);
        let effects = &mut self.work.effects;
        let came = self.scratch.find_out(self.paging, &self.ops, kind_and_number, effects)?;
        self.promise(gone)?;
        let core = &mut self.space.core;
        core.reserve_journal(gone)?;
        self.paging.reserve(core.slots.len() + self.change.added().len())?;
        self.space.reserve_to_look(self.change.added().len())?;
        let core = &mut self.space.core;
        let slots = core.apply(&self.change);
        let (mut prev, mut new, mut next) = (came.prev, came.new, came.next);
        for (slot, mapping) in slots.into_iter().zip(self.change.added()) {
            let pages = if mapping.addr < request.addr {
                &mut prev
            } else if mapping.addr < request.end() {
                &mut new
            } else {
                &mut next
            };
            self.paging.set(slot, std::mem::replace(pages, Runs::None));
        }
        for op in &self.ops {
            core.counters.ops.count(op);
        }
        core.generation += 1;
        Ok(())
    }

    /// Promise room for putting `gone` neighbouring mappings back.
    ///
    /// Going back into the tree one after the other, they split a leaf after each half of one.
    fn promise(&mut self, gone: usize) -> Result<(), Refused> {
        if gone == 0 {
            return Ok(());
        }
        let changes = (gone / (LEAF_CAP / 2) + 2).div_ceil(3);
        self.space.core.promise(Room { changes, objects: 0 })?;
        self.work.promised += changes;
        Ok(())
    }

    /// A region in the address space; the page table is to make a sparse one so.
    fn make_region(&mut self, request: &Request, number: u32) -> Result<(), Refusal> {
        let (addr, end) = (request.addr, request.end());
        let region = Region { addr, end, sparse: request.sparse };
        let core = &mut self.space.core;
        match make_region(core, region) {
            Err(bulk::Refusal::Overlaps(start, stop)) => {
                let is_one = core.regions.find(addr, end).is_some();
                if is_one && core.first_overlapping(addr, end).is_none() {
                    let message =
                        format!("prepare: [{addr:#x}, {end:#x}) is a region already; drop it first");
                    return Err(Refusal::Told(Class::AlreadyMapped, message, Some((addr, end - addr))));
                }
                let message = format!(
                    "prepare: no room for a region at [{addr:#x}, {end:#x}), which overlaps [{start:#x}, {stop:#x}): \
                     unmap or drop what is there first"
                );
                return Err(Refusal::Told(Class::NoSpace, message, Some((start, stop - start))));
            }
            Err(bulk::Refusal::Memory(refused)) => return Err(refused.into()),
            _ => core.generation += 1,
        }
        if region.sparse {
            push(&mut self.work.sparse, (number, region))?;
        }
        Ok(())
    }

    /// Unmap what is in it now; the region itself stays, being dropped, until the bind is cleaned up.
    fn drop_region(&mut self, request: &Request, number: u32) -> Result<(), Refusal> {
        let (addr, end) = (request.addr, request.end());
        let region = self.space.core.regions.find(addr, end).copied();
        let lasting = region.filter(|_| self.paging.dropping_at(addr, end).is_none());
        let Some(lasting) = lasting else {
            let state = if region.is_some() { "is being dropped already" } else { "is no region" };
            let message =
                format!("prepare: [{addr:#x}, {end:#x}) {state}; pass addr and range of one as it was made");
            return Err(Refusal::Told(Class::NotFound, message, None));
        };
        self.paging.drop_region(lasting, self.work.bind)?;
        push(&mut self.work.dropped, lasting)?;
        self.unmap(request, number)
    }
}
