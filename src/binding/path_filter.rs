//! Paths that other processes pass to system calls: which of them surely lead to none of a few files.

use std::ffi::{CStr, CString, c_int};
use std::io::Error;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Bytes of the longest path, its last zero included.
const PATH_MAX: usize = 4096;
const PAGE: usize = 4096;
/// How much is read at once: few paths are longer.
const CHUNK: usize = 256;

/// Tells paths to some files from all others, as the process sees them that passes them; ``device.paths`` explains.
///
/// The interpreter's lock is given back meanwhile, since a path may lead to where nobody answers.
///
/// Cost: 4 us, 6 system calls.
#[pyclass(module = "gpuvm._core", frozen)]
pub struct PathFilter {
    files: Vec<(u64, u64)>,
    procfs: u64,
    words: Vec<Vec<u8>>,
}

#[pymethods]
impl PathFilter {
    /// ``files``: device and inode of each. ``procfs``: the device of /proc, of whose files those of fdinfo count,
    /// too. ``words``: a path that has one of them counts, if there is no such file.
    #[new]
    #[pyo3(signature = (files, procfs, words))]
    fn new(files: Vec<(u64, u64)>, procfs: u64, words: Vec<Vec<u8>>) -> Self {
        PathFilter { files, procfs, words }
    }

    /// The path at ``addr`` of thread ``tid``, if it is empty or may lead to one of the files; None: surely not.
    ///
    /// ``directory``: the thread's descriptor that a relative one begins at, or AT_FDCWD. ``follow``: the last link,
    /// too.
    #[pyo3(signature = (tid, directory, addr, follow))]
    fn candidate<'py>(
        &self,
        py: Python<'py>,
        tid: c_int,
        directory: c_int,
        addr: u64,
        follow: bool,
    ) -> Option<Bound<'py, PyBytes>> {
        let mut buffer = [0; PATH_MAX];
        let path = py.detach(|| {
            let path = read_path(tid, addr as usize, &mut buffer)?;
            self.may_lead(tid, directory, path, follow).then_some(path)
        })?;
        Some(PyBytes::new(py, path.to_bytes()))
    }
}

impl PathFilter {
    fn may_lead(&self, tid: c_int, directory: c_int, path: &CStr, follow: bool) -> bool {
        if path.is_empty() {
            return true;
        }
        let is_absolute = path.to_bytes().starts_with(b"/");
        let start = match directory {
            _ if is_absolute => format!("/proc/{tid}/root"),
            libc::AT_FDCWD => format!("/proc/{tid}/cwd"),
            number => format!("/proc/{tid}/fd/{number}"),
        };
        let start = CString::new(start).expect("text has no zero");
        let start = match open(libc::AT_FDCWD, &start, 0, 0) {
            Ok(start) => start,
            Err(error) => return is_full(error),
        };
        let confined = if is_absolute { libc::RESOLVE_IN_ROOT } else { libc::RESOLVE_BENEATH };
        let no_follow = if follow { 0 } else { libc::O_NOFOLLOW };
        match open(start.as_raw_fd(), path, no_follow, confined) {
            Ok(file) => self.is_meant(&file),
            Err(libc::ENOENT) => self.has_word(path) || self.is_unsure(&start, path),
            Err(libc::EXDEV | libc::ELOOP | libc::EAGAIN) => true,
            Err(error) => is_full(error),
        }
    }

    fn is_meant(&self, file: &OwnedFd) -> bool {
        let Some((device, inode)) = identity(file) else { return true };
        self.files.contains(&(device, inode)) || (device == self.procfs && is_fdinfo(file))
    }

    fn has_word(&self, path: &CStr) -> bool {
        let path = path.to_bytes();
        self.words.iter().any(|word| path.windows(word.len().max(1)).any(|part| part == word))
    }

    /// What is missing to us may be there: behind a link, in procfs, that says whose files these are.
    fn is_unsure(&self, start: &OwnedFd, path: &CStr) -> bool {
        let missing = |resolve| {
            open(start.as_raw_fd(), path, 0, libc::RESOLVE_IN_ROOT | resolve).err() == Some(libc::ENOENT)
        };
        let begins_there = identity(start).is_none_or(|(device, _)| device == self.procfs);
        begins_there || !(missing(libc::RESOLVE_NO_XDEV) || missing(libc::RESOLVE_NO_SYMLINKS))
    }
}

/// The string at `addr`; None if the kernel would refuse it.
fn read_path(pid: c_int, addr: usize, buffer: &mut [u8; PATH_MAX]) -> Option<&CStr> {
    let mut len = 0;
    while len < PATH_MAX {
        let at = addr.checked_add(len)?;
        let size = CHUNK.min(PAGE - at % PAGE).min(PATH_MAX - len);
        let chunk = &mut buffer[len..len + size];
        let ours = libc::iovec { iov_base: chunk.as_mut_ptr().cast(), iov_len: size };
        let theirs = libc::iovec { iov_base: ptr::without_provenance_mut(at), iov_len: size };
        // SAFETY: the kernel writes into `chunk`, and checks the other process's addresses.
        let copied = unsafe { libc::process_vm_readv(pid, &raw const ours, 1, &raw const theirs, 1, 0) };
        if copied != size.cast_signed() {
            return None;
        }
        if chunk.contains(&0) {
            return CStr::from_bytes_until_nul(&buffer[..len + size]).ok();
        }
        len += size;
    }
    None
}

/// What `path` leads to (`O_PATH`), or an errno.
fn open(directory: c_int, path: &CStr, flags: c_int, resolve: u64) -> Result<OwnedFd, c_int> {
    // SAFETY: it consists of integers.
    let mut how: libc::open_how = unsafe { MaybeUninit::zeroed().assume_init() };
    how.flags = u64::from((libc::O_PATH | libc::O_CLOEXEC | flags).cast_unsigned());
    how.resolve = resolve;
    let size = size_of::<libc::open_how>();
    // SAFETY: the kernel reads the path up to its zero, and `how`.
    let fd = unsafe { libc::syscall(libc::SYS_openat2, directory, path.as_ptr(), &raw const how, size) };
    if fd < 0 {
        return Err(Error::last_os_error().raw_os_error().unwrap_or(libc::EIO));
    }
    // SAFETY: it was opened just now.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// Whether we have no descriptor left. Then nothing is sure.
fn is_full(error: c_int) -> bool {
    matches!(error, libc::EMFILE | libc::ENFILE)
}

/// Device and inode.
fn identity(file: &OwnedFd) -> Option<(u64, u64)> {
    let mut status = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the kernel writes `status`, which consists of integers.
    let status = unsafe {
        if libc::fstat(file.as_raw_fd(), status.as_mut_ptr()) < 0 {
            return None;
        }
        status.assume_init()
    };
    Some((status.st_dev, status.st_ino))
}

/// Whether a file of procfs is one of those that tell about descriptors.
fn is_fdinfo(file: &OwnedFd) -> bool {
    let link = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("text has no zero");
    let mut buffer = [0_u8; 256];
    // SAFETY: the kernel reads the path up to its zero, and writes into `buffer`.
    let len = unsafe { libc::readlink(link.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    let name = &buffer[..len.max(0).cast_unsigned()];
    name.windows(8).any(|part| part == b"/fdinfo/")
}
