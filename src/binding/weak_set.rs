//! `WeakSet`: a few objects that are not kept alive by it.

use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList, PyWeakrefMethods, PyWeakrefReference};

/// As ``weakref.WeakSet``, for a handful: what is in it goes when nobody else has it. Each step is one of the
/// interpreter's, so no lock is needed.
#[pyclass(module = "gpuvm._core")]
#[derive(Default)]
pub struct WeakSet {
    /// An object has one such reference, always the same.
    references: Vec<Py<PyWeakrefReference>>,
}

#[pymethods]
impl WeakSet {
    #[new]
    fn new() -> Self {
        WeakSet::default()
    }

    fn add(slf: &Bound<'_, Self>, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let reference = PyWeakrefReference::new(object)?;
        let mut set = slf.borrow_mut();
        if !set.references.iter().any(|known| known.is(&reference)) {
            set.references.push(reference.unbind());
        }
        Ok(())
    }

    /// Take it out, if it is in; and all that are gone.
    fn discard(slf: &Bound<'_, Self>, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let reference = PyWeakrefReference::new(object)?;
        let others = Self::living(slf);
        let mut set = slf.borrow_mut();
        let gone = |known: &Py<PyWeakrefReference>| {
            known.is(&reference) || !others.iter().any(|(other, _)| other.is(known))
        };
        let _dropped: Vec<_> = set.references.extract_if(.., |known| gone(known)).collect();
        drop(set);
        Ok(())
    }

    fn clear(slf: &Bound<'_, Self>) {
        let _dropped = std::mem::take(&mut slf.borrow_mut().references);
    }

    fn __contains__(slf: &Bound<'_, Self>, object: &Bound<'_, PyAny>) -> bool {
        Self::living(slf).iter().any(|(_, living)| living.is(object))
    }

    fn __len__(slf: &Bound<'_, Self>) -> usize {
        Self::living(slf).len()
    }

    fn __iter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyIterator>> {
        let living = Self::living(slf).into_iter().map(|(_, object)| object);
        PyList::new(slf.py(), living.collect::<Vec<_>>())?.try_iter()
    }
}

impl WeakSet {
    /// Those that are still there. Nothing is borrowed when the caller lets them go.
    fn living<'py>(slf: &Bound<'py, Self>) -> Vec<(Bound<'py, PyWeakrefReference>, Bound<'py, PyAny>)> {
        let set = slf.borrow();
        let known = set.references.iter().map(|reference| reference.bind(slf.py()).clone());
        known.filter_map(|reference| reference.upgrade().map(|object| (reference, object))).collect()
    }
}
