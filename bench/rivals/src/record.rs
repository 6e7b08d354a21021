//! The records that go in and come out: the layouts of `gpuvm.VM_BIND_OP`, `BIND_OP` and `MAPPING`.

/// Bytes of one request in a bulk array.
pub const REQUEST_BYTES: usize = 40;

/// The low bits of a request's flags: the PTE kind, kept in the mapping's flags above the two fixed ones.
const KIND_MASK: u32 = 0xff;
const KIND_SHIFT: u32 = 2;

pub const OP_MAP: u32 = 0;
pub const OP_UNMAP: u32 = 1;

pub const KIND_MAP: u8 = 0;
pub const KIND_REMAP: u8 = 1;
pub const KIND_UNMAP: u8 = 2;

/// One request; `end` is computed once, when the request has been found valid.
#[derive(Clone, Copy)]
pub struct Request {
    pub op: u32,
    pub raw_flags: u32,
    pub handle: u32,
    pub addr: u64,
    pub offset: u64,
    pub range: u64,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

impl Request {
    /// Read one 40-byte record.
    pub fn read(bytes: &[u8; REQUEST_BYTES]) -> Self {
        Request {
            op: u32_at(bytes, 0),
            raw_flags: u32_at(bytes, 4),
            handle: u32_at(bytes, 8),
            addr: u64_at(bytes, 16),
            offset: u64_at(bytes, 24),
            range: u64_at(bytes, 32),
        }
    }

    pub fn end(&self) -> u64 {
        self.addr + self.range
    }

    /// The mapping that a MAP request asks for.
    pub fn mapping(&self) -> Mapping {
        Mapping {
            addr: self.addr,
            range: self.range,
            offset: self.offset,
            handle: self.handle,
            flags: (self.raw_flags & KIND_MASK) << KIND_SHIFT,
        }
    }

    /// Whether the flags hold anything that the rivals do not do (sparse regions).
    pub fn has_unknown_flags(&self) -> bool {
        self.raw_flags & !KIND_MASK != 0
    }
}

/// One mapping, laid out as `gpuvm.MAPPING`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Mapping {
    pub addr: u64,
    pub range: u64,
    pub offset: u64,
    pub handle: u32,
    pub flags: u32,
}

impl Mapping {
    pub fn end(&self) -> u64 {
        self.addr + self.range
    }
}

/// One emitted operation, laid out as `gpuvm.BIND_OP`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Op {
    pub kind: u8,
    pub keep: u8,
    pub pad: u16,
    pub request: u32,
    pub handle: u32,
    pub flags: u32,
    pub addr: u64,
    pub offset: u64,
    pub range: u64,
    pub prev_range: u64,
    pub next_range: u64,
}

const _: () = assert!(size_of::<Op>() == 56 && size_of::<Mapping>() == 32);
