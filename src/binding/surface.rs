//! `Surface`: what a rectangle is copied from or to, for `PhysicalMemory.transfer`.

use pyo3::prelude::*;

use super::errors::{Class, U64, error, error_about};
use crate::surface::Surface as Core;
use crate::surface::block_linear::{Blocks, Shape};
use crate::surface::components::{Components, Origin};
use crate::surface::pitch::Pitch;

/// Lines of bytes at GPU addresses.
#[pyclass(module = "gpuvm._core", frozen)]
pub struct Surface {
    pub core: Core,
}

/// Bytes, lines and layers are fewer than that.
const MANY: u64 = 1 << 40;
/// log2 of the GOBs of a block in each direction, at most.
const LARGEST: u32 = 5;

#[pymethods]
impl Surface {
    /// Lines that begin ``pitch`` bytes after each other, or before.
    #[staticmethod]
    #[pyo3(signature = (addr, pitch))]
    fn pitch(addr: U64, pitch: i64) -> Self {
        Surface { core: Core::Pitch(Pitch { addr: addr.0, pitch }) }
    }

    /// What begins at byte ``x`` of line ``y`` of ``layer`` of a block-linear surface.
    ///
    /// ``width`` is in bytes. Blocks are one GOB wide; ``height`` and ``depth`` are log2 of the GOBs below and behind
    /// each other.
    #[staticmethod]
    #[pyo3(signature = (addr, width, lines, height, depth, x, y, layer))]
    #[expect(clippy::too_many_arguments, reason = "a layout has so many numbers")]
    fn block_linear(
        py: Python<'_>,
        addr: U64,
        width: u64,
        lines: u64,
        height: u32,
        depth: u32,
        x: u64,
        y: u64,
        layer: u64,
    ) -> PyResult<Self> {
        if !addr.0.is_multiple_of(512) {
            let message = format!("block_linear: {:#x} is inside a GOB; pass a multiple of 512", addr.0);
            return Err(error_about(py, Class::InvalidArgument, message, addr.0, 512u64));
        }
        if height.max(depth) > LARGEST {
            let message =
                format!("block_linear: blocks of 2**{height} by 2**{depth} GOBs; at most 2**{LARGEST}");
            return Err(error_about(
                py,
                Class::InvalidArgument,
                message,
                u64::from(height.max(depth)),
                u64::from(LARGEST),
            ));
        }
        require_few(py, "block_linear", [width, lines, x, y, layer])?;
        let shape = Shape { addr: addr.0, width, lines, height, depth };
        Ok(Surface { core: Core::Blocks(Blocks::new(&shape, x, y, layer)) })
    }

    /// The first address of the first ``lines`` lines of ``length`` bytes, and the end; more if they are in blocks.
    #[pyo3(signature = (length, lines))]
    fn span(&self, py: Python<'_>, length: u64, lines: u64) -> PyResult<(i128, i128)> {
        require_some(py, "span", [length, lines])?;
        Ok(self.core.span(length, lines))
    }
}

/// Numbers of bytes and lines that no arithmetic on them can overflow.
fn require_few<const N: usize>(py: Python<'_>, call: &str, numbers: [u64; N]) -> PyResult<()> {
    match numbers.into_iter().find(|number| *number >= MANY) {
        None => Ok(()),
        Some(number) => {
            let message = format!("{call}: {number:#x} bytes, lines or layers; pass fewer than {MANY:#x}");
            Err(error_about(py, Class::InvalidArgument, message, number, MANY))
        }
    }
}

/// The same, none of which is 0.
pub fn require_some<const N: usize>(py: Python<'_>, call: &str, numbers: [u64; N]) -> PyResult<()> {
    require_few(py, call, numbers)?;
    if numbers.contains(&0) {
        return Err(error(py, Class::InvalidArgument, format!("{call}: the rectangle is empty")));
    }
    Ok(())
}

/// How elements are remade: (bytes of a component, components of the source, what those of the target come from,
/// the two constants), by the numbers of the copy engine's methods.
pub type Remap = (usize, usize, Vec<u8>, [u32; 2]);

pub fn components_of(py: Python<'_>, remap: Remap) -> PyResult<Components> {
    let (size, from, to, constants) = remap;
    let origins: Option<Vec<_>> =
        to.iter().map(|number| origin(usize::from(*number), from, constants)).collect();
    match origins {
        Some(to) if (1..=4).contains(&size) && (1..=4).contains(&from) && (1..=4).contains(&to.len()) => {
            Ok(Components { size, from, to })
        }
        _ => {
            let message = format!(
                "components: {to:?} of {from} of {size} bytes; at most 4 of each, of those there are"
            );
            Err(error(py, Class::InvalidArgument, message))
        }
    }
}

fn origin(number: usize, from: usize, constants: [u32; 2]) -> Option<Origin> {
    match number {
        0..4 => (number < from).then_some(Origin::Source(number)),
        4 => Some(Origin::Constant(constants[0])),
        5 => Some(Origin::Constant(constants[1])),
        6 => Some(Origin::NoWrite),
        _ => None,
    }
}
