//! `Plan`: the operations that a request comes to, to be looked at and applied.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyTuple};

use super::errors::{Class, error};
use super::gpuva::Gpuva;
use super::ops::{Map, Prefetch, Remap, Unmap};
use super::space::{Busy, Collector, Space, ask_driver};
use super::step;
use crate::plan::{self, Answers, Compared, Kind, Merge, Op};
use crate::space::{Change, HANDLE, Mapping, Stamp, USER_FLAGS};
use crate::tree::{Entry, NONE};

/// How a plan changes the space.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// One run of mappings goes, what `change` says comes.
    Run,
    /// Each mapping that goes is a change of its own.
    Each,
    /// Not at all.
    Prefetch,
}

/// The operations that a request comes to: an immutable sequence of `Map`, `Unmap`, `Remap` and `Prefetch`.
///
/// They name live mappings and are to be applied in order, all of them, by ``apply`` (list style) or ``step``
/// (callback style), while the space is as it was when the plan was made. Only INVALIDATED may change meanwhile, of
/// mappings that the plan does not cut, take in or compare in order to merge.
#[pyclass(module = "gpuvm._core")]
pub struct Plan {
    /// The address space that it is for.
    #[pyo3(get)]
    pub vm: Py<Space>,
    pub ops: Vec<Op>,
    change: Change,
    style: Style,
    /// When the plan was made.
    stamp: Stamp,
    /// What it looked at to merge, beside what its operations name.
    compared: [Compared; 2],
    /// The object of the request, which the space may not know yet.
    requested: Option<Py<PyAny>>,
    /// True once it was applied or stepped.
    #[pyo3(get)]
    applied: bool,
    /// The operations as Python objects, once asked for.
    items: Option<Py<PyTuple>>,
    /// For each operation the mapping's Python object and the mapped object, kept when the mapping went.
    kept: Vec<Kept>,
}

/// What is left of a mapping that an applied operation named.
struct Kept {
    /// Its Python object, if it had one.
    va: Option<Py<Gpuva>>,
    /// The object that was mapped.
    obj: Option<Py<PyAny>>,
}

impl Plan {
    #[inline]
    pub fn sm_map(
        slf: &Bound<'_, Space>,
        (addr, range): (u64, u64),
        obj: Option<Bound<'_, PyAny>>,
        offset: u64,
        flags: u32,
    ) -> PyResult<Plan> {
        let py = slf.py();
        let space = Space::writing(slf)?;
        space.check_range(py, "sm_map", addr, range)?;
        space.check_regions(py, "sm_map", addr, addr + range)?;
        let object = obj.as_ref().map_or(NONE, |obj| space.record_of(obj));
        let request = Mapping { addr, range, offset, object, flags };
        let mut plan = Plan::empty(slf, Style::Run);
        plan.requested = obj.map(Bound::unbind);
        plan.stamp = space.core.stamp();
        if space.merge == Merge::Never {
            let at = space.core.tree.locate(addr);
            plan::map(&space.core, at, &request, &mut plan.change, &mut plan.ops);
            return Ok(plan);
        }
        drop(space);
        plan.merge(slf, &request)?;
        Ok(plan)
    }

    /// Plan a merging map, asking the driver until all its answers are known.
    fn merge(&mut self, slf: &Bound<'_, Space>, request: &Mapping) -> PyResult<()> {
        let space = Space::reading(slf)?;
        let mut answers = Answers { has_veto: space.can_merge.is_some(), ..Answers::default() };
        drop(space);
        loop {
            let space = Space::reading(slf)?;
            let stamp = space.core.stamp();
            if !stamp.agrees(&self.stamp) {
                let message =
                    "sm_map: the merge veto changed the address space while it was asked; it must only look";
                return Err(error(slf.py(), Class::StalePlan, message));
            }
            self.stamp = stamp;
            let at = space.core.tree.locate(request.addr);
            self.ops.clear();
            let policy = (space.merge, &mut answers);
            plan::map_merging(&space.core, at, request, policy, &mut self.change, &mut self.ops);
            drop(space);
            if answers.open.is_empty() {
                self.compared = answers.compared;
                return Ok(());
            }
            let op = Bound::new(slf.py(), self.map_op(slf, request)?)?;
            ask_driver(slf, &mut answers, &op)?;
        }
    }

    #[inline]
    pub fn sm_unmap(slf: &Bound<'_, Space>, addr: u64, range: u64) -> PyResult<Plan> {
        let space = Space::writing(slf)?;
        space.check_range(slf.py(), "sm_unmap", addr, range)?;
        let mut plan = Plan::empty(slf, Style::Run);
        plan.stamp = space.core.stamp();
        let at = space.core.tree.locate(addr);
        plan::unmap(&space.core, at, addr, addr + range, &mut plan.change, &mut plan.ops);
        Ok(plan)
    }

