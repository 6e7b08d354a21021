//! The address space: a slot for each mapping, linked into its object's list, and the changes made to them.
//!
//! Every change is a `Change`: a run of neighbouring mappings goes, up to three come. It is applied whole; what
//! it needs is reserved before (`Space::reserve`), so that applying cannot fail. While a journal is open, slots
//! that go keep their content and their number, and `roll_back` undoes the changes in reverse order: lists heal
//! because an unlinked slot still knows its neighbours.

use crate::arena::Arena;
use crate::ensure;
use crate::gaps::Gaps;
use crate::memory::Exhausted;
use crate::object::Objects;
use crate::regions::Regions;
use crate::tree::{Cursor, Entry, NONE, Tree};

/// Flags of a mapping that callers see and set; above are the core's own.
pub const USER_FLAGS: u32 = (1 << 28) - 1;
pub const SPARSE: u32 = 1 << 1;
pub const IN_TREE: u32 = 1 << 28;
pub const KERNEL: u32 = 1 << 29;
/// In the list of its object, of whose vm_bo it holds a reference.
pub const LINKED: u32 = 1 << 30;
/// A Python object stands for this mapping.
pub const HANDLE: u32 = 1 << 31;

/// What the tree does not say of a mapping. Two to a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub struct Slot {
    pub addr: u64,
    pub offset: u64,
    /// Id of the object, NONE for a mapping without.
    pub object: u32,
    pub flags: u32,
    /// Neighbours in the object's list; `next` chains the free slots.
    pub prev: u32,
    pub next: u32,
}

impl Slot {
    const FREE: Slot = Slot { addr: 0, offset: 0, object: NONE, flags: 0, prev: NONE, next: NONE };
}

/// A mapping by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub addr: u64,
    pub range: u64,
    pub offset: u64,
    pub object: u32,
    pub flags: u32,
}

impl Mapping {
    pub const EMPTY: Mapping = Mapping { addr: 0, range: 0, offset: 0, object: NONE, flags: 0 };

    pub fn end(&self) -> u64 {
        self.addr + self.range
    }
}

/// `removed` mappings from `at` on go, `added()` come in their place.
///
/// One is filled again and again rather than passed around: copies of it would wait for its small fields.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub at: Cursor,
    pub removed: u32,
    count: u32,
    /// Which of the added is the requested mapping; the others are remainders of what it cut.
    requested: u32,
    added: [Mapping; 3],
}

impl Default for Change {
    fn default() -> Self {
        let at = Cursor { leaf: 0, index: 0 };
        Change { at, removed: 0, count: 0, requested: NONE, added: [Mapping::EMPTY; 3] }
    }
}

impl Change {
    #[inline(always)]
    pub fn clear(&mut self, at: Cursor) {
        (self.at, self.removed, self.count, self.requested) = (at, 0, 0, NONE);
    }

    /// Mappings must be added in address order.
    #[inline(always)]
    pub fn add(&mut self, mapping: Mapping) {
        self.added[self.count as usize] = mapping;
        self.count += 1;
    }

    #[inline(always)]
    pub fn add_requested(&mut self, mapping: &Mapping) {
        self.requested = self.count;
        self.add(*mapping);
    }

    /// Put `to` in the place of the object `from`.
    pub fn resolve(&mut self, from: u32, to: u32) {
        for mapping in self.added.iter_mut().filter(|mapping| mapping.object == from) {
            mapping.object = to;
        }
    }

    #[inline(always)]
    pub fn added(&self) -> &[Mapping] {
        &self.added[..self.count as usize]
    }
}

/// One applied change, as far as undoing it needs.
struct Step {
    /// Where the change's own entries are in `Journal::gone`.
    gone: std::ops::Range<usize>,
    added: [u32; 3],
    count: u32,
}

#[derive(Default)]
struct Journal {
    steps: Vec<Step>,
    gone: Vec<Entry>,
    counters: Counters,
    regions: Regions,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub ops: OpCounters,
    pub mapped_bytes: u64,
}

/// Operations applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpCounters {
    pub maps: u64,
    pub remaps: u64,
    pub unmaps: u64,
    /// Remaps that left two pieces.
    pub splits: u64,
    /// Mappings that a merging map took in.
    pub merges: u64,
}

