//! The Python classes over the core.
//!
//! The core knows mappings by slot and objects by record; here are the Python objects that stand for them. No
//! Python code runs while a space is borrowed: objects that go are collected and dropped after (`Space::changing`).

mod bulk;
mod errors;
mod gpuva;
mod insert;
mod life;
mod lookup;
mod methods;
mod obtain;
mod ops;
mod plan;
mod regions;
mod space;
mod step;
mod vm_bo;

pub use bulk::Records;
pub use errors::init;
pub use gpuva::Gpuva;
pub use lookup::MappingIterator;
pub use ops::{Map, Prefetch, Remap, Unmap};
pub use plan::Plan;
pub use space::Space;
pub use vm_bo::VmBo;

use pyo3::prelude::*;

/// Refuse the ``n``-th memory reservation of the core from now, 0 being the next; None disarms.
///
/// For fault injection: the refused call raises OutOfMemory and changes nothing.
#[pyfunction]
#[pyo3(signature = (n))]
pub fn fail_allocation(n: Option<u64>) {
    crate::memory::fail_after(n);
}
