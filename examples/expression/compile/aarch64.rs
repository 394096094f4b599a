//! AArch64 code, with nothing beyond Armv8.0.
//!
//! ```text
//!   x29 + 24  caller's x20            x0   left operand, result    d0  the same for floats
//!   x29 + 16  caller's x19            x1   right operand           d1
//!   x29 + 8   return address          x19  the variables
//!   x29       caller's x29            x20  where the result goes
//!   ...       pushed operands, 16 bytes each: sp must stay a multiple of 16 whenever it is used
//! ```
//!
//! Instruction references: Arm ARM (DDI 0487), chapters C6 and C7. Calling convention: AAPCS64.

use dynasmrt::aarch64::{Aarch64Relocation, RX};
use dynasmrt::{DynasmApi, DynasmError, DynasmLabelApi, VecAssembler, dynasm};

use super::{Operand, STATUS_DIVISION_BY_ZERO, STATUS_OK, STATUS_OVERFLOW, Target, fmod_address};
use crate::ast::{BinaryOperator, Type, UnaryOperator};

/// `BTI c` as a hint number: where indirect calls may land; a no-operation on older CPUs.
const BTI_C: u32 = 34;

/// Every bit of a float but the sign.
const MAGNITUDE: u64 = u64::MAX >> 1;

/// The sign of a float.
const SIGN: u64 = 1 << 63;

/// Code in the making.
pub struct Aarch64 {
    ops: VecAssembler<Aarch64Relocation>,
}

macro_rules! asm {
    ($target:ident ; $($code:tt)*) => {
        dynasm!($target.ops ; .arch aarch64 ; $($code)*)
    };
}

impl Aarch64 {
    /// Starts with no code.
    pub fn new() -> Self {
        Self {
            ops: VecAssembler::new(0),
        }
    }

    /// Loads `bits` into `register`.
    fn load_immediate(&mut self, register: RX, bits: u64) {
        let part = |index: u32| ((bits >> (16 * index)) & 0xffff) as u32;
        asm!(self ; movz X(register), part(0));
        for index in (1..4).filter(|index| part(*index) != 0) {
            asm!(self ; movk X(register), part(index), lsl 16 * index);
        }
    }

    fn integer(&mut self, operator: BinaryOperator) {
        match operator {
            BinaryOperator::Add => asm!(self ; adds x0, x0, x1 ; b.vs ->overflow),
            BinaryOperator::Subtract => asm!(self ; subs x0, x0, x1 ; b.vs ->overflow),
            // The product fits if its upper half is nothing but copies of its sign.
            BinaryOperator::Multiply => asm!(self
                ; smulh x2, x0, x1
                ; mul x0, x0, x1
                ; cmp x2, x0, asr 63
                ; b.ne ->overflow
            ),
            // SDIV never traps: it gives 0 for a zero divisor, and the smallest integer for the
            // smallest over -1. NEGS finds that case: it is a division for -1, and only then does
            // overflow matter.
            BinaryOperator::Divide => asm!(self
                ; cbz x1, ->division_by_zero
                ; cmn x1, 1
                ; b.ne >divide
                ; negs x0, x0
                ; b.vs ->overflow
                ; b >done
                ; divide:
                ; sdiv x0, x0, x1
                ; done:
            ),
            // Right for the smallest integer and -1 too: the multiplication wraps.
            BinaryOperator::Remainder => asm!(self
                ; cbz x1, ->division_by_zero
                ; sdiv x2, x0, x1
                ; msub x0, x2, x1, x0
            ),
            BinaryOperator::Min => asm!(self ; cmp x0, x1 ; csel x0, x0, x1, lt),
            BinaryOperator::Max => asm!(self ; cmp x0, x1 ; csel x0, x0, x1, gt),
        }
    }

