//! `Buddy`: the compiled half of the allocator of video memory.
//!
//! No Python object is made or dropped while an allocator is borrowed.

use std::collections::HashMap;
use std::iter::successors;

use pyo3::prelude::*;
use pyo3::types::PyList;

use super::errors::{Class, U64, error_about, lockdep_error, out_of_memory};
use crate::buddy::{self, Kind, Refusal, Run, Wanted};
use crate::memory::Refused;

const LEAST_BLOCK: u64 = 4096;

/// Blocks of memory, each a power of two in size and at a multiple of it.
#[pyclass(subclass, module = "gpuvm._core")]
pub struct Buddy {
    core: buddy::Buddy,
    /// log2 of a chunk's bytes.
    shift: u32,
    /// Kept between calls for its memory.
    runs: Vec<Run>,
}

#[pymethods]
impl Buddy {
    #[new]
    #[pyo3(signature = (size, block = U64(4096)), text_signature = "(size, block=4096)")]
    fn new(py: Python<'_>, size: U64, block: U64) -> PyResult<Self> {
        let (size, block) = (size.0, block.0);
        if !block.is_power_of_two() || block < LEAST_BLOCK {
            let message =
                format!("Buddy: blocks of {block:#x} bytes; pass a power of two from {LEAST_BLOCK:#x} on");
            return Err(error_about(py, Class::InvalidArgument, message, block, LEAST_BLOCK));
        }
        if size == 0 || !size.is_multiple_of(block) {
            let message =
                format!("Buddy: size {size:#x} is not a multiple of the block size {block:#x}, or is 0");
            return Err(error_about(py, Class::InvalidArgument, message, size, block));
        }
        let shift = block.trailing_zeros();
        let core = buddy::Buddy::new((size >> shift) as usize);
        let core = core.map_err(|refused| refused_memory(py, "Buddy", refused))?;
        Ok(Buddy { core, shift, runs: Vec::new() })
    }

    /// Bytes managed, from address 0 on.
    #[getter]
    fn size(&self) -> u64 {
        self.bytes(self.core.chunks())
    }

    /// Size of the smallest block in bytes.
    #[getter]
    fn block(&self) -> u64 {
        1 << self.shift
    }

    /// Bytes that are free, cleared or not.
    #[getter]
    fn free_bytes(&self) -> u64 {
        self.bytes(self.core.free_chunks())
    }

    /// Bytes that are free and known to be zero.
    #[getter]
    fn cleared_bytes(&self) -> u64 {
        self.bytes(self.core.counters.free_chunks[Kind::Cleared as usize])
    }

