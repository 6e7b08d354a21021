//! Dropping references, and the tables that are of no use then.

use super::*;

impl PageTable {
    /// Drop a reference of each slot in a range.
    pub fn put(&mut self, addr: u64, range: u64, shift: u32) -> Result<(), Refusal> {
        let piece = self.slots(addr, range, shift)?;
        self.require_referenced(&piece, true)?;
        self.for_each_part(&piece, |tables, part| {
            let node = &mut tables.nodes[part.id];
            node.refs[part.first..][..part.count].iter_mut().for_each(|refs| *refs -= 1);
            node.uses -= part.count as u64;
            tables.refresh_consult(part.id, part.first, part.count);
            tables.release(part.id);
        });
        Ok(())
    }

    /// Each slot must be referenced; if one reference is to be `dropped`, also without it where a page is mapped.
    pub(super) fn require_referenced(&self, piece: &Piece, dropped: bool) -> Result<(), Refusal> {
        let level = &self.layout.levels[piece.level];
        let (mut va, mut near) = (piece.start, NONE);
        while va < piece.end {
            let part = self.part(piece, va, &mut near).map_err(|_| Refusal::NotReferenced(va))?;
            let node = &self.nodes[part.id];
            let refs = &node.refs[part.first..][..part.count];
            let flags = &node.flags[part.first..][..part.count];
            let at = |index: usize| va + ((index as u64) << level.shift);
            // All of them first, without a branch for each.
            if refs.iter().fold(false, |any, refs| any | (*refs == 0)) {
                let index = refs.iter().position(|refs| *refs == 0).unwrap_or_default();
                return Err(Refusal::NotReferenced(at(index)));
            }
            let last = |(refs, flags): (&u16, &u8)| *refs == 1 && flags & PAGE != 0;
            if dropped && let Some(index) = refs.iter().zip(flags).position(last) {
                return Err(Refusal::Mapped(at(index)));
            }
            va = part.end;
        }
        Ok(())
    }

    /// Take a table away if it is of no use, and those above that are of none without it.
    pub(super) fn release(&mut self, mut id: u32) {
        while id != ROOT && self.nodes[id].uses == 0 {
            let node = &self.nodes[id];
            let (parent, level) = (node.parent, node.level as usize);
            let index = self.level(parent).index(node.va);
            let (ways, way) = (self.layout.ways(self.nodes[parent].level as usize), self.layout.way(level));
            let above = &mut self.nodes[parent];
            above.children[index * ways + way] = NONE;
            above.uses -= 1;
            self.rewrite(parent, index);
            if way == 1 {
                let at = self.nodes[parent].word_at(self.level(parent), index) + 8;
                self.vram.store(at, 0);
                self.written.pointers += 1;
            }
            self.nodes[id].parent = self.freed;
            self.freed = id;
            id = parent;
        }
    }

    /// Tables that nothing points to any more, one at a time: where each was, and its bytes.
    pub fn take_freed(&mut self) -> Option<(u64, u64)> {
        if self.freed == NONE {
            return None;
        }
        let id = self.freed;
        let freed = (self.nodes[id].addr, self.level(id).table_bytes);
        self.freed = self.nodes[id].parent;
        self.nodes[id] = Node { parent: self.spare, ..Node::FREE };
        self.spare = id;
        self.spares += 1;
        Some(freed)
    }
}
