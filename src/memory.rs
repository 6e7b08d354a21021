//! Growing the core's arrays: fallible, before anything is changed, and able to fail on demand.

use std::alloc::{Layout, alloc_zeroed};
use std::cell::Cell;
use std::collections::TryReserveError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Why an array did not grow; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no memory.
    Exhausted,
    /// This thread must not allocate now.
    Forbidden,
}

const DISARMED: u64 = u64::MAX;
/// Reservations still granted before one is refused; for fault injection.
static GRANTED: AtomicU64 = AtomicU64::new(DISARMED);

/// Threads in a section that must not allocate.
static SECTIONS: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    /// How many such sections this thread is in.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Refuse the `n`-th reservation from now (0 is the next); `None` disarms.
pub fn fail_after(n: Option<u64>) {
    GRANTED.store(n.unwrap_or(DISARMED), Relaxed);
}

/// True while a refusal is on its way.
#[inline(always)]
pub fn armed() -> bool {
    GRANTED.load(Relaxed) != DISARMED
}

/// Enter a section in which this thread must not allocate, or leave it; false if it is in none to leave.
pub fn forbid(forbidden: bool) -> bool {
    let depth = DEPTH.get();
    match (depth, forbidden) {
        (0, false) => return false,
        (0, true) => _ = SECTIONS.fetch_add(1, Relaxed),
        (1, false) => _ = SECTIONS.fetch_sub(1, Relaxed),
        _ => {}
    }
    DEPTH.set(if forbidden { depth + 1 } else { depth - 1 });
    true
}

/// True if this thread must not allocate now.
#[inline(always)]
pub fn forbidden() -> bool {
    SECTIONS.load(Relaxed) != 0 && DEPTH.get() != 0
}

/// Make room for `additional` more elements, growing by a quarter at least.
#[inline]
pub fn reserve<T>(array: &mut Vec<T>, additional: usize) -> Result<(), Refused> {
    if array.capacity() - array.len() >= additional && !armed() {
        return Ok(());
    }
    grow(array, additional)
}

/// `reserve` for what grows with a call's answer, and is allowed in any section: the answer, and what can undo it.
pub fn reserve_anywhere<T>(array: &mut Vec<T>, additional: usize) -> Result<(), Refused> {
    if array.capacity() - array.len() >= additional && !armed() {
        return Ok(());
    }
    grant()?;
    array.try_reserve_exact(additional.max(array.capacity() / 4)).map_err(|_| Refused::Exhausted)
}

/// Append, unless there is no memory.
#[inline]
pub fn push<T>(array: &mut Vec<T>, element: T) -> Result<(), Refused> {
    reserve(array, 1)?;
    array.push(element);
    Ok(())
}

#[cold]
fn grow<T>(array: &mut Vec<T>, additional: usize) -> Result<(), Refused> {
    let missing = array.capacity() - array.len() < additional;
    let quarter = array.capacity() / 4;
    allocate(missing, || array.try_reserve_exact(additional.max(quarter)))
}

/// Allocate what is `missing`, unless fault injection or a section refuses it.
#[cold]
pub fn allocate(
    missing: bool,
    allocation: impl FnOnce() -> Result<(), TryReserveError>,
) -> Result<(), Refused> {
    grant()?;
    match (missing, forbidden()) {
        (false, _) => Ok(()),
        (true, true) => Err(Refused::Forbidden),
        (true, false) => allocation().map_err(|_| Refused::Exhausted),
    }
}

/// Count one reservation for fault injection.
fn grant() -> Result<(), Refused> {
    match GRANTED.load(Relaxed) {
        DISARMED => Ok(()),
        0 => {
            GRANTED.store(DISARMED, Relaxed);
            Err(Refused::Exhausted)
        }
        n => {
            GRANTED.store(n - 1, Relaxed);
            Ok(())
        }
    }
}

/// Numbers of which 0 is all bits 0.
///
/// # Safety
///
/// Bytes that are all 0 must be a valid value of the type.
pub unsafe trait Number: Copy {}

// SAFETY: every byte pattern is a valid integer.
unsafe impl Number for u8 {}
// SAFETY: as above.
unsafe impl Number for u32 {}
// SAFETY: as above.
unsafe impl Number for u64 {}

/// `len` zeros. The system hands the memory out as it is first touched, so that a large array costs little.
pub fn zeroed<T: Number>(len: usize) -> Result<Vec<T>, Refused> {
    grant()?;
    if forbidden() {
        return Err(Refused::Forbidden);
    }
    let layout = Layout::array::<T>(len).map_err(|_| Refused::Exhausted)?;
    if layout.size() == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the layout is not empty.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        return Err(Refused::Exhausted);
    }
    // SAFETY: the global allocator made `memory` for `len` elements; they are zeros, and so valid.
    Ok(unsafe { Vec::from_raw_parts(memory.cast(), len, len) })
}
