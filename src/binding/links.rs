//! Which file a descriptor of another process is, as far as /proc tells.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_int};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use pyo3::prelude::*;
use pyo3::types::PyString;

/// So long are names of links that are looked for. What has a longer one is nobody's.
const LONGEST: usize = 64;
/// How many threads' directories stay open: the way to them takes half the time of a look.
const KEPT: usize = 32;

/// What descriptors of other processes are. ``close`` it in the end.
///
/// A directory that stays open is that of a thread, not of its number: once the thread has gone nothing is in it.
#[pyclass(module = "gpuvm._core")]
pub struct DescriptorLinks {
    /// ``/proc/TID/fd`` by number, the ones that were asked for last in front.
    directories: VecDeque<(c_int, OwnedFd)>,
}

#[pymethods]
impl DescriptorLinks {
    #[new]
    fn new() -> Self {
        DescriptorLinks { directories: VecDeque::new() }
    }

    /// Where ``/proc/TID/fd`` leads to, with the descriptor ``fd``: the path of a file, or such as
    /// ``socket:[INODE]``.
    ///
    /// None: it is not open, the thread is gone, we may not look, or what it leads to has more than 63 bytes, or is
    /// no text. The interpreter's lock is kept: it takes three microseconds.
    #[pyo3(signature = (tid, fd))]
    fn find<'py>(&mut self, py: Python<'py>, tid: c_int, fd: u32) -> Option<Bound<'py, PyString>> {
        let name = CString::new(fd.to_string()).ok()?;
        let mut link = [0u8; LONGEST];
        let known = self.directories.iter().position(|(known, _)| *known == tid);
        let mut length = known.map_or(-1, |place| {
            let directory = self.directories.remove(place).expect("it was found there");
            let length = read_link(&directory.1, &name, &mut link);
            if length >= 0 {
                self.directories.push_front(directory);
            }
            length
        });
        if length < 0 {
            // Not open; or another thread has the number of one that is gone.
            match open_directory(tid) {
                Some(directory) => {
                    length = read_link(&directory, &name, &mut link);
                    self.directories.truncate(KEPT - 1);
                    self.directories.push_front((tid, directory));
                }
                // Perhaps we have no descriptor left.
                None => length = read_whole_path(tid, fd, &mut link),
            }
        }
        let length = usize::try_from(length).ok().filter(|&length| length < LONGEST)?;
        Some(PyString::new(py, str::from_utf8(&link[..length]).ok()?))
    }

    /// Keep nothing open.
    fn close(&mut self) {
        self.directories.clear();
    }
}

fn open_directory(tid: c_int) -> Option<OwnedFd> {
    let path = CString::new(format!("/proc/{tid}/fd")).ok()?;
    // SAFETY: the kernel reads the path.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) };
    // SAFETY: it was opened, and is nobody else's.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn read_whole_path(tid: c_int, fd: u32, link: &mut [u8; LONGEST]) -> isize {
    let Ok(path) = CString::new(format!("/proc/{tid}/fd/{fd}")) else { return -1 };
    // SAFETY: the kernel reads the path, and writes no more than the length of `link`.
    unsafe { libc::readlink(path.as_ptr(), link.as_mut_ptr().cast(), LONGEST) }
}

/// The length of a link; -1: there is none.
fn read_link(directory: &OwnedFd, name: &CStr, link: &mut [u8; LONGEST]) -> isize {
    // SAFETY: the kernel reads the name, and writes no more than the length of `link`.
    unsafe { libc::readlinkat(directory.as_raw_fd(), name.as_ptr(), link.as_mut_ptr().cast(), LONGEST) }
}
