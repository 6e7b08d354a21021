//! `VmBo`: the pair of an address space and an object mapped in it.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use super::errors::{Class, error};
use super::gpuva::Gpuva;
use super::space::Space;
use crate::tree::{Entry, NONE};

/// The pair of an address space and an object (the kernel's ``struct drm_gpuvm_bo``).
///
/// There is one for each pair. It counts references: one for each ``bo_obtain``, ``bo_find`` or ``get``, and one
/// for each linked mapping. The last ``put`` destroys it and takes it off the lists it is on.
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
}

impl VmBo {
    fn dead(py: Python<'_>) -> PyErr {
        error(py, Class::InvalidArgument, "this VmBo was destroyed by its last put; obtain a new one")
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
        if self.object == NONE {
            return Ok(self.floating);
        }
        Ok(Space::reading(self.vm.bind(py))?.core.objects.get(self.object).refs)
    }

    /// Take a reference (`drm_gpuvm_bo_get`).
    fn get(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        let (object, floating) = (slf.borrow().object, slf.borrow().floating);
        if object != NONE {
            let vm = slf.borrow().vm.clone_ref(slf.py());
            Space::writing(vm.bind(slf.py()))?.core.objects.get_mut(object).refs += 1;
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
    /// EBUSY: the only references left are those of linked mappings, which `Gpuva.unlink` drops.
    fn put(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let py = slf.py();
        let (object, floating) = (slf.borrow().object, slf.borrow().floating);
        if object == NONE {
            return if floating > 0 { Ok(Self::put_floating(slf)) } else { Err(Self::dead(py)) };
        }
        let vm = slf.borrow().vm.clone_ref(py);
        Space::changing(vm.bind(py), |space, py| {
            space.require_idle(py, "VmBo.put")?;
            let record = space.core.objects.get(object);
            if record.refs == record.linked {
                let message = format!(
                    "put: all {} references belong to linked mappings; unlink these, or drop fewer references",
                    record.refs
                );
                return Err(error(py, Class::Busy, message));
            }
            let destroyed = space.core.objects.put(object);
            space.core.objects.settle(object);
            Ok(destroyed)
        })
    }

    /// The object was moved out of the GPU's reach, or back (`drm_gpuvm_bo_evict`).
    ///
    /// An evicted one goes on the VM's eviction list; an external one under RESV_PROTECTED only gets the flag,
    /// since who evicts it does not hold the VM's reservation.
    #[pyo3(signature = (evict))]
    fn evict(slf: &Bound<'_, Self>, evict: bool) -> PyResult<()> {
        let (vm, object) = Self::record(slf, "evict")?;
        let mut space = Space::writing(vm.bind(slf.py()))?;
        space.require_idle(slf.py(), "VmBo.evict")?;
        let external = space.core.objects.get(object).extobj != 0;
        let listed = !(external && space.resv_protected);
        space.core.objects.set_evicted(object, evict, listed);
        Ok(())
    }

    /// True while the object is out of the GPU's reach.
    #[getter]
    fn evicted(&self, py: Python<'_>) -> PyResult<bool> {
        if self.object == NONE {
            return Ok(false);
        }
        Ok(Space::reading(self.vm.bind(py))?.core.objects.get(self.object).evicted)
    }

    /// Put it on the VM's list of external objects, unless it is there (`drm_gpuvm_bo_extobj_add`).
    fn extobj_add(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (vm, object) = Self::record(slf, "extobj_add")?;
        let mut space = Space::writing(vm.bind(slf.py()))?;
        space.require_idle(slf.py(), "VmBo.extobj_add")?;
        space.core.objects.add_extobj(object);
        Ok(())
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        if self.object == NONE {
            return Ok(0);
        }
        Ok(Space::reading(self.vm.bind(py))?.core.objects.get(self.object).linked as usize)
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
            return Ok(format!("<VmBo {object} destroyed>"));
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
