//! `PhysicalMemory`: the compiled half of `gpuvm.mmu.AddressSpace`.

use pyo3::buffer::PyBuffer;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::errors::{Class, Detail, error, error_about};
use crate::page_table::translate::Record;
use crate::runs::{self, Bytes, Memories, Stretches};

/// From so many bytes on other threads run meanwhile: it takes a tenth of a millisecond then. To come back may
/// take them five, so that shorter copies are not worth it. Nothing that moves bytes needs the interpreter: buffers
/// are held, and so the memories stay mapped; runs are in bytes that do not change. What the memories show may be
/// exchanged under a copy, as on hardware.
const DETACHED_FROM: usize = 1 << 20;

/// The bytes behind physical addresses.
#[pyclass(module = "gpuvm._core", frozen)]
pub struct PhysicalMemory {
    memories: Memories,
    /// Keep them where they are.
    _views: Vec<PyBuffer<u8>>,
}

#[pymethods]
impl PhysicalMemory {
    /// ``views`` are writable bytes by aperture, None where there is no memory; they are kept.
    #[new]
    #[pyo3(signature = (views))]
    fn new(py: Python<'_>, views: [Option<Bound<'_, PyAny>>; 4]) -> PyResult<Self> {
        let mut memory = PhysicalMemory { memories: [None; 4], _views: Vec::new() };
        for (place, view) in memory.memories.iter_mut().zip(views) {
            let Some(view) = view else { continue };
            let buffer = PyBuffer::<u8>::get(&view)?;
            *place = Some(bytes_of(py, &buffer, true)?);
            memory._views.push(buffer);
        }
        Ok(memory)
    }

    /// The position of the first run that leads to no memory, or has one of the flags that are ``forbidden``.
    ///
    /// ``runs``, here and in all calls: records of ``gpuvm.mmu.translation.RUN``.
    #[pyo3(signature = (runs, forbidden))]
    fn refused(&self, py: Python<'_>, runs: &[u8], forbidden: u8) -> PyResult<Option<usize>> {
        Ok(runs::refused(&self.memories, records(py, runs)?, forbidden))
    }

    /// The bytes that the runs lead to, zeros where they are sparse.
    #[pyo3(signature = (runs))]
    fn read<'py>(&self, py: Python<'py>, runs: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let (sources, range) = self.stretches(py, runs)?;
        let (read, bytes) = new_bytes(py, range)?;
        detached(py, range, || runs::copy(&Stretches::Bytes(bytes), &sources, range, false));
        Ok(read)
    }

    /// Fill ``out`` with these bytes; as long as the runs together.
    #[pyo3(signature = (runs, out))]
    fn read_into(&self, py: Python<'_>, runs: &[u8], out: &Bound<'_, PyAny>) -> PyResult<()> {
        let (sources, range) = self.stretches(py, runs)?;
        let buffer = PyBuffer::<u8>::get(out)?;
        let bytes = bytes_of(py, &buffer, true)?;
        require_as_long(py, "read_into", bytes.len(), range)?;
        detached(py, range, || runs::copy(&Stretches::Bytes(bytes), &sources, range, false));
        Ok(())
    }

    /// Write ``data``, as long as the runs together.
    #[pyo3(signature = (runs, data))]
    fn write(&self, py: Python<'_>, runs: &[u8], data: &Bound<'_, PyAny>) -> PyResult<()> {
        let (targets, range) = self.stretches(py, runs)?;
        let buffer = PyBuffer::<u8>::get(data)?;
        let bytes = bytes_of(py, &buffer, false)?;
        require_as_long(py, "write", bytes.len(), range)?;
        detached(py, range, || runs::copy(&targets, &Stretches::Bytes(bytes), range, false));
        Ok(())
    }

    /// Write ``block`` again and again; the last one is cut if need be.
    #[pyo3(signature = (runs, block))]
    fn fill(&self, py: Python<'_>, runs: &[u8], block: &Bound<'_, PyBytes>) -> PyResult<()> {
        let (targets, range) = self.stretches(py, runs)?;
        let buffer = PyBuffer::<u8>::get(block)?;
        let block = bytes_of(py, &buffer, false)?;
        if block.len() == 0 {
            return Err(error(
                py,
                Class::InvalidArgument,
                "fill: the block is empty; pass at least one byte",
            ));
        }
        detached(py, range, || runs::fill(&targets, block, range));
        Ok(())
    }

    /// Copy from the ``sources`` to the ``targets``, runs of as many bytes.
    ///
    /// Pieces that are contiguous on both sides are moved as by ``memmove``, one after the other, upwards or
    /// ``downwards``.
    #[pyo3(signature = (targets, sources, downwards))]
    fn copy(&self, py: Python<'_>, targets: &[u8], sources: &[u8], downwards: bool) -> PyResult<()> {
        let ((targets, range), (sources, other)) =
            (self.stretches(py, targets)?, self.stretches(py, sources)?);
        require_as_long(py, "copy", other, range)?;
        detached(py, range, || runs::copy(&targets, &sources, range, downwards));
        Ok(())
    }
}

