//! `gpuvm._core`: the hot path of the address-space manager. What it means is Python's to say.

mod check;

mod arena;
mod binding;
mod buddy;
mod bulk;
mod gaps;
mod memory;
mod object;
mod page_change;
mod page_slots;
mod page_table;
mod pages;
mod paging;
mod plan;
mod processor;
mod push_buffer;
mod reduction;
mod regions;
mod runs;
mod space;
mod surface;
mod tree;
mod truncation;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::binding::{
        Attempt, BindDecoder, BindLog, BindOps, Buddy, CopiedMemory, DescriptorLinks, Entrance, Gpuva, Map,
        MappingIterator, Notification, PageTable, Passes, PathFilter, Pbdma, PhysicalMemory, Plan, Prefetch,
        ProcessMemory, RawBind, RawExec, RawMutex, RawSpool, RawTicket, Records, Remap, SeccompListener,
        Space, Surface, TruncationGuard, Unmap, VmBo, WeakSet, Work, cut_pages, fail_allocation,
        forbid_allocation, require_stack, split_into_pages, watch_locks,
    };

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::binding::init(module.py())
    }
}
