//! Sparse ranges: cut into the largest entries that fit, without tables for what these span.

use super::get::{Fresh, Wanted, require_allowed};
use super::*;
use crate::memory::reserve;

/// A range has at most two pieces at each level.
struct Pieces {
    pieces: [Piece; 2 * LEVELS],
    count: usize,
}

impl Pieces {
    fn all(&self) -> &[Piece] {
        &self.pieces[..self.count]
    }

    fn push(&mut self, piece: Piece) {
        if piece.start < piece.end {
            self.pieces[self.count] = piece;
            self.count += 1;
        }
    }
}

impl PageTable {
    /// Make a range sparse. Tables as for `get`.
    pub fn sparse_ref(&mut self, addr: u64, range: u64, tables: &[Table]) -> Result<Option<Wanted>, Refusal> {
        let end = self.sparse_end(addr, range)?;
        require_allowed()?;
        let place = self.ranges.partition_point(|(_, behind)| *behind <= addr);
        if let Some((start, behind)) = self.ranges.get(place).filter(|(start, _)| *start < end) {
            return Err(Refusal::Sparse(*start, *behind));
        }
        let pieces = self.pieces(addr, end);
        let missing = self.missing(pieces.all());
        if !self.supplied(&missing, tables) {
            return Ok(Some(self.wanted(&missing)));
        }
        let mut fresh: Fresh = self.prepare(&missing, tables)?;
        reserve(&mut self.ranges, 1)?;
        self.ranges.insert(place, (addr, end));
        self.install(pieces.all(), &mut fresh);
        for piece in pieces.all() {
            self.for_each_part(piece, |tables, part| tables.set_sparse(part, true));
        }
        Ok(None)
    }

    /// End a sparse range.
    pub fn sparse_unref(&mut self, addr: u64, range: u64) -> Result<(), Refusal> {
        let end = self.sparse_end(addr, range)?;
        let place = self.ranges.binary_search(&(addr, end)).map_err(|_| Refusal::NotSparse)?;
        self.ranges.remove(place);
        let pieces = self.pieces(addr, end);
        for piece in pieces.all() {
            self.for_each_part(piece, |tables, part| {
                tables.set_sparse(part, false);
                tables.release(part.id);
            });
        }
        Ok(())
    }

    fn sparse_end(&self, addr: u64, range: u64) -> Result<u64, Refusal> {
        if !self.layout.sparse() {
            return Err(Refusal::NoSparse);
        }
        self.end_of(addr, range, self.layout.levels[self.layout.last()].shift)
    }

    /// Cut a range into pieces, in address order: the largest in the middle, smaller ones towards both ends.
    fn pieces(&self, start: u64, end: u64) -> Pieces {
        let nothing = Piece { level: 0, start: 0, end: 0 };
        let mut cut = Pieces { pieces: [nothing; 2 * LEVELS], count: 0 };
        let levels =
            || self.layout.levels.iter().enumerate().filter(|(_, level)| level.sparse_word.is_some());
        let fits = |(_, level): &(usize, &Level)| {
            let size = 1 << level.shift;
            start.next_multiple_of(size) + size <= end
        };
        let top = levels().find(fits).map_or(self.layout.last(), |(number, _)| number);
        let mut at = start;
        for (number, level) in levels().rev().filter(|(number, _)| *number > top) {
            // Up to where entries of the next larger size begin.
            let larger = levels()
                .rev()
                .find(|(above, _)| *above < number)
                .map_or(level.shift, |(_, above)| above.shift);
            let to = at.next_multiple_of(1 << larger).min(end);
            cut.push(Piece { level: number, start: at, end: to });
            at = to;
        }
        for (number, level) in levels().filter(|(number, _)| *number >= top) {
            let to = end >> level.shift << level.shift;
            cut.push(Piece { level: number, start: at, end: to });
            at = at.max(to);
        }
        cut
    }

    /// Make whole entries sparse, or no longer.
    fn set_sparse(&mut self, part: &Part, on: bool) {
        let node = &mut self.nodes[part.id];
        node.flags[part.first..][..part.count].iter_mut().for_each(|flags| *flags ^= SPARSE);
        node.uses = if on { node.uses + part.count as u64 } else { node.uses - part.count as u64 };
        for index in part.first..part.first + part.count {
            self.cover_below(part.id, index, on);
            self.rewrite(part.id, index);
        }
        self.refresh_consult(part.id, part.first, part.count);
    }

    /// What lies below entry `index` is covered by a sparse range, or no longer.
    fn cover_below(&mut self, id: u32, index: usize, on: bool) {
        let number = self.nodes[id].level as usize;
        if self.layout.larger() == Some(number) {
            let (sibling, group) = (self.sibling(id), self.layout.group());
            if sibling != NONE {
                self.cover(sibling, index * group, group, on);
            }
            return;
        }
        let ways = self.layout.ways(number);
        for way in 0..ways {
            let child = self.nodes[id].children[index * ways + way];
            if child != NONE {
                self.cover(child, 0, self.level(child).entries(), on);
            }
        }
    }

    fn cover(&mut self, id: u32, first: usize, count: usize, on: bool) {
        let larger = self.layout.larger() == Some(self.nodes[id].level as usize);
        for index in first..first + count {
            let flags = &mut self.nodes[id].flags[index];
            *flags = if on { *flags | COVERED } else { *flags & !COVERED };
            if !larger {
                self.cover_below(id, index, on); // the smaller one of a pair is a child too
            }
            self.rewrite(id, index);
        }
    }
}
