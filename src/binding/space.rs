//! `Space`: the compiled half of `GpuVm`.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::bulk::{Pool, Scratch};
use super::errors::{Class, Flags, U64, error, error_about, out_of_memory};
use super::gpuva::Gpuva;
use super::ops::{Map, Remap, Unmap};
use super::plan::{Plan, Style};
use super::step::Step;
use super::vm_bo::VmBo;
use crate::bulk::Refusal;
use crate::gaps::{self, Fit, Wanted};
use crate::plan::{self, Answers, Merge};
use crate::regions::{Region, Regions, Rule};
use crate::space::{self, HANDLE, IN_TREE, KERNEL, LINKED, Mapping};
use crate::tree::{Entry, NONE};

/// Stands in a plan for an object that the space does not know yet.
pub const UNKNOWN: u32 = NONE - 1;

/// An address space and the Python objects that stand for its parts.
#[pyclass(subclass, module = "gpuvm._core")]
pub struct Space {
    pub core: space::Space,
    pub name: String,
    pub merge: Merge,
    pub can_merge: Option<Py<PyAny>>,
    pub resv_protected: bool,
    open: bool,
    /// By slot, where flag HANDLE is set.
    handles: Vec<Option<Py<Gpuva>>>,
    /// By object record.
    objects: Vec<Option<Py<PyAny>>>,
    vm_bos: Vec<Option<Py<VmBo>>>,
    /// The operation that a driver's step has to apply now.
    pub step: Option<Step>,
    /// Why nobody else may change the space now.
    pub busy: Option<&'static str>,
    pub pool: Pool,
    pub scratch: Scratch,
}

/// Python objects to be dropped once the space is not borrowed any more.
type Garbage = Vec<Py<PyAny>>;