    /// A plan whose operations `fill` finds.
    pub fn collect(
        slf: &Bound<'_, Space>,
        style: Style,
        fill: impl FnOnce(&Space, &mut Vec<Op>) -> PyResult<()>,
    ) -> PyResult<Plan> {
        let space = Space::writing(slf)?;
        let mut plan = Plan::empty(slf, style);
        plan.stamp = space.core.stamp();
        fill(&space, &mut plan.ops)?;
        Ok(plan)
    }

    fn empty(slf: &Bound<'_, Space>, style: Style) -> Plan {
        Plan {
            vm: slf.clone().unbind(),
            ops: Vec::new(),
            change: Change::default(),
            style,
            stamp: Stamp::default(),
            compared: Default::default(),
            requested: None,
            applied: false,
            items: None,
            kept: Vec::new(),
        }
    }

    /// ESTALE unless the plan can be applied now.
    fn require_fresh(&self, space: &Space, py: Python<'_>) -> PyResult<()> {
        if self.applied {
            return Err(error(py, Class::StalePlan, "this plan was applied already; ask for a new one"));
        }
        if self.holds(space) { Ok(()) } else { Err(self.overtaken(space, py)) }
    }

    /// True while the space is what the plan was made for, as far as it looked.
    #[inline]
    fn holds(&self, space: &Space) -> bool {
        self.stamp == space.core.stamp() || self.still_holds(space)
    }

    /// INVALIDATED changed somewhere, or more did.
    #[cold]
    fn still_holds(&self, space: &Space) -> bool {
        let as_then =
            |slot: u32, flags: u32| slot == NONE || space.core.slot(slot).flags & USER_FLAGS == flags;
        self.stamp.agrees(&space.core.stamp())
            && self.compared.iter().all(|compared| as_then(compared.slot, compared.flags))
            && self
                .ops
                .iter()
                .filter(|op| takes_flags(op, space.merge))
                .all(|op| as_then(op.slot, op.mapping.flags))
    }

    /// True if the flags of the mapping in `slot` went into what the operations say.
    pub fn takes_flags_of(&self, slot: u32, merge: Merge) -> bool {
        self.ops.iter().any(|op| op.slot == slot && takes_flags(op, merge))
    }

    #[cold]
    fn overtaken(&self, space: &Space, py: Python<'_>) -> PyErr {
        let (then, now) = (self.stamp, space.core.stamp());
        let what = if then.generation != now.generation {
            format!(
                "changed since this plan was made (generation {} then, {} now)",
                then.generation, now.generation
            )
        } else if then.epoch != now.epoch {
            "changed and was changed back since this plan was made".to_owned()
        } else {
            "has a mapping that this plan cuts, or compared in order to merge, and whose INVALIDATED changed since"
                .to_owned()
        };
        error(py, Class::StalePlan, format!("the address space {what}; ask for a new plan"))
    }

    /// Make sure that it can be applied, at once or step by step.
    #[inline]
    fn reserve(&self, space: &mut Space, py: Python<'_>) -> PyResult<()> {
        let changes = match self.style {
            Style::Run => usize::from(!self.change.added().is_empty()),
            _ => self.ops.iter().flat_map(Op::coming).flatten().count().div_ceil(3),
        };
        let unknown = self.requested.as_ref().map_or(0, |requested| space.unknown(requested.bind(py)));
        space.reserve(py, changes, unknown)
    }

    /// Look the record of the requested object up again, which may have come or gone since, making it if need be.
    fn resolve(&mut self, space: &mut Space, py: Python<'_>) -> u32 {
        let Some(requested) = &self.requested else { return NONE };
        let object = space.intern(requested.bind(py));
        for op in self.ops.iter_mut().filter(|op| op.kind == Kind::Map) {
            op.mapping.object = object;
        }
        self.change.set_requested_object(object);
        object
    }

    /// Keep what the operations name, since applying lets go of it.
    fn keep(&mut self, space: &mut Space, slf: &Bound<'_, Space>) -> PyResult<()> {
        if self.items.is_some() {
            return Ok(());
        }
        for op in self.ops.iter().filter(|op| op.slot != NONE) {
            let has_handle = space.core.slot(op.slot).flags & HANDLE != 0;
            let entry = Entry { addr: op.mapping.addr, range: op.mapping.range, slot: op.slot };
            let va = if has_handle { Some(space.handle(slf, &entry)?) } else { None };
            self.kept.push(Kept { va, obj: space.object(slf.py(), op.mapping.object) });
        }
        Ok(())
    }

