//! The beginning and the end of an address space, and what it says of itself.

use std::collections::HashMap;

use pyo3::prelude::*;

use super::errors::{Class, U64, error, error_about};
use super::space::Space;
use crate::object::End;
use crate::plan::Merge;
use crate::regions::{Regions, Rule};
use crate::space;
use crate::tree::LEAF_CAP;

/// The space `name` of `range` bytes from `start` on; the kernel's node may only leave it if `anywhere`.
pub fn init(
    slf: &Bound<'_, Space>,
    (name, start, range): (String, U64, U64),
    (kernel_node, anywhere): (Option<(U64, U64)>, bool),
    (merge, regions): (u8, u8),
    immediate_mode: bool,
    can_merge: Option<Py<PyAny>>,
) -> PyResult<()> {
    let py = slf.py();
    let mut space = slf.try_borrow_mut()?;
    if space.open {
        return Err(error(py, Class::Busy, "an address space cannot be made anew; make another one"));
    }
    let end = start.0.checked_add(range.0).filter(|_| range.0 > 0).ok_or_else(|| {
        let reason = if range.0 == 0 { "is empty" } else { "reaches beyond 2**64" };
        let message = format!("the range of {name:?}, [{:#x}, +{:#x}), {reason}", start.0, range.0);
        error_about(py, Class::InvalidArgument, message, (start.0, range.0), (0, u64::MAX))
    })?;
    space.merge = [Merge::Never, Merge::Always, Merge::WithinRegion][usize::from(merge.min(2))];
    let rule = [Rule::Off, Rule::Required, Rule::Sparse][usize::from(regions.min(2))];
    if space.merge == Merge::WithinRegion && rule == Rule::Off {
        let message = "merge=WITHIN_REGION needs regions: pass regions=Regions.REQUIRED or Regions.SPARSE";
        return Err(error(py, Class::InvalidArgument, message));
    }
    space.core = space::Space::new(start.0, end);
    space.core.regions = Regions::with_rule(rule);
    space.name = name;
    if let Some((addr, range)) = kernel_node.filter(|(_, range)| range.0 > 0) {
        let allowed = anywhere && addr.0.checked_add(range.0).is_some();
        if let Some((reason, bound)) = space.range_fault(addr.0, range.0).filter(|_| !allowed) {
            let message = format!("the kernel's node [{:#x}, +{:#x}) {reason}", addr.0, range.0);
            return Err(error_about(py, Class::InvalidArgument, message, (addr.0, range.0), bound));
        }
        space.reserve(py, 1, 0)?;
        space.core.insert_kernel_node(addr.0, range.0);
    }
    (space.immediate_mode, space.can_merge) = (immediate_mode, can_merge);
    space.core.objects.defers = immediate_mode;
    space.core.vm_bo_end = if immediate_mode { End::Deferred } else { End::Destroyed };
    space.open = true;
    Ok(())
}

/// Close the space; false if something is left in it.
pub fn close(slf: &Bound<'_, Space>) -> PyResult<bool> {
    Space::changing(slf, |space, py| {
        space.require_idle(py, "put")?;
        if space.core.len() + space.core.objects.vm_bo_count() + space.zombies.len() > 0 {
            return Ok(false);
        }
        space.core.remove_kernel_node();
        space.open = false;
        Ok(true)
    })
}

/// Counts by name, and how full the leaves are.
pub fn statistics(slf: &Bound<'_, Space>) -> PyResult<(HashMap<&'static str, u64>, f64)> {
    let mut space = slf.try_borrow_mut()?;
    let space = &mut *space;
    let beside = space.bytes_beside();
    let core = &mut space.core;
    let (mut holes, mut free) = (0, 0);
    for (start, end) in core.gaps.iter(&core.tree) {
        (holes, free) = (holes + 1, free + (end - start));
    }
    let leaves = core.tree.leaf_count();
    let numbers = [
        ("mappings", core.len() as u64),
        ("mapped_bytes", core.counters.mapped_bytes),
        ("vm_bos", core.objects.vm_bo_count() as u64),
        ("extobjs", core.objects.extobjs.len() as u64),
        ("evicted", core.objects.evicted.len() as u64),
        ("deferred", core.objects.zombies as u64),
        ("regions", core.regions.len() as u64),
        ("holes", holes),
        ("free_bytes", free),
        ("largest_hole", core.gaps.largest(&mut core.tree)),
        ("maps", core.counters.ops.maps),
        ("remaps", core.counters.ops.remaps),
        ("unmaps", core.counters.ops.unmaps),
        ("splits", core.counters.ops.splits),
        ("merges", core.counters.ops.merges),
        ("generation", core.generation),
        ("preallocated", core.promised().changes as u64),
        ("tree_height", u64::from(core.tree.height)),
        ("tree_leaves", leaves as u64),
        ("bytes", (core.bytes() + beside) as u64),
    ];
    Ok((numbers.into(), core.tree.len as f64 / (leaves * LEAF_CAP) as f64))
}
