//! Lines that begin some bytes after each other.

use super::ground::{Ground, Place};

#[derive(Clone, Copy)]
pub struct Pitch {
    /// Where the first line begins.
    pub addr: u64,
    /// How far after a line the next one begins; or before it, if negative.
    pub pitch: i64,
}

impl Pitch {
    fn line(&self, line: u64) -> u64 {
        self.addr.wrapping_add_signed(self.pitch.wrapping_mul(line as i64))
    }

    pub fn skip(&self, bytes: u64, lines: u64) -> Self {
        Pitch { addr: self.line(lines).wrapping_add(bytes), pitch: self.pitch }
    }

    pub fn span(&self, length: u64, lines: u64) -> (i128, i128) {
        let first = i128::from(self.addr);
        let last = first + i128::from(lines - 1) * i128::from(self.pitch);
        (first.min(last), first.max(last) + i128::from(length))
    }

    pub fn refused(&self, ground: &mut Ground<'_>, length: u64, lines: u64) -> Option<u64> {
        (0..lines).find_map(|line| {
            let start = self.line(line);
            let mut done = 0;
            while done < length {
                let Some(place) = ground.at(start.wrapping_add(done)) else {
                    return Some(start.wrapping_add(done));
                };
                done = done.saturating_add(place.left() as u64);
            }
            None
        })
    }

    pub fn gather(&self, ground: &mut Ground<'_>, length: usize, out: &mut [u8]) {
        for (line, out) in out.chunks_exact_mut(length).enumerate() {
            let mut rest = out;
            pieces(ground, self.line(line as u64), length, |place, range| {
                let (piece, behind) = std::mem::take(&mut rest).split_at_mut(range);
                place.read(piece);
                rest = behind;
            });
        }
    }

    pub fn scatter(&self, ground: &mut Ground<'_>, length: usize, from: &[u8], streamed: bool) {
        for (line, from) in from.chunks_exact(length).enumerate() {
            let mut rest = from;
            pieces(ground, self.line(line as u64), length, |place, range| {
                let (piece, behind) = rest.split_at(range);
                place.write(piece, streamed);
                rest = behind;
            });
        }
    }

    /// Copy one line from a line of another surface, upwards.
    pub fn copy_line(
        &self,
        ground: &mut Ground<'_>,
        (other, other_ground): (&Pitch, &mut Ground<'_>),
        line: u64,
        length: usize,
        streamed: bool,
    ) {
        let mut from = other.line(line);
        pieces(ground, self.line(line), length, |to, range| {
            let mut to = to;
            pieces(other_ground, from, range, |source, range| {
                to.copy_from(source, range, streamed);
                to = to.skip(range);
            });
            from += range as u64;
        });
    }
}

/// Visit what `length` bytes at `va` lead to.
#[inline(always)]
fn pieces(ground: &mut Ground<'_>, va: u64, length: usize, mut visit: impl FnMut(Place, usize)) {
    let mut done = 0;
    while done < length {
        let Some(place) = ground.at(va.wrapping_add(done as u64)) else { return };
        let range = place.left().min(length - done);
        visit(place, range);
        done += range;
    }
}
