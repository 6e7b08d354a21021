//! A set of numbers below a limit, sorted by how often 2 divides them, so that multiples are found at once.

use super::bitmap::Bitmap;
use crate::ensure;
use crate::memory::Refused;

/// Only even numbers: every number is a multiple of 1.
///
/// A class has the odd multiples of a power of two, `(2 * nth + 1) << twos`. Each has half as many places as the
/// one before; the last place of all is that of 0.
pub struct AlignedSet {
    places: Bitmap,
    /// Half the power of two that the limit is rounded up to.
    half: usize,
}

impl AlignedSet {
    /// The empty set of even numbers below `limit`. Takes all the memory that it will ever need.
    pub fn new(limit: usize) -> Result<Self, Refused> {
        let half = limit.next_power_of_two().div_ceil(2);
        Ok(AlignedSet { places: Bitmap::new(half)?, half })
    }

    /// Where the class of the odd multiples of `1 << twos` begins.
    fn class(&self, twos: u32) -> usize {
        self.half - (self.half >> (twos - 1))
    }

    #[inline]
    fn place(&self, number: usize) -> usize {
        if number == 0 {
            return self.half - 1;
        }
        let twos = number.trailing_zeros();
        self.class(twos) + (number >> twos >> 1)
    }

    #[inline]
    pub fn insert(&mut self, number: usize) {
        if number.is_multiple_of(2) {
            self.places.insert(self.place(number));
        }
    }

    #[inline]
    pub fn remove(&mut self, number: usize) {
        if number.is_multiple_of(2) {
            self.places.remove(self.place(number));
        }
    }

    /// The lowest or highest member in `[from, end)` that is a multiple of `1 << twos`, which is even.
    pub fn find(&self, from: usize, end: usize, twos: u32, highest: bool) -> Option<usize> {
        let search = if highest { Bitmap::last } else { Bitmap::first };
        let in_class = |twos: u32| {
            let (class, nth) = (self.class(twos), |number: usize| (number + (1 << twos) - 1) >> twos >> 1);
            let place = search(&self.places, class + nth(from), class + nth(end))?;
            Some((2 * (place - class) + 1) << twos)
        };
        let zero = (from == 0 && from < end && self.places.contains(self.half - 1)).then_some(0);
        let found = (twos..=self.half.ilog2()).filter_map(in_class).chain(zero);
        if highest { found.max() } else { found.min() }
    }

    pub fn bytes(&self) -> usize {
        self.places.bytes()
    }

    /// The first reason why the members are not `numbers`, all even ones below the limit.
    pub fn check(&self, numbers: impl Iterator<Item = usize>) -> Result<(), String> {
        let mut count = 0;
        for number in numbers {
            ensure!(self.places.contains(self.place(number)), "{number} is not in its place");
            count += 1;
        }
        let members = self.places.count();
        ensure!(members == count, "{members} places are taken by {count} even numbers");
        self.places.check()
    }
}
