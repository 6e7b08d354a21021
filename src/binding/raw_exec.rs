//! `RawExec`: the loop that locks many objects, and what it holds. What it is, and what is told of it, is Python's,
//! `gpuvm.exec.Exec`.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyList, PyType};

use super::errors::{Class, error, error_about, is_a};
use super::passes::Passes;
use super::raw_mutex::{RawMutex, RawTicket, watched};

const INTERRUPTIBLE_WAIT: u32 = 1 << 0;
const IGNORE_DUPLICATES: u32 = 1 << 1;

/// What an `Exec` holds.
///
/// Nothing here is borrowed while Python code may run.
#[pyclass(module = "gpuvm._core", subclass)]
pub struct RawExec {
    #[pyo3(get, name = "_flags")]
    flags: Py<PyAny>,
    interruptible: bool,
    ignore_duplicates: bool,
    /// The acquire context, inside ``with``.
    ticket: Option<Py<RawTicket>>,
    /// What is locked, one object for each reservation.
    #[pyo3(get, name = "_objects")]
    objects: Py<PyList>,
    #[pyo3(get, name = "_contended")]
    contended: Option<Py<PyAny>>,
    /// What was contended, taken first in this pass, and not asked for again yet.
    #[pyo3(get, name = "_prelocked")]
    prelocked: Option<Py<PyAny>>,
    /// Inside ``with attempt``.
    #[pyo3(get, name = "_locking")]
    locking: bool,
    /// A pass met no contention and no exception.
    pub complete: bool,
    #[pyo3(get, name = "_attempts")]
    pub attempts: u64,
    #[pyo3(get, name = "_contentions")]
    contentions: u64,
}

impl RawExec {
    fn lock_each(
        slf: &Bound<'_, Self>,
        objs: &Bound<'_, PyIterator>,
        num_fences: Option<i64>,
    ) -> PyResult<()> {
        for obj in objs {
            Self::lock_one(slf, obj?, num_fences)?;
        }
        Ok(())
    }

    /// Lock an object, and reserve slots.
    fn lock_one(slf: &Bound<'_, Self>, obj: Bound<'_, PyAny>, num_fences: Option<i64>) -> PyResult<()> {
        let py = slf.py();
        let exec = slf.borrow();
        let Some(ticket) = exec.ticket.as_ref().filter(|_| exec.locking) else {
            let message = "Exec: lock inside `with attempt:` in `for attempt in exec.until_all_locked():`";
            return Err(error(py, Class::InvalidArgument, message));
        };
        if let Some(contended) = &exec.contended {
            let message = "Exec: this pass met contention; let Contended reach `with attempt:`";
            return Err(error_about(py, Class::Contended, message, contended.bind(py).clone(), ()));
        }
        let ticket = ticket.clone_ref(py).into_bound(py);
        let prelocked = exec.prelocked.as_ref().map(|obj| obj.clone_ref(py).into_bound(py));
        let (interruptible, ignore_duplicates) = (exec.interruptible, exec.ignore_duplicates);
        drop(exec);
        let resv = resv_of(&obj)?;
        let mut locked_here = true;
        if prelocked.map(|obj| resv_of(&obj)).transpose()?.is_some_and(|own| own.is(&resv)) {
            // Another may have asked for the reservation in the pass before.
            let mut exec = slf.borrow_mut();
            let _before = exec.prelocked.take();
            let objects = exec.objects.clone_ref(py);
            drop(exec);
            objects.bind(py).set_item(0, &obj)?;
        } else if ignore_duplicates && !watched() && RawMutex::is_held(&resv, &ticket) {
            locked_here = false;
        } else {
            match resv.call_method1(intern!(py, "lock"), (&ticket, interruptible)) {
                Ok(_) => Self::objects(slf).append(&obj)?,
                Err(failure) if is_a(py, &failure, Class::AlreadyLocked) && ignore_duplicates => {
                    locked_here = false;
                }
                Err(failure) => {
                    if is_a(py, &failure, Class::Contended) {
                        slf.borrow_mut().contended = Some(obj.unbind());
                    }
                    return Err(failure);
                }
            }
        }
        let Some(num_fences) = num_fences else { return Ok(()) };
        resv.call_method1(intern!(py, "reserve_fences"), (num_fences,)).map(drop).inspect_err(|failure| {
            if locked_here && is_a(py, failure, Class::GpuvmError) {
                let unlocked = Self::unlock_obj(slf, &obj);
                debug_assert!(unlocked.is_ok());
            }
        })
    }

