//! `PageTable`: the compiled half of `gpuvm.mmu.PageTable`.
//!
//! No Python object is made or dropped while tables are borrowed: that may run finalizers, and let other threads run,
//! which would find the tables borrowed and fail where nothing may.

use std::collections::HashMap;

use pyo3::buffer::{PyBuffer, PyUntypedBuffer};
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::errors::{Class, U64, error, error_about, lockdep_error, out_of_memory};
use super::raw_mutex::RawMutex;
use super::work::Work;
use crate::memory::Refused;
use crate::page_change::NOWHERE;
use crate::page_slots::Slots;
use crate::page_table::translate::{Run, Runs, Walk};
use crate::page_table::{self, Layout, Level, Match, Page, Pointer, Refusal, Table, Vram, Wanted};

/// Page tables of one address space in VRAM.
#[pyclass(module = "gpuvm._core")]
pub struct PageTable {
    /// None once closed.
    open: Option<Open>,
    /// Over references and which tables there are, and over entries. The calls for `Work` take them, for the others it
    /// is the caller's duty.
    counting: Py<RawMutex>,
    mapping: Py<RawMutex>,
}

struct Open {
    core: page_table::PageTable,
    vram: Vram,
    /// Keeps VRAM where it is.
    _view: PyBuffer<u8>,
}

/// Of a table: the position of the one above, level, first address, place, and counts: pages, sparse, references, used.
type TableRow = (Option<u64>, usize, u64, u64, (u64, u64, u64, u64));

/// Of a level: tables, pages, sparse entries, references, used entries.
type LevelRow = [u64; 5];

/// What decides about an address: state, level, first address and length of the entry, word, of a page physical
/// address, aperture, kind, flags, and of a fault why.
type FoundRow = (u8, usize, u64, u64, u64, (u64, u8, u8, u8), u8);

#[pymethods]
impl PageTable {
    /// Empty tables with their root at ``root``.
    ///
    /// ``view`` is VRAM as writable bytes; it is kept until ``close``. ``layout`` is ``Format.layout()``. Locks are over
    /// references and tables, and over entries.
    /// EINVAL: the levels do not fit together, or a root cannot be there.
    #[new]
    #[pyo3(signature = (view, layout, root, counting, mapping))]
    fn new(
        py: Python<'_>,
        view: &Bound<'_, PyAny>,
        layout: &Bound<'_, PyAny>,
        root: U64,
        counting: Py<RawMutex>,
        mapping: Py<RawMutex>,
    ) -> PyResult<Self> {
        let (layout, va_bits) = read_layout(layout)?;
        layout.check(va_bits).map_err(|message| {
            error(py, Class::InvalidArgument, format!("page table: {message}; correct the format"))
        })?;
        let view = PyBuffer::<u8>::get(view)?;
        let base = view.buf_ptr().cast::<u8>();
        if view.readonly() || !view.is_c_contiguous() || !base.cast::<u64>().is_aligned() {
            let message = "page table: VRAM must be contiguous, writable bytes that begin at a multiple of 8";
            return Err(error(py, Class::InvalidArgument, message));
        }
        // SAFETY: the exporter keeps these bytes while `view` lives, which is dropped after `core`.
        let vram = unsafe { Vram::new(base, view.len_bytes() as u64) };
        let core = page_table::PageTable::new(layout, vram, root.0)
            .map_err(|refusal| raise(py, "page table", (root.0, 0), &[], refusal))?;
        Ok(PageTable { open: Some(Open { core, vram, _view: view }), counting, mapping })
    }

    /// Reference the page slots in a range; see ``Backend.get``.
    ///
    /// ``tables`` is table memory, as pairs of a size and addresses. If it is not just what is missing, nothing
    /// is done, and the answer tells what is, as pairs of a size and a number. None: it is done.
    #[pyo3(signature = (addr, range, shift, tables))]
    fn get(
        slf: &Bound<'_, Self>,
        addr: U64,
        range: U64,
        shift: U64,
        tables: Vec<(u64, Vec<u64>)>,
    ) -> PyResult<Option<Wanted>> {
        let tables = supply(tables);
        Self::changing(slf, "get", (addr.0, range.0), |core| {
            core.get((addr.0, range.0, small(shift)), &tables)
        })
    }

