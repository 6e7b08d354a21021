//! Arrays in and out: `GpuVm.bind`, `find_many` and `to_array` over the buffers of NumPy arrays.

use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex};

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyLookupError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::errors::{self, Class, Detail, out_of_memory};
use super::ops::Map;
use super::space::{Busy, Space, ask_driver, region_fault};
use crate::bulk::{self, FLAG_SPARSE, Found, OP_MAP, Record, Refusal, Request};
use crate::memory::{Refused, reserve, reserve_anywhere};
use crate::plan::Answers;
use crate::tree::NONE;

/// Arrays of records that nobody looks at any more, to be filled again: a fresh one costs more in page faults
/// than the binds themselves.
#[derive(Clone, Default)]
pub struct Pool(Arc<Mutex<Vec<Vec<Record>>>>);

impl Pool {
    /// Arrays beyond these are freed.
    const LIMIT: usize = 2;

    fn take(&self) -> Vec<Record> {
        self.0.lock().ok().and_then(|mut spare| spare.pop()).unwrap_or_default()
    }

    fn give(&self, mut records: Vec<Record>) {
        records.clear();
        if let Ok(mut spare) = self.0.lock()
            && spare.len() < Self::LIMIT
        {
            spare.push(records);
        }
    }
}

/// The operations that a bind emitted, as a buffer of 56-byte records; an array over it is what `bind` returns.
#[pyclass(frozen, module = "gpuvm._core")]
pub struct Records {
    records: Vec<Record>,
    pool: Pool,
}

#[pymethods]
impl Records {
    fn __len__(&self) -> usize {
        self.records.len()
    }

    // SAFETY: called by the interpreter with a `view` to fill in, as the buffer protocol says.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let records = &slf.get().records;
        let start = records.as_ptr().cast::<c_void>().cast_mut();
        let bytes = size_of_val(records.as_slice()) as ffi::Py_ssize_t;
        // SAFETY: the class is frozen, so the array lives and stays as it is while `view` holds `slf`.
        let filled = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, bytes, 1, flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.records));
    }
}

/// The elements of a buffer, which must be contiguous, aligned and whole.
///
/// # Safety
/// Every bit pattern must be a `T`, and the interpreter's lock must be held while the slice is used.
unsafe fn elements<T>(buffer: &PyUntypedBuffer) -> PyResult<&[T]> {
    let start = buffer.buf_ptr().cast::<T>();
    let whole = buffer.is_c_contiguous() && buffer.len_bytes().is_multiple_of(size_of::<T>());
    if !whole || !start.is_aligned() {
        return Err(PyBufferError::new_err("a contiguous, aligned array of whole elements is needed"));
    }
    if buffer.len_bytes() == 0 {
        return Ok(&[]);
    }
    // SAFETY: checked above; the exporter vouches for the length and keeps the memory while `buffer` lives.
    Ok(unsafe { std::slice::from_raw_parts(start, buffer.len_bytes() / size_of::<T>()) })
}

/// What a batch needs besides the space; kept from one to the next.
#[derive(Default)]
pub struct Scratch {
    /// The requests, copied so that nobody changes them between check and use.
    requests: Vec<Request>,
    /// The objects that the batch names, and their handles.
    named: Vec<(u32, Py<PyAny>)>,
    /// For each request its object: first the place in `named`, then the record in the space.
    objects: Vec<u32>,
    /// Records held until the batch is over, and the handles they had.
    pinned: Vec<(u32, u32)>,
    /// Handles looked up in this batch, by their low bits.
    recent: Vec<Recent>,
    batch: u64,
}

#[derive(Clone, Copy, Default)]
struct Recent {
    batch: u64,
    handle: u32,
    named: u32,
}

impl Scratch {
    const RECENT: usize = 1024;

    /// Make room for `count` requests in an empty one.
    fn reserve(&mut self, count: usize) -> Result<(), Refused> {
        reserve(&mut self.requests, count)?;
        reserve(&mut self.objects, count)?;
        let room = Self::RECENT - self.recent.len();
        reserve(&mut self.recent, room)
    }

    pub fn bytes(&self) -> usize {
        let words = self.objects.capacity() + 2 * self.pinned.capacity();
        self.requests.capacity() * size_of::<Request>()
            + self.named.capacity() * size_of::<(u32, Py<PyAny>)>()
            + words * size_of::<u32>()
            + self.recent.capacity() * size_of::<Recent>()
    }

