//! What the processor offers beyond the least common one: wider vectors, prefetching, stores past the caches.

/// True if code compiled for AVX2, BMI1 and BMI2 may run. Searches count keys, four at a time then.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2")
}

/// Fetch the cache lines of `element` from byte `from` on, `bytes` of them.
#[inline(always)]
pub fn prefetch_lines<T>(element: *const T, from: usize, bytes: usize) {
    let start = element.cast::<i8>().wrapping_add(from);
    for offset in (0..bytes).step_by(64) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch is a hint and reads nothing; any address is allowed.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(offset));
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (start, offset);
    }
}

/// Copy bytes with stores that go past the caches where the processor has such; `order_streams` ends a row of these.
///
/// # Safety
/// `range` bytes must be readable at `source` and writable at `target`, and not overlap.
#[inline]
pub unsafe fn copy_past_caches(target: *mut u8, source: *const u8, range: usize) {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: as the caller promises; the processor has what the function is compiled for.
        return unsafe { stream_avx2(target, source, range) };
    }
    // SAFETY: as the caller promises.
    unsafe { std::ptr::copy_nonoverlapping(source, target, range) }
}

/// What was written past the caches comes before all that this thread writes from now on.
#[inline]
pub fn order_streams() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of this architecture has it.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// Four vectors at a time from the first line of `target` on; the ends, which fill no line, as usual.
///
/// # Safety
/// As `copy_past_caches`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn stream_avx2(target: *mut u8, source: *const u8, range: usize) {
    use std::arch::x86_64::{_mm256_loadu_si256, _mm256_stream_si256};
    const VECTOR: usize = 32;
    const STEP: usize = 4 * VECTOR;
    let head = target.align_offset(64).min(range);
    let body = (range - head) / STEP * STEP;
    // SAFETY: all within `range`; stores are to multiples of a vector, since `head` was skipped.
    unsafe {
        std::ptr::copy_nonoverlapping(source, target, head);
        let (to, from) = (target.add(head), source.add(head));
        for place in (0..body).step_by(STEP) {
            let vectors = [0, 1, 2, 3].map(|n| _mm256_loadu_si256(from.add(place + n * VECTOR).cast()));
            for (n, vector) in vectors.into_iter().enumerate() {
                _mm256_stream_si256(to.add(place + n * VECTOR).cast(), vector);
            }
        }
        let done = head + body;
        std::ptr::copy_nonoverlapping(source.add(done), target.add(done), range - done);
    }
}
