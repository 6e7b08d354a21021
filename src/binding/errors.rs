//! From the core's refusals to `gpuvm.errors`.
//!
//! An error is plain data until it reaches the interpreter: making the exception runs Python code, and none may
//! run while a space is borrowed.

use pyo3::IntoPyObjectExt;
use pyo3::PyErrArguments;
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyModule, PyType};

use crate::memory::Refused;
use crate::space::USER_FLAGS;

/// A class of `gpuvm.errors`.
#[derive(Clone, Copy, Debug)]
pub enum Class {
    InvalidArgument,
    AlreadyMapped,
    NotFound,
    NoSpace,
    OutOfMemory,
    StalePlan,
    Busy,
    NotSupported,
    PermissionDenied,
    BadAddress,
    Gone,
    TooMany,
    Contended,
    AlreadyLocked,
    /// Any of them.
    GpuvmError,
}

/// What `value` and `bound` of an error can be.
pub enum Detail {
    Nothing,
    Number(u64),
    Signed(i64),
    /// (addr, range)
    Range(u64, u64),
    Object(Py<PyAny>),
}

impl From<()> for Detail {
    fn from((): ()) -> Self {
        Detail::Nothing
    }
}

impl From<u64> for Detail {
    fn from(number: u64) -> Self {
        Detail::Number(number)
    }
}

impl From<i64> for Detail {
    fn from(number: i64) -> Self {
        Detail::Signed(number)
    }
}

impl From<(u64, u64)> for Detail {
    fn from((addr, range): (u64, u64)) -> Self {
        Detail::Range(addr, range)
    }
}

impl From<Option<(u64, u64)>> for Detail {
    fn from(range: Option<(u64, u64)>) -> Self {
        range.map_or(Detail::Nothing, Detail::from)
    }
}

impl From<Bound<'_, PyAny>> for Detail {
    fn from(object: Bound<'_, PyAny>) -> Self {
        Detail::Object(object.unbind())
    }
}

impl<'py> IntoPyObject<'py> for Detail {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        match self {
            Detail::Nothing => Ok(py.None().into_bound(py)),
            Detail::Number(number) => number.into_bound_py_any(py),
            Detail::Signed(number) => number.into_bound_py_any(py),
            Detail::Range(addr, range) => (addr, range).into_bound_py_any(py),
            Detail::Object(object) => Ok(object.into_bound(py)),
        }
    }
}

/// The arguments of an exception, made when it is raised.
struct Arguments {
    message: String,
    value: Detail,
    bound: Detail,
    request: Option<usize>,
}

impl PyErrArguments for Arguments {
    fn arguments(self, py: Python<'_>) -> Py<PyAny> {
        let arguments = (self.message, self.value, self.bound, self.request).into_py_any(py);
        arguments.unwrap_or_else(|failure| failure.into_value(py).into_any())
    }
}

static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

/// Look the exceptions up, at import, when Python code may still run.
pub fn init(py: Python<'_>) -> PyResult<()> {
    MODULE.get_or_try_init(py, || py.import("gpuvm.errors").map(Bound::unbind)).map(|_| ())
}

/// An error about request `request` of an array, or of a single call.
pub fn request_error(
    py: Python<'_>,
    class: Class,
    message: impl Into<String>,
    value: impl Into<Detail>,
    bound: impl Into<Detail>,
    request: Option<usize>,
) -> PyErr {
    let arguments = Arguments { message: message.into(), value: value.into(), bound: bound.into(), request };
    exception(py, &format!("{class:?}"), arguments)
}

/// An error about a value and the bound that it broke.
pub fn error_about(
    py: Python<'_>,
    class: Class,
    message: impl Into<String>,
    value: impl Into<Detail>,
    bound: impl Into<Detail>,
) -> PyErr {
    request_error(py, class, message, value, bound, None)
}

/// An error about nothing that a number or a range would tell.
pub fn error(py: Python<'_>, class: Class, message: impl Into<String>) -> PyErr {
    error_about(py, class, message, (), ())
}

/// The same error, about request `request` of several, if it is one of ours.
pub fn about_request(py: Python<'_>, failure: PyErr, request: usize) -> PyErr {
    let module = MODULE.get(py).expect("init ran at import").bind(py);
    let value = failure.value(py);
    let told = module
        .getattr("GpuvmError")
        .and_then(|ours| value.is_instance(&ours))
        .and_then(|is_ours| if is_ours { value.setattr("request", request) } else { Ok(()) });
    told.err().unwrap_or(failure)
}

/// The error for memory that the core did not get.
#[cold]
pub fn out_of_memory(py: Python<'_>, refused: Refused) -> PyErr {
    match refused {
        Refused::Exhausted => {
            let message = "the core could not allocate; nothing was changed, free memory and call again";
            error(py, Class::OutOfMemory, message)
        }
        Refused::Forbidden => {
            let message = "allocation in a fence-signalling section: the core would have to grow its arrays, and \
                           whoever frees memory may wait for this very fence; nothing was changed, preallocate \
                           before publishing the fence (GpuVm.preallocate)";
            lockdep_error(py, message)
        }
    }
}

/// Whether an exception is of a class, or of one made of it.
pub fn is_a(py: Python<'_>, failure: &PyErr, class: Class) -> bool {
    let module = MODULE.get(py).expect("init ran at import").bind(py);
    module.getattr(format!("{class:?}")).is_ok_and(|class| failure.matches(py, class).unwrap_or(false))
}

/// A rule of the lock validator was broken.
pub fn lockdep_error(py: Python<'_>, message: impl Into<String>) -> PyErr {
    exception(py, "LockdepError", (message.into(),))
}

/// An exception of `gpuvm.errors`.
fn exception(py: Python<'_>, class: &str, arguments: impl PyErrArguments + 'static) -> PyErr {
    let module = MODULE.get(py).expect("init ran at import").bind(py);
    match module.getattr(class).and_then(|class| Ok(class.cast_into::<PyType>()?)) {
        Ok(class) => PyErr::from_type(class, arguments),
        Err(failure) => failure,
    }
}

/// An address, length or offset argument: any integer from 0 to 2^64 - 1.
#[derive(Clone, Copy)]
pub struct U64(pub u64);

impl<'py> FromPyObject<'_, 'py> for U64 {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match object.extract::<u64>() {
            Ok(number) => Ok(U64(number)),
            Err(error) if !error.is_instance_of::<PyOverflowError>(object.py()) => Err(error),
            Err(_) => {
                let object = object.to_owned();
                let shown = shown(&object);
                let message = format!(
                    "{shown} is not an address, length or offset: these are 0 <= n < 2**64, in bytes"
                );
                Err(error_about(object.py(), Class::InvalidArgument, message, object.clone(), u64::MAX))
            }
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
            Err(error) if !error.is_instance_of::<PyOverflowError>(object.py()) => Err(error),
            _ => {
                let object = object.to_owned();
                let shown = shown(&object);
                let message = format!("flags {shown}: a mapping has 28 flag bits, up to {USER_FLAGS:#x}");
                Err(error_about(
                    object.py(),
                    Class::InvalidArgument,
                    message,
                    object.clone(),
                    u64::from(USER_FLAGS),
                ))
            }
        }
    }
}

/// A number as a message shows it; Python refuses to print very long ones in decimal.
fn shown(number: &Bound<'_, PyAny>) -> String {
    match number.str() {
        Ok(text) if text.len().is_ok_and(|len| len <= 40) => text.to_string(),
        _ => match number.call_method1("__format__", ("#x",)) {
            Ok(text) => text.to_string(),
            Err(_) => "the number".to_owned(),
        },
    }
}
