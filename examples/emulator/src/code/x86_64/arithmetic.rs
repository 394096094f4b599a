//! Arithmetic: what changes a register only.

use super::{Emitter, RAX, RCX, RDX, home, slot};
use crate::inst::{Inst, Op};
use dynasmrt::dynasm;

impl Emitter {
    /// Emits an instruction that computes `rd`.
    pub(in super::super) fn compute(&mut self, inst: &Inst) {
        let imm = inst.imm;
        if home(inst.rd).is_none() && inst.rd == inst.rs1 && self.in_memory(inst) {
            return;
        }
        let to = home(inst.rd).unwrap_or(RAX);
        match inst.op {
            Op::Addi => {
                let a = self.source(inst.rs1, RAX);
                if a == to {
                    dynasm!(self.ops ; .arch x64 ; add Rd(to), imm);
                } else if imm == 0 {
                    self.move_to(to, a);
                } else {
                    dynasm!(self.ops ; .arch x64 ; lea Rd(to), [Rq(a) + imm]);
                }
            }
            Op::Xori | Op::Ori | Op::Andi | Op::Slli | Op::Srli | Op::Srai => {
                self.copy(to, inst.rs1);
                let shift = imm.to_le_bytes()[0].cast_signed();
                match inst.op {
                    Op::Xori => dynasm!(self.ops ; .arch x64 ; xor Rd(to), imm),
                    Op::Ori => dynasm!(self.ops ; .arch x64 ; or Rd(to), imm),
                    Op::Andi => dynasm!(self.ops ; .arch x64 ; and Rd(to), imm),
                    Op::Slli => dynasm!(self.ops ; .arch x64 ; shl Rd(to), shift),
                    Op::Srli => dynasm!(self.ops ; .arch x64 ; shr Rd(to), shift),
                    _ => dynasm!(self.ops ; .arch x64 ; sar Rd(to), shift),
                }
            }
            Op::Slti | Op::Sltiu => {
                let a = self.source(inst.rs1, RAX);
                dynasm!(self.ops ; .arch x64 ; cmp Rd(a), imm);
                self.flag(inst.op == Op::Slti, to);
            }
            Op::Slt | Op::Sltu => {
                let a = self.source(inst.rs1, RAX);
                with_operand!(self, cmp, a, inst.rs2);
                self.flag(inst.op == Op::Slt, to);
            }
            Op::Add => self.sum(inst, to),
            Op::Sub => self.difference(inst, to),
            Op::Xor | Op::Or | Op::And | Op::Mul => self.commutative(inst, to),
            Op::Sll | Op::Srl | Op::Sra => {
                self.copy(RCX, inst.rs2);
                self.copy(to, inst.rs1);
                match inst.op {
                    Op::Sll => dynasm!(self.ops ; .arch x64 ; shl Rd(to), cl),
                    Op::Srl => dynasm!(self.ops ; .arch x64 ; shr Rd(to), cl),
                    _ => dynasm!(self.ops ; .arch x64 ; sar Rd(to), cl),
                }
            }
            Op::Mulh | Op::Mulhsu | Op::Mulhu => {
                self.copy(RAX, inst.rs1);
                self.copy(RCX, inst.rs2);
                if inst.op != Op::Mulhu {
                    dynasm!(self.ops ; .arch x64 ; movsxd rax, eax);
                }
                if inst.op == Op::Mulh {
                    dynasm!(self.ops ; .arch x64 ; movsxd rcx, ecx);
                }
                dynasm!(self.ops
                    ; .arch x64
                    ; imul rax, rcx
                    ; shr rax, 32
                );
                self.move_to(to, RAX);
            }
            _ => {
                self.division(inst);
                let result = if matches!(inst.op, Op::Div | Op::Divu) {
                    RAX
                } else {
                    RDX
                };
                self.store(inst.rd, result);
                return;
            }
        }
        self.store(inst.rd, to);
    }

