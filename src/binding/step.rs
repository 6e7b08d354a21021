//! The callback style: a driver applies a plan's operations one by one, with mappings of its own.

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::errors::{Class, error};
use super::gpuva::Gpuva;
use super::plan::Plan;
use super::space::Space;
use crate::plan::{Kind, Op};
use crate::space::{Change, Mapping};
use crate::tree::NONE;

/// The operation that the driver's callback has to apply now.
pub struct Step {
    item: Py<PyAny>,
    op: Op,
    applied: bool,
}

/// Call the driver for each operation of `plan`, whose Python objects are `items`; the caller has opened the journal.
pub fn run(
    vm: &Bound<'_, Space>,
    driver: &Bound<'_, PyAny>,
    plan: &Bound<'_, Plan>,
    items: &Bound<'_, PyTuple>,
) -> PyResult<()> {
    for (index, item) in items.iter().enumerate() {
        let op = plan.borrow().ops[index];
        let (callback, call) = match op.kind {
            Kind::Map => ("sm_step_map", "vm.map(op, va)"),
            Kind::Remap => ("sm_step_remap", "vm.remap(op, prev, next)"),
            Kind::Unmap | Kind::Prefetch => ("sm_step_unmap", "vm.unmap(op)"),
        };
        let Some(function) = driver.getattr_opt(callback)? else {
            let message = format!("the driver has no {callback}, which Plan.step needs for this plan");
            return Err(error(vm.py(), Class::InvalidArgument, message));
        };
        let step = Step { item: item.clone().unbind(), op, applied: false };
        Space::writing(vm)?.step = Some(step);
        function.call1((&item,))?;
        if !Space::reading(vm)?.step.as_ref().is_some_and(|step| step.applied) {
            let message = format!("{callback} returned without applying its operation; it must call {call}");
            return Err(error(vm.py(), Class::InvalidArgument, message));
        }
    }
    Ok(())
}

impl Step {
    /// Apply the current operation; `vas` become the mappings that come: the new one, or the two remainders.
    pub fn apply(
        vm: &Bound<'_, Space>,
        item: &Bound<'_, PyAny>,
        vas: [Option<&Bound<'_, Gpuva>>; 2],
    ) -> PyResult<()> {
        let py = vm.py();
        Space::changing(vm, |space, _| {
            let Some(step) = space.step.as_ref().filter(|step| step.item.is(item) && !step.applied) else {
                let message = "this is not the operation that is being stepped: map, remap and unmap are for the \
                               callbacks of Plan.step; use Plan.apply otherwise";
                return Err(error(py, Class::InvalidArgument, message));
            };
            let op = step.op;
            let coming = op.coming();
            check_mappings(py, &coming, &vas)?;
            space.reserve_handles(py, coming.iter().flatten().count())?;
            let mut change = Change::default();
            change.removed = u32::from(op.slot != NONE);
            change.at = space.core.tree.locate(op.mapping.addr);
            coming.iter().flatten().for_each(|mapping| change.add(*mapping));
            let slots = space.core.apply(&change);
            let made = coming.iter().zip(&vas).filter_map(|(mapping, va)| mapping.zip(*va));
            for (slot, (mapping, va)) in slots.into_iter().zip(made) {
                space.adopt(vm, va, slot, &mapping)?;
            }
            if let Some(step) = &mut space.step {
                step.applied = true;
            }
            Ok(())
        })
    }
}

/// There must be a free mapping for each that comes, and none for what does not.
fn check_mappings(
    py: Python<'_>,
    coming: &[Option<Mapping>; 2],
    vas: &[Option<&Bound<'_, Gpuva>>; 2],
) -> PyResult<()> {
    if let [Some(a), Some(b)] = vas
        && a.is(b)
    {
        return Err(error(
            py,
            Class::InvalidArgument,
            "prev and next of a remap are two mappings; pass two objects",
        ));
    }
    for (mapping, va) in coming.iter().zip(vas) {
        match (mapping, va) {
            (Some(mapping), None) => {
                let message = format!(
                    "the remainder [{:#x}, {:#x}) needs a mapping: the operation has this side",
                    mapping.addr,
                    mapping.end()
                );
                return Err(error(py, Class::InvalidArgument, message));
            }
            (None, Some(_)) => {
                let message =
                    "a mapping was passed for a side that the operation does not have; pass None there";
                return Err(error(py, Class::InvalidArgument, message));
            }
            (Some(_), Some(va)) if va.borrow().slot != NONE => {
                return Err(error(
                    py,
                    Class::Busy,
                    "the mapping passed is in an address space; pass a new one",
                ));
            }
            _ => {}
        }
    }
    Ok(())
}
