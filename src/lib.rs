//! `gpuvm._core`: the hot path of the address-space manager. What it means is Python's to say.

mod check;

mod arena;
mod binding;
mod buddy;
mod bulk;
mod gaps;
mod memory;
mod object;
mod page_table;
mod plan;
mod processor;
mod regions;
mod runs;
mod space;
mod tree;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::binding::{
        Buddy, Gpuva, Map, MappingIterator, PageTable, PhysicalMemory, Plan, Prefetch, Records, Remap, Space,
        Unmap, VmBo, fail_allocation, forbid_allocation,
    };

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::binding::init(module.py())
    }
}
