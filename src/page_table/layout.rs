//! The levels of a page-table format: what the core must know to write words and to read them back.

use super::node::{CONSULT, COVERED, SPARSE};

/// A word matches if its bits under `mask` are `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    pub mask: u64,
    pub value: u64,
}

impl Match {
    #[inline(always)]
    pub fn matches(self, word: u64) -> bool {
        word & self.mask == self.value
    }
}

/// How a word says where the table below is.
#[derive(Clone, Copy, Debug)]
pub struct Pointer {
    pub test: Match,
    /// One of these bits is set in a pointer.
    pub present: u64,
    /// Pointers to VRAM; no other is followed.
    pub vram: Match,
    /// What a pointer to VRAM is besides the address.
    pub constant: u64,
    pub mask: u64,
    pub shift: u32,
    /// By bit of `PteFlags`: what it makes of everything below.
    pub flags: [Match; 2],
}

/// One level of tables.
#[derive(Clone, Debug)]
pub struct Level {
    /// log2 of the bytes that an entry spans.
    pub shift: u32,
    /// Index bits.
    pub bits: u32,
    /// 8, or 16 where an entry points to a pair of tables.
    pub entry_bytes: u64,
    /// What a table takes, and its alignment.
    pub table_bytes: u64,
    /// Pages of this size are mapped.
    pub pages: bool,
    /// From one page's word to the next one's.
    pub step: u64,
    /// Where a page's address is, by aperture.
    pub address_masks: [u64; 4],
    pub leaf: Match,
    pub sparse: Match,
    /// The entry says that the smaller pages below it are not to be looked at.
    pub stop: Match,
    /// Of the low word, and of the high one.
    pub pointers: [Option<Pointer>; 2],
    pub invalid_word: u64,
    pub sparse_word: Option<u64>,
}

/// How words describe pages, at all levels.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub aperture_mask: u64,
    pub address_shift: u32,
    pub kind_mask: u64,
    /// By bit of `PteFlags`.
    pub flags: [Match; 4],
}

impl Page {
    #[inline(always)]
    pub fn aperture(&self, word: u64) -> usize {
        (field(word, self.aperture_mask) & 3) as usize
    }

    #[inline(always)]
    pub fn kind(&self, word: u64) -> u8 {
        field(word, self.kind_mask) as u8
    }
}

/// The bits of a word that `mask` has, which are neighbours, as a number.
#[inline(always)]
fn field(word: u64, mask: u64) -> u64 {
    (word & mask).checked_shr(mask.trailing_zeros()).unwrap_or(0)
}

impl Pointer {
    #[inline(always)]
    pub fn to(&self, addr: u64) -> u64 {
        self.constant | addr >> self.shift
    }

    /// Where the table is; `None` if the word is no pointer.
    #[inline(always)]
    pub fn addr(&self, word: u64) -> Option<u64> {
        (self.test.matches(word) && word & self.present != 0).then_some((word & self.mask) << self.shift)
    }

    /// True if a pointer can hold the address.
    pub fn holds(&self, addr: u64) -> bool {
        addr & !(self.mask << self.shift) == 0
    }
}

impl Level {
    pub fn entries(&self) -> usize {
        1 << self.bits
    }

    /// log2 of the bytes that a table spans.
    pub fn table_shift(&self) -> u32 {
        self.shift + self.bits
    }

    #[inline(always)]
    pub fn index(&self, va: u64) -> usize {
        ((va >> self.shift) & ((1 << self.bits) - 1)) as usize
    }

    /// The words of entries without page and table below.
    #[inline(always)]
    pub fn empty(&self) -> Empty {
        Empty { invalid: self.invalid_word, sparse: self.sparse_word.unwrap_or(self.invalid_word) }
    }
}

/// What an entry without page and table below can be.
#[derive(Clone, Copy)]
pub struct Empty {
    invalid: u64,
    sparse: u64,
}

impl Empty {
    /// The word of such an entry, by its flags (see `node`). Without branches, so that loops of it are vectors.
    #[inline(always)]
    pub fn word(self, flags: u8) -> u64 {
        let is_sparse = u64::from(flags & (SPARSE | COVERED) != 0).wrapping_neg();
        let is_shown = u64::from(flags & CONSULT == 0).wrapping_neg();
        (self.invalid ^ (self.invalid ^ self.sparse) & is_sparse) & is_shown
    }
}

/// Levels from the root on. If `paired`, the last two are both children of the third last: larger pages and smaller
/// ones, the larger looked at first.
#[derive(Clone, Debug)]
pub struct Layout {
    pub page: Page,
    pub levels: Vec<Level>,
    pub paired: bool,
}

/// No format has more levels.
pub const LEVELS: usize = 8;

impl Layout {
    #[inline(always)]
    pub fn last(&self) -> usize {
        self.levels.len() - 1
    }

