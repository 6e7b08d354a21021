//! `RawSpool`: the compiled half of `gpuvm.trace.spool.Spool`.
//!
//! All that it does it does under the interpreter's lock, without giving that back, so no other thread sees half of
//! it. Frames are in the format of Python's `marshal`, version 2, each behind its length.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyInt, PyString, PyTuple};

use super::copied_memory::CopiedMemory;

/// Bytes before the ring, of which the first words say how far either side has come.
const HEADER: usize = 4096;
const APPENDED: usize = 0;
const TAKEN: usize = 1;
/// So many times, while as much is appended as there is room for, somebody is to see whether there is a reader.
const LOOKS: u64 = 256;
const DIGIT: u32 = 15;

/// The appending side of a ring of bytes that two processes share.
#[pyclass(module = "gpuvm._core", subclass)]
pub struct RawSpool {
    /// None: it is closed.
    shared: Option<PyBuffer<u8>>,
    capacity: usize,
    appended: u64,
    /// Where somebody is to see whether there is a reader.
    look_at: u64,
    /// What there was no room for.
    waiting: Vec<u8>,
    /// How much of it is in the ring by now; less than half of it.
    sent: usize,
    place: u64,
    /// The frame that is being made.
    frame: Vec<u8>,
}

#[pymethods]
impl RawSpool {
    /// In ``shared``, writable bytes: a page, and a power of two of them.
    #[new]
    #[pyo3(signature = (shared))]
    fn new(shared: &Bound<'_, PyAny>) -> PyResult<Self> {
        let shared = PyBuffer::<u8>::get(shared)?;
        let capacity = shared.len_bytes().saturating_sub(HEADER);
        let aligned = shared.buf_ptr().cast::<u64>().is_aligned();
        if shared.readonly() || !shared.is_c_contiguous() || !aligned || !capacity.is_power_of_two() {
            return Err(PyValueError::new_err("RawSpool: pass a page and a power of two of writable bytes"));
        }
        let (waiting, frame) = (Vec::new(), Vec::with_capacity(HEADER));
        Ok(RawSpool {
            shared: Some(shared),
            capacity,
            appended: 0,
            look_at: 0,
            waiting,
            sent: 0,
            place: 0,
            frame,
        })
    }

    /// The next place: 1, 2, 3...
    fn place(&mut self) -> u64 {
        self.place += 1;
        self.place
    }

    /// Append a frame of the next place and ``fields``; False if ``flush`` is to be called, at leisure.
    #[pyo3(signature = (*fields))]
    fn tell(&mut self, fields: &Bound<'_, PyTuple>) -> PyResult<bool> {
        let place = self.place();
        self.tell_at(place, fields)
    }

    /// The same with a place that ``place`` gave.
    #[pyo3(signature = (place, *fields))]
    fn tell_at(&mut self, place: u64, fields: &Bound<'_, PyTuple>) -> PyResult<bool> {
        self.frame.clear();
        self.frame.extend_from_slice(&[0; 4]);
        head(&mut self.frame, b'(', fields.len() + 1);
        number(&mut self.frame, false, place);
        for field in fields.iter_borrowed() {
            put(&mut self.frame, &field)?;
        }
        let length = (self.frame.len() - 4) as u32;
        self.frame[..4].copy_from_slice(&length.to_le_bytes());
        let frame = std::mem::take(&mut self.frame);
        if self.waiting.is_empty() && self.room() >= frame.len() {
            self.copy(&frame);
        } else {
            self.waiting.extend_from_slice(&frame);
        }
        self.frame = frame;
        Ok(self.waiting.is_empty() && self.appended < self.look_at)
    }

    /// Append what waits, as far as there is room; how many bytes still wait.
    fn flush(&mut self) -> usize {
        let waiting = std::mem::take(&mut self.waiting);
        let size = (waiting.len() - self.sent).min(self.room());
        self.copy(&waiting[self.sent..self.sent + size]);
        self.waiting = waiting;
        self.sent += size;
        if 2 * self.sent >= self.waiting.len() {
            self.waiting.drain(..self.sent);
            self.sent = 0;
        }
        self.look_at = self.appended + self.capacity as u64 / LOOKS;
        self.waiting.len() - self.sent
    }

    /// Nobody reads it: drop what waits, and all that comes.
    fn close(&mut self) {
        self.shared = None;
        (self.waiting, self.sent) = (Vec::new(), 0);
        self.look_at = u64::MAX;
    }

    /// Bytes that were ever appended, and those that nobody has taken or that wait.
    fn counts(&self) -> (u64, u64) {
        let taken = self.word(TAKEN).map_or(self.appended, |word| word.load(Ordering::Acquire));
        (self.appended, self.appended - taken + (self.waiting.len() - self.sent) as u64)
    }
}

