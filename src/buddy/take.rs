//! Allocating, freeing and trimming. Everything that can fail comes before what cannot be undone.

use super::search::Place;
use super::{Block, Buddy, Head, Kind, Refusal, Run, Wanted};
use crate::memory::{Refused, forbidden, reserve};

impl Buddy {
    /// Allocate what is wanted, whole or nothing; `runs` is empty before.
    pub fn alloc(&mut self, wanted: &Wanted, runs: &mut Vec<Run>) -> Result<(), Refusal> {
        if forbidden() {
            return Err(Refused::Forbidden.into());
        }
        if self.free_chunks() < wanted.len {
            return Err(Refusal::NoSpace);
        }
        reserve(runs, 1)?;
        let whole = if wanted.contiguous { 0 } else { wanted.len >> wanted.min_order << wanted.min_order };
        // The rest first: whole blocks may be merged by force, and then nothing may fail any more.
        let rest = if whole < wanted.len { Some(self.take_run(wanted.len - whole, wanted)?) } else { None };
        let result = self.take_blocks(whole, wanted, runs);
        match result {
            Ok(()) => rest.into_iter().for_each(|rest| push(runs, rest)),
            Err(_) => runs.drain(..).chain(rest).for_each(|run| self.free(run, None)),
        }
        result
    }

    /// Free an allocated run, whose bytes are now of `kind`, or what they were when it was allocated.
    pub fn free(&mut self, run: Run, kind: Option<Kind>) {
        let mut at = run.start;
        while at < run.end {
            let block = Head(self.heads[at]).block(at);
            self.counters.allocated_blocks -= 1;
            self.release(Block { kind: kind.unwrap_or(block.kind), ..block });
            at = block.end();
        }
    }

    /// Keep a part of an allocated run and free the rest, which is still what it was when it was allocated.
    pub fn trim(&mut self, run: Run, part: Run) {
        let mut at = run.start;
        while at < run.end {
            let block = Head(self.heads[at]).block(at);
            self.counters.allocated_blocks -= 1;
            self.heads[at] = Head::NONE;
            self.allocate_part(block, part);
            at = block.end();
        }
    }

    /// Take `len` chunks in blocks of the wanted order and larger. They do not grow from one to the next, so that
    /// each lies at a multiple of its size in the allocation too.
    fn take_blocks(&mut self, len: usize, wanted: &Wanted, runs: &mut Vec<Run>) -> Result<(), Refusal> {
        let (mut left, mut order) = (len, u32::MAX);
        while left > 0 {
            order = order.min(left.ilog2());
            if let Some(place) = self.find(order, order, wanted) {
                reserve(runs, 2)?; // one for what is no whole block
                push(runs, self.carve(place, order).run());
                left -= 1 << order;
            } else if order > wanted.min_order {
                order -= 1;
            } else {
                return self.take_merged(left >> order, wanted, runs);
            }
        }
        Ok(())
    }

    /// Take `count` blocks of the wanted order that have to be merged by force first, if there are as many.
    fn take_merged(&mut self, count: usize, wanted: &Wanted, runs: &mut Vec<Run>) -> Result<(), Refusal> {
        let next = |buddy: &Self, from: usize| buddy.find_mixed(from, wanted).ok_or(Refusal::NoSpace);
        let mut from = wanted.first;
        for _ in 0..count {
            from = next(self, from)? + (1 << wanted.min_order);
        }
        reserve(runs, count + 1)?;
        from = wanted.first;
        for _ in 0..count {
            let block = self.merge(next(self, from)?, wanted.min_order);
            push(runs, block.run());
            from = block.end();
        }
        Ok(())
    }

    /// Take `len` chunks in a row from a multiple of the wanted order on: in a block of the next power of two if
    /// there is one, else where free blocks lie side by side.
    fn take_run(&mut self, len: usize, wanted: &Wanted) -> Result<Run, Refusal> {
        let order = len.next_power_of_two().ilog2();
        let place = self.find(order, order.max(wanted.min_order), wanted).map(|place| place.chunk);
        let start = place.or_else(|| self.find_run(len, wanted)).ok_or(Refusal::NoSpace)?;
        let run = Run { start, end: start + len };
        let mut at = self.block_at(start).0.chunk;
        while at < run.end {
            let block = Head(self.heads[at]).block(at);
            self.remove(block);
            self.allocate_part(block, run);
            at = block.end();
        }
        Ok(run)
    }

    /// Allocate `1 << order` chunks of a free block; the rest of it stays free, in the largest pieces.
    #[inline]
    fn carve(&mut self, place: Place, order: u32) -> Block {
        let Block { chunk: mut base, order: whole, kind } = place.block;
        self.remove(place.block);
        for half in (order..whole).rev() {
            let middle = base + (1 << half);
            if place.chunk < middle {
                self.add(Block { chunk: middle, order: half, kind });
            } else {
                self.add(Block { chunk: base, order: half, kind });
                base = middle;
            }
        }
        self.counters.splits += u64::from(whole - order);
        self.allocate(Block { chunk: base, order, kind })
    }

    /// Allocate what of a block lies in `part` and free the rest; the block itself is neither.
    fn allocate_part(&mut self, block: Block, part: Run) {
        if part.start <= block.chunk && block.end() <= part.end {
            self.allocate(block);
        } else if block.end() <= part.start || part.end <= block.chunk {
            self.release(block);
        } else {
            self.counters.splits += 1;
            let left = Block { order: block.order - 1, ..block };
            self.allocate_part(left, part);
            self.allocate_part(Block { chunk: left.end(), ..left }, part);
        }
    }

    #[inline]
    fn allocate(&mut self, block: Block) -> Block {
        self.counters.allocated_blocks += 1;
        self.heads[block.chunk] = Head::allocated(block.order, block.kind);
        block
    }

    /// Allocate a region that is free in smaller blocks, as one dirty block.
    fn merge(&mut self, chunk: usize, order: u32) -> Block {
        let mut at = chunk;
        while at < chunk + (1 << order) {
            let block = Head(self.heads[at]).block(at);
            self.remove(block);
            at = block.end();
        }
        self.counters.forced_merges += 1;
        self.allocate(Block { chunk, order, kind: Kind::Dirty })
    }
}

/// Add a run to those of an answer; there is room.
#[inline]
fn push(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.end == run.start => last.end = run.end,
        _ => runs.push(run),
    }
}