    /// The level whose entries point to pairs.
    #[inline(always)]
    fn fork(&self) -> Option<usize> {
        if self.paired { Some(self.levels.len() - 3) } else { None }
    }

    /// Tables that an entry of `level` can point to.
    #[inline(always)]
    pub fn ways(&self, level: usize) -> usize {
        if self.fork() == Some(level) {
            2
        } else if level == self.last() || self.larger() == Some(level) {
            0
        } else {
            1
        }
    }

    /// Which of its parent's ways leads to `level`.
    #[inline(always)]
    pub fn way(&self, level: usize) -> usize {
        usize::from(self.paired && level == self.last())
    }

    /// The level above.
    #[inline(always)]
    pub fn parent(&self, level: usize) -> usize {
        level - 1 - self.way(level)
    }

    /// The level under `level` on the way to `target`.
    #[inline(always)]
    pub fn towards(&self, level: usize, target: usize) -> usize {
        if self.fork() == Some(level) { target } else { level + 1 }
    }

    /// Of a pair, the level with larger pages.
    #[inline(always)]
    pub fn larger(&self) -> Option<usize> {
        if self.paired { Some(self.levels.len() - 2) } else { None }
    }

    /// Of a pair, the level with smaller pages.
    #[inline(always)]
    pub fn smaller(&self) -> Option<usize> {
        if self.paired { Some(self.last()) } else { None }
    }

    /// Smaller entries below a larger one of a pair.
    #[inline(always)]
    pub fn group(&self) -> usize {
        1 << (self.levels[self.last() - 1].shift - self.levels[self.last()].shift)
    }

    /// The pointer to a table of `level`.
    #[inline(always)]
    pub fn pointer(&self, level: usize) -> &Pointer {
        let pointers = &self.levels[self.parent(level)].pointers;
        pointers[self.way(level)].as_ref().expect("checked: a level that has one below points to it")
    }

    /// Where the address of a page's word is.
    #[inline(always)]
    pub fn address_mask(&self, level: &Level, word: u64) -> u64 {
        level.address_masks[self.page.aperture(word)]
    }

    /// Whether words can hold the addresses of `pages` pages, of which the first has `word`.
    pub fn holds_pages(&self, level: &Level, word: u64, pages: u64) -> bool {
        let mask = self.address_mask(level, word);
        let last = level.step.checked_mul(pages - 1).and_then(|steps| (word & mask).checked_add(steps));
        last.is_some_and(|address| address & !mask == 0)
    }

    /// log2 of the length of the address space.
    pub fn va_bits(&self) -> u32 {
        self.levels[0].table_shift()
    }

    /// Whether ranges can be made sparse.
    pub fn sparse(&self) -> bool {
        self.levels[self.last()].sparse_word.is_some()
    }

    /// Check that the levels fit together; the message says what does not.
    pub fn check(&self, va_bits: u32) -> Result<(), String> {
        let least = if self.paired { 3 } else { 1 };
        if !(least..=LEVELS).contains(&self.levels.len()) {
            return Err(format!("{} levels: there are {least} to {LEVELS}", self.levels.len()));
        }
        for (number, level) in self.levels.iter().enumerate() {
            let ways = self.ways(number);
            let entry_bytes = if ways == 2 { 16 } else { 8 };
            if level.bits > 16 || level.shift > 63 || level.table_shift() > 63 {
                return Err(format!("level {number}: {} index bits from bit {} on", level.bits, level.shift));
            }
            if level.entry_bytes != entry_bytes {
                let has = level.entry_bytes;
                return Err(format!("level {number}: an entry has {entry_bytes} bytes, not {has}"));
            }
            let table_bytes = level.table_bytes;
            if !table_bytes.is_power_of_two() || table_bytes < level.entry_bytes << level.bits {
                return Err(format!("level {number}: {table_bytes} bytes do not hold a table"));
            }
            if level.pointers[..ways].iter().any(Option::is_none) {
                return Err(format!("level {number}: it cannot point to the level below"));
            }
            if level.pointers.iter().flatten().any(|pointer| pointer.shift > 63)
                || self.page.address_shift > 63
            {
                return Err(format!("level {number}: a word has 64 bits"));
            }
            if number > 0 && level.table_shift() != self.levels[self.parent(number)].shift {
                return Err(format!("level {number}: a table does not span what an entry above spans"));
            }
            if self.larger() == Some(number) && level.shift <= self.levels[self.last()].shift {
                return Err(format!("level {number}: of a pair, the larger pages come first"));
            }
            if level.sparse_word.is_some() && !self.sparse() {
                return Err(format!("level {number}: sparse entries, but none of the smallest size"));
            }
        }
        if self.va_bits() != va_bits {
            return Err(format!("addresses of {va_bits} bits, but the levels make {}", self.va_bits()));
        }
        Ok(())
    }
}
