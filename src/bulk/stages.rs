//! Batches on their way through memory.
//!
//! A million mappings do not fit a cache, so nearly all the time of a bind is waiting for memory. Requests
//! therefore pass through stages a few requests apart, and each stage prefetches what the next one reads: the
//! inner node above the leaves, the leaf's keys, the entry, its slot, the neighbours in its object's list. A
//! stage may find that a request before it has changed the tree; the fences tell, and then it searches again.
//! Only the last stage changes anything.

use std::mem::offset_of;

use super::{Found, OP_UNMAP, Record, Recorder, Request, found};
use crate::plan;
use crate::processor::{self, prefetch_lines};
use crate::space::{Change, OpCounters, Slot, Space};
use crate::tree::{Inner, LEAF_CAP, Leaf};

/// How many requests the stages are apart.
const LAG: usize = 4;
const STAGES: usize = 6;
/// Requests in flight; a power of two.
const RING: usize = 64;
/// The part of an inner node that a search reads.
const INNER_SEARCHED: usize = offset_of!(Inner, gaps);

/// What the stages know of a request so far. All of it is a guess that the last stage verifies.
#[derive(Clone, Copy, Default)]
struct InFlight {
    node: u32,
    leaf: u32,
    index: u32,
    slot: u32,
}

/// A batch that goes through the stages.
pub(super) trait Staged {
    /// Whether requests write, and to more than what they find.
    const WRITES: bool;

    fn len(&self) -> usize;
    fn space(&self) -> &Space;
    /// The address that request `index` is looked up by; below 2^64 - 1.
    fn addr(&self, index: usize) -> u64;
    /// The last stage: do what request `index` wants, `at` being the leaf and `upper_bound` of its address.
    fn execute(&mut self, index: usize, at: (u32, usize));
}

/// Run all requests through all stages. Compiled twice, since searches gain much from wider vectors.
pub(super) fn run(batch: &mut impl Staged) {
    #[cfg(target_arch = "x86_64")]
    if processor::has_avx2() {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { run_avx2(batch) };
    }
    run_anywhere(batch);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2")]
fn run_avx2(batch: &mut impl Staged) {
    run_anywhere(batch);
}

#[inline(always)]
fn run_anywhere(batch: &mut impl Staged) {
    let count = batch.len();
    let mut ring = [InFlight::default(); RING];
    for step in 0..count + (STAGES - 1) * LAG {
        // Written out, so that each stage is compiled apart.
        if step < count {
            look_ahead::<0, _>(batch, step, &mut ring);
        }
        if let index = step.wrapping_sub(LAG)
            && index < count
        {
            look_ahead::<1, _>(batch, index, &mut ring);
        }
        if let index = step.wrapping_sub(2 * LAG)
            && index < count
        {
            look_ahead::<2, _>(batch, index, &mut ring);
        }
        if let index = step.wrapping_sub(3 * LAG)
            && index < count
        {
            look_ahead::<3, _>(batch, index, &mut ring);
        }
        if let index = step.wrapping_sub(4 * LAG)
            && index < count
        {
            look_ahead::<4, _>(batch, index, &mut ring);
        }
        if let index = step.wrapping_sub(5 * LAG)
            && index < count
        {
            let at = verified(batch.space(), &ring[index % RING], batch.addr(index));
            batch.execute(index, at);
        }
    }
}

#[inline(always)]
fn look_ahead<const STAGE: usize, B: Staged>(batch: &B, index: usize, ring: &mut [InFlight; RING]) {
    let (space, addr, flight) = (batch.space(), batch.addr(index), &mut ring[index % RING]);
    let tree = &space.tree;
    match STAGE {
        0 => {
            flight.node = tree.root;
            for _ in 1..tree.height {
                flight.node = tree.inner(flight.node).child_of(addr);
            }
            if tree.height > 0 {
                prefetch_lines(tree.inners.address(flight.node), 0, INNER_SEARCHED);
            }
        }
        1 => {
            flight.leaf = match tree.inners.get(flight.node) {
                Some(inner) if inner.encloses(addr, 1) => inner.child_of(addr),
                _ => tree.leaf_of(addr),
            };
            prefetch_lines(tree.leaves.address(flight.leaf), 0, offset_of!(Leaf, ranges));
        }
        2 => {
            let node = tree.leaf(flight.leaf);
            let found = node.upper_bound(addr);
            flight.index = found as u32;
            let (leaf, index) = (tree.leaves.address(flight.leaf), found.saturating_sub(1));
            // What does not begin where a mapping begins will cut or add one, and shift those behind.
            let shifted = if B::WRITES && node.keys[index] != addr { LEAF_CAP - index } else { 1 };
            prefetch_lines(leaf, offset_of!(Leaf, ranges) + index * 8, shifted * 8);
            prefetch_lines(leaf, offset_of!(Leaf, slots) + index * 4, shifted * 4);
        }
        3 => {
            let node = tree.leaf(flight.leaf);
            let before = (flight.index as usize).saturating_sub(1);
            let first = before + (node.keys[before].wrapping_add(node.ranges[before]) <= addr) as usize;
            flight.slot = node.slots[first.min(LEAF_CAP - 1)];
            prefetch_lines(space.slots.address(flight.slot), 0, size_of::<Slot>());
            if B::WRITES && node.keys[before] != addr {
                let second = node.slots[(first + 1).min(LEAF_CAP - 1)];
                prefetch_lines(space.slots.address(second), 0, size_of::<Slot>());
            }
        }
        _ if !B::WRITES => {}
        _ => {
            // Unlinking writes to the neighbours in the object's list.
            if let Some(slot) = space.slots.get(flight.slot) {
                prefetch_lines(space.slots.address(slot.prev), 0, size_of::<Slot>());
                prefetch_lines(space.slots.address(slot.next), 0, size_of::<Slot>());
            }
        }
    }
}

/// The leaf of `addr` and the number of its entries that start at or before, whatever happened since it was met.
#[inline(always)]
fn verified(space: &Space, flight: &InFlight, addr: u64) -> (u32, usize) {
    let leaf = match space.tree.leaves.get(flight.leaf) {
        Some(leaf) if leaf.encloses(addr) => flight.leaf,
        _ => space.tree.leaf_of(addr),
    };
    (leaf, space.tree.leaf(leaf).upper_bound_near(addr, flight.index as usize))
}

/// Requests that cannot fail any more: no merging, no region comes or goes.
pub(super) struct Binds<'a> {
    pub space: &'a mut Space,
    pub requests: &'a [Request],
    pub objects: &'a [u32],
    pub out: &'a mut Vec<Record>,
    pub counts: OpCounters,
    pub change: Change,
}