    /// Allocate `size` bytes, whole or nothing: runs (addr, size), blocks side by side being one run.
    ///
    /// Larger blocks come first, so that each lies at a multiple of its size in the allocation too. O(log n) a
    /// block; a search for contiguous memory that no free block is large enough for walks those of the window.
    ///
    /// Args:
    ///     size: bytes, a multiple of the allocator's block.
    ///     min_block: blocks are at least as large, and so lie at multiples of it; a power of two. What `size` is
    ///         more than a multiple of it is contiguous and begins at a multiple. Default: the allocator's block.
    ///     first: lowest address allowed.
    ///     last: address behind the highest allowed; default: the allocator's size.
    ///     contiguous: one run, beginning at a multiple of `min_block`.
    ///     clear: prefer cleared memory to dirty memory; `dirty` tells what came of it. Without it dirty memory
    ///         is preferred.
    ///     top_down: the highest address that will do, else the lowest in the smallest block that will do.
    ///
    /// Where only unlike blocks together are as large as `min_block`, they are merged, and dirty from then on.
    ///
    /// EINVAL: not multiples of the block, an empty window or one that leaves the memory. ENOSPC: there is no
    /// such room now. ENOMEM: no memory for the answer. After an error nothing is changed. LockdepError: in a
    /// fence-signalling section, where memory must have been allocated before.
    ///
    /// Source: ``drm_buddy_alloc_blocks``.
    #[pyo3(
        signature = (size, *, min_block = None, first = U64(0), last = None, contiguous = false, clear = false,
                     top_down = false),
        text_signature = "($self, size, *, min_block=None, first=0, last=None, contiguous=False, clear=False, \
                          top_down=False)"
    )]
    #[allow(clippy::too_many_arguments)] // drm_buddy's, by name
    fn alloc<'py>(
        slf: &Bound<'py, Self>,
        size: U64,
        min_block: Option<U64>,
        first: U64,
        last: Option<U64>,
        contiguous: bool,
        clear: bool,
        top_down: bool,
    ) -> PyResult<Bound<'py, PyList>> {
        let py = slf.py();
        let mut buddy = slf.try_borrow_mut()?;
        let min_block = min_block.map_or(buddy.block(), |size| size.0);
        let last = last.map_or(buddy.size(), |last| last.0);
        buddy.check_request(py, size.0, min_block, (first.0, last))?;
        let wanted = Wanted {
            len: (size.0 >> buddy.shift) as usize,
            min_order: min_block.trailing_zeros() - buddy.shift,
            first: (first.0 >> buddy.shift) as usize,
            last: (last >> buddy.shift) as usize,
            contiguous,
            kind: Kind::of(clear),
            top_down,
        };
        let mut runs = std::mem::take(&mut buddy.runs);
        let result = buddy.core.alloc(&wanted, &mut runs);
        let shift = buddy.shift;
        if let Err(refusal) = result {
            buddy.runs = runs;
            return Err(buddy.refused(py, refusal, size.0, min_block, (first.0, last)));
        }
        drop(buddy);
        let answer = answer(py, shift, &runs);
        let mut buddy = slf.try_borrow_mut()?;
        if answer.is_err() {
            runs.iter().for_each(|&run| buddy.core.free(run, None));
        }
        runs.clear();
        buddy.runs = runs;
        answer
    }

    /// Free what `alloc` or `trim` gave out, or whole blocks of it. Allocates nothing. O(log n) a block.
    ///
    /// `cleared` says that all its bytes are zero now. Blocks merge with free neighbours that are like them.
    /// EINVAL: not an allocated run, freed already, or a block is cut; nothing was freed.
    ///
    /// Source: ``drm_buddy_free_list``.
    #[pyo3(signature = (addr, size, cleared = false))]
    fn free(&mut self, py: Python<'_>, addr: U64, size: U64, cleared: bool) -> PyResult<()> {
        let run = self.allocated(py, "free", addr.0, size.0)?;
        self.core.free(run, Some(Kind::of(cleared)));
        Ok(())
    }

    /// The parts of an allocated run that were dirty when it was given out, in address order; none: it is zeros.
    ///
    /// EINVAL: not an allocated run. O(blocks).
    ///
    /// Source: ``drm_buddy_block_is_clear``.
    fn dirty<'py>(slf: &Bound<'py, Self>, addr: U64, size: U64) -> PyResult<Bound<'py, PyList>> {
        let buddy = slf.try_borrow()?;
        let run = buddy.allocated(slf.py(), "dirty", addr.0, size.0)?;
        let first = buddy.core.next_dirty(run, run.start);
        let parts: Vec<_> = successors(first, |part| buddy.core.next_dirty(run, part.end)).collect();
        let shift = buddy.shift;
        drop(buddy);
        answer(slf.py(), shift, &parts)
    }

    /// Free all of an allocated run but `new_size` bytes, which begin at `start`, by default where it does.
    ///
    /// What is freed is as cleared or dirty as it was given out, so trim before writing. Allocates nothing.
    /// O(log n) a block.
    ///
    /// EINVAL: not an allocated run, nothing to keep or more than there is, no multiple of the allocator's block.
    ///
    /// Source: ``drm_buddy_block_trim``.
    #[pyo3(signature = (addr, size, new_size, *, start = None))]
    fn trim(
        &mut self,
        py: Python<'_>,
        addr: U64,
        size: U64,
        new_size: U64,
        start: Option<U64>,
    ) -> PyResult<()> {
        let run = self.allocated(py, "trim", addr.0, size.0)?;
        let start = start.map_or(addr.0, |start| start.0);
        let inside =
            start >= addr.0 && start.checked_add(new_size.0).is_some_and(|end| end <= addr.0 + size.0);
        if !inside || new_size.0 == 0 || !self.is_multiple(start) || !self.is_multiple(new_size.0) {
            let message = format!(
                "trim: [{start:#x}, +{:#x}) is empty, leaves [{:#x}, +{:#x}) or is not made of blocks of {:#x}",
                new_size.0,
                addr.0,
                size.0,
                self.block()
            );
            let (value, bound) = ((start, new_size.0), (addr.0, size.0));
            return Err(error_about(py, Class::InvalidArgument, message, value, bound));
        }
        self.core.trim(run, self.run(start, new_size.0));
        Ok(())
    }

    /// Say of all free memory that it is cleared, or that it is dirty; unlike neighbours merge. O(free blocks).
    ///
    /// Source: ``drm_buddy_reset_clear``.
    fn reset_clear(&mut self, cleared: bool) {
        self.core.reset_clear(Kind::of(cleared));
    }

    /// The first broken invariant in words, or None.
    fn _check(&self) -> Option<String> {
        self.core.check().err()
    }

    /// Counts by name, and for each order (dirty, cleared) free blocks.
    fn _statistics(&self) -> (HashMap<&'static str, u64>, Vec<(usize, usize)>) {
        let (core, counters) = (&self.core, &self.core.counters);
        let numbers = [
            ("size", self.size()),
            ("block", self.block()),
            ("free_bytes", self.free_bytes()),
            ("cleared_bytes", self.cleared_bytes()),
            ("largest_free", core.largest().map_or(0, |order| self.bytes(1 << order))),
            ("allocated_blocks", counters.allocated_blocks as u64),
            ("splits", counters.splits),
            ("merges", counters.merges),
            ("forced_merges", counters.forced_merges),
            ("bytes", (core.bytes() + self.runs.capacity() * size_of::<Run>()) as u64),
        ];
        let orders = 0..=core.chunks().ilog2();
        let free = |order| (core.free_blocks(Kind::Dirty, order), core.free_blocks(Kind::Cleared, order));
        (numbers.into(), orders.map(free).collect())
    }
}

