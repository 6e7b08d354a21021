//! What a mapping is: by value, in its slot, and as part of a change.

use crate::tree::{Cursor, NONE};

/// Flags of a mapping that callers see and set; above are the core's own.
pub const USER_FLAGS: u32 = (1 << 28) - 1;
/// The page-table entries are gone because the object was evicted.
pub const INVALIDATED: u32 = 1;
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
    pub const FREE: Slot = Slot { addr: 0, offset: 0, object: NONE, flags: 0, prev: NONE, next: NONE };
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
    pub(super) count: u32,
    /// Which of the added is the requested mapping; the others are remainders of what it cut.
    pub(super) requested: u32,
    pub(super) added: [Mapping; 3],
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

    /// Say which record the requested mapping's object has.
    pub fn set_requested_object(&mut self, object: u32) {
        if let Some(mapping) = self.added.get_mut(self.requested as usize) {
            mapping.object = object;
        }
    }

    #[inline(always)]
    pub fn added(&self) -> &[Mapping] {
        &self.added[..self.count as usize]
    }
}
