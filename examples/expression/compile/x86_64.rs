//! x86-64 code, with nothing beyond SSE2.
//!
//! ```text
//!   rbp + 8   return address          rax  left operand, result    xmm0  the same for floats
//!   rbp       caller's rbp            rcx  right operand           xmm1
//!   rbp - 8   caller's rbx            rbx  the variables
//!   rbp - 16  caller's r12            r12  where the result goes
//!   ...       pushed operands
//! ```
//!
//! Instruction references: Intel SDM volume 2. Calling convention: System V ABI, AMD64 supplement.

use dynasmrt::x64::{Rq, X64Relocation};
use dynasmrt::{DynasmApi, DynasmError, DynasmLabelApi, VecAssembler, dynasm};

use super::{
    Operand, STATUS_DIVISION_BY_ZERO, STATUS_OK, STATUS_OVERFLOW, Target, floor_address,
    fmod_address,
};
use crate::ast::{BinaryOperator, Type, UnaryOperator};

/// `ENDBR64`, which the assembler does not name: where indirect calls may land (SDM 1-17.3).
const ENDBR64: u32 = 0xfa1e_0ff3;

/// Code in the making.
pub struct X86_64 {
    ops: VecAssembler<X64Relocation>,
    /// How many eight-byte operands are on the stack.
    pushed: usize,
}

macro_rules! asm {
    ($target:ident ; $($code:tt)*) => {
        dynasm!($target.ops ; .arch x64 ; $($code)*)
    };
}

impl X86_64 {
    /// Starts with no code.
    pub fn new() -> Self {
        Self {
            ops: VecAssembler::new(0),
            pushed: 0,
        }
    }

    /// Calls `address` with the float arguments in place; the result is in xmm0.
    fn call(&mut self, address: u64) {
        // The prologue leaves rsp a multiple of 16, as it must be at a call.
        let padding = if self.pushed.is_multiple_of(2) { 0 } else { 8 };
        if padding != 0 {
            asm!(self ; sub rsp, padding);
        }
        asm!(self ; mov rax, QWORD address.cast_signed() ; call rax);
        if padding != 0 {
            asm!(self ; add rsp, padding);
        }
    }

    fn integer(&mut self, operator: BinaryOperator) {
        match operator {
            BinaryOperator::Add => asm!(self ; add rax, rcx ; jo ->overflow),
            BinaryOperator::Subtract => asm!(self ; sub rax, rcx ; jo ->overflow),
            BinaryOperator::Multiply => asm!(self ; imul rax, rcx ; jo ->overflow),
            // IDIV traps for a zero divisor, and for the smallest integer over -1 even if only
            // the remainder is wanted. Hence -1 takes another way.
            BinaryOperator::Divide => asm!(self
                ; test rcx, rcx
                ; jz ->division_by_zero
                ; cmp rcx, -1
                ; jne >divide
                ; neg rax
                ; jo ->overflow
                ; jmp >done
                ; divide:
                ; cqo
                ; idiv rcx
                ; done:
            ),
            BinaryOperator::Remainder => asm!(self
                ; test rcx, rcx
                ; jz ->division_by_zero
                ; xor edx, edx
                ; cmp rcx, -1
                ; je >done
                ; cqo
                ; idiv rcx
                ; done:
                ; mov rax, rdx
            ),
            BinaryOperator::Min => asm!(self ; cmp rax, rcx ; cmovg rax, rcx),
            BinaryOperator::Max => asm!(self ; cmp rax, rcx ; cmovl rax, rcx),
        }
    }

