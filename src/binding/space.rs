//! `Space`: the compiled half of `GpuVm`.

use std::ops::{Deref, DerefMut};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::bulk::{Pool, Scratch};
use super::errors::{Class, error, error_about};
use super::gpuva::Gpuva;
use super::immediate::Zombie;
use super::ops::Map;
use super::plan::Plan;
use super::step::Step;
use super::vm_bo::VmBo;
use crate::paging::Paging;
use crate::plan::{Answers, Merge};
use crate::regions::{Regions, Rule};
use crate::space::{self, HANDLE, IN_TREE, INVALIDATED, LINKED, Mapping};
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
    /// Mappings change where nothing may be freed: vm_bos whose last mapping goes are kept for later.
    pub immediate_mode: bool,
    pub open: bool,
    /// By slot, where flag HANDLE is set.
    pub handles: Vec<Option<Py<Gpuva>>>,
    /// By object record.
    pub objects: Vec<Option<Py<PyAny>>>,
    pub vm_bos: Vec<Option<Py<VmBo>>>,
    /// Records that these two have room for.
    pub beside: usize,
    /// The operation that a driver's step has to apply now.
    pub step: Option<Step>,
    /// Why nobody else may change the space now.
    pub busy: Option<Busy>,
    pub pool: Pool,
    pub scratch: Scratch,
    /// What a space with a page table knows of the pages of mappings, whose Python objects are of a class of their own.
    pub paging: Option<Box<Paging>>,
    pub handle_class: Option<Py<PyType>>,
    /// Vm_bos that ended where nothing may be freed, oldest first.
    pub zombies: Vec<Zombie>,
    /// Python objects that lost their place while the space was borrowed.
    pub dropped: Garbage,
}

/// What runs a driver's callbacks in the middle of a change.
pub enum Busy {
    Step(Py<Plan>),
    Bind,
}

/// A space borrowed for writing. No Python code runs meanwhile, so no other thread ever finds it borrowed.
pub struct Held<'py> {
    space: PyRefMut<'py, Space>,
    _collector: Collector,
}

impl Deref for Held<'_> {
    type Target = Space;

    #[inline]
    fn deref(&self) -> &Space {
        &self.space
    }
}

impl DerefMut for Held<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Space {
        &mut self.space
    }
}

/// The interpreter's garbage collector, paused: making an object could start it, and with it any finalizer.
pub struct Collector {
    was_enabled: bool,
}

impl Collector {
    #[inline]
    pub fn pause() -> Self {
        // SAFETY: the interpreter's lock is held, as every borrow of a space shows.
        Collector { was_enabled: unsafe { ffi::PyGC_Disable() } != 0 }
    }
}

impl Drop for Collector {
    #[inline]
    fn drop(&mut self) {
        if self.was_enabled {
            // SAFETY: as in `pause`.
            unsafe { ffi::PyGC_Enable() };
        }
    }
}

/// Python objects to be dropped once the space is not borrowed any more.
pub type Garbage = Vec<Py<PyAny>>;

impl Space {
    /// What `__init__` makes an address space of.
    pub fn unopened() -> Self {
        Space {
            core: space::Space::new(0, 0),
            name: String::new(),
            merge: Merge::Never,
            can_merge: None,
            immediate_mode: false,
            open: false,
            handles: Vec::new(),
            objects: Vec::new(),
            vm_bos: Vec::new(),
            beside: 0,
            step: None,
            busy: None,
            pool: Pool::default(),
            scratch: Scratch::default(),
            paging: None,
            handle_class: None,
            zombies: Vec::new(),
            dropped: Garbage::new(),
        }
    }

