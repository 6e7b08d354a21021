//! Bind calls of a space whose mappings have pages: carried out in the space, all or none, and what that comes to in
//! its page table.

use pyo3::intern;
use pyo3::prelude::*;

use super::bind_ops::{BindOps, Request, Target};
use super::carried::{Carried, Refusal};
use super::errors::{Class, about_request, error_about, out_of_memory};
use super::space::Space;
use super::work::Work;
use crate::paging::{Unsaid, Word};
use crate::tree::NONE;

/// Carry `ops` out in the space, all or none; see ``Uvmm.prepare``.
pub fn prepare(slf: &Bound<'_, Space>, ops: &mut BindOps) -> PyResult<Work> {
    ops.check(slf)?;
    ops.locate(slf.py())?;
    let (mut work, fresh) = carry_out(slf, ops, false)?;
    let finished = join(slf, &ops.targets, &fresh).and_then(|()| say(slf, &mut work));
    if let Err(failure) = finished {
        work.roll_back(slf)?;
        return Err(failure);
    }
    Ok(work)
}

/// Refuse what `prepare` would refuse if all objects had memory; see ``Uvmm.rehearse``.
pub fn rehearse(slf: &Bound<'_, Space>, ops: &mut BindOps) -> PyResult<()> {
    ops.check(slf)?;
    ops.locate(slf.py())?;
    let (mut work, _) = carry_out(slf, ops, true)?;
    let said = say(slf, &mut work);
    // What it did not know before it has not been told of.
    work.roll_back(slf)?;
    said
}

/// Carry a call out in the space; what is left to do, and which targets the space did not know.
fn carry_out(slf: &Bound<'_, Space>, ops: &BindOps, rehearsal: bool) -> PyResult<(Work, Vec<usize>)> {
    let mut work = Work::default();
    let done = Space::with_paging(slf, |space, paging, py| {
        space.require_idle(py, "prepare")?;
        Ok(Carried::out(py, space, paging, ops, &mut work, rehearsal))
    })?;
    match done {
        Ok(fresh) => Ok((work, fresh)),
        Err((index, refusal)) => {
            // Whatever is wrong with an operation before this one comes first.
            say(slf, &mut work)?;
            let request = &ops.requests[index];
            let target = ops.targets.get(request.target);
            Err(about_request(slf.py(), refuse(slf.py(), request, target, refusal), index))
        }
    }
}

/// The objects of `targets` that the space did not know have it among their spaces from now on.
fn join(slf: &Bound<'_, Space>, targets: &[Target], fresh: &[usize]) -> PyResult<()> {
    let py = slf.py();
    for &target in fresh {
        let vms = targets[target].obj.bind(py).getattr(intern!(py, "vms"))?;
        vms.call_method1(intern!(py, "add"), (slf,))?;
    }
    Ok(())
}

/// The space does not know `objs` any more.
pub fn leave(slf: &Bound<'_, Space>, objs: &[Py<PyAny>]) -> PyResult<()> {
    let py = slf.py();
    for obj in objs {
        let vms = obj.bind(py).getattr(intern!(py, "vms"))?;
        vms.call_method1(intern!(py, "discard"), (slf,))?;
    }
    Ok(())
}

/// Make the words of all that is to be written, where it is written by word.
pub fn say(slf: &Bound<'_, Space>, work: &mut Work) -> PyResult<()> {
    let py = slf.py();
    let mut said = 0;
    loop {
        let space = Space::reading(slf)?;
        let paging = space.paging(py)?;
        let mut rest = work.effects.writes[said..].iter_mut();
        let unsaid = rest.find_map(|write| {
            let unsaid = paging.say(write).err();
            said += usize::from(unsaid.is_none());
            unsaid
        });
        drop(space);
        let write = match &unsaid {
            None => return Ok(()),
            Some(_) => work.effects.writes[said],
        };
        let (shift, aperture, kind) = (write.slots.shift, write.aperture, write.kind);
        let told = match unsaid {
            Some(Unsaid::Address(mask)) => Err(bad_address(py, write.physical, mask)),
            _ => slf
                .call_method1(intern!(py, "_encode"), (shift, aperture, kind))
                .and_then(|word| word.extract::<(u64, u64)>()),
        };
        let (constant, mask) = told.map_err(|failure| about_request(py, failure, write.op as usize))?;
        let mut space = Space::writing(slf)?;
        let word = Word { shift, aperture, kind, constant, mask };
        space.paging_mut(py)?.words.push(word);
    }
}

