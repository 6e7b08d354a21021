//! `RawMutex`: a mutex as long as nobody fights over it and nobody watches. All else of its life is Python's,
//! `gpuvm.sync.mutex`; here is what it comes to then, in one step of the interpreter.

use std::ffi::c_ulong;
use std::sync::atomic::{AtomicU8, Ordering};

use pyo3::exceptions::PyAttributeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::errors::{Class, error_about};

unsafe extern "C" {
    /// What ``_thread.get_ident`` returns.
    safe fn PyThread_get_thread_ident() -> c_ulong;
}

/// Who wants to know of each lock that is taken, a bit each.
static WATCHERS: AtomicU8 = AtomicU8::new(0);
/// How many there can be.
const MOST: u8 = 8;

/// While ``on``, locks are taken and let go in Python, step by step: watcher ``number``, from 0 to 7, wants to see it.
#[pyfunction]
#[pyo3(signature = (number, on))]
pub fn watch_locks(py: Python<'_>, number: u8, on: bool) -> PyResult<()> {
    if number >= MOST {
        let message = format!("watch_locks: watcher {number}; there are {MOST}");
        return Err(error_about(py, Class::InvalidArgument, message, u64::from(number), u64::from(MOST)));
    }
    // Under the interpreter's lock, as all that reads it.
    if on {
        WATCHERS.fetch_or(1 << number, Ordering::Relaxed);
    } else {
        WATCHERS.fetch_and(!(1 << number), Ordering::Relaxed);
    }
    Ok(())
}

/// Whether anybody has to see that a lock is asked for.
#[inline]
pub fn watched() -> bool {
    WATCHERS.load(Ordering::Relaxed) != 0
}

/// The numbers of an acquire context that change with each lock; see ``gpuvm.sync.ww_acquire``.
#[pyclass(module = "gpuvm._core", subclass)]
pub struct RawTicket {
    #[pyo3(get)]
    ww_class: Py<PyAny>,
    #[pyo3(get)]
    stamp: Py<PyAny>,
    /// Locks held under it.
    #[pyo3(get, set)]
    pub acquired: i64,
    /// The lock to take first after ``Contended``.
    #[pyo3(get, set)]
    pub contending: Option<Py<PyAny>>,
    /// In whose queue it is.
    #[pyo3(get, set)]
    waits_for: Option<Py<PyAny>>,
    /// An older context waits for one of its locks (wound-wait).
    #[pyo3(get, set)]
    wounded: bool,
    /// It was taken out of a queue and has to give way.
    #[pyo3(get, set)]
    killed: bool,
    /// How often it got ``Contended``.
    #[pyo3(get, set)]
    gave_way: u64,
    /// ``done`` was called: no further locks.
    #[pyo3(get, set)]
    pub finished: bool,
}

#[pymethods]
impl RawTicket {
    #[new]
    #[pyo3(signature = (ww_class))]
    fn new(ww_class: &Bound<'_, PyAny>) -> PyResult<Self> {
        let stamp = ww_class.getattr(intern!(ww_class.py(), "next_stamp"))?.call0()?;
        Ok(RawTicket {
            ww_class: ww_class.clone().unbind(),
            stamp: stamp.unbind(),
            acquired: 0,
            contending: None,
            waits_for: None,
            wounded: false,
            killed: false,
            gave_way: 0,
            finished: false,
        })
    }

    #[pyo3(signature = (ww_class))]
    #[expect(unused_variables, reason = "it is `new`'s, too")]
    fn __init__(slf: &Bound<'_, Self>, ww_class: &Bound<'_, PyAny>) -> PyResult<()> {
        if watched() { slf.call_method0(intern!(slf.py(), "_begin")).map(drop) } else { Ok(()) }
    }

    /// Say that all locks are taken (``ww_acquire_done``).
    fn done(&mut self) {
        self.finished = true;
    }