impl Space {
    pub fn reading<'a, 'py>(slf: &'a Bound<'py, Self>) -> PyResult<PyRef<'py, Self>> {
        slf.try_borrow().map_err(|_| Self::reentered(slf.py()))
    }

    /// Borrow to change something that lets no Python object go.
    pub fn writing<'a, 'py>(slf: &'a Bound<'py, Self>) -> PyResult<PyRefMut<'py, Self>> {
        let space = slf.try_borrow_mut().map_err(|_| Self::reentered(slf.py()))?;
        if space.open { Ok(space) } else { Err(space.closed(slf.py())) }
    }

    /// Borrow, run `change`, and drop what went when the borrow is over.
    #[inline]
    pub fn changing<R>(
        slf: &Bound<'_, Self>,
        change: impl FnOnce(&mut Space, Python<'_>) -> PyResult<R>,
    ) -> PyResult<R> {
        let mut space = Self::writing(slf)?;
        let result = change(&mut space, slf.py());
        let garbage = space.sweep(slf.py());
        drop(space);
        drop(garbage);
        result
    }

    #[cold]
    fn reentered(py: Python<'_>) -> PyErr {
        let message = "the address space is being changed or read: do not call it from a merge veto, a destructor \
                       or another thread's callback";
        error(py, Class::Busy, message)
    }

    #[cold]
    fn closed(&self, py: Python<'_>) -> PyErr {
        let message = format!(
            "address space {:?} is not open: its last reference was put, or __init__ never ran",
            self.name
        );
        error(py, Class::InvalidArgument, message)
    }

    /// EBUSY while a driver's callback runs in the middle of a change.
    pub fn require_idle(&self, py: Python<'_>, what: &str) -> PyResult<()> {
        let Some(reason) = self.busy else { return Ok(()) };
        let message = format!("{what}: {reason}; until that ends nothing else may change the space");
        Err(error(py, Class::Busy, message))
    }

    /// Detach the Python objects of what went since the last call.
    #[inline]
    fn sweep(&mut self, py: Python<'_>) -> Garbage {
        let mut garbage = Vec::new();
        if !self.core.retired.is_empty() || self.core.objects.has_garbage() {
            self.sweep_into(py, &mut garbage);
        }
        garbage
    }

    fn sweep_into(&mut self, py: Python<'_>, garbage: &mut Garbage) {
        for (slot, flags) in self.core.retired.drain(..) {
            if let Some(va) = self.handles[slot as usize].take() {
                let mut inner = va.borrow_mut(py);
                (inner.slot, inner.own_flags) = (NONE, flags);
                garbage.extend(inner.vm.take().map(Py::into_any));
                drop(inner);
                garbage.push(va.into_any());
            }
        }
        while let Some(object) = self.core.objects.pop_destroyed() {
            if let Some(vm_bo) = self.vm_bos[object as usize].take() {
                vm_bo.borrow_mut(py).object = NONE;
                garbage.push(vm_bo.into_any());
            }
        }
        while let Some(object) = self.core.objects.pop_dead() {
            garbage.extend(self.objects[object as usize].take());
        }
    }

    /// The Python object of a mapping, made when it is first asked for.
    #[inline]
    pub fn handle(&mut self, slf: &Bound<'_, Self>, entry: &Entry) -> PyResult<Py<Gpuva>> {
        let py = slf.py();
        let slot = *self.core.slot(entry.slot);
        if slot.flags & HANDLE != 0
            && let Some(va) = &self.handles[entry.slot as usize]
        {
            return Ok(va.clone_ref(py));
        }
        let va = Gpuva {
            vm: Some(slf.clone().unbind()),
            slot: entry.slot,
            own_flags: 0,
            addr: entry.addr,
            range: entry.range,
            offset: slot.offset,
            obj: self.object(py, slot.object),
        };
        let va = Py::new(py, va)?;
        self.set_handle(entry.slot, va.clone_ref(py));
        Ok(va)
    }

    fn set_handle(&mut self, slot: u32, va: Py<Gpuva>) {
        let index = slot as usize;
        if index >= self.handles.len() {
            self.handles.resize_with(self.core.slots.len().max(index + 1), || None);
        }
        self.handles[index] = Some(va);
        self.core.slot_mut(slot).flags |= HANDLE;
    }

    /// Make `va`, which is in no space, the Python object of the mapping in `slot`.
    pub fn adopt(
        &mut self,
        slf: &Bound<'_, Self>,
        va: &Bound<'_, Gpuva>,
        slot: u32,
        mapping: &Mapping,
    ) -> PyResult<()> {
        let object = self.object(slf.py(), mapping.object);
        let mut inner = va.try_borrow_mut()?;
        (inner.addr, inner.range, inner.offset) = (mapping.addr, mapping.range, mapping.offset);
        inner.vm = Some(slf.clone().unbind());
        inner.slot = slot;
        let old = std::mem::replace(&mut inner.obj, object);
        drop(inner);
        self.set_handle(slot, va.clone().unbind());
        // Only ever the same object or none: nothing of the caller's dies here.
        drop(old);
        Ok(())
    }

    pub fn object(&self, py: Python<'_>, object: u32) -> Option<Py<PyAny>> {
        self.objects.get(object as usize)?.as_ref().map(|object| object.clone_ref(py))
    }

    /// The record of `object` in the space, NONE for None and UNKNOWN for a new one.
    #[inline]
    pub fn record_of(&self, object: &Bound<'_, PyAny>) -> u32 {
        if object.is_none() {
            return NONE;
        }
        self.core.objects.find(object.as_ptr() as u64).unwrap_or(UNKNOWN)
    }

    /// The record of `object`, made if need be; room for it was reserved.
    pub fn intern(&mut self, object: &Bound<'_, PyAny>) -> u32 {
        if object.is_none() {
            return NONE;
        }
        let id = self.core.objects.intern(object.as_ptr() as u64);
        if id as usize >= self.objects.len() {
            self.objects.resize_with(id as usize + 1, || None);
            self.vm_bos.resize_with(id as usize + 1, || None);
        }
        let place = &mut self.objects[id as usize];
        if place.is_none() {
            *place = Some(object.clone().unbind());
        }
        id
    }

    /// The Python object of a live vm_bo.
    pub fn vm_bo(&mut self, slf: &Bound<'_, Self>, object: u32) -> PyResult<Py<VmBo>> {
        let py = slf.py();
        if let Some(vm_bo) = &self.vm_bos[object as usize] {
            return Ok(vm_bo.clone_ref(py));
        }
        let obj = self.object(py, object).unwrap_or_else(|| py.None());
        let vm_bo = Py::new(py, VmBo { vm: slf.clone().unbind(), obj, object, floating: 0 })?;
        self.vm_bos[object as usize] = Some(vm_bo.clone_ref(py));
        self.core.objects.get_mut(object).has_vm_bo = true;
        Ok(vm_bo)
    }

    /// EINVAL unless `[addr, addr + range)` may be mapped.
    #[inline]
    pub fn check_range(&self, py: Python<'_>, what: &str, addr: u64, range: u64) -> PyResult<()> {
        if self.core.range_valid(addr, range) { Ok(()) } else { Err(self.bad_range(py, what, addr, range)) }
    }

    /// Why a range cannot be mapped.
    #[cold]
    pub fn bad_range(&self, py: Python<'_>, what: &str, addr: u64, range: u64) -> PyErr {
        let (start, end) = (self.core.start, self.core.end);
        let (reason, bound) = self.range_fault(addr, range).unwrap_or((String::new(), (start, end)));
        let message = format!("{what}: range [{addr:#x}, +{range:#x}) {reason}");
        error_about(py, Class::InvalidArgument, message, (addr, range), bound)
    }

    /// What is wrong with a range, and the (start, end) that it broke.
    pub fn range_fault(&self, addr: u64, range: u64) -> Option<(String, (u64, u64))> {
        let (start, end) = (self.core.start, self.core.end);
        if range == 0 {
            return Some(("is empty; a length is at least 1".to_owned(), (1, u64::MAX)));
        }
        let Some(stop) = addr.checked_add(range) else {
            return Some(("reaches beyond 2**64".to_owned(), (start, end)));
        };
        if addr < start || stop > end {
            let name = &self.name;
            return Some((format!("lies outside {name:?}, which is [{start:#x}, {end:#x})"), (start, end)));
        }
        let (kernel, behind) = self.core.kernel_range;
        if !self.core.touches_kernel(addr, stop) {
            return None;
        }
        Some((format!("touches the kernel's node [{kernel:#x}, {behind:#x})"), (kernel, behind)))
    }

    /// The regions' rule for a mapping.
    pub fn check_regions(&self, py: Python<'_>, what: &str, addr: u64, end: u64) -> PyResult<()> {
        if self.core.regions.allow(addr, end) {
            return Ok(());
        }
        let (class, reason, bound) = region_fault(&self.core.regions, addr, end);
        Err(error_about(
            py,
            class,
            format!("{what}: range [{addr:#x}, {end:#x}) {reason}"),
            (addr, end - addr),
            bound,
        ))
    }

    pub fn reserve(&mut self, py: Python<'_>, changes: usize, objects: usize) -> PyResult<()> {
        self.core.reserve(changes, objects).map_err(|exhausted| out_of_memory(py, exhausted))
    }
}

