//! The methods of `Space`, as Python sees them; what they do is in the files beside.

use std::collections::HashMap;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use super::bind_now;
use super::bind_ops::{self, BindOps};
use super::bulk::{self, Records};
use super::errors::{Class, Flags, U64, error, out_of_memory};
use super::gpuva::Gpuva;
use super::lookup::{self, MappingIterator};
use super::ops::{Map, Remap, Unmap};
use super::plan::{Plan, Style};
use super::raw_exec::RawExec;
use super::space::Space;
use super::step::Step;
use super::vm_bo::VmBo;
use super::work::Work;
use super::{immediate, insert, life, moving, obtain, pages, regions, vm_bind};
use crate::paging::Paging;
use crate::{gaps, plan};

#[pymethods]
impl Space {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Space::unopened()
    }

    #[pyo3(signature = (name, start, range, kernel_node, kernel_node_anywhere, merge, regions, immediate_mode, can_merge))]
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
        immediate_mode: bool,
        can_merge: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        life::init(
            slf,
            (name, start, range),
            (kernel_node, kernel_node_anywhere),
            (merge, regions),
            immediate_mode,
            can_merge,
        )
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

    /// Whether any object is on the list of evicted ones.
    #[getter]
    pub fn has_evicted(&self) -> bool {
        self.core.objects.evicted.len() > 0
    }

    /// Grows by one with every change but those of INVALIDATED; a plan made at another generation is stale.
    #[getter]
    fn generation(&self) -> u64 {
        self.core.generation
    }

    /// The mapping that stands for the kernel's reserved range, or None.
    #[getter]
    fn kernel_node(slf: &Bound<'_, Self>) -> PyResult<Option<Py<Gpuva>>> {
        lookup::answer(slf, |space| Ok(space.core.kernel_node()))
    }

    fn __len__(&self) -> usize {
        self.core.len()
    }

    fn __bool__(&self) -> bool {
        true
    }

    /// The mapping at exactly `[addr, addr + range)`, or None (`drm_gpuva_find`). O(log n).
    fn find(slf: &Bound<'_, Self>, addr: U64, range: U64) -> PyResult<Option<Py<Gpuva>>> {
        lookup::answer(slf, |space| Ok(space.core.find(addr.0, range.0)))
    }

    /// The lowest mapping that overlaps `[addr, addr + range)`, or None (`drm_gpuva_find_first`). O(log n).
    ///
    /// EINVAL: `range` is 0. A range that wraps is taken modulo 2**64, as the kernel does.
    fn find_first(slf: &Bound<'_, Self>, addr: U64, range: U64) -> PyResult<Option<Py<Gpuva>>> {
        lookup::answer(slf, |space| {
            let last = space.last_of(slf.py(), "find_first", addr.0, range.0)?;
            Ok(space.core.first_touching(addr.0, last))
        })
    }

    /// The mapping that ends exactly at `addr`, or None (`drm_gpuva_find_prev`, made exact). O(log n).
    ///
    /// Never the kernel's node.
    fn find_prev(slf: &Bound<'_, Self>, addr: U64) -> PyResult<Option<Py<Gpuva>>> {
        lookup::answer(slf, |space| Ok(space.core.find_prev(addr.0)))
    }

    /// The mapping that begins exactly at `addr`, or None (`drm_gpuva_find_next`, made exact). O(log n).
    ///
    /// Never the kernel's node.
    fn find_next(slf: &Bound<'_, Self>, addr: U64) -> PyResult<Option<Py<Gpuva>>> {
        lookup::answer(slf, |space| Ok(space.core.find_next(addr.0)))
    }

    /// Mappings in address order, the kernel's node included (`drm_gpuvm_for_each_va_range_safe`).
    ///
    /// All, or those that overlap `[addr, addr + range)`. The current one may be removed and its remainders
    /// inserted while iterating: iteration goes on behind where it ended. O(log n) a step. EINVAL: `range` is 0 or
    /// the end overflows.
    #[pyo3(signature = (addr = None, range = None))]
    fn mappings(slf: &Bound<'_, Self>, addr: Option<U64>, range: Option<U64>) -> PyResult<MappingIterator> {
        lookup::mappings(slf, addr, range)
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
        lookup::find_gap(slf, range, align, fit, window)
    }

    /// Put `va` into the tree without splitting anything or linking it (`drm_gpuva_insert`). O(log n).
    ///
    /// Locking: the VM's lock for writing. EINVAL: its range cannot be mapped, or the regions forbid it. EEXIST:
    /// something is mapped there. EBUSY: `va` is in a space already. ENOMEM.
    fn insert(slf: &Bound<'_, Self>, va: &Bound<'_, Gpuva>) -> PyResult<()> {
        insert::insert(slf, va)
    }

    /// Take `va` out of the tree (`drm_gpuva_remove`); it stays linked if it was. O(log n).
    ///
    /// EINVAL: it is not in this space's tree, or it is the kernel's node.
    fn remove(slf: &Bound<'_, Self>, va: &Bound<'_, Gpuva>) -> PyResult<()> {
        insert::remove(slf, va)
    }

    /// What mapping `obj` from byte `offset` on at `[addr, addr + range)` would do (`drm_gpuvm_sm_map_ops_create`).
    ///
    /// Changes nothing: `Plan.apply` does. The map comes last; under a merging policy it may be larger than the
    /// request, or missing because all is mapped already. Locking: the VM's lock for writing, until the plan is
    /// applied or dropped. EINVAL: the range is empty, overflows, or lies outside the space or on the kernel's
    /// node, or Regions.REQUIRED and it is inside no region; ENOSPC: it cuts a sparse region.
    /// O(log n + mappings overlapped).
    #[pyo3(
        signature = (addr, range, obj = None, offset = U64(0), flags = Flags(0)),
        text_signature = "($self, addr, range, obj=None, offset=0, flags=0)"
    )]
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
        obtain::create(slf, obj)
    }

    /// The VmBo of `obj` with a reference more, or None (`drm_gpuvm_bo_find`).
    fn bo_find(slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>) -> PyResult<Option<Py<VmBo>>> {
        obtain::find(slf, obj)
    }

    /// The VmBo of `obj`, made if there is none, with a reference more (`drm_gpuvm_bo_obtain_locked`).
    ///
    /// EINVAL: `obj` is None. ENOMEM.
    fn bo_obtain(slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>) -> PyResult<Py<VmBo>> {
        obtain::obtain(slf, obj)
    }

    /// The VmBo of `vm_bo`'s object (`drm_gpuvm_bo_obtain_prealloc`).
    ///
    /// Takes over the caller's reference: an existing twin is returned and `vm_bo` put, else `vm_bo` becomes it.
    /// EINVAL: `vm_bo` did not come from `bo_create` of this space, or has other references.
    fn bo_obtain_prealloc(slf: &Bound<'_, Self>, vm_bo: &Bound<'_, VmBo>) -> PyResult<Py<VmBo>> {
        obtain::obtain_prealloc(slf, vm_bo)
    }

    /// Every VmBo of the space.
    fn vm_bos(slf: &Bound<'_, Self>) -> PyResult<Vec<Py<VmBo>>> {
        let mut space = Self::writing(slf)?;
        let ids: Vec<u32> = space.core.objects.with_vm_bo().collect();
        ids.into_iter().map(|id| space.vm_bo(slf, id)).collect()
    }

    /// The list of external objects, oldest first.
    #[getter]
    fn extobjs(slf: &Bound<'_, Self>) -> PyResult<Vec<Py<VmBo>>> {
        obtain::listed(slf, |objects| &objects.extobjs)
    }

    /// The list of evicted objects, oldest first.
    #[getter]
    fn evicted(slf: &Bound<'_, Self>) -> PyResult<Vec<Py<VmBo>>> {
        obtain::listed(slf, |objects| &objects.evicted)
    }

    /// The first external object behind place `after` of the list, 0 being the beginning, and its place. O(log n).
    ///
    /// Places grow in the order of the list and are never used again, so that others may change the list while it
    /// is walked: what was added meanwhile comes too, what went does not.
    fn _next_extobj(slf: &Bound<'_, Self>, after: u64) -> PyResult<Option<(u64, Py<VmBo>)>> {
        obtain::next_listed(slf, after, |objects| &objects.extobjs)
    }

    /// The same of the list of evicted objects.
    fn _next_evicted(slf: &Bound<'_, Self>, after: u64) -> PyResult<Option<(u64, Py<VmBo>)>> {
        obtain::next_listed(slf, after, |objects| &objects.evicted)
    }

    /// VmBos and zombies, each of which holds a reference of the space.
    #[getter]
    fn _vm_bo_count(&self) -> usize {
        self.core.objects.vm_bo_count() + self.zombies.len()
    }

    /// Zombies: VmBos that ended where nothing may be freed, oldest first. `bo_deferred_cleanup` frees them.
    #[getter]
    fn deferred(slf: &Bound<'_, Self>) -> PyResult<Vec<Py<VmBo>>> {
        immediate::deferred(slf)
    }

    /// Let go of the zombies, of their objects and of the space (`drm_gpuvm_bo_deferred_cleanup`); how many.
    ///
    /// Objects may end with it: not inside a fence-signalling section (LockdepError).
    fn bo_deferred_cleanup(slf: &Bound<'_, Self>) -> PyResult<usize> {
        immediate::cleanup(slf)
    }

    /// Promise room for `changes` changes and `objects` new VmBos inside fence-signalling sections; adds up.
    ///
    /// A change is one plan of `sm_map` or `sm_unmap`, applied or stepped, one row of `bind`, one `insert`; a
    /// `madvise` is two. A new VmBo is one for an object without any. What calls outside such sections need is taken on
    /// top of the promise. Inside, calls take what is free beyond it, then the promised room, and are refused with
    /// LockdepError when that is used up. What they took is not made up for: release the whole promise when the job
    /// is cleaned up, and preallocate for the next one. Not counted are Python's objects, plans and
    /// answers among them, and what can undo a step or an array; regions cannot be made inside. About 3 KB a change.
    ///
    /// ENOMEM: nothing was promised. EINVAL: a number below 0. LockdepError: inside such a section.
    #[pyo3(signature = (changes, objects = 0))]
    fn preallocate(slf: &Bound<'_, Self>, changes: i64, objects: i64) -> PyResult<()> {
        immediate::preallocate(slf, changes, objects)
    }

    /// Give back what `preallocate` promised, used or not. The memory stays with the space.
    ///
    /// EINVAL: more than is promised.
    #[pyo3(signature = (changes, objects = 0))]
    fn release_preallocated(slf: &Bound<'_, Self>, changes: i64, objects: i64) -> PyResult<()> {
        immediate::release_preallocated(slf, changes, objects)
    }

    fn _region_insert(slf: &Bound<'_, Self>, addr: U64, range: U64, sparse: bool) -> PyResult<()> {
        regions::insert(slf, addr, range, sparse)
    }

    fn _region_remove(slf: &Bound<'_, Self>, addr: U64, range: U64) -> PyResult<()> {
        regions::remove(slf, addr, range)
    }

    fn _regions(&self) -> Vec<(u64, u64, bool)> {
        self.core
            .regions
            .iter()
            .map(|region| (region.addr, region.end - region.addr, region.sparse))
            .collect()
    }

    /// From here on mappings have pages. Sizes: shift, and by bit the apertures, the largest first.
    ///
    /// ``address_shift``: of a physical address in an entry, if entries are written by word, which ``_encode`` tells
    /// then; None: they are told to somebody who encodes them. Mappings are ``handle_class`` in Python.
    fn _open_pages(
        slf: &Bound<'_, Self>,
        sizes: Vec<(u8, u8)>,
        honour_keep: bool,
        address_shift: Option<u32>,
        handle_class: Py<PyType>,
    ) -> PyResult<()> {
        let paging = Paging::new(pages::sizes(sizes), honour_keep, address_shift);
        let opened = Space::writing(slf)?.open_paging(paging, handle_class);
        opened.map_err(|refused| out_of_memory(slf.py(), refused))
    }

    /// ``BindOp``s, unless something is wrong with one in itself.
    fn _read_ops(slf: &Bound<'_, Self>, ops: &Bound<'_, PyTuple>) -> PyResult<BindOps> {
        bind_ops::read(slf, ops)
    }

    /// Carry bind operations out in the space, all or none.
    fn _prepare_work(slf: &Bound<'_, Self>, ops: &Bound<'_, BindOps>) -> PyResult<Work> {
        vm_bind::prepare(slf, &mut *ops.try_borrow_mut()?)
    }

    /// Lock what bind operations touch under ``exec``, and carry them out in the space and in its page table. ``noted``
    /// is called with ``args`` when there is no way back; what it returns.
    #[pyo3(signature = (exec, ops, noted, *args))]
    fn _bind_now<'py>(
        slf: &Bound<'py, Self>,
        exec: &Bound<'py, RawExec>,
        ops: &Bound<'py, BindOps>,
        noted: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        bind_now::bind_now(slf, exec, ops, noted, args)
    }

    /// Refuse bind operations that `_prepare_work` would refuse if all objects had memory. Nothing is changed.
    fn _rehearse(slf: &Bound<'_, Self>, ops: &Bound<'_, BindOps>) -> PyResult<()> {
        vm_bind::rehearse(slf, &mut *ops.try_borrow_mut()?)
    }

    /// The objects that bind operations map, unmap or cut, one for each reservation but the space's own; and whether
    /// any shares that one.
    fn _touched(slf: &Bound<'_, Self>, ops: &Bound<'_, BindOps>) -> PyResult<(Vec<Py<PyAny>>, bool)> {
        vm_bind::touched(slf, &mut *ops.try_borrow_mut()?)
    }

    /// Binds that there was no way back from, their operations, and page slots that these did not clear.
    #[getter]
    fn _committed(&self, py: Python<'_>) -> PyResult<[u64; 3]> {
        Ok(self.paging(py)?.committed)
    }

    /// Take everything out of the space, for good; what is left to do, and the objects that it does not know any more.
    fn _unmap_all(slf: &Bound<'_, Self>) -> PyResult<(Work, Vec<Py<PyAny>>)> {
        vm_bind::unmap_all(slf)
    }

    /// Invalidate the mappings of an object. Their entries are still to be cleared.
    fn _invalidate(slf: &Bound<'_, Self>, vm_bo: &Bound<'_, VmBo>) -> PyResult<Work> {
        moving::invalidate(slf, vm_bo)
    }

    /// What it takes to map an object, which lies in ``extents`` now, again wherever it is invalidated.
    fn _bring_back(
        slf: &Bound<'_, Self>,
        vm_bo: &Bound<'_, VmBo>,
        extents: &Bound<'_, PyAny>,
    ) -> PyResult<Work> {
        moving::bring_back(slf, vm_bo, extents)
    }

    fn _bind(
        slf: &Bound<'_, Self>,
        requests: &Bound<'_, PyAny>,
        objects: &Bound<'_, PyAny>,
    ) -> PyResult<Records> {
        bulk::bind(slf, requests, objects)
    }

    fn _find_many(
        slf: &Bound<'_, Self>,
        addrs: &Bound<'_, PyAny>,
        ranges: &Bound<'_, PyAny>,
        out: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        bulk::find_many(slf, addrs, ranges, out)
    }

    fn _fill(slf: &Bound<'_, Self>, out: &Bound<'_, PyAny>) -> PyResult<usize> {
        bulk::fill(slf, out)
    }

    /// The first broken invariant in words, or None.
    fn _check(&self) -> Option<String> {
        let core = &self.core;
        let checks =
            core.tree.check().and_then(|()| gaps::check(&core.gaps, &core.tree)).and_then(|()| core.check());
        checks.and_then(|()| self.check_handles()).and_then(|()| self.check_paging()).err()
    }

    /// Counts by name, and how full the leaves are.
    fn _statistics(slf: &Bound<'_, Self>) -> PyResult<(HashMap<&'static str, u64>, f64)> {
        life::statistics(slf)
    }

    /// Close the space if nothing is left in it: take the kernel's node out, refuse changes from now on.
    fn _close(slf: &Bound<'_, Self>) -> PyResult<bool> {
        life::close(slf)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.can_merge)?;
        visit.call(&self.handle_class)?;
        for va in &self.handles {
            visit.call(va)?;
        }
        for object in &self.objects {
            visit.call(object)?;
        }
        for vm_bo in &self.vm_bos {
            visit.call(vm_bo)?;
        }
        for zombie in &self.zombies {
            visit.call(&zombie.obj)?;
            visit.call(&zombie.vm_bo)?;
        }
        Ok(())
    }

    fn __clear__(&mut self) {
        (self.can_merge, self.handle_class) = (None, None);
        self.open = false;
        self.handles.clear();
        self.vm_bos.clear();
        self.objects.clear();
        self.zombies.clear();
    }
}
