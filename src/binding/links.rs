//! Which file a descriptor of another process is, as far as /proc tells.

use std::ffi::{CString, c_int};

use pyo3::prelude::*;
use pyo3::types::PyString;

/// So long are names of links that are looked for. What has a longer one is nobody's.
const LONGEST: usize = 64;

/// Where ``/proc/TID/fd`` leads to, with the descriptor ``fd``: the path of a file, or such as ``socket:[INODE]``.
///
/// None: it is not open, the thread is gone, we may not look, or what it leads to has more than 63 bytes, or is no
/// text. The interpreter's lock is kept: it takes two microseconds.
#[pyfunction]
#[pyo3(signature = (tid, fd))]
pub fn descriptor_link(py: Python<'_>, tid: c_int, fd: u32) -> Option<Bound<'_, PyString>> {
    let path = CString::new(format!("/proc/{tid}/fd/{fd}")).ok()?;
    let mut link = [0u8; LONGEST];
    // SAFETY: the kernel reads the path, and writes no more than the length of `link`.
    let length = unsafe { libc::readlink(path.as_ptr(), link.as_mut_ptr().cast(), LONGEST) };
    let length = usize::try_from(length).ok().filter(|&length| length < LONGEST)?;
    Some(PyString::new(py, str::from_utf8(&link[..length]).ok()?))
}
