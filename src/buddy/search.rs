//! Looking for free memory; changes nothing.

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
        let set = &self.free[kind as usize];
        let block = |index: usize| Block { chunk: index << order, order, kind };
        if order < align {
            let shift = align - order;
            let (from, end) = (low << shift, ((high - 1) << shift) + 1);
            let index = set.aligned[order as usize].find(from, end, shift, highest)?;
            return Some(Place { block: block(index), chunk: index << order });
        }
        let blocks = &set.by_order[order as usize];
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
    /// wanted order; for who has found no block of the next power of two. Walks the blocks of the window.
    pub fn find_run(&self, len: usize, wanted: &Wanted) -> Option<usize> {
        let order = len.next_power_of_two().ilog2();
        let would_be_block = len.is_power_of_two() && order <= wanted.min_order;
        // A run contains a free region of a quarter of the next power of two.
        let regions = self.free.iter().fold(self.mixed.orders, |orders, free| orders | free.orders);
        if would_be_block && self.mixed.orders >> order == 0 || regions.checked_ilog2()? + 2 < order {
            return None;
        }
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

    /// The lowest region of the wanted order from `from` on that is free but not as one block.
    pub fn find_mixed(&self, from: usize, wanted: &Wanted) -> Option<usize> {
        let order = wanted.min_order;
        let regions = self.mixed.by_order.get(order as usize)?;
        regions.first(from.div_ceil(1 << order), wanted.last >> order).map(|index| index << order)
    }
}