/// Why the regions do not let a mapping be at `[addr, end)`.
pub fn region_fault(regions: &Regions, addr: u64, end: u64) -> (Class, String, Option<(u64, u64)>) {
    match regions.overlapping(addr, end) {
        Some(region) if regions.rule == Rule::Sparse => (
            Class::NoSpace,
            format!(
                "lies only partly inside the region [{:#x}, {:#x}); map inside or outside of it",
                region.addr, region.end
            ),
            Some((region.addr, region.end)),
        ),
        Some(region) => (
            Class::InvalidArgument,
            format!(
                "is not inside one region; the first that it touches is [{:#x}, {:#x})",
                region.addr, region.end
            ),
            Some((region.addr, region.end)),
        ),
        None => (Class::InvalidArgument, "is inside no region; insert one first".to_owned(), None),
    }
}

/// The driver's answers for the mappings that a merging plan asked about.
pub fn ask_driver(slf: &Bound<'_, Space>, answers: &mut Answers, request: &Bound<'_, Map>) -> PyResult<()> {
    let py = slf.py();
    for slot in std::mem::take(&mut answers.open) {
        let mut space = Space::writing(slf)?;
        let Some(callback) = space.can_merge.as_ref().map(|callback| callback.clone_ref(py)) else { break };
        let addr = space.core.slot(slot).addr;
        let Some(entry) = space.core.tree.get(addr) else { break };
        let va = space.handle(slf, &entry)?;
        drop(space);
        answers.known.push((slot, callback.call1(py, (va, request))?.is_truthy(py)?));
    }
    Ok(())
}