pub struct Space {
    pub start: u64,
    pub end: u64,
    pub tree: Tree,
    pub slots: Arena<Slot, 1024>,
    free_slot: u32,
    free_slots: usize,
    pub objects: Objects,
    pub regions: Regions,
    pub gaps: Gaps,
    /// Slot of the kernel's node, NONE without.
    pub kernel: u32,
    /// Where that is, [start, end); empty without.
    pub kernel_range: (u64, u64),
    pub generation: u64,
    pub counters: Counters,
    /// Mappings with a Python object that went since the binding last asked, and their flags.
    pub retired: Vec<(u32, u32)>,
    journal: Option<Journal>,
}

impl Space {
    pub fn new(start: u64, end: u64) -> Self {
        Space {
            start,
            end,
            tree: Tree::new(),
            slots: Arena::new(),
            free_slot: NONE,
            free_slots: 0,
            objects: Objects::default(),
            regions: Regions::default(),
            gaps: Gaps::new(start, end),
            kernel: NONE,
            kernel_range: (0, 0),
            generation: 0,
            counters: Counters::default(),
            retired: Vec::new(),
            journal: None,
        }
    }

    #[inline(always)]
    pub fn slot(&self, id: u32) -> &Slot {
        &self.slots[id]
    }

    #[inline(always)]
    pub fn slot_mut(&mut self, id: u32) -> &mut Slot {
        &mut self.slots[id]
    }

    pub fn slot_count(&self) -> usize {
        self.slots.len() - self.free_slots
    }

    /// Number of mappings, the kernel's node not counted.
    pub fn len(&self) -> usize {
        self.tree.len - (self.kernel != NONE) as usize
    }

    pub fn mapping(&self, entry: &Entry) -> Mapping {
        let slot = self.slot(entry.slot);
        Mapping {
            addr: entry.addr,
            range: entry.range,
            offset: slot.offset,
            object: slot.object,
            flags: slot.flags & USER_FLAGS,
        }
    }

    /// True if `[addr, addr + range)` is not empty, lies inside the space and does not touch the kernel's node.
    #[inline(always)]
    pub fn range_valid(&self, addr: u64, range: u64) -> bool {
        let Some(end) = addr.checked_add(range) else { return false };
        range > 0 && addr >= self.start && end <= self.end && !self.touches_kernel(addr, end)
    }

    #[inline(always)]
    pub fn touches_kernel(&self, addr: u64, end: u64) -> bool {
        addr < self.kernel_range.1 && self.kernel_range.0 < end
    }

    /// The lowest mapping with a byte in `[addr, last]`. A `last` below `addr` stands for a range that wraps, as
    /// the kernel's interval tree has it: then the mapping has to reach from `last` to `addr`.
    pub fn first_touching(&self, addr: u64, last: u64) -> Option<Entry> {
        let mut cursor = self.tree.locate(addr);
        self.tree.entry(&mut cursor).filter(|entry| entry.addr <= last)
    }

    pub fn first_overlapping(&self, addr: u64, end: u64) -> Option<Entry> {
        self.first_touching(addr, end - 1)
    }

    pub fn find(&self, addr: u64, range: u64) -> Option<Entry> {
        self.tree.get(addr).filter(|entry| entry.range == range)
    }

    /// The mapping that ends exactly at `addr`.
    pub fn find_prev(&self, addr: u64) -> Option<Entry> {
        let cursor = self.tree.locate(addr);
        let (_, entry) = self.tree.before(cursor)?;
        (entry.end() == addr && entry.slot != self.kernel).then_some(entry)
    }

    /// The mapping that begins exactly at `addr`.
    pub fn find_next(&self, addr: u64) -> Option<Entry> {
        self.tree.get(addr).filter(|entry| entry.slot != self.kernel)
    }

    /// Make sure that `changes` changes which name `objects` unknown objects can be applied.
    pub fn reserve(&mut self, changes: usize, objects: usize) -> Result<(), Exhausted> {
        let slots = (3 * changes).saturating_sub(self.free_slots);
        self.slots.reserve(slots, &Slot::FREE)?;
        self.tree.reserve(3 * changes)?;
        self.objects.reserve(objects)
    }

