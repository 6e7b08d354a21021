//! Taking references: the tables that are missing, and putting them in place.

use super::*;
use crate::memory::{forbidden, reserve};

/// Memory for tables of one size.
pub struct Table {
    pub bytes: u64,
    pub addrs: Vec<u64>,
}

/// Sizes in bytes, and how many tables of each are missing.
pub type Wanted = Vec<(u64, u64)>;

/// Tables that are missing, by level.
pub type Missing = [u64; LEVELS];

impl PageTable {
    /// Reference the slots in a range. If `tables` is not just what is missing, nothing is done, and the answer
    /// tells what is: sizes in bytes, and how many of each, none perhaps.
    pub fn get(
        &mut self,
        (addr, range, shift): (u64, u64, u32),
        tables: &[Table],
    ) -> Result<Option<Wanted>, Refusal> {
        let piece = self.slots(addr, range, shift)?;
        require_allowed()?;
        self.require_countable(&piece)?;
        let missing = self.missing(&[piece]);
        if !self.supplied(&missing, tables) {
            return Ok(Some(self.wanted(&missing)));
        }
        let mut fresh = self.prepare(&missing, tables)?;
        self.install(&[piece], &mut fresh);
        self.for_each_part(&piece, |tables, part| {
            let node = &mut tables.nodes[part.id];
            node.refs[part.first..][..part.count].iter_mut().for_each(|refs| *refs += 1);
            node.uses += part.count as u64;
            tables.refresh_consult(part.id, part.first, part.count);
        });
        Ok(None)
    }

    /// Call `act` for the entries of each table of `piece`; the tables are there.
    pub(super) fn for_each_part(&mut self, piece: &Piece, mut act: impl FnMut(&mut Self, &Part)) {
        let (mut va, mut near) = (piece.start, NONE);
        while va < piece.end {
            let part = self.part(piece, va, &mut near).expect("its tables are there");
            act(self, &part);
            va = part.end;
        }
    }

    /// No slot may have more references than its counter can hold.
    fn require_countable(&self, piece: &Piece) -> Result<(), Refusal> {
        let (mut va, mut near) = (piece.start, NONE);
        while va < piece.end {
            match self.part(piece, va, &mut near) {
                Err(parent) => va = self.hole_end(parent, va),
                Ok(part) => {
                    let refs = &self.nodes[part.id].refs[part.first..][..part.count];
                    if let Some(index) = refs.iter().position(|refs| *refs == u16::MAX) {
                        let level = &self.layout.levels[piece.level];
                        return Err(Refusal::Saturated(va + ((index as u64) << level.shift)));
                    }
                    va = part.end;
                }
            }
        }
        Ok(())
    }

    /// Where the entry of table `id` ends that spans `va`.
    fn hole_end(&self, id: u32, va: u64) -> u64 {
        let shift = self.level(id).shift;
        ((va >> shift) + 1) << shift
    }

    /// How many tables of each level are missing on the way to `pieces`, which are in address order.
    pub(super) fn missing(&self, pieces: &[Piece]) -> Missing {
        let mut missing = Missing::default();
        // Which table of each level was counted last: pieces that are neighbours share tables.
        let mut last = [None; LEVELS];
        for piece in pieces {
            let (mut va, mut near) = (piece.start, NONE);
            while va < piece.end {
                let parent = match self.part(piece, va, &mut near) {
                    Ok(part) => {
                        va = part.end;
                        continue;
                    }
                    Err(parent) => parent,
                };
                let end = self.hole_end(parent, va).min(piece.end);
                let mut at = self.nodes[parent].level as usize;
                while at != piece.level {
                    at = self.layout.towards(at, piece.level);
                    let shift = self.layout.levels[at].table_shift();
                    let (from, to) = (va >> shift, (end - 1) >> shift);
                    missing[at] += to - from + u64::from(last[at] != Some(from));
                    last[at] = Some(to);
                }
                va = end;
            }
        }
        missing
    }

    /// Whether `tables` has as many of each size as are missing.
    pub(super) fn supplied(&self, missing: &Missing, tables: &[Table]) -> bool {
        let wanted = self.wanted(missing);
        let supply = |bytes| -> u64 {
            tables.iter().filter(|table| table.bytes == bytes).map(|table| table.addrs.len() as u64).sum()
        };
        wanted.iter().all(|(bytes, count)| supply(*bytes) == *count)
            && wanted.iter().map(|(_, count)| count).sum::<u64>()
                == tables.iter().map(|table| table.addrs.len() as u64).sum::<u64>()
    }

    /// The sizes of what is missing, and how many of each.
    pub(super) fn wanted(&self, missing: &Missing) -> Wanted {
        let mut wanted = Wanted::new();
        for (level, count) in self.layout.levels.iter().zip(missing).filter(|(_, count)| **count > 0) {
            match wanted.iter_mut().find(|(bytes, _)| *bytes == level.table_bytes) {
                Some((_, sum)) => *sum += count,
                None => wanted.push((level.table_bytes, *count)),
            }
        }
        wanted
    }