    /// The operations as Python objects.
    fn items<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let py = slf.py();
        let _collector = Collector::pause();
        let plan = slf.borrow();
        if let Some(items) = &plan.items {
            return Ok(items.bind(py).clone());
        }
        let vm = plan.vm.bind(py).clone();
        if !plan.applied && plan.ops.iter().any(|op| op.slot != NONE) {
            plan.require_fresh(&*Space::reading(&vm)?, py)?;
        }
        let mut kept = plan.kept.iter();
        let mut items = Vec::with_capacity(plan.ops.len());
        for op in &plan.ops {
            let va = match op.slot {
                NONE => None,
                _ if plan.applied => kept.next().map(|kept| Self::gone(py, op, kept)).transpose()?,
                _ => Some(Self::live(&vm, op)?),
            };
            items.push(plan.item(&vm, op, va)?);
        }
        let items = PyTuple::new(py, items)?;
        drop(plan);
        slf.borrow_mut().items = Some(items.clone().unbind());
        Ok(items)
    }

    fn live(vm: &Bound<'_, Space>, op: &Op) -> PyResult<Py<Gpuva>> {
        let mut space = Space::writing(vm)?;
        space.handle(vm, &Entry { addr: op.mapping.addr, range: op.mapping.range, slot: op.slot })
    }

    /// The mapping of an applied operation; nobody had its Python object before if none was kept.
    fn gone(py: Python<'_>, op: &Op, kept: &Kept) -> PyResult<Py<Gpuva>> {
        if let Some(va) = &kept.va {
            return Ok(va.clone_ref(py));
        }
        let Mapping { addr, range, offset, flags, .. } = op.mapping;
        let obj = kept.obj.as_ref().map(|obj| obj.clone_ref(py));
        Py::new(py, Gpuva { vm: None, slot: NONE, own_flags: flags, addr, range, offset, obj })
    }

    fn item(&self, vm: &Bound<'_, Space>, op: &Op, va: Option<Py<Gpuva>>) -> PyResult<Py<PyAny>> {
        let py = vm.py();
        let Some(va) = va else {
            return Ok(Py::new(py, self.map_op(vm, &op.mapping)?)?.into_any());
        };
        let obj = va.borrow(py).obj.as_ref().map(|obj| obj.clone_ref(py));
        let side = |mapping: Option<Mapping>| {
            mapping
                .map(|mapping| Py::new(py, as_map(&mapping, obj.as_ref().map(|obj| obj.clone_ref(py)))))
                .transpose()
        };
        Ok(match op.kind {
            Kind::Prefetch => Py::new(py, Prefetch { va })?.into_any(),
            Kind::Remap => {
                let (prev, next) = (side(op.prev_mapping())?, side(op.next_mapping())?);
                let unmap = Py::new(py, Unmap { va, keep: op.keep })?;
                Py::new(py, Remap { prev, next, unmap })?.into_any()
            }
            _ => Py::new(py, Unmap { va, keep: op.keep })?.into_any(),
        })
    }

    fn map_op(&self, vm: &Bound<'_, Space>, mapping: &Mapping) -> PyResult<Map> {
        let py = vm.py();
        let obj = match mapping.object {
            NONE => None,
            _ => self.requested.as_ref().map(|obj| obj.clone_ref(py)),
        };
        Ok(as_map(mapping, obj))
    }
}

/// True if the mapping's flags went into what `op` says: into remainders, or into a comparison in order to merge.
fn takes_flags(op: &Op, merge: Merge) -> bool {
    op.kind == Kind::Remap || op.keep && merge != Merge::Never
}

fn as_map(mapping: &Mapping, obj: Option<Py<PyAny>>) -> Map {
    let Mapping { addr, range, offset, flags, .. } = *mapping;
    Map { addr, range, obj, offset, flags }
}

