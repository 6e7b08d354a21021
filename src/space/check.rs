//! Every invariant of slots, lists and counts.

use super::{IN_TREE, LINKED, Space};
use crate::ensure;
use crate::tree::NONE;

impl Space {
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
        self.objects.check()?;
        self.check_promise()?;
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
        ensure!(object.refs > 0 || !object.evicted, "object {id} is evicted without a vm_bo");
        Ok(())
    }
}
