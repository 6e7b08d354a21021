//! Spaces whose mappings have pages.

use pyo3::prelude::*;
use pyo3::types::PyType;

use super::errors::{Class, error};
use super::space::Space;
use crate::memory::Refused;
use crate::pages::Pages;
use crate::paging::Paging;

impl Space {
    /// From here on mappings have pages, and `handle_class` is what stands for them. Who looks at a mapping where
    /// nothing may be allocated, because of a fault perhaps, finds room for that.
    pub fn open_paging(&mut self, paging: Paging, handle_class: Py<PyType>) -> Result<(), Refused> {
        self.reserve_to_look(0)?;
        self.paging = Some(Box::new(paging));
        self.handle_class = Some(handle_class);
        Ok(())
    }

    pub fn paging(&self, py: Python<'_>) -> PyResult<&Paging> {
        self.paging.as_deref().ok_or_else(|| without_pages(py))
    }

    pub fn paging_mut(&mut self, py: Python<'_>) -> PyResult<&mut Paging> {
        match &mut self.paging {
            Some(paging) => Ok(paging),
            None => Err(without_pages(py)),
        }
    }

    /// As `changing`, with what is known of the pages.
    pub fn with_paging<R>(
        slf: &Bound<'_, Self>,
        change: impl FnOnce(&mut Space, &mut Paging, Python<'_>) -> PyResult<R>,
    ) -> PyResult<R> {
        Self::changing(slf, |space, py| {
            let Some(mut paging) = space.paging.take() else { return Err(without_pages(py)) };
            let result = change(space, &mut paging, py);
            space.paging = Some(paging);
            result
        })
    }

    /// The pages that a mapping references, and how many bytes this knowledge takes.
    pub fn pages_of(&self, slot: u32) -> &[Pages] {
        self.paging.as_ref().map_or(&[], |paging| paging.pages_of(slot))
    }

    pub fn paging_bytes(&self) -> usize {
        self.paging.as_ref().map_or(0, |paging| paging.bytes())
    }

    pub fn check_paging(&self) -> Result<(), String> {
        self.paging.as_ref().map_or(Ok(()), |paging| paging.check(&self.core))
    }
}

#[cold]
fn without_pages(py: Python<'_>) -> PyErr {
    error(py, Class::InvalidArgument, "this address space has no page table")
}
