//! The Python classes over the core.
//!
//! The core knows mappings by slot and objects by record; here are the Python objects that stand for them. No
//! Python code runs while a space is borrowed: objects that go are collected and dropped after (`Space::changing`).

mod bind_decoder;
mod bind_log;
mod bind_now;
mod bind_ops;
mod buddy;
mod bulk;
mod carried;
mod copied_memory;
mod entrance;
mod errors;
mod gpuva;
mod immediate;
mod insert;
mod life;
mod links;
mod lookup;
mod methods;
mod moving;
mod obtain;
mod ops;
mod page_table;
mod pages;
mod paging;
mod passes;
mod path_filter;
mod pbdma;
mod physical_memory;
mod plan;
mod process_memory;
mod raw_bind;
mod raw_exec;
mod raw_mutex;
mod raw_spool;
mod regions;
mod room;
mod seccomp_listener;
mod space;
mod step;
mod surface;
mod truncation;
mod vm_bind;
mod vm_bo;
mod weak_set;
mod work;

pub use bind_decoder::BindDecoder;
pub use bind_log::BindLog;
pub use bind_ops::BindOps;
pub use buddy::Buddy;
pub use bulk::Records;
pub use copied_memory::CopiedMemory;
pub use entrance::Entrance;
pub use errors::init;
pub use gpuva::Gpuva;
pub use links::DescriptorLinks;
pub use lookup::MappingIterator;
pub use ops::{Map, Prefetch, Remap, Unmap};
pub use page_table::PageTable;
pub use pages::{cut_pages, split_into_pages};
pub use passes::{Attempt, Passes};
pub use path_filter::PathFilter;
pub use pbdma::Pbdma;
pub use physical_memory::PhysicalMemory;
pub use plan::Plan;
pub use process_memory::ProcessMemory;
pub use raw_bind::RawBind;
pub use raw_exec::RawExec;
pub use raw_mutex::{RawMutex, RawTicket, watch_locks};
pub use raw_spool::RawSpool;
pub use seccomp_listener::{Notification, SeccompListener};
pub use space::Space;
pub use surface::Surface;
pub use truncation::TruncationGuard;
pub use vm_bo::VmBo;
pub use weak_set::WeakSet;
pub use work::Work;

use pyo3::ffi;
use pyo3::prelude::*;

/// Refuse the ``n``-th memory reservation of the core from now, 0 being the next; None disarms.
///
/// For fault injection: the refused call raises OutOfMemory and changes nothing.
#[pyfunction]
#[pyo3(signature = (n))]
pub fn fail_allocation(n: Option<u64>) {
    crate::memory::fail_after(n);
}

/// Make sure that the stack has room for so many more ``levels``.
///
/// RecursionError: it has not. For who must not be stopped half-way by that.
#[pyfunction]
#[pyo3(signature = (levels))]
pub fn require_stack(py: Python<'_>, levels: u32) -> PyResult<()> {
    let mut entered = 0;
    // SAFETY: the interpreter's lock is held, and what is entered is left.
    while entered < levels && unsafe { ffi::Py_EnterRecursiveCall(c" where it must not stop".as_ptr()) } == 0
    {
        entered += 1;
    }
    for _ in 0..entered {
        // SAFETY: as above.
        unsafe { ffi::Py_LeaveRecursiveCall() };
    }
    if entered == levels { Ok(()) } else { Err(PyErr::fetch(py)) }
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