    /// Drop a reference of the slots in a range; the tables that are free now, as (address, bytes).
    #[pyo3(signature = (addr, range, shift))]
    fn put<'py>(slf: &Bound<'py, Self>, addr: U64, range: U64, shift: U64) -> PyResult<Bound<'py, PyList>> {
        let freed = PyList::empty(slf.py());
        Self::changing(slf, "put", (addr.0, range.0), |core| core.put(addr.0, range.0, small(shift)))?;
        Self::take_freed(slf, freed)
    }

    /// Take references that `work` needs, as far as the tables are there.
    #[pyo3(signature = (work))]
    pub fn get_all(slf: &Bound<'_, Self>, work: &Bound<'_, Work>) -> PyResult<()> {
        let mut work = work.try_borrow_mut()?;
        Self::with(
            slf,
            |tables| &tables.counting,
            || {
                while let Some(get) = work.effects.gets.get(work.got).copied() {
                    let Slots { addr, range, shift } = get.slots;
                    let got = Self::changing(slf, "get", (addr, range), |core| {
                        core.get((addr, range, u32::from(shift)), &[])
                    });
                    if got?.is_some() {
                        break;
                    }
                    work.got += 1;
                }
                Ok(())
            },
        )
    }

    /// Drop the references that were taken for `work`; the tables that are free now, as (address, bytes).
    #[pyo3(signature = (work))]
    fn unget_all<'py>(slf: &Bound<'py, Self>, work: &Bound<'py, Work>) -> PyResult<Bound<'py, PyList>> {
        let freed = PyList::empty(slf.py());
        let mut work = work.try_borrow_mut()?;
        Self::with(
            slf,
            |tables| &tables.counting,
            || {
                while work.got > 0 {
                    let Slots { addr, range, shift } = work.effects.gets[work.got - 1].slots;
                    Self::changing(slf, "put", (addr, range), |core| {
                        core.put(addr, range, u32::from(shift))
                    })?;
                    work.got -= 1;
                }
                Self::take_freed(slf, freed)
            },
        )
    }

    /// Write the entries of `work`.
    #[pyo3(signature = (work))]
    fn write_all(slf: &Bound<'_, Self>, work: &Bound<'_, Work>) -> PyResult<()> {
        let work = work.try_borrow()?;
        Self::with(
            slf,
            |tables| &tables.mapping,
            || {
                for write in &work.effects.writes {
                    let Slots { addr, range, shift } = write.slots;
                    let shift = u32::from(shift);
                    if write.aperture == NOWHERE {
                        Self::changing(slf, "unmap", (addr, range), |core| core.unmap(addr, range, shift))?;
                    } else {
                        Self::changing(slf, "map", (addr, range), |core| {
                            core.map(addr, range, shift, write.word)
                        })?;
                    }
                }
                Ok(())
            },
        )
    }

    /// Drop the references that `work` does not need any more; the tables that are free now, as (address, bytes).
    #[pyo3(signature = (work))]
    pub fn put_all<'py>(slf: &Bound<'py, Self>, work: &Bound<'py, Work>) -> PyResult<Bound<'py, PyList>> {
        let freed = PyList::empty(slf.py());
        let work = work.try_borrow()?;
        Self::with(
            slf,
            |tables| &tables.counting,
            || {
                for slots in &work.effects.puts {
                    let Slots { addr, range, shift } = *slots;
                    Self::changing(slf, "put", (addr, range), |core| {
                        core.put(addr, range, u32::from(shift))
                    })?;
                }
                Self::take_freed(slf, freed)
            },
        )
    }

    /// Map the pages in a range, the first one by ``word``, the others to the pages that follow its.
    #[pyo3(signature = (addr, range, shift, word))]
    fn map(slf: &Bound<'_, Self>, addr: U64, range: U64, shift: U64, word: U64) -> PyResult<()> {
        let request = (addr.0, range.0);
        Self::changing(slf, "map", request, |core| core.map(addr.0, range.0, small(shift), word.0))
    }

    /// Unmap the pages in a range.
    #[pyo3(signature = (addr, range, shift))]
    fn unmap(slf: &Bound<'_, Self>, addr: U64, range: U64, shift: U64) -> PyResult<()> {
        Self::changing(slf, "unmap", (addr.0, range.0), |core| core.unmap(addr.0, range.0, small(shift)))
    }

    /// Make a range sparse; ``tables`` and the answer are as with ``get``.
    #[pyo3(signature = (addr, range, tables))]
    fn sparse_ref(
        slf: &Bound<'_, Self>,
        addr: U64,
        range: U64,
        tables: Vec<(u64, Vec<u64>)>,
    ) -> PyResult<Option<Wanted>> {
        let tables = supply(tables);
        Self::changing(slf, "sparse", (addr.0, range.0), |core| core.sparse_ref(addr.0, range.0, &tables))
    }

    /// End a sparse range; the tables that are free now, as (address, bytes).
    #[pyo3(signature = (addr, range))]
    fn sparse_unref<'py>(slf: &Bound<'py, Self>, addr: U64, range: U64) -> PyResult<Bound<'py, PyList>> {
        let freed = PyList::empty(slf.py());
        Self::changing(slf, "sparse", (addr.0, range.0), |core| core.sparse_unref(addr.0, range.0))?;
        Self::take_freed(slf, freed)
    }

    /// The entry that decides about an address, read as the hardware reads it.
    #[pyo3(signature = (addr))]
    fn translate(slf: &Bound<'_, Self>, addr: U64) -> PyResult<FoundRow> {
        let (py, tables) = (slf.py(), slf.try_borrow()?);
        let (walk, end) = tables.walk(py)?;
        if addr.0 >= end {
            return Err(raise(py, "translate", (addr.0, 1), &[], Refusal::Range(addr.0, 1, 0)));
        }
        let found = walk.translate(addr.0);
        let run = found.run;
        let page = (run.address, run.aperture, run.kind, run.flags);
        Ok((run.state, found.level, run.va, run.range, found.word, page, found.fault))
    }

    /// Fill ``out`` with the runs of a range; how many, and the address to go on from: its end if all are there.
    ///
    /// ``out`` is an array of 32-byte records of ``gpuvm.mmu.translation``.
    #[pyo3(signature = (addr, range, out))]
    fn runs(slf: &Bound<'_, Self>, addr: U64, range: U64, out: &Bound<'_, PyAny>) -> PyResult<(usize, u64)> {
        let buffer = PyUntypedBuffer::get(out)?;
        let (py, tables) = (slf.py(), slf.try_borrow()?);
        let (walk, limit) = tables.walk(py)?;
        let end = addr.0.checked_add(range.0).filter(|end| range.0 > 0 && *end <= limit);
        let Some(end) = end else {
            let refusal = Refusal::Range(addr.0, range.0, 0);
            return Err(raise(py, "runs", (addr.0, range.0), &[], refusal));
        };
        let start = buffer.buf_ptr().cast::<Run>();
        let count = buffer.len_bytes() / size_of::<Run>();
        if buffer.readonly() || !buffer.is_c_contiguous() || !start.is_aligned() || count == 0 {
            let message = "runs: out must be a contiguous, writable array of 32-byte records, one at least";
            return Err(error(py, Class::InvalidArgument, message));
        }
        // SAFETY: contiguous, aligned and writable as checked; the interpreter's lock is held while it is used, and
        // any bytes are a `Run`.
        let out = unsafe { std::slice::from_raw_parts_mut(start, count) };
        let mut runs = Runs::new(out);
        let next = walk.runs(addr.0, end, &mut runs);
        Ok((runs.count, next))
    }

    /// The first broken invariant, in words, or None. O(tables).
    fn check(slf: &Bound<'_, Self>) -> PyResult<Option<String>> {
        Ok(slf.try_borrow()?.core(slf.py())?.check().err())
    }

    /// Counts by level: tables, pages, sparse entries, references, used entries; and counts of the whole by name.
    fn statistics(slf: &Bound<'_, Self>) -> PyResult<(Vec<LevelRow>, HashMap<&'static str, u64>)> {
        let tables = slf.try_borrow()?;
        let core = tables.core(slf.py())?;
        let levels = core
            .counts()
            .iter()
            .take(core.layout.levels.len())
            .map(|count| [count.tables, count.pages, count.sparse, count.references, count.used])
            .collect();
        let written = core.written();
        let whole = [
            ("sparse_bytes", core.sparse_bytes()),
            ("written_pages", written.pages),
            ("written_clears", written.clears),
            ("written_pointers", written.pointers),
            ("written_initialised", written.initialised),
            ("bytes", core.bytes()),
        ];
        Ok((levels, whole.into()))
    }

    /// Words written since the tables were made: for pages that were mapped, and for those that were unmapped. O(1).
    fn written(&self, py: Python<'_>) -> PyResult<(u64, u64)> {
        let written = self.core(py)?.written();
        Ok((written.pages, written.clears))
    }

    /// All tables, each before those below it.
    fn tables(slf: &Bound<'_, Self>) -> PyResult<Vec<TableRow>> {
        let row = |table: page_table::statistics::TableView| {
            let count = table.count;
            let counts = (count.pages, count.sparse, count.references, count.used);
            (table.parent, table.level, table.va, table.addr, counts)
        };
        Ok(slf.try_borrow()?.core(slf.py())?.tables().into_iter().map(row).collect())
    }

    /// Sparse ranges as (address, length), in address order.
    fn sparse_ranges(slf: &Bound<'_, Self>) -> PyResult<Vec<(u64, u64)>> {
        Ok(slf.try_borrow()?.core(slf.py())?.sparse_ranges().collect())
    }

    /// Let go of VRAM. EBUSY: a slot is referenced, or a range is sparse.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let mut tables = slf.try_borrow_mut()?;
        if !tables.core(py)?.idle() {
            let message = "close: slots are referenced or ranges sparse; unmap and put them, end the ranges";
            return Err(error(py, Class::Busy, message));
        }
        let open = tables.open.take();
        drop(tables);
        drop(open);
        Ok(())
    }
}

