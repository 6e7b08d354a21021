//! `Pbdma`: the compiled half of `gpuvm.nouveau.engine.Processor`.

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::errors::{Class, error_about, out_of_memory};
use crate::push_buffer::{self, Action, Data, METHODS, Malformed, UNITS};

/// Decodes pushes, counts their methods, and keeps what was sent to each method last.
///
/// Units are the eight subchannels, and 8, the host, whose methods come on any of them. Methods are byte addresses.
#[pyclass(module = "gpuvm._core")]
pub struct Pbdma {
    core: push_buffer::Pbdma,
    push: Option<Py<PyBytes>>,
    subchannel: usize,
}

/// What goes with a method that `next` tells of.
enum Told {
    Word(u32),
    Words(Vec<[u8; 4]>),
}

impl Pbdma {
    fn advance(&mut self, py: Python<'_>) -> Option<(isize, usize, Told)> {
        let (words, _) = self.push.as_ref()?.as_bytes(py).as_chunks();
        let event = match self.core.next(words) {
            Ok(event) => event?,
            Err(Malformed { reason, at }) => return Some((-1, at, Told::Word(reason as u32))),
        };
        self.subchannel = event.subchannel;
        let data = match (event.data, event.action) {
            (Data::Words(range), Action::All) => Told::Words(words[range].to_vec()),
            (Data::Words(range), _) => Told::Word(u32::from_le_bytes(words[range.start])),
            (Data::Immediate(value), Action::All) => Told::Words(vec![value.to_le_bytes()]),
            (Data::Immediate(value), _) => Told::Word(value),
        };
        Some((event.unit as isize, event.method << 2, data))
    }
}

/// A unit and a method of it, in words.
#[derive(Clone, Copy)]
struct Method {
    unit: usize,
    word: usize,
}

#[pymethods]
impl Pbdma {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        let core = push_buffer::Pbdma::new().map_err(|refused| out_of_memory(py, refused))?;
        Ok(Pbdma { core, push: None, subchannel: 0 })
    }

    /// Have ``next`` tell of each word that is sent to a method, or of ``all`` words of a sequence at once.
    #[pyo3(signature = (unit, method, all))]
    fn act(&mut self, py: Python<'_>, unit: usize, method: usize, all: bool) -> PyResult<()> {
        let method = known(py, unit, method)?;
        self.core.act(method.unit, method.word, if all { Action::All } else { Action::Each });
        Ok(())
    }

    /// Begin another push; bytes that are no whole word are left out.
    #[pyo3(signature = (push))]
    fn begin(&mut self, push: Py<PyBytes>) {
        self.core.begin();
        self.push = Some(push);
    }

    /// Go on as far as the next method that is to be told of: (unit, method, word or bytes of all words).
    ///
    /// None at the end. What is malformed is (-1, word of the push, why): 0 no header, 1 methods beyond the last,
    /// 2 data beyond the push.
    fn next<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<(isize, usize, Bound<'py, PyAny>)>> {
        let py = slf.py();
        // Making objects may run Python code, which must not find this borrowed.
        let told = slf.borrow_mut().advance(py);
        let Some((unit, method, data)) = told else { return Ok(None) };
        let data = match data {
            Told::Word(word) => word.into_bound_py_any(py)?,
            Told::Words(words) => PyBytes::new(py, words.as_flattened()).into_any(),
        };
        Ok(Some((unit, method, data)))
    }

    /// On which subchannel the method came that ``next`` told of last.
    #[getter]
    fn subchannel(&self) -> usize {
        self.subchannel
    }

    /// What was sent last to ``count`` methods from this one on.
    #[pyo3(signature = (unit, method, count))]
    fn state<'py>(
        slf: &Bound<'py, Self>,
        unit: usize,
        method: usize,
        count: usize,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let method = known(slf.py(), unit, method)?;
        let end = method.word.saturating_add(count).min(METHODS);
        // As in `next`.
        let words = slf.borrow().core.state(method.unit, method.word..end).to_vec();
        PyTuple::new(slf.py(), words)
    }

    /// Have it that ``value`` was sent to a method.
    #[pyo3(signature = (unit, method, value))]
    fn set_state(&mut self, py: Python<'_>, unit: usize, method: usize, value: u32) -> PyResult<()> {
        let method = known(py, unit, method)?;
        self.core.set_state(method.unit, method.word, value);
        Ok(())
    }

    /// How many words were sent to methods of a unit, as (method, words), of those that got any.
    #[pyo3(signature = (unit))]
    fn sent(slf: &Bound<'_, Self>, unit: usize) -> PyResult<Vec<(usize, u64)>> {
        let unit = known(slf.py(), unit, 0)?.unit;
        // As in `next`.
        let pbdma = slf.borrow();
        let sent = pbdma.core.sent(unit).iter().enumerate();
        Ok(sent.filter(|(_, words)| **words > 0).map(|(word, words)| (word << 2, *words)).collect())
    }
}

fn known(py: Python<'_>, unit: usize, method: usize) -> PyResult<Method> {
    if unit < UNITS && method >> 2 < METHODS && method & 3 == 0 {
        return Ok(Method { unit, word: method >> 2 });
    }
    let message =
        format!("method {method:#x} of unit {unit}: there are {UNITS} units of {METHODS:#x} methods");
    let (value, bound) = ((unit as u64, method as u64), (UNITS as u64, METHODS as u64 * 4));
    Err(error_about(py, Class::InvalidArgument, message, value, bound))
}