impl RawSpool {
    fn word(&self, index: usize) -> Option<&AtomicU64> {
        let start = self.shared.as_ref()?.buf_ptr().cast::<AtomicU64>();
        // SAFETY: the first page is there, aligned, while the buffer is held; both sides access its words atomically.
        Some(unsafe { &*start.add(index) })
    }

    /// Bytes; as many as anybody wants if nobody reads them.
    fn room(&self) -> usize {
        let taken = self.word(TAKEN).map(|word| word.load(Ordering::Acquire));
        taken.map_or(usize::MAX, |taken| self.capacity - (self.appended - taken) as usize)
    }

    /// Append bytes that there is room for.
    fn copy(&mut self, data: &[u8]) {
        let Some(shared) = &self.shared else { return };
        let at = self.appended as usize & (self.capacity - 1);
        let (before, behind) = data.split_at(data.len().min(self.capacity - at));
        let ring = shared.buf_ptr().cast::<u8>().wrapping_add(HEADER);
        // SAFETY: both parts are within the ring, where the other side reads nothing before it is told.
        unsafe {
            ring.add(at).copy_from_nonoverlapping(before.as_ptr(), before.len());
            ring.copy_from_nonoverlapping(behind.as_ptr(), behind.len());
        }
        self.appended += data.len() as u64;
        if let Some(word) = self.word(APPENDED) {
            word.store(self.appended, Ordering::Release);
        }
    }
}

// -- the format

fn head(frame: &mut Vec<u8>, kind: u8, size: usize) {
    frame.push(kind);
    frame.extend_from_slice(&(size as u32).to_le_bytes());
}

fn number(frame: &mut Vec<u8>, negative: bool, size: u64) {
    if size <= i32::MAX as u64 {
        let small = size as i32;
        frame.push(b'i');
        frame.extend_from_slice(&(if negative { -small } else { small }).to_le_bytes());
        return;
    }
    let digits = (u64::BITS - size.leading_zeros()).div_ceil(DIGIT) as i32;
    frame.push(b'l');
    frame.extend_from_slice(&(if negative { -digits } else { digits }).to_le_bytes());
    for digit in 0..digits as u32 {
        let bits = (size >> (digit * DIGIT)) as u16 & 0x7FFF;
        frame.extend_from_slice(&bits.to_le_bytes());
    }
}

/// A number from -2**63 to 2**64 - 1. No exception is made on the way: that may collect garbage, and finalizers tell.
fn integer(frame: &mut Vec<u8>, value: &Bound<'_, PyInt>) {
    let mut overflow = 0;
    // SAFETY: it is an int, and the interpreter's lock is held.
    let small = unsafe { ffi::PyLong_AsLongLongAndOverflow(value.as_ptr(), &raw mut overflow) };
    if overflow == 0 {
        number(frame, small < 0, small.unsigned_abs());
    } else {
        // SAFETY: as above.
        number(frame, false, unsafe { ffi::PyLong_AsUnsignedLongLongMask(value.as_ptr()) });
    }
}

fn bytes(frame: &mut Vec<u8>, data: &[u8]) {
    head(frame, b's', data.len());
    frame.extend_from_slice(data);
}

fn copies(frame: &mut Vec<u8>, copies: &[(u64, Vec<u8>)]) {
    head(frame, b'[', 2 * copies.len());
    for (addr, data) in copies {
        number(frame, false, *addr);
        bytes(frame, data);
    }
}

fn put(frame: &mut Vec<u8>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    if value.is_none() {
        frame.push(b'N');
    } else if let Ok(value) = value.cast_exact::<PyInt>() {
        integer(frame, value);
    } else if let Ok(value) = value.cast_exact::<PyBool>() {
        frame.push(if value.is_true() { b'T' } else { b'F' });
    } else if let Ok(value) = value.cast::<PyString>() {
        let text = value.to_string_lossy();
        head(frame, b'u', text.len());
        frame.extend_from_slice(text.as_bytes());
    } else if let Ok(value) = value.cast::<PyTuple>() {
        head(frame, b'(', value.len());
        for item in value.iter_borrowed() {
            put(frame, &item)?;
        }
    } else if let Ok(value) = value.cast::<CopiedMemory>() {
        head(frame, b'(', 2);
        value.get().with_copies(|read, written| {
            copies(frame, read);
            copies(frame, written);
        });
    } else if let Ok(value) = value.cast::<PyInt>() {
        integer(frame, value);
    } else if let Ok(value) = value.cast::<PyBytes>() {
        bytes(frame, value.as_bytes());
    } else {
        let kind = value.get_type();
        return Err(PyTypeError::new_err(format!("RawSpool: a frame has no {kind}")));
    }
    Ok(())
}
