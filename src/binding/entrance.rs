//! `Entrance`: whether something is open, and how many are inside. Each step is one of the interpreter's.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// What several threads are inside of, and what is let go when it is closed and the last has left; see
/// ``gpuvm.nouveau.open_file``.
#[pyclass(module = "gpuvm._core", subclass)]
pub struct Entrance {
    #[pyo3(get)]
    is_open: bool,
    #[pyo3(get)]
    inside: usize,
    releasing: bool,
}

#[pymethods]
impl Entrance {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Entrance { is_open: true, inside: 0, releasing: false }
    }

    fn __enter__(slf: &Bound<'_, Self>) -> PyResult<()> {
        let mut entrance = slf.borrow_mut();
        if entrance.is_open {
            entrance.inside += 1;
            return Ok(());
        }
        drop(entrance);
        slf.call_method0(intern!(slf.py(), "_refuse")).map(drop)
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(slf: &Bound<'_, Self>, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        let mut entrance = slf.borrow_mut();
        entrance.inside -= 1;
        if entrance.is_open {
            return Ok(());
        }
        drop(entrance);
        slf.call_method0(intern!(slf.py(), "_left")).map(drop)
    }

    /// Let nobody in any more; ``enter``: and be inside.
    #[pyo3(signature = (*, enter = false))]
    fn _shut(&mut self, enter: bool) {
        self.is_open = false;
        self.inside += usize::from(enter);
    }

    /// Whether nobody is inside, and it is the caller who releases all; ``_cannot`` if that fails.
    fn _is_to_release(&mut self) -> bool {
        let last = self.inside == 0 && !self.releasing;
        self.releasing |= last;
        last
    }

    fn _cannot(&mut self) {
        self.releasing = false;
    }
}
