//! What a surface lies on: the runs that its addresses lead to.
//!
//! Others may read and write that memory meanwhile; see `runs`.

use std::ptr;

use crate::page_table::translate::{Record, Run};
use crate::processor;
use crate::runs::{Bytes, Memories, Stretch, stretch};

/// Contiguous bytes from an address on, or nothing, which reads as zeros. `Ground` alone makes them.
#[derive(Clone, Copy)]
pub struct Place {
    at: Option<*mut u8>,
    left: usize,
}

// SAFETY: a place in memory shared with other threads anyhow; see `runs`.
unsafe impl Send for Place {}

/// From so many bytes on it pays to write past the caches.
const STREAMED: usize = 256;

impl Place {
    /// How many bytes there are, at least one.
    pub fn left(self) -> usize {
        self.left
    }

    /// Where the first `range` bytes are; None: nowhere.
    pub fn bytes(self, range: usize) -> Option<*mut u8> {
        assert!(range <= self.left);
        self.at
    }

    #[inline]
    pub fn read(self, out: &mut [u8]) {
        match self.bytes(out.len()) {
            None => out.fill(0),
            // SAFETY: so many bytes are there, none of which a Rust reference is made of.
            Some(at) => unsafe { ptr::copy_nonoverlapping(at, out.as_mut_ptr(), out.len()) },
        }
    }

    #[inline]
    pub fn write(self, from: &[u8], streamed: bool) {
        let Some(at) = self.bytes(from.len()) else { return };
        // SAFETY: as in `read`.
        unsafe {
            if streamed && from.len() >= STREAMED {
                processor::copy_past_caches(at, from.as_ptr(), from.len());
            } else {
                ptr::copy_nonoverlapping(from.as_ptr(), at, from.len());
            }
        }
    }

    /// Copy `range` bytes from another place, as by `memmove`.
    #[inline]
    pub fn copy_from(self, other: Place, range: usize, streamed: bool) {
        let Some(to) = self.bytes(range) else { return };
        let from = other.bytes(range);
        // SAFETY: as many bytes are at both places; streaming wants them not to overlap.
        unsafe {
            match from {
                None => ptr::write_bytes(to, 0, range),
                Some(from) if streamed && range >= STREAMED && to.addr().abs_diff(from.addr()) >= range => {
                    processor::copy_past_caches(to, from, range);
                }
                Some(from) => ptr::copy(from, to, range),
            }
        }
    }

    /// What is left behind so many bytes, of which there must be as many.
    pub fn skip(self, bytes: usize) -> Self {
        assert!(bytes <= self.left);
        Place { at: self.at.map(|at| at.wrapping_add(bytes)), left: self.left - bytes }
    }
}

/// Runs in the order of addresses, without gaps, that remember where they were asked last.
pub struct Ground<'a> {
    memories: &'a Memories,
    runs: &'a [Record],
    /// Flags of runs that do not bear this access.
    forbidden: u8,
    position: usize,
    here: Run,
    /// What all of that run leads to; None: it bears nothing.
    place: Option<Place>,
}

impl<'a> Ground<'a> {
    pub fn new(memories: &'a Memories, runs: &'a [Record], forbidden: u8) -> Self {
        Ground { memories, runs, forbidden, position: 0, here: Run::default(), place: None }
    }

    /// Bytes that are at addresses from 0 on.
    pub fn of_bytes(memories: &'a Memories, bytes: Bytes) -> Self {
        let here = Run { range: bytes.len() as u64, ..Run::default() };
        let place = Some(Place { at: Some(bytes.start()), left: bytes.len() });
        Ground { memories, runs: &[], forbidden: 0, position: 0, here, place }
    }

    /// Whether all runs bear the access, and go from `first` to `end`.
    pub fn bears(&self, first: i128, end: i128) -> bool {
        let [Some(start), Some(last)] =
            [self.runs.first(), self.runs.last()].map(|run| run.map(Run::of_record))
        else {
            return false;
        };
        (i128::from(start.va), i128::from(last.va) + i128::from(last.range)) == (first, end)
            && self.runs.iter().all(|run| self.place_of(&Run::of_record(run)).is_some())
    }

    /// What `va` leads to; None if it is not among the runs, or does not bear the access.
    #[inline]
    pub fn at(&mut self, va: u64) -> Option<Place> {
        if !holds(&self.here, va) && !self.find(va) {
            return None;
        }
        self.place.map(|place| place.skip((va - self.here.va) as usize))
    }

    #[cold]
    fn find(&mut self, va: u64) -> bool {
        let next = self.position + 1;
        let held = |position: usize| {
            let run = self.runs.get(position).map(Run::of_record)?;
            holds(&run, va).then_some((position, run))
        };
        let found = held(next).or_else(|| {
            let behind = self.runs.partition_point(|record| Run::of_record(record).va <= va);
            held(behind.checked_sub(1)?)
        });
        if let Some((position, run)) = found {
            (self.position, self.here, self.place) = (position, run, self.place_of(&run));
        }
        found.is_some()
    }

    fn place_of(&self, run: &Run) -> Option<Place> {
        if run.flags & self.forbidden != 0 || run.range == 0 {
            return None;
        }
        stretch(self.memories, run).map(|Stretch { at, range }| Place { at, left: range })
    }
}

fn holds(run: &Run, va: u64) -> bool {
    va.wrapping_sub(run.va) < run.range
}
