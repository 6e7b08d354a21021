//! Looking at an address space: iteration and gaps.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use super::errors::{Class, U64, error_about};
use super::gpuva::Gpuva;
use super::space::Space;
use crate::gaps::{Fit, Wanted};
use crate::tree::Entry;

/// The Python object of the mapping that `find` finds.
#[inline]
pub fn answer(
    slf: &Bound<'_, Space>,
    find: impl FnOnce(&Space) -> PyResult<Option<Entry>>,
) -> PyResult<Option<Py<Gpuva>>> {
    let mut space = Space::writing(slf)?;
    find(&space)?.map(|entry| space.handle(slf, &entry)).transpose()
}

pub fn mappings(slf: &Bound<'_, Space>, addr: Option<U64>, range: Option<U64>) -> PyResult<MappingIterator> {
    let space = Space::reading(slf)?;
    let from = addr.map_or(0, |addr| addr.0);
    let end = match range {
        Some(range) => space.end_of(slf.py(), "mappings", from, range.0)?,
        None => u64::MAX,
    };
    Ok(MappingIterator { vm: slf.clone().unbind(), position: from, end, started: false })
}

pub fn find_gap(
    slf: &Bound<'_, Space>,
    range: U64,
    align: U64,
    fit: u8,
    window: (Option<U64>, Option<U64>),
) -> PyResult<u64> {
    let py = slf.py();
    let mut space = Space::writing(slf)?;
    let start = window.0.map_or(space.core.start, |start| start.0.max(space.core.start));
    let end = window.1.map_or(space.core.end, |end| end.0.min(space.core.end));
    if range.0 == 0 || align.0 == 0 {
        let message = format!("find_gap: range {:#x} and align {:#x} must be at least 1", range.0, align.0);
        return Err(error_about(py, Class::InvalidArgument, message, (range.0, align.0), 1_u64));
    }
    let fit = [Fit::Lowest, Fit::Highest, Fit::Best][usize::from(fit.min(2))];
    let wanted = Wanted { range: range.0, align: align.0, start, end };
    let core = &mut space.core;
    core.gaps.find(&mut core.tree, &wanted, fit).ok_or_else(|| {
        let largest = core.gaps.largest(&mut core.tree);
        let message = format!(
            "find_gap: no hole of {:#x} bytes at a multiple of {:#x} in [{start:#x}, {end:#x}); \
             the largest hole of the space has {largest:#x}",
            range.0, align.0
        );
        error_about(py, Class::NoSpace, message, range.0, largest)
    })
}

/// Mappings in address order; what `GpuVm.mappings` returns.
#[pyclass(module = "gpuvm._core")]
pub struct MappingIterator {
    vm: Py<Space>,
    position: u64,
    end: u64,
    /// From the second mapping on, only what begins at or behind `position` comes.
    started: bool,
}

#[pymethods]
impl MappingIterator {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Option<Py<Gpuva>>> {
        let vm = self.vm.bind(py);
        let mut space = Space::writing(vm)?;
        let (position, end, started) = (self.position, self.end, self.started);
        let next = space.core.tree.iter_from(position).find(|entry| !started || entry.addr >= position);
        let Some(entry) = next.filter(|entry| entry.addr < end) else { return Ok(None) };
        (self.position, self.started) = (entry.end(), true);
        space.handle(vm, &entry).map(Some)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.vm)
    }
}
