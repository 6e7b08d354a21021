//! Reductions: numbers in memory that are changed in one step, which no other engine or processor gets between.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What becomes of a number and an operand, by the numbers of NVIDIA's semaphore methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Min,
    Max,
    Xor,
    And,
    Or,
    Add,
    /// One more; 0 if that is more than the operand.
    Inc,
    /// One less; the operand if it was 0, or is more than that.
    Dec,
    FloatAdd,
    FloatMin,
    FloatMax,
}

impl Operation {
    pub fn of_number(number: u32) -> Option<Self> {
        use Operation::*;
        let known = [Min, Max, Xor, And, Or, Add, Inc, Dec];
        match number {
            0xa => Some(FloatAdd),
            0xb => Some(FloatMin),
            0xc => Some(FloatMax),
            _ => known.get(number as usize).copied(),
        }
    }

    fn apply(self, value: u64, operand: u64, signed: bool, bits: u32) -> u64 {
        let shift = 64 - bits;
        let less = if signed {
            (value << shift).cast_signed() < (operand << shift).cast_signed()
        } else {
            value < operand
        };
        match self {
            Operation::Min => {
                if less {
                    value
                } else {
                    operand
                }
            }
            Operation::Max => {
                if less {
                    operand
                } else {
                    value
                }
            }
            Operation::Xor => value ^ operand,
            Operation::And => value & operand,
            Operation::Or => value | operand,
            Operation::Add => value.wrapping_add(operand),
            Operation::Inc => {
                if value >= operand {
                    0
                } else {
                    value + 1
                }
            }
            Operation::Dec => {
                if value == 0 || value > operand {
                    operand
                } else {
                    value - 1
                }
            }
            Operation::FloatAdd => float(value, operand, |value, operand| value + operand),
            Operation::FloatMin => float(value, operand, f32::min),
            Operation::FloatMax => float(value, operand, f32::max),
        }
    }
}

fn float(value: u64, operand: u64, apply: impl Fn(f32, f32) -> f32) -> u64 {
    u64::from(apply(f32::from_bits(value as u32), f32::from_bits(operand as u32)).to_bits())
}

/// Reduce the number of `size` bytes, 4 or 8, at `at`.
///
/// # Safety
/// So many bytes must be readable and writable at `at`, which is a multiple of as much.
pub unsafe fn reduce(at: *mut u8, size: usize, operation: Operation, operand: u64, signed: bool) {
    let order = Ordering::AcqRel;
    if size == 4 {
        // SAFETY: as the caller promises; everybody else accesses it in words, too.
        let word = unsafe { AtomicU32::from_ptr(at.cast()) };
        let apply = |value: u32| {
            let result =
                operation.apply(u64::from(u32::from_le(value)), u64::from(operand as u32), signed, 32);
            Some((result as u32).to_le())
        };
        let _ = word.fetch_update(order, Ordering::Acquire, apply);
    } else {
        // SAFETY: as above.
        let word = unsafe { AtomicU64::from_ptr(at.cast()) };
        let apply = |value| Some(operation.apply(u64::from_le(value), operand, signed, 64).to_le());
        let _ = word.fetch_update(order, Ordering::Acquire, apply);
    }
}
