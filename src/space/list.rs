//! The lists of mappings by object, threaded through the slots in link order.

use super::{LINKED, Slot, Space};
use crate::tree::NONE;

impl Space {
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
    pub(super) fn unchain(&mut self, id: u32) {
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

    /// Undo `unchain`, in exactly the reverse order of unchaining.
    pub(super) fn rechain(&mut self, id: u32) {
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
}
