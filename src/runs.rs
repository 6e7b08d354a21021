//! Moving bytes by runs: a table walk said where they lie, piece by piece.
//!
//! Other threads, and other processes, may read and write this memory meanwhile, as an engine's may. So no Rust
//! reference to it is ever made.

use std::ptr;

use crate::page_table::translate::{Record, Run, SPARSE, VALID};
use crate::processor;

/// Contiguous bytes of this process. Who made it keeps them there.
#[derive(Clone, Copy)]
pub struct Bytes {
    base: *mut u8,
    len: usize,
}

// SAFETY: a place in memory shared with other threads anyhow; see the module.
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// # Safety
    /// `len` bytes from `base` on must stay mapped while this, or what was made of it, is used; and writable, if it
    /// is written to.
    pub unsafe fn new(base: *mut u8, len: usize) -> Self {
        Bytes { base, len }
    }

    pub fn len(self) -> usize {
        self.len
    }

    pub fn start(self) -> *mut u8 {
        self.base
    }
}

/// What physical addresses lead to, by aperture.
pub type Memories = [Option<Bytes>; 4];

/// What a range of addresses leads to, from its start to its end.
#[derive(Clone, Copy)]
pub enum Stretches<'a> {
    Runs(&'a Memories, &'a [Record]),
    /// Contiguous bytes, whatever their addresses.
    Bytes(Bytes),
}

impl Stretches<'_> {
    /// How many bytes there are; or the position of the first run that leads to no memory.
    pub fn range(&self) -> Result<usize, usize> {
        let Stretches::Runs(memories, runs) = self else { return Ok(self.at(0).map_or(0, |it| it.range)) };
        let mut range = 0usize;
        for (position, record) in runs.iter().enumerate() {
            let stretch = stretch(memories, &Run::of_record(record)).ok_or(position)?;
            range = range.checked_add(stretch.range).ok_or(position)?;
        }
        Ok(range)
    }

    /// Where the first bytes are, if that is somewhere.
    pub fn contiguous(&self) -> Option<*mut u8> {
        self.at(0)?.at
    }

    fn len(&self) -> usize {
        if let Stretches::Runs(_, runs) = self { runs.len() } else { 1 }
    }

    /// None: there is none, or it leads to no memory.
    #[inline]
    fn at(&self, position: usize) -> Option<Stretch> {
        match self {
            Stretches::Runs(memories, runs) => stretch(memories, &Run::of_record(runs.get(position)?)),
            Stretches::Bytes(bytes) => {
                (position == 0).then_some(Stretch { at: Some(bytes.base), range: bytes.len })
            }
        }
    }
}

/// The first run that leads to no memory, or has one of the flags that are `forbidden`.
pub fn refused(memories: &Memories, runs: &[Record], forbidden: u8) -> Option<usize> {
    runs.iter()
        .map(Run::of_record)
        .position(|run| run.flags & forbidden != 0 || stretch(memories, &run).is_none())
}

/// Contiguous bytes, or nothing, which reads as zeros.
#[derive(Clone, Copy)]
pub struct Stretch {
    pub at: Option<*mut u8>,
    pub range: usize,
}

/// None: there is no such memory.
#[inline]
pub fn stretch(memories: &Memories, run: &Run) -> Option<Stretch> {
    let range = usize::try_from(run.range).ok()?;
    match run.state {
        VALID => {
            let memory = (*memories.get(usize::from(run.aperture))?)?;
            let end = run.address.checked_add(run.range)?;
            let at = memory.base.wrapping_add(run.address as usize);
            (end <= memory.len as u64).then_some(Stretch { at: Some(at), range })
        }
        SPARSE => Some(Stretch { at: None, range }),
        _ => None,
    }
}

/// From so many bytes on, what is written goes past the caches: they would not hold it until it is read, and to
/// read a line from memory first that is overwritten as a whole takes a third of the bandwidth.
pub const STREAMED_FROM: usize = 8 << 20;

/// Bytes of the next piece's source that are fetched while one is copied. The first of them also brings where its
/// page is, which takes longest if pages are scattered; with many more the copy at hand has to wait.
const FETCHED: usize = 8 * 64;

/// The order of the pieces of a copy, each of which is contiguous on both sides.
#[derive(Clone, Copy)]
pub enum Order {
    /// None is over a multiple of `step`, as if so many bytes were copied at a time.
    Upwards {
        step: usize,
    },
    Downwards,
}

pub const UPWARDS: Order = Order::Upwards { step: usize::MAX };