    /// Make room for batches of `changes` requests that name as many objects.
    pub fn promise(&mut self, changes: usize) -> Result<(), Refused> {
        self.requests.clear();
        self.objects.clear();
        self.reserve(changes)?;
        reserve(&mut self.named, changes)?;
        reserve(&mut self.pinned, changes)
    }

    /// Copy the requests and look their objects up, which may run Python code: the space is not borrowed.
    ///
    /// Stops at a handle without object; `objects` is shorter than `requests` then.
    fn load(&mut self, array: &Bound<'_, PyAny>, objects: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = array.py();
        let buffer = PyUntypedBuffer::get(array)?;
        // SAFETY: bytes are bytes, and the interpreter's lock is held while copying.
        let bytes = unsafe { elements::<u8>(&buffer)? };
        let count = bytes.len() / size_of::<Request>();
        self.batch += 1;
        self.requests.clear();
        self.objects.clear();
        self.reserve(count).map_err(|refused| out_of_memory(py, refused))?;
        self.requests.extend(bytes.chunks_exact(size_of::<Request>()).map(Request::from_bytes));
        self.recent.resize(Self::RECENT, Recent::default());
        for index in 0..count {
            let handle = self.requests[index].handle;
            let recent = self.recent[handle as usize % Self::RECENT];
            let named = if !self.requests[index].names_object() {
                NONE
            } else if recent.batch == self.batch && recent.handle == handle {
                recent.named
            } else {
                let Some(object) = look_up(objects, handle)? else { break };
                let named = self.named.len() as u32;
                reserve(&mut self.named, 1).map_err(|refused| out_of_memory(py, refused))?;
                self.named.push((handle, object));
                self.recent[handle as usize % Self::RECENT] = Recent { batch: self.batch, handle, named };
                named
            };
            self.objects.push(named);
        }
        Ok(())
    }

    /// Check the requests and hold their objects in the space.
    fn check(&mut self, space: &mut Space, py: Python<'_>) -> PyResult<()> {
        for (index, request) in self.requests.iter().enumerate() {
            if let Err(refusal) = bulk::check_request(&space.core, request) {
                return Err(refused(py, space, index, &self.requests, &refusal));
            }
            if index == self.objects.len() {
                let handle = request.handle;
                let reason = format!("handle {handle} names no object; pass objects={{{handle}: ...}}");
                return Err(request_error(py, Class::NotFound, index, &self.requests, &reason, ()));
            }
        }
        let unknown = self.named.iter().map(|(_, object)| space.unknown(object.bind(py))).sum();
        space.reserve(py, 0, unknown)?;
        reserve(&mut self.pinned, self.named.len()).map_err(|refused| out_of_memory(py, refused))?;
        for (handle, object) in &self.named {
            let record = space.intern(object.bind(py));
            space.core.objects.hold(record);
            let place = space.core.objects.get_mut(record);
            self.pinned.push((record, std::mem::replace(&mut place.handle, *handle)));
        }
        for object in self.objects.iter_mut().filter(|object| **object != NONE) {
            *object = self.pinned[*object as usize].0;
        }
        Ok(())
    }

    /// Let go of the batch's objects; after a failure they get their old handles back.
    fn release(&mut self, space: &mut Space, bound: bool) {
        for &(record, handle) in self.pinned.iter().rev() {
            if !bound {
                space.core.objects.get_mut(record).handle = handle;
            }
            space.core.objects.let_go(record);
        }
        self.pinned.clear();
    }
}

/// The object of `handle`, or None.
fn look_up(objects: &Bound<'_, PyAny>, handle: u32) -> PyResult<Option<Py<PyAny>>> {
    let found = match objects.cast_exact::<PyDict>() {
        Ok(objects) => objects.get_item(handle)?,
        Err(_) => match objects.get_item(handle) {
            Err(error) if error.is_instance_of::<PyLookupError>(objects.py()) => None,
            found => Some(found?),
        },
    };
    Ok(found.filter(|object| !object.is_none()).map(Bound::unbind))
}

