//! `Gpuva`: the Python face of one mapping.

use pyo3::gc::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use super::errors::{Class, Flags, U64, error};
use super::pages::{PagesRow, row};
use super::space::Space;
use super::vm_bo::VmBo;
use crate::object::End;
use crate::space::{IN_TREE, INVALIDATED, KERNEL, LINKED, SPARSE, USER_FLAGS};
use crate::tree::NONE;

/// One mapping `[addr, addr + range)` of a GPU address space (the kernel's ``struct drm_gpuva``).
///
/// Outside an address space it is a plain record: made by a driver ahead of time, or left over after a mapping
/// went. While it is in one, ``find`` and the others answer with this very object, so a subclass may carry a
/// driver's own data. Addresses, lengths and offsets are bytes.
#[pyclass(subclass, weakref, module = "gpuvm._core")]
pub struct Gpuva {
    pub vm: Option<Py<Space>>,
    /// Slot in the space, NONE outside.
    pub slot: u32,
    /// Valid outside a space; inside, the slot's are.
    pub own_flags: u32,
    /// First byte of the range.
    #[pyo3(get)]
    pub addr: u64,
    /// Length in bytes.
    #[pyo3(get)]
    pub range: u64,
    /// Offset into the object of what is mapped at `addr`, in bytes.
    #[pyo3(get)]
    pub offset: u64,
    /// The mapped object, None for a sparse or reserved range.
    #[pyo3(get)]
    pub obj: Option<Py<PyAny>>,
}

impl Gpuva {
    /// The space and slot while the mapping is in a tree or a list.
    pub fn place(&self, py: Python<'_>) -> Option<(Py<Space>, u32)> {
        self.vm.as_ref().filter(|_| self.slot != NONE).map(|vm| (vm.clone_ref(py), self.slot))
    }

    /// `va` as an object of a subclass that has no constructor of its own: no Python code runs.
    pub fn of_class(class: &Bound<'_, PyType>, va: Gpuva) -> PyResult<Py<Gpuva>> {
        let made = class.call0()?.cast_into::<Gpuva>()?;
        *made.try_borrow_mut()? = va;
        Ok(made.unbind())
    }

    /// Unlink the mapping; `end` is what becomes of its vm_bo if that was the last reference.
    fn take_off(slf: &Bound<'_, Self>, what: &str, end: End) -> PyResult<()> {
        let place = slf.borrow().place(slf.py());
        let Some((vm, slot)) = place else { return Ok(()) };
        Space::changing(vm.bind(slf.py()), |space, py| {
            space.require_idle(py, what)?;
            space.require_mode(py, what, end)?;
            let flags = space.core.slot(slot).flags;
            if flags & LINKED == 0 {
                return Ok(());
            }
            space.core.unlink(slot, end);
            space.core.generation += 1;
            if flags & IN_TREE == 0 {
                space.core.release(slot);
            }
            Ok(())
        })
    }

    fn state(&self, py: Python<'_>) -> PyResult<u32> {
        match self.place(py) {
            Some((vm, slot)) => Ok(Space::reading(vm.bind(py))?.core.slot(slot).flags),
            None => Ok(self.own_flags),
        }
    }
}

