//! `TruncationGuard`: the compiled half of `gpuvm.mem.ObjectFile`'s trust in nobody.

use std::ffi::c_int;

use pyo3::prelude::*;

use super::errors::{Class, error};
use crate::truncation::{Guarded, RANGES};

/// While it is there, an access to pages of a file that somebody has cut off makes the file whole again.
///
/// Such an access would end the process. It finds zeros instead: what was cut off is lost.
#[pyclass(module = "gpuvm._core", frozen)]
pub struct TruncationGuard(Guarded);

#[pymethods]
impl TruncationGuard {
    /// ``ranges`` are addresses and lengths that show pages of the file ``fd``, 3 at most. Both stay as they are
    /// for as long as the guard is there. ENOMEM: there are too many guards.
    #[new]
    #[pyo3(signature = (fd, size, ranges))]
    fn new(py: Python<'_>, fd: c_int, size: u64, ranges: Vec<(usize, usize)>) -> PyResult<Self> {
        if ranges.len() > RANGES {
            let message = format!("TruncationGuard: {} ranges; pass {RANGES} at most", ranges.len());
            return Err(error(py, Class::InvalidArgument, &message));
        }
        Guarded::new(fd, size, &ranges).map(TruncationGuard).ok_or_else(|| {
            let message = "TruncationGuard: too many files are guarded; let go of one";
            error(py, Class::OutOfMemory, message)
        })
    }

    /// How often the file was made whole again.
    #[getter]
    fn mended(&self) -> u64 {
        self.0.mended()
    }

    /// Pages that could not be had back, as memory is short: zeros of this process's own are in their place.
    #[getter]
    fn lost(&self) -> u64 {
        self.0.lost()
    }
}
