//! The memory that tables lie in, which others read at any moment: the walk of an access, another process.
//!
//! So no Rust reference to it is ever made; every word is written whole, and a word that makes others visible is
//! stored after them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::processor;

/// Where VRAM is in this process. Who made it keeps it there.
#[derive(Clone, Copy)]
pub struct Vram {
    base: *mut u8,
    size: u64,
}

// SAFETY: it is a place in memory shared with other processes; every access is of whole words, and those that
// publish something are atomic.
unsafe impl Send for Vram {}
// SAFETY: as above.
unsafe impl Sync for Vram {}

impl Vram {
    /// # Safety
    /// `size` bytes from `base` on must stay mapped and writable while this, or a copy of it, is used.
    pub unsafe fn new(base: *mut u8, size: u64) -> Self {
        assert!(base.cast::<u64>().is_aligned());
        Vram { base, size }
    }

    /// True if a table of `bytes` can be at `addr`.
    #[inline(always)]
    pub fn holds(self, addr: u64, bytes: u64) -> bool {
        addr.is_multiple_of(8) && addr.checked_add(bytes).is_some_and(|end| end <= self.size)
    }

    /// Where the word at `addr` is, the first of `count` that lie `stride` bytes apart.
    #[inline(always)]
    fn words(self, addr: u64, count: usize, stride: usize) -> *mut u64 {
        assert!(count > 0 && self.holds(addr, (count as u64 - 1) * stride as u64 + 8));
        self.base.wrapping_add(addr as usize).cast()
    }

    #[inline(always)]
    pub fn load(self, addr: u64) -> u64 {
        let word = self.words(addr, 1, 8);
        // SAFETY: aligned and within VRAM, as `words` checked; other accesses of it are of whole words.
        u64::from_le(unsafe { AtomicU64::from_ptr(word) }.load(Ordering::Acquire))
    }

    /// Store a word after everything that was stored before.
    #[inline(always)]
    pub fn store(self, addr: u64, value: u64) {
        let word = self.words(addr, 1, 8);
        // SAFETY: as in `load`.
        unsafe { AtomicU64::from_ptr(word) }.store(value.to_le(), Ordering::Release);
    }

    /// Store `word`, `word + step`, ... in `count` words `stride` bytes apart, in any order.
    pub fn fill(self, addr: u64, stride: usize, count: usize, word: u64, step: u64) {
        self.each(addr, stride, count, |index| word.wrapping_add(step.wrapping_mul(index as u64)));
    }

    /// Store what `word_of` says in `count` words `stride` bytes apart, in any order.
    ///
    /// Compiled twice, for the vectors of the least processor and for wide ones.
    #[inline]
    pub fn each(self, addr: u64, stride: usize, count: usize, word_of: impl Fn(usize) -> u64) {
        #[cfg(target_arch = "x86_64")]
        if processor::has_avx2() {
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { self.each_avx2(addr, stride, count, word_of) };
        }
        self.each_anywhere(addr, stride, count, word_of);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2")]
    fn each_avx2(self, addr: u64, stride: usize, count: usize, word_of: impl Fn(usize) -> u64) {
        self.each_anywhere(addr, stride, count, word_of);
    }

    #[inline(always)]
    fn each_anywhere(self, addr: u64, stride: usize, count: usize, word_of: impl Fn(usize) -> u64) {
        if count == 0 {
            return;
        }
        let words = self.words(addr, count, stride);
        let store = |place: usize, index| {
            // SAFETY: within VRAM, as `words` checked. A vector store writes each aligned word of it at once, so
            // a reader sees it before or after; the entries do not depend on each other.
            unsafe { words.add(place).write(word_of(index).to_le()) };
        };
        if stride == 8 {
            (0..count).for_each(|index| store(index, index));
        } else {
            (0..count).for_each(|index| store(index * (stride / 8), index));
        }
    }
}
