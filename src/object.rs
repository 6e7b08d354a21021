//! Mapped objects and their vm_bo: one record for each object that this address space knows.
//!
//! An object is a key, the address of the Python object that the binding keeps alive. Its vm_bo exists while it
//! is referenced: by a caller, or by a linked mapping. Linked mappings form a list in link order, threaded
//! through their slots (see `space`). Two more lists hold vm_bos, external ones and evicted ones (see `list`).

mod list;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::ensure;
use crate::memory::{Refused, allocate, armed, reserve};
use crate::tree::NONE;
pub use list::List;

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
    /// A caller had a reference to the vm_bo, and put it.
    pub was_put: bool,
    /// It is in `Objects::deferred`.
    deferred: bool,
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

/// What happens to a vm_bo whose last reference goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Destroyed,
    /// Kept by the binding until it may be freed.
    Deferred,
}

#[derive(Default)]
pub struct Objects {
    records: Vec<Object>,
    /// Records that all the arrays have room for.
    room: usize,
    free: Vec<u32>,
    by_key: HashMap<u64, u32, BuildHasherDefault<PointerHasher>>,
    /// Keys that it was made for; what it says itself depends on where it was filled.
    keys: usize,
    /// Records given up since the binding last asked; their Python references can go.
    dead: Vec<u32>,
    /// Records whose vm_bo was destroyed while a Python object stood for it.
    destroyed: Vec<u32>,
    /// Records whose vm_bo ended where nothing may be freed, since the binding last asked.
    deferred: Vec<u32>,
    /// Vm_bos that the binding keeps because of that, and how many it has room for.
    pub zombies: usize,
    pub zombie_room: usize,
    /// Changes are made where nothing may be freed.
    pub defers: bool,
    /// Vm_bos with references.
    live: usize,
    /// Vm_bos of external objects, and of evicted ones that are to be brought back.
    pub extobjs: List,
    pub evicted: List,
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
    #[inline]
    pub fn reserve(&mut self, additional: usize) -> Result<(), Refused> {
        if self.has_room(additional) && !armed() { Ok(()) } else { self.grow(additional) }
    }

    #[cold]
    fn grow(&mut self, additional: usize) -> Result<(), Refused> {
        reserve(&mut self.records, additional.saturating_sub(self.free.len()))?;
        let records = self.records.capacity();
        for list in [&mut self.dead, &mut self.destroyed, &mut self.deferred, &mut self.free] {
            let room = records - list.len();
            reserve(list, room)?;
        }
        self.extobjs.reserve(records)?;
        self.evicted.reserve(records)?;
        self.room = records;
        let missing = self.by_key.capacity() - self.by_key.len() < additional;
        if missing || armed() {
            allocate(missing, || self.by_key.try_reserve(additional))?;
            self.keys = self.keys.max(self.by_key.capacity());
        }
        Ok(())
    }

    /// True if there is memory for `additional` objects more.
    #[inline]
    pub fn has_room(&self, additional: usize) -> bool {
        self.free.len() + self.room - self.records.len() >= additional
            && self.by_key.capacity() - self.by_key.len() >= additional
    }

