//! From the core's refusals to `gpuvm.errors`: the one place where messages meet classes.

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use crate::memory::Exhausted;
use crate::space::USER_FLAGS;

/// A class of `gpuvm.errors`.
#[derive(Clone, Copy)]
pub enum Class {
    InvalidArgument,
    AlreadyMapped,
    NotFound,
    NoSpace,
    OutOfMemory,
    StalePlan,
    Busy,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Class::InvalidArgument => "InvalidArgument",
            Class::AlreadyMapped => "AlreadyMapped",
            Class::NotFound => "NotFound",
            Class::NoSpace => "NoSpace",
            Class::OutOfMemory => "OutOfMemory",
            Class::StalePlan => "StalePlan",
            Class::Busy => "Busy",
        }
    }
}

static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

pub fn build(
    py: Python<'_>,
    class: Class,
    message: String,
    value: Option<Bound<'_, PyAny>>,
    bound: Option<Bound<'_, PyAny>>,
    request: Option<usize>,
) -> PyResult<PyErr> {
    let module = MODULE.get_or_try_init(py, || py.import("gpuvm.errors").map(Bound::unbind))?;
    let keywords = PyDict::new(py);
    keywords.set_item("value", value)?;
    keywords.set_item("bound", bound)?;
    keywords.set_item("request", request)?;
    let error = module.bind(py).getattr(class.name())?.call((message,), Some(&keywords))?;
    Ok(PyErr::from_value(error))
}

/// An error about nothing that a number or a range would tell.
pub fn error(py: Python<'_>, class: Class, message: impl Into<String>) -> PyErr {
    build(py, class, message.into(), None, None, None).unwrap_or_else(|failure| failure)
}

/// An error about a number or an (addr, range) pair, and the bound it broke.
pub fn error_about<'py>(
    py: Python<'py>,
    class: Class,
    message: impl Into<String>,
    value: impl IntoPyObject<'py>,
    bound: impl IntoPyObject<'py>,
) -> PyErr {
    let value = value.into_bound_py_any(py).ok();
    let bound = bound.into_bound_py_any(py).ok();
    build(py, class, message.into(), value, bound, None).unwrap_or_else(|failure| failure)
}

pub fn out_of_memory(py: Python<'_>, _: Exhausted) -> PyErr {
    let message = "the core could not allocate; nothing was changed, free memory and call again";
    error(py, Class::OutOfMemory, message)
}

/// An address, length or offset argument: any integer from 0 to 2^64 - 1.
#[derive(Clone, Copy)]
pub struct U64(pub u64);

impl<'py> FromPyObject<'_, 'py> for U64 {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match object.extract::<u64>() {
            Ok(number) => Ok(U64(number)),
            Err(error) if error.is_instance_of::<PyTypeError>(object.py()) => Err(error),
            Err(_) => Err(error_about(
                object.py(),
                Class::InvalidArgument,
                format!(
                    "{} is not an address, length or offset: these are 0 <= n < 2**64, in bytes",
                    object.to_owned()
                ),
                object.to_owned(),
                u64::MAX,
            )),
        }
    }
}

/// A flags argument: any integer from 0 to 2^28 - 1.
#[derive(Clone, Copy)]
pub struct Flags(pub u32);

impl<'py> FromPyObject<'_, 'py> for Flags {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match object.extract::<u32>() {
            Ok(flags) if flags <= USER_FLAGS => Ok(Flags(flags)),
            Err(error) if error.is_instance_of::<PyTypeError>(object.py()) => Err(error),
            _ => Err(error_about(
                object.py(),
                Class::InvalidArgument,
                format!("flags {}: a mapping has 28 flag bits, up to {USER_FLAGS:#x}", object.to_owned()),
                object.to_owned(),
                USER_FLAGS,
            )),
        }
    }
}