    fn float(&mut self, operator: BinaryOperator) {
        if matches!(operator, BinaryOperator::Divide | BinaryOperator::Remainder) {
            // Shifting the sign out leaves zero for 0.0 and -0.0 only.
            asm!(self ; lsl x2, x1, 1 ; cbz x2, ->division_by_zero);
        }
        asm!(self ; fmov d0, x0 ; fmov d1, x1);
        match operator {
            BinaryOperator::Add => asm!(self ; fadd d0, d0, d1),
            BinaryOperator::Subtract => asm!(self ; fsub d0, d0, d1),
            BinaryOperator::Multiply => asm!(self ; fmul d0, d0, d1),
            BinaryOperator::Divide => asm!(self ; fdiv d0, d0, d1),
            BinaryOperator::Remainder => {
                self.load_immediate(RX::X16, fmod_address());
                asm!(self ; blr x16);
            }
            // FMIN and FMAX would give NaN for a NaN on either side. After a comparison with NaN,
            // MI and GT are both false (LT would be true).
            BinaryOperator::Min => asm!(self ; fcmp d0, d1 ; fcsel d0, d0, d1, mi),
            BinaryOperator::Max => asm!(self ; fcmp d0, d1 ; fcsel d0, d0, d1, gt),
        }
        asm!(self ; fmov x0, d0);
    }
}

impl Target for Aarch64 {
    fn prologue(&mut self) {
        asm!(self
            ; hint BTI_C
            ; stp x29, x30, [sp, -32]!
            ; mov x29, sp
            ; stp x19, x20, [sp, 16]
            ; mov x19, x0
            ; mov x20, x1
        );
    }

    fn constant(&mut self, operand: Operand, bits: u64) {
        self.load_immediate(register(operand), bits);
    }

    fn variable(&mut self, operand: Operand, index: usize) {
        // At most 32,760, the greatest offset of LDR, because of `MAX_VARIABLES`.
        let offset_bytes = (index * size_of::<u64>()) as u32;
        asm!(self ; ldr X(register(operand)), [x19, offset_bytes]);
    }

    fn push(&mut self) {
        asm!(self ; str x0, [sp, -16]!);
    }

    fn pop(&mut self) {
        asm!(self ; mov x1, x0 ; ldr x0, [sp], 16);
    }

    fn to_float(&mut self) {
        asm!(self ; scvtf d0, x0 ; fmov x0, d0);
    }

    fn unary(&mut self, operator: UnaryOperator, kind: Type) {
        match (operator, kind) {
            (UnaryOperator::Negate, Type::Int) => asm!(self ; negs x0, x0 ; b.vs ->overflow),
            (UnaryOperator::Negate, Type::Float) => asm!(self ; eor x0, x0, SIGN),
            (UnaryOperator::Abs, Type::Int) => asm!(self
                ; negs x1, x0
                ; b.vs ->overflow
                ; csel x0, x1, x0, pl
            ),
            (UnaryOperator::Abs, Type::Float) => asm!(self ; and x0, x0, MAGNITUDE),
            (UnaryOperator::Sqrt, _) => {
                asm!(self ; fmov d0, x0 ; fsqrt d0, d0 ; fmov x0, d0);
            }
            (UnaryOperator::Floor, _) => {
                asm!(self ; fmov d0, x0 ; frintm d0, d0 ; fmov x0, d0);
            }
        }
    }

    fn binary(&mut self, operator: BinaryOperator, kind: Type) {
        match kind {
            Type::Int => self.integer(operator),
            Type::Float => self.float(operator),
        }
    }

    fn finish(mut self) -> Result<Vec<u8>, DynasmError> {
        // An error leaves from any depth of the stack, so sp is restored from x29.
        asm!(self
            ; str x0, [x20]
            ; movz w0, STATUS_OK
            ; ->leave:
            ; mov sp, x29
            ; ldp x19, x20, [sp, 16]
            ; ldp x29, x30, [sp], 32
            ; ret
            ; ->division_by_zero:
            ; movz w0, STATUS_DIVISION_BY_ZERO
            ; b ->leave
            ; ->overflow:
            ; movz w0, STATUS_OVERFLOW
            ; b ->leave
        );
        self.ops.finalize()
    }
}

/// Returns the register that holds `operand`.
fn register(operand: Operand) -> RX {
    match operand {
        Operand::Left => RX::X0,
        Operand::Right => RX::X1,
    }
}
