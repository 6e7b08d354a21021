//! `SeccompListener`: system calls of other processes come in, and answers go out.

use std::ffi::{c_int, c_void};
use std::io;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// `_IOWR('!', 0, struct seccomp_notif)` and what follows it.
const RECV: u64 = 0xc050_2100;
const SEND: u64 = 0xc018_2101;
const ID_VALID: u64 = 0x4008_2102;

/// The answer that is none: the kernel carries the call out.
const CONTINUE: i64 = i64::MIN;
/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`
const FLAG_CONTINUE: u32 = 1;

/// `struct seccomp_notif`
#[repr(C)]
#[derive(Default)]
struct Received {
    id: u64,
    pid: u32,
    flags: u32,
    nr: c_int,
    arch: u32,
    ip: u64,
    args: [u64; 6],
}

/// `struct seccomp_notif_resp`
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// A system call that waits for its answer.
#[pyclass(module = "gpuvm._core", frozen, get_all)]
pub struct Notification {
    id: u64,
    /// Of the thread that makes it, as we see it; 0: we see no such thread.
    pid: u32,
    nr: c_int,
    /// Six of them.
    args: Py<PyTuple>,
    /// Where in the program.
    ip: u64,
}

#[pymethods]
impl Notification {
    #[new]
    #[pyo3(signature = (id, pid, nr, args, ip))]
    fn new(id: u64, pid: u32, nr: c_int, args: Py<PyTuple>, ip: u64) -> Self {
        Notification { id, pid, nr, args, ip }
    }

    fn __repr__(&self) -> String {
        let Notification { id, pid, nr, args, ip } = self;
        format!("Notification(id={id:#x}, pid={pid}, nr={nr}, args={args}, ip={ip:#x})")
    }
}

/// The descriptor of a seccomp listener; see ``gpuvm.device.notify.Listener``. Whoever makes it closes it.
#[pyclass(module = "gpuvm._core", subclass, frozen)]
pub struct SeccompListener {
    fd: AtomicI32,
    lost: AtomicU64,
}

#[pymethods]
impl SeccompListener {
    /// As an answer: have the kernel carry the call out.
    #[classattr]
    const CONTINUE: i64 = CONTINUE;

    #[new]
    #[pyo3(signature = (fd))]
    fn new(fd: c_int) -> Self {
        SeccompListener { fd: AtomicI32::new(fd), lost: AtomicU64::new(0) }
    }

    /// The descriptor; -1: it was closed.
    #[getter]
    fn fd(&self) -> c_int {
        self.fd.load(Ordering::Relaxed)
    }

    #[setter]
    fn set_fd(&self, fd: c_int) {
        self.fd.store(fd, Ordering::Relaxed);
    }

    /// Answers that came too late: the caller was gone.
    #[getter]
    fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// The next call. Sleeps until there is one; None once no process is left that could make one.
    #[pyo3(signature = ())]
    fn receive(&self, py: Python<'_>) -> PyResult<Option<Notification>> {
        self.next(py, None)
    }

    /// ``answer``, then ``receive``, which takes half the time.
    #[pyo3(signature = (id, value))]
    fn answer_and_receive(&self, py: Python<'_>, id: u64, value: i64) -> PyResult<Option<Notification>> {
        self.next(py, Some((id, value)))
    }

    /// End the call with ``value``, or with minus an errno, or let it go on; False if its caller is gone.
    #[pyo3(signature = (id, value))]
    fn answer(&self, id: u64, value: i64) -> PyResult<bool> {
        Ok(self.send(id, value)?)
    }

    /// False if the caller is gone.
    #[pyo3(signature = (id))]
    fn is_valid(&self, id: u64) -> PyResult<bool> {
        Ok(waits(self.fd(), id)?)
    }

    /// True if no process is left that could make a call.
    #[pyo3(signature = ())]
    fn abandoned(&self) -> bool {
        let mut wanted = libc::pollfd { fd: self.fd(), events: 0, revents: 0 };
        // SAFETY: the kernel writes into the one that it is given.
        unsafe { libc::poll(&raw mut wanted, 1, 0) == 1 && wanted.revents & libc::POLLHUP != 0 }
    }
}

impl SeccompListener {
    fn next(&self, py: Python<'_>, mut answer: Option<(u64, i64)>) -> PyResult<Option<Notification>> {
        let mut call = Received::default();
        loop {
            // One release of the interpreter's lock for both: between them nothing needs it.
            let received = py.detach(|| {
                if let Some((id, value)) = answer.take() {
                    self.send(id, value)?;
                }
                call = Received::default(); // the kernel refuses what is not zero
                // SAFETY: it is a `struct seccomp_notif`.
                unsafe { ioctl(self.fd(), RECV, (&raw mut call).cast()) }
            });
            match received {
                Ok(true) => return call.into_notification(py).map(Some),
                Ok(false) if self.abandoned() => return Ok(None),
                Ok(false) => {} // the caller was killed in the moment
                Err(error) if error.kind() == io::ErrorKind::Interrupted => py.check_signals()?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn send(&self, id: u64, value: i64) -> io::Result<bool> {
        let mut response = Response { id, value: 0, error: 0, flags: 0 };
        if value == CONTINUE {
            response.flags = FLAG_CONTINUE;
        } else if value < 0 {
            response.error = value as i32;
        } else {
            response.value = value;
        }
        loop {
            // SAFETY: it is a `struct seccomp_notif_resp`.
            match unsafe { ioctl(self.fd(), SEND, (&raw mut response).cast()) } {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(false) => {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    return Ok(false);
                }
                done => return done,
            }
        }
    }
}

/// Whether the call `id` still waits for its answer.
pub fn is_waiting(listener: c_int, id: u64) -> bool {
    waits(listener, id).unwrap_or(false)
}

fn waits(listener: c_int, mut id: u64) -> io::Result<bool> {
    // SAFETY: the kernel reads the number.
    unsafe { ioctl(listener, ID_VALID, (&raw mut id).cast()) }
}

/// False: ENOENT, nobody waits for that.
///
/// SAFETY: the argument is as long as the request says.
unsafe fn ioctl(fd: c_int, request: u64, argument: *mut c_void) -> io::Result<bool> {
    // SAFETY: as the function says.
    if unsafe { libc::ioctl(fd, request as _, argument) } >= 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENOENT) { Ok(false) } else { Err(error) }
}

impl Received {
    fn into_notification(self, py: Python<'_>) -> PyResult<Notification> {
        let args = PyTuple::new(py, self.args)?.unbind();
        Ok(Notification { id: self.id, pid: self.pid, nr: self.nr, args, ip: self.ip })
    }
}
