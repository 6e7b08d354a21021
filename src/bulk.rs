//! Arrays of binds: the uAPI's own structs in, the operations out, applied whole or not at all.
//!
//! A batch that cannot fail goes through `stages`; one that can is applied request by request under a journal.

mod stages;

pub use stages::find_many;
use stages::{Binds, run};

use crate::memory::{Refused, allocate};
use crate::object::Objects;
use crate::plan::{self, Answers, Kind, Merge, Op, Sink};
use crate::regions::{Region, Rule};
use crate::space::{Change, Mapping, OpCounters, Space, USER_FLAGS};
use crate::tree::{Entry, NONE};

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
pub const KIND_SHIFT: u32 = 2;

impl Request {
    /// A request from its 40 bytes, wherever they lie.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let word = |index: usize| u64::from_ne_bytes(std::array::from_fn(|byte| bytes[index * 8 + byte]));
        let (first, second) = (word(0), word(1));
        Request {
            op: first as u32,
            flags: (first >> 32) as u32,
            handle: second as u32,
            pad: (second >> 32) as u32,
            addr: word(2),
            bo_offset: word(3),
            range: word(4),
        }
    }

    /// True if the request maps an object; a sparse one ignores its handle, as nouveau does.
    pub fn names_object(&self) -> bool {
        self.op == OP_MAP && self.handle != 0 && !self.is_sparse()
    }

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
    SparseWithoutRegions,
    Range,
    Regions,
    Overlaps(u64, u64),
    NoSuchRegion,
    Memory(Refused),
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
    if request.is_sparse() && space.regions.rule == Rule::Off {
        return Err(Refusal::SparseWithoutRegions);
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
    handles: &'a Objects,
    request: u32,
    /// The handle that the request names.
    handle: u32,
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
            handle: match object {
                NONE => 0,
                _ if op.kind == Kind::Map => self.handle,
                _ => self.handles.get(object).handle,
            },
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
        let region = space.regions.find(addr, end).filter(|region| region.sparse);
        let region = *region.ok_or(Refusal::NoSuchRegion)?;
        space.reserve_journal(0).map_err(Refusal::Memory)?;
        space.remove_region(region);
    }
    check_regions(space, request)?;
    let (mut counts, emitted) = (space.counters.ops, out.len());
    let mut sink = Recorder {
        out,
        counts: &mut counts,
        handles: &space.objects,
        request: index as u32,
        handle: request.handle,
    };
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
    space.reserve_journal(change.removed as usize).map_err(Refusal::Memory)?;
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
    // The regions' own memory is taken as they come, so where nothing may be taken none can come.
    allocate(true, || Ok(())).and_then(|()| space.reserve_journal(0)).map_err(Refusal::Memory)?;
    space.insert_region(region);
    Ok(())
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
