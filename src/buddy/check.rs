//! Every invariant of blocks, sets and counts.

use super::set::BlockSet;
use super::{Buddy, Head, ORDERS};
use crate::ensure;

impl Buddy {
    /// The first invariant that does not hold, in words. Looks at every chunk.
    pub fn check(&self) -> Result<(), String> {
        let (mut counts, mut chunks, mut allocated) = ([[0; ORDERS]; 2], [0; 2], 0);
        let mut at = 0;
        while at < self.chunks() {
            let head = Head(self.heads[at]);
            ensure!(head.0 != Head::NONE, "no block begins at chunk {at}, where the one before ends");
            let block = head.block(at);
            let place = format!("block of order {} at chunk {at}", block.order);
            ensure!(at.trailing_zeros() >= block.order, "{place}: not at a multiple of its size");
            ensure!(block.end() <= self.chunks(), "{place}: ends behind the last chunk");
            let inside = &self.heads[at + 1..block.end()];
            ensure!(inside.iter().all(|&head| head == Head::NONE), "{place}: another block begins inside");
            if head.is_free() {
                let kind = block.kind as usize;
                ensure!(
                    self.free[kind].contains(at, block.order),
                    "{place}: free but not among the free blocks"
                );
                let buddy = self.heads.get(at ^ 1 << block.order);
                ensure!(buddy != Some(&head.0), "{place}: its buddy is free too and of the same kind");
                counts[kind][block.order as usize] += 1;
                chunks[kind] += 1 << block.order;
            } else {
                allocated += 1;
            }
            at = block.end();
        }
        let counted = self.counters.allocated_blocks;
        ensure!(allocated == counted, "{allocated} blocks are allocated, {counted} counted");
        let counted = self.counters.free_chunks;
        ensure!(chunks == counted, "{chunks:?} chunks are free (dirty, cleared), {counted:?} counted");
        check_set(&self.free[0], &counts[0]).map_err(|message| format!("dirty blocks: {message}"))?;
        check_set(&self.free[1], &counts[1]).map_err(|message| format!("cleared blocks: {message}"))?;
        check_set(&self.mixed, &self.count_mixed()?).map_err(|message| format!("mixed regions: {message}"))
    }

    /// Mixed regions by order, each of them in the set: both halves are free, and not as one block.
    fn count_mixed(&self) -> Result<[usize; ORDERS], String> {
        let mut counts = [0; ORDERS];
        for order in 1..self.mixed.by_order.len() as u32 {
            for chunk in (0..self.chunks() >> order).map(|index| index << order) {
                let block = Head(self.heads[chunk]);
                let is_block = block.0 != Head::NONE && block.block(chunk).order >= order;
                let halves = [chunk, chunk + (1 << (order - 1))];
                let free = !is_block && halves.iter().all(|&half| self.is_whole(half, order - 1));
                let listed = self.mixed.contains(chunk, order);
                ensure!(
                    free == listed,
                    "region of order {order} at chunk {chunk}: free {free}, listed {listed}"
                );
                counts[order as usize] += usize::from(free);
            }
        }
        Ok(counts)
    }
}

/// True to its counts.
fn check_set(set: &BlockSet, counts: &[usize; ORDERS]) -> Result<(), String> {
    for (order, bitmap) in set.by_order.iter().enumerate() {
        let (found, counted, members) = (counts[order], set.counts[order], bitmap.count());
        ensure!(found == counted, "{found} of order {order}, {counted} counted");
        ensure!(found == members, "{found} of order {order}, {members} in the set");
        let marked = set.orders >> order & 1 != 0;
        ensure!(marked == (found > 0), "{found} of order {order}, marked as some: {marked}");
        let aligned = set.aligned[order].check(bitmap.iter().filter(|number| number.is_multiple_of(2)));
        bitmap.check().and(aligned).map_err(|message| format!("order {order}: {message}"))?;
    }
    Ok(())
}