    pub fn reading<'py>(slf: &Bound<'py, Self>) -> PyResult<PyRef<'py, Self>> {
        slf.try_borrow().map_err(|_| Self::reentered(slf.py()))
    }

    /// Borrow to change something that lets no Python object go.
    pub fn writing<'py>(slf: &Bound<'py, Self>) -> PyResult<Held<'py>> {
        let collector = Collector::pause();
        let space = slf.try_borrow_mut().map_err(|_| Self::reentered(slf.py()))?;
        if space.open { Ok(Held { space, _collector: collector }) } else { Err(space.closed(slf.py())) }
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
        let message = format!("address space {:?} was closed by its last put, or never opened", self.name);
        error(py, Class::InvalidArgument, message)
    }

    /// EBUSY while a driver's callback runs in the middle of a change.
    pub fn require_idle(&self, py: Python<'_>, what: &str) -> PyResult<()> {
        let reason = match self.busy {
            None => return Ok(()),
            Some(Busy::Step(_)) => "a plan is being stepped",
            Some(Busy::Bind) => "an array of binds is being applied",
        };
        let message = format!("{what}: {reason}; until that ends nothing else may change the space");
        Err(error(py, Class::Busy, message))
    }

    /// EBUSY if the flags of the mapping in `slot` may not be `changed` while a driver's callback runs.
    ///
    /// INVALIDATED may: who evicts is not kept away by the lock of those who step. Unless it would get lost, where
    /// the step takes the mapping's flags elsewhere, or takes the mapping away again when it fails.
    pub fn require_settable(&self, py: Python<'_>, slot: u32, changed: u32) -> PyResult<()> {
        if changed & !INVALIDATED == 0
            && let Some(Busy::Step(plan)) = &self.busy
            && !plan.borrow(py).takes_flags_of(slot, self.merge)
            && !self.core.came_with_step(slot)
        {
            return Ok(());
        }
        self.require_idle(py, "setting flags")
    }

    /// References to the vm_bo of `object` that mappings keep while a step may have to bring them back.
    pub fn references_of_step(&self, py: Python<'_>, object: u32) -> u32 {
        match &self.busy {
            Some(Busy::Step(plan)) => self.core.references_of_step(&plan.borrow(py).ops, object),
            _ => 0,
        }
    }

    /// Detach the Python objects of what went since the last call.
    #[inline]
    fn sweep(&mut self, py: Python<'_>) -> Garbage {
        let mut garbage = std::mem::take(&mut self.dropped);
        if self.core.has_retired() || self.core.objects.has_garbage() {
            self.sweep_into(py, &mut garbage);
        }
        garbage
    }

    fn sweep_into(&mut self, py: Python<'_>, garbage: &mut Garbage) {
        while let Some((slot, flags)) = self.core.pop_retired() {
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
        for object in self.core.objects.take_deferred() {
            let vm_bo = self.vm_bos[object as usize].take();
            if let Some(vm_bo) = &vm_bo {
                let mut inner = vm_bo.borrow_mut(py);
                (inner.object, inner.zombie) = (NONE, true);
            }
            let obj = self.objects[object as usize].as_ref().map(|obj| obj.clone_ref(py));
            self.zombies.push(Zombie { obj, vm_bo });
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
        self.reserve_handles(py, 0)?;
        let va = match &self.handle_class {
            Some(class) if slot.object != NONE => Gpuva::of_class(class.bind(py), va)?,
            _ => Py::new(py, va)?,
        };
        self.set_handle(entry.slot, va.clone_ref(py));
        Ok(va)
    }

    fn set_handle(&mut self, slot: u32, va: Py<Gpuva>) {
        let index = slot as usize;
        if index >= self.handles.len() {
            self.handles.resize_with(index + 1, || None);
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
        self.dropped.extend(old);
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
        let vm_bo = Py::new(py, VmBo::obtained(slf.clone().unbind(), obj, object))?;
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
        let (reason, bound) = self.range_fault(addr, range).unwrap_or_default();
        let message = format!("{what}: range [{addr:#x}, +{range:#x}) {reason}");
        error_about(py, Class::InvalidArgument, message, (addr, range), bound)
    }

    /// What is wrong with a range, and the (addr, range) that it broke.
    pub fn range_fault(&self, addr: u64, range: u64) -> Option<(String, (u64, u64))> {
        let (start, end) = (self.core.start, self.core.end);
        let space = (start, end - start);
        if range == 0 {
            return Some(("is empty; a length is at least 1".to_owned(), space));
        }
        let Some(stop) = addr.checked_add(range) else {
            return Some(("reaches beyond 2**64".to_owned(), space));
        };
        if addr < start || stop > end {
            let name = &self.name;
            return Some((format!("lies outside {name:?}, which is [{start:#x}, {end:#x})"), space));
        }
        let (kernel, behind) = self.core.kernel_range;
        if !self.core.touches_kernel(addr, stop) {
            return None;
        }
        Some((format!("touches the kernel's node [{kernel:#x}, {behind:#x})"), (kernel, behind - kernel)))
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
            Some((region.addr, region.end - region.addr)),
        ),
        Some(region) => (
            Class::InvalidArgument,
            format!(
                "is not inside one region; the first that it touches is [{:#x}, {:#x})",
                region.addr, region.end
            ),
            Some((region.addr, region.end - region.addr)),
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

impl Space {
    /// The end of a range that only has to be one: EINVAL if it is empty or overflows.
    pub fn end_of(&self, py: Python<'_>, what: &str, addr: u64, range: u64) -> PyResult<u64> {
        addr.checked_add(range).filter(|_| range > 0).ok_or_else(|| self.bad_range(py, what, addr, range))
    }

    /// EINVAL for an empty range.
    fn require_range(&self, py: Python<'_>, what: &str, addr: u64, range: u64) -> PyResult<()> {
        if range > 0 { Ok(()) } else { Err(self.bad_range(py, what, addr, range)) }
    }

    /// The last address of a range that may wrap: EINVAL if it is empty.
    pub fn last_of(&self, py: Python<'_>, what: &str, addr: u64, range: u64) -> PyResult<u64> {
        self.require_range(py, what, addr, range)?;
        Ok(addr.wrapping_add(range - 1))
    }

    /// The tree's entry of `va`, EINVAL if it is not in this tree.
    pub fn entry_of(&self, slf: &Bound<'_, Self>, va: &Bound<'_, Gpuva>, what: &str) -> PyResult<Entry> {
        let inner = va.borrow();
        let here = inner.slot != NONE && inner.vm.as_ref().is_some_and(|vm| vm.is(slf));
        if here && self.core.slot(inner.slot).flags & IN_TREE != 0 {
            return Ok(Entry { addr: inner.addr, range: inner.range, slot: inner.slot });
        }
        let message = format!(
            "{what}: the mapping [{:#x}, +{:#x}) is not in this address space",
            inner.addr, inner.range
        );
        Err(error_about(slf.py(), Class::InvalidArgument, message, (inner.addr, inner.range), ()))
    }

    /// Python objects and flags agree.
    pub fn check_handles(&self) -> Result<(), String> {
        for (slot, _) in self.handles.iter().enumerate().filter(|(_, va)| va.is_some()) {
            let flags = self.core.slots[slot as u32].flags;
            if flags & HANDLE == 0 || flags & (IN_TREE | LINKED) == 0 {
                return Err(format!("slot {slot} has a Python object and flags {flags:#x}"));
            }
        }
        for id in self.core.objects.ids() {
            if self.objects.get(id as usize).is_none_or(Option::is_none) {
                return Err(format!("object record {id} keeps no Python object alive"));
            }
        }
        self.check_zombies()
    }
}
