//! Surfaces: lines of bytes, one after the other or in blocks, in memory that page tables lead to.

pub mod block_linear;
pub mod components;
pub mod ground;
pub mod pitch;
pub mod transfer;

use block_linear::Blocks;
use ground::Ground;
use pitch::Pitch;

/// Where the lines of a surface are.
#[derive(Clone, Copy)]
pub enum Surface {
    Pitch(Pitch),
    Blocks(Blocks),
}

impl Surface {
    /// The first address of the first `lines` lines of `length` bytes, and the end; more if they are in blocks.
    pub fn span(&self, length: u64, lines: u64) -> (i128, i128) {
        match self {
            Surface::Pitch(pitch) => pitch.span(length, lines),
            Surface::Blocks(blocks) => blocks.span(length, lines),
        }
    }

    /// The first address of the first `lines` lines of `length` bytes that the ground does not bear.
    pub fn refused(&self, ground: &mut Ground<'_>, length: u64, lines: u64) -> Option<u64> {
        match self {
            Surface::Pitch(pitch) => pitch.refused(ground, length, lines),
            Surface::Blocks(blocks) => blocks.refused(ground, length, lines),
        }
    }

    /// The same lines without the first `lines`, and without the first bytes of each.
    pub fn skip(&self, bytes: u64, lines: u64) -> Self {
        match self {
            Surface::Pitch(pitch) => Surface::Pitch(pitch.skip(bytes, lines)),
            Surface::Blocks(blocks) => Surface::Blocks(blocks.skip(bytes, lines)),
        }
    }

    /// Read `lines` lines of `length` bytes into `out`, one after the other.
    pub fn gather(&self, ground: &mut Ground<'_>, length: usize, lines: usize, out: &mut [u8]) {
        let out = &mut out[..length * lines];
        match self {
            Surface::Pitch(pitch) => pitch.gather(ground, length, out),
            Surface::Blocks(blocks) => blocks.gather(ground, length, lines, out),
        }
    }

    /// Write them, past the caches if they are `streamed`.
    pub fn scatter(&self, ground: &mut Ground<'_>, length: usize, lines: usize, from: &[u8], streamed: bool) {
        let from = &from[..length * lines];
        match self {
            Surface::Pitch(pitch) => pitch.scatter(ground, length, from, streamed),
            Surface::Blocks(blocks) => blocks.scatter(ground, length, lines, from, streamed),
        }
    }
}
