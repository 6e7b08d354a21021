//! `PhysicalMemory`: the compiled half of `gpuvm.mmu.AddressSpace`.

use pyo3::buffer::PyBuffer;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::errors::{Class, Detail, error, error_about, out_of_memory};
use super::surface::{Remap, Surface, components_of, require_some};
use crate::page_table::translate::Record;
use crate::reduction::{self, Operation};
use crate::runs::{self, Bytes, Memories, Order, Stretches, UPWARDS};
use crate::surface::Surface as Layout;
use crate::surface::components::Components;
use crate::surface::ground::Ground;
use crate::surface::pitch::Pitch;
use crate::surface::transfer::{Rectangle, Side, transfer};

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
        detached(py, range, || runs::copy(&Stretches::Bytes(bytes), &sources, range, UPWARDS));
        Ok(read)
    }

    /// Fill ``out`` with these bytes; as long as the runs together.
    #[pyo3(signature = (runs, out))]
    fn read_into(&self, py: Python<'_>, runs: &[u8], out: &Bound<'_, PyAny>) -> PyResult<()> {
        let (sources, range) = self.stretches(py, runs)?;
        let buffer = PyBuffer::<u8>::get(out)?;
        let bytes = bytes_of(py, &buffer, true)?;
        require_as_long(py, "read_into", bytes.len(), range)?;
        detached(py, range, || runs::copy(&Stretches::Bytes(bytes), &sources, range, UPWARDS));
        Ok(())
    }

    /// Write ``data``, as long as the runs together.
    #[pyo3(signature = (runs, data))]
    fn write(&self, py: Python<'_>, runs: &[u8], data: &Bound<'_, PyAny>) -> PyResult<()> {
        let (targets, range) = self.stretches(py, runs)?;
        let buffer = PyBuffer::<u8>::get(data)?;
        let bytes = bytes_of(py, &buffer, false)?;
        require_as_long(py, "write", bytes.len(), range)?;
        detached(py, range, || runs::copy(&targets, &Stretches::Bytes(bytes), range, UPWARDS));
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
    /// ``downwards``. Upwards, none of them is larger than ``step``, nor over a multiple of it.
    #[pyo3(signature = (targets, sources, downwards, step=None))]
    fn copy(
        &self,
        py: Python<'_>,
        targets: &[u8],
        sources: &[u8],
        downwards: bool,
        step: Option<usize>,
    ) -> PyResult<()> {
        let ((targets, range), (sources, other)) =
            (self.stretches(py, targets)?, self.stretches(py, sources)?);
        require_as_long(py, "copy", other, range)?;
        if step == Some(0) {
            return Err(error(py, Class::InvalidArgument, "copy: steps of nothing; pass at least a byte"));
        }
        let upwards = step.map_or(UPWARDS, |step| Order::Upwards { step });
        let order = if downwards { Order::Downwards } else { upwards };
        detached(py, range, || runs::copy(&targets, &sources, range, order));
        Ok(())
    }

    /// Change the number of ``size`` bytes that the runs lead to, 4 or 8 at a multiple of that, in one step.
    ///
    /// ``operation`` is a number of NVIDIA's semaphore methods. False: there is none of this number. What is
    /// sparse stays as it is.
    #[pyo3(signature = (runs, operation, operand, signed))]
    fn reduce(
        &self,
        py: Python<'_>,
        runs: &[u8],
        operation: u32,
        operand: u64,
        signed: bool,
    ) -> PyResult<bool> {
        let (stretches, size) = self.stretches(py, runs)?;
        let Some(operation) = Operation::of_number(operation) else { return Ok(false) };
        let place = stretches.contiguous();
        if !matches!(size, 4 | 8) || place.is_some_and(|at| at.addr() % size > 0) {
            let message = format!("reduce: {size} bytes; pass a whole number of 4 or 8 bytes");
            return Err(error_about(py, Class::InvalidArgument, message, size as u64, 8u64));
        }
        if let Some(at) = place {
            // SAFETY: so many bytes are there, at a multiple of their number, and numbers cross no page.
            unsafe { reduction::reduce(at, size, operation, operand, signed) };
        }
        Ok(true)
    }

    /// The first address of the first ``lines`` lines of ``length`` bytes that no run leads to memory, or one that
    /// has a ``forbidden`` flag.
    #[pyo3(signature = (surface, runs, forbidden, length, lines))]
    fn refused_lines(
        &self,
        py: Python<'_>,
        surface: &Surface,
        runs: &[u8],
        forbidden: u8,
        length: u64,
        lines: u64,
    ) -> PyResult<Option<u64>> {
        require_some(py, "refused_lines", [length, lines])?;
        let mut ground = Ground::new(&self.memories, records(py, runs)?, forbidden);
        let (first, end) = surface.core.span(length, lines);
        if ground.bears(first, end) {
            return Ok(None);
        }
        Ok(py.detach(|| surface.core.refused(&mut ground, length, lines)))
    }

    /// Move ``lines`` lines of ``elements`` from line ``first`` on, between surfaces and their runs.
    ///
    /// The source can be bytes, line after line; without source lines are made of constants. ``remap``: bytes of a
    /// component, how many the source has, what those of the target come from, two constants. Runs must lead to
    /// memory; see ``refused_lines``.
    #[pyo3(signature = (target, source, remap, elements, first, lines, apart))]
    #[expect(clippy::too_many_arguments, reason = "a transfer has two ends")]
    fn transfer(
        &self,
        py: Python<'_>,
        target: (Bound<'_, Surface>, Bound<'_, PyBytes>),
        source: Option<End<'_>>,
        remap: Option<Remap>,
        elements: u64,
        first: u64,
        lines: u64,
        apart: bool,
    ) -> PyResult<()> {
        require_some(
            py,
            "transfer",
            [elements, lines, elements.saturating_mul(lines), first.saturating_add(1)],
        )?;
        let target = (Some(target.0), target.1);
        let components = remap.map(|remap| components_of(py, remap)).transpose()?;
        let element = |count: fn(&Components) -> usize| {
            components.as_ref().map_or(1, |components| count(components) * components.size)
        };
        let mut to = self.side(py, &target, (elements, first), element(|it| it.to.len()))?;
        let mut from = source
            .as_ref()
            .map(|source| self.side(py, source, (elements, first), element(|it| it.from)))
            .transpose()?;
        if from.is_none() && components.is_none() {
            return Err(error(
                py,
                Class::InvalidArgument,
                "transfer: from nothing; pass a source or constants",
            ));
        }
        let range = elements * lines * to.element as u64;
        let rectangle = Rectangle { elements, lines };
        detached(py, usize::try_from(range).unwrap_or(usize::MAX), || {
            transfer(&mut to, from.as_mut(), components.as_ref(), rectangle, apart)
        })
        .map_err(|refused| out_of_memory(py, refused))
    }
}