#[pymethods]
impl Plan {
    /// True if the plan cannot be applied any more, because it was or because the space changed since.
    #[getter]
    fn stale(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.applied || !self.holds(&*Space::reading(self.vm.bind(py))?))
    }

    /// Apply all operations as one step, mappings linked and unlinked included. Whole or not at all.
    ///
    /// Locking: the VM's lock for writing since before the plan was made. ESTALE: the space changed since, or the
    /// plan was applied. ENOMEM: nothing was changed. O(operations x log n).
    fn apply(slf: &Bound<'_, Self>) -> PyResult<()> {
        let vm = slf.borrow().vm.clone_ref(slf.py());
        let vm = vm.bind(slf.py());
        Space::changing(vm, |space, py| {
            space.require_idle(py, "apply")?;
            let mut plan = slf.borrow_mut();
            plan.require_fresh(space, py)?;
            if plan.style == Style::Prefetch {
                return Ok(());
            }
            plan.reserve(space, py)?;
            plan.keep(space, vm)?;
            plan.resolve(space, py);
            if plan.style == Style::Run {
                space.core.apply(&plan.change);
            } else {
                for (addr, mut change) in plan::changes(&plan.ops) {
                    change.at = space.core.tree.locate(addr);
                    space.core.apply(&change);
                }
            }
            plan.account(space);
            plan.applied = true;
            Ok(())
        })
    }

    /// Walk the operations with a driver's own steps (the callback style of `drm_gpuvm_sm_map`).
    ///
    /// ``driver`` has ``sm_step_map(op)``, ``sm_step_remap(op)`` and ``sm_step_unmap(op)``. Each must apply its
    /// operation, with mappings of its own, by ``vm.map``, ``vm.remap`` or ``vm.unmap``, before it returns. If one
    /// raises, or does not apply, everything done so far is undone and the error goes on to the caller. ESTALE,
    /// ENOMEM as ``apply``; EINVAL: a prefetch plan, which has no steps.
    fn step(slf: &Bound<'_, Self>, driver: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let vm = slf.borrow().vm.clone_ref(py);
        let vm = vm.bind(py);
        let items = Self::items(slf)?;
        let requested = Space::changing(vm, |space, py| {
            space.require_idle(py, "step")?;
            let mut plan = slf.borrow_mut();
            plan.require_fresh(space, py)?;
            if plan.style == Style::Prefetch {
                return Err(error(
                    py,
                    Class::InvalidArgument,
                    "step: a prefetch plan changes nothing and has no steps",
                ));
            }
            plan.reserve(space, py)?;
            let requested = plan.resolve(space, py);
            if requested != NONE {
                // Held until the end: the driver may drop what else keeps it.
                space.core.objects.hold(requested);
            }
            space.core.open_steps();
            space.busy = Some(Busy::Step(slf.clone().unbind()));
            Ok(requested)
        })?;
        let stepped = step::run(vm, driver, slf, &items);
        Space::changing(vm, |space, _| {
            (space.busy, space.step) = (None, None);
            let mut plan = slf.borrow_mut();
            if stepped.is_ok() {
                space.core.commit_steps(&plan.ops);
                plan.account(space);
                plan.applied = true;
            } else {
                space.core.roll_back_steps(&plan.ops);
                plan.renew(space);
            }
            if requested != NONE {
                space.core.objects.let_go(requested);
            }
            Ok(())
        })?;
        stepped
    }

    fn __len__(&self) -> usize {
        self.ops.len()
    }

    fn __getitem__<'py>(slf: &Bound<'py, Self>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        Self::items(slf)?.as_any().get_item(index)
    }

    fn __reversed__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyIterator>> {
        let items = Self::items(slf)?;
        PyTuple::new(slf.py(), items.iter().rev())?.as_any().try_iter()
    }

    /// Position of the first operation equal to `op`; ValueError if there is none.
    #[pyo3(signature = (op, start = 0, stop = isize::MAX))]
    fn index(slf: &Bound<'_, Self>, op: &Bound<'_, PyAny>, start: isize, stop: isize) -> PyResult<usize> {
        Self::items(slf)?.as_any().call_method1("index", (op, start, stop))?.extract()
    }

    /// How many operations equal `op`.
    fn count<'py>(slf: &Bound<'py, Self>, op: &Bound<'py, PyAny>) -> PyResult<usize> {
        Self::items(slf)?.as_any().call_method1("count", (op,))?.extract()
    }

    fn __iter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyIterator>> {
        Self::items(slf)?.as_any().try_iter()
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let state = match (slf.borrow().applied, Self::stale(&slf.borrow(), slf.py())?) {
            (true, _) => " applied",
            (_, true) => " stale",
            _ => "",
        };
        if state == " stale" && slf.borrow().items.is_none() {
            return Ok(format!("<Plan of {} operations, stale>", slf.borrow().ops.len()));
        }
        let items = Self::items(slf)?;
        let items: Vec<String> =
            items.iter().map(|op| Ok(op.repr()?.to_string())).collect::<PyResult<_>>()?;
        Ok(format!("<Plan{state} [{}]>", items.join(", ")))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.vm)?;
        visit.call(&self.requested)?;
        visit.call(&self.items)?;
        for kept in &self.kept {
            visit.call(&kept.va)?;
            visit.call(&kept.obj)?;
        }
        Ok(())
    }
}

impl Plan {
    /// Count what was applied, and make every other plan stale.
    fn account(&mut self, space: &mut Space) {
        for op in &self.ops {
            space.core.counters.ops.count(op);
        }
        space.core.generation += 1;
    }

    /// The space is as it was when the plan was made, but its nodes are not.
    fn renew(&mut self, space: &Space) {
        self.stamp = Stamp { invalidations: self.stamp.invalidations, ..space.core.stamp() };
        let gone = self.ops.iter().filter(|op| op.slot != NONE).map(|op| op.mapping.addr);
        let come = self.change.added().iter().map(|mapping| mapping.addr);
        if let Some(first) = gone.chain(come).min() {
            self.change.at = space.core.tree.locate(first);
        }
    }
}
