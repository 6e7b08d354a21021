//! The operations of a bind: decoded, and checked as far as no mapping matters.

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

/// The numbers of `gpuvm.nouveau.OpCode`.
pub const MAP: u8 = 0;
pub const UNMAP: u8 = 1;
const ALLOC: u8 = 2;
const FREE: u8 = 3;

/// One operation.
pub struct Request {
    pub code: u8,
    pub sparse: bool,
    pub addr: u64,
    pub range: u64,
    /// Of a map: the object's place among the call's, where in it, and its kind.
    pub target: usize,
    pub offset: u64,
    pub kind: u8,
}

impl Request {
    /// What it does, whatever the space's rule: an operation that does not obey that is refused.
    pub fn action(&self) -> Action {
        match (self.code, self.sparse) {
            (MAP, false) => Action::Map,
            (UNMAP, false) => Action::Unmap,
            (MAP | ALLOC, _) => Action::MakeRegion,
            _ => Action::DropRegion,
        }
    }

    /// First address behind it; the last one there is if it was not checked, and reaches beyond.
    pub fn end(&self) -> u64 {
        self.addr.saturating_add(self.range)
    }

    /// The flags of the mapping that this makes.
    pub fn flags(&self) -> u32 {
        u32::from(self.kind) << KIND_SHIFT
    }

    pub fn overlaps(&self, addr: u64, end: u64) -> bool {
        self.addr < end && addr < self.end()
    }
}

/// An object that a call maps.
pub struct Target {
    pub obj: Py<PyAny>,
    /// Unless it was not looked at yet.
    pub seen: Option<Seen>,
    /// Where it lies; empty out of the GPU's reach, and if nobody asked.
    pub extents: Vec<Extent>,
}

/// What is the same for all of an object's life.
pub struct Seen {
    pub resv: Py<PyAny>,
    /// Its reservation is not the space's.
    pub external: bool,
    size: u64,
}

impl Target {
    pub fn external(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.external)
    }
}

/// The operations of one bind, and the objects that they map.
///
/// Iterating gives for each the fields of ``gpuvm.nouveau.BindOp``.
#[pyclass(module = "gpuvm._core")]
#[derive(Default)]
pub struct BindOps {
    pub requests: Vec<Request>,
    pub targets: Vec<Target>,
    /// Nothing is wrong with them in themselves.
    checked: bool,
    /// Places of objects, once there are several.
    places: HashMap<u64, usize, BuildHasherDefault<PointerHasher>>,
}

impl BindOps {
    /// None yet, with room for so many.
    pub fn with_capacity(count: usize) -> Self {
        BindOps { requests: Vec::with_capacity(count), ..BindOps::default() }
    }

    /// The place of an object that is mapped.
    pub fn place_of(&mut self, obj: &Bound<'_, PyAny>) -> usize {
        let count = self.targets.len();
        if self.targets.last().is_some_and(|last| last.obj.is(obj)) {
            return count - 1;
        }
        let key = |obj: *mut pyo3::ffi::PyObject| obj as u64;
        if let Some(place) = self.places.get(&key(obj.as_ptr())) {
            return *place;
        }
        if let [first] = self.targets.as_slice() {
            self.places.insert(key(first.obj.as_ptr()), 0);
        }
        if count > 0 {
            self.places.insert(key(obj.as_ptr()), count);
        }
        self.targets.push(Target { obj: obj.clone().unbind(), seen: None, extents: Vec::new() });
        count
    }

    /// Refuse what is wrong whatever is mapped, unless that was done. The error says which operation it is about.
    pub fn check(&mut self, space: &Bound<'_, Space>) -> PyResult<()> {
        if self.checked {
            return Ok(());
        }
        let rules = Rules::of(space)?;
        for (index, request) in self.requests.iter().enumerate() {
            let told = |failure| about_request(space.py(), failure, index);
            rules.check(request, &mut self.targets).map_err(told)?;
        }
        self.checked = true;
        Ok(())
    }

    fn row(&self, py: Python<'_>, request: &Request) -> OpRow {
        let target = self.targets.get(request.target).filter(|_| request.action() == Action::Map);
        let obj = target.map(|target| target.obj.clone_ref(py));
        let Request { code, sparse, addr, range, offset, kind, .. } = *request;
        (code, addr, range, obj, offset, kind, sparse)
    }