pub fn bind(
    slf: &Bound<'_, Space>,
    array: &Bound<'_, PyAny>,
    objects: &Bound<'_, PyAny>,
) -> PyResult<Records> {
    let mut space = Space::writing(slf)?;
    space.require_idle(slf.py(), "bind")?;
    let (pool, mut scratch) = (space.pool.clone(), std::mem::take(&mut space.scratch));
    let asking = space.can_merge.is_some();
    drop(space);
    let mut records = pool.take();
    let bound = scratch.load(array, objects).and_then(|()| {
        if asking {
            bind_asking(slf, &mut scratch, &mut records)
        } else {
            bind_alone(slf, &mut scratch, &mut records)
        }
    });
    scratch.named.clear();
    if let Ok(mut space) = Space::writing(slf) {
        space.scratch = scratch;
    }
    let records = Records { records, pool };
    bound.map(|()| records)
}

/// Take the memory that a checked batch needs. The records are the caller's, as the objects of a plan are.
fn prepare(
    space: &mut Space,
    py: Python<'_>,
    requests: &[Request],
    records: &mut Vec<Record>,
) -> PyResult<()> {
    space.reserve(py, requests.len(), 0)?;
    reserve_anywhere(records, requests.len() * 2).map_err(|refused| out_of_memory(py, refused))
}

fn bind_alone(slf: &Bound<'_, Space>, scratch: &mut Scratch, records: &mut Vec<Record>) -> PyResult<()> {
    Space::changing(slf, |space, py| {
        space.require_idle(py, "bind")?;
        let bound = scratch.check(space, py).and_then(|()| {
            let (requests, merge) = (&scratch.requests, space.merge);
            prepare(space, py, requests, records)?;
            bulk::bind(&mut space.core, requests, &scratch.objects, merge, records)
                .map_err(|(index, refusal)| refused(py, space, index, requests, &refusal))
        });
        scratch.release(space, bound.is_ok());
        space.core.generation += u64::from(bound.is_ok() && !scratch.requests.is_empty());
        bound
    })
}

/// `bind` under a merge veto: the driver is asked between requests, with the space not borrowed.
fn bind_asking(slf: &Bound<'_, Space>, scratch: &mut Scratch, records: &mut Vec<Record>) -> PyResult<()> {
    Space::changing(slf, |space, py| {
        space.require_idle(py, "bind")?;
        let prepared = scratch.check(space, py).and_then(|()| prepare(space, py, &scratch.requests, records));
        if prepared.is_err() {
            scratch.release(space, false);
            return prepared;
        }
        space.core.open_journal();
        space.busy = Some(Busy::Bind);
        Ok(())
    })?;
    let mut indices = 0..scratch.requests.len();
    let bound = indices.try_for_each(|index| bind_one_asking(slf, index, scratch, records));
    Space::changing(slf, |space, _| {
        space.busy = None;
        if bound.is_ok() {
            space.core.commit();
            space.core.generation += u64::from(!scratch.requests.is_empty());
        } else {
            space.core.roll_back();
        }
        scratch.release(space, bound.is_ok());
        bound
    })
}

fn bind_one_asking(
    slf: &Bound<'_, Space>,
    index: usize,
    scratch: &Scratch,
    records: &mut Vec<Record>,
) -> PyResult<()> {
    let py = slf.py();
    let (request, object) = (&scratch.requests[index], scratch.objects[index]);
    let mut answers = Answers { has_veto: true, ..Answers::default() };
    loop {
        let mut space = Space::writing(slf)?;
        let merge = space.merge;
        match bulk::bind_one(&mut space.core, (index, request), object, (merge, &mut answers), records) {
            Ok(()) => return Ok(()),
            Err(Refusal::Ask) => {
                let obj = space.object(py, object);
                drop(space);
                let (addr, range, offset) = (request.addr, request.range, request.bo_offset);
                let map = Bound::new(py, Map { addr, range, obj, offset, flags: request.mapping_flags() })?;
                ask_driver(slf, &mut answers, &map)?;
            }
            Err(refusal) => return Err(refused(py, &space, index, &scratch.requests, &refusal)),
        }
    }
}

