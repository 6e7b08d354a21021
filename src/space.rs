//! The address space: a slot for each mapping, linked into its object's list, and the changes made to them.
//!
//! Every change is a `Change`: a run of neighbouring mappings goes, up to three come. It is applied whole; the
//! memory it needs is reserved before (see `promise`), where a refusal does no harm. Changes made while a journal is
//! open can be undone.

mod check;
mod journal;
mod list;
mod mapping;
mod promise;

use journal::Journal;
pub use journal::Recorded;
pub use mapping::{Change, HANDLE, IN_TREE, INVALIDATED, KERNEL, LINKED, Mapping, SPARSE, Slot, USER_FLAGS};
pub use promise::Room;

use crate::arena::Arena;
use crate::gaps::Gaps;
use crate::object::{End, Objects};
use crate::regions::Regions;
use crate::tree::{Cursor, Entry, NONE, Tree};

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

/// Differs between two moments unless the space, positions included, was the same all the time between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    pub generation: u64,
    pub epoch: u64,
    /// Changes of INVALIDATED, which make no difference to plans that do not look at the mapping's flags.
    pub invalidations: u64,
}

impl Stamp {
    /// True unless more than INVALIDATED changed between the two.
    pub fn agrees(&self, other: &Stamp) -> bool {
        (self.generation, self.epoch) == (other.generation, other.epoch)
    }
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
    /// Changes so far, but for those of INVALIDATED.
    pub generation: u64,
    /// Journals opened and rolled back so far.
    pub epoch: u64,
    /// Changes of INVALIDATED so far.
    invalidations: u64,
    pub counters: Counters,
    /// What becomes of a vm_bo whose last mapping a change takes away.
    pub vm_bo_end: End,
    /// First of the slots whose mappings went, but not yet their Python objects, chained by `next`.
    retired: u32,
    journal: Journal,
    /// Changes that room was promised for, and how much of that is left.
    promised: Room,
    left: Room,
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
            epoch: 0,
            invalidations: 0,
            counters: Counters::default(),
            vm_bo_end: End::Destroyed,
            retired: NONE,
            journal: Journal::Closed,
            promised: Room::default(),
            left: Room::default(),
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

    #[inline(always)]
    pub fn stamp(&self) -> Stamp {
        Stamp { generation: self.generation, epoch: self.epoch, invalidations: self.invalidations }
    }

    /// Who evicts sets INVALIDATED without the lock under which plans are made, so that is counted apart.
    pub fn set_flags(&mut self, id: u32, flags: u32) {
        let slot = self.slot_mut(id);
        let changed = (slot.flags ^ flags) & USER_FLAGS;
        slot.flags ^= changed;
        self.generation += u64::from(changed & !INVALIDATED != 0);
        self.invalidations += u64::from(changed == INVALIDATED);
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

    pub fn kernel_node(&self) -> Option<Entry> {
        let (addr, end) = self.kernel_range;
        (self.kernel != NONE).then_some(Entry { addr, range: end - addr, slot: self.kernel })
    }

    /// The mapping that begins exactly at `addr`.
    pub fn find_next(&self, addr: u64) -> Option<Entry> {
        self.tree.get(addr).filter(|entry| entry.slot != self.kernel)
    }

    /// Apply `change`, whose mappings are linked, and return the slots of what came.
    #[inline(always)]
    pub fn apply(&mut self, change: &Change) -> [u32; 3] {
        let removed = change.removed as usize;
        let mut gone = [NONE; 4];
        // More are retired while they are in the tree; few are quicker done afterwards.
        let few = if removed <= gone.len() { removed } else { 0 };
        let mut cursor = change.at;
        for slot in &mut gone[..few] {
            *slot = self.step(&mut cursor);
        }
        let mut slots = [NONE; 3];
        let mut entries = [Entry { addr: 0, range: 0, slot: NONE }; 3];
        for (index, mapping) in change.added().iter().enumerate() {
            // New mappings are linked before old ones are unlinked: the vm_bo never runs out of references between.
            slots[index] = self.new_slot(mapping, IN_TREE);
            entries[index] = Entry { addr: mapping.addr, range: mapping.range, slot: slots[index] };
        }
        self.link_added(change, &slots);
        if self.journal.is_open() {
            self.record(change.at, removed, &slots, change.count);
        }
        if removed > few {
            self.retire_run(change.at, removed);
        }
        self.tree.splice(change.at, removed, &entries[..change.count as usize]);
        for &slot in &gone[..few] {
            self.retire(slot);
        }
        slots
    }

    /// Retire the `removed` mappings from `at` on, which are still in the tree.
    #[cold]
    #[inline(never)]
    fn retire_run(&mut self, mut at: Cursor, removed: usize) {
        for _ in 0..removed {
            let slot = self.step(&mut at);
            self.retire(slot);
        }
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

    /// True if nobody can tell the mapping in this slot from another one in its place.
    #[inline(always)]
    pub fn is_exchangeable(&self, id: u32) -> bool {
        let slot = self.slot(id);
        let linked = slot.flags & LINKED != 0 || slot.object == NONE;
        linked && slot.flags & (HANDLE | KERNEL) == 0 && !self.journal.is_open()
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
            self.objects.put(object, self.vm_bo_end);
        }
        self.objects.let_go(object);
    }

    /// A mapping has left the tree: unlink it and, unless it may have to come back, free its slot.
    #[inline(always)]
    fn retire(&mut self, id: u32) {
        if self.slot(id).flags & LINKED != 0 {
            self.unchain(id);
        }
        if !self.journal.is_open() {
            self.release(id);
        }
    }

    /// Free the slot of a mapping that is out of the tree and of its object's list.
    #[inline(always)]
    pub fn release(&mut self, id: u32) {
        let Slot { object, flags, .. } = *self.slot(id);
        if object != NONE {
            self.leave(object, flags & LINKED != 0);
        }
        if flags & HANDLE == 0 {
            return self.free(id);
        }
        let next = std::mem::replace(&mut self.retired, id);
        let slot = self.slot_mut(id);
        (slot.flags, slot.next) = (flags & USER_FLAGS, next);
    }

    pub fn has_retired(&self) -> bool {
        self.retired != NONE
    }

    /// A slot whose mapping went and left its Python object behind, and the mapping's flags. The slot is free then.
    pub fn pop_retired(&mut self) -> Option<(u32, u32)> {
        let id = self.retired;
        let Slot { flags, next, .. } = *self.slots.get(id)?;
        self.retired = next;
        self.free(id);
        Some((id, flags))
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
        if let Some(node) = self.kernel_node() {
            (self.kernel, self.kernel_range) = (NONE, (0, 0));
            self.counters.mapped_bytes += node.range;
            self.remove(&node);
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

    pub fn bytes(&self) -> usize {
        self.tree.bytes() + self.slots.bytes() + self.objects.bytes() + self.gaps.bytes()
    }
}
