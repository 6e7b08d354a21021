//! Bind operations as Python passes them: read, and checked as far as no mapping matters.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyTuple};

use super::errors::{Class, U64, about_request, error_about};
use super::space::Space;
use crate::bulk::{FLAG_KIND, KIND_SHIFT};
use crate::object::PointerHasher;
use crate::pages::Extent;
use crate::regions::Rule;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Map,
    Unmap,
    MakeRegion,
    DropRegion,
}

/// One operation.
pub struct Request {
    pub action: Action,
    pub addr: u64,
    pub end: u64,
    /// What a region that is made is to be.
    pub sparse: bool,
    /// Of a map: the object's place among the call's, where in it, and its kind.
    pub target: usize,
    pub offset: u64,
    pub kind: u8,
}

impl Request {
    pub fn range(&self) -> u64 {
        self.end - self.addr
    }

    /// The flags of the mapping that this makes.
    pub fn flags(&self) -> u32 {
        u32::from(self.kind) << KIND_SHIFT
    }
}

/// An object that a call maps.
pub struct Target<'py> {
    pub obj: Bound<'py, PyAny>,
    /// Its reservation is not the space's.
    pub external: bool,
    size: u64,
    /// Where it lies; empty out of the GPU's reach, and if nobody asked.
    pub extents: Vec<Extent>,
}

/// The operations of one call, and the objects that they map.
pub struct Call<'py> {
    pub requests: Vec<Request>,
    pub targets: Vec<Target<'py>>,
}

/// Read `ops`, and where their objects lie if that is `wanted`.
///
/// Reading may run Python code, so nothing is borrowed. The error says which operation it is about.
pub fn read<'py>(slf: &Bound<'py, Space>, ops: &Bound<'py, PyTuple>, wanted: bool) -> PyResult<Call<'py>> {
    let mut reader = Reader::new(slf, ops.len(), wanted)?;
    for (index, op) in ops.iter_borrowed().enumerate() {
        let request = reader.read(&op).map_err(|failure| about_request(slf.py(), failure, index))?;
        reader.call.requests.push(request);
    }
    Ok(reader.call)
}

/// The fields of `gpuvm.nouveau.BindOp`.
const FIELDS: usize = 7;

struct Reader<'a, 'py> {
    slf: &'a Bound<'py, Space>,
    device: Bound<'py, PyAny>,
    resv: Bound<'py, PyAny>,
    rule: Rule,
    /// The smallest page in bytes.
    page: u64,
    wanted: bool,
    call: Call<'py>,
    /// Places of objects, once there are several.
    places: HashMap<u64, usize, BuildHasherDefault<PointerHasher>>,
}

impl<'a, 'py> Reader<'a, 'py> {
    fn new(slf: &'a Bound<'py, Space>, count: usize, wanted: bool) -> PyResult<Self> {
        let py = slf.py();
        let (device, resv) = (slf.getattr(intern!(py, "device"))?, slf.getattr(intern!(py, "resv"))?);
        let space = Space::reading(slf)?;
        let (rule, page) = (space.core.regions.rule, space.paging(py)?.page());
        let call = Call { requests: Vec::with_capacity(count), targets: Vec::new() };
        Ok(Reader { slf, device, resv, rule, page, wanted, call, places: HashMap::default() })
    }

    fn read(&mut self, op: &Bound<'py, PyAny>) -> PyResult<Request> {
        let py = op.py();
        let Some(fields) = op.cast::<PyTuple>().ok().filter(|fields| fields.len() == FIELDS) else {
            let message = format!("BindOp: {} is none; pass BindOp(OpCode.MAP, ...)", op.repr()?);
            return Err(error_about(py, Class::InvalidArgument, message, op.clone(), ()));
        };
        let field = |index: usize| fields.get_borrowed_item(index);
        let (code, sparse) = (field(0)?, field(6)?.is_truthy()?);
        let action = self.action(op, &code, sparse)?;
        let (addr, range) = (field(1)?.extract::<U64>()?.0, field(2)?.extract::<U64>()?.0);
        let end = self.end_of(addr, range)?;
        let mut request = Request { action, addr, end, sparse, target: 0, offset: 0, kind: 0 };
        if action == Action::Map {
            let (obj, offset, number) = (field(3)?, field(4)?, field(5)?);
            request.target = self.target(&obj)?;
            request.offset = self.offset(&request, &offset)?;
            request.kind = kind(&number)?;
        }
        Ok(request)
    }

