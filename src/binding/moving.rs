//! What becomes of mappings when their object is moved, and how they come back.

use pyo3::prelude::*;

use super::bind_ops::extents;
use super::errors::{Class, error, out_of_memory};
use super::space::Space;
use super::vm_bind::say;
use super::vm_bo::VmBo;
use super::work::Work;
use crate::page_slots::SlotSet;
use crate::pages::{Misfit, Runs, split};
use crate::paging::kind_of;
use crate::space::INVALIDATED;
use crate::tree::NONE;

/// Invalidate the mappings of an object; their entries are to be cleared, their references stay.
pub fn invalidate(slf: &Bound<'_, Space>, vm_bo: &Bound<'_, VmBo>) -> PyResult<Work> {
    let (_, object) = VmBo::record(vm_bo, "invalidate")?;
    let mut work = Work::default();
    Space::with_paging(slf, |space, paging, py| {
        let linked = linked(space, object);
        for &slot in &linked {
            space.require_settable(py, slot, INVALIDATED)?;
        }
        for slot in linked {
            let flags = space.core.slot(slot).flags;
            if flags & INVALIDATED == 0 {
                work.effects.clear(paging.pages_of(slot));
                space.core.set_flags(slot, flags | INVALIDATED);
            }
        }
        Ok(())
    })?;
    Ok(work)
}

/// What it takes to map an object, which lies in `place` now, again wherever it is invalidated.
pub fn bring_back(
    slf: &Bound<'_, Space>,
    vm_bo: &Bound<'_, VmBo>,
    place: &Bound<'_, PyAny>,
) -> PyResult<Work> {
    let (_, object) = VmBo::record(vm_bo, "validate")?;
    let place = extents(place)?;
    let mut work = Work::default();
    Space::with_paging(slf, |space, paging, py| {
        let (mut pages, mut come, mut go) = (Vec::new(), SlotSet::default(), SlotSet::default());
        for slot in linked(space, object) {
            let here = *space.core.slot(slot);
            let Some(entry) = space.core.tree.get(here.addr).filter(|_| here.flags & INVALIDATED != 0) else {
                continue;
            };
            pages.clear();
            let mut fit = || -> Result<(), Misfit> {
                split(&paging.sizes, (entry.addr, entry.range), &place, here.offset, &mut pages)?;
                come.fill(pages.iter())?;
                go.fill(paging.pages_of(slot).iter())?;
                work.effects.exchange(&go, &come, 0)?;
                work.effects.map(&pages, kind_of(here.flags), 0)?;
                work.fresh.push((slot, Runs::new(&pages)?));
                Ok(())
            };
            fit().map_err(|misfit| match misfit {
                Misfit::Memory(refused) => out_of_memory(py, refused),
                _ => error(py, Class::InvalidArgument, format!("validate: {misfit}")),
            })?;
        }
        Ok(())
    })?;
    say(slf, &mut work)?;
    Ok(work)
}

/// The mappings of an object, in link order.
fn linked(space: &Space, object: u32) -> Vec<u32> {
    let mut slots = Vec::new();
    let mut slot = space.core.objects.get(object).head;
    while slot != NONE {
        slots.push(slot);
        slot = space.core.slot(slot).next;
    }
    slots
}
