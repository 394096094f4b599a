//! Loads, stores and atomic operations: what can fault.

use super::{Emitter, ZERO, home, offset};
use crate::{
    code::{
        cpu::{RESERVED, RESERVED_WORD},
        translate::STEP,
    },
    inst::{Inst, Op},
};
use dynasmrt::dynasm;

/// Returns how many bytes a load or store moves, as a power of two, and its operation: 0 stores, 1
/// loads and extends by zeros, 3 by the sign to 32 bits (C4.1.94 "Loads and Stores").
fn kind(op: Op) -> (u32, u32) {
    match op {
        Op::Lb => (0, 3),
        Op::Lh => (1, 3),
        Op::Lw => (2, 1),
        Op::Lbu => (0, 1),
        Op::Lhu => (1, 1),
        Op::Sb => (0, 0),
        Op::Sh => (1, 0),
        _ => (2, 0),
    }
}

impl Emitter {
    pub(in super::super) fn load(&mut self, inst: &Inst, pc: u32) {
        // What is not kept is loaded all the same, since it may fault.
        let to = match home(inst.rd) {
            None if inst.rd == 0 => ZERO,
            home => home.unwrap_or(0),
        };
        self.access(inst, pc, to);
        self.store(inst.rd, to);
    }

    pub(in super::super) fn store_to_memory(&mut self, inst: &Inst, pc: u32) {
        let from = self.source(inst.rs2, 1);
        self.access(inst, pc, from);
    }

    /// Moves `register` to or from where `inst` says. A sum that is no address of the guest's is
    /// none of the process's, or lies where nothing is: it faults.
    fn access(&mut self, inst: &Inst, pc: u32, register: u8) {
        let (size, operation) = kind(inst.op);
        let imm = inst.imm;
        let mut base = self.source(inst.rs1, 0);
        if base == ZERO {
            // As a base, this number is the stack pointer's.
            self.load_number(0, 0);
            base = 0;
        }
        let magnitude = imm.unsigned_abs();
        let scaled = magnitude >> size;
        let place = if imm >= 0 && scaled << size == magnitude {
            1 << 24 | scaled << 10
        } else if (-256..256).contains(&imm) {
            (imm.cast_unsigned() & 0x1ff) << 12
        } else {
            if imm > 0 {
                dynasm!(self.ops ; .arch aarch64 ; add x0, XSP(base), magnitude);
            } else {
                dynasm!(self.ops ; .arch aarch64 ; sub x0, XSP(base), magnitude);
            }
            base = 0;
            1 << 24
        };
        self.note(pc);
        let registers = u32::from(base) << 5 | u32::from(register);
        self.word(0x3800_0000 | size << 30 | operation << 22 | place | registers);
    }

    /// Emits an atomic operation. Each has the strongest order that the guest can ask for: the
    /// barrier behind it keeps later accesses from coming between its load and its store.
    pub(in super::super) fn atomic(&mut self, inst: &Inst, pc: u32) {
        self.copy(2, inst.rs1);
        let label = self.way_out(pc, STEP);
        dynasm!(self.ops
            ; .arch aarch64
            ; tst w2, 3
            ; b.ne =>label
        );
        match inst.op {
            Op::LrW => {
                self.note(pc);
                dynasm!(self.ops
                    ; .arch aarch64
                    ; ldar w0, [x2]
                    ; str w2, [sp, offset(RESERVED)]
                    ; str w0, [sp, offset(RESERVED_WORD)]
                );
            }
            Op::ScW => self.store_conditional(inst, pc),
            _ => self.update(inst, pc),
        }
        self.store(inst.rd, 0);
    }

    fn store_conditional(&mut self, inst: &Inst, pc: u32) {
        let b = self.source(inst.rs2, 1);
        self.note(pc);
        dynasm!(self.ops
            ; .arch aarch64
            ; ldr w3, [sp, offset(RESERVED)]
            ; cmp w3, w2
            ; b.ne >fail
            ; ldr w3, [sp, offset(RESERVED_WORD)]
            ; again:
            ; ldaxr w0, [x2]
            ; cmp w0, w3
            ; b.ne >clear
            ; stlxr w0, W(b), [x2]
            ; cbnz w0, <again
            ; dmb ish
            ; b >done
            ; clear:
            ; clrex
            ; fail:
            ; movz w0, 1
            ; done:
        );
        self.unreserve();
    }

    /// Changes a word, and leaves what it was in `w0`.
    fn update(&mut self, inst: &Inst, pc: u32) {
        let b = self.source(inst.rs2, 1);
        self.note(pc);
        dynasm!(self.ops
            ; .arch aarch64
            ; again:
            ; ldaxr w0, [x2]
        );
        match inst.op {
            Op::AmoAdd => dynasm!(self.ops ; .arch aarch64 ; add w3, w0, W(b)),
            Op::AmoXor => dynasm!(self.ops ; .arch aarch64 ; eor w3, w0, W(b)),
            Op::AmoAnd => dynasm!(self.ops ; .arch aarch64 ; and w3, w0, W(b)),
            Op::AmoOr => dynasm!(self.ops ; .arch aarch64 ; orr w3, w0, W(b)),
            Op::AmoSwap => dynasm!(self.ops ; .arch aarch64 ; mov w3, W(b)),
            _ => {
                dynasm!(self.ops ; .arch aarch64 ; cmp w0, W(b));
                match inst.op {
                    Op::AmoMin => dynasm!(self.ops ; .arch aarch64 ; csel w3, w0, W(b), lt),
                    Op::AmoMax => dynasm!(self.ops ; .arch aarch64 ; csel w3, w0, W(b), gt),
                    Op::AmoMinu => dynasm!(self.ops ; .arch aarch64 ; csel w3, w0, W(b), lo),
                    _ => dynasm!(self.ops ; .arch aarch64 ; csel w3, w0, W(b), hi),
                }
            }
        }
        dynasm!(self.ops
            ; .arch aarch64
            ; stlxr w4, w3, [x2]
            ; cbnz w4, <again
            ; dmb ish
        );
    }
}
