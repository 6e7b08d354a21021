//! Split and merge: which operations turn the address space into what a request asks for. Changes nothing.
//!
//! A request `[R, E)` visits the mappings `[A, B)` that it overlaps in ascending order. What sticks out of the
//! request stays, as `prev` and `next` of a remap; what is inside goes. `keep` says that a mapping's page-table
//! entries already show what the request would put there. A map ends with one map operation; a merging one may
//! take neighbours in or, if all is mapped already, do nothing.

use crate::regions::Regions;
use crate::space::{Change, KERNEL, Mapping, Space};
use crate::tree::{Cursor, Entry, NONE};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Map = 0,
    Remap = 1,
    Unmap = 2,
    Prefetch = 3,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Merge {
    #[default]
    Never,
    Always,
    WithinRegion,
}

/// One operation. `mapping` is the new one of a map, else the one that was there, whose slot is `slot`;
/// of a remapped one the first `prev` and the last `next` bytes stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    pub kind: Kind,
    pub keep: bool,
    /// An unmap because the map that follows takes the mapping in.
    pub merged: bool,
    pub slot: u32,
    pub mapping: Mapping,
    pub prev: u64,
    pub next: u64,
}

impl Op {
    fn map(mapping: Mapping) -> Self {
        Op { kind: Kind::Map, keep: false, merged: false, slot: NONE, mapping, prev: 0, next: 0 }
    }

    fn on(kind: Kind, slot: u32, mapping: Mapping, keep: bool) -> Self {
        Op { kind, keep, merged: false, slot, mapping, prev: 0, next: 0 }
    }

    fn merge(slot: u32, mapping: Mapping) -> Self {
        Op { merged: true, ..Op::on(Kind::Unmap, slot, mapping, true) }
    }

    /// The mappings that come: the new one of a map, or what stays of a remapped one.
    pub fn coming(&self) -> [Option<Mapping>; 2] {
        match self.kind {
            Kind::Map => [Some(self.mapping), None],
            Kind::Remap => [self.prev_mapping(), self.next_mapping()],
            Kind::Unmap | Kind::Prefetch => [None, None],
        }
    }

    /// What stays in front of a remap.
    pub fn prev_mapping(&self) -> Option<Mapping> {
        (self.prev > 0).then_some(Mapping { range: self.prev, ..self.mapping })
    }

    /// What stays behind a remap.
    pub fn next_mapping(&self) -> Option<Mapping> {
        (self.next > 0).then(|| tail(&self.mapping, self.mapping.end() - self.next))
    }
}

/// Where operations go: into a plan, or into an array.
pub trait Sink {
    fn push(&mut self, op: Op);
}

impl Sink for Vec<Op> {
    #[inline(always)]
    fn push(&mut self, op: Op) {
        self.push(op);
    }
}

/// The part of `mapping` from `addr` on. Offsets wrap as the kernel's do; without an object they mean nothing.
fn tail(mapping: &Mapping, addr: u64) -> Mapping {
    Mapping {
        addr,
        range: mapping.end() - addr,
        offset: mapping.offset.wrapping_add(addr - mapping.addr),
        ..*mapping
    }
}

/// True if the two show the same bytes of the same object wherever they overlap.
#[inline(always)]
fn same_backing(a: &Mapping, b: &Mapping) -> bool {
    a.object == b.object && a.object != NONE && a.offset.wrapping_sub(a.addr) == b.offset.wrapping_sub(b.addr)
}

/// Emit what happens to `old`, cut at `[addr, end)`; a remainder in front is added, the one behind comes later.
#[inline(always)]
fn cut<S: Sink>(
    change: &mut Change,
    sink: &mut S,
    (slot, old): (u32, Mapping),
    (addr, end): (u64, u64),
    keep: bool,
) {
    let prev = addr.saturating_sub(old.addr);
    let next = old.end().saturating_sub(end);
    let kind = if prev | next == 0 { Kind::Unmap } else { Kind::Remap };
    sink.push(Op { kind, keep, merged: false, slot, mapping: old, prev, next });
    if prev > 0 {
        change.add(Mapping { range: prev, ..old });
    }
}

/// The overlapped mappings of `[addr, end)` in ascending order, counted into `change`.
#[inline(always)]
fn visit(space: &Space, cursor: &mut Cursor, change: &mut Change, end: u64) -> Option<(u32, Mapping)> {
    let entry = space.tree.entry(cursor).filter(|entry| entry.addr < end)?;
    if change.removed == 0 {
        change.at = *cursor;
    }
    cursor.index += 1;
    change.removed += 1;
    Some((entry.slot, space.mapping(&entry)))
}