impl PhysicalMemory {
    /// What runs lead to, and how many bytes that is.
    fn stretches<'a>(&'a self, py: Python<'_>, runs: &'a [u8]) -> PyResult<(Stretches<'a>, usize)> {
        let stretches = Stretches::Runs(&self.memories, records(py, runs)?);
        match stretches.range() {
            Ok(range) => Ok((stretches, range)),
            Err(position) => {
                let message = format!("run {position} leads to no memory; ask `refused` first");
                Err(error_about(py, Class::InvalidArgument, message, position as u64, ()))
            }
        }
    }
}

/// The records of runs, of which there must be a whole number.
fn records<'a>(py: Python<'_>, runs: &'a [u8]) -> PyResult<&'a [Record]> {
    let (records, rest) = runs.as_chunks();
    if rest.is_empty() {
        return Ok(records);
    }
    let message = format!("{} bytes are no runs; pass records of translation.RUN", runs.len());
    Err(error(py, Class::InvalidArgument, message))
}

/// Call without the interpreter's lock if it is for long.
fn detached(py: Python<'_>, range: usize, call: impl FnOnce() + Send) {
    if range >= DETACHED_FROM { py.detach(call) } else { call() }
}

fn bytes_of(py: Python<'_>, buffer: &PyBuffer<u8>, written: bool) -> PyResult<Bytes> {
    if !buffer.is_c_contiguous() || (written && buffer.readonly()) {
        let message = "memory must be contiguous bytes, and writable if it is written to";
        return Err(error(py, Class::InvalidArgument, message));
    }
    // SAFETY: the exporter keeps these bytes while the buffer lives, which every caller holds longer.
    Ok(unsafe { Bytes::new(buffer.buf_ptr().cast(), buffer.len_bytes()) })
}

/// A new object, and its bytes, which nobody else knows yet. They hold anything.
fn new_bytes(py: Python<'_>, len: usize) -> PyResult<(Bound<'_, PyBytes>, Bytes)> {
    // SAFETY: without bytes to copy it makes an object of `len` bytes, which may be written until others have it;
    // a length that is too large is an error.
    unsafe {
        let object = ffi::PyBytes_FromStringAndSize(std::ptr::null(), len as ffi::Py_ssize_t);
        let object = Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked::<PyBytes>();
        let base = ffi::PyBytes_AsString(object.as_ptr());
        Ok((object, Bytes::new(base.cast(), len)))
    }
}

fn require_as_long(py: Python<'_>, call: &str, given: usize, wanted: usize) -> PyResult<()> {
    if given == wanted {
        return Ok(());
    }
    let message = format!("{call}: {given:#x} bytes for runs of {wanted:#x}; pass as many");
    Err(error_about(py, Class::InvalidArgument, message, given as u64, Detail::from(wanted as u64)))
}