impl Staged for Binds<'_> {
    const WRITES: bool = true;

    #[inline(always)]
    fn len(&self) -> usize {
        self.requests.len()
    }

    #[inline(always)]
    fn space(&self) -> &Space {
        self.space
    }

    #[inline(always)]
    fn addr(&self, index: usize) -> u64 {
        self.requests[index].addr
    }

    #[inline(always)]
    fn execute(&mut self, index: usize, (leaf, found): (u32, usize)) {
        let (space, request) = (&mut *self.space, &self.requests[index]);
        let (handles, out, counts) = (&space.objects, &mut *self.out, &mut self.counts);
        let mut sink = Recorder { out, counts, handles, request: index as u32, handle: request.handle };
        let at = space.tree.first_ending_after(leaf, found, request.addr);
        if request.op == OP_UNMAP {
            plan::unmap(space, at, request.addr, request.end(), &mut self.change, &mut sink);
            space.apply(&self.change);
            return;
        }
        let mapping = request.mapping(self.objects[index]);
        if let Some(entry) = space.tree.get_at(leaf, found, request.addr)
            && entry.range == request.range
            && space.is_exchangeable(entry.slot)
        {
            plan::replace(space, &entry, &mapping, &mut sink);
            return space.exchange(entry.slot, &mapping);
        }
        plan::map(space, at, &mapping, &mut self.change, &mut sink);
        space.apply(&self.change);
    }
}

/// Exact lookups.
struct Finds<'a> {
    space: &'a Space,
    addrs: &'a [u64],
    ranges: &'a [u64],
    out: &'a mut [Found],
}

impl Staged for Finds<'_> {
    const WRITES: bool = false;

    #[inline(always)]
    fn len(&self) -> usize {
        self.addrs.len()
    }

    #[inline(always)]
    fn space(&self) -> &Space {
        self.space
    }

    #[inline(always)]
    fn addr(&self, index: usize) -> u64 {
        // Nothing starts at 2^64 - 1, which stands for unused keys.
        self.addrs[index].min(u64::MAX - 1)
    }

    #[inline(always)]
    fn execute(&mut self, index: usize, (leaf, found_at): (u32, usize)) {
        let entry = self.space.tree.get_at(leaf, found_at, self.addr(index));
        let wanted = (self.addrs[index], self.ranges[index]);
        self.out[index] = match entry.filter(|entry| (entry.addr, entry.range) == wanted) {
            Some(entry) => found(self.space, &entry),
            None => Found::default(),
        };
    }
}

/// Exact lookups of `(addr, range)`; what is not there has range 0.
pub fn find_many(space: &Space, addrs: &[u64], ranges: &[u64], out: &mut [Found]) {
    run(&mut Finds { space, addrs, ranges, out });
}