    /// End it (``ww_acquire_fini``).
    ///
    /// Raises:
    ///     InvalidArgument: locks are still held.
    pub fn fini(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, acquired) = (slf.py(), slf.borrow().acquired);
        if acquired != 0 {
            let message = format!("fini: {} must hold nothing; unlock its locks first", slf.repr()?);
            return Err(error_about(py, Class::InvalidArgument, message, acquired, 0i64));
        }
        if watched() { slf.call_method0(intern!(py, "_end")).map(drop) } else { Ok(()) }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.ww_class)?;
        visit.call(&self.contending)?;
        visit.call(&self.waits_for)
    }

    fn __clear__(&mut self) {
        self.contending = None;
        self.waits_for = None;
    }
}

/// By whom a mutex is held.
enum Holder {
    Nobody,
    Thread(c_ulong),
    Ticket(Py<RawTicket>),
}

/// The token of a mutex, whoever holds it, and who waits.
///
/// Whoever removes the token has the mutex: a thread, or by ``ww_lock`` an acquire context. The queue is a list that
/// Python keeps.
#[pyclass(module = "gpuvm._core", subclass)]
pub struct RawMutex {
    /// The token is there.
    free: bool,
    holder: Holder,
    queue: Py<PyList>,
    /// What a reservation has room for until it is unlocked.
    #[pyo3(get, set, name = "_slots")]
    slots: usize,
}

impl RawMutex {
    /// Call with the mutex held by this thread.
    pub fn with<R>(slf: &Bound<'_, Self>, call: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
        Self::__enter__(slf)?;
        let result = call();
        let released = slf.borrow_mut().release(slf.py());
        if released.is_none() {
            slf.call_method0(intern!(slf.py(), "unlock"))?;
        }
        result
    }

    /// Whether `mutex` is held by `ticket`.
    pub fn is_held(mutex: &Bound<'_, PyAny>, ticket: &Bound<'_, RawTicket>) -> bool {
        mutex
            .cast::<Self>()
            .is_ok_and(|mutex| matches!(&mutex.borrow().holder, Holder::Ticket(holder) if holder.is(ticket)))
    }

    /// Let go as its holder, who is returned, if that is all there is to do.
    #[inline]
    fn release(&mut self, py: Python<'_>) -> Option<Holder> {
        if watched() || self.queue.bind(py).len() > 0 {
            return None;
        }
        match &self.holder {
            Holder::Thread(thread) if *thread == PyThread_get_thread_ident() => (),
            Holder::Ticket(ticket) => ticket.borrow_mut(py).acquired -= 1,
            _ => return None,
        }
        (self.free, self.slots) = (true, 0);
        Some(std::mem::replace(&mut self.holder, Holder::Nobody))
    }

    /// Take it for this thread, if that is all there is to do.
    #[inline]
    fn acquire(&mut self) -> bool {
        let got = self.free && !watched();
        if got {
            (self.free, self.holder) = (false, Holder::Thread(PyThread_get_thread_ident()));
        }
        got
    }
}

#[pymethods]
impl RawMutex {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(py: Python<'_>, _args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        RawMutex { free: true, holder: Holder::Nobody, queue: PyList::empty(py).unbind(), slots: 0 }
    }

    /// ``Mutex.lock``.
    #[pyo3(signature = (*, interruptible = false))]
    fn lock(slf: &Bound<'_, Self>, interruptible: bool) -> PyResult<()> {
        if slf.borrow_mut().acquire() {
            return Ok(());
        }
        slf.call_method1(intern!(slf.py(), "_lock"), (interruptible,)).map(drop)
    }

    /// ``Mutex.unlock``.
    fn unlock(slf: &Bound<'_, Self>) -> PyResult<()> {
        let released = slf.borrow_mut().release(slf.py());
        match released {
            Some(_) => Ok(()),
            None => slf.call_method0(intern!(slf.py(), "_unlock")).map(drop),
        }
    }

