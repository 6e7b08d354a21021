//! Growing the core's arrays: fallible, before anything is changed, and able to fail on demand.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// An allocation failed; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

const DISARMED: u64 = u64::MAX;
/// Reservations still granted before one is refused; for fault injection.
static GRANTED: AtomicU64 = AtomicU64::new(DISARMED);

/// Refuse the `n`-th reservation from now (0 is the next); `None` disarms.
pub fn fail_after(n: Option<u64>) {
    GRANTED.store(n.unwrap_or(DISARMED), Relaxed);
}

/// True while a refusal is on its way.
#[inline(always)]
pub fn armed() -> bool {
    GRANTED.load(Relaxed) != DISARMED
}

/// Make room for `additional` more elements, growing by a quarter at least.
#[inline]
pub fn reserve<T>(array: &mut Vec<T>, additional: usize) -> Result<(), Exhausted> {
    if array.capacity() - array.len() >= additional && !armed() {
        return Ok(());
    }
    grow(array, additional)
}

#[cold]
fn grow<T>(array: &mut Vec<T>, additional: usize) -> Result<(), Exhausted> {
    match GRANTED.load(Relaxed) {
        DISARMED => {}
        0 => {
            GRANTED.store(DISARMED, Relaxed);
            return Err(Exhausted);
        }
        n => GRANTED.store(n - 1, Relaxed),
    }
    if array.capacity() - array.len() >= additional {
        return Ok(());
    }
    let quarter = array.capacity() / 4;
    array.try_reserve_exact(additional.max(quarter)).map_err(|_| Exhausted)
}