    pub fn objects<'py>(slf: &Bound<'py, Self>) -> Bound<'py, PyList> {
        slf.borrow().objects.bind(slf.py()).clone()
    }

    pub fn ticket<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, RawTicket>> {
        slf.borrow().ticket.as_ref().map(|ticket| ticket.bind(slf.py()).clone())
    }

    /// Unlock the last first.
    pub fn unlock_all(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let _before = slf.borrow_mut().prelocked.take();
        let (objects, ticket) = (Self::objects(slf), Self::ticket(slf));
        let mut gone = None;
        while let Some(last) = objects.len().checked_sub(1) {
            let obj = objects.get_item(last)?;
            objects.del_item(last)?;
            let resv = resv_of(&obj)?;
            if ticket.as_ref().is_some_and(|ticket| RawMutex::is_held(&resv, ticket)) {
                resv.call_method0(intern!(py, "unlock"))?;
            } else {
                gone = Some(obj);
            }
        }
        let Some(gone) = gone else { return Ok(()) };
        let message = format!("Exec: {} was unlocked by other means; use unlock_obj", gone.repr()?);
        Err(error_about(py, Class::InvalidArgument, message, gone, ()))
    }

    /// Allow locking; first take the lock that ended the pass before, waiting as long as it takes.
    pub fn begin_attempt(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let ticket = Self::ticket(slf).filter(|ticket| !ticket.borrow().finished);
        let Some(ticket) = ticket else {
            let message = "with attempt: its loop is over; begin a new block";
            return Err(error(py, Class::InvalidArgument, message));
        };
        let contended = slf.borrow().contended.as_ref().map(|obj| obj.bind(py).clone());
        if let Some(obj) = contended {
            let options = PyDict::new(py);
            options.set_item(intern!(py, "interruptible"), slf.borrow().interruptible)?;
            resv_of(&obj)?.call_method(intern!(py, "lock_slow"), (ticket,), Some(&options))?;
            Self::objects(slf).append(&obj)?;
            let mut exec = slf.borrow_mut();
            exec.prelocked = exec.contended.take();
        }
        slf.borrow_mut().locking = true;
        Ok(())
    }

    /// Whether ``failure`` is the contention that the next pass resolves.
    pub fn end_attempt(slf: &Bound<'_, Self>, failure: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = slf.py();
        let mut exec = slf.borrow_mut();
        exec.locking = false;
        exec.complete = failure.is_none() && exec.contended.is_none();
        if exec.contended.is_none() {
            return Ok(false);
        }
        drop(exec);
        if failure.is_none() || is_a(py, &PyErr::from_value(failure.clone()), Class::Contended) {
            slf.borrow_mut().contentions += 1;
            Self::unlock_all(slf)?;
            return Ok(true);
        }
        let _before = slf.borrow_mut().contended.take(); // that failure is what ended the pass
        if let Some(ticket) = Self::ticket(slf) {
            let _before = ticket.borrow_mut().contending.take();
        }
        Ok(false)
    }
}

/// The reservation of an object.
fn resv_of<'py>(obj: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    obj.getattr(intern!(obj.py(), "resv"))
}

#[pymethods]
impl RawExec {
    #[new]
    #[classmethod]
    #[pyo3(signature = (flags = None))]
    fn new(class: &Bound<'_, PyType>, flags: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let py = class.py();
        let bits = match flags.map(|flags| flags.extract::<u32>()) {
            None => 0,
            Some(Ok(bits)) => bits,
            Some(Err(_)) => class.getattr(intern!(py, "_flags_class"))?.call1((flags,))?.extract()?,
        };
        Ok(RawExec {
            flags: flags.map_or_else(|| py.None(), |flags| flags.clone().unbind()),
            interruptible: bits & INTERRUPTIBLE_WAIT != 0,
            ignore_duplicates: bits & IGNORE_DUPLICATES != 0,
            ticket: None,
            objects: PyList::empty(py).unbind(),
            contended: None,
            prelocked: None,
            locking: false,
            complete: false,
            attempts: 0,
            contentions: 0,
        })
    }

    /// The passes of the loop, until one meets no contention (``drm_exec_until_all_locked``).
    ///
    /// Raises:
    ///     InvalidArgument: outside of ``with``, a second time within it, or a pass was not put in ``with attempt``.
    fn until_all_locked(slf: Bound<'_, Self>) -> Passes {
        Passes::of(slf.unbind())
    }