    fn float(&mut self, operator: BinaryOperator) {
        if matches!(operator, BinaryOperator::Divide | BinaryOperator::Remainder) {
            // Shifting the sign out leaves zero for 0.0 and -0.0 only.
            asm!(self ; mov rdx, rcx ; add rdx, rdx ; jz ->division_by_zero);
        }
        asm!(self ; movq xmm0, rax ; movq xmm1, rcx);
        match operator {
            BinaryOperator::Add => asm!(self ; addsd xmm0, xmm1),
            BinaryOperator::Subtract => asm!(self ; subsd xmm0, xmm1),
            BinaryOperator::Multiply => asm!(self ; mulsd xmm0, xmm1),
            BinaryOperator::Divide => asm!(self ; divsd xmm0, xmm1),
            BinaryOperator::Remainder => self.call(fmod_address()),
            // Both give the second operand unless the first is truly less (or greater), which is
            // what `min` and `max` are defined as.
            BinaryOperator::Min => asm!(self ; minsd xmm0, xmm1),
            BinaryOperator::Max => asm!(self ; maxsd xmm0, xmm1),
        }
        asm!(self ; movq rax, xmm0);
    }
}

impl Target for X86_64 {
    fn prologue(&mut self) {
        asm!(self
            ; .u32 ENDBR64
            ; push rbp
            ; mov rbp, rsp
            ; push rbx
            ; push r12
            ; mov rbx, rdi
            ; mov r12, rsi
        );
    }

    fn constant(&mut self, operand: Operand, bits: u64) {
        let register = register(operand);
        match i32::try_from(bits.cast_signed()) {
            Ok(small) => asm!(self ; mov Rq(register), small),
            Err(_) => asm!(self ; mov Rq(register), QWORD bits.cast_signed()),
        }
    }

    fn variable(&mut self, operand: Operand, index: usize) {
        // At most 32,760, because there are at most `MAX_VARIABLES`.
        let offset_bytes = (index * size_of::<u64>()) as i32;
        asm!(self ; mov Rq(register(operand)), [rbx + offset_bytes]);
    }

    fn push(&mut self) {
        self.pushed += 1;
        asm!(self ; push rax);
    }

    fn pop(&mut self) {
        self.pushed -= 1;
        asm!(self ; mov rcx, rax ; pop rax);
    }

    fn to_float(&mut self) {
        // CVTSI2SD keeps the upper half; clearing it first avoids waiting for its last writer.
        asm!(self ; pxor xmm0, xmm0 ; cvtsi2sd xmm0, rax ; movq rax, xmm0);
    }

    fn unary(&mut self, operator: UnaryOperator, kind: Type) {
        match (operator, kind) {
            (UnaryOperator::Negate, Type::Int) => asm!(self ; neg rax ; jo ->overflow),
            (UnaryOperator::Negate, Type::Float) => asm!(self ; btc rax, 63),
            (UnaryOperator::Abs, Type::Int) => asm!(self
                ; mov rcx, rax
                ; neg rcx
                ; jo ->overflow
                ; cmovns rax, rcx
            ),
            (UnaryOperator::Abs, Type::Float) => asm!(self ; btr rax, 63),
            (UnaryOperator::Sqrt, _) => {
                asm!(self ; movq xmm0, rax ; sqrtsd xmm0, xmm0 ; movq rax, xmm0);
            }
            (UnaryOperator::Floor, _) => {
                asm!(self ; movq xmm0, rax);
                self.call(floor_address());
                asm!(self ; movq rax, xmm0);
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
        // An error leaves from any depth of the stack, so rsp is restored from rbp.
        asm!(self
            ; mov [r12], rax
            ; mov eax, STATUS_OK.cast_signed()
            ; ->leave:
            ; lea rsp, [rbp - 16]
            ; pop r12
            ; pop rbx
            ; pop rbp
            ; ret
            ; ->division_by_zero:
            ; mov eax, STATUS_DIVISION_BY_ZERO.cast_signed()
            ; jmp ->leave
            ; ->overflow:
            ; mov eax, STATUS_OVERFLOW.cast_signed()
            ; jmp ->leave
        );
        self.ops.finalize()
    }
}

/// Returns the register that holds `operand`.
fn register(operand: Operand) -> Rq {
    match operand {
        Operand::Left => Rq::RAX,
        Operand::Right => Rq::RCX,
    }
}