    /// Changes a register that has no home where it is; says whether the operation can.
    fn in_memory(&mut self, inst: &Inst) -> bool {
        let (at, imm) = (slot(inst.rd), inst.imm);
        let shift = imm.to_le_bytes()[0].cast_signed();
        match inst.op {
            Op::Addi => dynasm!(self.ops ; .arch x64 ; add DWORD [rsp + at], imm),
            Op::Xori => dynasm!(self.ops ; .arch x64 ; xor DWORD [rsp + at], imm),
            Op::Ori => dynasm!(self.ops ; .arch x64 ; or DWORD [rsp + at], imm),
            Op::Andi => dynasm!(self.ops ; .arch x64 ; and DWORD [rsp + at], imm),
            Op::Slli => dynasm!(self.ops ; .arch x64 ; shl DWORD [rsp + at], shift),
            Op::Srli => dynasm!(self.ops ; .arch x64 ; shr DWORD [rsp + at], shift),
            Op::Srai => dynasm!(self.ops ; .arch x64 ; sar DWORD [rsp + at], shift),
            Op::Add | Op::Sub | Op::Xor | Op::Or | Op::And => {
                let b = self.source(inst.rs2, RAX);
                match inst.op {
                    Op::Add => dynasm!(self.ops ; .arch x64 ; add [rsp + at], Rd(b)),
                    Op::Sub => dynasm!(self.ops ; .arch x64 ; sub [rsp + at], Rd(b)),
                    Op::Xor => dynasm!(self.ops ; .arch x64 ; xor [rsp + at], Rd(b)),
                    Op::Or => dynasm!(self.ops ; .arch x64 ; or [rsp + at], Rd(b)),
                    _ => dynasm!(self.ops ; .arch x64 ; and [rsp + at], Rd(b)),
                }
            }
            _ => return false,
        }
        true
    }

    /// Makes a number of the flag "less".
    fn flag(&mut self, signed: bool, to: u8) {
        if signed {
            dynasm!(self.ops ; .arch x64 ; setl al);
        } else {
            dynasm!(self.ops ; .arch x64 ; setb al);
        }
        dynasm!(self.ops ; .arch x64 ; movzx Rd(to), al);
    }

    fn sum(&mut self, inst: &Inst, to: u8) {
        let a = self.source(inst.rs1, RAX);
        if a == to {
            with_operand!(self, add, to, inst.rs2);
        } else {
            let b = self.source(inst.rs2, RCX);
            if b == to {
                dynasm!(self.ops ; .arch x64 ; add Rd(to), Rd(a));
            } else {
                dynasm!(self.ops ; .arch x64 ; lea Rd(to), [Rq(a) + Rq(b)]);
            }
        }
    }

    fn difference(&mut self, inst: &Inst, to: u8) {
        if home(inst.rs2) == Some(to) && inst.rs1 != inst.rs2 {
            dynasm!(self.ops ; .arch x64 ; neg Rd(to));
            with_operand!(self, add, to, inst.rs1);
        } else {
            self.copy(to, inst.rs1);
            with_operand!(self, sub, to, inst.rs2);
        }
    }

    fn commutative(&mut self, inst: &Inst, to: u8) {
        // Where the destination is the second operand, the two change places.
        let (a, b) = if home(inst.rs2) == Some(to) {
            (inst.rs2, inst.rs1)
        } else {
            (inst.rs1, inst.rs2)
        };
        self.copy(to, a);
        match inst.op {
            Op::Xor => with_operand!(self, xor, to, b),
            Op::Or => with_operand!(self, or, to, b),
            Op::And => with_operand!(self, and, to, b),
            _ => {
                let b = self.source(b, RCX);
                dynasm!(self.ops ; .arch x64 ; imul Rd(to), Rd(b));
            }
        }
    }

    /// Divides into `eax`, with the remainder in `edx`; the host faults where the guest has
    /// results.
    fn division(&mut self, inst: &Inst) {
        self.copy(RAX, inst.rs1);
        self.copy(RCX, inst.rs2);
        if matches!(inst.op, Op::Div | Op::Rem) {
            dynasm!(self.ops
                ; .arch x64
                ; test ecx, ecx
                ; jz >by_zero
                ; cmp ecx, -1
                ; je >by_minus_one
                ; cdq
                ; idiv ecx
                ; jmp >done
                ; by_minus_one:
                ; neg eax
                ; xor edx, edx
                ; jmp >done
            );
        } else {
            dynasm!(self.ops
                ; .arch x64
                ; test ecx, ecx
                ; jz >by_zero
                ; xor edx, edx
                ; div ecx
                ; jmp >done
            );
        }
        dynasm!(self.ops
            ; .arch x64
            ; by_zero:
            ; mov edx, eax
            ; mov eax, -1
            ; done:
        );
    }
}
