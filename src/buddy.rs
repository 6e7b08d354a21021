//! A buddy allocator: blocks of 2^order chunks at multiples of their size, cleared and dirty ones kept apart.
//!
//! One byte for each chunk says which block begins there: a block's buddy and its right neighbour are one look
//! away. Free blocks are members of a set besides, one for each kind. Two free buddies of one kind are always
//! merged, unlike ones only by force (`merge`), since what comes of it is dirty. Regions that force would make a
//! block of are members of a third set.
//!
//! All memory is taken when the allocator is made, and handed out by the system as it is touched; only answers grow.

mod aligned;
mod bitmap;
mod check;
mod search;
mod set;
mod take;

use set::BlockSet;

use crate::memory::{Refused, zeroed};

/// 2^64 bytes in chunks of 4 KiB.
pub const ORDERS: usize = 52;

/// What is known of the bytes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Dirty,
    Cleared,
}

impl Kind {
    pub fn of(cleared: bool) -> Self {
        if cleared { Kind::Cleared } else { Kind::Dirty }
    }

    fn other(self) -> Self {
        Kind::of(self == Kind::Dirty)
    }
}

/// `1 << order` chunks from `chunk` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub chunk: usize,
    pub order: u32,
    pub kind: Kind,
}

impl Block {
    pub fn end(&self) -> usize {
        self.chunk + (1 << self.order)
    }

    pub fn run(&self) -> Run {
        Run { start: self.chunk, end: self.end() }
    }
}

/// Chunks `[start, end)`: what is allocated, in one block or in several side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub start: usize,
    pub end: usize,
}

/// Which block begins at a chunk: order + 1 in the low six bits, 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head(u8);

impl Head {
    const NONE: u8 = 0;
    const ALLOCATED: u8 = 1 << 6;
    const CLEARED: u8 = 1 << 7;

    #[inline]
    fn free(order: u32, kind: Kind) -> u8 {
        (order as u8 + 1) | if kind == Kind::Cleared { Self::CLEARED } else { 0 }
    }

    #[inline]
    fn allocated(order: u32, kind: Kind) -> u8 {
        Self::free(order, kind) | Self::ALLOCATED
    }

    #[inline]
    fn is_free(self) -> bool {
        self.0 & Self::ALLOCATED == 0
    }

    #[inline]
    fn block(self, chunk: usize) -> Block {
        let order = u32::from(self.0 & (Self::ALLOCATED - 1)) - 1;
        Block { chunk, order, kind: Kind::of(self.0 & Self::CLEARED != 0) }
    }
}

/// What is asked for. Lengths and addresses are chunks.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub len: usize,
    /// Blocks have at least this order; what is less of `len` begins at a multiple of it.
    pub min_order: u32,
    pub first: usize,
    pub last: usize,
    pub contiguous: bool,
    /// Preferred, not promised.
    pub kind: Kind,
    pub top_down: bool,
}

/// Why an allocation was refused; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Memory(Refused),
    NoSpace,
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Refusal::Memory(refused)
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    pub splits: u64,
    pub merges: u64,
    /// Regions of unlike blocks that became one dirty block.
    pub forced_merges: u64,
    pub allocated_blocks: usize,
    /// By kind.
    pub free_chunks: [usize; 2],
}

pub struct Buddy {
    heads: Vec<u8>,
    /// By kind.
    free: [BlockSet; 2],
    /// Regions that are free, but in smaller blocks since these are unlike.
    mixed: BlockSet,
    pub counters: Counters,
}

impl Buddy {
    /// `chunks` chunks, all free and dirty: a block for each bit of the number, the largest first.
    pub fn new(chunks: usize) -> Result<Self, Refused> {
        let sets = || BlockSet::new(chunks);
        let (heads, free, mixed) = (zeroed(chunks)?, [sets()?, sets()?], sets()?);
        let mut buddy = Buddy { heads, free, mixed, counters: Counters::default() };
        let mut chunk = 0;
        while chunk < chunks {
            let order = (chunks - chunk).ilog2();
            buddy.add(Block { chunk, order, kind: Kind::Dirty });
            chunk += 1 << order;
        }
        Ok(buddy)
    }

    pub fn chunks(&self) -> usize {
        self.heads.len()
    }

    pub fn free_chunks(&self) -> usize {
        self.counters.free_chunks.iter().sum()
    }

