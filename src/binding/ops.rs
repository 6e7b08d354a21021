//! The operations of a plan as Python sees them.

use pyo3::basic::CompareOp;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use super::gpuva::Gpuva;

/// Map `[addr, addr + range)` to `obj` from byte `offset` on (the kernel's ``struct drm_gpuva_op_map``).
#[pyclass(frozen, get_all, module = "gpuvm._core")]
pub struct Map {
    /// First byte of the range.
    pub addr: u64,
    /// Length in bytes.
    pub range: u64,
    /// The object, None for none.
    pub obj: Option<Py<PyAny>>,
    /// Offset into the object, in bytes.
    pub offset: u64,
    /// `GpuvaFlags` of the mapping.
    pub flags: u32,
}

#[pymethods]
impl Map {
    #[classattr]
    #[pyo3(name = "__match_args__")]
    const MATCH_ARGS: (&'static str, &'static str, &'static str, &'static str) =
        ("addr", "range", "obj", "offset");

    #[classattr]
    #[pyo3(name = "kind")]
    const KIND: &'static str = "map";

    /// First byte behind the range.
    #[getter]
    fn end(&self) -> u64 {
        self.addr + self.range
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let object = match &self.obj {
            Some(object) => object.bind(py).repr()?.to_string(),
            None => "None".to_owned(),
        };
        let Map { addr, range, offset, flags, .. } = *self;
        let flags = if flags == 0 { String::new() } else { format!(", flags={flags:#x}") };
        Ok(format!("Map(addr={addr:#x}, range={range:#x}, obj={object}, offset={offset:#x}{flags})"))
    }

    fn __richcmp__(&self, other: &Self, op: CompareOp, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let object = |map: &Map| map.obj.as_ref().map(Py::as_ptr);
        let equal = (self.addr, self.range, self.offset, self.flags, object(self))
            == (other.addr, other.range, other.offset, other.flags, object(other));
        equality(py, equal, op)
    }

    fn __hash__(&self) -> u64 {
        self.addr ^ self.range.rotate_left(32)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.obj)
    }
}

/// Unmap the whole of `va` (the kernel's ``struct drm_gpuva_op_unmap``).
///
/// ``keep``: its page-table entries already show what the request puts there; a driver whose other attributes
/// (the kind, say) agree may leave them.
#[pyclass(frozen, get_all, module = "gpuvm._core")]
pub struct Unmap {
    /// The mapping that goes.
    pub va: Py<Gpuva>,
    /// Its page-table entries may stay.
    pub keep: bool,
}

#[pymethods]
impl Unmap {
    #[classattr]
    #[pyo3(name = "__match_args__")]
    const MATCH_ARGS: (&'static str, &'static str) = ("va", "keep");

    #[classattr]
    #[pyo3(name = "kind")]
    const KIND: &'static str = "unmap";

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let keep = if self.keep { "True" } else { "False" };
        Ok(format!("Unmap(va={}, keep={keep})", self.va.bind(py).repr()?))
    }

    fn __richcmp__(&self, other: &Self, op: CompareOp, py: Python<'_>) -> PyResult<Py<PyAny>> {
        equality(py, self.va.is(&other.va) && self.keep == other.keep, op)
    }

    fn __hash__(&self) -> usize {
        self.va.as_ptr() as usize >> 4
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.va)
    }
}

/// Cut a mapping: `unmap` it, keep `prev` of its start and `next` of its end (``struct drm_gpuva_op_remap``).
///
/// A side that does not exist is None.
#[pyclass(frozen, get_all, module = "gpuvm._core")]
pub struct Remap {
    /// What stays in front, or None.
    pub prev: Option<Py<Map>>,
    /// What stays behind, or None.
    pub next: Option<Py<Map>>,
    /// The mapping that is cut.
    pub unmap: Py<Unmap>,
}

#[pymethods]
impl Remap {
    #[classattr]
    #[pyo3(name = "__match_args__")]
    const MATCH_ARGS: (&'static str, &'static str, &'static str) = ("prev", "next", "unmap");

    #[classattr]
    #[pyo3(name = "kind")]
    const KIND: &'static str = "remap";

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let side = |map: &Option<Py<Map>>| match map {
            Some(map) => map.get().__repr__(py),
            None => Ok("None".to_owned()),
        };
        let unmap = self.unmap.get().__repr__(py)?;
        Ok(format!("Remap(prev={}, next={}, unmap={unmap})", side(&self.prev)?, side(&self.next)?))
    }

    fn __richcmp__(&self, other: &Self, op: CompareOp, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let same = |a: &Option<Py<Map>>, b: &Option<Py<Map>>| match (a, b) {
            (Some(a), Some(b)) => a.bind(py).eq(b.bind(py)),
            (None, None) => Ok(true),
            _ => Ok(false),
        };
        let unmap = self.unmap.bind(py).eq(other.unmap.bind(py))?;
        equality(py, unmap && same(&self.prev, &other.prev)? && same(&self.next, &other.next)?, op)
    }

    fn __hash__(&self) -> usize {
        self.unmap.get().__hash__()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.prev)?;
        visit.call(&self.next)?;
        visit.call(&self.unmap)
    }
}

/// Prefetch the whole of `va` (``struct drm_gpuva_op_prefetch``); changes nothing.
#[pyclass(frozen, get_all, module = "gpuvm._core")]
pub struct Prefetch {
    /// The mapping.
    pub va: Py<Gpuva>,
}

#[pymethods]
impl Prefetch {
    #[classattr]
    #[pyo3(name = "__match_args__")]
    const MATCH_ARGS: (&'static str,) = ("va",);

    #[classattr]
    #[pyo3(name = "kind")]
    const KIND: &'static str = "prefetch";

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("Prefetch(va={})", self.va.bind(py).repr()?))
    }

    fn __richcmp__(&self, other: &Self, op: CompareOp, py: Python<'_>) -> PyResult<Py<PyAny>> {
        equality(py, self.va.is(&other.va), op)
    }

    fn __hash__(&self) -> usize {
        self.va.as_ptr() as usize >> 4
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.va)
    }
}

fn equality(py: Python<'_>, equal: bool, op: CompareOp) -> PyResult<Py<PyAny>> {
    match op {
        CompareOp::Eq => Ok(equal.into_pyobject(py)?.to_owned().into_any().unbind()),
        CompareOp::Ne => Ok((!equal).into_pyobject(py)?.to_owned().into_any().unbind()),
        _ => Ok(py.NotImplemented()),
    }
}