    /// Records that there is memory for.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.room
    }

    /// Room that the binding needs for vm_bos that it has to keep, before a batch of changes that names `additional`
    /// unknown objects: of each object one that ended, and one that came after it.
    pub fn zombies_wanted(&self, additional: usize) -> usize {
        if self.defers { self.zombies + 2 * (self.len() + additional) } else { 0 }
    }

    /// True if the binding could keep the vm_bos there are and `fresh` more.
    pub fn has_zombie_room(&self, fresh: usize) -> bool {
        !self.defers || self.zombies + self.live + fresh <= self.zombie_room
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
            was_put: false,
            deferred: false,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.records[id as usize] = object;
                id
            }
            None => {
                self.records.push(object);
                self.extobjs.push_record();
                self.evicted.push_record();
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

    /// Number of vm_bos.
    pub fn vm_bo_count(&self) -> usize {
        self.live
    }

    /// Records with a vm_bo.
    pub fn with_vm_bo(&self) -> impl Iterator<Item = u32> + '_ {
        self.ids().filter(|&id| self.get(id).refs > 0)
    }

    /// Take a reference of the vm_bo, which is made if there is none.
    #[inline(always)]
    pub fn take(&mut self, id: u32) {
        let object = self.get_mut(id);
        object.refs += 1;
        let first = object.refs == 1;
        self.live += usize::from(first);
    }

    /// Drop one reference of the vm_bo; true if that was the last, which takes it off its lists.
    #[inline(always)]
    pub fn put(&mut self, id: u32, end: End) -> bool {
        let object = self.get_mut(id);
        object.refs -= 1;
        if object.refs > 0 {
            return false;
        }
        self.end(id, end);
        true
    }

    #[inline(never)]
    fn end(&mut self, id: u32, end: End) {
        self.live -= 1;
        self.extobjs.remove(id);
        self.evicted.remove(id);
        let object = self.get_mut(id);
        (object.evicted, object.was_put) = (false, false);
        let has_vm_bo = std::mem::take(&mut object.has_vm_bo);
        match end {
            // One that came back in the same change and ended again was seen by nobody.
            End::Deferred if !object.deferred => {
                object.deferred = true;
                self.deferred.push(id);
            }
            End::Destroyed if has_vm_bo => self.destroyed.push(id),
            _ => {}
        }
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
        !(self.dead.is_empty() && self.destroyed.is_empty() && self.deferred.is_empty())
    }

    /// An id whose vm_bo was destroyed since the binding last asked.
    pub fn pop_destroyed(&mut self) -> Option<u32> {
        self.destroyed.pop()
    }

    /// Ids whose vm_bos the binding is to keep from now on, oldest first.
    pub fn take_deferred(&mut self) -> impl Iterator<Item = u32> + '_ {
        self.zombies += self.deferred.len();
        let Objects { deferred, records, .. } = self;
        deferred.drain(..).inspect(|&id| records[id as usize].deferred = false)
    }

    /// An id given up since the binding last asked; it may be used again.
    pub fn pop_dead(&mut self) -> Option<u32> {
        let id = self.dead.pop()?;
        self.free.push(id);
        Some(id)
    }

    /// Set the flag; the list of evicted objects follows it if the vm_bo is to be `listed`.
    pub fn set_evicted(&mut self, id: u32, evicted: bool, listed: bool) {
        self.get_mut(id).evicted = evicted;
        match (listed, evicted) {
            (false, _) => {}
            (true, true) => self.evicted.add(id),
            (true, false) => self.evicted.remove(id),
        }
    }

    /// Lists are sound and hold live vm_bos only, of which there are as many as counted.
    pub fn check(&self) -> Result<(), String> {
        let live = self.with_vm_bo().count();
        ensure!(live == self.live, "there are {live} vm_bos, {} counted", self.live);
        ensure!(!self.has_garbage(), "records were given up and not taken away");
        ensure!(
            self.has_zombie_room(0),
            "{live} vm_bos may have to be kept beside {}, there is room for {}",
            self.zombies,
            self.zombie_room
        );
        for (name, list) in [("external", &self.extobjs), ("evicted", &self.evicted)] {
            list.check(name)?;
            for id in list.iter() {
                ensure!(
                    self.get(id).refs > 0,
                    "record {id} is on the list of {name} objects without a vm_bo"
                );
            }
        }
        Ok(())
    }

    pub fn bytes(&self) -> usize {
        self.records.capacity() * size_of::<Object>()
            + (self.free.capacity() + self.dead.capacity() + self.destroyed.capacity()) * size_of::<u32>()
            + self.deferred.capacity() * size_of::<u32>()
            + self.keys * (size_of::<(u64, u32)>() + 1) * 8 / 7
            + self.extobjs.bytes()
            + self.evicted.bytes()
    }
}