#[pymethods]
impl Space {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Space {
            core: space::Space::new(0, 0),
            name: String::new(),
            merge: Merge::Never,
            can_merge: None,
            resv_protected: false,
            open: false,
            handles: Vec::new(),
            objects: Vec::new(),
            vm_bos: Vec::new(),
            step: None,
            busy: None,
            pool: Pool::default(),
            scratch: Scratch::default(),
        }
    }

    #[pyo3(signature = (name, start, range, kernel_node, kernel_node_anywhere, merge, regions, resv_protected, can_merge))]
    #[allow(clippy::too_many_arguments)] // the constructor of GpuVm, whose keywords these are
    fn __init__(
        slf: &Bound<'_, Self>,
        name: String,
        start: U64,
        range: U64,
        kernel_node: Option<(U64, U64)>,
        kernel_node_anywhere: bool,
        merge: u8,
        regions: u8,
        resv_protected: bool,
        can_merge: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let mut space = slf.try_borrow_mut()?;
        if space.open {
            return Err(error(py, Class::Busy, "an address space cannot be made anew; make another one"));
        }
        let end = start.0.checked_add(range.0).filter(|_| range.0 > 0).ok_or_else(|| {
            let reason = if range.0 == 0 { "is empty" } else { "reaches beyond 2**64" };
            let message = format!("the range of {name:?}, [{:#x}, +{:#x}), {reason}", start.0, range.0);
            error_about(py, Class::InvalidArgument, message, (start.0, range.0), u64::MAX)
        })?;
        space.merge = [Merge::Never, Merge::Always, Merge::WithinRegion][usize::from(merge.min(2))];
        let rule = [Rule::Off, Rule::Required, Rule::Sparse][usize::from(regions.min(2))];
        if space.merge == Merge::WithinRegion && rule == Rule::Off {
            let message =
                "merge=WITHIN_REGION needs regions: pass regions=Regions.REQUIRED or Regions.SPARSE";
            return Err(error(py, Class::InvalidArgument, message));
        }
        space.core = space::Space::new(start.0, end);
        space.core.regions = Regions::with_rule(rule);
        space.name = name;
        if let Some((addr, range)) = kernel_node.filter(|(_, range)| range.0 > 0) {
            let inside = !kernel_node_anywhere || addr.0.checked_add(range.0).is_none();
            if let Some((reason, bound)) = space.range_fault(addr.0, range.0).filter(|_| inside) {
                let message = format!("the kernel's node [{:#x}, +{:#x}) {reason}", addr.0, range.0);
                return Err(error_about(py, Class::InvalidArgument, message, (addr.0, range.0), bound));
            }
            space.reserve(py, 1, 0)?;
            let node = Mapping { addr: addr.0, range: range.0, ..Mapping::EMPTY };
            space.core.kernel = space.core.insert(&node, KERNEL);
            space.core.kernel_range = (addr.0, addr.0 + range.0);
            space.core.counters.mapped_bytes = 0;
        }
        (space.resv_protected, space.can_merge) = (resv_protected, can_merge);
        space.open = true;
        Ok(())
    }

    /// What the space is called in messages and tables.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// First address of the space.
    #[getter]
    fn start(&self) -> u64 {
        self.core.start
    }

    /// Length of the space in bytes.
    #[getter]
    fn range(&self) -> u64 {
        self.core.end - self.core.start
    }

    /// First address behind the space.
    #[getter]
    fn end(&self) -> u64 {
        self.core.end
    }

    /// Grows by one with every change; a plan made at another generation is stale.
    #[getter]
    fn generation(&self) -> u64 {
        self.core.generation
    }

    /// The mapping that stands for the kernel's reserved range, or None.
    #[getter]
    fn kernel_node(slf: &Bound<'_, Self>) -> PyResult<Option<Py<Gpuva>>> {
        let mut space = Self::writing(slf)?;
        if space.core.kernel == NONE {
            return Ok(None);
        }
        let addr = space.core.slot(space.core.kernel).addr;
        let entry = space.core.tree.get(addr);
        entry.map(|entry| space.handle(slf, &entry)).transpose()
    }

    fn __len__(&self) -> usize {
        self.core.len()
    }

    fn __bool__(&self) -> bool {
        true
    }

    /// The mapping at exactly `[addr, addr + range)`, or None (`drm_gpuva_find`). O(log n).
    fn find(slf: &Bound<'_, Self>, addr: U64, range: U64) -> PyResult<Option<Py<Gpuva>>> {
        let mut space = Self::writing(slf)?;
        let entry = space.core.find(addr.0, range.0);
        entry.map(|entry| space.handle(slf, &entry)).transpose()
    }

    /// The lowest mapping that overlaps `[addr, addr + range)`, or None (`drm_gpuva_find_first`). O(log n).
    ///
    /// EINVAL: `range` is 0. A range that wraps is taken modulo 2**64, as the kernel does.
    fn find_first(slf: &Bound<'_, Self>, addr: U64, range: U64) -> PyResult<Option<Py<Gpuva>>> {
        let mut space = Self::writing(slf)?;
        let last = space.last_of(slf.py(), "find_first", addr.0, range.0)?;
        let entry = space.core.first_touching(addr.0, last);
        entry.map(|entry| space.handle(slf, &entry)).transpose()
    }

    /// The mapping that ends exactly at `addr`, or None (`drm_gpuva_find_prev`, made exact). O(log n).
    ///
    /// Never the kernel's node.
    fn find_prev(slf: &Bound<'_, Self>, addr: U64) -> PyResult<Option<Py<Gpuva>>> {
        let mut space = Self::writing(slf)?;
        let entry = space.core.find_prev(addr.0);
        entry.map(|entry| space.handle(slf, &entry)).transpose()
    }

    /// The mapping that begins exactly at `addr`, or None (`drm_gpuva_find_next`, made exact). O(log n).
    ///
    /// Never the kernel's node.
    fn find_next(slf: &Bound<'_, Self>, addr: U64) -> PyResult<Option<Py<Gpuva>>> {
        let mut space = Self::writing(slf)?;
        let entry = space.core.find_next(addr.0);
        entry.map(|entry| space.handle(slf, &entry)).transpose()
    }

    /// Mappings in address order, the kernel's node included (`drm_gpuvm_for_each_va_range_safe`).
    ///
    /// All, or those that overlap `[addr, addr + range)`. The current one may be removed and its remainders
    /// inserted while iterating: iteration goes on behind where it ended. O(log n) a step.
    #[pyo3(signature = (addr = None, range = None))]
    fn mappings(slf: &Bound<'_, Self>, addr: Option<U64>, range: Option<U64>) -> PyResult<MappingIterator> {
        let space = Self::reading(slf)?;
        let from = addr.map_or(0, |addr| addr.0);
        let end = match range {
            Some(range) => space.end_of(slf.py(), "mappings", from, range.0)?,
            None => u64::MAX,
        };
        Ok(MappingIterator { vm: slf.clone().unbind(), position: from, end, started: false })
    }

    fn __iter__(slf: &Bound<'_, Self>) -> PyResult<MappingIterator> {
        Self::mappings(slf, None, None)
    }

    /// True if no mapping, the kernel's node included, overlaps `[addr, addr + range)` (`drm_gpuvm_interval_empty`).
    ///
    /// EINVAL: `range` is 0. A range that wraps is taken modulo 2**64, as the kernel does.
    fn interval_empty(&self, py: Python<'_>, addr: U64, range: U64) -> PyResult<bool> {
        let last = self.last_of(py, "interval_empty", addr.0, range.0)?;
        Ok(self.core.first_touching(addr.0, last).is_none())
    }

    /// True if `[addr, addr + range)` is not empty, inside the space and clear of the kernel's node.
    fn range_valid(&self, addr: U64, range: U64) -> bool {
        self.core.range_valid(addr.0, range.0)
    }

    fn _find_gap(
        slf: &Bound<'_, Self>,
        range: U64,
        align: U64,
        fit: u8,
        window: (Option<U64>, Option<U64>),
    ) -> PyResult<u64> {
        let py = slf.py();
        let mut space = Self::writing(slf)?;
        let start = window.0.map_or(space.core.start, |start| start.0.max(space.core.start));
        let end = window.1.map_or(space.core.end, |end| end.0.min(space.core.end));
        if range.0 == 0 || align.0 == 0 {
            let message =
                format!("find_gap: range {:#x} and align {:#x} must be at least 1", range.0, align.0);
            return Err(error_about(py, Class::InvalidArgument, message, (range.0, align.0), 1));
        }
        let fit = [Fit::Lowest, Fit::Highest, Fit::Best][usize::from(fit.min(2))];
        let wanted = Wanted { range: range.0, align: align.0, start, end };
        let core = &mut space.core;
        core.gaps.find(&mut core.tree, &wanted, fit).ok_or_else(|| {
            let largest = core.gaps.largest(&mut core.tree);
            let message = format!(
                "find_gap: no hole of {:#x} bytes at a multiple of {:#x} in [{start:#x}, {end:#x}); the largest hole of the space has {largest:#x}",
                range.0, align.0
            );
            error_about(py, Class::NoSpace, message, range.0, largest)
        })
    }

    /// Put `va` into the tree without splitting anything or linking it (`drm_gpuva_insert`). O(log n).
    ///
    /// Locking: the VM's lock for writing. EINVAL: its range cannot be mapped, or the regions forbid it. EEXIST:
    /// something is mapped there. EBUSY: `va` is in a space already. ENOMEM.
    fn insert(slf: &Bound<'_, Self>, va: &Bound<'_, Gpuva>) -> PyResult<()> {
        let py = slf.py();
        Self::changing(slf, |space, _| {
            space.require_idle(py, "insert")?;
            let inner = va.borrow();
            if inner.slot != NONE {
                return Err(error(
                    py,
                    Class::Busy,
                    "insert: the mapping is in an address space or still linked",
                ));
            }
            let (addr, range) = (inner.addr, inner.range);
            space.check_range(py, "insert", addr, range)?;
            space.check_regions(py, "insert", addr, addr + range)?;
            if let Some(other) = space.core.first_overlapping(addr, addr + range) {
                let message = format!(
                    "insert: [{addr:#x}, {:#x}) overlaps the mapping [{:#x}, {:#x}); unmap that first, or use sm_map",
                    addr + range,
                    other.addr,
                    other.end()
                );
                return Err(error_about(
                    py,
                    Class::AlreadyMapped,
                    message,
                    (addr, range),
                    (other.addr, other.range),
                ));
            }
            space.reserve(py, 1, 1)?;
            let object = inner.obj.as_ref().map_or(py.None(), |object| object.clone_ref(py));
            let (offset, flags) = (inner.offset, inner.own_flags);
            drop(inner);
            let object = space.intern(object.bind(py));
            let mapping = Mapping { addr, range, offset, object, flags };
            let slot = space.core.insert(&mapping, 0);
            space.core.generation += 1;
            space.adopt(slf, va, slot, &mapping)
        })
    }

    /// Take `va` out of the tree (`drm_gpuva_remove`); it stays linked if it was. O(log n).
    ///
    /// EINVAL: it is not in this space's tree, or it is the kernel's node.
    fn remove(slf: &Bound<'_, Self>, va: &Bound<'_, Gpuva>) -> PyResult<()> {
        Self::changing(slf, |space, py| {
            space.require_idle(py, "remove")?;
            let entry = space.entry_of(slf, va, "remove")?;
            if space.core.slot(entry.slot).flags & KERNEL != 0 {
                return Err(error(
                    py,
                    Class::InvalidArgument,
                    "remove: the kernel's node stays as long as its space",
                ));
            }
            space.core.remove(&entry);
            space.core.generation += 1;
            Ok(())
        })
    }

    /// What mapping `obj` from byte `offset` on at `[addr, addr + range)` would do (`drm_gpuvm_sm_map_ops_create`).
    ///
    /// Changes nothing: `Plan.apply` does. The map comes last; under a merging policy it may be larger than the
    /// request, or missing because all is mapped already. Locking: the VM's lock for writing, until the plan is
    /// applied or dropped. EINVAL: the range is empty, overflows, or lies outside the space or on the kernel's
    /// node; ENOSPC: it cuts a sparse region. O(log n + mappings overlapped).
    #[pyo3(signature = (addr, range, obj = None, offset = U64(0), flags = Flags(0)))]
    fn sm_map(
        slf: &Bound<'_, Self>,
        addr: U64,
        range: U64,
        obj: Option<Bound<'_, PyAny>>,
        offset: U64,
        flags: Flags,
    ) -> PyResult<Plan> {
        Plan::sm_map(slf, (addr.0, range.0), obj, offset.0, flags.0)
    }

    /// What unmapping `[addr, addr + range)` would do (`drm_gpuvm_sm_unmap_ops_create`); holes are no error.
    ///
    /// EINVAL as for `sm_map`.
    fn sm_unmap(slf: &Bound<'_, Self>, addr: U64, range: U64) -> PyResult<Plan> {
        Plan::sm_unmap(slf, addr.0, range.0)
    }

    /// One prefetch for each mapping that overlaps the range, whole (`drm_gpuvm_prefetch_ops_create`).
    ///
    /// The kernel's node is not reported. EINVAL: `range` is 0. A range that wraps is taken modulo 2**64.
    fn prefetch(slf: &Bound<'_, Self>, addr: U64, range: U64) -> PyResult<Plan> {
        Plan::collect(slf, Style::Prefetch, |space, ops| {
            let last = space.last_of(slf.py(), "prefetch", addr.0, range.0)?;
            plan::prefetch(&space.core, addr.0, last, ops);
            Ok(())
        })
    }

    /// One unmap for each mapping linked to `vm_bo`, in link order (`drm_gpuvm_bo_unmap_ops_create`).
    ///
    /// Locking: the object's GPUVA lock. EINVAL: `vm_bo` is dead, floating or of another space.
    fn bo_unmap(slf: &Bound<'_, Self>, vm_bo: &Bound<'_, VmBo>) -> PyResult<Plan> {
        let (vm, object) = VmBo::record(vm_bo, "bo_unmap")?;
        if !vm.is(slf) {
            return Err(error(
                slf.py(),
                Class::InvalidArgument,
                "bo_unmap: the VmBo belongs to another address space",
            ));
        }
        Plan::collect(slf, Style::Each, |space, ops| {
            plan::object_unmap(&space.core, object, ops);
            Ok(())
        })
    }

    /// Splits that put mapping borders at `addr` and `addr + range` (`drm_gpuvm_madvise_ops_create`).
    ///
    /// Only mappings without object are split, and only where a border cuts them. EINVAL as for `sm_map`.
    fn madvise(slf: &Bound<'_, Self>, addr: U64, range: U64) -> PyResult<Plan> {
        Plan::collect(slf, Style::Each, |space, ops| {
            space.check_range(slf.py(), "madvise", addr.0, range.0)?;
            plan::madvise(&space.core, addr.0, addr.0 + range.0, ops);
            Ok(())
        })
    }

    /// Apply the map `op` of the step that runs, `va` becoming its mapping (`drm_gpuva_map` and `drm_gpuva_link`).
    ///
    /// Only inside `Plan.step`. EINVAL: `op` is not the operation being stepped, or applied already. EBUSY: `va` is
    /// in a space.
    fn map(slf: &Bound<'_, Self>, op: &Bound<'_, Map>, va: &Bound<'_, Gpuva>) -> PyResult<()> {
        Step::apply(slf, op.as_any(), [Some(va), None])
    }

    /// Apply the remap `op` of the step that runs (`drm_gpuva_remap`, links included).
    ///
    /// `prev` and `next` become the remainders; pass None for a side that `op` does not have. EINVAL, EBUSY as `map`.
    #[pyo3(signature = (op, prev, next))]
    fn remap(
        slf: &Bound<'_, Self>,
        op: &Bound<'_, Remap>,
        prev: Option<&Bound<'_, Gpuva>>,
        next: Option<&Bound<'_, Gpuva>>,
    ) -> PyResult<()> {
        Step::apply(slf, op.as_any(), [prev, next])
    }

    /// Apply the unmap `op` of the step that runs (`drm_gpuva_unmap` and `drm_gpuva_unlink`). EINVAL as `map`.
    fn unmap(slf: &Bound<'_, Self>, op: &Bound<'_, Unmap>) -> PyResult<()> {
        Step::apply(slf, op.as_any(), [None, None])
    }

    /// A new VmBo with one reference that no list knows yet (`drm_gpuvm_bo_create`); for `bo_obtain_prealloc`.
    fn bo_create(slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>) -> PyResult<VmBo> {
        require_object(obj)?;
        drop(Self::writing(slf)?);
        Ok(VmBo { vm: slf.clone().unbind(), obj: obj.clone().unbind(), object: NONE, floating: 1 })
    }

    /// The VmBo of `obj` with a reference more, or None (`drm_gpuvm_bo_find`).
    fn bo_find(slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>) -> PyResult<Option<Py<VmBo>>> {
        let mut space = Self::writing(slf)?;
        let record = space.record_of(obj);
        if record >= UNKNOWN || space.core.objects.get(record).refs == 0 {
            return Ok(None);
        }
        let vm_bo = space.vm_bo(slf, record)?;
        space.core.objects.get_mut(record).refs += 1;
        Ok(Some(vm_bo))
    }

    /// The VmBo of `obj`, made if there is none, with a reference more (`drm_gpuvm_bo_obtain_locked`).
    ///
    /// EINVAL: `obj` is None. ENOMEM.
    fn bo_obtain(slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>) -> PyResult<Py<VmBo>> {
        require_object(obj)?;
        let mut space = Self::writing(slf)?;
        space.reserve(slf.py(), 0, 1)?;
        let record = space.intern(obj);
        space.core.objects.get_mut(record).refs += 1;
        space.vm_bo(slf, record)
    }

    /// The VmBo of `vm_bo`'s object (`drm_gpuvm_bo_obtain_prealloc`).
    ///
    /// Takes over the caller's reference: an existing twin is returned and `vm_bo` put, else `vm_bo` becomes it.
    /// EINVAL: `vm_bo` did not come from `bo_create` of this space, or has other references.
    fn bo_obtain_prealloc(slf: &Bound<'_, Self>, vm_bo: &Bound<'_, VmBo>) -> PyResult<Py<VmBo>> {
        let py = slf.py();
        let inner = vm_bo.borrow();
        if inner.floating != 1 || !inner.vm.is(slf) {
            let message =
                "bo_obtain_prealloc: needs a VmBo of this space from bo_create, with its one reference";
            return Err(error(py, Class::InvalidArgument, message));
        }
        let object = inner.obj.clone_ref(py);
        drop(inner);
        if let Some(twin) = Self::bo_find(slf, object.bind(py))? {
            VmBo::put_floating(vm_bo);
            return Ok(twin);
        }
        let mut space = Self::writing(slf)?;
        space.reserve(py, 0, 1)?;
        let record = space.intern(object.bind(py));
        let place = space.core.objects.get_mut(record);
        (place.refs, place.has_vm_bo) = (1, true);
        space.vm_bos[record as usize] = Some(vm_bo.clone().unbind());
        let mut inner = vm_bo.borrow_mut();
        (inner.object, inner.floating) = (record, 0);
        Ok(vm_bo.clone().unbind())
    }

    /// Every VmBo of the space.
    fn vm_bos(slf: &Bound<'_, Self>) -> PyResult<Vec<Py<VmBo>>> {
        let mut space = Self::writing(slf)?;
        let live = |&id: &u32| space.core.objects.get(id).refs > 0;
        let ids: Vec<u32> = space.core.objects.ids().filter(live).collect();
        ids.into_iter().map(|id| space.vm_bo(slf, id)).collect()
    }

    /// The list of external objects, oldest first.
    #[getter]
    fn extobjs(slf: &Bound<'_, Self>) -> PyResult<Vec<Py<VmBo>>> {
        let mut space = Self::writing(slf)?;
        let ids = space.core.objects.listed(|object| object.extobj);
        ids.into_iter().map(|id| space.vm_bo(slf, id)).collect()
    }

    /// The list of evicted objects, oldest first.
    #[getter]
    fn evicted(slf: &Bound<'_, Self>) -> PyResult<Vec<Py<VmBo>>> {
        let mut space = Self::writing(slf)?;
        let ids = space.core.objects.listed(|object| object.evict);
        ids.into_iter().map(|id| space.vm_bo(slf, id)).collect()
    }

    fn _region_insert(slf: &Bound<'_, Self>, addr: U64, range: U64, sparse: bool) -> PyResult<()> {
        let py = slf.py();
        let mut space = Self::writing(slf)?;
        space.require_idle(py, "region_insert")?;
        if space.core.regions.rule == Rule::Off {
            let message =
                "region_insert: this space has no regions; make it with regions=Regions.REQUIRED or SPARSE";
            return Err(error(py, Class::InvalidArgument, message));
        }
        space.check_range(py, "region_insert", addr.0, range.0)?;
        let region = Region { addr: addr.0, end: addr.0 + range.0, sparse };
        match crate::bulk::make_region(&mut space.core, region) {
            Err(Refusal::Overlaps(start, end)) => {
                let message = format!(
                    "region_insert: [{:#x}, {:#x}) overlaps [{start:#x}, {end:#x}), which is mapped or a region",
                    region.addr, region.end
                );
                Err(error_about(py, Class::AlreadyMapped, message, (addr.0, range.0), (start, end - start)))
            }
            _ => {
                space.core.generation += 1;
                Ok(())
            }
        }
    }

    fn _region_remove(slf: &Bound<'_, Self>, addr: U64, range: U64) -> PyResult<()> {
        let py = slf.py();
        let mut space = Self::writing(slf)?;
        space.require_idle(py, "region_remove")?;
        let end = addr.0.saturating_add(range.0);
        if space.core.regions.find(addr.0, end).is_none() {
            let message = format!("region_remove: there is no region [{:#x}, {end:#x})", addr.0);
            return Err(error_about(py, Class::NotFound, message, (addr.0, range.0), py.None()));
        }
        if let Some(entry) = space.core.first_overlapping(addr.0, end) {
            let message = format!(
                "region_remove: [{:#x}, {end:#x}) still holds the mapping [{:#x}, {:#x}); unmap the region first",
                addr.0,
                entry.addr,
                entry.end()
            );
            return Err(error_about(py, Class::Busy, message, (addr.0, range.0), (entry.addr, entry.range)));
        }
        space.core.regions.remove(addr.0);
        space.core.generation += 1;
        Ok(())
    }

    fn _regions(&self) -> Vec<(u64, u64, bool)> {
        self.core
            .regions
            .iter()
            .map(|region| (region.addr, region.end - region.addr, region.sparse))
            .collect()
    }

    fn _bind(
        slf: &Bound<'_, Self>,
        requests: &Bound<'_, PyAny>,
        objects: &Bound<'_, PyAny>,
    ) -> PyResult<super::Records> {
        super::bulk::bind(slf, requests, objects)
    }

    fn _find_many(
        slf: &Bound<'_, Self>,
        addrs: &Bound<'_, PyAny>,
        ranges: &Bound<'_, PyAny>,
        out: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        super::bulk::find_many(slf, addrs, ranges, out)
    }

    fn _fill(slf: &Bound<'_, Self>, out: &Bound<'_, PyAny>) -> PyResult<()> {
        super::bulk::fill(slf, out)
    }

    /// The first broken invariant in words, or None.
    fn _check(&self) -> Option<String> {
        let core = &self.core;
        let checks =
            core.tree.check().and_then(|()| gaps::check(&core.gaps, &core.tree)).and_then(|()| core.check());
        checks.and_then(|()| self.check_handles()).err()
    }

    fn _statistics(&mut self) -> [u64; 18] {
        let core = &mut self.core;
        let (mut holes, mut free) = (0, 0);
        for (start, end) in core.gaps.iter(&core.tree) {
            (holes, free) = (holes + 1, free + (end - start));
        }
        let counters = core.counters;
        [
            core.len() as u64,
            counters.mapped_bytes,
            core.objects.ids().filter(|&id| core.objects.get(id).refs > 0).count() as u64,
            core.regions.len() as u64,
            holes,
            free,
            core.gaps.largest(&mut core.tree),
            counters.ops.maps,
            counters.ops.remaps,
            counters.ops.unmaps,
            counters.ops.splits,
            counters.merges,
            core.generation,
            u64::from(core.tree.height),
            core.tree.leaf_count() as u64,
            core.tree.len as u64,
            crate::tree::LEAF_CAP as u64,
            (core.bytes() + self.handles.capacity() * size_of::<Option<Py<Gpuva>>>()) as u64,
        ]
    }

    /// Take the kernel's node out and refuse every call from now on.
    fn _close(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::changing(slf, |space, py| {
            space.require_idle(py, "put")?;
            if space.core.kernel != NONE {
                let addr = space.core.slot(space.core.kernel).addr;
                if let Some(entry) = space.core.tree.get(addr) {
                    space.core.remove(&entry);
                }
                (space.core.kernel, space.core.kernel_range) = (NONE, (0, 0));
            }
            space.open = false;
            Ok(())
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.can_merge)?;
        for va in &self.handles {
            visit.call(va)?;
        }
        for object in &self.objects {
            visit.call(object)?;
        }
        for vm_bo in &self.vm_bos {
            visit.call(vm_bo)?;
        }
        Ok(())
    }

    fn __clear__(&mut self) {
        self.can_merge = None;
        self.open = false;
        self.handles.clear();
        self.vm_bos.clear();
        self.objects.clear();
    }
}

