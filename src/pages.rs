//! Choosing page sizes: the largest that fit, and smaller ones where a large page is cut.

use std::fmt;

use crate::memory::{Refused, push, reserve};

/// A page size, `1 << shift`, and by bit the apertures that such pages may lie in.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub shift: u8,
    pub apertures: u8,
}

impl Size {
    fn allows(self, aperture: u8) -> bool {
        self.apertures.checked_shr(u32::from(aperture)).unwrap_or(0) & 1 != 0
    }
}

/// Neighbouring pages of one size, contiguous in physical memory too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    pub addr: u64,
    pub range: u64,
    pub physical: u64,
    pub shift: u8,
    pub aperture: u8,
}

impl Pages {
    pub fn end(&self) -> u64 {
        self.addr + self.range
    }

    /// Those of `[addr, end)`, which begins and ends between two pages, or where these do.
    fn part(&self, addr: u64, end: u64) -> Pages {
        Pages { addr, range: end - addr, physical: self.physical + (addr - self.addr), ..*self }
    }
}

/// Contiguous memory of an object.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// The object's byte that lies there first.
    pub offset: u64,
    pub physical: u64,
    pub range: u64,
    pub aperture: u8,
}

/// Why no pages show what was asked for.
#[derive(Clone, Copy, Debug)]
pub enum Misfit {
    /// No page of the aperture fits `[addr, end)` at a physical address.
    NoPage {
        aperture: u8,
        addr: u64,
        end: u64,
        physical: u64,
    },
    /// The object ends after so many bytes.
    Short(u64),
    Memory(Refused),
}

impl From<Refused> for Misfit {
    fn from(refused: Refused) -> Self {
        Misfit::Memory(refused)
    }
}

/// Of apertures, by number.
const NAMES: [&str; 4] = ["VRAM", "PEER", "SYSTEM_COHERENT", "SYSTEM_NON_COHERENT"];

impl fmt::Display for Misfit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Misfit::NoPage { aperture, addr, end, physical } => write!(
                out,
                "no page of {} fits [{addr:#x}, {end:#x}) at physical {physical:#x}; align address, offset and range \
                 to one",
                NAMES.get(usize::from(aperture)).unwrap_or(&"no aperture"),
            ),
            Misfit::Short(bytes) => {
                write!(out, "the object ends {bytes:#x} bytes behind the offset; pass a shorter range")
            }
            Misfit::Memory(_) => write!(out, "there is no memory for them"),
        }
    }
}

/// Append to `pages` those that show the bytes from `offset` on of an object that lies in `extents`.
///
/// Each byte gets the largest page that its aperture allows and that lies within the range, at a multiple of its
/// size in both address spaces, and in contiguous memory. In address order; neighbours of one size that are
/// contiguous are one item.
pub fn split(
    sizes: &[Size],
    (addr, range): (u64, u64),
    extents: &[Extent],
    offset: u64,
    pages: &mut Vec<Pages>,
) -> Result<(), Misfit> {
    let (mut at, end) = (addr, addr + range);
    let first = extents.partition_point(|extent| extent.offset + extent.range <= offset);
    let mut rest = extents[first..].iter().peekable();
    while at < end
        && let Some(extent) = rest.next()
    {
        let skipped = (offset + (at - addr)).saturating_sub(extent.offset);
        let physical = extent.physical + skipped;
        let mut length = extent.range - skipped;
        let contiguous =
            |next: &&Extent, length| next.aperture == extent.aperture && next.physical == physical + length;
        while length < end - at
            && let Some(next) = rest.next_if(|next| contiguous(next, length))
        {
            length += next.range;
        }
        let stop = at + length.min(end - at);
        largest(sizes, (at, stop), physical, extent.aperture, pages)?;
        at = stop;
    }
    if at < end { Err(Misfit::Short(at - addr)) } else { Ok(()) }
}

