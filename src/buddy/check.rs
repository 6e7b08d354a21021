//! Every invariant of blocks, sets and counts.

use super::{Buddy, Head, Kind, ORDERS};
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
                let set = &self.free[kind].by_order[block.order as usize];
                ensure!(set.contains(at >> block.order), "{place}: free but not among the free blocks");
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
        Kind::BOTH
            .into_iter()
            .try_for_each(|kind| self.check_free(kind, &counts[kind as usize], chunks[kind as usize]))
    }

    fn check_free(&self, kind: Kind, counts: &[usize; ORDERS], chunks: usize) -> Result<(), String> {
        let free = &self.free[kind as usize];
        ensure!(free.chunks == chunks, "{chunks} chunks are free and {kind:?}, {} counted", free.chunks);
        for (order, set) in free.by_order.iter().enumerate() {
            let place = format!("free blocks of order {order}, {kind:?}");
            let (found, counted, members) = (counts[order], free.counts[order], set.count());
            ensure!(found == counted, "{place}: {found}, {counted} counted");
            ensure!(found == members, "{place}: {found}, {members} in the set");
            let marked = free.orders >> order & 1 != 0;
            ensure!(marked == (found > 0), "{place}: {found}, marked as some: {marked}");
            set.check().map_err(|message| format!("{place}: {message}"))?;
        }
        Ok(())
    }
}