/// The error for a refused request: which, and why.
#[cold]
fn refused(py: Python<'_>, space: &Space, index: usize, requests: &[Request], refusal: &Refusal) -> PyErr {
    let request = &requests[index];
    let (addr, range) = (request.addr, request.range);
    let (class, reason, bound) = match *refusal {
        Refusal::UnknownOp => {
            (Class::InvalidArgument, format!("op {} is neither 0 (MAP) nor 1 (UNMAP)", request.op), None)
        }
        Refusal::UnknownFlags => {
            let reason = format!(
                "flags {:#x}: known are the kind in 0xff and SPARSE, {FLAG_SPARSE:#x}",
                request.flags
            );
            (Class::InvalidArgument, reason, None)
        }
        Refusal::SparseWithoutRegions => {
            let reason =
                "SPARSE needs an address space made with regions=Regions.SPARSE (or REQUIRED)".to_owned();
            (Class::InvalidArgument, reason, None)
        }
        Refusal::Range => {
            let (reason, bound) = space.range_fault(addr, range).unwrap_or_default();
            (Class::InvalidArgument, format!("the range {reason}"), Some(bound))
        }
        Refusal::Regions => {
            let (class, reason, bound) = region_fault(&space.core.regions, addr, addr + range);
            (class, format!("the range {reason}"), bound)
        }
        Refusal::Overlaps(start, end) => {
            let reason =
                format!("a sparse region needs free room, but [{start:#x}, {end:#x}) is mapped or a region");
            (Class::NoSpace, reason, Some((start, end - start)))
        }
        Refusal::NoSuchRegion => {
            (Class::NotFound, "no sparse region has exactly this range".to_owned(), None)
        }
        Refusal::Memory(refused) => return out_of_memory(py, refused),
        Refusal::Ask => (Class::Busy, "the driver was not asked whether to merge".to_owned(), None),
    };
    request_error(py, class, index, requests, &reason, bound)
}

fn request_error(
    py: Python<'_>,
    class: Class,
    index: usize,
    requests: &[Request],
    reason: &str,
    bound: impl Into<Detail>,
) -> PyErr {
    let Request { op, flags, handle, addr, bo_offset, range, .. } = requests[index];
    let name = match (op, flags & FLAG_SPARSE != 0) {
        (OP_MAP, false) => "map".to_owned(),
        (OP_MAP, true) => "map sparse".to_owned(),
        (bulk::OP_UNMAP, false) => "unmap".to_owned(),
        (bulk::OP_UNMAP, true) => "unmap sparse".to_owned(),
        _ => format!("op {op}"),
    };
    let object = if handle == 0 { String::new() } else { format!(" handle {handle} offset {bo_offset:#x}") };
    let message = format!(
        "request {index} of {} ({name} [{addr:#x}, +{range:#x}){object}): {reason}; no request was applied",
        requests.len()
    );
    errors::request_error(py, class, message, (addr, range), bound, Some(index))
}

pub fn find_many(
    slf: &Bound<'_, Space>,
    addrs: &Bound<'_, PyAny>,
    ranges: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let (addrs, ranges) = (PyUntypedBuffer::get(addrs)?, PyUntypedBuffer::get(ranges)?);
    let out = PyUntypedBuffer::get(out)?;
    let space = Space::reading(slf)?;
    // SAFETY: words of any content, and the interpreter's lock is held.
    let (addrs, ranges, out) =
        unsafe { (elements::<u64>(&addrs)?, elements::<u64>(&ranges)?, output(&out)?) };
    if addrs.len() != ranges.len() || addrs.len() != out.len() {
        return Err(PyValueError::new_err("addrs, ranges and the answer must be of one length"));
    }
    bulk::find_many(&space.core, addrs, ranges, out);
    Ok(())
}

/// Write as many mappings as `out` takes, and say how many there are.
pub fn fill(slf: &Bound<'_, Space>, out: &Bound<'_, PyAny>) -> PyResult<usize> {
    let out = PyUntypedBuffer::get(out)?;
    let space = Space::reading(slf)?;
    // SAFETY: a mapping is words of any content, and the interpreter's lock is held.
    let out = unsafe { output(&out)? };
    let mappings = space.core.tree.iter_from(0).filter(|entry| entry.slot != space.core.kernel);
    for (place, entry) in out.iter_mut().zip(mappings) {
        *place = bulk::found(&space.core, &entry);
    }
    Ok(space.core.len())
}

/// The elements of an array that the Python side made for the answer.
///
/// # Safety
/// As `elements`, and nobody else has a reference to the memory.
#[allow(clippy::mut_from_ref)] // the memory is Python's, the buffer only points to it
unsafe fn output(buffer: &PyUntypedBuffer) -> PyResult<&mut [Found]> {
    if buffer.readonly() {
        return Err(PyBufferError::new_err("a writable array is needed for the answer"));
    }
    // SAFETY: the caller vouches for it.
    let found = unsafe { elements::<Found>(buffer)? };
    // SAFETY: the same memory, writable, and nobody else has a reference to it.
    Ok(unsafe { std::slice::from_raw_parts_mut(found.as_ptr().cast_mut(), found.len()) })
}
