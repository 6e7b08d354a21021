//! Surviving that somebody cuts off a file whose pages are mapped here.
//!
//! An access beyond the end of a file raises SIGBUS. The handler makes the file as long as it was, and the access is
//! repeated, and finds zeros. It runs in the midst of anything, so it looks at nothing but atomic words and makes
//! system calls.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};

const GUARDS: usize = 64;
/// Ranges of addresses that show a file: all of it, and what memories show of it.
pub const RANGES: usize = 3;
const PAGE: usize = 4096;

/// A guarded file, while `taken`.
struct Guard {
    taken: AtomicBool,
    fd: AtomicI32,
    /// Bytes that the file has to have.
    size: AtomicU64,
    /// Address and length; of none the length is 0.
    ranges: [(AtomicUsize, AtomicUsize); RANGES],
    /// How often it was made longer again.
    mended: AtomicU64,
    /// Pages in the place of which are zeros now, that are nobody's, since that did not help.
    lost: AtomicU64,
}

static TABLE: [Guard; GUARDS] = [const {
    Guard {
        taken: AtomicBool::new(false),
        fd: AtomicI32::new(-1),
        size: AtomicU64::new(0),
        ranges: [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; RANGES],
        mended: AtomicU64::new(0),
        lost: AtomicU64::new(0),
    }
}; GUARDS];

static INSTALLED: Once = Once::new();
/// What was done about SIGBUS before, for what is not guarded.
static mut BEFORE: MaybeUninit<libc::sigaction> = MaybeUninit::zeroed();

/// A place in the table, until it is dropped.
pub struct Guarded(&'static Guard);

impl Guarded {
    /// Have the file `fd` survive, wherever the ranges show pages of it; None: there are too many guards.
    ///
    /// It stays open, and the ranges mapped, for as long as the result is there.
    pub fn new(fd: c_int, size: u64, ranges: &[(usize, usize)]) -> Option<Guarded> {
        assert!(ranges.len() <= RANGES);
        INSTALLED.call_once(install);
        let guard = TABLE.iter().find(|one| {
            one.taken.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).is_ok()
        })?;
        guard.mended.store(0, Ordering::Relaxed);
        guard.lost.store(0, Ordering::Relaxed);
        guard.fd.store(fd, Ordering::Relaxed);
        guard.size.store(size, Ordering::Relaxed);
        for (place, &(address, length)) in guard.ranges.iter().zip(ranges) {
            place.0.store(address, Ordering::Relaxed);
            place.1.store(length, Ordering::Release);
        }
        Some(Guarded(guard))
    }

    pub fn mended(&self) -> u64 {
        self.0.mended.load(Ordering::Relaxed)
    }

    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        for place in &self.0.ranges {
            place.1.store(0, Ordering::Release);
        }
        self.0.taken.store(false, Ordering::Release);
    }
}

fn install() {
    // SAFETY: the action is whole; `BEFORE` is written once, before the handler can run.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        libc::sigaction(libc::SIGBUS, ptr::null(), (&raw mut BEFORE).cast());
        libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
    }
}

extern "C" fn on_sigbus(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a whole siginfo; errno is this thread's.
    let (address, errno) = unsafe { ((*info).si_addr().addr(), libc::__errno_location()) };
    // SAFETY: as above.
    let before = unsafe { *errno };
    let guard = TABLE.iter().find(|guard| {
        guard.ranges.iter().any(|(start, length)| {
            let length = length.load(Ordering::Acquire);
            address.wrapping_sub(start.load(Ordering::Relaxed)) < length
        })
    });
    if !guard.is_some_and(|guard| mend(guard, address)) {
        pass_on(signal, info, context);
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// Have something at `address` that can be accessed.
fn mend(guard: &Guard, address: usize) -> bool {
    let (fd, size) = (guard.fd.load(Ordering::Relaxed), guard.size.load(Ordering::Relaxed));
    let mut status = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: there is room for the answer.
    let is_short = unsafe {
        libc::fstat(fd, status.as_mut_ptr()) == 0 && status.assume_init_ref().st_size.cast_unsigned() < size
    };
    // SAFETY: a system call on a file of ours.
    if is_short && unsafe { libc::ftruncate(fd, size.cast_signed()) } == 0 {
        guard.mended.fetch_add(1, Ordering::Relaxed);
        return true;
    }
    let page = ptr::without_provenance_mut::<c_void>(address & !(PAGE - 1));
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: the page is one of the guarded mapping, and nothing could be read there.
    let got = unsafe { libc::mmap(page, PAGE, protection, flags, -1, 0) };
    let done = got != libc::MAP_FAILED;
    guard.lost.fetch_add(u64::from(done), Ordering::Relaxed);
    done
}

/// What would have been without us.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: written before the handler was installed, and never again.
    let before = unsafe { &*(&raw const BEFORE).cast::<libc::sigaction>() };
    if before.sa_sigaction == libc::SIG_DFL || before.sa_sigaction == libc::SIG_IGN {
        // SAFETY: the access is repeated when we return, and then ends the process.
        unsafe { libc::sigaction(signal, before, ptr::null_mut()) };
        return;
    }
    // SAFETY: it is a handler, of the kind that its flags say.
    unsafe {
        let handler = ptr::without_provenance::<c_void>(before.sa_sigaction);
        if before.sa_flags & libc::SA_SIGINFO != 0 {
            type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
            std::mem::transmute::<*const c_void, Handler>(handler)(signal, info, context);
        } else {
            std::mem::transmute::<*const c_void, extern "C" fn(c_int)>(handler)(signal);
        }
    }
}
