//! What a rival address space must do, and the parts of a bulk bind that do not depend on its container.

use crate::record::{Mapping, OP_MAP, OP_UNMAP, Op, REQUEST_BYTES, Request};

/// An ordered container of mappings that never overlap.
pub trait Space {
    /// Carry out a valid MAP request: cut what it overlaps, insert it, emit the operations in order.
    fn map(&mut self, request: &Request, index: u32, out: &mut Vec<Op>);

    /// Carry out a valid UNMAP request.
    fn unmap(&mut self, request: &Request, index: u32, out: &mut Vec<Op>);

    /// The mapping that begins at `addr` and is `range` long.
    fn find(&self, addr: u64, range: u64) -> Option<Mapping>;

    /// All mappings, ascending; the other end of the iterator walks down.
    fn walk(&self) -> impl DoubleEndedIterator<Item = Mapping>;
}

/// The borders of a space and the number of its objects (handles are 1..=objects; 0 is "no object").
#[derive(Clone, Copy)]
pub struct Limits {
    pub start: u64,
    pub end: u64,
    pub objects: u32,
}

impl Limits {
    /// Why a request is refused, or None. The same tests as the kernel's uAPI and core make.
    #[inline]
    fn refuse(&self, request: &Request) -> Option<&'static str> {
        if request.op != OP_MAP && request.op != OP_UNMAP {
            return Some("unknown op");
        }
        if request.has_unknown_flags() {
            return Some("unknown flags");
        }
        if request.handle > self.objects {
            return Some("unknown handle");
        }
        match request.addr.checked_add(request.range) {
            Some(end) if request.range != 0 && request.addr >= self.start && end <= self.end => None,
            _ => Some("bad range"),
        }
    }
}

/// Apply an array of requests whole or not at all: everything that can fail is tested first.
pub fn bind<S: Space>(
    space: &mut S,
    limits: &Limits,
    requests: &[[u8; REQUEST_BYTES]],
    out: &mut Vec<Op>,
) -> Result<usize, (usize, &'static str)> {
    out.clear();
    for (index, bytes) in requests.iter().enumerate() {
        if let Some(why) = limits.refuse(&Request::read(bytes)) {
            return Err((index, why));
        }
    }
    for (index, bytes) in requests.iter().enumerate() {
        one(space, &Request::read(bytes), index as u32, out);
    }
    Ok(out.len())
}

/// Apply a single request.
pub fn bind_one<S: Space>(
    space: &mut S,
    limits: &Limits,
    request: &Request,
    out: &mut Vec<Op>,
) -> Result<(), (usize, &'static str)> {
    out.clear();
    if let Some(why) = limits.refuse(request) {
        return Err((0, why));
    }
    one(space, request, 0, out);
    Ok(())
}

#[inline]
fn one<S: Space>(space: &mut S, request: &Request, index: u32, out: &mut Vec<Op>) {
    if request.op == OP_MAP {
        space.map(request, index, out);
    } else {
        space.unmap(request, index, out);
    }
}
