//! What the processor offers beyond the least common one: wider vectors, prefetching.

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
