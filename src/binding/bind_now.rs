//! `bind_now`: a bind that nothing is before, from locking to its cleanup.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::bind_ops::BindOps;
use super::errors::{Class, is_a};
use super::page_table::PageTable;
use super::passes::{Attempt, Passes};
use super::raw_bind::{clean_up, commit, run};
use super::raw_exec::RawExec;
use super::raw_mutex::watched;
use super::space::Space;
use super::vm_bind::{prepare, rehearse, touched};
use super::work::Work;

/// Carry `ops` out, and then call `noted`; see ``Uvmm.bind_now``.
///
/// The steps are those of ``Uvmm.lock_for``, ``Uvmm.prepare``, and of ``Bind``.
pub fn bind_now<'py>(
    vm: &Bound<'py, Space>,
    exec: &Bound<'py, RawExec>,
    ops: &Bound<'py, BindOps>,
    noted: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = vm.py();
    RawExec::__enter__(exec)?;
    let result = lock(vm, exec, ops).and_then(|()| carry_out(vm, ops, noted, args));
    let failure = match &result {
        Ok(_) => py.None().into_bound(py),
        Err(failure) => failure.value(py).clone().into_any(),
    };
    RawExec::__exit__(exec, failure.get_type().as_any(), &failure, &failure)?;
    result
}

/// The loop that locks.
fn lock(vm: &Bound<'_, Space>, exec: &Bound<'_, RawExec>, ops: &Bound<'_, BindOps>) -> PyResult<()> {
    let py = vm.py();
    let passes = Bound::new(py, Passes::of(exec.clone().unbind()))?;
    while let Some(attempt) = Passes::__next__(&passes)? {
        Attempt::__enter__(&attempt)?;
        let result = lock_once(vm, exec, ops);
        let failure = match &result {
            Ok(()) => py.None().into_bound(py),
            Err(failure) => failure.value(py).clone().into_any(),
        };
        if !Attempt::__exit__(&attempt, failure.get_type().as_any(), &failure, &failure)? {
            result?;
        }
    }
    Ok(())
}

fn lock_once(vm: &Bound<'_, Space>, exec: &Bound<'_, RawExec>, ops: &Bound<'_, BindOps>) -> PyResult<()> {
    let py = vm.py();
    let (objs, _) = touched(vm, &mut *ops.try_borrow_mut()?)?;
    RawExec::lock_obj(exec, vm.getattr(intern!(py, "resv_obj"))?)?;
    for obj in objs {
        RawExec::lock_obj(exec, obj.into_bound(py))?;
    }
    let objects = ops.try_borrow()?.objects(py).into_pyobject(py)?;
    let brought = bring_in(vm, exec, &objects);
    if brought
        .as_ref()
        .is_err_and(|failure| is_a(py, failure, Class::OutOfMemory) || is_a(py, failure, Class::NoSpace))
    {
        // What else is wrong with them comes first.
        rehearse(vm, &mut *ops.try_borrow_mut()?)?;
    }
    brought
}

/// Mostly all objects are where they should be, and only their use is noted.
fn bring_in(vm: &Bound<'_, Space>, exec: &Bound<'_, RawExec>, objects: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = vm.py();
    if objects.is_empty()? {
        return Ok(());
    }
    let device = vm.getattr(intern!(py, "device"))?;
    let all_are_in = !Space::reading(vm)?.has_evicted();
    if all_are_in && device.call_method1(intern!(py, "use_in_place"), (objects,))?.is_truthy()? {
        return Ok(());
    }
    vm.call_method1(intern!(py, "_bring_in"), (exec, objects)).map(drop)
}

fn carry_out<'py>(
    vm: &Bound<'py, Space>,
    ops: &Bound<'py, BindOps>,
    noted: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = vm.py();
    let work = Bound::new(py, prepare(vm, &mut *ops.try_borrow_mut()?)?)?;
    let entries = vm.getattr(intern!(py, "entries"))?;
    if let Err(failure) = take(&entries, &work) {
        work.try_borrow_mut()?.roll_back(vm)?;
        return Err(failure);
    }
    let note = match noted.call1(args) {
        Ok(note) => note,
        Err(failure) => {
            entries.call_method1(intern!(py, "give_back"), (&work,))?;
            work.try_borrow_mut()?.roll_back(vm)?;
            return Err(failure);
        }
    };
    let gone = commit(vm, &work, ops.try_borrow()?.requests.len())?;
    if watched() {
        // Somebody may want to see that nothing there waits for what waits for this.
        let section = vm.getattr(intern!(py, "_fence_signalling"))?.call0()?;
        section.call_method0(intern!(py, "__enter__"))?;
        run(vm, &work, !gone.is_empty())?;
        let none = py.None();
        section.call_method1(intern!(py, "__exit__"), (&none, &none, &none))?;
    } else {
        run(vm, &work, !gone.is_empty())?;
    }
    clean_up(vm, &work)?;
    Ok(note)
}

/// Take the references that are needed; mostly all tables are there.
fn take(entries: &Bound<'_, PyAny>, work: &Bound<'_, Work>) -> PyResult<()> {
    let py = entries.py();
    if !work.try_borrow()?.takes() {
        return Ok(());
    }
    let table = entries.getattr(intern!(py, "core_table"))?;
    if let Ok(table) = table.cast::<PageTable>()
        && work.try_borrow()?.sparse.is_empty()
        && PageTable::get_all(table, work).is_ok()
        && work.try_borrow()?.next_get().is_none()
    {
        return Ok(());
    }
    entries.call_method1(intern!(py, "take"), (work,)).map(drop)
}
