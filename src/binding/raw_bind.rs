//! `RawBind`: the stages of a bind that was prepared, in the order in which they come.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::bind_ops::BindOps;
use super::page_table::PageTable;
use super::raw_mutex::watched;
use super::space::Space;
use super::work::Work;

/// Stages by their place in ``gpuvm.nouveau.bind.STAGES``.
const PREPARED: u8 = 0;
const COMMITTED: u8 = 1;
const RUN: u8 = 2;
const CLEANED_UP: u8 = 3;

/// A bind that was prepared; see ``gpuvm.nouveau.Bind``.
///
/// The space has `pending` and `_droppers`, dictionaries of binds.
#[pyclass(module = "gpuvm._core", subclass)]
pub struct RawBind {
    #[pyo3(get)]
    vm: Py<Space>,
    #[pyo3(get)]
    ops: Py<BindOps>,
    /// Regions to drop in the end.
    #[pyo3(get)]
    dropping: Py<PyList>,
    /// What is to be done in the page table, and the way back.
    #[pyo3(get, name = "_work")]
    work: Py<Work>,
    #[pyo3(get, set, name = "_stage")]
    stage: u8,
    /// Objects that the space does not map any more, kept until their entries are gone.
    gone: Vec<Py<PyAny>>,
}

/// There is no way back from a bind of so many operations: the objects that the space does not map any more, to be kept
/// until their entries are gone.
pub fn commit(vm: &Bound<'_, Space>, work: &Bound<'_, Work>, ops: usize) -> PyResult<Vec<Py<PyAny>>> {
    let mut work = work.try_borrow_mut()?;
    let (gone, kept) = (work.commit(vm)?, work.kept());
    Space::writing(vm)?.paging_mut(vm.py())?.count_bind(ops as u64, kept);
    Ok(gone)
}

/// Write the entries.
pub fn run(vm: &Bound<'_, Space>, work: &Bound<'_, Work>, some_are_gone: bool) -> PyResult<()> {
    let py = vm.py();
    vm.getattr(intern!(py, "entries"))?.call_method1(intern!(py, "write"), (work,))?;
    if some_are_gone || work.try_borrow()?.leaves() {
        // Nobody may go on by what was there.
        vm.call_method0(intern!(py, "flush"))?;
    }
    Ok(())
}

/// Drop the references that nobody needs any more, and regions.
pub fn clean_up(vm: &Bound<'_, Space>, work: &Bound<'_, Work>) -> PyResult<()> {
    let py = vm.py();
    if !work.try_borrow()?.leaves() {
        return Ok(());
    }
    let entries = vm.getattr(intern!(py, "entries"))?;
    match entries.getattr(intern!(py, "core_table"))?.cast::<PageTable>() {
        Ok(table) => {
            let freed = PageTable::put_all(table, work)?;
            if !(freed.is_empty() && work.try_borrow()?.dropped.is_empty()) {
                entries.call_method1(intern!(py, "put_rest"), (freed, work))?;
            }
        }
        Err(_) => drop(entries.call_method1(intern!(py, "put"), (work,))?),
    }
    work.try_borrow_mut()?.finish(vm)
}

impl RawBind {
    /// Go on from one stage to the next; the space and the work.
    fn enter<'py>(
        slf: &Bound<'py, Self>,
        call: &str,
        (from, to): (u8, u8),
    ) -> PyResult<(Bound<'py, Space>, Bound<'py, Work>)> {
        let py = slf.py();
        if slf.borrow().stage != from {
            let message = slf.call_method1(intern!(py, "_out_of_order"), (call, from))?;
            return Err(PyErr::from_value(message));
        }
        let mut bind = slf.borrow_mut();
        bind.stage = to;
        Ok((bind.vm.bind(py).clone(), bind.work.bind(py).clone()))
    }

    /// Somebody may want to know whether the VM's lock is held.
    fn require_lock(slf: &Bound<'_, Self>) -> PyResult<()> {
        if watched() { slf.call_method0(intern!(slf.py(), "_require_lock")).map(drop) } else { Ok(()) }
    }
}

#[pymethods]
impl RawBind {
    #[new]
    #[pyo3(signature = (vm, ops, work, dropping))]
    fn new(vm: Py<Space>, ops: Py<BindOps>, work: Py<Work>, dropping: Py<PyList>) -> Self {
        RawBind { vm, ops, dropping, work, stage: PREPARED, gone: Vec::new() }
    }

    /// Give up the way back. Locking: as ``Uvmm.prepare``, held since then.
    ///
    /// Raises:
    ///     InvalidArgument: it was committed or aborted before.
    fn commit(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::require_lock(slf)?;
        let (vm, work) = Self::enter(slf, "commit", (PREPARED, COMMITTED))?;
        let count = slf.borrow().ops.borrow(slf.py()).requests.len();
        let gone = commit(&vm, &work, count)?;
        slf.borrow_mut().gone = gone;
        Ok(())
    }

    /// Write the page-table entries. Cannot fail.
    ///
    /// Allocates nothing and takes no lock but the backend's mapping lock and those of ``Uvmm.flush``, so it may run
    /// in a fence-signalling section. Cost: O(entries).
    ///
    /// Raises:
    ///     InvalidArgument: it was not committed, or has run.
    ///
    /// Source: ``nouveau_uvmm_bind_job_run``.
    fn run(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (vm, work) = Self::enter(slf, "run", (COMMITTED, RUN))?;
        let some_are_gone = !slf.borrow().gone.is_empty();
        run(&vm, &work, some_are_gone)
    }

    /// Drop the references of what went, its regions and its objects. Cannot fail.
    ///
    /// Locking: the VM's lock, and no more; not in a fence-signalling section.
    ///
    /// Raises:
    ///     InvalidArgument: it has not run, or was cleaned up before.
    ///
    /// Source: ``nouveau_uvmm_bind_job_cleanup``.
    fn cleanup(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        Self::require_lock(slf)?;
        let (vm, work) = Self::enter(slf, "cleanup", (RUN, CLEANED_UP))?;
        clean_up(&vm, &work)?;
        if !slf.borrow().dropping.bind(py).is_empty() {
            vm.getattr(intern!(py, "_droppers"))?.cast::<PyDict>()?.del_item(slf)?;
        }
        vm.getattr(intern!(py, "pending"))?.cast::<PyDict>()?.del_item(slf)?;
        let _gone = std::mem::take(&mut slf.borrow_mut().gone);
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.vm)?;
        self.gone.iter().try_for_each(|obj| visit.call(obj))
    }

    fn __clear__(&mut self) {
        self.gone.clear();
    }
}