impl Space {
    /// The end of a range that only has to be one: EINVAL if it is empty or overflows.
    fn end_of(&self, py: Python<'_>, what: &str, addr: u64, range: u64) -> PyResult<u64> {
        addr.checked_add(range).filter(|_| range > 0).ok_or_else(|| self.bad_range(py, what, addr, range))
    }

    /// EINVAL for an empty range.
    fn require_range(&self, py: Python<'_>, what: &str, addr: u64, range: u64) -> PyResult<()> {
        if range > 0 { Ok(()) } else { Err(self.bad_range(py, what, addr, range)) }
    }

    /// The last address of a range that may wrap: EINVAL if it is empty.
    fn last_of(&self, py: Python<'_>, what: &str, addr: u64, range: u64) -> PyResult<u64> {
        self.require_range(py, what, addr, range)?;
        Ok(addr.wrapping_add(range - 1))
    }

    /// The tree's entry of `va`, EINVAL if it is not in this tree.
    fn entry_of(&self, slf: &Bound<'_, Self>, va: &Bound<'_, Gpuva>, what: &str) -> PyResult<Entry> {
        let inner = va.borrow();
        let here = inner.slot != NONE && inner.vm.as_ref().is_some_and(|vm| vm.is(slf));
        if here && self.core.slot(inner.slot).flags & IN_TREE != 0 {
            return Ok(Entry { addr: inner.addr, range: inner.range, slot: inner.slot });
        }
        let message = format!(
            "{what}: the mapping [{:#x}, +{:#x}) is not in this address space",
            inner.addr, inner.range
        );
        Err(error_about(
            slf.py(),
            Class::InvalidArgument,
            message,
            (inner.addr, inner.range),
            slf.py().None(),
        ))
    }

