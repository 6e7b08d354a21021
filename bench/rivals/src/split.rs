//! The split rules of the kernel's `sm_map` and `sm_unmap` without merging: the same for every rival.

use crate::record::{KIND_MAP, KIND_REMAP, KIND_UNMAP, Mapping, OP_MAP, Op, Request};

/// What is left of a mapping on both sides of a request.
pub struct Cut {
    pub prev: Option<Mapping>,
    pub next: Option<Mapping>,
}

/// Cut `old`, which overlaps `request`, and emit the operation for it.
#[inline]
pub fn cut(old: &Mapping, request: &Request, index: u32, out: &mut Vec<Op>) -> Cut {
    let (start, end) = (request.addr, request.end());
    let prev_range = start.saturating_sub(old.addr);
    let next_range = old.end().saturating_sub(end);
    // The backing is the same when object and "offset minus address" agree; that covers all rows of the table.
    let keep = request.op == OP_MAP
        && old.handle != 0
        && old.handle == request.handle
        && old.offset.wrapping_sub(old.addr) == request.offset.wrapping_sub(start);
    out.push(Op {
        kind: if prev_range | next_range == 0 { KIND_UNMAP } else { KIND_REMAP },
        keep: u8::from(keep),
        pad: 0,
        request: index,
        handle: old.handle,
        flags: old.flags,
        addr: old.addr,
        offset: old.offset,
        range: old.range,
        prev_range,
        next_range,
    });
    Cut {
        prev: (prev_range != 0).then_some(Mapping { range: prev_range, ..*old }),
        next: (next_range != 0).then_some(Mapping {
            addr: end,
            range: next_range,
            offset: old.offset.wrapping_add(end.wrapping_sub(old.addr)),
            ..*old
        }),
    }
}

/// Emit the MAP that ends every map request.
#[inline]
pub fn map(new: &Mapping, index: u32, out: &mut Vec<Op>) {
    out.push(Op {
        kind: KIND_MAP,
        keep: 0,
        pad: 0,
        request: index,
        handle: new.handle,
        flags: new.flags,
        addr: new.addr,
        offset: new.offset,
        range: new.range,
        prev_range: 0,
        next_range: 0,
    });
}