    /// Apply `change`, whose mappings are linked, and return the slots of what came.
    #[inline(always)]
    pub fn apply(&mut self, change: &Change) -> [u32; 3] {
        let mut cursor = change.at;
        let mut gone = [NONE; 4];
        let removed = change.removed as usize;
        let mut long = Vec::new();
        if removed <= gone.len() {
            for slot in &mut gone[..removed] {
                *slot = self.step(&mut cursor);
            }
        } else {
            long = (0..removed).map(|_| self.step(&mut cursor)).collect();
        }
        let mut slots = [NONE; 3];
        let mut entries = [Entry { addr: 0, range: 0, slot: NONE }; 3];
        for (index, mapping) in change.added().iter().enumerate() {
            // New mappings are linked before old ones are unlinked: the vm_bo never runs out of references between.
            slots[index] = self.new_slot(mapping, IN_TREE);
            entries[index] = Entry { addr: mapping.addr, range: mapping.range, slot: slots[index] };
        }
        self.link_added(change, &slots);
        if self.journal.is_some() {
            self.record(change.at, removed, &slots, change.count);
        }
        self.tree.splice(change.at, removed, &entries[..change.count as usize]);
        for &slot in if removed <= gone.len() { &gone[..removed] } else { &long[..] } {
            self.retire(slot);
        }
        slots
    }

    #[inline(always)]
    fn step(&mut self, cursor: &mut Cursor) -> u32 {
        let entry = self.tree.entry(cursor).expect("a change removes what is there");
        self.counters.mapped_bytes -= entry.range;
        cursor.index += 1;
        entry.slot
    }

    /// The remainders of a cut mapping are linked before the new one, as drivers do on a remap.
    #[inline(always)]
    fn link_added(&mut self, change: &Change, slots: &[u32; 3]) {
        let requested = change.requested as usize;
        for (index, mapping) in change.added().iter().enumerate() {
            self.counters.mapped_bytes += mapping.range;
            if index != requested && mapping.object != NONE {
                self.link(slots[index]);
            }
        }
        if requested < change.count as usize && change.added[requested].object != NONE {
            self.link(slots[requested]);
        }
    }

    #[inline(always)]
    pub fn new_slot(&mut self, mapping: &Mapping, state: u32) -> u32 {
        let slot = Slot {
            addr: mapping.addr,
            offset: mapping.offset,
            object: mapping.object,
            flags: mapping.flags | state,
            prev: NONE,
            next: NONE,
        };
        if mapping.object != NONE {
            self.objects.get_mut(mapping.object).users += 1;
        }
        let id = self.free_slot;
        if id == NONE {
            return self.slots.push(slot);
        }
        self.free_slot = self.slot(id).next;
        self.free_slots -= 1;
        self.slots[id] = slot;
        id
    }

    /// Append the slot to its object's list and take a reference of the vm_bo.
    #[inline(always)]
    pub fn link(&mut self, id: u32) {
        let object = self.objects.get_mut(self.slots[id].object);
        let tail = std::mem::replace(&mut object.tail, id);
        object.refs += 1;
        object.linked += 1;
        if tail == NONE {
            object.head = id;
        } else {
            self.slots[tail].next = id;
        }
        let slot = &mut self.slots[id];
        (slot.prev, slot.next) = (tail, NONE);
        slot.flags |= LINKED;
    }

    /// Take the slot out of its object's list; the reference stays with the slot until `drop_link`.
    #[inline(always)]
    fn unchain(&mut self, id: u32) {
        let Slot { object, prev, next, .. } = *self.slot(id);
        let object = self.objects.get_mut(object);
        object.linked -= 1;
        if prev == NONE {
            object.head = next;
        } else {
            self.slots[prev].next = next;
        }
        if next == NONE {
            object.tail = prev;
        } else {
            self.slots[next].prev = prev;
        }
    }

    /// True if nobody can tell the mapping in this slot from another one in its place.
    #[inline(always)]
    pub fn is_exchangeable(&self, id: u32) -> bool {
        let slot = self.slot(id);
        let linked = slot.flags & LINKED != 0 || slot.object == NONE;
        linked && slot.flags & (HANDLE | KERNEL) == 0 && self.journal.is_none()
    }

    /// Put `mapping`, of the same range, in the place of an exchangeable one; what `apply` does, in half the time.
    #[inline(always)]
    pub fn exchange(&mut self, id: u32, mapping: &Mapping) {
        let old = self.slot(id).object;
        if old != NONE {
            self.unchain(id);
        }
        let slot = self.slot_mut(id);
        (slot.offset, slot.object, slot.flags) = (mapping.offset, mapping.object, mapping.flags | IN_TREE);
        if mapping.object != NONE {
            self.objects.get_mut(mapping.object).users += 1;
            self.link(id);
        }
        if old != NONE {
            self.leave(old, true);
        }
    }

