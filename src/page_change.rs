//! What a plan of the address space comes to in references and page-table entries.

use crate::memory::{Refused, reserve};
use crate::page_slots::{SlotSet, Slots};
use crate::pages::{Cut, Misfit, Pages, Runs};
use crate::paging::{Paging, kind_of};
use crate::plan::{Kind, Op};
use crate::space::INVALIDATED;

/// The aperture of a write that maps nothing.
pub const NOWHERE: u8 = u8::MAX;

/// Slots to reference before operation `op` of a call.
#[derive(Clone, Copy)]
pub struct Get {
    pub slots: Slots,
    pub op: u32,
}

/// Entries to write when a bind runs: pages to be mapped, or slots to be cleared.
#[derive(Clone, Copy)]
pub struct Write {
    pub slots: Slots,
    pub physical: u64,
    pub aperture: u8,
    pub kind: u8,
    /// The operation of the call that wants it.
    pub op: u32,
    /// The first page's word, once it is made.
    pub word: u64,
}

impl Write {
    /// One that maps nothing.
    fn nothing(slots: Slots, op: u32) -> Self {
        Write { slots, physical: 0, aperture: NOWHERE, kind: 0, op, word: 0 }
    }
}

/// All that a change of the address space needs of the page table.
#[derive(Default)]
pub struct Effects {
    /// References to take before: slots that none of the mappings that go has.
    pub gets: Vec<Get>,
    /// Entries to write, in order.
    pub writes: Vec<Write>,
    /// References to drop after: slots that none of the mappings that come has.
    pub puts: Vec<Slots>,
    /// Page slots whose entries are written over without being cleared first.
    pub kept: u64,
}

impl Effects {
    /// Make room for what `count` operations mostly come to.
    pub fn reserve(&mut self, count: usize) -> Result<(), Refused> {
        reserve(&mut self.gets, count)?;
        reserve(&mut self.writes, 2 * count)?;
        reserve(&mut self.puts, count)
    }

    /// Map `pages`.
    pub fn map(&mut self, pages: &[Pages], kind: u8, op: u32) -> Result<(), Refused> {
        reserve(&mut self.writes, pages.len())?;
        self.writes.extend(pages.iter().map(|run| {
            let slots = Slots { addr: run.addr, range: run.range, shift: run.shift };
            Write { slots, physical: run.physical, aperture: run.aperture, kind, op, word: 0 }
        }));
        Ok(())
    }

    /// Clear `slots`.
    pub fn unmap(&mut self, slots: &[Slots], op: u32) -> Result<(), Refused> {
        reserve(&mut self.writes, slots.len())?;
        self.writes.extend(slots.iter().map(|slots| Write::nothing(*slots, op)));
        Ok(())
    }

    /// Put the slots of `pages`, where nothing can fail.
    pub fn put(&mut self, pages: &[Pages]) {
        let slots = |run: &Pages| Slots { addr: run.addr, range: run.range, shift: run.shift };
        self.puts.extend(pages.iter().map(slots));
    }

    /// Clear the slots of `pages`, where nothing can fail.
    pub fn clear(&mut self, pages: &[Pages]) {
        for run in pages {
            let slots = Slots { addr: run.addr, range: run.range, shift: run.shift };
            match self.writes.last_mut() {
                Some(last) if last.slots.continues(&slots) => last.slots.range += slots.range,
                _ => self.writes.push(Write::nothing(slots, 0)),
            }
        }
    }

    /// Exchange the slots that `go` for those that `come`.
    pub fn exchange(&mut self, go: &SlotSet, come: &SlotSet, op: u32) -> Result<(), Refused> {
        if go.all() == come.all() {
            return Ok(());
        }
        come.minus(go, &mut self.gets, |slots| Get { slots, op })?;
        go.minus(come, &mut self.puts, |slots| slots)
    }
}

/// The pages of mappings that come: what stays in front of the request, the request's own, what stays behind it.
#[derive(Default)]
pub struct Came {
    pub prev: Runs,
    pub new: Runs,
    pub next: Runs,
}

