//! `gpuvm_rivals`: address spaces on other ordered containers, for gpuvm's benchmark.
//!
//! Both do what `gpuvm.GpuVm.bind` does for plain MAP and UNMAP without merging, and emit the same records,
//! so that the benchmark can check that all contenders did the same work before it believes a clock.

mod btree;
mod gap;
mod latency;
mod rb;
mod record;
mod space;
mod split;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use record::{Mapping, OP_MAP, Op, REQUEST_BYTES, Request};
use space::{Limits, Space};

/// An operation of a single call, as the lightest Python object that says the same.
type OpTuple = (u8, u8, u32, u64, u64, u64, u64, u64);

fn refused((index, why): (usize, &'static str)) -> PyErr {
    PyValueError::new_err(format!("request {index}: {why}"))
}

/// The items of a contiguous buffer of whole `N`-byte records.
fn records<const N: usize>(buffer: &PyBuffer<u8>) -> PyResult<&[[u8; N]]> {
    if !buffer.is_c_contiguous() {
        return Err(PyValueError::new_err("not contiguous"));
    }
    if buffer.item_count() == 0 {
        return Ok(&[]);
    }
    // SAFETY: the buffer is contiguous bytes and outlives the slice; the interpreter stays locked for as long
    // as the callers here use it and they run no Python code meanwhile, so nobody writes to it.
    let bytes = unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast::<u8>(), buffer.item_count()) };
    match bytes.as_chunks::<N>() {
        (whole, []) => Ok(whole),
        _ => Err(PyValueError::new_err(format!("not a multiple of {N} bytes"))),
    }
}

/// Plain records as bytes for NumPy.
fn to_bytes<'py, T: Copy>(py: Python<'py>, items: &[T]) -> Bound<'py, PyBytes> {
    // SAFETY: called with Op and Mapping only, which are repr(C) with no padding (sizes asserted in record.rs).
    PyBytes::new(py, unsafe { std::slice::from_raw_parts(items.as_ptr().cast::<u8>(), size_of_val(items)) })
}

macro_rules! python_class {
    ($name:ident, $inner:ty, $doc:literal) => {
        // The nodes of the red-black tree are linked by plain pointers: keep to the creating thread.
        #[doc = $doc]
        #[pyclass(unsendable)]
        struct $name {
            space: $inner,
            limits: Limits,
            /// Both buffers are reused by every call: a fresh large array costs page faults.
            out: Vec<Op>,
            found: Vec<Mapping>,
        }

        #[pymethods]
        impl $name {
            #[new]
            fn new(start: u64, range: u64, objects: u32) -> PyResult<Self> {
                let end = start.checked_add(range);
                let end = end.ok_or_else(|| PyValueError::new_err("the space overflows"))?;
                let limits = Limits { start, end, objects };
                Ok(Self { space: <$inner>::new(objects), limits, out: Vec::new(), found: Vec::new() })
            }

            /// Apply an array of 40-byte requests whole or not at all; the number of operations emitted.
            fn bind(&mut self, requests: PyBuffer<u8>) -> PyResult<usize> {
                let requests = records::<REQUEST_BYTES>(&requests)?;
                space::bind(&mut self.space, &self.limits, requests, &mut self.out).map_err(refused)
            }

            /// The operations of the last `bind`, as bytes of 56-byte records.
            fn emitted<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
                to_bytes(py, &self.out)
            }

            /// Exact lookups of two arrays of u64; the number found.
            fn find_many(&mut self, addrs: PyBuffer<u8>, ranges: PyBuffer<u8>) -> PyResult<usize> {
                let (addrs, ranges) = (records::<8>(&addrs)?, records::<8>(&ranges)?);
                if addrs.len() != ranges.len() {
                    return Err(PyValueError::new_err("as many ranges as addresses, please"));
                }
                self.found.clear();
                let mut hits = 0;
                for (addr, range) in addrs.iter().zip(ranges) {
                    let found = self.space.find(u64::from_le_bytes(*addr), u64::from_le_bytes(*range));
                    hits += usize::from(found.is_some());
                    self.found.push(found.unwrap_or_default());
                }
                Ok(hits)
            }

            /// The records of the last `find_many` (all zeros: not found).
            fn found<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
                to_bytes(py, &self.found)
            }

            /// One map request by a call of its own; its operations as a list of tuples.
            fn map<'py>(
                &mut self,
                py: Python<'py>,
                addr: u64,
                range: u64,
                handle: u32,
                offset: u64,
            ) -> PyResult<Bound<'py, PyList>> {
                let request = Request { op: OP_MAP, raw_flags: 0, handle, addr, offset, range };
                space::bind_one(&mut self.space, &self.limits, &request, &mut self.out).map_err(refused)?;
                PyList::new(py, self.out.iter().map(op_tuple))
            }

            /// One exact lookup by a call of its own.
            fn find(&self, addr: u64, range: u64) -> Option<(u64, u64, u64, u32, u32)> {
                let m = self.space.find(addr, range)?;
                Some((m.addr, m.range, m.offset, m.handle, m.flags))
            }

            /// An address for `range` bytes in a hole, or None.
            fn find_gap(&self, range: u64, align: u64, fit: u8) -> PyResult<Option<u64>> {
                let fit = gap::Fit::from_number(fit).ok_or_else(|| PyValueError::new_err("unknown fit"))?;
                if align == 0 {
                    return Err(PyValueError::new_err("alignment 0"));
                }
                Ok(gap::find(self.space.walk(), &self.limits, range, align, fit))
            }

            /// All mappings in address order, as bytes of 32-byte records.
            fn mappings<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
                to_bytes(py, &self.space.walk().collect::<Vec<_>>())
            }
        }
    };
}

fn op_tuple(op: &Op) -> OpTuple {
    (op.kind, op.keep, op.handle, op.addr, op.range, op.offset, op.prev_range, op.next_range)
}

python_class!(BTreeSpace, btree::BTree, "On the standard library's BTreeMap.");
python_class!(RbSpace, rb::Rb, "On a red-black tree with a list for each object, as in the kernel.");

/// The modules' public names.
#[pymodule]
mod gpuvm_rivals {
    #[pymodule_export]
    use super::latency::cache_miss_ns;
    #[pymodule_export]
    use super::{BTreeSpace, RbSpace};
}
