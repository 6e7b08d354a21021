//! `BindLog`: the last operations of bind calls, in the order in which they came.

use std::collections::VecDeque;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::bind_decoder::{Row, rows};

/// A call.
struct Call {
    time: i64,
    run_async: bool,
    /// Operations that it had; the last ones of them are kept.
    ops_in_all: usize,
    kept: usize,
    /// Operations of all calls before.
    before: u64,
}

impl Call {
    /// How much room it takes.
    fn weight(&self) -> usize {
        self.kept.max(1)
    }
}

/// What ``gpuvm.nouveau.BindHistory`` keeps: numbers, no objects.
///
/// Operations lie in a ring, so noting one more touches the memory behind the last.
#[pyclass(module = "gpuvm._core", subclass)]
pub struct BindLog {
    #[pyo3(get)]
    kept: usize,
    ring: Vec<Row>,
    calls: VecDeque<Call>,
    /// The number of the first of them.
    #[pyo3(get)]
    oldest: u64,
    /// Operations that were ever noted.
    noted: u64,
    /// What `calls` weigh.
    weight: usize,
}

/// An operation that was found: its call and place there, what is known of the call, and what it was.
type Found = ((u64, usize), (usize, i64, bool), (u32, u32, u32, u64, u64, u64));

impl BindLog {
    /// Where an operation is, counted from the first that was ever noted.
    fn place(&self, number: u64) -> usize {
        (number % self.kept as u64) as usize
    }

    fn forget_the_oldest(&mut self) {
        while self.weight > self.kept
            && let Some(call) = self.calls.pop_front()
        {
            self.weight -= call.weight();
            self.oldest += 1;
        }
    }
}

#[pymethods]
impl BindLog {
    #[new]
    #[pyo3(signature = (*, kept, **_others))]
    fn new(kept: usize, _others: Option<&Bound<'_, PyDict>>) -> Self {
        BindLog { kept, ring: Vec::new(), calls: VecDeque::new(), oldest: 1, noted: 0, weight: 0 }
    }

    /// A bind call was committed. Locking: the VM's lock.
    ///
    /// Args:
    ///     call_time: ns of ``task.now``.
    ///     ops: as ``Client.vm_bind`` takes them.
    ///
    /// Returns:
    ///     Its number, for ``ran``.
    #[pyo3(signature = (call_time, ops, run_async))]
    fn note(&mut self, call_time: i64, ops: &Bound<'_, PyAny>, run_async: bool) -> PyResult<u64> {
        let rows = rows(ops)?;
        let first = rows.len().saturating_sub(self.kept);
        let kept = &rows[first..];
        let call =
            Call { time: call_time, run_async, ops_in_all: rows.len(), kept: kept.len(), before: self.noted };
        for row in kept {
            let place = self.place(self.noted);
            if place < self.ring.len() {
                self.ring[place] = *row;
            } else {
                self.ring.push(*row);
            }
            self.noted += 1;
        }
        self.weight += call.weight();
        self.calls.push_back(call);
        self.forget_the_oldest();
        Ok(self.newest())
    }

    /// The number of the last call; one less than the oldest: there is none.
    #[getter]
    fn newest(&self) -> u64 {
        self.oldest + self.calls.len() as u64 - 1
    }

    /// The newest operation before ``place`` whose range has ``addr``: its call and place there; of the call how many
    /// operations it had, when it came, whether asynchronous; of the operation what it was, as in ``VmBindOp``.
    ///
    /// Any thread at any moment.
    #[pyo3(signature = (addr, place = None))]
    fn find(&self, addr: u64, place: Option<(u64, usize)>) -> Option<Found> {
        let (mut number, mut end) = place.unwrap_or((self.newest(), usize::MAX));
        while let Some(call) =
            number.checked_sub(self.oldest).and_then(|index| self.calls.get(index as usize))
        {
            let first = call.ops_in_all - call.kept;
            for index in (first..call.ops_in_all.min(end)).rev() {
                let row = self.ring[self.place(call.before + (index - first) as u64)];
                if row.addr <= addr && addr - row.addr < row.range {
                    let Row { number: op, flags, handle, addr, offset, range } = row;
                    let of_call = (call.ops_in_all, call.time, call.run_async);
                    return Some(((number, index), of_call, (op, flags, handle, addr, offset, range)));
                }
            }
            (number, end) = (number - 1, usize::MAX);
        }
        None
    }

    /// Calls and operations that are kept.
    fn _counts(&self) -> (usize, usize) {
        (self.calls.len(), self.calls.iter().map(|call| call.kept).sum())
    }

    /// The first broken invariant, in words, or None.
    fn _check(&self) -> Option<String> {
        let weight: usize = self.calls.iter().map(Call::weight).sum();
        let mut before = self.noted;
        for call in self.calls.iter().rev() {
            before -= call.kept as u64;
            if call.before != before || call.kept > call.ops_in_all {
                return Some(format!("a call's operations are behind {}, not {before}", call.before));
            }
        }
        let whole =
            weight == self.weight && weight <= self.kept && self.noted - before <= self.ring.len() as u64;
        (!whole).then(|| format!("{} operations counted, not {weight}, of {}", self.weight, self.kept))
    }
}