    /// A mapping of `object` is gone, and with it its reference if it was linked.
    #[inline(always)]
    fn leave(&mut self, object: u32, linked: bool) {
        if linked {
            self.objects.put(object);
        }
        self.objects.get_mut(object).users -= 1;
        self.objects.settle(object);
    }

    /// Undo `unchain`, in exactly the reverse order of unchaining.
    fn rechain(&mut self, id: u32) {
        let Slot { object, prev, next, .. } = *self.slot(id);
        let object = self.objects.get_mut(object);
        object.linked += 1;
        if prev == NONE {
            object.head = id;
        } else {
            self.slots[prev].next = id;
        }
        if next == NONE {
            object.tail = id;
        } else {
            self.slots[next].prev = id;
        }
    }

    /// Unlink a mapping; true if its vm_bo lost its last reference.
    pub fn unlink(&mut self, id: u32) -> bool {
        self.unchain(id);
        self.slot_mut(id).flags &= !LINKED;
        let object = self.slot(id).object;
        let destroyed = self.objects.put(object);
        self.objects.settle(object);
        destroyed
    }

    /// A mapping has left the tree: unlink it and, unless it may have to come back, free its slot.
    #[inline(always)]
    fn retire(&mut self, id: u32) {
        if self.slot(id).flags & LINKED != 0 {
            self.unchain(id);
        }
        if self.journal.is_none() {
            self.release(id);
        }
    }

    /// Free the slot of a mapping that is out of the tree and of its object's list.
    #[inline(always)]
    pub fn release(&mut self, id: u32) {
        let Slot { object, flags, .. } = *self.slot(id);
        if flags & HANDLE != 0 {
            self.retired.push((id, flags & USER_FLAGS));
        }
        if object != NONE {
            self.leave(object, flags & LINKED != 0);
        }
        self.free(id);
    }

    #[inline(always)]
    fn free(&mut self, id: u32) {
        let next = std::mem::replace(&mut self.free_slot, id);
        self.free_slots += 1;
        let slot = self.slot_mut(id);
        slot.flags = 0;
        slot.next = next;
    }

    /// Put a mapping into the tree without linking it; the caller has checked that it fits.
    pub fn insert(&mut self, mapping: &Mapping, state: u32) -> u32 {
        let at = self.tree.locate(mapping.addr);
        let slot = self.new_slot(mapping, IN_TREE | state);
        self.tree.splice(at, 0, &[Entry { addr: mapping.addr, range: mapping.range, slot }]);
        self.counters.mapped_bytes += mapping.range;
        slot
    }

    /// Put the kernel's node into the tree; it counts as neither mapped nor free.
    pub fn insert_kernel_node(&mut self, addr: u64, range: u64) {
        self.kernel = self.insert(&Mapping { addr, range, ..Mapping::EMPTY }, KERNEL);
        self.kernel_range = (addr, addr + range);
        self.counters.mapped_bytes -= range;
    }

    pub fn remove_kernel_node(&mut self) {
        let (addr, end) = std::mem::take(&mut self.kernel_range);
        let slot = std::mem::replace(&mut self.kernel, NONE);
        if slot != NONE {
            self.counters.mapped_bytes += end - addr;
            self.remove(&Entry { addr, range: end - addr, slot });
        }
    }

    /// Take a mapping out of the tree. It keeps its slot while it is linked.
    pub fn remove(&mut self, entry: &Entry) {
        let mut cursor = self.tree.locate(entry.addr);
        self.step(&mut cursor);
        cursor.index -= 1;
        self.tree.splice(cursor, 1, &[]);
        self.slot_mut(entry.slot).flags &= !IN_TREE;
        if self.slot(entry.slot).flags & LINKED == 0 {
            self.release(entry.slot);
        }
    }

    /// From here on changes can be undone.
    pub fn open_journal(&mut self) {
        let (counters, regions) = (self.counters, self.regions.clone());
        self.journal = Some(Journal { counters, regions, ..Journal::default() });
    }

    #[cold]
    #[inline(never)]
    fn record(&mut self, mut at: Cursor, removed: usize, added: &[u32; 3], count: u32) {
        let mut journal = self.journal.take().unwrap_or_default();
        let first = journal.gone.len();
        for _ in 0..removed {
            journal.gone.extend(self.tree.entry(&mut at));
            at.index += 1;
        }
        journal.steps.push(Step { gone: first..journal.gone.len(), added: *added, count });
        self.journal = Some(journal);
    }

