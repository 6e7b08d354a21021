//! Page sizes for who drives a page table himself.

use pyo3::prelude::*;

use super::bind_ops::extents;
use super::errors::{Class, U64, error, error_about, out_of_memory};
use crate::pages::{Cut, Misfit, Pages, Size, split};

/// Pages as Python has them: address, range, shift, aperture, physical address.
pub type PagesRow = (u64, u64, u8, u8, u64);

pub fn row(pages: &Pages) -> PagesRow {
    (pages.addr, pages.range, pages.shift, pages.aperture, pages.physical)
}

/// Sizes as Python has them, the largest first: shift, and by bit the apertures that are allowed.
pub fn sizes(rows: Vec<(u8, u8)>) -> Vec<Size> {
    rows.into_iter().map(|(shift, apertures)| Size { shift, apertures }).collect()
}

/// The pages that show the bytes of an object from ``offset`` on; see `gpuvm.mmu.split_into_pages`.
#[pyfunction]
#[pyo3(signature = (sizes, addr, range, extents, offset))]
pub fn split_into_pages(
    sizes: Vec<(u8, u8)>,
    addr: U64,
    range: U64,
    extents: &Bound<'_, PyAny>,
    offset: U64,
) -> PyResult<Vec<PagesRow>> {
    let py = extents.py();
    require_range(py, addr.0, range.0)?;
    require_range(py, offset.0, range.0)?;
    let (place, sizes) = (self::extents(extents)?, self::sizes(sizes));
    let mut pages = Vec::new();
    split(&sizes, (addr.0, range.0), &place, offset.0, &mut pages).map_err(|misfit| misfits(py, misfit))?;
    Ok(pages.iter().map(row).collect())
}

/// What becomes of pages when ``[addr, addr + range)`` is taken out of them: those in front of the hole, behind it,
/// those of both that are new, those that are gone; see `gpuvm.mmu.pages.cut_pages`.
#[pyfunction]
#[pyo3(signature = (sizes, pages, addr, range))]
pub fn cut_pages(
    py: Python<'_>,
    sizes: Vec<(u8, u8)>,
    pages: Vec<PagesRow>,
    addr: U64,
    range: U64,
) -> PyResult<[Vec<PagesRow>; 4]> {
    require_range(py, addr.0, range.0)?;
    for &(first, length, shift, _, physical) in &pages {
        require_range(py, first, length)?;
        require_range(py, physical, length)?;
        let whole = shift < 64 && (first | length).trailing_zeros() >= u32::from(shift);
        if !whole {
            let message = format!("pages: [{first:#x}, +{length:#x}) are no whole pages of shift {shift}");
            return Err(error_about(py, Class::InvalidArgument, message, (first, length), ()));
        }
    }
    let read =
        |(addr, range, shift, aperture, physical): PagesRow| Pages { addr, range, physical, shift, aperture };
    let pages: Vec<Pages> = pages.into_iter().map(read).collect();
    let mut cut = Cut::default();
    let hole = (addr.0, addr.0 + range.0);
    cut.make(&self::sizes(sizes), &pages, hole, true).map_err(|misfit| misfits(py, misfit))?;
    Ok([&cut.before, &cut.after, &cut.added, &cut.gone].map(|pages| pages.iter().map(row).collect()))
}

/// EINVAL for a range that is empty, or leaves the numbers there are.
fn require_range(py: Python<'_>, addr: u64, range: u64) -> PyResult<()> {
    if range > 0 && addr.checked_add(range).is_some() {
        return Ok(());
    }
    let message = format!("pages: [{addr:#x}, +{range:#x}) is empty, or reaches beyond 2**64");
    Err(error_about(py, Class::InvalidArgument, message, (addr, range), ()))
}

fn misfits(py: Python<'_>, misfit: Misfit) -> PyErr {
    match misfit {
        Misfit::Memory(refused) => out_of_memory(py, refused),
        _ => error(py, Class::InvalidArgument, format!("pages: {misfit}")),
    }
}