impl PageTable {
    /// Call with one of the locks held.
    fn with<R>(
        slf: &Bound<'_, Self>,
        lock: impl FnOnce(&Self) -> &Py<RawMutex>,
        call: impl FnOnce() -> PyResult<R>,
    ) -> PyResult<R> {
        let lock = lock(&*slf.try_borrow()?).bind(slf.py()).clone();
        RawMutex::with(&lock, call)
    }

    /// Change the tables, or refuse to.
    fn changing<R>(
        slf: &Bound<'_, Self>,
        call: &str,
        request: (u64, u64),
        change: impl FnOnce(&mut page_table::PageTable) -> Result<R, Refusal>,
    ) -> PyResult<R> {
        let py = slf.py();
        let mut tables = slf.try_borrow_mut()?;
        let core = tables.core_mut(py)?;
        change(core).map_err(|refusal| raise(py, call, request, &core.layout.levels, refusal))
    }

    /// Append the tables that nothing points to any more.
    fn take_freed<'py>(slf: &Bound<'py, Self>, freed: Bound<'py, PyList>) -> PyResult<Bound<'py, PyList>> {
        let take = || PyResult::Ok(slf.try_borrow_mut()?.core_mut(slf.py())?.take_freed());
        while let Some(table) = take()? {
            freed.append(table)?;
        }
        Ok(freed)
    }

