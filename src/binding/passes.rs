//! The passes of the loop of an `Exec`.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use super::errors::{Class, error};
use super::raw_exec::RawExec;
use super::raw_mutex::RawTicket;

/// What ``until_all_locked`` iterates over.
#[pyclass(module = "gpuvm._core")]
pub struct Passes {
    exec: Py<RawExec>,
    ticket: Option<Py<RawTicket>>,
    last: Option<Py<Attempt>>,
    over: bool,
}

#[pymethods]
impl Passes {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    pub fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, Attempt>>> {
        if slf.borrow().over {
            return Ok(None);
        }
        let next = Self::following(slf);
        if !matches!(next, Ok(Some(_))) {
            slf.borrow_mut().end(slf.py());
        }
        next
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.exec)?;
        visit.call(&self.ticket)?;
        visit.call(&self.last)
    }
}

impl Passes {
    pub fn of(exec: Py<RawExec>) -> Self {
        Passes { exec, ticket: None, last: None, over: false }
    }

    fn following<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, Attempt>>> {
        let py = slf.py();
        let exec = slf.borrow().exec.bind(py).clone();
        let refuse = |message: &str| {
            let message = format!("until_all_locked: {message}");
            Err(error(py, Class::InvalidArgument, message))
        };
        let last = slf.borrow().last.as_ref().map(|last| last.borrow(py).entered);
        match last {
            Some(false) => return refuse("put what the loop does in `with attempt:`"),
            Some(true) => (),
            None => {
                let Some(ticket) = RawExec::ticket(&exec) else {
                    return refuse("use it within its `with` block");
                };
                if exec.borrow().attempts > 0 {
                    return refuse("it has been used in this block");
                }
                slf.borrow_mut().ticket = Some(ticket.unbind());
            }
        }
        if exec.borrow().complete {
            return Ok(None);
        }
        if !RawExec::objects(&exec).is_empty() {
            // An exception ended the pass before, and the loop goes on all the same.
            RawExec::unlock_all(&exec)?;
        }
        exec.borrow_mut().attempts += 1;
        let attempt = Bound::new(py, Attempt { exec: exec.unbind(), entered: false })?;
        let _before = slf.borrow_mut().last.replace(attempt.clone().unbind());
        Ok(Some(attempt))
    }

    /// No further locks.
    fn end(&mut self, py: Python<'_>) {
        self.over = true;
        if let Some(ticket) = &self.ticket {
            ticket.borrow_mut(py).finished = true;
        }
    }
}

impl Drop for Passes {
    fn drop(&mut self) {
        if !self.over {
            Python::attach(|py| self.end(py));
        }
    }
}

/// One pass through the loop of an ``Exec``; ``with`` it once.
///
/// Entering takes the lock that ended the pass before.
///
/// Raises, at ``with``:
///     Interrupted: as from ``Exec.lock_obj``.
///     InvalidArgument: it was entered before, or its loop is over.
#[pyclass(module = "gpuvm.exec")]
pub struct Attempt {
    exec: Py<RawExec>,
    #[pyo3(get)]
    entered: bool,
}

#[pymethods]
impl Attempt {
    pub fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, RawExec>> {
        let mut attempt = slf.borrow_mut();
        if attempt.entered {
            let message = "with attempt: this pass was entered before; put all it locks in one block";
            return Err(error(slf.py(), Class::InvalidArgument, message));
        }
        attempt.entered = true;
        let exec = attempt.exec.bind(slf.py()).clone();
        drop(attempt);
        RawExec::begin_attempt(&exec)?;
        Ok(exec)
    }

    #[pyo3(signature = (_kind, failure, _trace))]
    pub fn __exit__(
        slf: &Bound<'_, Self>,
        _kind: &Bound<'_, PyAny>,
        failure: &Bound<'_, PyAny>,
        _trace: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let exec = slf.borrow().exec.bind(slf.py()).clone();
        RawExec::end_attempt(&exec, failure)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.exec)
    }
}
