//! A set of numbers below a limit, as bits; each word of a level says which words below it are not empty.

use crate::ensure;
use crate::memory::{Refused, zeroed};

/// 64^9 bits are more than any memory has chunks.
const LEVELS: usize = 9;

pub struct Bitmap {
    words: Vec<u64>,
    /// Where each level begins; level 0 has the numbers, the last one has one word.
    starts: [usize; LEVELS + 1],
    height: usize,
}

impl Bitmap {
    /// The empty set of numbers below `limit`. Takes all the memory that it will ever need.
    pub fn new(limit: usize) -> Result<Self, Refused> {
        let (mut starts, mut height, mut words) = ([0; LEVELS + 1], 0, limit);
        while height == 0 || words > 1 {
            words = words.div_ceil(64).max(1);
            starts[height + 1] = starts[height] + words;
            height += 1;
        }
        Ok(Bitmap { words: zeroed(starts[height])?, starts, height })
    }

    #[inline]
    fn word(&self, level: usize, index: usize) -> u64 {
        self.words[self.starts[level] + index]
    }

    /// True if a number is a member; any number is allowed.
    #[inline]
    pub fn contains(&self, number: usize) -> bool {
        number / 64 < self.starts[1] && self.word(0, number / 64) >> (number % 64) & 1 != 0
    }

    #[inline]
    pub fn insert(&mut self, mut number: usize) {
        for level in 0..self.height {
            let word = &mut self.words[self.starts[level] + number / 64];
            let before = *word;
            *word |= 1 << (number % 64);
            if before != 0 {
                return;
            }
            number /= 64;
        }
    }

    #[inline]
    pub fn remove(&mut self, mut number: usize) {
        for level in 0..self.height {
            let word = &mut self.words[self.starts[level] + number / 64];
            *word &= !(1 << (number % 64));
            if *word != 0 {
                return;
            }
            number /= 64;
        }
    }

    /// All members, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        std::iter::successors(self.first(0, usize::MAX), |&last| self.first(last + 1, usize::MAX))
    }

    /// The lowest member in `[from, end)`.
    pub fn first(&self, from: usize, end: usize) -> Option<usize> {
        let mut at = from;
        for level in 0..self.height {
            let index = at / 64;
            if self.starts[level] + index >= self.starts[level + 1] {
                return None;
            }
            let word = self.word(level, index) & (u64::MAX << (at % 64));
            if word != 0 {
                let found = (0..level).rev().fold(index * 64 + lowest(word), |index, level| {
                    index * 64 + lowest(self.word(level, index))
                });
                return (found < end).then_some(found);
            }
            at = index + 1;
        }
        None
    }

    /// The highest member in `[from, end)`.
    pub fn last(&self, from: usize, end: usize) -> Option<usize> {
        let mut at = end.min(self.starts[1] * 64).checked_sub(1)?;
        for level in 0..self.height {
            let index = at / 64;
            let word = self.word(level, index) & (u64::MAX >> (63 - at % 64));
            if word != 0 {
                let found = (0..level).rev().fold(index * 64 + highest(word), |index, level| {
                    index * 64 + highest(self.word(level, index))
                });
                return (found >= from).then_some(found);
            }
            at = index.checked_sub(1)?;
        }
        None
    }

    pub fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    /// How many members there are. Looks at every word.
    pub fn count(&self) -> usize {
        self.words[..self.starts[1]].iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The first bit of an upper level that does not say what is below it.
    pub fn check(&self) -> Result<(), String> {
        for level in 1..self.height {
            for index in 0..self.starts[level] - self.starts[level - 1] {
                let says = self.word(level, index / 64) >> (index % 64) & 1 != 0;
                let is = self.word(level - 1, index) != 0;
                ensure!(says == is, "level {level}, bit {index} is {says}, the word below it says {is}");
            }
        }
        Ok(())
    }
}

#[inline]
fn lowest(word: u64) -> usize {
    word.trailing_zeros() as usize
}

#[inline]
fn highest(word: u64) -> usize {
    63 - word.leading_zeros() as usize
}