/// `sm_map` without merging, into the cleared `change`; `at` is the first mapping that ends after the start.
#[inline(always)]
pub fn map<S: Sink>(space: &Space, at: Cursor, request: &Mapping, change: &mut Change, sink: &mut S) {
    let (addr, end) = (request.addr, request.end());
    change.clear(at);
    let mut cursor = at;
    let mut last = Mapping::EMPTY;
    while let Some((slot, old)) = visit(space, &mut cursor, change, end) {
        cut(change, sink, (slot, old), (addr, end), same_backing(&old, request));
        last = old;
        if old.end() >= end {
            break;
        }
    }
    sink.push(Op::map(*request));
    change.add_requested(request);
    if last.end() > end {
        change.add(tail(&last, end));
    }
}

/// What `map` emits for a request that covers exactly `entry`.
#[inline(always)]
pub fn replace<S: Sink>(space: &Space, entry: &Entry, request: &Mapping, sink: &mut S) {
    let old = space.mapping(entry);
    sink.push(Op::on(Kind::Unmap, entry.slot, old, same_backing(&old, request)));
    sink.push(Op::map(*request));
}

/// `sm_unmap`.
#[inline(always)]
pub fn unmap<S: Sink>(space: &Space, at: Cursor, addr: u64, end: u64, change: &mut Change, sink: &mut S) {
    change.clear(at);
    let mut cursor = at;
    let mut last = Mapping::EMPTY;
    while let Some((slot, old)) = visit(space, &mut cursor, change, end) {
        cut(change, sink, (slot, old), (addr, end), false);
        last = old;
        if old.end() >= end {
            break;
        }
    }
    if last.end() > end {
        change.add(tail(&last, end));
    }
}

/// What the driver says of merging single mappings, whose flags agree already. Without a driver's veto, always yes.
///
/// The planner cannot call the driver, which may look at the space. It notes whom it would ask and goes on as
/// if the answer were yes; the caller asks and plans again.
#[derive(Default)]
pub struct Answers {
    pub has_veto: bool,
    pub known: Vec<(u32, bool)>,
    pub open: Vec<u32>,
    /// Mappings whose flags counted although no operation may name them: neighbours, or what shows all already.
    pub compared: [Compared; 2],
}

/// A mapping and the flags that it had.
#[derive(Clone, Copy)]
pub struct Compared {
    pub slot: u32,
    pub flags: u32,
}

impl Default for Compared {
    fn default() -> Self {
        Compared { slot: NONE, flags: 0 }
    }
}

impl Answers {
    fn may_merge(&mut self, slot: u32) -> bool {
        if !self.has_veto {
            return true;
        }
        match self.known.iter().find(|(known, _)| *known == slot) {
            Some((_, answer)) => *answer,
            None => {
                self.open.push(slot);
                true
            }
        }
    }
}

/// `sm_map` of the merging policies.
pub fn map_merging<S: Sink>(
    space: &Space,
    at: Cursor,
    request: &Mapping,
    (policy, answers): (Merge, &mut Answers),
    change: &mut Change,
    sink: &mut S,
) {
    let (addr, end) = (request.addr, request.end());
    change.clear(at);
    answers.compared = Default::default();
    let mut cursor = at;
    let mut grown = *request;
    // A border that a mapping crosses is dealt with there; else the neighbour behind the border is asked.
    let (mut first, mut last) = (request.addr, request.end());
    let mut behind = None;
    while let Some((slot, old)) = visit(space, &mut cursor, change, end) {
        let keep = same_backing(&old, request);
        let merges = keep && old.flags == request.flags && answers.may_merge(slot);
        if merges && old.addr <= addr && end <= old.end() {
            answers.compared[0] = Compared { slot, flags: old.flags };
            return change.clear(at);
        }
        (first, last) = (first.min(old.addr), last.max(old.end()));
        if merges {
            sink.push(Op::merge(slot, old));
            grow(&mut grown, &old);
        } else {
            cut(change, sink, (slot, old), (addr, end), keep);
            behind = (old.end() > end).then(|| tail(&old, end));
        }
        if old.end() >= end {
            break;
        }
    }
    if first == addr
        && let Some((before, entry)) = space.tree.before(change.at)
    {
        let old = space.mapping(&entry);
        if old.end() == addr
            && joins(space, entry.slot, (&old, &grown), policy, &mut answers.compared[0])
            && answers.may_merge(entry.slot)
        {
            sink.push(Op::merge(entry.slot, old));
            grow(&mut grown, &old);
            change.at = before;
            change.removed += 1;
        }
    }
    if last == end
        && let Some(entry) = space.tree.entry(&mut cursor)
    {
        let old = space.mapping(&entry);
        if old.addr == end
            && joins(space, entry.slot, (&old, &grown), policy, &mut answers.compared[1])
            && answers.may_merge(entry.slot)
        {
            sink.push(Op::merge(entry.slot, old));
            grow(&mut grown, &old);
            if change.removed == 0 {
                change.at = cursor;
            }
            change.removed += 1;
        }
    }
    sink.push(Op::map(grown));
    change.add_requested(&grown);
    if let Some(behind) = behind {
        change.add(behind);
    }
}

