//! A set of blocks or regions, by order.

use super::ORDERS;
use super::aligned::AlignedSet;
use super::bitmap::Bitmap;
use crate::memory::{Refused, reserve};

pub struct BlockSet {
    pub by_order: Vec<Bitmap>,
    /// The same members by alignment.
    pub aligned: Vec<AlignedSet>,
    pub counts: [usize; ORDERS],
    /// A bit for each order of which there are any.
    pub orders: u64,
}

impl BlockSet {
    /// The empty set of blocks of `chunks` chunks. Takes all the memory that it will ever need.
    pub fn new(chunks: usize) -> Result<Self, Refused> {
        let (mut by_order, mut aligned) = (Vec::new(), Vec::new());
        reserve(&mut by_order, ORDERS)?;
        reserve(&mut aligned, ORDERS)?;
        for order in 0..=chunks.ilog2() {
            by_order.push(Bitmap::new(chunks >> order)?);
            aligned.push(AlignedSet::new(chunks >> order)?);
        }
        Ok(BlockSet { by_order, aligned, counts: [0; ORDERS], orders: 0 })
    }

    #[inline]
    pub fn contains(&self, chunk: usize, order: u32) -> bool {
        self.orders >> order & 1 != 0 && self.by_order[order as usize].contains(chunk >> order)
    }

    #[inline]
    pub fn insert(&mut self, chunk: usize, order: u32) {
        self.by_order[order as usize].insert(chunk >> order);
        self.aligned[order as usize].insert(chunk >> order);
        self.counts[order as usize] += 1;
        self.orders |= 1 << order;
    }

    #[inline]
    pub fn remove(&mut self, chunk: usize, order: u32) {
        self.by_order[order as usize].remove(chunk >> order);
        self.aligned[order as usize].remove(chunk >> order);
        self.counts[order as usize] -= 1;
        if self.counts[order as usize] == 0 {
            self.orders &= !(1 << order);
        }
    }

    pub fn bytes(&self) -> usize {
        let aligned = self.aligned.iter().map(AlignedSet::bytes);
        self.by_order.iter().map(Bitmap::bytes).chain(aligned).sum()
    }
}
