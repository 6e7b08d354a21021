//! Moving rectangles of bytes between surfaces, a part at a time, through a buffer that stays in a cache.
//!
//! Who asks has made sure that the ground bears all of it. Others may read and write it meanwhile; see `runs`.

use super::Surface;
use super::block_linear::GOB_HEIGHT;
use super::components::Components;
use super::ground::Ground;
use crate::memory::{Refused, reserve_anywhere};
use crate::processor;
use crate::runs::STREAMED_FROM;

/// Bytes that are on their way at once, so few that the first ones are still in the cache when the last ones come.
const BUFFER: usize = 256 << 10;

/// One end of a transfer.
pub struct Side<'a> {
    pub surface: Surface,
    pub ground: Ground<'a>,
    /// Bytes of an element.
    pub element: usize,
}

/// What is moved.
#[derive(Clone, Copy)]
pub struct Rectangle {
    /// Of a line.
    pub elements: u64,
    pub lines: u64,
}

/// Move a rectangle to `target`, from `source` or made of constants.
///
/// If the surfaces are not `apart`, line after line, each in parts of at most `BUFFER` bytes from its start on; a
/// part is read before it is written. Fails before anything is moved.
pub fn transfer<'a>(
    target: &mut Side<'a>,
    source: Option<&mut Side<'a>>,
    components: Option<&Components>,
    rectangle: Rectangle,
    apart: bool,
) -> Result<(), Refused> {
    let length = target.element as u64 * rectangle.elements;
    let streamed = length * rectangle.lines >= STREAMED_FROM as u64;
    match (source, &target.surface, components) {
        (Some(Side { surface: Surface::Pitch(from), ground, .. }), Surface::Pitch(to), None) if apart => {
            for line in 0..rectangle.lines {
                to.copy_line(&mut target.ground, (from, ground), line, length as usize, streamed);
            }
        }
        (source, ..) => Transfer::new(target, source, components, rectangle, streamed)?.run(rectangle, apart),
    }
    if streamed {
        processor::order_streams();
    }
    Ok(())
}

/// A transfer through a buffer.
struct Transfer<'t, 'a, 'c> {
    target: &'t mut Side<'a>,
    source: Option<&'t mut Side<'a>>,
    components: Option<&'c Components>,
    /// What was read.
    read: Vec<u8>,
    /// What is to be written, if it is not that.
    remade: Vec<u8>,
    streamed: bool,
}

impl<'t, 'a, 'c> Transfer<'t, 'a, 'c> {
    fn new(
        target: &'t mut Side<'a>,
        source: Option<&'t mut Side<'a>>,
        components: Option<&'c Components>,
        rectangle: Rectangle,
        streamed: bool,
    ) -> Result<Self, Refused> {
        let room = |element: usize| {
            let all = rectangle.elements.saturating_mul(rectangle.lines).saturating_mul(element as u64);
            buffer(all.min(BUFFER as u64) as usize)
        };
        let read = room(source.as_ref().map_or(0, |source| source.element))?;
        let mut remade = room(if components.is_some() { target.element } else { 0 })?;
        if let (None, Some(components)) = (&source, components) {
            components.remake(&[], &mut remade);
        }
        Ok(Transfer { target, source, components, read, remade, streamed })
    }

    fn run(mut self, rectangle: Rectangle, apart: bool) {
        let Rectangle { elements, lines } = rectangle;
        let element = self.source.as_ref().map_or(0, |source| source.element).max(self.target.element);
        let room = (BUFFER / element) as u64;
        if !apart {
            for line in 0..lines {
                for first in (0..elements).step_by(room as usize) {
                    self.part(first, line, room.min(elements - first), 1);
                }
            }
            return;
        }
        // So wide that rows of GOBs fit.
        let wide = elements.min(room / GOB_HEIGHT);
        let high = (room / wide) / GOB_HEIGHT * GOB_HEIGHT;
        for first in (0..elements).step_by(wide as usize) {
            let mut line = 0;
            while line < lines {
                let rows = if line == 0 { high - GOB_HEIGHT + self.lines_to_next_row() } else { high };
                let some = rows.min(lines - line);
                self.part(first, line, wide.min(elements - first), some);
                line += some;
            }
        }
    }

    /// How many lines fill the first row of GOBs, of the target if it has such.
    fn lines_to_next_row(&self) -> u64 {
        let source = self.source.as_ref().map(|source| &source.surface);
        [Some(&self.target.surface), source]
            .into_iter()
            .flatten()
            .find_map(|surface| match surface {
                Surface::Pitch { .. } => None,
                Surface::Blocks(blocks) => Some(blocks.lines_to_next_row()),
            })
            .unwrap_or(GOB_HEIGHT)
    }

    /// Move what fits into the buffer.
    fn part(&mut self, first: u64, line: u64, elements: u64, lines: u64) {
        let (target, lines, count) = (&mut *self.target, lines as usize, (elements * lines) as usize);
        let to = target.surface.skip(first * target.element as u64, line);
        let length = elements as usize * target.element;
        if let Some(source) = &mut self.source {
            let from = source.surface.skip(first * source.element as u64, line);
            from.gather(&mut source.ground, elements as usize * source.element, lines, &mut self.read);
        }
        let Some(components) = self.components else {
            return to.scatter(&mut target.ground, length, lines, &self.read, self.streamed);
        };
        if components.keeps() {
            to.gather(&mut target.ground, length, lines, &mut self.remade);
        }
        if let Some(source) = &self.source {
            components
                .remake(&self.read[..count * source.element], &mut self.remade[..count * target.element]);
        } else if components.keeps() {
            components.remake(&[], &mut self.remade[..count * target.element]);
        }
        to.scatter(&mut target.ground, length, lines, &self.remade, self.streamed);
    }
}

/// Zeros. An engine works in any section: hardware needs no memory of the driver's.
fn buffer(len: usize) -> Result<Vec<u8>, Refused> {
    let mut buffer = Vec::new();
    reserve_anywhere(&mut buffer, len)?;
    buffer.resize(len, 0);
    Ok(buffer)
}
