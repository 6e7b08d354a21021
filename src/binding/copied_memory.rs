//! `CopiedMemory`: the memory of a process that keeps what is copied from there and to there.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyByteArray;

use super::process_memory::{Bytes, LONGEST, ProcessMemory};

/// Addresses, and the bytes that were copied.
type Copies = Vec<(u64, Vec<u8>)>;

/// The memory of one process for the time of one call; see ``gpuvm.trace.copied``.
#[pyclass(module = "gpuvm._core", extends = ProcessMemory, subclass, frozen)]
pub struct CopiedMemory {
    /// Read, then written.
    copies: Mutex<(Copies, Copies)>,
}

#[pymethods]
impl CopiedMemory {
    /// The memory that ``memory`` is of.
    #[new]
    #[pyo3(signature = (memory))]
    fn new(memory: &Bound<'_, ProcessMemory>) -> PyClassInitializer<Self> {
        PyClassInitializer::from(memory.get().clone()).add_subclass(CopiedMemory { copies: Mutex::default() })
    }

    /// As ``ProcessMemory``.
    #[pyo3(signature = (addr, size))]
    fn read<'py>(
        slf: &Bound<'py, Self>,
        addr: &Bound<'py, PyAny>,
        size: usize,
    ) -> PyResult<Bound<'py, PyByteArray>> {
        let data = slf.as_super().get().read(addr, size)?;
        slf.get().keep(addr, &data)?;
        Ok(data)
    }

    /// As ``ProcessMemory``.
    #[pyo3(signature = (addr, count, size, most = LONGEST))]
    fn read_array<'py>(
        slf: &Bound<'py, Self>,
        addr: &Bound<'py, PyAny>,
        count: u64,
        size: u64,
        most: u64,
    ) -> PyResult<Bound<'py, PyByteArray>> {
        let data = slf.as_super().get().read_array(addr, count, size, most)?;
        slf.get().keep(addr, &data)?;
        Ok(data)
    }

    /// As ``ProcessMemory``.
    #[pyo3(signature = (addr, data))]
    fn write(slf: &Bound<'_, Self>, addr: &Bound<'_, PyAny>, data: Bytes<'_>) -> PyResult<()> {
        let copy = data.to_vec();
        slf.as_super().get().write(addr, data)?;
        let mut copies = slf.get().copies.lock().unwrap_or_else(PoisonError::into_inner);
        copies.1.push((addr.extract()?, copy));
        Ok(())
    }
}

impl CopiedMemory {
    fn keep(&self, addr: &Bound<'_, PyAny>, data: &Bound<'_, PyByteArray>) -> PyResult<()> {
        // What nothing was read of may have an address that there is not.
        if data.len() > 0 {
            let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
            copies.0.push((addr.extract()?, data.to_vec()));
        }
        Ok(())
    }

    /// What was copied, first what was read.
    pub fn with_copies<R>(&self, act: impl FnOnce(&Copies, &Copies) -> R) -> R {
        let copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        act(&copies.0, &copies.1)
    }
}
