//! An address space whose mappings are put into effect by a page table: what it knows of their pages.

use crate::bulk::{FLAG_KIND, KIND_SHIFT};
use crate::ensure;
use crate::memory::{Refused, push, reserve};
use crate::page_change::{NOWHERE, Scratch, Write};
use crate::pages::{Pages, Runs, Size};
use crate::regions::Region;
use crate::space::{INVALIDATED, LINKED, Space};

/// The kind of a mapping's entries, which its flags say.
pub fn kind_of(flags: u32) -> u8 {
    (flags >> KIND_SHIFT & FLAG_KIND) as u8
}

/// A region that a bind drops, which goes when that bind is cleaned up.
#[derive(Clone, Copy)]
pub struct Dropping {
    pub region: Region,
    pub bind: u64,
}

/// How the word of a page looks, but for its address.
#[derive(Clone, Copy)]
pub struct Word {
    pub shift: u8,
    pub aperture: u8,
    pub kind: u8,
    pub constant: u64,
    /// The bits that an address may have.
    pub mask: u64,
}

/// A write whose word cannot be made.
pub enum Unsaid {
    /// Nobody has told yet how such words look.
    Unknown,
    /// Its address has bits outside of this mask.
    Address(u64),
}

pub struct Paging {
    /// Page sizes, the largest first.
    pub sizes: Vec<Size>,
    /// Do not clear entries that a bind writes again as they are.
    pub honour_keep: bool,
    /// Pages of mappings, by slot. Of one that went but may come back they stay.
    by_slot: Vec<Runs>,
    pub dropping: Vec<Dropping>,
    /// Where an address begins in an entry, if entries are written by word.
    pub address_shift: Option<u32>,
    /// Of pages that were mapped.
    pub words: Vec<Word>,
    pub scratch: Scratch,
    /// The number of the last bind.
    binds: u64,
    /// Binds that there was no way back from, their operations, and page slots that these did not clear.
    pub committed: [u64; 3],
}

impl Paging {
    pub fn new(sizes: Vec<Size>, honour_keep: bool, address_shift: Option<u32>) -> Self {
        Paging {
            sizes,
            honour_keep,
            by_slot: Vec::new(),
            dropping: Vec::new(),
            address_shift,
            words: Vec::new(),
            scratch: Scratch::default(),
            binds: 0,
            committed: [0; 3],
        }
    }

    /// A bind of `ops` operations was committed, which leaves `kept` page slots as they are.
    pub fn count_bind(&mut self, ops: u64, kept: u64) {
        for (count, more) in self.committed.iter_mut().zip([1, ops, kept]) {
            *count += more;
        }
    }

    /// What tells the next bind from others.
    pub fn number(&mut self) -> u64 {
        self.binds += 1;
        self.binds
    }

    /// The smallest page in bytes.
    pub fn page(&self) -> u64 {
        self.sizes.last().map_or(1, |size| 1 << size.shift)
    }

    pub fn pages_of(&self, slot: u32) -> &[Pages] {
        self.by_slot.get(slot as usize).map_or(&[], Runs::all)
    }

    /// Make room for the pages of mappings in slots below `count`.
    pub fn reserve(&mut self, count: usize) -> Result<(), Refused> {
        let room = count.saturating_sub(self.by_slot.len());
        reserve(&mut self.by_slot, room)
    }

    /// Say which pages the mapping in `slot` has; there is room.
    pub fn set(&mut self, slot: u32, pages: Runs) {
        let index = slot as usize;
        if index >= self.by_slot.len() {
            self.by_slot.resize_with(index + 1, Runs::default);
        }
        self.by_slot[index] = pages;
    }

    /// The region being dropped that `[addr, end)` touches.
    pub fn dropping_at(&self, addr: u64, end: u64) -> Option<&Dropping> {
        self.dropping.iter().find(|dropping| dropping.region.addr < end && addr < dropping.region.end)
    }

    /// From here on `bind` drops `region`.
    pub fn drop_region(&mut self, region: Region, bind: u64) -> Result<(), Refused> {
        push(&mut self.dropping, Dropping { region, bind })
    }

    /// Make the word of a write, unless it maps nothing.
    pub fn say(&self, write: &mut Write) -> Result<(), Unsaid> {
        let Some(address_shift) = self.address_shift.filter(|_| write.aperture != NOWHERE) else {
            return Ok(());
        };
        let wanted = (write.slots.shift, write.aperture, write.kind);
        let known = self.words.iter().find(|word| (word.shift, word.aperture, word.kind) == wanted);
        let word = known.ok_or(Unsaid::Unknown)?;
        if write.physical & !word.mask != 0 {
            return Err(Unsaid::Address(word.mask));
        }
        write.word = word.constant | write.physical >> address_shift;
        Ok(())
    }

    /// Pages lie in mappings, and all of what is not invalidated.
    pub fn check(&self, space: &Space) -> Result<(), String> {
        for (slot, _) in self.by_slot.iter().enumerate().filter(|(_, runs)| !runs.all().is_empty()) {
            let known = space.slots.get(slot as u32).is_some_and(|slot| slot.flags & LINKED != 0);
            ensure!(known, "slot {slot} has pages and no mapping");
        }
        for entry in space.tree.iter_from(0) {
            let (pages, place) = (self.pages_of(entry.slot), format!("mapping at {:#x}", entry.addr));
            let mut end = entry.addr;
            for run in pages {
                ensure!(
                    end <= run.addr && run.end() <= entry.end(),
                    "{place}: {run:x?} is out of order, or of place"
                );
                end = run.end();
            }
            let whole = pages.iter().map(|run| run.range).sum::<u64>() == entry.range;
            let invalidated = space.slot(entry.slot).flags & INVALIDATED != 0;
            ensure!(
                invalidated || pages.is_empty() || whole,
                "{place} of {:#x} bytes shows {pages:x?}",
                entry.range
            );
        }
        Ok(())
    }

    pub fn bytes(&self) -> usize {
        let many = |runs: &Runs| match runs {
            Runs::Many(many) => size_of_val(&**many),
            _ => 0,
        };
        self.by_slot.capacity() * size_of::<Runs>() + self.by_slot.iter().map(many).sum::<usize>()
    }
}