    /// Python objects and flags agree.
    fn check_handles(&self) -> Result<(), String> {
        for (slot, va) in self.handles.iter().enumerate().filter(|(_, va)| va.is_some()) {
            let flags = self.core.slots[slot as u32].flags;
            if va.is_some() && (flags & HANDLE == 0 || flags & (IN_TREE | LINKED) == 0) {
                return Err(format!("slot {slot} has a Python object and flags {flags:#x}"));
            }
        }
        for id in self.core.objects.ids() {
            if self.objects.get(id as usize).is_none_or(Option::is_none) {
                return Err(format!("object record {id} keeps no Python object alive"));
            }
        }
        Ok(())
    }
}

fn require_object(obj: &Bound<'_, PyAny>) -> PyResult<()> {
    if obj.is_none() {
        return Err(error(obj.py(), Class::InvalidArgument, "None is not an object: it has no VmBo"));
    }
    Ok(())
}

/// Mappings in address order; what `GpuVm.mappings` returns.
#[pyclass(module = "gpuvm._core")]
pub struct MappingIterator {
    vm: Py<Space>,
    position: u64,
    end: u64,
    /// From the second mapping on, only what begins at or behind `position` comes.
    started: bool,
}

#[pymethods]
impl MappingIterator {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Option<Py<Gpuva>>> {
        let vm = self.vm.bind(py);
        let mut space = Space::writing(vm)?;
        let (position, end, started) = (self.position, self.end, self.started);
        let next = space.core.tree.iter_from(position).find(|entry| !started || entry.addr >= position);
        let Some(entry) = next.filter(|entry| entry.addr < end) else { return Ok(None) };
        (self.position, self.started) = (entry.end(), true);
        space.handle(vm, &entry).map(Some)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.vm)
    }
}
