//! Mapped objects and their vm_bo: one record for each object that this address space knows.
//!
//! An object is a key, the address of the Python object that the binding keeps alive. Its vm_bo exists while it
//! is referenced: by a caller, or by a linked mapping. Linked mappings form a list in link order, threaded
//! through their slots (see `space`).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::memory::{Exhausted, reserve};
use crate::tree::NONE;

#[derive(Clone, Debug)]
pub struct Object {
    pub key: u64,
    /// Mappings of this object in the space, linked or not.
    pub users: u32,
    /// References to the vm_bo; 0 when there is none.
    pub refs: u32,
    /// Linked mappings: first, last, how many.
    pub head: u32,
    pub tail: u32,
    pub linked: u32,
    /// The handle it was last bound by, 0 for none.
    pub handle: u32,
    pub evicted: bool,
    /// A Python object stands for the vm_bo.
    pub has_vm_bo: bool,
    /// Place in the list of external objects and in that of evicted ones; 0 when not in it.
    pub extobj: u64,
    pub evict: u64,
}

/// Pointers differ in their middle bits; a multiplication brings these to the top, where the table looks.
#[derive(Default)]
pub struct PointerHasher(u64);

impl Hasher for PointerHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u64")
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = (key >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

#[derive(Default)]
pub struct Objects {
    records: Vec<Object>,
    free: Vec<u32>,
    by_key: HashMap<u64, u32, BuildHasherDefault<PointerHasher>>,
    /// Records given up since the binding last asked; their Python references can go.
    dead: Vec<u32>,
    /// Records whose vm_bo was destroyed while a Python object stood for it.
    destroyed: Vec<u32>,
    list_clock: u64,
}

impl Objects {
    #[inline(always)]
    pub fn get(&self, id: u32) -> &Object {
        &self.records[id as usize]
    }

    #[inline(always)]
    pub fn get_mut(&mut self, id: u32) -> &mut Object {
        &mut self.records[id as usize]
    }

    #[inline]
    pub fn find(&self, key: u64) -> Option<u32> {
        self.by_key.get(&key).copied()
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.records.len() as u32).filter(|&id| self.get(id).key != 0)
    }

    /// Make room for `additional` objects more.
    pub fn reserve(&mut self, additional: usize) -> Result<(), Exhausted> {
        reserve(&mut self.records, additional.saturating_sub(self.free.len()))?;
        let records = self.records.capacity();
        for list in [&mut self.dead, &mut self.destroyed, &mut self.free] {
            let room = records - list.len();
            reserve(list, room)?;
        }
        if self.by_key.capacity() - self.by_key.len() < additional {
            self.by_key.try_reserve(additional).map_err(|_| Exhausted)?;
        }
        Ok(())
    }

    /// The record of `key`, made if there is none. It lives until `settle` finds it unused.
    pub fn intern(&mut self, key: u64) -> u32 {
        if let Some(id) = self.find(key) {
            return id;
        }
        let object = Object {
            key,
            users: 0,
            refs: 0,
            head: NONE,
            tail: NONE,
            linked: 0,
            handle: 0,
            evicted: false,
            has_vm_bo: false,
            extobj: 0,
            evict: 0,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.records[id as usize] = object;
                id
            }
            None => {
                self.records.push(object);
                (self.records.len() - 1) as u32
            }
        };
        self.by_key.insert(key, id);
        id
    }

    /// Keep the record although no mapping needs it yet.
    pub fn hold(&mut self, id: u32) {
        self.get_mut(id).users += 1;
    }

    /// End `hold`, or say that a mapping is gone.
    #[inline(always)]
    pub fn let_go(&mut self, id: u32) {
        self.get_mut(id).users -= 1;
        self.settle(id);
    }

    /// Records with a vm_bo.
    pub fn with_vm_bo(&self) -> impl Iterator<Item = u32> + '_ {
        self.ids().filter(|&id| self.get(id).refs > 0)
    }

    /// Drop one reference of the vm_bo; true if that destroyed it and took it off its lists.
    #[inline(always)]
    pub fn put(&mut self, id: u32) -> bool {
        let object = self.get_mut(id);
        object.refs -= 1;
        if object.refs > 0 {
            return false;
        }
        (object.evicted, object.extobj, object.evict) = (false, 0, 0);
        if std::mem::take(&mut object.has_vm_bo) {
            self.destroyed.push(id);
        }
        true
    }

    /// Give the record up if neither a mapping nor a reference needs it.
    #[inline(always)]
    pub fn settle(&mut self, id: u32) {
        let object = self.get(id);
        if object.users == 0 && object.refs == 0 {
            self.give_up(id);
        }
    }

    #[inline(never)]
    fn give_up(&mut self, id: u32) {
        let object = self.get_mut(id);
        let key = std::mem::take(&mut object.key);
        self.by_key.remove(&key);
        self.dead.push(id);
    }

    /// True if there is something to take.
    #[inline(always)]
    pub fn has_garbage(&self) -> bool {
        !(self.dead.is_empty() && self.destroyed.is_empty())
    }

    /// An id whose vm_bo was destroyed since the binding last asked.
    pub fn pop_destroyed(&mut self) -> Option<u32> {
        self.destroyed.pop()
    }

    /// An id given up since the binding last asked; it may be used again.
    pub fn pop_dead(&mut self) -> Option<u32> {
        let id = self.dead.pop()?;
        self.free.push(id);
        Some(id)
    }

    pub fn add_extobj(&mut self, id: u32) {
        self.list_clock += 1;
        let clock = self.list_clock;
        let place = &mut self.get_mut(id).extobj;
        if *place == 0 {
            *place = clock;
        }
    }

    pub fn set_evicted(&mut self, id: u32, evicted: bool, listed: bool) {
        self.list_clock += 1;
        let clock = self.list_clock;
        let object = self.get_mut(id);
        object.evicted = evicted;
        if !evicted {
            object.evict = 0;
        } else if listed && object.evict == 0 {
            object.evict = clock;
        }
    }

    /// Ids on a list, in the order in which they were put there.
    pub fn listed(&self, place: impl Fn(&Object) -> u64) -> Vec<u32> {
        let mut ids: Vec<u32> = self.ids().filter(|&id| place(self.get(id)) != 0).collect();
        ids.sort_by_key(|&id| place(self.get(id)));
        ids
    }

    pub fn bytes(&self) -> usize {
        self.records.capacity() * size_of::<Object>()
            + (self.free.capacity() + self.dead.capacity()) * size_of::<u32>()
            + self.by_key.capacity() * (size_of::<(u64, u32)>() + 1) * 8 / 7
    }
}
