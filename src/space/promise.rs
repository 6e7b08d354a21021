//! Memory for changes: taken before they are made, or long before, for changes where nothing may be allocated.
//!
//! A promise keeps room for a number of changes. Whoever may allocate reserves on top of it; whoever may not takes
//! what he finds beyond it, else a part of it. What was taken is not made up for: the promise is for so many changes
//! until it is released.

use super::{Slot, Space};
use crate::ensure;
use crate::memory::{Refused, forbidden};

/// Room for changes that name objects which the space does not know yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    pub changes: usize,
    pub objects: usize,
}

impl Room {
    fn plus(self, other: Room) -> Option<Room> {
        let changes = self.changes.checked_add(other.changes)?;
        Some(Room { changes, objects: self.objects.checked_add(other.objects)? })
    }

    fn minus(self, other: Room) -> Option<Room> {
        let changes = self.changes.checked_sub(other.changes)?;
        Some(Room { changes, objects: self.objects.checked_sub(other.objects)? })
    }

    /// Mappings that the changes make at most, each of which may make a vm_bo.
    fn inserts(self) -> usize {
        3 * self.changes
    }
}

impl Space {
    /// Make sure that `changes` changes which name `objects` unknown objects can be applied.
    #[inline]
    pub fn reserve(&mut self, changes: usize, objects: usize) -> Result<(), Refused> {
        let room = Room { changes, objects };
        if forbidden() { self.draw(room) } else { self.take(room) }
    }

    fn take(&mut self, room: Room) -> Result<(), Refused> {
        let total = room.plus(self.left).ok_or(Refused::Exhausted)?;
        let slots = total.inserts().saturating_sub(self.free_slots);
        self.slots.reserve(slots, &Slot::FREE)?;
        self.tree.reserve(room.inserts())?;
        self.objects.reserve(total.objects)
    }

    #[cold]
    fn draw(&mut self, room: Room) -> Result<(), Refused> {
        let total = room.plus(self.left).ok_or(Refused::Forbidden)?;
        let beyond = Room {
            changes: if self.has_room(total) { 0 } else { room.changes },
            objects: if self.has_object_room(total) { 0 } else { room.objects },
        };
        self.keep(self.left.minus(beyond).ok_or(Refused::Forbidden)?);
        Ok(())
    }

    fn has_room(&self, room: Room) -> bool {
        self.has_room_beside(room) && self.tree.has_room(room.inserts())
    }

    fn has_object_room(&self, room: Room) -> bool {
        self.objects.has_room(room.objects) && self.objects.has_zombie_room(room.objects + room.inserts())
    }

    /// True if there is memory for all but tree nodes.
    fn has_room_beside(&self, room: Room) -> bool {
        let slots = self.free_slots + self.slots.capacity() - self.slots.len();
        slots >= room.inserts() && self.objects.has_zombie_room(room.objects + room.inserts())
    }

    /// Room that the binding needs for vm_bos that it has to keep, before changes that name `objects` unknown objects.
    pub fn zombies_wanted(&self, objects: usize) -> usize {
        let left = self.left;
        self.objects.zombies_wanted(objects + left.objects) + left.inserts()
    }

    fn keep(&mut self, left: Room) {
        self.left = left;
        self.tree.promised = left.inserts();
    }

    /// What room was promised for.
    pub fn promised(&self) -> Room {
        self.promised
    }

    /// Promise room for `room` more.
    pub fn promise(&mut self, room: Room) -> Result<(), Refused> {
        /// Slots are counted in 32 bits.
        const MOST: usize = u32::MAX as usize / 3;
        let promised = self.promised.plus(room).filter(|room| room.changes.max(room.objects) <= MOST);
        let (promised, before) = (promised.ok_or(Refused::Exhausted)?, self.left);
        let left = before.plus(room).ok_or(Refused::Exhausted)?;
        self.keep(left);
        if let Err(refused) = self.take(Room::default()) {
            self.keep(before);
            return Err(refused);
        }
        self.promised = promised;
        Ok(())
    }

    /// Give back a part of what was promised; false, and nothing changes, if it is more than that.
    pub fn release_promise(&mut self, room: Room) -> bool {
        let Some(promised) = self.promised.minus(room) else { return false };
        self.promised = promised;
        let Room { changes, objects } = self.left;
        self.keep(Room { changes: changes.min(promised.changes), objects: objects.min(promised.objects) });
        true
    }

    /// The room that is left of the promise is there.
    pub(super) fn check_promise(&self) -> Result<(), String> {
        let (left, promised) = (self.left, self.promised);
        ensure!(promised.minus(left).is_some(), "{left:?} is left of a promise of {promised:?}");
        ensure!(
            self.has_room_beside(left) && self.tree.keeps_promise() && self.has_object_room(left),
            "room for {left:?} is promised and not there"
        );
        Ok(())
    }
}
