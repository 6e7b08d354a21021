//! Rival 1: an address space on the standard library's `BTreeMap`.
//!
//! Written to be as fast as its interface allows: one descent for a request that replaces a mapping exactly
//! or unmaps nothing, remainders shrunk in place, several mappings taken out in one walk. It keeps no
//! per-object lists and no stable identity of a mapping, so it does less than gpuvm does.

use std::collections::BTreeMap;

use crate::record::{Mapping, OP_MAP, Op, Request};
use crate::space::Space;
use crate::split;

/// A mapping without its address, which is the key.
#[derive(Clone, Copy)]
struct Value {
    range: u64,
    offset: u64,
    handle: u32,
    flags: u32,
}

fn value(m: &Mapping) -> Value {
    Value { range: m.range, offset: m.offset, handle: m.handle, flags: m.flags }
}

fn mapping(addr: u64, v: &Value) -> Mapping {
    Mapping { addr, range: v.range, offset: v.offset, handle: v.handle, flags: v.flags }
}

/// What a request still has to do after it has met the last mapping that begins before its end.
enum Left {
    /// Nothing: the new mapping has taken the place of the old one.
    Done,
    /// Insert the new mapping, if it is a map.
    Insert,
    /// An unmap has to remove the mapping that begins at the request's address, too.
    Remove,
    /// More than one mapping may be in the way.
    Several,
}

#[derive(Default)]
pub struct BTree {
    tree: BTreeMap<u64, Value>,
}

impl BTree {
    /// The number of objects does not matter here: there are no lists of their mappings.
    pub fn new(_objects: u32) -> Self {
        BTree::default()
    }

    #[inline]
    fn apply(&mut self, request: &Request, index: u32, out: &mut Vec<Op>) {
        let (start, end) = (request.addr, request.end());
        let mut next = None;
        let left = match self.tree.range_mut(..end).next_back() {
            Some((&addr, v)) if addr + v.range > start => {
                if addr > start {
                    Left::Several
                } else {
                    let cut = split::cut(&mapping(addr, v), request, index, out);
                    next = cut.next;
                    if let Some(prev) = cut.prev {
                        v.range = prev.range;
                        Left::Insert
                    } else if request.op == OP_MAP {
                        *v = value(&request.mapping());
                        Left::Done
                    } else {
                        Left::Remove
                    }
                }
            }
            _ => Left::Insert,
        };
        match left {
            Left::Done => {}
            Left::Insert => self.insert_if_map(request),
            Left::Remove => {
                self.tree.remove(&start);
            }
            Left::Several => {
                next = self.clear_several(request, index, out);
                self.insert_if_map(request);
            }
        }
        if let Some(next) = next {
            self.tree.insert(next.addr, value(&next));
        }
    }

    fn insert_if_map(&mut self, request: &Request) {
        if request.op == OP_MAP {
            self.tree.insert(request.addr, value(&request.mapping()));
        }
    }

    /// Cut everything a request overlaps, ascending, as the operations must be; what sticks out behind it.
    fn clear_several(&mut self, request: &Request, index: u32, out: &mut Vec<Op>) -> Option<Mapping> {
        let (start, end) = (request.addr, request.end());
        if let Some((&addr, v)) = self.tree.range_mut(..start).next_back()
            && addr + v.range > start
        {
            split::cut(&mapping(addr, v), request, index, out);
            v.range = start - addr;
        }
        let mut next = None;
        for (addr, v) in self.tree.extract_if(start..end, |_, _| true) {
            next = split::cut(&mapping(addr, &v), request, index, out).next;
        }
        next
    }
}

impl Space for BTree {
    #[inline]
    fn map(&mut self, request: &Request, index: u32, out: &mut Vec<Op>) {
        self.apply(request, index, out);
        split::map(&request.mapping(), index, out);
    }

    #[inline]
    fn unmap(&mut self, request: &Request, index: u32, out: &mut Vec<Op>) {
        self.apply(request, index, out);
    }

    #[inline]
    fn find(&self, addr: u64, range: u64) -> Option<Mapping> {
        self.tree.get(&addr).filter(|v| v.range == range).map(|v| mapping(addr, v))
    }

    fn walk(&self) -> impl DoubleEndedIterator<Item = Mapping> {
        self.tree.iter().map(|(&addr, v)| mapping(addr, v))
    }
}