    /// Ask where the objects lie now.
    pub fn locate(&mut self, py: Python<'_>) -> PyResult<()> {
        for target in &mut self.targets {
            target.extents = extents(&target.obj.bind(py).getattr(intern!(py, "extents"))?)?;
        }
        Ok(())
    }
}

#[pymethods]
impl BindOps {
    /// The objects that are mapped, each once.
    #[getter]
    pub fn objects(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.targets.iter().map(|target| target.obj.clone_ref(py)).collect()
    }

    /// Which of others that are on their way keeps these from being prepared, by its index; None if none does.
    ///
    /// Of each there are its operations, and the regions that it drops, as address and range. It is in the way where
    /// it drops a region in which something is to be mapped, or unmaps where a region is to be made.
    #[pyo3(signature = (others))]
    fn in_the_way(&self, others: Vec<Pending<'_>>) -> Option<usize> {
        self.requests.iter().find_map(|request| {
            let (start, end) = (request.addr, request.end());
            let drops = |dropped: &[(u64, u64)]| {
                dropped.iter().any(|&(addr, range)| addr < end && start < addr + range)
            };
            let unmaps = |other: &BindOps| {
                other.requests.iter().any(|one| one.code == UNMAP && one.overlaps(start, end))
            };
            match request.action() {
                Action::Unmap | Action::DropRegion => None,
                Action::Map => others.iter().position(|(_, dropped)| drops(dropped)),
                Action::MakeRegion => others
                    .iter()
                    .position(|(_, dropped)| drops(dropped))
                    .or_else(|| others.iter().position(|(other, _)| unmaps(other))),
            }
        })
    }

    fn __len__(&self) -> usize {
        self.requests.len()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        let rows: Vec<OpRow> = self.requests.iter().map(|request| self.row(py, request)).collect();
        rows.into_pyobject(py)?.try_iter()
    }
}

/// A bind that is on its way: its operations, and address and range of the regions that it drops.
type Pending<'py> = (PyRef<'py, BindOps>, Vec<(u64, u64)>);

/// The fields of `gpuvm.nouveau.BindOp`.
type OpRow = (u8, u64, u64, Option<Py<PyAny>>, u64, u8, bool);
const FIELDS: usize = 7;

/// What a space asks of operations.
struct Rules<'a, 'py> {
    space: &'a Bound<'py, Space>,
    device: Bound<'py, PyAny>,
    resv: Bound<'py, PyAny>,
    rule: Rule,
    /// The smallest page in bytes.
    page: u64,
}

impl<'a, 'py> Rules<'a, 'py> {
    fn of(space: &'a Bound<'py, Space>) -> PyResult<Self> {
        let py = space.py();
        let (device, resv) = (space.getattr(intern!(py, "device"))?, space.getattr(intern!(py, "resv"))?);
        let inner = Space::reading(space)?;
        let (rule, page) = (inner.core.regions.rule, inner.paging(py)?.page());
        Ok(Rules { space, device, resv, rule, page })
    }

    fn check(&self, request: &Request, targets: &mut [Target]) -> PyResult<()> {
        self.require_place(request.addr, request.range)?;
        if request.action() == Action::Map {
            let target = &mut targets[request.target];
            self.look_at(target)?;
            self.require_inside(request, target)?;
        }
        Ok(())
    }

    fn require_place(&self, addr: u64, range: u64) -> PyResult<()> {
        let py = self.space.py();
        if !(addr | range).is_multiple_of(self.page) {
            let message = format!("BindOp: [{addr:#x}, +{range:#x}) is no multiple of {:#x}", self.page);
            return Err(error_about(py, Class::InvalidArgument, message, (addr, range), self.page));
        }
        Space::reading(self.space)?.check_range(py, "BindOp", addr, range)
    }