    /// Free blocks of one kind and order.
    pub fn free_blocks(&self, kind: Kind, order: u32) -> usize {
        self.free[kind as usize].counts[order as usize]
    }

    /// The order of the largest free block.
    pub fn largest(&self) -> Option<u32> {
        (self.free[0].orders | self.free[1].orders).checked_ilog2()
    }

    pub fn bytes(&self) -> usize {
        self.heads.capacity() + self.free.iter().chain([&self.mixed]).map(BlockSet::bytes).sum::<usize>()
    }

    /// True if a run consists of whole allocated blocks.
    #[inline]
    pub fn is_allocated(&self, run: Run) -> bool {
        if run.end > self.chunks() {
            return false;
        }
        let mut at = run.start;
        while at < run.end && self.heads[at] & Head::ALLOCATED != 0 {
            at = Head(self.heads[at]).block(at).end();
        }
        at == run.end
    }

    /// The next dirty part of an allocated run, from `at` on, where a block begins.
    pub fn next_dirty(&self, run: Run, mut at: usize) -> Option<Run> {
        let block = |at: usize| Head(self.heads[at]).block(at);
        while at < run.end && block(at).kind == Kind::Cleared {
            at = block(at).end();
        }
        let start = at;
        while at < run.end && block(at).kind == Kind::Dirty {
            at = block(at).end();
        }
        (start < at).then_some(Run { start, end: at })
    }

    /// The block that `chunk` is in, and whether it is free.
    pub fn block_at(&self, chunk: usize) -> (Block, bool) {
        let mut order = 0;
        loop {
            let start = chunk >> order << order;
            let head = Head(self.heads[start]);
            if head.0 != Head::NONE && head.block(start).order >= order {
                return (head.block(start), head.is_free());
            }
            order += 1;
        }
    }

    /// All that is free becomes `kind`, and merges.
    pub fn reset_clear(&mut self, kind: Kind) {
        let from = kind.other();
        for order in 0..self.free[0].by_order.len() as u32 {
            while let Some(index) = self.free[from as usize].by_order[order as usize].first(0, usize::MAX) {
                let block = Block { chunk: index << order, order, kind: from };
                self.remove(block);
                self.release(Block { kind, ..block });
            }
        }
    }

    /// Put a block among the free ones, merged with every free buddy of its kind.
    #[inline]
    fn release(&mut self, mut block: Block) {
        loop {
            let buddy = block.chunk ^ 1 << block.order;
            if self.heads.get(buddy) != Some(&Head::free(block.order, block.kind)) {
                break;
            }
            self.remove(Block { chunk: buddy, ..block });
            self.heads[block.chunk] = Head::NONE;
            self.counters.merges += 1;
            block = Block { chunk: block.chunk.min(buddy), order: block.order + 1, ..block };
        }
        self.add(block);
    }

    /// Put a block among the free ones as it is.
    #[inline]
    fn add(&mut self, block: Block) {
        self.free[block.kind as usize].insert(block.chunk, block.order);
        self.counters.free_chunks[block.kind as usize] += 1 << block.order;
        self.heads[block.chunk] = Head::free(block.order, block.kind);
        let (mut chunk, mut order) = (block.chunk, block.order);
        while self.is_whole(chunk ^ 1 << order, order) {
            (chunk, order) = (chunk & !(1 << order), order + 1);
            self.mixed.insert(chunk, order);
        }
    }

    /// Take a block out of the free ones.
    #[inline]
    fn remove(&mut self, block: Block) {
        self.free[block.kind as usize].remove(block.chunk, block.order);
        self.counters.free_chunks[block.kind as usize] -= 1 << block.order;
        self.heads[block.chunk] = Head::NONE;
        let (mut chunk, mut order) = (block.chunk, block.order);
        while self.mixed.orders >> order > 1 {
            (chunk, order) = (chunk & !(1 << order), order + 1);
            if !self.mixed.contains(chunk, order) {
                break;
            }
            self.mixed.remove(chunk, order);
        }
    }

    /// True if a region is free, as one block or mixed; false if it is not all in the memory.
    #[inline]
    fn is_whole(&self, chunk: usize, order: u32) -> bool {
        let head = self.heads.get(chunk).map_or(Head::NONE, |head| head & !Head::CLEARED);
        head == Head::free(order, Kind::Dirty) || self.mixed.contains(chunk, order)
    }
}
