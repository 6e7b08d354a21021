//! `VmBo`: the pair of an address space and an object mapped in it.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use super::errors::{Class, error};
use super::gpuva::Gpuva;
use super::space::{Busy, Space};
use crate::object::{End, Objects};
use crate::tree::{Entry, NONE};

/// The pair of an address space and an object (the kernel's ``struct drm_gpuvm_bo``).
///
/// There is one for each pair. It counts references: one for each ``bo_obtain``, ``bo_find`` or ``get``, and one
/// for each linked mapping. The last ``put`` destroys it and takes it off the lists it is on. Under IMMEDIATE_MODE,
/// the end of its last mapping only makes it a zombie, until ``bo_deferred_cleanup``.
#[pyclass(weakref, module = "gpuvm._core")]
pub struct VmBo {
    /// Its address space.
    #[pyo3(get)]
    pub vm: Py<Space>,
    /// Its object.
    #[pyo3(get)]
    pub obj: Py<PyAny>,
    /// Record in the space; NONE while floating and when dead.
    pub object: u32,
    /// References of a floating one, which no list knows yet.
    pub floating: u32,
    /// Dead, and kept by the space until its references to space and object may be dropped.
    pub zombie: bool,
}

impl VmBo {
    pub fn obtained(vm: Py<Space>, obj: Py<PyAny>, object: u32) -> Self {
        VmBo { vm, obj, object, floating: 0, zombie: false }
    }

    fn dead(py: Python<'_>) -> PyErr {
        error(py, Class::InvalidArgument, "this VmBo ended with its last put; obtain a new one")
    }

    /// The space and record of a live, obtained one.
    pub fn record(slf: &Bound<'_, Self>, what: &str) -> PyResult<(Py<Space>, u32)> {
        let this = slf.borrow();
        if this.object != NONE {
            return Ok((this.vm.clone_ref(slf.py()), this.object));
        }
        if this.floating == 0 {
            return Err(Self::dead(slf.py()));
        }
        let message =
            format!("{what}: this VmBo came from bo_create and is on no list; pass it to bo_obtain_prealloc");
        Err(error(slf.py(), Class::InvalidArgument, message))
    }

    /// What `look` sees of the record of an obtained one, else `nothing`.
    fn look<R>(&self, py: Python<'_>, nothing: R, look: impl FnOnce(&Objects, u32) -> R) -> PyResult<R> {
        if self.object == NONE {
            return Ok(nothing);
        }
        Ok(look(&Space::reading(self.vm.bind(py))?.core.objects, self.object))
    }

    /// Change the lists that it is on. They have locks of their own, so a plan may be stepped meanwhile.
    fn list(slf: &Bound<'_, Self>, what: &str, change: impl FnOnce(&mut Objects, u32)) -> PyResult<()> {
        let (vm, object) = Self::record(slf, what)?;
        change(&mut Space::writing(vm.bind(slf.py()))?.core.objects, object);
        Ok(())
    }

    /// Drop one reference of an obtained one; true if it was the last.
    fn put_obtained(slf: &Bound<'_, Self>, what: &str, end: End) -> PyResult<bool> {
        let (vm, object) = Self::record(slf, what)?;
        Space::changing(vm.bind(slf.py()), |space, py| {
            if !matches!(space.busy, Some(Busy::Step(_))) {
                space.require_idle(py, what)?;
            }
            space.require_mode(py, what, end)?;
            let of_mappings = space.references_of_step(py, object);
            let record = space.core.objects.get_mut(object);
            if record.refs == record.linked + of_mappings {
                let message = format!(
                    "{what}: all {} references belong to linked mappings; unlink these, or drop fewer references",
                    record.refs
                );
                return Err(error(py, Class::Busy, message));
            }
            record.was_put = true;
            let last = space.core.objects.put(object, end);
            space.core.objects.settle(object);
            Ok(last)
        })
    }

    /// Drop one reference of a floating one; true if it was the last.
    pub fn put_floating(slf: &Bound<'_, Self>) -> bool {
        let mut this = slf.borrow_mut();
        this.floating -= 1;
        this.floating == 0
    }
}

#[pymethods]
impl VmBo {
    /// False once the last reference was put.
    #[getter]
    fn alive(&self) -> bool {
        self.object != NONE || self.floating > 0
    }

    /// Number of references, linked mappings included.
    #[getter]
    fn refcount(&self, py: Python<'_>) -> PyResult<u32> {
        self.look(py, self.floating, |objects, object| objects.get(object).refs)
    }

    /// Take a reference (`drm_gpuvm_bo_get`).
    fn get(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        let (object, floating) = (slf.borrow().object, slf.borrow().floating);
        if object != NONE {
            let vm = slf.borrow().vm.clone_ref(slf.py());
            Space::writing(vm.bind(slf.py()))?.core.objects.take(object);
        } else if floating > 0 {
            slf.borrow_mut().floating += 1;
        } else {
            return Err(Self::dead(slf.py()));
        }
        Ok(slf)
    }

