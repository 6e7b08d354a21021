//! Memory before changes: the core's, and that of the arrays of Python objects beside it.

use pyo3::prelude::*;

use super::errors::out_of_memory;
use super::immediate::Zombie;
use super::space::{Space, UNKNOWN};
use crate::memory::{Refused, armed, forbidden, reserve};
use crate::space::Room;

impl Space {
    /// Make sure that `changes` changes which name `objects` unknown objects can be applied.
    pub fn reserve(&mut self, py: Python<'_>, changes: usize, objects: usize) -> PyResult<()> {
        self.core
            .reserve(changes, objects)
            .and_then(|()| self.reserve_beside(objects))
            .map_err(|refused| out_of_memory(py, refused))
    }

    /// Make the arrays beside the core's as large as those, before changes that name `objects` unknown objects.
    #[inline]
    pub fn reserve_beside(&mut self, objects: usize) -> Result<(), Refused> {
        let plain = !self.immediate_mode && self.core.promised() == Room::default();
        if plain && self.beside == self.core.objects.capacity() && !armed() || forbidden() {
            return Ok(());
        }
        self.grow_beside(objects)
    }

    #[cold]
    fn grow_beside(&mut self, objects: usize) -> Result<(), Refused> {
        let records = self.core.objects.capacity();
        let room = records - self.objects.len();
        reserve(&mut self.objects, room)?;
        let room = records - self.vm_bos.len();
        reserve(&mut self.vm_bos, room)?;
        self.beside = records;
        let room = self.core.zombies_wanted(objects).saturating_sub(self.zombies.len());
        reserve(&mut self.zombies, room)?;
        self.core.objects.zombie_room = self.zombies.capacity();
        if self.core.promised() == Room::default() {
            return Ok(());
        }
        let room = self.core.slots.capacity() - self.handles.len();
        reserve(&mut self.handles, room)
    }

    /// Memory of the arrays beside the core's.
    pub fn bytes_beside(&self) -> usize {
        let pointers = self.handles.capacity() + self.objects.capacity() + self.vm_bos.capacity();
        pointers * size_of::<Option<Py<PyAny>>>()
            + self.zombies.capacity() * size_of::<Zombie>()
            + self.scratch.bytes()
            + self.paging_bytes()
    }

    /// Objects to reserve for, of `object` alone: 1, unless the space knows it and memory is so short that this counts.
    #[inline]
    pub fn unknown(&self, object: &Bound<'_, PyAny>) -> usize {
        usize::from(!forbidden() || self.record_of(object) == UNKNOWN)
    }

    /// Make room for the Python objects of all mappings and of `additional` more.
    pub fn reserve_handles(&mut self, py: Python<'_>, additional: usize) -> PyResult<()> {
        self.reserve_to_look(additional).map_err(|refused| out_of_memory(py, refused))
    }

    /// The same, so that looking at mappings takes no memory of the core.
    pub fn reserve_to_look(&mut self, additional: usize) -> Result<(), Refused> {
        let room = (self.core.slots.len() + additional).saturating_sub(self.handles.len());
        reserve(&mut self.handles, room)
    }
}
