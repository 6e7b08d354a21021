//! Arrays of binds: the uAPI's own structs in, the operations out, applied whole or not at all.
//!
//! A million mappings do not fit a cache, so nearly all the time of a bind is waiting for memory. Requests
//! therefore pass through stages a few requests apart, and each stage prefetches what the next one reads: the
//! inner node above the leaves, the leaf's keys, the entry, its slot, the neighbours in its object's list. A
//! stage may find that a request before it has changed the tree; the fences tell, and then it searches again.
//! Only the last stage changes anything.

use std::mem::offset_of;

use crate::memory::{Exhausted, reserve};
use crate::plan::{self, Answers, Kind, Merge, Op, Sink};
use crate::processor::{self, prefetch_lines};
use crate::regions::{Region, Rule};
use crate::space::{Change, Mapping, OpCounters, Slot, Space, USER_FLAGS};
use crate::tree::{Entry, Inner, LEAF_CAP, Leaf, NONE};

/// `drm_nouveau_vm_bind_op`, 40 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Request {
    pub op: u32,
    pub flags: u32,
    pub handle: u32,
    pub pad: u32,
    pub addr: u64,
    pub bo_offset: u64,
    pub range: u64,
}

pub const OP_MAP: u32 = 0;
pub const OP_UNMAP: u32 = 1;
pub const FLAG_SPARSE: u32 = 1 << 8;
pub const FLAG_KIND: u32 = 0xff;
/// First bit of a mapping's flags that is the driver's; the kind is kept from here on.
const KIND_SHIFT: u32 = 2;

impl Request {
    fn is_sparse(&self) -> bool {
        self.flags & FLAG_SPARSE != 0
    }

    #[inline(always)]
    fn end(&self) -> u64 {
        self.addr + self.range
    }

    /// The flags of the mapping that this makes.
    #[inline(always)]
    pub fn mapping_flags(&self) -> u32 {
        (self.flags & FLAG_KIND) << KIND_SHIFT
    }

    #[inline(always)]
    fn mapping(&self, object: u32) -> Mapping {
        let flags = self.mapping_flags();
        Mapping { addr: self.addr, range: self.range, offset: self.bo_offset, object, flags }
    }
}

/// One emitted operation, 56 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Record {
    pub op: u8,
    pub keep: u8,
    pub pad: u16,
    pub request: u32,
    pub handle: u32,
    pub flags: u32,
    pub addr: u64,
    pub bo_offset: u64,
    pub range: u64,
    pub prev_range: u64,
    pub next_range: u64,
}

/// A mapping as `find_many` and `to_array` tell it, 32 bytes; range 0 is "none".
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Found {
    pub addr: u64,
    pub range: u64,
    pub bo_offset: u64,
    pub handle: u32,
    pub flags: u32,
}

/// Why a request was refused.
#[derive(Debug)]
pub enum Refusal {
    UnknownOp,
    UnknownFlags,
    SparseHandle,
    SparseWithoutRegions,
    Range,
    Regions,
    Overlaps(u64, u64),
    NoSuchRegion,
    /// Not refused: the driver has to be asked first.
    Ask,
}

/// Everything that can be said of a request without looking at mappings.
#[inline(always)]
pub fn check_request(space: &Space, request: &Request) -> Result<(), Refusal> {
    if request.op > OP_UNMAP {
        return Err(Refusal::UnknownOp);
    }
    if request.flags & !(FLAG_SPARSE | FLAG_KIND) != 0 {
        return Err(Refusal::UnknownFlags);
    }
    if !space.range_valid(request.addr, request.range) {
        return Err(Refusal::Range);
    }
    if request.is_sparse() {
        if space.regions.rule == Rule::Off {
            return Err(Refusal::SparseWithoutRegions);
        }
        if request.handle != 0 {
            return Err(Refusal::SparseHandle);
        }
    }
    Ok(())
}

fn check_regions(space: &Space, request: &Request) -> Result<(), Refusal> {
    let allowed = request.op != OP_MAP || space.regions.allow(request.addr, request.end());
    if allowed { Ok(()) } else { Err(Refusal::Regions) }
}

/// Collects records and counts them.
struct Recorder<'a> {
    out: &'a mut Vec<Record>,
    counts: &'a mut OpCounters,
    handles: &'a crate::object::Objects,
    request: u32,
}

impl Sink for Recorder<'_> {
    #[inline(always)]
    fn push(&mut self, op: Op) {
        self.counts.count(&op);
        let Mapping { addr, range, offset, object, flags } = op.mapping;
        self.out.push(Record {
            op: op.kind as u8,
            keep: op.keep as u8,
            pad: 0,
            request: self.request,
            handle: if object == NONE { 0 } else { self.handles.get(object).handle },
            flags,
            addr,
            bo_offset: offset,
            range,
            prev_range: op.prev,
            next_range: op.next,
        });
    }
}

