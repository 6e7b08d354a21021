//! Looking for free memory; changes nothing.

use super::bitmap::Bitmap;
use super::{Block, Buddy, Head, Kind, Wanted};

/// A place in a free block.
#[derive(Clone, Copy)]
pub struct Place {
    pub block: Block,
    /// Where in the block.
    pub chunk: usize,
}

impl Buddy {
    /// A place for `1 << order` chunks at a multiple of `1 << align`, which is not less: of the preferred kind if
    /// there is one, in the smallest block and there the lowest, or, from the top down, the highest of all.
    pub fn find(&self, order: u32, align: u32, wanted: &Wanted) -> Option<Place> {
        self.find_kind(wanted.kind, order, align, wanted)
            .or_else(|| self.find_kind(wanted.kind.other(), order, align, wanted))
    }

    fn find_kind(&self, kind: Kind, order: u32, align: u32, wanted: &Wanted) -> Option<Place> {
        let mut orders = self.free[kind as usize].orders >> order << order;
        let highest = wanted.last.checked_sub(1 << order)?;
        // The multiples where the place may be, [low, high).
        let (low, high) = (wanted.first.div_ceil(1 << align), (highest >> align) + 1);
        if orders == 0 || low >= high {
            return None;
        }
        let mut best: Option<Place> = None;
        while orders != 0 {
            let block_order = orders.trailing_zeros();
            orders &= orders - 1;
            let found = self.find_in_order(kind, block_order, align, (low, high), wanted.top_down);
            if !wanted.top_down && found.is_some() {
                return found;
            }
            best = best.into_iter().chain(found).max_by_key(|place| place.chunk);
        }
        best
    }

    /// The lowest or highest place in a free block of `order` that is a multiple of `1 << align` in `[low, high)`.
    #[inline]
    fn find_in_order(
        &self,
        kind: Kind,
        order: u32,
        align: u32,
        (low, high): (usize, usize),
        highest: bool,
    ) -> Option<Place> {
        let blocks = &self.free[kind as usize].by_order[order as usize];
        let block = |index: usize| Block { chunk: index << order, order, kind };
        if order < align {
            let shift = align - order;
            let (from, end) = (low << shift, ((high - 1) << shift) + 1);
            let step = 1 << shift;
            let search = if highest { Bitmap::last_multiple } else { Bitmap::first_multiple };
            let index = search(blocks, from, end, step)?;
            return Some(Place { block: block(index), chunk: index << order });
        }
        let shift = order - align;
        let (from, end) = (low >> shift, ((high - 1) >> shift) + 1);
        if highest {
            let index = blocks.last(from, end)?;
            let multiple = (high - 1).min(((index + 1) << shift) - 1);
            return Some(Place { block: block(index), chunk: multiple << align });
        }
        let index = blocks.first(from, end)?;
        Some(Place { block: block(index), chunk: low.max(index << shift) << align })
    }

    /// Where `len` chunks are free in a row, in blocks of any order and kind, beginning at a multiple of the
    /// wanted order. Walks the blocks of the window.
    pub fn find_run(&self, len: usize, wanted: &Wanted) -> Option<usize> {
        let align = 1 << wanted.min_order;
        let (mut at, mut run, mut best) = (self.block_at(wanted.first).0.chunk, None, None);
        while at < wanted.last {
            let head = Head(self.heads[at]);
            let end = head.block(at).end();
            run = head.is_free().then(|| run.unwrap_or(at.max(wanted.first)));
            if let Some(run) = run {
                let lowest = usize::next_multiple_of(run, align);
                let highest = end.min(wanted.last).checked_sub(len).map(|start| start & !(align - 1));
                if highest.is_some_and(|highest| highest >= lowest) {
                    if !wanted.top_down {
                        return Some(lowest);
                    }
                    best = highest;
                }
            }
            at = end;
        }
        best
    }

    /// The first region of `1 << order` chunks in `[from, last)` that is free but in smaller blocks, since they
    /// are unlike. Walks blocks of this order and larger, and regions of smaller ones up to what is allocated.
    pub fn find_mixed(&self, from: usize, last: usize, order: u32) -> Option<usize> {
        let len = 1_usize << order;
        let mut at = from.next_multiple_of(len);
        while at + len <= last {
            let block = self.block_at(at).0;
            if block.order >= order {
                at = block.end();
            } else if self.is_free(at, at + len) {
                return Some(at);
            } else {
                at += len;
            }
        }
        None
    }

    /// True if all blocks from `at` up to `end` are free; blocks begin and end there.
    fn is_free(&self, mut at: usize, end: usize) -> bool {
        while at < end && Head(self.heads[at]).is_free() {
            at = Head(self.heads[at]).block(at).end();
        }
        at >= end
    }
}