    /// Lock one object (``drm_exec_lock_obj``).
    ///
    /// Raises:
    ///     Contended: for ``with attempt`` to catch.
    ///     AlreadyLocked: this object, or another with the same reservation, is locked; not with IGNORE_DUPLICATES.
    ///     Interrupted: with INTERRUPTIBLE_WAIT; what is locked stays so until the block ends.
    ///     InvalidArgument: outside of ``with attempt``.
    #[pyo3(signature = (obj))]
    pub fn lock_obj(slf: &Bound<'_, Self>, obj: Bound<'_, PyAny>) -> PyResult<()> {
        Self::lock_one(slf, obj, None)
    }

    /// ``lock_obj`` for each; stops at the first error.
    #[pyo3(signature = (objs))]
    fn lock_array(slf: &Bound<'_, Self>, objs: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::lock_each(slf, &objs.try_iter()?, None)
    }

    /// Lock one object and reserve ``num_fences`` slots in it (``drm_exec_prepare_obj``).
    ///
    /// Raises:
    ///     OutOfMemory, InvalidArgument: from ``Resv.reserve_fences``; if this call locked it, it is unlocked.
    ///     GpuvmError: as from ``lock_obj``.
    #[pyo3(signature = (obj, num_fences))]
    fn prepare_obj(slf: &Bound<'_, Self>, obj: Bound<'_, PyAny>, num_fences: i64) -> PyResult<()> {
        Self::lock_one(slf, obj, Some(num_fences))
    }

    /// ``prepare_obj`` for each; stops at the first error (``drm_exec_prepare_array``).
    #[pyo3(signature = (objs, num_fences))]
    fn prepare_array(slf: &Bound<'_, Self>, objs: &Bound<'_, PyAny>, num_fences: i64) -> PyResult<()> {
        Self::lock_each(slf, &objs.try_iter()?, Some(num_fences))
    }

    /// Unlock one object ahead of the others (``drm_exec_unlock_obj``).
    ///
    /// Raises:
    ///     InvalidArgument: it is not locked here, or only by way of another that shares its reservation.
    #[pyo3(signature = (obj))]
    fn unlock_obj(slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        let (py, objects) = (slf.py(), Self::objects(slf));
        let Some(index) = objects.iter().rposition(|locked| locked.is(obj)) else {
            let message =
                format!("unlock_obj: {} is none of the {} locked objects", obj.repr()?, objects.len());
            return Err(error_about(py, Class::InvalidArgument, message, obj.clone(), ()));
        };
        objects.del_item(index)?;
        let mut exec = slf.borrow_mut();
        let _before = exec.prelocked.take_if(|prelocked| prelocked.is(obj));
        drop(exec);
        resv_of(obj)?.call_method0(intern!(py, "unlock")).map(drop)
    }

    pub fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let py = slf.py();
        if slf.borrow().ticket.is_some() {
            let message = "with Exec: it is in use; make another one";
            return Err(error(py, Class::InvalidArgument, message));
        }
        let ww_class = slf.getattr(intern!(py, "_ww_class"))?;
        let ticket =
            slf.getattr(intern!(py, "_ticket_class"))?.call1((ww_class,))?.cast_into::<RawTicket>()?;
        let mut exec = slf.borrow_mut();
        (exec.attempts, exec.contentions, exec.complete) = (0, 0, false);
        exec.ticket = Some(ticket.unbind());
        drop(exec);
        Ok(slf.clone())
    }

    #[pyo3(signature = (_kind, failure, _trace))]
    pub fn __exit__(
        slf: &Bound<'_, Self>,
        _kind: &Bound<'_, PyAny>,
        failure: &Bound<'_, PyAny>,
        _trace: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = slf.py();
        slf.borrow_mut().locking = false;
        let mut done = if Self::objects(slf).is_empty() { Ok(()) } else { Self::unlock_all(slf) };
        if done.is_ok() && failure.is_none() && slf.borrow().contended.is_some() {
            done = slf.call_method1(intern!(py, "_require_uncontended"), ("with Exec",)).map(drop);
        }
        let mut exec = slf.borrow_mut();
        let (ticket, _before) = (exec.ticket.take(), exec.contended.take());
        drop(exec);
        let ended = ticket.map_or(Ok(()), |ticket| RawTicket::fini(ticket.bind(py)));
        done.and(ended)
    }

    #[getter]
    fn _ticket<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, RawTicket>> {
        Self::ticket(slf)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.ticket)?;
        visit.call(&self.objects)?;
        visit.call(&self.contended)?;
        visit.call(&self.prelocked)
    }

    fn __clear__(&mut self) {
        (self.ticket, self.contended, self.prelocked) = (None, None, None);
    }
}
