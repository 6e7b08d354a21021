//! The lists of mappings by object, threaded through the slots in link order.

use super::{LINKED, Slot, Space};
use crate::object::End;
use crate::tree::NONE;

impl Space {
    /// Append the slot to its object's list and take a reference of the vm_bo.
    #[inline(always)]
    pub fn link(&mut self, id: u32) {
        let object = self.slots[id].object;
        self.objects.take(object);
        let object = self.objects.get_mut(object);
        let tail = std::mem::replace(&mut object.tail, id);
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

    /// Take the slot out of its object's list; the reference stays with the slot until it is released.
    #[inline(always)]
    pub(super) fn unchain(&mut self, id: u32) {
        let Slot { object, prev, next, .. } = *self.slot(id);
        self.objects.get_mut(object).linked -= 1;
        self.point_around(id, next, prev);
    }

    /// Undo `unchain`, in exactly the reverse order of unchaining.
    pub(super) fn rechain(&mut self, id: u32) {
        self.objects.get_mut(self.slots[id].object).linked += 1;
        self.point_around(id, id, id);
    }

    /// What stands before slot `id` in its list has `next` behind it now, what stands behind has `prev` before it.
    #[inline(always)]
    fn point_around(&mut self, id: u32, next: u32, prev: u32) {
        let Slot { object, prev: before, next: behind, .. } = *self.slot(id);
        let object = self.objects.get_mut(object);
        if before == NONE {
            object.head = next;
        } else {
            self.slots[before].next = next;
        }
        if behind == NONE {
            object.tail = prev;
        } else {
            self.slots[behind].prev = prev;
        }
    }

    /// Unlink a mapping, which may be the end of its vm_bo.
    pub fn unlink(&mut self, id: u32, end: End) {
        self.unchain(id);
        self.slot_mut(id).flags &= !LINKED;
        let object = self.slot(id).object;
        self.objects.put(object, end);
        self.objects.settle(object);
    }
}
