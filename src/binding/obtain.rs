//! VmBos by object: create, find, obtain; and by list.

use pyo3::prelude::*;

use super::errors::{Class, error};
use super::space::{Space, UNKNOWN};
use super::vm_bo::VmBo;
use crate::object::{List, Objects};
use crate::tree::NONE;

pub fn create(slf: &Bound<'_, Space>, obj: &Bound<'_, PyAny>) -> PyResult<VmBo> {
    require_object(obj)?;
    drop(Space::writing(slf)?);
    Ok(VmBo { vm: slf.clone().unbind(), obj: obj.clone().unbind(), object: NONE, floating: 1, zombie: false })
}

pub fn find(slf: &Bound<'_, Space>, obj: &Bound<'_, PyAny>) -> PyResult<Option<Py<VmBo>>> {
    let mut space = Space::writing(slf)?;
    let record = space.record_of(obj);
    if record >= UNKNOWN || space.core.objects.get(record).refs == 0 {
        return Ok(None);
    }
    let vm_bo = space.vm_bo(slf, record)?;
    space.core.objects.take(record);
    Ok(Some(vm_bo))
}

pub fn obtain(slf: &Bound<'_, Space>, obj: &Bound<'_, PyAny>) -> PyResult<Py<VmBo>> {
    require_object(obj)?;
    let mut space = Space::writing(slf)?;
    let known = space.record_of(obj);
    if known == UNKNOWN || space.core.objects.get(known).refs == 0 {
        space.reserve(slf.py(), 0, 1)?;
    }
    let record = space.intern(obj);
    space.core.objects.take(record);
    space.vm_bo(slf, record)
}

pub fn obtain_prealloc(slf: &Bound<'_, Space>, vm_bo: &Bound<'_, VmBo>) -> PyResult<Py<VmBo>> {
    let py = slf.py();
    let inner = vm_bo.borrow();
    if inner.floating != 1 || !inner.vm.is(slf) {
        let message = "bo_obtain_prealloc: needs a VmBo of this space from bo_create, with its one reference";
        return Err(error(py, Class::InvalidArgument, message));
    }
    let object = inner.obj.clone_ref(py);
    drop(inner);
    if let Some(twin) = find(slf, object.bind(py))? {
        VmBo::put_floating(vm_bo);
        return Ok(twin);
    }
    let mut space = Space::writing(slf)?;
    space.reserve(py, 0, 1)?;
    let record = space.intern(object.bind(py));
    space.core.objects.take(record);
    space.core.objects.get_mut(record).has_vm_bo = true;
    space.vm_bos[record as usize] = Some(vm_bo.clone().unbind());
    let mut inner = vm_bo.borrow_mut();
    (inner.object, inner.floating) = (record, 0);
    Ok(vm_bo.clone().unbind())
}

fn require_object(obj: &Bound<'_, PyAny>) -> PyResult<()> {
    if obj.is_none() {
        return Err(error(obj.py(), Class::InvalidArgument, "None is not an object: it has no VmBo"));
    }
    Ok(())
}

/// The VmBos on a list, in order.
pub fn listed(slf: &Bound<'_, Space>, list: fn(&Objects) -> &List) -> PyResult<Vec<Py<VmBo>>> {
    let mut space = Space::writing(slf)?;
    let ids: Vec<u32> = list(&space.core.objects).iter().collect();
    ids.into_iter().map(|id| space.vm_bo(slf, id)).collect()
}

/// The first VmBo of a list behind place `after`, and its place.
pub fn next_listed(
    slf: &Bound<'_, Space>,
    after: u64,
    list: fn(&Objects) -> &List,
) -> PyResult<Option<(u64, Py<VmBo>)>> {
    let mut space = Space::writing(slf)?;
    let Some((place, id)) = list(&space.core.objects).next(after) else { return Ok(None) };
    Ok(Some((place, space.vm_bo(slf, id)?)))
}
