//! The one property of a machine that decides the large sizes: what a dependent cache miss costs.

use std::time::Instant;

use pyo3::prelude::*;

/// Nanoseconds of one dependent read at random in `mebibytes` of memory: means of many, their median.
#[pyfunction]
pub fn cache_miss_ns(mebibytes: usize) -> f64 {
    // One entry a cache line, joined to a single random cycle (Sattolo's shuffle), so that no
    // prefetcher can guess the next line and no short loop stays in the cache.
    const LINE: usize = 8;
    let lines = (mebibytes << 20) / (LINE * size_of::<u64>());
    if lines < 2 {
        return 0.0;
    }
    let mut order: Vec<u32> = (0..lines as u32).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for i in (1..lines).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(i, (state >> 33) as usize % i);
    }
    let mut memory = vec![0_u64; lines * LINE];
    for (i, &next) in order.iter().enumerate() {
        memory[i * LINE] = u64::from(next);
    }
    drop(order);
    let steps = 400_000;
    let mut at = 0_usize;
    let mut means = [0.0_f64; 7];
    for mean in &mut means {
        let begin = Instant::now();
        for _ in 0..steps {
            at = memory[at * LINE] as usize;
        }
        *mean = begin.elapsed().as_secs_f64() * 1e9 / f64::from(steps);
    }
    std::hint::black_box(at);
    means.sort_by(f64::total_cmp);
    means[means.len() / 2]
}