/// A surface, and the runs that the addresses of its span lead to. Without surface it is the bytes themselves.
type End<'py> = (Option<Bound<'py, Surface>>, Bound<'py, PyBytes>);

impl PhysicalMemory {
    /// An end of a transfer of lines of so many elements, from line `first` on.
    fn side<'a>(
        &'a self,
        py: Python<'a>,
        (surface, bytes): &'a End<'_>,
        (elements, first): (u64, u64),
        element: usize,
    ) -> PyResult<Side<'a>> {
        let (surface, ground) = match surface {
            Some(surface) => {
                let runs = records(py, bytes.as_bytes())?;
                (surface.get().core, Ground::new(&self.memories, runs, 0))
            }
            None => {
                let (pitch, bytes) = (elements as i64 * element as i64, bytes.as_bytes());
                // SAFETY: a source, which is not written to; the object keeps its bytes for as long as `'a`.
                let bytes = unsafe { Bytes::new(bytes.as_ptr().cast_mut(), bytes.len()) };
                (Layout::Pitch(Pitch { addr: 0, pitch }), Ground::of_bytes(&self.memories, bytes))
            }
        };
        Ok(Side { surface: surface.skip(0, first), ground, element })
    }

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
fn detached<T: Send>(py: Python<'_>, range: usize, call: impl FnOnce() -> T + Send) -> T {
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