#[pymethods]
impl Gpuva {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Gpuva { vm: None, slot: NONE, own_flags: 0, addr: 0, range: 0, offset: 0, obj: None }
    }

    /// A mapping to be inserted, or an empty one for a driver's step to fill. EINVAL: flags of 2**28 or more.
    #[pyo3(signature = (addr = U64(0), range = U64(0), obj = None, offset = U64(0), flags = Flags(0)))]
    fn __init__(
        slf: &Bound<'_, Self>,
        addr: U64,
        range: U64,
        obj: Option<Py<PyAny>>,
        offset: U64,
        flags: Flags,
    ) -> PyResult<()> {
        let mut va = slf.try_borrow_mut()?;
        if va.slot != NONE {
            return Err(error(slf.py(), Class::Busy, "a mapping in an address space cannot be made anew"));
        }
        (va.addr, va.range, va.offset, va.own_flags) = (addr.0, range.0, offset.0, flags.0);
        let old = std::mem::replace(&mut va.obj, obj);
        drop(va);
        drop(old);
        Ok(())
    }

    /// First byte behind the range.
    #[getter]
    fn end(&self) -> u64 {
        self.addr.wrapping_add(self.range)
    }

    /// `GpuvaFlags` of the mapping and, from USERBITS on, the driver's own bits; 28 in all.
    ///
    /// Setting them makes plans stale, all if more than INVALIDATED changes, and is EBUSY while a plan is stepped.
    /// Locking: the VM's lock for writing; for INVALIDATED alone see `invalidated`.
    #[getter]
    fn flags(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.state(py)? & USER_FLAGS)
    }

    #[setter]
    fn set_flags(slf: &Bound<'_, Self>, flags: Flags) -> PyResult<()> {
        let place = slf.borrow().place(slf.py());
        match place {
            Some((vm, slot)) => {
                let mut space = Space::writing(vm.bind(slf.py()))?;
                let old = space.core.slot(slot).flags;
                space.require_settable(slf.py(), slot, (old ^ flags.0) & USER_FLAGS)?;
                if old & KERNEL != 0 {
                    let message = "the kernel's node has no flags to set";
                    return Err(error(slf.py(), Class::InvalidArgument, message));
                }
                space.core.set_flags(slot, flags.0);
            }
            None => slf.try_borrow_mut()?.own_flags = flags.0,
        }
        Ok(())
    }

    /// True when the page-table entries are gone because the object was evicted (`drm_gpuva_invalidate`).
    ///
    /// Locking: the object's reservation, or its GPUVA lock under IMMEDIATE_MODE. Setting it makes only those plans
    /// stale that cut the mapping, take it in or compared it in order to merge. EBUSY: a step that runs does one of
    /// these, or made the mapping; who shares a lock with that step does not meet it.
    #[getter]
    fn invalidated(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.state(py)? & INVALIDATED != 0)
    }

    #[setter]
    fn set_invalidated(slf: &Bound<'_, Self>, invalidated: bool) -> PyResult<()> {
        let flags = slf.borrow().flags(slf.py())?;
        let flags = if invalidated { flags | INVALIDATED } else { flags & !INVALIDATED };
        Self::set_flags(slf, Flags(flags))
    }

    /// True for a mapping flagged SPARSE.
    #[getter]
    fn sparse(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.state(py)? & SPARSE != 0)
    }

    /// True for the kernel's reserved node.
    #[getter]
    fn kernel(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.slot != NONE && self.state(py)? & KERNEL != 0)
    }

    /// The address space whose tree holds the mapping, or None.
    #[getter]
    fn vm(&self, py: Python<'_>) -> PyResult<Option<Py<Space>>> {
        let in_tree = self.slot != NONE && self.state(py)? & IN_TREE != 0;
        Ok(self.place(py).filter(|_| in_tree).map(|(vm, _)| vm))
    }

    /// The `VmBo` that the mapping is linked to, or None.
    #[getter]
    fn vm_bo(&self, py: Python<'_>) -> PyResult<Option<Py<VmBo>>> {
        let Some((vm, slot)) = self.place(py) else { return Ok(None) };
        let mut space = Space::writing(vm.bind(py))?;
        let place = space.core.slot(slot);
        let (object, linked) = (place.object, place.flags & LINKED != 0);
        if linked { space.vm_bo(vm.bind(py), object).map(Some) } else { Ok(None) }
    }

    /// The pages that it references: address, range, shift, aperture, physical address.
    fn _pages(&self, py: Python<'_>) -> PyResult<Vec<PagesRow>> {
        let Some((vm, slot)) = self.place(py) else { return Ok(Vec::new()) };
        let pages = Space::reading(vm.bind(py))?.pages_of(slot).to_vec();
        Ok(pages.iter().map(row).collect())
    }

    /// Append the mapping to `vm_bo`'s list and take a reference of it (`drm_gpuva_link`).
    ///
    /// Does nothing for a mapping without object, as the kernel does. Locking: the object's GPUVA lock, and the VM's
    /// lock. EINVAL: the mapping is not in a space, or `vm_bo` is of another space or object. EEXIST: linked already.
    /// EBUSY: a plan is stepped, which may have to restore the list as it was.
    fn link(slf: &Bound<'_, Self>, vm_bo: &Bound<'_, VmBo>) -> PyResult<()> {
        let py = slf.py();
        let place = slf.borrow().place(py);
        let Some((vm, slot)) = place else {
            return Err(error(
                py,
                Class::InvalidArgument,
                "link: the mapping is in no address space; insert it first",
            ));
        };
        let mut space = Space::writing(vm.bind(py))?;
        space.require_idle(py, "link")?;
        let place = *space.core.slot(slot);
        if place.object == NONE {
            return Ok(());
        }
        if place.flags & LINKED != 0 {
            return Err(error(
                py,
                Class::AlreadyMapped,
                "link: the mapping is linked already; unlink it first",
            ));
        }
        let vm_bo = vm_bo.borrow();
        if vm_bo.object != place.object || !vm_bo.vm.is(&vm) {
            let message = "link: the vm_bo is dead, floating, or belongs to another object or address space; \
                           take the one that bo_obtain gives for the mapping's object";
            return Err(error(py, Class::InvalidArgument, message));
        }
        space.core.link(slot);
        space.core.generation += 1;
        Ok(())
    }

    /// Take the mapping off its `VmBo`'s list and drop the reference (`drm_gpuva_unlink`).
    ///
    /// That may destroy the `VmBo`. Does nothing for a mapping that is not linked. Locking, EBUSY as `link`.
    fn unlink(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::take_off(slf, "unlink", End::Destroyed)
    }

    /// `unlink` where nothing may be freed (`drm_gpuva_unlink_defer`): as `VmBo.put_deferred` with the reference.
    ///
    /// EINVAL: the space is without IMMEDIATE_MODE. Locking, EBUSY as `link`.
    fn unlink_defer(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::take_off(slf, "unlink_defer", End::Deferred)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let py = slf.py();
        let class = slf.get_type().name()?;
        let va = slf.borrow();
        let (addr, end, offset, flags, kernel) =
            (va.addr, va.end(), va.offset, va.flags(py)?, va.kernel(py)?);
        let object = va.obj.as_ref().map(|object| object.bind(py).clone());
        // The object's own repr may do anything, so nothing is borrowed while it runs.
        drop(va);
        let object = match object {
            Some(object) => format!("{} offset {offset:#x}", object.repr()?),
            None if kernel => "kernel reserved".to_owned(),
            None => "no object".to_owned(),
        };
        let flags = if flags == 0 { String::new() } else { format!(" flags {flags:#x}") };
        Ok(format!("<{class} [{addr:#x}, {end:#x}) {object}{flags}>"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.vm)?;
        visit.call(&self.obj)
    }

    fn __clear__(&mut self) {
        self.vm = None;
        self.slot = NONE;
        self.obj = None;
    }
}
