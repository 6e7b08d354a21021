//! Bind operations as a program passes them: the numbers of its dialect, and objects by handle.

use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyDict, PyTuple};

use super::bind_ops::{Action, BindOps, MAP, Request};
use super::errors::{Class, U64, about_request, error};

/// Bytes of an operation: number, flags, handle, 4 unused; address, offset into the object, range.
///
/// Source: ``struct drm_nouveau_vm_bind_op``.
const OP: usize = 40;
/// Bits of the flags that are a map's storage kind.
const KIND: u32 = 0xff;

/// Decodes what a program passes to VM_BIND in one dialect.
///
/// ``meanings`` are those of the numbers from 0 on: the number of ``gpuvm.nouveau.OpCode``, and the flag that makes
/// it one about a sparse region, or 0.
#[pyclass(module = "gpuvm._core", frozen)]
pub struct BindDecoder {
    meanings: Vec<(u8, u32)>,
}

/// An operation as it was passed.
#[derive(Clone, Copy)]
pub struct Row {
    pub number: u32,
    pub flags: u32,
    pub handle: u32,
    pub addr: u64,
    pub offset: u64,
    pub range: u64,
}

impl Row {
    fn of_bytes(bytes: &[u8; OP]) -> Self {
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Row {
            number: word(0),
            flags: word(4),
            handle: word(8),
            addr: long(16),
            offset: long(24),
            range: long(32),
        }
    }

    /// Of ``VmBindOp``.
    fn of_tuple(op: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (number, flags, handle, addr, offset, range): (U64, U64, U64, U64, U64, U64) =
            op.cast::<PyTuple>()?.extract()?;
        let number = u32::try_from(number.0).unwrap_or(u32::MAX);
        let handle = u32::try_from(handle.0).unwrap_or(0); // nobody has that one
        Ok(Row { number, flags: flags.0 as u32, handle, addr: addr.0, offset: offset.0, range: range.0 })
    }
}

/// The operations of a call: a bytearray of structures, or a sequence of ``VmBindOp``.
pub fn rows(ops: &Bound<'_, PyAny>) -> PyResult<Vec<Row>> {
    let py = ops.py();
    if let Ok(bytes) = ops.cast::<PyByteArray>() {
        // SAFETY: nothing is called that could change or free them until they are read.
        let (ops, rest) = unsafe { bytes.as_bytes() }.as_chunks();
        if rest.is_empty() {
            return Ok(ops.iter().map(Row::of_bytes).collect());
        }
        let message = format!("BindDecoder: {} bytes are no operations of {OP}", bytes.len());
        return Err(error(py, Class::InvalidArgument, message));
    }
    let rows = ops.try_iter()?.enumerate();
    rows.map(|(index, op)| Row::of_tuple(&op?).map_err(|failure| about_request(py, failure, index))).collect()
}

/// What comes of decoding.
#[derive(IntoPyObject)]
enum Decoded {
    Ops(BindOps),
    Refused(usize),
}

#[pymethods]
impl BindDecoder {
    #[new]
    #[pyo3(signature = (meanings))]
    fn new(meanings: Vec<(u8, u32)>) -> Self {
        BindDecoder { meanings }
    }

    /// Decode ``ops``, a bytearray of structures or a sequence of ``VmBindOp``, with ``objects`` by handle.
    ///
    /// Or the index of the first operation whose number has no meaning; if all have one, of the first that maps an
    /// object that is not there. Flags that nobody knows are ignored.
    #[pyo3(signature = (ops, objects))]
    fn decode(&self, ops: &Bound<'_, PyAny>, objects: &Bound<'_, PyDict>) -> PyResult<Decoded> {
        let rows = rows(ops)?;
        if let Some(index) = rows.iter().position(|row| row.number as usize >= self.meanings.len()) {
            return Ok(Decoded::Refused(index));
        }
        let mut decoded = BindOps::with_capacity(rows.len());
        let mut last = None;
        for (index, row) in rows.iter().enumerate() {
            let (code, sparse) = self.meanings[row.number as usize];
            let sparse = row.flags & sparse != 0;
            let (addr, range) = (row.addr, row.range);
            let mut request = Request { code, sparse, addr, range, target: 0, offset: 0, kind: 0 };
            if request.action() == Action::Map {
                debug_assert_eq!(code, MAP);
                let target = match last {
                    Some((handle, target)) if handle == row.handle => target,
                    _ => match objects.get_item(row.handle)? {
                        Some(obj) => decoded.place_of(&obj),
                        None => return Ok(Decoded::Refused(index)),
                    },
                };
                last = Some((row.handle, target));
                (request.target, request.offset, request.kind) =
                    (target, row.offset, (row.flags & KIND) as u8);
            }
            decoded.requests.push(request);
        }
        Ok(Decoded::Ops(decoded))
    }
}