fn bad_address(py: Python<'_>, physical: u64, mask: u64) -> PyErr {
    let message = format!(
        "prepare: physical address {physical:#x} has bits outside {mask:#x}; it must be a multiple of the page \
         size, and fit the entry"
    );
    error_about(py, Class::InvalidArgument, message, physical, mask)
}

/// The error for an operation that was refused.
#[cold]
fn refuse(py: Python<'_>, request: &Request, target: Option<&Target>, refusal: Refusal) -> PyErr {
    let place = (request.addr, request.range);
    match refusal {
        Refusal::Told(class, message, bound) => error_about(py, class, message, place, bound),
        Refusal::Memory(refused) => out_of_memory(py, refused),
        Refusal::Unreachable => {
            let obj = target.map_or_else(|| py.None().into_bound(py), |target| target.obj.bind(py).clone());
            let text = obj.repr().map_or_else(|_| "the object".to_owned(), |text| text.to_string());
            let message = format!("prepare: {text} has no memory within the GPU's reach; validate it first");
            error_about(py, Class::InvalidArgument, message, obj, ())
        }
    }
}

/// Take everything out of the space; what is left to do, and the objects that it does not know any more.
pub fn unmap_all(slf: &Bound<'_, Space>) -> PyResult<(Work, Vec<Py<PyAny>>)> {
    let (work, ended) = Space::with_paging(slf, |space, paging, py| {
        space.require_idle(py, "close")?;
        let mut work = Work::default();
        let ended = work.unmap_all(py, space, paging);
        Ok((work, ended))
    })?;
    leave(slf, &ended)?;
    Ok((work, ended))
}

/// The objects that `ops` map, unmap or cut, one for each reservation but the space's own; and whether any shares that.
pub fn touched(slf: &Bound<'_, Space>, ops: &mut BindOps) -> PyResult<(Vec<Py<PyAny>>, bool)> {
    let py = slf.py();
    ops.check(slf)?;
    let (mut seen, mut shared, mut distinct) = (Vec::new(), false, Vec::new());
    for target in &ops.targets {
        let Some(known) = &target.seen else { continue };
        shared |= !known.external;
        if known.external && !seen.contains(&known.resv.as_ptr()) {
            seen.push(known.resv.as_ptr());
            distinct.push(target.obj.clone_ref(py));
        }
    }
    let own = slf.getattr(intern!(py, "resv"))?;
    for obj in overlapped(slf, &ops.requests)? {
        let resv = obj.bind(py).getattr(intern!(py, "resv"))?;
        if resv.is(&own) {
            shared = true;
        } else if !seen.contains(&resv.as_ptr()) {
            seen.push(resv.as_ptr());
            distinct.push(obj);
        }
    }
    Ok((distinct, shared))
}

/// The objects of mappings where `requests` are about to change something, each once.
fn overlapped(slf: &Bound<'_, Space>, requests: &[Request]) -> PyResult<Vec<Py<PyAny>>> {
    let space = Space::reading(slf)?;
    let mut records: Vec<u32> = Vec::new();
    for request in requests {
        let entries = space.core.tree.iter_from(request.addr);
        for entry in entries.take_while(|entry| entry.addr < request.end()) {
            let object = space.core.slot(entry.slot).object;
            if object != NONE && records.last() != Some(&object) {
                records.push(object);
            }
        }
    }
    records.sort_unstable();
    records.dedup();
    Ok(records.into_iter().filter_map(|record| space.object(slf.py(), record)).collect())
}
