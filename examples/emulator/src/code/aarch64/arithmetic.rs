//! Arithmetic: what changes a register only.

use super::{Emitter, home};
use crate::inst::{Inst, Op};
use dynasmrt::{aarch64::encode_logical_immediate_32bit, dynasm};

impl Emitter {
    /// Emits an instruction that computes `rd`.
    pub(in super::super) fn compute(&mut self, inst: &Inst) {
        let to = home(inst.rd).unwrap_or(0);
        let imm = inst.imm;
        let a = self.source(inst.rs1, 0);
        match inst.op {
            Op::Addi => self.add_imm(to, a, imm),
            Op::Xori | Op::Ori | Op::Andi => self.logical_imm(inst, to, a),
            Op::Slli | Op::Srli | Op::Srai if imm == 0 => self.move_to(to, a),
            Op::Slli => dynasm!(self.ops ; .arch aarch64 ; lsl W(to), W(a), imm.cast_unsigned()),
            Op::Srli => dynasm!(self.ops ; .arch aarch64 ; lsr W(to), W(a), imm.cast_unsigned()),
            Op::Srai => dynasm!(self.ops ; .arch aarch64 ; asr W(to), W(a), imm.cast_unsigned()),
            Op::Slti | Op::Sltiu => {
                self.compare_imm(a, imm);
                self.flag(inst.op == Op::Slti, to);
            }
            _ => self.compute_of_two(inst, to, a),
        }
        self.store(inst.rd, to);
    }

    fn compute_of_two(&mut self, inst: &Inst, to: u8, a: u8) {
        let b = self.source(inst.rs2, 1);
        match inst.op {
            Op::Add => dynasm!(self.ops ; .arch aarch64 ; add W(to), W(a), W(b)),
            Op::Sub => dynasm!(self.ops ; .arch aarch64 ; sub W(to), W(a), W(b)),
            Op::Xor => dynasm!(self.ops ; .arch aarch64 ; eor W(to), W(a), W(b)),
            Op::Or => dynasm!(self.ops ; .arch aarch64 ; orr W(to), W(a), W(b)),
            Op::And => dynasm!(self.ops ; .arch aarch64 ; and W(to), W(a), W(b)),
            Op::Sll => dynasm!(self.ops ; .arch aarch64 ; lsl W(to), W(a), W(b)),
            Op::Srl => dynasm!(self.ops ; .arch aarch64 ; lsr W(to), W(a), W(b)),
            Op::Sra => dynasm!(self.ops ; .arch aarch64 ; asr W(to), W(a), W(b)),
            Op::Slt | Op::Sltu => {
                dynasm!(self.ops ; .arch aarch64 ; cmp W(a), W(b));
                self.flag(inst.op == Op::Slt, to);
            }
            Op::Mul => dynasm!(self.ops ; .arch aarch64 ; mul W(to), W(a), W(b)),
            Op::Mulh => dynasm!(self.ops
                ; .arch aarch64
                ; smull x0, W(a), W(b)
                ; lsr X(to), x0, 32
            ),
            Op::Mulhu => dynasm!(self.ops
                ; .arch aarch64
                ; umull x0, W(a), W(b)
                ; lsr X(to), x0, 32
            ),
            Op::Mulhsu => dynasm!(self.ops
                ; .arch aarch64
                ; sxtw x0, W(a)
                ; mul x0, x0, X(b)
                ; lsr X(to), x0, 32
            ),
            // A quotient by zero is zero here, and all ones there; all else is alike.
            Op::Div => dynasm!(self.ops
                ; .arch aarch64
                ; sdiv w0, W(a), W(b)
                ; cmp W(b), wzr
                ; csinv W(to), w0, wzr, ne
            ),
            Op::Divu => dynasm!(self.ops
                ; .arch aarch64
                ; udiv w0, W(a), W(b)
                ; cmp W(b), wzr
                ; csinv W(to), w0, wzr, ne
            ),
            Op::Rem => dynasm!(self.ops
                ; .arch aarch64
                ; sdiv w2, W(a), W(b)
                ; msub W(to), w2, W(b), W(a)
            ),
            _ => dynasm!(self.ops
                ; .arch aarch64
                ; udiv w2, W(a), W(b)
                ; msub W(to), w2, W(b), W(a)
            ),
        }
    }

    /// Adds an immediate of twelve bits with their sign, modulo 2^32. What is added to is not `x0`,
    /// whose value is known.
    pub(super) fn add_imm(&mut self, to: u8, a: u8, imm: i32) {
        let magnitude = imm.unsigned_abs();
        if imm == 0 {
            self.move_to(to, a);
        } else if imm > 0 {
            dynasm!(self.ops ; .arch aarch64 ; add WSP(to), WSP(a), magnitude);
        } else {
            dynasm!(self.ops ; .arch aarch64 ; sub WSP(to), WSP(a), magnitude);
        }
    }

    fn compare_imm(&mut self, a: u8, imm: i32) {
        let magnitude = imm.unsigned_abs();
        if imm == 0 {
            dynasm!(self.ops ; .arch aarch64 ; cmp W(a), wzr);
        } else if imm > 0 {
            dynasm!(self.ops ; .arch aarch64 ; cmp WSP(a), magnitude);
        } else {
            dynasm!(self.ops ; .arch aarch64 ; cmn WSP(a), magnitude);
        }
    }

    /// Not every number is an immediate of a logical instruction.
    fn logical_imm(&mut self, inst: &Inst, to: u8, a: u8) {
        let imm = inst.imm.cast_unsigned();
        if encode_logical_immediate_32bit(imm).is_some() {
            match inst.op {
                Op::Xori => dynasm!(self.ops ; .arch aarch64 ; eor WSP(to), W(a), imm),
                Op::Ori => dynasm!(self.ops ; .arch aarch64 ; orr WSP(to), W(a), imm),
                _ => dynasm!(self.ops ; .arch aarch64 ; and WSP(to), W(a), imm),
            }
        } else {
            self.load_number(1, imm);
            match inst.op {
                Op::Xori => dynasm!(self.ops ; .arch aarch64 ; eor W(to), W(a), w1),
                Op::Ori => dynasm!(self.ops ; .arch aarch64 ; orr W(to), W(a), w1),
                _ => dynasm!(self.ops ; .arch aarch64 ; and W(to), W(a), w1),
            }
        }
    }

    /// Makes a number of the flags' "less".
    fn flag(&mut self, signed: bool, to: u8) {
        if signed {
            dynasm!(self.ops ; .arch aarch64 ; cset W(to), lt);
        } else {
            dynasm!(self.ops ; .arch aarch64 ; cset W(to), lo);
        }
    }
}
