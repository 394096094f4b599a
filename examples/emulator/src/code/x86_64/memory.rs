//! Loads, stores and atomic operations: what can fault.

use super::{Emitter, RAX, RCX, RDX, home, slot};
use crate::{
    code::{
        cpu::{RESERVED, RESERVED_WORD},
        translate::STEP,
    },
    inst::{Inst, Op},
};
use dynasmrt::dynasm;

impl Emitter {
    pub(in super::super) fn load(&mut self, inst: &Inst, pc: u32) {
        let imm = inst.imm;
        let base = self.source(inst.rs1, RAX);
        let to = home(inst.rd).unwrap_or(RAX);
        self.note(pc);
        match inst.op {
            Op::Lb => dynasm!(self.ops ; .arch x64 ; movsx Rd(to), BYTE [Rq(base) + imm]),
            Op::Lh => dynasm!(self.ops ; .arch x64 ; movsx Rd(to), WORD [Rq(base) + imm]),
            Op::Lbu => dynasm!(self.ops ; .arch x64 ; movzx Rd(to), BYTE [Rq(base) + imm]),
            Op::Lhu => dynasm!(self.ops ; .arch x64 ; movzx Rd(to), WORD [Rq(base) + imm]),
            _ => dynasm!(self.ops ; .arch x64 ; mov Rd(to), [Rq(base) + imm]),
        }
        self.store(inst.rd, to);
    }

    pub(in super::super) fn store_to_memory(&mut self, inst: &Inst, pc: u32) {
        let imm = inst.imm;
        let base = self.source(inst.rs1, RAX);
        let from = self.source(inst.rs2, RCX);
        self.note(pc);
        match inst.op {
            Op::Sb => dynasm!(self.ops ; .arch x64 ; mov BYTE [Rq(base) + imm], Rb(from)),
            Op::Sh => dynasm!(self.ops ; .arch x64 ; mov WORD [Rq(base) + imm], Rw(from)),
            _ => dynasm!(self.ops ; .arch x64 ; mov [Rq(base) + imm], Rd(from)),
        }
    }

    pub(in super::super) fn atomic(&mut self, inst: &Inst, pc: u32) {
        self.copy(RDX, inst.rs1);
        let label = self.way_out(pc, STEP);
        dynasm!(self.ops
            ; .arch x64
            ; test edx, 3
            ; jnz =>label
        );
        match inst.op {
            Op::LrW => {
                self.note(pc);
                dynasm!(self.ops
                    ; .arch x64
                    ; mov eax, [rdx]
                    ; mov [rsp + RESERVED], edx
                    ; mov [rsp + RESERVED_WORD], eax
                );
            }
            Op::ScW => {
                self.copy(RCX, inst.rs2);
                self.note(pc);
                dynasm!(self.ops
                    ; .arch x64
                    ; cmp edx, [rsp + RESERVED]
                    ; jne >done
                    ; mov eax, [rsp + RESERVED_WORD]
                    ; lock cmpxchg [rdx], ecx
                    ; done:
                    ; setne al
                    ; movzx eax, al
                );
                self.unreserve();
            }
            Op::AmoSwap | Op::AmoAdd => {
                self.copy(RAX, inst.rs2);
                self.note(pc);
                if inst.op == Op::AmoSwap {
                    dynasm!(self.ops ; .arch x64 ; xchg [rdx], eax);
                } else {
                    dynasm!(self.ops ; .arch x64 ; lock xadd [rdx], eax);
                }
            }
            _ => {
                self.note(pc);
                dynasm!(self.ops
                    ; .arch x64
                    ; mov eax, [rdx]
                    ; again:
                    ; mov ecx, eax
                );
                self.change(inst);
                dynasm!(self.ops
                    ; .arch x64
                    ; lock cmpxchg [rdx], ecx
                    ; jne <again
                );
            }
        }
        self.store(inst.rd, RAX);
    }

    /// Makes of `ecx` what an atomic operation stores.
    fn change(&mut self, inst: &Inst) {
        match inst.op {
            Op::AmoXor => with_operand!(self, xor, RCX, inst.rs2),
            Op::AmoAnd => with_operand!(self, and, RCX, inst.rs2),
            Op::AmoOr => with_operand!(self, or, RCX, inst.rs2),
            _ => {
                with_operand!(self, cmp, RCX, inst.rs2);
                match inst.op {
                    Op::AmoMin => dynasm!(self.ops ; .arch x64 ; jle >keep),
                    Op::AmoMax => dynasm!(self.ops ; .arch x64 ; jge >keep),
                    Op::AmoMinu => dynasm!(self.ops ; .arch x64 ; jbe >keep),
                    _ => dynasm!(self.ops ; .arch x64 ; jae >keep),
                }
                with_operand!(self, mov, RCX, inst.rs2);
                dynasm!(self.ops ; .arch x64 ; keep:);
            }
        }
    }
}