    fn action(&self, op: &Bound<'py, PyAny>, code: &Bound<'py, PyAny>, sparse: bool) -> PyResult<Action> {
        let required = self.rule == Rule::Required;
        let py = op.py();
        match (code.extract::<u64>(), required, sparse) {
            (Ok(0), _, false) => Ok(Action::Map),
            (Ok(1), _, false) => Ok(Action::Unmap),
            (Ok(0), false, true) | (Ok(2), true, _) => Ok(Action::MakeRegion),
            (Ok(1), false, true) | (Ok(3), true, _) => Ok(Action::DropRegion),
            (Ok(0 | 1), true, true) => {
                let message = format!(
                    "BindOp: a sparse {}; regions of this space come by ALLOC and go by FREE",
                    code.repr()?
                );
                Err(error_about(py, Class::InvalidArgument, message, op.clone(), ()))
            }
            _ => {
                let known = if required { "MAP, UNMAP, ALLOC and FREE" } else { "MAP and UNMAP" };
                let message = format!("BindOp: op {}; this space knows {known}", code.repr()?);
                Err(error_about(py, Class::InvalidArgument, message, code.clone(), ()))
            }
        }
    }

    fn end_of(&self, addr: u64, range: u64) -> PyResult<u64> {
        let py = self.slf.py();
        if !(addr | range).is_multiple_of(self.page) {
            let message = format!("BindOp: [{addr:#x}, +{range:#x}) is no multiple of {:#x}", self.page);
            return Err(error_about(py, Class::InvalidArgument, message, (addr, range), self.page));
        }
        let space = Space::reading(self.slf)?;
        space.check_range(py, "BindOp", addr, range)?;
        Ok(addr + range)
    }

    /// The place of an object that may be mapped.
    fn target(&mut self, obj: &Bound<'py, PyAny>) -> PyResult<usize> {
        let count = self.call.targets.len();
        if self.call.targets.last().is_some_and(|last| last.obj.is(obj)) {
            return Ok(count - 1);
        }
        let key = |obj: &Bound<'py, PyAny>| obj.as_ptr() as u64;
        if let Some(place) = self.places.get(&key(obj)) {
            return Ok(*place);
        }
        let target = self.look_at(obj)?;
        if let [first] = self.call.targets.as_slice() {
            self.places.insert(key(&first.obj), 0);
        }
        if count > 0 {
            self.places.insert(key(obj), count);
        }
        self.call.targets.push(target);
        Ok(count)
    }

    fn look_at(&self, obj: &Bound<'py, PyAny>) -> PyResult<Target<'py>> {
        let py = obj.py();
        if !obj.getattr_opt(intern!(py, "device"))?.is_some_and(|device| device.is(&self.device)) {
            let (obj_text, device) = (obj.repr()?, self.device.repr()?);
            let message = format!("BindOp: a map of {obj_text}; pass an object of {device}");
            return Err(error_about(py, Class::InvalidArgument, message, obj.clone(), self.device.clone()));
        }
        let external = !obj.getattr(intern!(py, "resv"))?.is(&self.resv);
        if external && obj.getattr(intern!(py, "no_share"))?.is_truthy()? {
            let message = format!("BindOp: {} is private to another address space", obj.repr()?);
            return Err(error_about(py, Class::PermissionDenied, message, obj.clone(), ()));
        }
        let size = obj.getattr(intern!(py, "size"))?.extract::<U64>()?.0;
        let extents = if self.wanted { extents(&obj.getattr(intern!(py, "extents"))?)? } else { Vec::new() };
        Ok(Target { obj: obj.clone(), external, size, extents })
    }

    fn offset(&self, request: &Request, offset: &Bound<'py, PyAny>) -> PyResult<u64> {
        let (offset, range) = (offset.extract::<U64>()?.0, request.range());
        let target = &self.call.targets[request.target];
        if offset.is_multiple_of(self.page) && offset.checked_add(range).is_some_and(|end| end <= target.size)
        {
            return Ok(offset);
        }
        let (size, page) = (target.size, self.page);
        let message = format!(
            "BindOp: [{offset:#x}, +{range:#x}) of {} is no multiple of {page:#x} or leaves its {size:#x} bytes",
            target.obj.repr()?
        );
        Err(error_about(self.slf.py(), Class::InvalidArgument, message, (offset, range), size))
    }
}

fn kind(kind: &Bound<'_, PyAny>) -> PyResult<u8> {
    if let Ok(kind) = kind.extract::<u8>() {
        return Ok(kind);
    }
    let message = format!("BindOp: kind {}; pass 0 to {FLAG_KIND:#x}", kind.repr()?);
    let most = u64::from(FLAG_KIND);
    Err(error_about(kind.py(), Class::InvalidArgument, message, kind.clone(), most))
}

/// Where an object lies, from `gpuvm.mem.Extent`s.
pub fn extents(extents: &Bound<'_, PyAny>) -> PyResult<Vec<Extent>> {
    let (mut offset, mut list) = (0u64, Vec::new());
    for extent in PyIterator::from_object(extents)? {
        let (aperture, physical, range): (u8, U64, U64) = extent?.extract()?;
        list.push(Extent { offset, physical: physical.0, range: range.0, aperture });
        offset = offset.saturating_add(range.0);
    }
    Ok(list)
}