    fn look_at(&self, target: &mut Target) -> PyResult<()> {
        if target.seen.is_some() {
            return Ok(());
        }
        let obj = target.obj.bind(self.space.py());
        let py = obj.py();
        if !obj.getattr_opt(intern!(py, "device"))?.is_some_and(|device| device.is(&self.device)) {
            let (obj_text, device) = (obj.repr()?, self.device.repr()?);
            let message = format!("BindOp: a map of {obj_text}; pass an object of {device}");
            return Err(error_about(py, Class::InvalidArgument, message, obj.clone(), self.device.clone()));
        }
        let resv = obj.getattr(intern!(py, "resv"))?;
        let external = !resv.is(&self.resv);
        if external && obj.getattr(intern!(py, "no_share"))?.is_truthy()? {
            let message = format!("BindOp: {} is private to another address space", obj.repr()?);
            return Err(error_about(py, Class::PermissionDenied, message, obj.clone(), ()));
        }
        let size = obj.getattr(intern!(py, "size"))?.extract::<U64>()?.0;
        target.seen = Some(Seen { resv: resv.unbind(), external, size });
        Ok(())
    }

    fn require_inside(&self, request: &Request, target: &Target) -> PyResult<()> {
        let (offset, range) = (request.offset, request.range);
        let size = target.seen.as_ref().map_or(0, |seen| seen.size);
        if offset.is_multiple_of(self.page) && offset.checked_add(range).is_some_and(|end| end <= size) {
            return Ok(());
        }
        let (py, page) = (self.space.py(), self.page);
        let message = format!(
            "BindOp: [{offset:#x}, +{range:#x}) of {} is no multiple of {page:#x} or leaves its {size:#x} bytes",
            target.obj.bind(py).repr()?
        );
        Err(error_about(py, Class::InvalidArgument, message, (offset, range), size))
    }

    /// The number of an operation that this space has.
    fn code(&self, op: &Bound<'py, PyAny>, code: &Bound<'py, PyAny>, sparse: bool) -> PyResult<u8> {
        let required = self.rule == Rule::Required;
        let py = op.py();
        match (code.extract::<u8>(), required, sparse) {
            (Ok(known @ (MAP | UNMAP)), false, _) | (Ok(known @ (MAP | UNMAP)), true, false) => Ok(known),
            (Ok(known @ (ALLOC | FREE)), true, _) => Ok(known),
            (Ok(MAP | UNMAP), true, true) => {
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
}

/// Read `BindOp`s, and refuse what is wrong whatever is mapped. The error says which of them it is about.
///
/// Reading may run Python code, so nothing is borrowed.
pub fn read(space: &Bound<'_, Space>, ops: &Bound<'_, PyTuple>) -> PyResult<BindOps> {
    let (py, rules) = (space.py(), Rules::of(space)?);
    let mut read = BindOps::with_capacity(ops.len());
    for (index, op) in ops.iter().enumerate() {
        let request = read_op(&rules, &op, &mut read).map_err(|failure| about_request(py, failure, index))?;
        read.requests.push(request);
    }
    read.checked = true;
    Ok(read)
}

fn read_op<'py>(rules: &Rules<'_, 'py>, op: &Bound<'py, PyAny>, read: &mut BindOps) -> PyResult<Request> {
    let py = op.py();
    let Some(fields) = op.cast::<PyTuple>().ok().filter(|fields| fields.len() == FIELDS) else {
        let message = format!("BindOp: {} is none; pass BindOp(OpCode.MAP, ...)", op.repr()?);
        return Err(error_about(py, Class::InvalidArgument, message, op.clone(), ()));
    };
    let field = |index: usize| fields.get_item(index);
    let sparse = field(6)?.is_truthy()?;
    let code = rules.code(op, &field(0)?, sparse)?;
    let (addr, range) = (field(1)?.extract::<U64>()?.0, field(2)?.extract::<U64>()?.0);
    rules.require_place(addr, range)?;
    let mut request = Request { code, sparse, addr, range, target: 0, offset: 0, kind: 0 };
    if request.action() == Action::Map {
        request.target = read.place_of(&field(3)?);
        rules.look_at(&mut read.targets[request.target])?;
        request.offset = field(4)?.extract::<U64>()?.0;
        rules.require_inside(&request, &read.targets[request.target])?;
        request.kind = kind(&field(5)?)?;
    }
    Ok(request)
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