    fn core(&self, py: Python<'_>) -> PyResult<&page_table::PageTable> {
        self.open.as_ref().map(|open| &open.core).ok_or_else(|| closed(py))
    }

    fn core_mut(&mut self, py: Python<'_>) -> PyResult<&mut page_table::PageTable> {
        self.open.as_mut().map(|open| &mut open.core).ok_or_else(|| closed(py))
    }

    /// Readers see the words only; and where the space ends.
    fn walk(&self, py: Python<'_>) -> PyResult<(Walk<'_>, u64)> {
        let open = self.open.as_ref().ok_or_else(|| closed(py))?;
        let layout = &open.core.layout;
        Ok((Walk { layout, vram: open.vram, root: open.core.root() }, 1 << layout.va_bits()))
    }
}

#[cold]
fn closed(py: Python<'_>) -> PyErr {
    error(py, Class::InvalidArgument, "the page tables are closed")
}

fn supply(tables: Vec<(u64, Vec<u64>)>) -> Vec<Table> {
    tables.into_iter().map(|(bytes, addrs)| Table { bytes, addrs }).collect()
}

/// A shift as a number; those too large are no page's.
fn small(shift: U64) -> u32 {
    u32::try_from(shift.0).unwrap_or(u32::MAX)
}

/// What `Format.layout` of Python says, as nested tuples, and the length of addresses.
fn read_layout(layout: &Bound<'_, PyAny>) -> PyResult<(Layout, u32)> {
    type PageRow = (u64, u32, u64, Row, Row, Row, Row);
    let (va_bits, paired, page, levels): (u32, u8, PageRow, Vec<Bound<'_, PyAny>>) = layout.extract()?;
    let (aperture_mask, address_shift, kind_mask, read_only, privileged, volatile, no_atomics) = page;
    let flags = [read_only, privileged, volatile, no_atomics].map(pattern);
    let page = Page { aperture_mask, address_shift, kind_mask, flags };
    let levels = levels.iter().map(read_level).collect::<PyResult<_>>()?;
    Ok((Layout { page, levels, paired: paired != 0 }, va_bits))
}

/// A pattern as (mask, value).
type Row = (u64, u64);

fn pattern((mask, value): Row) -> Match {
    Match { mask, value }
}

fn read_level(level: &Bound<'_, PyAny>) -> PyResult<Level> {
    let pattern_at = |place: usize| -> PyResult<Match> { Ok(pattern(level.get_item(place)?.extract()?)) };
    let number = |place: usize| -> PyResult<u64> { level.get_item(place)?.extract() };
    let bits = |place: usize| -> PyResult<u32> { level.get_item(place)?.extract() };
    let sparse_word = level.get_item(13)?;
    Ok(Level {
        shift: bits(0)?,
        bits: bits(1)?,
        entry_bytes: number(2)?,
        table_bytes: number(3)?,
        pages: number(4)? != 0,
        step: number(5)?,
        address_masks: level.get_item(6)?.extract()?,
        leaf: pattern_at(7)?,
        sparse: pattern_at(8)?,
        stop: pattern_at(9)?,
        pointers: [read_pointer(&level.get_item(10)?)?, read_pointer(&level.get_item(11)?)?],
        invalid_word: number(12)?,
        sparse_word: if sparse_word.lt(0)? { None } else { Some(sparse_word.extract()?) },
    })
}

fn read_pointer(pointer: &Bound<'_, PyAny>) -> PyResult<Option<Pointer>> {
    if pointer.is_empty()? {
        return Ok(None);
    }
    let (test, present, vram, constant, mask, shift, read_only, privileged): (
        Row,
        u64,
        Row,
        u64,
        u64,
        u32,
        Row,
        Row,
    ) = pointer.extract()?;
    let flags = [pattern(read_only), pattern(privileged)];
    Ok(Some(Pointer { test: pattern(test), present, vram: pattern(vram), constant, mask, shift, flags }))
}

/// The error for a call that was refused.
#[cold]
fn raise(py: Python<'_>, call: &str, request: (u64, u64), levels: &[Level], refusal: Refusal) -> PyErr {
    let invalid = |reason: String, value: u64| {
        error_about(py, Class::InvalidArgument, format!("{call}: {reason}"), value, ())
    };
    match refusal {
        Refusal::Shift(shift) => {
            let shifts: Vec<String> =
                levels.iter().filter(|level| level.pages).map(|level| level.shift.to_string()).collect();
            invalid(format!("shift {shift}: pages have the shifts {}", shifts.join(", ")), u64::from(shift))
        }
        Refusal::Range(addr, range, shift) => {
            let end = levels.first().map_or(0, |level| level.table_shift());
            let message = format!(
                "{call}: [{addr:#x}, +{range:#x}) is no range of whole {:#x}-byte pages within [0, 1 << {end})",
                1u64 << shift.min(63)
            );
            error_about(py, Class::InvalidArgument, message, request, ())
        }
        Refusal::NotReferenced(addr) => {
            invalid(format!("the page slot at {addr:#x} has no reference; get the whole range first"), addr)
        }
        Refusal::Mapped(addr) => invalid(
            format!("a page is mapped at {addr:#x}, and this is its slot's last reference; unmap it first"),
            addr,
        ),
        Refusal::Saturated(addr) => {
            invalid(format!("the page slot at {addr:#x} has {} references, and no more fit", u16::MAX), addr)
        }
        Refusal::Word(word) => {
            invalid(format!("{word:#x} is no page's word at this level; make it by Format.pte"), word)
        }
        Refusal::Address(word) => {
            invalid(format!("behind the page of {word:#x} addresses end before the range does"), word)
        }
        Refusal::Place(addr, bytes) => invalid(
            format!("no table of {bytes} bytes can be at {addr:#x}: it must be aligned, and in VRAM"),
            addr,
        ),
        Refusal::NoSparse => error(
            py,
            Class::NotSupported,
            format!("{call}: the format has no sparse entries; map zero pages instead"),
        ),
        Refusal::Sparse(start, end) => {
            let message = format!("{call}: [{start:#x}, {end:#x}) is sparse already; end that first");
            error_about(py, Class::AlreadyMapped, message, request, (start, end - start))
        }
        Refusal::NotSparse => {
            let (addr, range) = request;
            let message =
                format!("{call}: nobody made [{addr:#x}, +{range:#x}) sparse; end whole ranges only");
            error_about(py, Class::NotFound, message, request, ())
        }
        Refusal::Memory(Refused::Exhausted) => out_of_memory(py, Refused::Exhausted),
        Refusal::Memory(Refused::Forbidden) => {
            let message = format!(
                "{call}: page tables are allocated here, in a fence-signalling section, and whoever frees memory may \
                 wait for this very fence; nothing was changed, call it while the bind is prepared"
            );
            lockdep_error(py, message)
        }
    }
}