/// What finding out needs, kept from one time to the next.
#[derive(Default)]
pub struct Scratch {
    /// The pages of the requested mapping, if there is one.
    pub new: Vec<Pages>,
    cut: Cut,
    smaller: Vec<Pages>,
    gone: Vec<Pages>,
    kept: Vec<Pages>,
    come: SlotSet,
    go: SlotSet,
    set: SlotSet,
    left: Vec<Slots>,
}

impl Scratch {
    /// What the `ops` of a plan come to, of which `new` has the requested mapping's pages, and `kind` is its kind.
    /// They are operation `number` of their call.
    ///
    /// A mapping that goes has its entries cleared, one that is cut those of the hole. Of a large page that is cut
    /// the remains are mapped below in smaller pages first, so they show through when it goes. Entries of
    /// invalidated mappings are gone already; what is cut off such a one keeps no part of a page, only whole ones.
    ///
    /// What an operation says to keep, and has the kind of the request, is not cleared: the request's entries are
    /// written over those that are there. Where it has pages of other sizes, the old ones are cleared after.
    pub fn find_out(
        &mut self,
        paging: &Paging,
        ops: &[Op],
        (kind, number): (u8, u32),
        effects: &mut Effects,
    ) -> Result<Came, Misfit> {
        let mut came = Came { new: Runs::new(&self.new)?, ..Came::default() };
        for pages in [&mut self.smaller, &mut self.gone, &mut self.kept] {
            pages.clear();
        }
        for op in ops.iter().filter(|op| op.kind != Kind::Map) {
            self.visit(paging, op, (kind, number), &mut came, effects)?;
        }
        self.come.fill(self.smaller.iter().chain(&self.new))?;
        self.go.fill(self.gone.iter())?;
        effects.exchange(&self.go, &self.come, number)?;
        effects.map(&self.new, kind, number)?;
        if !self.kept.is_empty() {
            self.set.fill(self.kept.iter())?;
            self.left.clear();
            self.set.minus(&self.come, &mut self.left, |slots| slots)?;
            effects.unmap(&self.left, number)?;
            effects.kept += self.set.count() - self.left.iter().map(Slots::count).sum::<u64>();
        }
        Ok(came)
    }

    /// Of one mapping that goes or is cut: which of its pages go, and what takes their place.
    fn visit(
        &mut self,
        paging: &Paging,
        op: &Op,
        (kind, number): (u8, u32),
        came: &mut Came,
        effects: &mut Effects,
    ) -> Result<(), Misfit> {
        let (flags, old) = (op.mapping.flags, paging.pages_of(op.slot));
        let (mapped, kind_there) = (flags & INVALIDATED == 0, kind_of(flags));
        let (mut added, mut gone): (&[Pages], &[Pages]) = (&[], old);
        if op.kind == Kind::Remap {
            let hole = (op.mapping.addr + op.prev, op.mapping.end() - op.next);
            self.cut.make(&paging.sizes, old, hole, mapped)?;
            if op.prev > 0 {
                came.prev = Runs::new(&self.cut.before)?;
            }
            if op.next > 0 {
                came.next = Runs::new(&self.cut.after)?;
            }
            (added, gone) = (&self.cut.added, &self.cut.gone);
        }
        append(&mut self.smaller, added)?;
        append(&mut self.gone, gone)?;
        if !mapped {
            return Ok(());
        }
        effects.map(added, kind_there, number)?;
        if op.keep && paging.honour_keep && kind_there == kind {
            append(&mut self.kept, gone)?;
        } else {
            self.set.fill(gone.iter())?;
            effects.unmap(self.set.all(), number)?;
        }
        Ok(())
    }
}

fn append(pages: &mut Vec<Pages>, more: &[Pages]) -> Result<(), Refused> {
    reserve(pages, more.len())?;
    pages.extend_from_slice(more);
    Ok(())
}
