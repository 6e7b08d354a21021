//! Gap search as a container without an index of its holes must do it: by walking the mappings.

use crate::record::Mapping;
use crate::space::Limits;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    Lowest,
    Highest,
    Best,
}

impl Fit {
    /// The values of `gpuvm.Fit`.
    pub fn from_number(number: u8) -> Option<Fit> {
        match number {
            0 => Some(Fit::Lowest),
            1 => Some(Fit::Highest),
            2 => Some(Fit::Best),
            _ => None,
        }
    }
}

/// The lowest multiple of `align` in the hole `[from, to)` at which `size` bytes fit.
fn lowest_in(from: u64, to: u64, size: u64, align: u64) -> Option<u64> {
    let at = from.checked_next_multiple_of(align)?;
    (at.checked_add(size)? <= to).then_some(at)
}

/// The highest such multiple.
fn highest_in(from: u64, to: u64, size: u64, align: u64) -> Option<u64> {
    let last = to.checked_sub(size)?;
    let at = last - last % align;
    (at >= from).then_some(at)
}

/// An address for `size` bytes in a hole between `mappings`, or None.
pub fn find(
    mappings: impl DoubleEndedIterator<Item = Mapping>,
    limits: &Limits,
    size: u64,
    align: u64,
    fit: Fit,
) -> Option<u64> {
    if fit == Fit::Highest {
        let mut to = limits.end;
        for m in mappings.rev() {
            if let Some(at) = highest_in(m.end(), to, size, align) {
                return Some(at);
            }
            to = m.addr;
        }
        return highest_in(limits.start, to, size, align);
    }
    let mut from = limits.start;
    let mut best: Option<(u64, u64)> = None;
    for (addr, end) in mappings.map(|m| (m.addr, m.end())).chain([(limits.end, limits.end)]) {
        let hole = addr - from;
        if hole >= size
            && best.is_none_or(|(smallest, _)| hole < smallest)
            && let Some(at) = lowest_in(from, addr, size, align)
        {
            if fit == Fit::Lowest {
                return Some(at);
            }
            best = Some((hole, at));
        }
        from = end;
    }
    best.map(|(_, at)| at)
}
