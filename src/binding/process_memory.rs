//! The memory of a process, by its own addresses.

use std::ffi::{c_int, c_ulong};
use std::io;

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes};

use super::errors::{Class, error_about};
use super::seccomp_listener::is_waiting;

/// How many bytes one system call copies at most, and so how much memory is taken for what cannot be read.
const WINDOW: usize = 1 << 16;
/// The longest array of a driver's call, in bytes. The kernel takes 2 GiB; objects are made of its items.
pub const LONGEST: u64 = 1 << 26;

const EPERM: i32 = 1;

/// `struct iovec`, one of whose bases may be an address of another process.
#[repr(C)]
struct IoVec {
    base: usize,
    len: usize,
}

unsafe extern "C" {
    fn process_vm_readv(
        pid: c_int,
        local: *const IoVec,
        locals: c_ulong,
        remote: *const IoVec,
        remotes: c_ulong,
        flags: c_ulong,
    ) -> isize;
    fn process_vm_writev(
        pid: c_int,
        local: *const IoVec,
        locals: c_ulong,
        remote: *const IoVec,
        remotes: c_ulong,
        flags: c_ulong,
    ) -> isize;
}

/// The memory of one process, this one or another; see ``gpuvm.nouveau.uapi.UserMemory``.
///
/// The interpreter's lock is let go: a page that comes from another program (``userfaultfd``, FUSE) may never come.
#[pyclass(module = "gpuvm._core", subclass, frozen)]
#[derive(Clone)]
pub struct ProcessMemory {
    #[pyo3(get)]
    pid: c_int,
    /// The system call that has us look there: its listener, and its number.
    call: Option<(c_int, u64)>,
}

#[pymethods]
impl ProcessMemory {
    /// Bytes of the longest array that is read unless the call says otherwise.
    #[classattr]
    const LONGEST: u64 = LONGEST;
    /// How many bytes one system call copies at most.
    #[classattr]
    const WINDOW: usize = WINDOW;

    /// With the descriptor of a ``listener`` and the number of a ``call`` the memory is that of the thread that makes
    /// the call, and no other's: threads that are gone leave their number to others.
    #[new]
    #[pyo3(signature = (pid, listener = None, call = 0))]
    fn new(pid: c_int, listener: Option<c_int>, call: u64) -> Self {
        ProcessMemory { pid, call: listener.map(|fd| (fd, call)) }
    }

    /// A copy of ``size`` bytes. None can be read anywhere.
    ///
    /// EFAULT: not all can be read, or the process is gone. EPERM: we may not look into that process. ESRCH: the
    /// caller is gone.
    #[pyo3(signature = (addr, size))]
    pub fn read<'py>(&self, addr: &Bound<'py, PyAny>, size: usize) -> PyResult<Bound<'py, PyByteArray>> {
        let (py, start) = (addr.py(), require_range(addr, size)?);
        let first = size.min(WINDOW);
        let data = PyByteArray::new_with(py, first, |window| self.fill(py, start, window))?;
        for done in (first..size).step_by(WINDOW) {
            let window = WINDOW.min(size - done);
            data.resize(done + window)?;
            // SAFETY: nobody else has it.
            let window = &mut unsafe { data.as_bytes_mut() }[done..];
            self.fill(py, start + done, window)?;
        }
        self.require_caller(py)?; // after: if it is there now, it was
        Ok(data)
    }

    /// Copy ``data`` to ``addr``. No bytes can be written anywhere.
    ///
    /// EFAULT: not all can be written, though the first may have been; or the process is gone. EPERM: we may not look
    /// into that process. ESRCH: the caller is gone.
    #[pyo3(signature = (addr, data))]
    pub fn write(&self, addr: &Bound<'_, PyAny>, data: Bytes<'_>) -> PyResult<()> {
        let copy; // another thread could change an array meanwhile
        let data = match &data {
            Bytes::Fixed(bytes) => bytes.as_bytes(),
            Bytes::Array(bytes) => {
                copy = bytes.to_vec();
                &copy[..]
            }
        };
        let (py, mut start) = (addr.py(), require_range(addr, data.len())?);
        self.require_caller(py)?;
        for window in data.chunks(WINDOW) {
            let ours = IoVec { base: window.as_ptr().addr(), len: window.len() };
            let theirs = IoVec { base: start, len: window.len() };
            // SAFETY: the kernel reads the bytes of `window`, and checks the other process's addresses.
            let copied = py.detach(|| unsafe {
                process_vm_writev(self.pid, &raw const ours, 1, &raw const theirs, 1, 0)
            });
            self.require_all(py, copied, &theirs, "written")?;
            start += window.len();
        }
        Ok(())
    }

    /// The ``count`` items of an array, each of ``size`` bytes, and ``most`` bytes together.
    ///
    /// EOVERFLOW: ``count`` times ``size`` is no u64. ENOMEM: the array is longer than ``most``. And as ``read``.
    ///
    /// Source: ``u_memcpya``.
    #[pyo3(signature = (addr, count, size, most = LONGEST))]
    pub fn read_array<'py>(
        &self,
        addr: &Bound<'py, PyAny>,
        count: u64,
        size: u64,
        most: u64,
    ) -> PyResult<Bound<'py, PyByteArray>> {
        let py = addr.py();
        match count.checked_mul(size) {
            Some(total) if total <= most => self.read(addr, total as usize),
            Some(_) => {
                let message = format!("{count} items of {size} bytes; pass {} at most", most / size);
                Err(error_about(py, Class::OutOfMemory, message, count, most / size))
            }
            None => {
                let message = format!("{count} items of {size} bytes are more than addresses can tell");
                Err(error_about(py, Class::TooMany, message, count, end(py)?))
            }
        }
    }

    fn __repr__(&self) -> String {
        format!("<UserMemory of process {}>", self.pid)
    }
}