    /// Drop a reference (`drm_gpuvm_bo_put`); True if that was the last and destroyed it.
    ///
    /// Locking: the object's GPUVA lock; the VM's reservation too if RESV_PROTECTED. EINVAL: destroyed already.
    /// EBUSY: the only references left are those of linked mappings, which `Gpuva.unlink` drops; or an array is bound
    /// under a merge veto. Another thread may step a plan meanwhile: what that took away keeps its reference till the end.
    fn put(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let floating = slf.borrow().floating > 0;
        if floating { Ok(Self::put_floating(slf)) } else { Self::put_obtained(slf, "put", End::Destroyed) }
    }

    /// Drop a reference where nothing may be freed (`drm_gpuvm_bo_put_deferred`); True if that was the last.
    ///
    /// Then it is a zombie: on no list, not found any more, and the object's next VmBo is another one. It keeps the
    /// object and the space until `bo_deferred_cleanup`. Takes no memory. Locking: the object's GPUVA lock. EINVAL: the
    /// space is without IMMEDIATE_MODE. EBUSY as `put`.
    fn put_deferred(slf: &Bound<'_, Self>) -> PyResult<bool> {
        Self::put_obtained(slf, "put_deferred", End::Deferred)
    }

    /// True from the last `put_deferred` or deferred unlink until `bo_deferred_cleanup`.
    #[getter]
    fn zombie(&self) -> bool {
        self.zombie
    }

    /// True while the object is out of the GPU's reach.
    #[getter]
    fn evicted(&self, py: Python<'_>) -> PyResult<bool> {
        self.look(py, false, |objects, object| objects.get(object).evicted)
    }

    /// True while it is on the space's list of evicted objects.
    #[getter]
    fn on_evicted(&self, py: Python<'_>) -> PyResult<bool> {
        self.look(py, false, |objects, object| objects.evicted.contains(object))
    }

    /// True while it is on the space's list of external objects.
    #[getter]
    fn on_extobjs(&self, py: Python<'_>) -> PyResult<bool> {
        self.look(py, false, |objects, object| objects.extobjs.contains(object))
    }

    /// Say whether the object is out of the GPU's reach; the list of evicted ones follows if it is to be `listed`.
    fn _set_evicted(slf: &Bound<'_, Self>, evicted: bool, listed: bool) -> PyResult<()> {
        Self::list(slf, "bo_evict", |objects, object| objects.set_evicted(object, evicted, listed))
    }

    /// Put it on the list of evicted objects if it is evicted and not there.
    fn _list_evicted(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::list(slf, "bo_evict", |objects, object| {
            let evicted = objects.get(object).evicted;
            objects.set_evicted(object, evicted, evicted);
        })
    }

    /// Take it off the list of evicted objects, whatever its flag says.
    fn _unlist_evicted(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::list(slf, "bo_evict", |objects, object| objects.evicted.remove(object))
    }

    /// Put it on the list of external objects, unless it is there.
    fn _extobj_add(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::list(slf, "bo_extobj_add", |objects, object| objects.extobjs.add(object))
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.look(py, 0, |objects, object| objects.get(object).linked as usize)
    }

    fn __bool__(&self) -> bool {
        true
    }

    /// The linked mappings in link order, as they are now (`drm_gpuvm_bo_for_each_va`).
    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, pyo3::types::PyIterator>> {
        let list = pyo3::types::PyList::empty(py);
        if self.object != NONE {
            let vm = self.vm.bind(py);
            let mut space = Space::writing(vm)?;
            let mut slot = space.core.objects.get(self.object).head;
            while slot != NONE {
                list.append(linked_mapping(&mut space, vm, slot)?)?;
                slot = space.core.slot(slot).next;
            }
        }
        list.as_any().try_iter()
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let py = slf.py();
        let this = slf.borrow();
        let (object, alive) = (this.obj.bind(py).clone(), this.alive());
        let (refcount, mappings) = (this.refcount(py)?, this.__len__(py)?);
        drop(this);
        let object = object.repr()?;
        if !alive {
            let state = if slf.borrow().zombie { "deferred" } else { "destroyed" };
            return Ok(format!("<VmBo {object} {state}>"));
        }
        Ok(format!("<VmBo {object} refcount {refcount} mappings {mappings}>"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.vm)?;
        visit.call(&self.obj)
    }
}

/// A linked mapping; one that has left the tree has its Python object already.
fn linked_mapping(space: &mut Space, vm: &Bound<'_, Space>, slot: u32) -> PyResult<Py<Gpuva>> {
    let addr = space.core.slot(slot).addr;
    let entry = space.core.tree.get(addr).filter(|entry| entry.slot == slot);
    space.handle(vm, &entry.unwrap_or(Entry { addr, range: 0, slot }))
}
