//! The Python classes over the core.
//!
//! The core knows mappings by slot and objects by record; here are the Python objects that stand for them. No
//! Python code runs while a space is borrowed: objects that go are collected and dropped after (`Space::changing`).

mod bind_ops;
mod buddy;
mod bulk;
mod carried;
mod errors;
mod gpuva;
mod immediate;
mod insert;
mod life;
mod lookup;
mod methods;
mod moving;
mod obtain;
mod ops;
mod page_table;
mod pages;
mod paging;
mod pbdma;
mod physical_memory;
mod plan;
mod regions;
mod room;
mod space;
mod step;
mod surface;
mod vm_bind;
mod vm_bo;
mod work;

pub use buddy::Buddy;
pub use bulk::Records;
pub use errors::init;
pub use gpuva::Gpuva;
pub use lookup::MappingIterator;
pub use ops::{Map, Prefetch, Remap, Unmap};
pub use page_table::PageTable;
pub use pages::{cut_pages, split_into_pages};
pub use pbdma::Pbdma;
pub use physical_memory::PhysicalMemory;
pub use plan::Plan;
pub use space::Space;
pub use surface::Surface;
pub use vm_bo::VmBo;
pub use work::Work;

use pyo3::prelude::*;

/// Refuse the ``n``-th memory reservation of the core from now, 0 being the next; None disarms.
///
/// For fault injection: the refused call raises OutOfMemory and changes nothing.
#[pyfunction]
#[pyo3(signature = (n))]
pub fn fail_allocation(n: Option<u64>) {
    crate::memory::fail_after(n);
}

/// Forbid the core to allocate in this thread until it is allowed again; nests.
///
/// For sections between publishing a fence and signalling it. A call that would have to grow an array of the core
/// raises LockdepError and changes nothing; `Space.preallocate` makes room before. EINVAL: allowed already.
///
/// Source: ``dma_fence_begin_signalling``.
#[pyfunction]
#[pyo3(signature = (forbidden))]
pub fn forbid_allocation(py: Python<'_>, forbidden: bool) -> PyResult<()> {
    if crate::memory::forbid(forbidden) {
        return Ok(());
    }
    let message = "forbid_allocation: allocation is not forbidden in this thread; call it with True first";
    Err(errors::error(py, errors::Class::InvalidArgument, message))
}