/// Extend `grown` over `old`, which shows the same object at the same place.
fn grow(grown: &mut Mapping, old: &Mapping) {
    let end = grown.end().max(old.end());
    if old.addr < grown.addr {
        (grown.addr, grown.offset) = (old.addr, old.offset);
    }
    grown.range = end - grown.addr;
}

/// May the neighbour `old` and `grown` become one mapping, as far as backing, flags and regions go?
///
/// Noted in `compared` if the flags have a say.
fn joins(
    space: &Space,
    slot: u32,
    (old, grown): (&Mapping, &Mapping),
    policy: Merge,
    compared: &mut Compared,
) -> bool {
    if !same_backing(old, grown) {
        return false;
    }
    *compared = Compared { slot, flags: old.flags };
    let (addr, end) = (old.addr.min(grown.addr), old.end().max(grown.end()));
    let regions: &Regions = &space.regions;
    old.flags == grown.flags
        && match policy {
            Merge::WithinRegion => regions.enclosing(addr, end).is_some(),
            _ => regions.allow(addr, end),
        }
}

/// `prefetch_ops_create`: one operation for each mapping in `[addr, last]`, whole, the kernel's node excepted.
///
/// Where the range wraps, the kernel's iteration ends at the wrapped end as well as at `last`.
pub fn prefetch<S: Sink>(space: &Space, addr: u64, last: u64, sink: &mut S) {
    let end = last.wrapping_add(1);
    let entries = space.tree.iter_from(addr).take_while(|entry| entry.addr <= last && entry.addr < end);
    for entry in entries.filter(|entry| space.slot(entry.slot).flags & KERNEL == 0) {
        sink.push(Op::on(Kind::Prefetch, entry.slot, space.mapping(&entry), false));
    }
}

/// `bo_unmap_ops_create`: one unmap for each mapping of the object's list that is in the tree, in link order.
pub fn object_unmap<S: Sink>(space: &Space, object: u32, sink: &mut S) {
    let mut id = space.objects.get(object).head;
    while id != NONE {
        let slot = space.slot(id);
        if let Some(entry) = space.tree.get(slot.addr).filter(|entry| entry.slot == id) {
            sink.push(Op::on(Kind::Unmap, id, space.mapping(&entry), false));
        }
        id = slot.next;
    }
}

/// `madvise_ops_create`: borders at `addr` and `end` in mappings without object; everything else stays.
pub fn madvise<S: Sink>(space: &Space, addr: u64, end: u64, sink: &mut S) {
    let entries = space.tree.iter_from(addr).take_while(|entry| entry.addr < end);
    for entry in entries.filter(|entry| is_cut_objectless(space, entry, addr, end)) {
        let old = space.mapping(&entry);
        cut(&mut Change::default(), sink, (entry.slot, old), (addr, end), false);
        let inside = tail(&old, old.addr.max(addr));
        sink.push(Op::map(Mapping { range: old.end().min(end) - inside.addr, offset: 0, ..inside }));
    }
}

fn is_cut_objectless(space: &Space, entry: &Entry, addr: u64, end: u64) -> bool {
    let slot = space.slot(entry.slot);
    slot.object == NONE && slot.flags & KERNEL == 0 && (entry.addr < addr || entry.end() > end)
}

/// The changes that operations of any plan make, one for each mapping that goes: it goes with what takes its place.
pub fn changes(ops: &[Op]) -> impl Iterator<Item = (u64, Change)> + '_ {
    let mut rest = ops;
    std::iter::from_fn(move || {
        let (op, behind) = rest.split_first()?;
        rest = behind;
        let mut change = Change::default();
        if op.kind == Kind::Map {
            change.add_requested(&op.mapping);
            return Some((op.mapping.addr, change));
        }
        change.removed = 1;
        if let Some(prev) = op.prev_mapping() {
            change.add(prev);
        }
        if let Some((map, behind)) =
            rest.split_first().filter(|(map, _)| map.kind == Kind::Map && within(map, op))
        {
            change.add_requested(&map.mapping);
            rest = behind;
        }
        if let Some(next) = op.next_mapping() {
            change.add(next);
        }
        Some((op.mapping.addr, change))
    })
}

fn within(map: &Op, op: &Op) -> bool {
    op.mapping.addr <= map.mapping.addr && map.mapping.end() <= op.mapping.end()
}
