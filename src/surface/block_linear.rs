//! NVIDIA's block-linear layout: rows of blocks, each a box of GOBs, of 64 bytes by 8 lines.
//!
//! Which blocks a row has follows from the surface's width; below each other in a block are the GOBs of 8 lines
//! each, behind these those of the next layer. Source: Mesa's NIL, `tiling.rs` and `copy.rs`.

use std::ops::ControlFlow;

use super::ground::{Ground, Place};
use crate::processor;

/// Bytes of a GOB in a line.
const GOB_WIDTH: u64 = 64;
/// Lines of a GOB.
pub const GOB_HEIGHT: u64 = 8;
const GOB: usize = 512;
/// So many columns ahead GOBs are fetched, if memory goes on so far: no processor guesses where they are.
const AHEAD: usize = 4;
/// Bytes of a line that are contiguous.
const CHUNK: usize = 16;

/// Where bytes `x` to `x + 15` of line `y` are in a GOB, for an `x` that is a multiple of 16.
///
/// Pairs of 32-byte sectors on top of each other, four lines, then the next 16 bytes of these; as of Turing.
#[inline(always)]
const fn chunk_offset(x: usize, y: usize) -> usize {
    (y & 3) << 4 | (x & 16) << 2 | (y & 4) << 5 | (x & 32) << 3
}

/// Where byte `x` of line `y` is in a GOB.
const fn offset(x: usize, y: usize) -> usize {
    chunk_offset(x & !(CHUNK - 1), y) + x % CHUNK
}

/// A layer of a block-linear surface, from some byte of some line on.
#[derive(Clone, Copy)]
pub struct Blocks {
    /// Where the first GOB of this layer's first block is.
    layer: u64,
    /// Bytes of a row of blocks.
    row: u64,
    /// log2 of the GOBs of a block, one below the other.
    height: u32,
    /// log2 of the bytes of a block.
    block: u32,
    x: u64,
    y: u64,
}

/// What a surface is as a whole.
pub struct Shape {
    pub addr: u64,
    /// Bytes of a line.
    pub width: u64,
    pub lines: u64,
    /// log2 of the GOBs of a block, one below the other.
    pub height: u32,
    /// log2 of the layers of a block.
    pub depth: u32,
}

impl Blocks {
    /// From byte `x` of line `y` of `layer` on. What would be beyond 2^64 is at its end.
    pub fn new(shape: &Shape, x: u64, y: u64, layer: u64) -> Self {
        let Shape { addr, width, lines, height, depth } = *shape;
        let block = 9 + height + depth;
        let row = width.div_ceil(GOB_WIDTH).saturating_mul(1 << block);
        let rows = lines.div_ceil(GOB_HEIGHT << height);
        let layers = (layer >> depth).saturating_mul(rows).saturating_mul(row);
        let within = (layer & ((1 << depth) - 1)) << height << 9;
        let layer = addr.saturating_add(layers).saturating_add(within);
        Blocks { layer, row, height, block, x, y }
    }

    /// Where a GOB is.
    #[inline]
    fn gob(&self, column: u64, row: u64) -> u64 {
        let within = (row & ((1 << self.height) - 1)) << 9;
        let rows = (row >> self.height).saturating_mul(self.row);
        let blocks = rows.saturating_add(column.saturating_mul(1 << self.block));
        self.layer.saturating_add(blocks).saturating_add(within)
    }

    /// The first address of the blocks that `lines` lines of `length` bytes are in, and the end.
    pub fn span(&self, length: u64, lines: u64) -> (i128, i128) {
        let top = ((self.y / GOB_HEIGHT) >> self.height) << self.height;
        let first = self.gob(self.x / GOB_WIDTH, top);
        let bottom = ((self.y + lines - 1) / GOB_HEIGHT) | ((1 << self.height) - 1);
        let last = self.gob((self.x + length - 1) / GOB_WIDTH, bottom);
        (i128::from(first), i128::from(last) + GOB as i128)
    }

    /// The same lines without the first `lines`, and without the first bytes of each.
    pub fn skip(&self, bytes: u64, lines: u64) -> Self {
        Blocks { x: self.x + bytes, y: self.y + lines, ..*self }
    }

    /// How many lines there are before the next row of GOBs.
    pub fn lines_to_next_row(&self) -> u64 {
        GOB_HEIGHT - self.y % GOB_HEIGHT
    }

    /// Visit the GOBs that `lines` lines of `length` bytes have bytes in, row by row.
    #[inline(always)]
    fn each_part<B>(
        &self,
        length: u64,
        lines: u64,
        mut visit: impl FnMut(Part) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let (left, right) = (self.x, self.x + length);
        let (top, bottom) = (self.y, self.y + lines);
        for row in top / GOB_HEIGHT..bottom.div_ceil(GOB_HEIGHT) {
            let (first_line, start) = inside(row * GOB_HEIGHT, top);
            let end_line = (bottom - row * GOB_HEIGHT).min(GOB_HEIGHT) as usize;
            for column in left / GOB_WIDTH..right.div_ceil(GOB_WIDTH) {
                let (first_byte, byte) = inside(column * GOB_WIDTH, left);
                let end_byte = (right - column * GOB_WIDTH).min(GOB_WIDTH) as usize;
                visit(Part {
                    gob: self.gob(column, row),
                    bytes: (first_byte, end_byte),
                    lines: (first_line, end_line),
                    byte,
                    line: start,
                })?;
            }
        }
        ControlFlow::Continue(())
    }