    /// Keep what was done since `open_journal`.
    pub fn commit(&mut self) {
        let journal = self.journal.take().unwrap_or_default();
        for entry in &journal.gone {
            self.release(entry.slot);
        }
    }

    /// Undo everything that was done since `open_journal`.
    pub fn roll_back(&mut self) {
        let journal = self.journal.take().unwrap_or_default();
        for step in journal.steps.iter().rev() {
            let gone = &journal.gone[step.gone.clone()];
            let added = &step.added[..step.count as usize];
            let first =
                added.iter().map(|&id| self.slot(id).addr).chain(gone.iter().map(|entry| entry.addr)).min();
            let Some(first) = first else { continue };
            let at = self.tree.locate(first);
            for entry in gone.iter().rev() {
                if self.slot(entry.slot).flags & LINKED != 0 {
                    self.rechain(entry.slot);
                }
            }
            self.tree.splice(at, added.len(), gone);
            for &id in added.iter().rev() {
                if self.slot(id).flags & LINKED != 0 {
                    self.unchain(id);
                }
                self.release(id);
            }
        }
        self.counters = journal.counters;
        self.regions = journal.regions;
    }

    /// The first invariant of slots, lists and counts that does not hold, in words.
    pub fn check(&self) -> Result<(), String> {
        let mut seen = vec![false; self.slots.len()];
        let mut bytes = 0;
        for entry in self.tree.iter_from(0) {
            let slot = self.slot(entry.slot);
            let place = format!("mapping at {:#x}, slot {}", entry.addr, entry.slot);
            ensure!(
                !std::mem::replace(&mut seen[entry.slot as usize], true),
                "{place}: the slot is in the tree twice"
            );
            ensure!(
                slot.flags & IN_TREE != 0,
                "{place}: flags {:#x} say that it is not in the tree",
                slot.flags
            );
            ensure!(slot.addr == entry.addr, "{place}: the slot says {:#x}", slot.addr);
            if entry.slot != self.kernel {
                ensure!(
                    self.start <= entry.addr && entry.end() <= self.end,
                    "{place}: lies outside the space"
                );
                ensure!(self.regions.allow(entry.addr, entry.end()), "{place}: breaks the regions' rule");
                bytes += entry.range;
            }
        }
        let counted = self.counters.mapped_bytes;
        ensure!(bytes == counted, "{bytes:#x} bytes are mapped, {counted:#x} counted");
        let (mut users, mut in_use) = (0, 0);
        for slot in self.slots.iter().filter(|slot| slot.flags & (IN_TREE | LINKED) != 0) {
            in_use += 1;
            users += (slot.object != NONE) as usize;
        }
        ensure!(in_use == self.slot_count(), "{in_use} slots in use, {} counted", self.slot_count());
        let counted: usize = self.objects.ids().map(|id| self.objects.get(id).users as usize).sum();
        ensure!(users == counted, "{users} mappings have objects, the objects count {counted}");
        self.objects.ids().try_for_each(|id| self.check_object(id))?;
        self.regions.check()
    }

    fn check_object(&self, id: u32) -> Result<(), String> {
        let object = self.objects.get(id);
        let (mut slot, mut prev, mut linked) = (object.head, NONE, 0);
        while slot != NONE {
            let here = self.slot(slot);
            ensure!(
                here.object == id && here.flags & LINKED != 0,
                "slot {slot} is in the list of object {id} by mistake"
            );
            ensure!(here.prev == prev, "slot {slot} of object {id} is behind {}, not {prev}", here.prev);
            linked += 1;
            ensure!(
                linked <= object.linked,
                "the list of object {id} has more than its {} mappings",
                object.linked
            );
            (prev, slot) = (slot, here.next);
        }
        ensure!(object.tail == prev, "the list of object {id} ends at {prev}, not {}", object.tail);
        ensure!(
            linked == object.linked,
            "object {id} has {linked} linked mappings, {} counted",
            object.linked
        );
        ensure!(object.refs >= linked, "object {id}: {} references for {linked} links", object.refs);
        ensure!(object.users >= linked, "object {id}: {} mappings, {linked} linked", object.users);
        ensure!(object.users > 0 || object.refs > 0, "object {id} is of no use and still there");
        ensure!(
            object.refs > 0 || (object.extobj | object.evict) == 0,
            "object {id} is listed without a vm_bo"
        );
        Ok(())
    }

    pub fn bytes(&self) -> usize {
        self.tree.bytes() + self.slots.bytes() + self.objects.bytes() + self.gaps.bytes()
    }
}
