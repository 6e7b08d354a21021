//! Writing entries: nothing is allocated here.

use super::*;
use crate::processor;

impl PageTable {
    /// Map pages: `word` is the first one's, each further word leads to the next page of physical memory.
    pub fn map(&mut self, addr: u64, range: u64, shift: u32, word: u64) -> Result<(), Refusal> {
        let piece = self.slots(addr, range, shift)?;
        let level = &self.layout.levels[piece.level];
        if !level.leaf.matches(word) {
            return Err(Refusal::Word(word));
        }
        if !self.layout.holds_pages(level, word, range >> shift) {
            return Err(Refusal::Address(word));
        }
        self.require_referenced(&piece, false)?;
        let step = level.step;
        let (mut va, mut near) = (piece.start, NONE);
        while va < piece.end {
            let part = self.part(&piece, va, &mut near).expect("its slots are referenced");
            let (vram, level) = (self.vram, &self.layout.levels[piece.level]);
            let node = &mut self.nodes[part.id];
            node.flags[part.first..][..part.count].iter_mut().for_each(|flags| *flags |= PAGE);
            let first = word + step * ((va - piece.start) >> shift);
            vram.fill(node.word_at(level, part.first), level.entry_bytes as usize, part.count, first, step);
            va = part.end;
        }
        self.written.pages += range >> shift;
        Ok(())
    }

    /// Take pages away, those that are mapped.
    pub fn unmap(&mut self, addr: u64, range: u64, shift: u32) -> Result<(), Refusal> {
        let piece = self.slots(addr, range, shift)?;
        self.require_referenced(&piece, false)?;
        let mut cleared = 0;
        self.for_each_part(&piece, |tables, part| {
            let flags = &mut tables.nodes[part.id].flags[part.first..][..part.count];
            cleared += take_pages(flags);
            tables.uncover(part);
        });
        self.written.clears += cleared;
        Ok(())
    }

    /// Write what shows without pages.
    fn uncover(&mut self, part: &Part) {
        let (node, level) = (&self.nodes[part.id], self.level(part.id));
        let (at, stride) = (node.word_at(level, part.first), level.entry_bytes as usize);
        let ways = self.layout.ways(node.level as usize);
        let children = &node.children[part.first * ways..][..part.count * ways];
        // All of them first, without a branch for each.
        if children.iter().fold(true, |none, child| none & (*child == NONE)) {
            let (empty, flags) = (level.empty(), &node.flags[part.first..][..part.count]);
            self.vram.each(at, stride, flags.len(), |index| empty.word(flags[index]));
        } else {
            for index in 0..part.count {
                self.vram.store(at + (index * stride) as u64, self.below(part.id, part.first + index));
            }
        }
    }
}

/// Clear PAGE in all of `flags`; how many had it.
fn take_pages(flags: &mut [u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if processor::has_avx2() {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { take_pages_avx2(flags) };
    }
    take_pages_anywhere(flags)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2")]
fn take_pages_avx2(flags: &mut [u8]) -> u64 {
    take_pages_anywhere(flags)
}

#[inline(always)]
fn take_pages_anywhere(flags: &mut [u8]) -> u64 {
    let mut taken = 0;
    // Sums of 255 bytes fit into a byte, so that whole vectors of them are added.
    for chunk in flags.chunks_mut(255) {
        let mut sum = 0u8;
        for flag in chunk {
            sum += *flag & PAGE;
            *flag &= !PAGE;
        }
        taken += u64::from(sum);
    }
    taken
}