/// What can be written.
#[derive(FromPyObject)]
pub enum Bytes<'py> {
    Fixed(Bound<'py, PyBytes>),
    Array(Bound<'py, PyByteArray>),
}

impl Bytes<'_> {
    /// A copy.
    pub fn to_vec(&self) -> Vec<u8> {
        match self {
            Bytes::Fixed(bytes) => bytes.as_bytes().to_vec(),
            Bytes::Array(bytes) => bytes.to_vec(),
        }
    }
}

impl ProcessMemory {
    fn fill(&self, py: Python<'_>, start: usize, window: &mut [u8]) -> PyResult<()> {
        let ours = IoVec { base: window.as_mut_ptr().expose_provenance(), len: window.len() };
        let theirs = IoVec { base: start, len: window.len() };
        // SAFETY: the kernel writes into `window`, and checks the other process's addresses.
        let copied =
            py.detach(|| unsafe { process_vm_readv(self.pid, &raw const ours, 1, &raw const theirs, 1, 0) });
        self.require_all(py, copied, &theirs, "read")
    }

    fn require_caller(&self, py: Python<'_>) -> PyResult<()> {
        match self.call {
            Some((listener, call)) if !is_waiting(listener, call) => {
                let message = format!("thread {} has ended", self.pid);
                Err(error_about(py, Class::Gone, message, i64::from(self.pid), ()))
            }
            _ => Ok(()),
        }
    }

    fn require_all(&self, py: Python<'_>, copied: isize, theirs: &IoVec, how: &str) -> PyResult<()> {
        if copied == theirs.len as isize {
            return Ok(());
        }
        let pid = self.pid;
        if copied < 0 && io::Error::last_os_error().raw_os_error() == Some(EPERM) {
            let message = format!(
                "the memory of process {pid} cannot be {how}: we may not trace it; run as its user, and see the \
                 kernel's ptrace_scope"
            );
            return Err(error_about(py, Class::PermissionDenied, message, i64::from(pid), ()));
        }
        let IoVec { base, len } = theirs;
        let message = format!("not all {len:#x} bytes of process {pid} at {base:#x} can be {how}");
        Err(error_about(py, Class::BadAddress, message, *base as u64, ()))
    }
}

/// The first of so many addresses. Where there are none it may be anything.
fn require_range(addr: &Bound<'_, PyAny>, size: usize) -> PyResult<usize> {
    match addr.extract::<u64>() {
        Ok(start) if start.checked_add((size as u64).saturating_sub(1)).is_some() => Ok(start as usize),
        Err(_) if size == 0 => Ok(0),
        _ => {
            let py = addr.py();
            let shown = addr.call_method1("__format__", ("#x",))?;
            let message = format!("{size:#x} bytes at {shown} end behind the last address");
            Err(error_about(py, Class::BadAddress, message, addr.clone(), end(py)?))
        }
    }
}

/// First address behind all others: 2**64.
fn end(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    (1u128 << 64).into_bound_py_any(py)
}