/// Append as many pages of the first size as fit into contiguous memory, smaller ones around them.
fn largest(
    sizes: &[Size],
    (addr, end): (u64, u64),
    physical: u64,
    aperture: u8,
    pages: &mut Vec<Pages>,
) -> Result<(), Misfit> {
    if addr >= end {
        return Ok(());
    }
    let Some((size, smaller)) = sizes.split_first() else {
        return Err(Misfit::NoPage { aperture, addr, end, physical });
    };
    let mask = (1u64 << size.shift) - 1;
    let last = end & !mask;
    let first = addr.checked_add(mask).map_or(end, |addr| addr & !mask);
    let aligned = physical.wrapping_sub(addr) & mask == 0;
    if !size.allows(aperture) || !aligned || first >= last {
        return largest(smaller, (addr, end), physical, aperture, pages);
    }
    largest(smaller, (addr, first), physical, aperture, pages)?;
    let inside = physical + (first - addr);
    push(pages, Pages { addr: first, range: last - first, physical: inside, shift: size.shift, aperture })?;
    largest(smaller, (last, end), physical + (last - addr), aperture, pages)
}

/// What becomes of a mapping's pages when a hole is cut into it; all in address order.
///
/// To get there without a blink: map those added below, unmap those gone.
#[derive(Default)]
pub struct Cut {
    /// All pages in front of the hole.
    pub before: Vec<Pages>,
    /// All pages behind it.
    pub after: Vec<Pages>,
    /// Those of both that are new: what is left of cut pages, in smaller ones.
    pub added: Vec<Pages>,
    /// Those that were there and are not any more: inside the hole, or cut by it.
    pub gone: Vec<Pages>,
}

impl Cut {
    fn clear(&mut self) {
        for pages in [&mut self.before, &mut self.after, &mut self.added, &mut self.gone] {
            pages.clear();
        }
    }

    /// Find out what is to be done with `pages` when `[addr, end)` is taken out of them.
    ///
    /// Large pages that the hole cuts are replaced by the largest smaller ones that fit, to the same bytes. If they
    /// are not `mapped`, what is left of them goes too.
    pub fn make(
        &mut self,
        sizes: &[Size],
        pages: &[Pages],
        (addr, end): (u64, u64),
        mapped: bool,
    ) -> Result<(), Misfit> {
        self.clear();
        for run in pages {
            let (first, last) = (addr.max(run.addr), end.min(run.end()));
            if first >= last {
                push(if run.end() <= addr { &mut self.before } else { &mut self.after }, *run)?;
                continue;
            }
            let mask = (1u64 << run.shift) - 1;
            let gone = run.part(first & !mask, (last + mask) & !mask);
            push(&mut self.gone, gone)?;
            if run.addr < gone.addr {
                push(&mut self.before, run.part(run.addr, gone.addr))?;
            }
            if mapped {
                remains(sizes, gone.part(gone.addr, first), &mut self.before, &mut self.added)?;
                remains(sizes, gone.part(last, gone.end()), &mut self.after, &mut self.added)?;
            }
            if gone.end() < run.end() {
                push(&mut self.after, run.part(gone.end(), run.end()))?;
            }
        }
        Ok(())
    }
}

/// Put what is left of a cut page, in smaller ones, on its `side`, and among those added.
fn remains(sizes: &[Size], left: Pages, side: &mut Vec<Pages>, added: &mut Vec<Pages>) -> Result<(), Misfit> {
    let before = side.len();
    largest(sizes, (left.addr, left.end()), left.physical, left.aperture, side)?;
    for run in &side[before..] {
        push(added, *run)?;
    }
    Ok(())
}

/// The pages of a mapping. Most mappings have one run of them.
#[derive(Default)]
pub enum Runs {
    #[default]
    None,
    One(Pages),
    Many(Box<[Pages]>),
}

impl Runs {
    pub fn new(pages: &[Pages]) -> Result<Runs, Refused> {
        match pages {
            [] => Ok(Runs::None),
            [one] => Ok(Runs::One(*one)),
            _ => {
                let mut many = Vec::new();
                reserve(&mut many, pages.len())?;
                many.extend_from_slice(pages);
                Ok(Runs::Many(many.into_boxed_slice()))
            }
        }
    }

    pub fn all(&self) -> &[Pages] {
        match self {
            Runs::None => &[],
            Runs::One(one) => std::slice::from_ref(one),
            Runs::Many(many) => many,
        }
    }
}