    /// Nodes for the tables that are missing, by level, and room for them: all that can fail.
    pub(super) fn prepare(&mut self, missing: &Missing, tables: &[Table]) -> Result<Fresh, Refusal> {
        let mut fresh = Fresh::default();
        let mut taken: Vec<(u64, usize)> = tables.iter().map(|table| (table.bytes, 0)).collect();
        for (number, level) in self.layout.levels.iter().enumerate() {
            reserve(&mut fresh[number], missing[number] as usize)?;
            for _ in 0..missing[number] {
                let has = |(supply, taken): &(&Table, &mut (u64, usize))| {
                    supply.bytes == level.table_bytes && taken.1 < supply.addrs.len()
                };
                let (supply, taken) =
                    tables.iter().zip(&mut taken).find(has).expect("supplied is just what is missing");
                let addr = supply.addrs[taken.1];
                taken.1 += 1;
                self.check_place(number, addr)?;
                fresh[number].push(Node::new(&self.layout, number, addr)?);
            }
        }
        let nodes = missing.iter().sum::<u64>() as usize;
        self.nodes.reserve(nodes.saturating_sub(self.spares), &Node::FREE)?;
        Ok(fresh)
    }

    /// Put the missing tables of `pieces` in place.
    pub(super) fn install(&mut self, pieces: &[Piece], fresh: &mut Fresh) {
        for piece in pieces {
            let (mut va, mut near) = (piece.start, NONE);
            while va < piece.end {
                match self.part(piece, va, &mut near) {
                    Ok(part) => va = part.end,
                    Err(parent) => {
                        let at = self.nodes[parent].level as usize;
                        let level = self.layout.towards(at, piece.level);
                        let node = fresh[level].pop().expect("all that is missing was prepared");
                        self.install_one(parent, self.layout.levels[at].index(va), level, node);
                    }
                }
            }
        }
    }

    /// Put one table below entry `index`: it shows what the entry showed, and is whole before anything points to it.
    fn install_one(&mut self, parent: u32, index: usize, level: usize, mut node: Node) {
        let above = &self.nodes[parent];
        (node.parent, node.va) = (parent, above.va_of(self.level(parent), index));
        if above.flags[index] & (SPARSE | COVERED) != 0 {
            node.flags.fill(COVERED);
        }
        let addr = node.addr;
        let id = self.add(node);
        let sibling = self.sibling_below(parent, index, level);
        if sibling != NONE {
            self.inherit(id, sibling);
        }
        self.write_empty(id);
        let (ways, way) = (self.layout.ways(self.nodes[parent].level as usize), self.layout.way(level));
        let above = &mut self.nodes[parent];
        above.children[index * ways + way] = id;
        above.uses += 1;
        if way == 1 {
            let high = self.nodes[parent].word_at(self.level(parent), index) + 8;
            self.vram.store(high, self.layout.pointer(level).to(addr));
            self.written.pointers += 1;
        }
        self.rewrite(parent, index);
    }

    /// The other table of a pair below entry `index`, of which one is of `level`.
    fn sibling_below(&self, parent: u32, index: usize, level: usize) -> u32 {
        match (self.layout.larger(), self.layout.smaller()) {
            (Some(larger), Some(smaller)) if level == smaller => self.child(parent, index, larger),
            (Some(larger), Some(smaller)) if level == larger => self.child(parent, index, smaller),
            _ => NONE,
        }
    }

    /// Set in a new table what its sibling says: larger entries consult, smaller ones are covered.
    fn inherit(&mut self, id: u32, sibling: u32) {
        let group = self.layout.group();
        let (new, old) = self.nodes.pair(id, sibling);
        if self.layout.larger() == Some(new.level as usize) {
            for (index, flags) in new.flags.iter_mut().enumerate() {
                if old.in_use(index * group, group) {
                    *flags |= CONSULT;
                }
            }
        } else {
            for (index, above) in old.flags.iter().enumerate().filter(|(_, flags)| **flags & SPARSE != 0) {
                debug_assert!(above & COVERED == 0);
                new.flags[index * group..][..group].fill(COVERED);
            }
        }
    }

    /// Give a table an id; there is room.
    fn add(&mut self, node: Node) -> u32 {
        if self.spare == NONE {
            return self.nodes.push(node);
        }
        let id = self.spare;
        self.spare = self.nodes[id].parent;
        self.spares -= 1;
        self.nodes[id] = node;
        id
    }
}

/// Not where others wait for a fence of this thread, even if nothing is missing this time.
pub(super) fn require_allowed() -> Result<(), Refusal> {
    if forbidden() { Err(Refusal::Memory(Refused::Forbidden)) } else { Ok(()) }
}

/// New tables, by level.
pub type Fresh = [Vec<Node>; LEVELS];
