//! Regions by hand; sparse binds make and drop them too (see `bulk`).

use pyo3::prelude::*;

use super::errors::{Class, U64, error, error_about, out_of_memory};
use super::space::Space;
use crate::bulk::{Refusal, make_region};
use crate::regions::{Region, Rule};

pub fn insert(slf: &Bound<'_, Space>, addr: U64, range: U64, sparse: bool) -> PyResult<()> {
    let py = slf.py();
    let mut space = Space::writing(slf)?;
    space.require_idle(py, "region_insert")?;
    if space.core.regions.rule == Rule::Off {
        let message =
            "region_insert: this space has no regions; make it with regions=Regions.REQUIRED or SPARSE";
        return Err(error(py, Class::InvalidArgument, message));
    }
    space.check_range(py, "region_insert", addr.0, range.0)?;
    let region = Region { addr: addr.0, end: addr.0 + range.0, sparse };
    match make_region(&mut space.core, region) {
        Err(Refusal::Overlaps(start, end)) => {
            let message = format!(
                "region_insert: [{:#x}, {:#x}) overlaps [{start:#x}, {end:#x}), which is mapped or a region",
                region.addr, region.end
            );
            Err(error_about(py, Class::AlreadyMapped, message, (addr.0, range.0), (start, end - start)))
        }
        Err(Refusal::Memory(refused)) => Err(out_of_memory(py, refused)),
        _ => {
            space.core.generation += 1;
            Ok(())
        }
    }
}

pub fn remove(slf: &Bound<'_, Space>, addr: U64, range: U64) -> PyResult<()> {
    let py = slf.py();
    let mut space = Space::writing(slf)?;
    space.require_idle(py, "region_remove")?;
    let end = addr.0.wrapping_add(range.0);
    if end < addr.0 || space.core.regions.find(addr.0, end).is_none() {
        let message = format!("region_remove: there is no region [{:#x}, {end:#x})", addr.0);
        return Err(error_about(py, Class::NotFound, message, (addr.0, range.0), ()));
    }
    if let Some(entry) = space.core.first_overlapping(addr.0, end) {
        let message = format!(
            "region_remove: [{:#x}, {end:#x}) still holds the mapping [{:#x}, {:#x}); unmap the region first",
            addr.0,
            entry.addr,
            entry.end()
        );
        return Err(error_about(py, Class::Busy, message, (addr.0, range.0), (entry.addr, entry.range)));
    }
    space.core.regions.remove(addr.0);
    space.core.generation += 1;
    Ok(())
}
