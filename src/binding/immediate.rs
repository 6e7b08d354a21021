//! Immediate mode: room for changes where nothing may be allocated, and vm_bos that ended where nothing may be freed.

use pyo3::prelude::*;

use super::errors::{Class, error, error_about, lockdep_error, out_of_memory};
use super::space::Space;
use super::vm_bo::VmBo;
use crate::ensure;
use crate::memory::forbidden;
use crate::object::End;
use crate::space::Room;
use crate::tree::NONE;

/// A vm_bo that ended where nothing may be freed.
pub struct Zombie {
    pub obj: Option<Py<PyAny>>,
    /// Its Python object, if it had one.
    pub vm_bo: Option<Py<VmBo>>,
}

impl Space {
    /// EINVAL if vm_bos are to end in a way that this space does not know.
    pub fn require_mode(&self, py: Python<'_>, what: &str, end: End) -> PyResult<()> {
        if end == End::Destroyed || self.immediate_mode {
            return Ok(());
        }
        let message = format!(
            "{what}: address space {:?} is without IMMEDIATE_MODE and frees at once; pass \
             flags=GpuVmFlags.IMMEDIATE_MODE, or use the call that is not deferred",
            self.name
        );
        Err(error(py, Class::InvalidArgument, message))
    }

    /// Let go of the deferred vm_bos and their objects; how many.
    pub fn drop_zombies(&mut self, py: Python<'_>) -> usize {
        let count = std::mem::take(&mut self.core.objects.zombies);
        for zombie in self.zombies.drain(..) {
            if let Some(vm_bo) = &zombie.vm_bo {
                vm_bo.borrow_mut(py).zombie = false;
            }
            self.dropped.extend(zombie.obj);
            self.dropped.extend(zombie.vm_bo.map(Py::into_any));
        }
        count
    }

    /// Zombies are as many as counted, and the room for them is there.
    pub fn check_zombies(&self) -> Result<(), String> {
        let (counted, room) = (self.core.objects.zombies, self.core.objects.zombie_room);
        ensure!(counted == self.zombies.len(), "{} deferred vm_bos, {counted} counted", self.zombies.len());
        ensure!(
            counted == 0 || self.immediate_mode,
            "{counted} deferred vm_bos in a space that defers nothing"
        );
        ensure!(room <= self.zombies.capacity(), "room for {room} deferred vm_bos is not there");
        Ok(())
    }
}

pub fn preallocate(slf: &Bound<'_, Space>, changes: i64, objects: i64) -> PyResult<()> {
    let py = slf.py();
    let room = room(py, "preallocate", changes, objects)?;
    require_memory(py, "preallocate", "allocates")?;
    let mut space = Space::writing(slf)?;
    let before = space.core.promised();
    let promised = space.core.promise(room).and_then(|()| {
        let promised = space.core.promised().changes;
        space.reserve_beside(0).and_then(|()| space.scratch.promise(promised))
    });
    promised.map_err(|refused| {
        if space.core.promised() != before {
            space.core.release_promise(room);
        }
        out_of_memory(py, refused)
    })
}

pub fn release_preallocated(slf: &Bound<'_, Space>, changes: i64, objects: i64) -> PyResult<()> {
    let py = slf.py();
    let room = room(py, "release_preallocated", changes, objects)?;
    let mut space = Space::writing(slf)?;
    let promised = space.core.promised();
    if space.core.release_promise(room) {
        return Ok(());
    }
    let message = format!(
        "release_preallocated: {changes} changes and {objects} objects are more than the {} and {} that are \
         preallocated; release once what preallocate promised",
        promised.changes, promised.objects
    );
    let bound = (promised.changes as u64, promised.objects as u64);
    Err(error_about(py, Class::InvalidArgument, message, (room.changes as u64, room.objects as u64), bound))
}

fn room(py: Python<'_>, what: &str, changes: i64, objects: i64) -> PyResult<Room> {
    match (usize::try_from(changes), usize::try_from(objects)) {
        (Ok(changes), Ok(objects)) => Ok(Room { changes, objects }),
        _ => {
            let message = format!("{what}: {changes} changes and {objects} objects; neither can be below 0");
            Err(error_about(py, Class::InvalidArgument, message, changes.min(objects), 0_u64))
        }
    }
}

/// An error inside a section that must not allocate.
fn require_memory(py: Python<'_>, what: &str, does: &str) -> PyResult<()> {
    if !forbidden() {
        return Ok(());
    }
    let message = format!(
        "{what} in a fence-signalling section: it {does}; call it before publishing the fence, or after"
    );
    Err(lockdep_error(py, message))
}

/// Let go of the vm_bos that were deferred; how many.
pub fn cleanup(slf: &Bound<'_, Space>) -> PyResult<usize> {
    require_memory(slf.py(), "bo_deferred_cleanup", "frees objects, which may sleep")?;
    Space::changing(slf, |space, py| Ok(space.drop_zombies(py)))
}

/// The vm_bos that wait for `cleanup`, oldest first.
pub fn deferred(slf: &Bound<'_, Space>) -> PyResult<Vec<Py<VmBo>>> {
    let py = slf.py();
    let mut space = Space::writing(slf)?;
    let vm_bo = |zombie: &mut Zombie| {
        if zombie.vm_bo.is_none() {
            let obj = zombie.obj.as_ref().map_or_else(|| py.None(), |obj| obj.clone_ref(py));
            let vm_bo = VmBo { zombie: true, ..VmBo::obtained(slf.clone().unbind(), obj, NONE) };
            zombie.vm_bo = Some(Py::new(py, vm_bo)?);
        }
        Ok(zombie.vm_bo.as_ref().map(|vm_bo| vm_bo.clone_ref(py)))
    };
    space.zombies.iter_mut().filter_map(|zombie| vm_bo(zombie).transpose()).collect()
}
