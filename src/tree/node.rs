//! The two node layouts and the searches inside one node.

use super::Entry;

/// "No node", "no slot": an id that is never given out.
pub const NONE: u32 = u32::MAX;
/// Entries of a leaf: its header and keys fill four cache lines, and vectors of four keys divide it.
pub const LEAF_CAP: usize = 28;
/// Children of an inner node.
pub const INNER_CAP: usize = 32;

#[derive(Clone)]
#[repr(C, align(64))]
pub struct Leaf {
    pub lo: u64,
    pub hi: u64,
    pub parent: u32,
    pub prev: u32,
    pub next: u32,
    pub len: u8,
    /// The parent's largest-gap entry for this leaf is out of date (see `gaps`).
    pub gap_stale: bool,
    pub keys: [u64; LEAF_CAP],
    pub ranges: [u64; LEAF_CAP],
    pub slots: [u32; LEAF_CAP],
}

#[derive(Clone)]
#[repr(C, align(64))]
pub struct Inner {
    pub lo: u64,
    pub hi: u64,
    pub parent: u32,
    /// One bit a child: `gaps` is out of date for it.
    pub gap_stale: u32,
    /// Number of children.
    pub len: u8,
    /// 1 for a parent of leaves.
    pub height: u8,
    /// `keys[i]` is the `lo` of child `i + 1`; child 0 starts at this node's own `lo`. The last is never used.
    pub keys: [u64; INNER_CAP],
    pub children: [u32; INNER_CAP],
    /// The largest hole in front of an entry below child `i`.
    pub gaps: [u64; INNER_CAP],
}

#[inline(always)]
fn count_le<const N: usize>(keys: &[u64; N], x: u64) -> usize {
    keys.iter().map(|&key| (key <= x) as u64).sum::<u64>() as usize
}

impl Leaf {
    pub fn new(lo: u64, hi: u64) -> Self {
        Leaf {
            lo,
            hi,
            parent: NONE,
            prev: NONE,
            next: NONE,
            len: 0,
            gap_stale: false,
            keys: [u64::MAX; LEAF_CAP],
            ranges: [0; LEAF_CAP],
            slots: [NONE; LEAF_CAP],
        }
    }

    /// True if `addr` lies between the fences; never for a freed leaf.
    #[inline(always)]
    pub fn encloses(&self, addr: u64) -> bool {
        self.lo <= addr && addr < self.hi
    }

    /// Number of entries that start at or before `addr`.
    #[inline(always)]
    pub fn upper_bound(&self, addr: u64) -> usize {
        count_le(&self.keys, addr)
    }

    /// `upper_bound`, when the answer is probably `guess`.
    #[inline(always)]
    pub fn upper_bound_near(&self, addr: u64, guess: usize) -> usize {
        let above = guess >= LEAF_CAP || addr < self.keys[guess];
        let below = guess == 0 || self.keys[(guess - 1).min(LEAF_CAP - 1)] <= addr;
        if above && below { guess } else { self.upper_bound(addr) }
    }

    #[inline(always)]
    pub fn end(&self, index: usize) -> u64 {
        self.keys[index] + self.ranges[index]
    }

    #[inline(always)]
    pub fn entry(&self, index: usize) -> Entry {
        Entry { addr: self.keys[index], range: self.ranges[index], slot: self.slots[index] }
    }

    #[inline(always)]
    pub fn set(&mut self, index: usize, entry: &Entry) {
        self.keys[index] = entry.addr;
        self.ranges[index] = entry.range;
        self.slots[index] = entry.slot;
    }

    pub fn last_end(&self) -> Option<u64> {
        (self.len > 0).then(|| self.end(self.len as usize - 1))
    }

    /// Move the entries from `from` on so that they begin at `to`, and adjust `len`.
    #[inline(always)]
    pub fn shift(&mut self, from: usize, to: usize) {
        let len = self.len as usize;
        let new_len = to + len - from;
        self.keys.copy_within(from..len, to);
        self.ranges.copy_within(from..len, to);
        self.slots.copy_within(from..len, to);
        if new_len < len {
            self.keys[new_len..len].fill(u64::MAX);
        }
        self.len = new_len as u8;
    }

    /// Append the entries `range` of `source`, which loses nothing.
    pub fn extend_from(&mut self, source: &Leaf, range: std::ops::Range<usize>) {
        for index in range {
            self.set(self.len as usize, &source.entry(index));
            self.len += 1;
        }
    }
}

impl Inner {
    pub fn new(lo: u64, hi: u64, height: u8) -> Self {
        Inner {
            lo,
            hi,
            parent: NONE,
            gap_stale: u32::MAX,
            len: 0,
            height,
            keys: [u64::MAX; INNER_CAP],
            children: [NONE; INNER_CAP],
            gaps: [0; INNER_CAP],
        }
    }

    /// True if this is the live node of `height` whose fences enclose `addr`: there is only one.
    #[inline(always)]
    pub fn encloses(&self, addr: u64, height: u8) -> bool {
        self.lo <= addr && addr < self.hi && self.height == height
    }

    #[inline(always)]
    pub fn index_of(&self, addr: u64) -> usize {
        count_le(&self.keys, addr)
    }

    #[inline(always)]
    pub fn child_of(&self, addr: u64) -> u32 {
        self.children[self.index_of(addr)]
    }

    pub fn children(&self) -> &[u32] {
        &self.children[..self.len as usize]
    }

    /// The pairs of neighbours that child `index` is one of, and where the right one is; the pair to its right first.
    pub fn pairs_of(&self, index: usize) -> impl Iterator<Item = (u32, u32, usize)> + '_ {
        let rights = [index + 1, index].into_iter().filter(|&right| right > 0 && right < self.len as usize);
        rights.map(|right| (self.children[right - 1], self.children[right], right))
    }

    /// Put `child`, which starts at `key`, behind child `index - 1`; `index` is at least 1.
    pub fn insert_child(&mut self, index: usize, key: u64, child: u32) {
        let len = self.len as usize;
        self.children.copy_within(index..len, index + 1);
        self.keys.copy_within(index - 1..len - 1, index);
        self.children[index] = child;
        self.keys[index - 1] = key;
        self.len += 1;
        self.gap_stale = u32::MAX;
    }

    /// Take child `index` out; the key range it had falls to its left neighbour, or to the right one for child 0.
    pub fn remove_child(&mut self, index: usize) {
        let len = self.len as usize;
        self.children.copy_within(index + 1..len, index);
        if len > 1 {
            let key = index.saturating_sub(1);
            self.keys.copy_within(key + 1..len - 1, key);
            self.keys[len - 2] = u64::MAX;
        }
        self.len -= 1;
        self.gap_stale = u32::MAX;
    }
}