impl OpCounters {
    #[inline(always)]
    pub fn count(&mut self, op: &Op) {
        match op.kind {
            Kind::Map => self.maps += 1,
            Kind::Remap => {
                self.remaps += 1;
                self.splits += (op.prev > 0 && op.next > 0) as u64;
            }
            Kind::Unmap => {
                self.unmaps += 1;
                self.merges += op.merged as u64;
            }
            Kind::Prefetch => {}
        }
    }
}

/// Take the memory that a batch needs.
pub fn prepare(space: &mut Space, requests: &[Request], out: &mut Vec<Record>) -> Result<(), Exhausted> {
    space.reserve(requests.len(), 0)?;
    reserve(out, requests.len() * 2)
}

/// Apply prepared `requests`, whose objects are `objects`, and append what was done to `out`. On an error, the
/// index of the request at fault; nothing has changed then.
pub fn bind(
    space: &mut Space,
    requests: &[Request],
    objects: &[u32],
    merge: Merge,
    out: &mut Vec<Record>,
) -> Result<(), (usize, Refusal)> {
    if merge == Merge::Never && !requests.iter().any(Request::is_sparse) {
        let ruled = if space.regions.rule == Rule::Off { &[] } else { requests };
        for (index, request) in ruled.iter().enumerate() {
            check_regions(space, request).map_err(|refusal| (index, refusal))?;
        }
        let counts = space.counters.ops;
        let mut binds = Binds { space, requests, objects, out, counts, change: Change::default() };
        run(&mut binds);
        let counts = binds.counts;
        space.counters.ops = counts;
        return Ok(());
    }
    space.open_journal();
    for (index, request) in requests.iter().enumerate() {
        let mut yes = Answers::default();
        if let Err(refusal) = bind_one(space, (index, request), objects[index], (merge, &mut yes), out) {
            space.roll_back();
            out.clear();
            return Err((index, refusal));
        }
    }
    space.commit();
    Ok(())
}

/// One request of a batch that may still fail.
pub fn bind_one(
    space: &mut Space,
    (index, request): (usize, &Request),
    object: u32,
    (merge, answers): (Merge, &mut Answers),
    out: &mut Vec<Record>,
) -> Result<(), Refusal> {
    let (addr, end) = (request.addr, request.end());
    if request.is_sparse() && request.op == OP_MAP {
        return make_region(space, Region { addr, end, sparse: true });
    }
    if request.is_sparse() {
        space.regions.find(addr, end).filter(|region| region.sparse).ok_or(Refusal::NoSuchRegion)?;
        space.regions.remove(addr);
    }
    check_regions(space, request)?;
    let (mut counts, emitted) = (space.counters.ops, out.len());
    let mut sink = Recorder { out, counts: &mut counts, handles: &space.objects, request: index as u32 };
    let at = space.tree.locate(addr);
    let mut change = Change::default();
    if request.op == OP_UNMAP {
        plan::unmap(space, at, addr, end, &mut change, &mut sink);
    } else if merge == Merge::Never {
        plan::map(space, at, &request.mapping(object), &mut change, &mut sink);
    } else {
        plan::map_merging(space, at, &request.mapping(object), (merge, answers), &mut change, &mut sink);
        if !answers.open.is_empty() {
            out.truncate(emitted);
            return Err(Refusal::Ask);
        }
    }
    space.counters.ops = counts;
    space.apply(&change);
    Ok(())
}

/// Insert a region where there is neither a region nor a mapping yet.
pub fn make_region(space: &mut Space, region: Region) -> Result<(), Refusal> {
    if let Some(other) = space.regions.overlapping(region.addr, region.end) {
        return Err(Refusal::Overlaps(other.addr, other.end));
    }
    if let Some(entry) = space.first_overlapping(region.addr, region.end) {
        return Err(Refusal::Overlaps(entry.addr, entry.end()));
    }
    space.regions.insert(region);
    Ok(())
}

/// How many requests the stages are apart.
const LAG: usize = 6;
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
trait Staged {
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
fn run(batch: &mut impl Staged) {
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
struct Binds<'a> {
    space: &'a mut Space,
    requests: &'a [Request],
    objects: &'a [u32],
    out: &'a mut Vec<Record>,
    counts: OpCounters,
    change: Change,
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
        let mut sink = Recorder { out, counts, handles, request: index as u32 };
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

/// A mapping as arrays tell it.
pub fn found(space: &Space, entry: &Entry) -> Found {
    let slot = space.slot(entry.slot);
    Found {
        addr: entry.addr,
        range: entry.range,
        bo_offset: slot.offset,
        handle: if slot.object == NONE { 0 } else { space.objects.get(slot.object).handle },
        flags: slot.flags & USER_FLAGS,
    }
}
