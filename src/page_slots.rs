//! Page slots as page tables take them, and what two sets of them do not have in common.

use std::cmp::Reverse;

use crate::memory::{Refused, push, reserve};
use crate::pages::Pages;

/// The page slots of size `1 << shift` in `[addr, addr + range)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    pub addr: u64,
    pub range: u64,
    pub shift: u8,
}

impl Slots {
    fn end(&self) -> u64 {
        self.addr + self.range
    }

    pub fn count(&self) -> u64 {
        self.range >> self.shift
    }

    /// True if `next` begins where these end.
    pub fn continues(&self, next: &Slots) -> bool {
        (self.shift, self.end()) == (next.shift, next.addr)
    }
}

/// The slots that some pages are in, each once: larger ones first, in address order, neighbours as one wherever
/// their memory is.
///
/// Sizes have slots of their own: a page of 64 KiB and sixteen of 4 KiB below it have none in common.
#[derive(Default)]
pub struct SlotSet(Vec<Slots>);

impl SlotSet {
    /// Hold the slots of `pages`, of whatever order, and no others. O(n log n).
    pub fn fill<'a>(&mut self, pages: impl Iterator<Item = &'a Pages> + Clone) -> Result<(), Refused> {
        let slots = &mut self.0;
        slots.clear();
        reserve(slots, pages.clone().count())?;
        slots.extend(pages.map(|run| Slots { addr: run.addr, range: run.range, shift: run.shift }));
        slots.sort_unstable_by_key(|slots| (Reverse(slots.shift), slots.addr));
        slots.dedup_by(|next, slots| {
            let joined = slots.continues(next);
            slots.range += if joined { next.range } else { 0 };
            joined
        });
        Ok(())
    }

    pub fn all(&self) -> &[Slots] {
        &self.0
    }

    pub fn count(&self) -> u64 {
        self.0.iter().map(Slots::count).sum()
    }

    /// Append to `left` those that are not among `others`, made into what is wanted. O(n).
    pub fn minus<T>(
        &self,
        others: &SlotSet,
        left: &mut Vec<T>,
        make: impl Fn(Slots) -> T,
    ) -> Result<(), Refused> {
        let mut rest = others.0.as_slice();
        for slots in &self.0 {
            let is_before = |other: &Slots| {
                other.shift > slots.shift || other.shift == slots.shift && other.end() <= slots.addr
            };
            rest = &rest[rest.iter().take_while(|other| is_before(other)).count()..];
            let (mut addr, end) = (slots.addr, slots.end());
            let taken = rest.iter().take_while(|other| other.shift == slots.shift && other.addr < end);
            for other in taken {
                if addr < other.addr {
                    push(left, make(Slots { addr, range: other.addr - addr, ..*slots }))?;
                }
                addr = other.end();
            }
            if addr < end {
                push(left, make(Slots { addr, range: end - addr, ..*slots }))?;
            }
        }
        Ok(())
    }
}