    /// ``WwMutex.lock``.
    #[pyo3(signature = (ticket = None, interruptible = false))]
    fn ww_lock(
        slf: &Bound<'_, Self>,
        ticket: Option<&Bound<'_, RawTicket>>,
        interruptible: bool,
    ) -> PyResult<()> {
        let py = slf.py();
        let mut mutex = slf.borrow_mut();
        if !mutex.acquire() {
            drop(mutex);
            return slf.call_method1(intern!(py, "_lock"), (ticket, interruptible)).map(drop);
        }
        if let Some(ticket) = ticket {
            ticket.borrow_mut().acquired += 1;
            mutex.holder = Holder::Ticket(ticket.clone().unbind());
        }
        let fought_over = mutex.queue.bind(py).len() > 0;
        drop(mutex);
        if fought_over { slf.call_method0(intern!(py, "_meet_queue")).map(drop) } else { Ok(()) }
    }

    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let mut mutex = slf.borrow_mut();
        let alone = mutex.queue.bind(slf.py()).len() == 0;
        if !(alone && mutex.acquire()) {
            drop(mutex);
            slf.call_method0(intern!(slf.py(), "lock"))?;
        }
        Ok(slf.clone())
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(slf: &Bound<'_, Self>, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        let released = slf.borrow_mut().release(slf.py());
        match released {
            Some(_) => Ok(()),
            None => slf.call_method0(intern!(slf.py(), "unlock")).map(drop),
        }
    }

    /// Take the token, if it is there, for ``holder``: a thread's number, an acquire context, or nobody yet.
    #[pyo3(signature = (holder))]
    fn _take(slf: &Bound<'_, Self>, holder: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let holder = read_holder(holder)?;
        let mut mutex = slf.borrow_mut();
        if !mutex.free {
            return Ok(false);
        }
        mutex.free = false;
        let _before = std::mem::replace(&mut mutex.holder, holder);
        drop(mutex);
        Ok(true)
    }

    /// The token, while it is there.
    #[getter]
    fn _token(&self) -> PyResult<()> {
        if self.free { Ok(()) } else { Err(PyAttributeError::new_err("the token is taken")) }
    }

    /// ``del mutex._token`` takes it for this thread: that is no call, after which Python would handle Ctrl-C.
    #[deleter(_token)]
    fn take_for_this_thread(&mut self) -> PyResult<()> {
        self._token()?;
        self.free = false;
        let before = std::mem::replace(&mut self.holder, Holder::Thread(PyThread_get_thread_ident()));
        debug_assert!(matches!(before, Holder::Nobody));
        Ok(())
    }

    /// ``mutex._token = None`` puts it back, by no call either: nobody holds it.
    #[setter(_token)]
    fn give_back(slf: &Bound<'_, Self>, _nothing: Option<&Bound<'_, PyAny>>) {
        let mut mutex = slf.borrow_mut();
        mutex.free = true;
        let _before = std::mem::replace(&mut mutex.holder, Holder::Nobody);
        drop(mutex);
    }

    /// Whether the token is taken.
    #[getter]
    fn locked(&self) -> bool {
        !self.free
    }

    #[getter]
    fn _queue<'py>(&self, py: Python<'py>) -> Bound<'py, PyList> {
        self.queue.bind(py).clone()
    }

    /// A thread's number, an acquire context, or None.
    #[getter]
    fn _holder(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        Ok(match &self.holder {
            Holder::Nobody => None,
            Holder::Thread(thread) => Some(thread.into_pyobject(py)?.into_any().unbind()),
            Holder::Ticket(ticket) => Some(ticket.clone_ref(py).into_any()),
        })
    }

    #[setter(_holder)]
    fn set_holder(slf: &Bound<'_, Self>, holder: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let holder = read_holder(holder)?;
        let _before = std::mem::replace(&mut slf.borrow_mut().holder, holder);
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Holder::Ticket(ticket) = &self.holder {
            visit.call(ticket)?;
        }
        visit.call(&self.queue)
    }

    fn __clear__(&mut self) {
        self.holder = Holder::Nobody;
    }
}

fn read_holder(holder: Option<&Bound<'_, PyAny>>) -> PyResult<Holder> {
    let Some(holder) = holder else { return Ok(Holder::Nobody) };
    Ok(match holder.cast::<RawTicket>() {
        Ok(ticket) => Holder::Ticket(ticket.clone().unbind()),
        Err(_) => Holder::Thread(holder.extract()?),
    })
}