impl Buddy {
    fn bytes(&self, chunks: usize) -> u64 {
        (chunks as u64) << self.shift
    }

    fn is_multiple(&self, bytes: u64) -> bool {
        bytes.is_multiple_of(self.block())
    }

    fn check_request(
        &self,
        py: Python<'_>,
        size: u64,
        min_block: u64,
        (first, last): (u64, u64),
    ) -> PyResult<()> {
        let block = self.block();
        if size == 0 || !self.is_multiple(size) {
            let message =
                format!("alloc: size {size:#x} is 0 or not a multiple of the block size {block:#x}");
            return Err(error_about(py, Class::InvalidArgument, message, size, block));
        }
        if !min_block.is_power_of_two() || min_block < block {
            let message = format!("alloc: min_block {min_block:#x}; pass a power of two from {block:#x} on");
            return Err(error_about(py, Class::InvalidArgument, message, min_block, block));
        }
        if first >= last || last > self.size() || !self.is_multiple(first) || !self.is_multiple(last) {
            let message = format!(
                "alloc: the window [{first:#x}, {last:#x}) is empty, leaves [0, {:#x}) or is not made of blocks of \
                 {block:#x}",
                self.size()
            );
            return Err(error_about(py, Class::InvalidArgument, message, (first, last), (0, self.size())));
        }
        Ok(())
    }

    #[cold]
    fn refused(
        &self,
        py: Python<'_>,
        refusal: Refusal,
        size: u64,
        min_block: u64,
        (first, last): (u64, u64),
    ) -> PyErr {
        if let Refusal::Memory(refused) = refusal {
            return refused_memory(py, "alloc", refused);
        }
        let (free, largest) = (self.free_bytes(), self.core.largest());
        let largest = largest.map_or(0, |order| self.bytes(1 << order));
        let message = format!(
            "alloc: no room for {size:#x} bytes in blocks of {min_block:#x} in [{first:#x}, {last:#x}); {free:#x} \
             bytes are free, the largest block has {largest:#x}; free something or ask for smaller blocks"
        );
        error_about(py, Class::NoSpace, message, size, free)
    }

    /// The run of whole blocks.
    fn run(&self, addr: u64, size: u64) -> Run {
        let start = (addr >> self.shift) as usize;
        Run { start, end: start + (size >> self.shift) as usize }
    }

    /// The run `[addr, addr + size)` if it is allocated.
    #[inline]
    fn allocated(&self, py: Python<'_>, what: &str, addr: u64, size: u64) -> PyResult<Run> {
        let run = self.run(addr, size);
        if size > 0 && self.is_multiple(addr | size) && self.core.is_allocated(run) {
            return Ok(run);
        }
        Err(self.not_allocated(py, what, addr, size))
    }

    #[cold]
    fn not_allocated(&self, py: Python<'_>, what: &str, addr: u64, size: u64) -> PyErr {
        let there = if addr >= self.size() {
            format!("the memory ends at {:#x}", self.size())
        } else {
            let (block, free) = self.core.block_at((addr >> self.shift) as usize);
            let (start, size) = (self.bytes(block.chunk), self.bytes(1 << block.order));
            let state = if free { "free" } else { "allocated" };
            format!("there, the block [{start:#x}, +{size:#x}) is {state}")
        };
        let message = format!(
            "{what}: [{addr:#x}, +{size:#x}) is not allocated in whole blocks: {there}; pass what alloc gave, once"
        );
        error_about(py, Class::InvalidArgument, message, (addr, size), ())
    }
}

fn answer<'py>(py: Python<'py>, shift: u32, runs: &[Run]) -> PyResult<Bound<'py, PyList>> {
    PyList::new(
        py,
        runs.iter().map(|run| ((run.start as u64) << shift, ((run.end - run.start) as u64) << shift)),
    )
}

#[cold]
fn refused_memory(py: Python<'_>, what: &str, refused: Refused) -> PyErr {
    match refused {
        Refused::Exhausted => out_of_memory(py, refused),
        Refused::Forbidden => {
            let message = format!(
                "{what} in a fence-signalling section: making room may need memory freed by whoever waits for this \
                 very fence; nothing was changed, allocate before publishing the fence"
            );
            lockdep_error(py, message)
        }
    }
}
