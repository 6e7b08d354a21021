//! Single mappings in and out of the tree.

use pyo3::prelude::*;

use super::errors::{Class, error, error_about};
use super::gpuva::Gpuva;
use super::space::Space;
use crate::space::{KERNEL, Mapping};
use crate::tree::NONE;

pub fn insert(slf: &Bound<'_, Space>, va: &Bound<'_, Gpuva>) -> PyResult<()> {
    let py = slf.py();
    Space::changing(slf, |space, _| {
        space.require_idle(py, "insert")?;
        let inner = va.borrow();
        if inner.slot != NONE {
            return Err(error(py, Class::Busy, "insert: the mapping is in an address space or still linked"));
        }
        let (addr, range) = (inner.addr, inner.range);
        space.check_range(py, "insert", addr, range)?;
        space.check_regions(py, "insert", addr, addr + range)?;
        if let Some(other) = space.core.first_overlapping(addr, addr + range) {
            let message = format!(
                "insert: [{addr:#x}, {:#x}) overlaps the mapping [{:#x}, {:#x}); unmap that first, or use sm_map",
                addr + range,
                other.addr,
                other.end()
            );
            return Err(error_about(
                py,
                Class::AlreadyMapped,
                message,
                (addr, range),
                (other.addr, other.range),
            ));
        }
        let object = inner.obj.as_ref().map_or(py.None(), |object| object.clone_ref(py));
        let unknown = space.unknown(object.bind(py));
        space.reserve(py, 1, unknown)?;
        space.reserve_handles(py, 1)?;
        let (offset, flags) = (inner.offset, inner.own_flags);
        drop(inner);
        let object = space.intern(object.bind(py));
        let mapping = Mapping { addr, range, offset, object, flags };
        let slot = space.core.insert(&mapping, 0);
        space.core.generation += 1;
        space.adopt(slf, va, slot, &mapping)
    })
}

pub fn remove(slf: &Bound<'_, Space>, va: &Bound<'_, Gpuva>) -> PyResult<()> {
    Space::changing(slf, |space, py| {
        space.require_idle(py, "remove")?;
        let entry = space.entry_of(slf, va, "remove")?;
        if space.core.slot(entry.slot).flags & KERNEL != 0 {
            return Err(error(
                py,
                Class::InvalidArgument,
                "remove: the kernel's node stays as long as its space",
            ));
        }
        space.core.remove(&entry);
        space.core.generation += 1;
        Ok(())
    })
}