    /// The first address, line by line, of those that the ground does not bear.
    pub fn refused(&self, ground: &mut Ground<'_>, length: u64, lines: u64) -> Option<u64> {
        let found = self.each_part(length, lines, |part| {
            if gob_at(ground, part.gob).is_some() {
                return ControlFlow::Continue(());
            }
            ControlFlow::Break(part.gob.saturating_add(offset(part.bytes.0, part.lines.0) as u64))
        });
        found.break_value()
    }

    pub fn gather(&self, ground: &mut Ground<'_>, length: usize, lines: usize, out: &mut [u8]) {
        let _ = self.each_part(length as u64, lines as u64, |part| {
            let Some(place) = gob_at(ground, part.gob) else { return ControlFlow::Break(()) };
            let out = &mut out[part.line * length + part.byte..];
            match place.bytes(GOB) {
                Some(gob) if part.is_whole() => {
                    assert!(out.len() >= 7 * length + 64);
                    processor::prefetch_lines(gob.wrapping_add(AHEAD << self.block), 0, GOB);
                    let out = out.as_mut_ptr();
                    // SAFETY: a GOB is there, and `out` has 64 bytes of eight lines.
                    each_chunk(|at, x, y| unsafe { copy_chunk(gob.add(at), out.add(y * length + x)) });
                }
                _ => part.each_piece(|at, byte, line, range| {
                    place.skip(at).read(&mut out[line * length + byte..][..range]);
                }),
            }
            ControlFlow::Continue(())
        });
    }

    pub fn scatter(&self, ground: &mut Ground<'_>, length: usize, lines: usize, from: &[u8], streamed: bool) {
        let mut whole = [0; GOB];
        let _ = self.each_part(length as u64, lines as u64, |part| {
            let Some(place) = gob_at(ground, part.gob) else { return ControlFlow::Break(()) };
            let from = &from[part.line * length + part.byte..];
            if part.is_whole() {
                assert!(from.len() >= 7 * length + 64);
                let (gob, from) = (whole.as_mut_ptr(), from.as_ptr());
                // SAFETY: `from` has 64 bytes of eight lines.
                each_chunk(|at, x, y| unsafe { copy_chunk(from.add(y * length + x), gob.add(at)) });
                place.write(&whole, streamed);
            } else {
                part.each_piece(|at, byte, line, range| {
                    place.skip(at).write(&from[line * length + byte..][..range], false);
                });
            }
            ControlFlow::Continue(())
        });
    }
}

/// What a GOB lies on, all of it.
#[inline]
fn gob_at(ground: &mut Ground<'_>, gob: u64) -> Option<Place> {
    ground.at(gob).filter(|place| place.left() >= GOB)
}

/// Visit all chunks of a GOB: where each is, and for which bytes of which line.
#[inline(always)]
fn each_chunk(mut visit: impl FnMut(usize, usize, usize)) {
    for y in 0..GOB_HEIGHT as usize {
        for x in (0..GOB_WIDTH as usize).step_by(CHUNK) {
            visit(chunk_offset(x, y), x, y);
        }
    }
}

/// # Safety
/// A chunk must be readable at `from` and writable at `to`, and these must not overlap.
#[inline(always)]
unsafe fn copy_chunk(from: *const u8, to: *mut u8) {
    // SAFETY: as the caller promises; unaligned accesses of bytes.
    unsafe { to.cast::<[u8; CHUNK]>().write(from.cast::<[u8; CHUNK]>().read()) }
}

/// How far into the GOB at `edge` what begins at `start` begins, and how far into that the GOB's bytes are.
fn inside(edge: u64, start: u64) -> (usize, usize) {
    (start.saturating_sub(edge) as usize, edge.saturating_sub(start) as usize)
}

/// Bytes of a rectangle that are in one GOB.
struct Part {
    /// Where the GOB is.
    gob: u64,
    /// Which bytes of its lines, the first and the end.
    bytes: (usize, usize),
    /// Which of its lines.
    lines: (usize, usize),
    /// Where these are in the rectangle.
    byte: usize,
    line: usize,
}

impl Part {
    /// Visit its contiguous pieces: where each is in the GOB, where in the part, and how long it is.
    #[inline]
    fn each_piece(&self, mut visit: impl FnMut(usize, usize, usize, usize)) {
        let (left, right) = self.bytes;
        for y in self.lines.0..self.lines.1 {
            let mut x = left;
            while x < right {
                let end = right.min((x / CHUNK + 1) * CHUNK);
                visit(offset(x, y), x - left, y - self.lines.0, end - x);
                x = end;
            }
        }
    }

    fn is_whole(&self) -> bool {
        (self.bytes, self.lines) == ((0, GOB_WIDTH as usize), (0, GOB_HEIGHT as usize))
    }
}