/// Copy `range` bytes, as long as both sides are, piece by piece, each as by `memmove`; what is written to nothing
/// vanishes.
pub fn copy(targets: &Stretches<'_>, sources: &Stretches<'_>, range: usize, order: Order) {
    let streamed = range >= STREAMED_FROM;
    let (downwards, step) = match order {
        Order::Upwards { step } => (false, step),
        Order::Downwards => (true, usize::MAX),
    };
    let (targets, sources) = (Cursor::new(targets, downwards), Cursor::new(sources, downwards));
    let mut pieces = Pieces { targets, sources, step, left: step };
    let mut next = pieces.next();
    while let Some(piece) = next {
        next = pieces.next();
        if let Some(following) = &next {
            following.prefetch();
        }
        piece.copy(streamed);
    }
    if streamed {
        processor::order_streams();
    }
}

/// Write `block` again and again to `range` bytes, all there are; the last one is cut if need be.
pub fn fill(targets: &Stretches<'_>, block: Bytes, range: usize) {
    assert!(block.len > 0);
    let streamed = range >= STREAMED_FROM;
    let mut from = 0;
    for stretch in (0..targets.len()).filter_map(|position| targets.at(position)) {
        let mut done = 0;
        while done < stretch.range {
            let range = (block.len - from).min(stretch.range - done);
            let target = stretch.at.map(|at| at.wrapping_add(done));
            Piece { target, source: Some(block.base.wrapping_add(from)), range }.copy(streamed);
            done += range;
            from = (from + range) % block.len;
        }
    }
    if streamed {
        processor::order_streams();
    }
}

/// Bytes that are contiguous on both sides, or nothing on one of them.
struct Piece {
    target: Option<*mut u8>,
    source: Option<*mut u8>,
    range: usize,
}

impl Piece {
    #[inline]
    fn prefetch(&self) {
        if let Some(source) = self.source {
            processor::prefetch_lines(source, 0, FETCHED.min(self.range));
        }
    }

    #[inline]
    fn copy(&self, streamed: bool) {
        let range = self.range;
        match (self.target, self.source) {
            (None, _) => {}
            // SAFETY: part of a stretch, which lies in memory as was checked; see the module on who else is there.
            (Some(target), None) => unsafe { ptr::write_bytes(target, 0, range) },
            (Some(target), Some(source)) => {
                let apart = (target as usize).abs_diff(source as usize) >= range;
                // SAFETY: as above; streaming wants them not to overlap.
                unsafe {
                    if streamed && apart {
                        processor::copy_past_caches(target, source, range);
                    } else {
                        ptr::copy(source, target, range);
                    }
                }
            }
        }
    }
}

/// Goes through stretches, from either end.
struct Cursor<'a> {
    stretches: &'a Stretches<'a>,
    downwards: bool,
    /// How many stretches are behind, or begun.
    begun: usize,
    /// What is left of the one that was begun.
    left: Stretch,
}

impl<'a> Cursor<'a> {
    fn new(stretches: &'a Stretches<'a>, downwards: bool) -> Self {
        Cursor { stretches, downwards, begun: 0, left: Stretch { at: None, range: 0 } }
    }

    /// How many bytes there are at once; None at the end.
    #[inline]
    fn contiguous(&mut self) -> Option<usize> {
        while self.left.range == 0 {
            let behind = self.stretches.len().checked_sub(self.begun + 1)?;
            self.left = self.stretches.at(if self.downwards { behind } else { self.begun })?;
            self.begun += 1;
        }
        Some(self.left.range)
    }

    /// Where the next `range` bytes are, no more than there are at once.
    #[inline]
    fn take(&mut self, range: usize) -> Option<*mut u8> {
        let at = self.left.at;
        self.left.range -= range;
        if self.downwards {
            return at.map(|at| at.wrapping_add(self.left.range));
        }
        self.left.at = at.map(|at| at.wrapping_add(range));
        at
    }
}

/// Two sides, next to each other.
struct Pieces<'a> {
    targets: Cursor<'a>,
    sources: Cursor<'a>,
    step: usize,
    /// What is left of the step.
    left: usize,
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    #[inline]
    fn next(&mut self) -> Option<Piece> {
        let range = self.targets.contiguous()?.min(self.sources.contiguous()?).min(self.left);
        self.left = if range == self.left { self.step } else { self.left - range };
        Some(Piece { target: self.targets.take(range), source: self.sources.take(range), range })
    }
}
