//! Guest instructions to AArch64, with nothing beyond Armv8.0.
//!
//! Twenty-five guest registers live in registers of the host, in all blocks alike, so that a jump
//! from one block to another moves nothing; the others are in memory, behind the stack pointer.
//! Registers hold numbers extended by zeros to 64 bits, so that they are addresses as they are.
//! `x0` to `x4` are free within an instruction, and `x18` is left to the platform.
//!
//! References: Arm ARM (DDI 0487), chapters C4 (encodings) and C6 (instructions).

#![expect(
    clippy::useless_conversion,
    unused_qualifications,
    reason = "what dynasm! expands to converts numbers of registers, and names functions in full"
)]

mod arithmetic;
mod memory;

use super::{
    cpu::{HOST_STACK, INTERRUPT, PC, PLACE_CODE, PLACES, RESERVED, TABLE},
    translate::{Emitter, Gates, HEADER, INDIRECT, homes},
};
use crate::{
    inst::{Inst, Op},
    interpret::UNRESERVED,
};
pub(super) use dynasmrt::Assembler as Ops;
use dynasmrt::{DynamicLabel, dynasm};

/// Bytes of the window that all code lies in: any block reaches any other by a branch.
pub(super) const WINDOW: usize = 128 << 20;

/// The register that reads zero; in other places, the stack pointer.
const ZERO: u8 = 31;

/// All guest registers but `gp` and `tp`, which hardly change, and the last of those that calls do
/// not keep.
const PINNED: [(u8, u8); 25] = [
    (1, 5),
    (2, 6),
    (5, 7),
    (6, 8),
    (7, 9),
    (8, 10),
    (9, 11),
    (10, 12),
    (11, 13),
    (12, 14),
    (13, 15),
    (14, 16),
    (15, 17),
    (16, 19),
    (17, 20),
    (18, 21),
    (19, 22),
    (20, 23),
    (21, 24),
    (22, 25),
    (23, 26),
    (24, 27),
    (25, 28),
    (26, 29),
    (27, 30),
];

/// The host's register of each guest register that has one.
const HOME: [Option<u8>; 32] = homes(&PINNED);

fn home(register: u8) -> Option<u8> {
    HOME[usize::from(register & 31)]
}

/// Where a guest register is behind the stack pointer.
fn slot(register: u8) -> u32 {
    u32::from(register) * 4
}

/// Returns an offset behind the stack pointer as instructions have it.
const fn offset(field: i32) -> u32 {
    field.cast_unsigned()
}

/// Makes the gates: `enter(registers, code)` returns what `leave` was told.
pub(super) fn gates() -> Gates {
    let mut ops = Ops::new();
    dynasm!(ops
        ; .arch aarch64
        ; stp x29, x30, [sp, -96]!
        ; stp x19, x20, [sp, 16]
        ; stp x21, x22, [sp, 32]
        ; stp x23, x24, [sp, 48]
        ; stp x25, x26, [sp, 64]
        ; stp x27, x28, [sp, 80]
        ; mov x2, sp
        ; str x2, [x0, offset(HOST_STACK)]
        ; mov sp, x0
    );
    for (guest, host) in PINNED {
        dynasm!(ops ; .arch aarch64 ; ldr W(host), [sp, slot(guest)]);
    }
    // What was linked or unlinked before this thread came here holds from here on: without the
    // barrier it might run branches that it fetched before ("Concurrent modification and execution
    // of instructions").
    dynasm!(ops
        ; .arch aarch64
        ; isb
        ; br x1
    );
    let leave = ops.offset();
    for (guest, host) in PINNED {
        dynasm!(ops ; .arch aarch64 ; str W(host), [sp, slot(guest)]);
    }
    dynasm!(ops
        ; .arch aarch64
        ; ldr x2, [sp, offset(HOST_STACK)]
        ; mov sp, x2
        ; ldp x19, x20, [sp, 16]
        ; ldp x21, x22, [sp, 32]
        ; ldp x23, x24, [sp, 48]
        ; ldp x25, x26, [sp, 64]
        ; ldp x27, x28, [sp, 80]
        ; ldp x29, x30, [sp], 96
        ; ret
    );
    Gates {
        code: ops.finish(),
        leave,
    }
}

/// Returns the branch that leads from `at` to `to`.
pub(super) fn field(to: usize, at: usize) -> [u8; 4] {
    (0x1400_0000 | distance(to, at, 26)).to_le_bytes()
}

/// Returns how far `to` is from `at` in instructions, in the low bits.
fn distance(to: usize, at: usize, bits: u32) -> u32 {
    let [a, b, c, d, ..] = (to.wrapping_sub(at) >> 2).to_le_bytes();
    u32::from_le_bytes([a, b, c, d]) & ((1 << bits) - 1)
}

/// A conditional branch without its distance, and the bits that turn it to the contrary.
#[derive(Clone, Copy)]
struct Test {
    bits: u32,
    contrary: u32,
}

impl Test {
    /// `b.cond`
    const fn flags(condition: u32) -> Self {
        Self {
            bits: 0x5400_0000 | condition,
            contrary: 1,
        }
    }

    /// `cbz` or `cbnz`
    fn zero(register: u8, is_zero: bool) -> Self {
        let bits = if is_zero { 0x3400_0000 } else { 0x3500_0000 };
        Self {
            bits: bits | u32::from(register),
            contrary: 1 << 24,
        }
    }
}

impl Emitter {
    fn word(&mut self, bits: u32) {
        self.ops.extend(&bits.to_le_bytes());
    }

    /// Loads a number into a register of the host.
    fn load_number(&mut self, to: u8, number: u32) {
        let (low, high) = (number & 0xffff, number >> 16);
        if high == 0xffff {
            dynasm!(self.ops ; .arch aarch64 ; movn W(to), low ^ 0xffff);
        } else if high == 0 {
            dynasm!(self.ops ; .arch aarch64 ; movz W(to), low);
        } else if low == 0 {
            dynasm!(self.ops ; .arch aarch64 ; movz W(to), high, lsl 16);
        } else {
            dynasm!(self.ops
                ; .arch aarch64
                ; movz W(to), low
                ; movk W(to), high, lsl 16
            );
        }
    }

    /// Returns a register of the host that has a guest register's value: its home, `scratch`, or
    /// the one that reads zero.
    fn source(&mut self, register: u8, scratch: u8) -> u8 {
        match home(register) {
            Some(host) => host,
            None if register == 0 => ZERO,
            None => {
                dynasm!(self.ops ; .arch aarch64 ; ldr W(scratch), [sp, slot(register)]);
                scratch
            }
        }
    }

    /// Copies a guest register to one of the host's.
    fn copy(&mut self, to: u8, register: u8) {
        let from = self.source(register, to);
        self.move_to(to, from);
    }

    fn move_to(&mut self, to: u8, from: u8) {
        if to != from {
            dynasm!(self.ops ; .arch aarch64 ; mov W(to), W(from));
        }
    }

    /// Stores what was computed in `host`, unless that is the register's home.
    fn store(&mut self, register: u8, host: u8) {
        match home(register) {
            Some(home) => self.move_to(home, host),
            None if register == 0 => {}
            None => dynasm!(self.ops ; .arch aarch64 ; str W(host), [sp, slot(register)]),
        }
    }

    /// Gives a guest register other than `x0` a value.
    pub(super) fn set(&mut self, register: u8, value: u32) {
        let to = home(register).unwrap_or(0);
        self.load_number(to, value);
        self.store(register, to);
    }

    /// Emits a jump to the block's begin; returns where its field is.
    pub(super) fn jump(&mut self) -> usize {
        let site = self.at();
        self.ops.extend(&field(HEADER, site));
        site
    }

    /// Leaves with a program counter, and what is to be done.
    pub(super) fn leave(&mut self, pc: u32, code: u32) {
        self.load_number(0, pc);
        dynasm!(self.ops ; .arch aarch64 ; str w0, [sp, offset(PC)]);
        self.load_number(0, code);
        self.jump_to_leave();
    }

    /// Emits what an exit to `target` does as long as it is not linked; returns where its number
    /// goes.
    pub(super) fn stub(&mut self, target: u32) -> usize {
        self.load_number(0, target);
        dynasm!(self.ops
            ; .arch aarch64
            ; str w0, [sp, offset(PC)]
            ; ldr w0, >number
        );
        self.jump_to_leave();
        dynasm!(self.ops ; .arch aarch64 ; number:);
        let number_at = self.at();
        self.word(0);
        number_at
    }

    pub(super) fn leave_if_interrupted(&mut self, label: DynamicLabel) {
        dynasm!(self.ops
            ; .arch aarch64
            ; ldr w0, [sp, offset(INTERRUPT)]
            ; cbnz w0, =>label
        );
    }

    /// Orders accesses: bits of `before` and `behind` are input, output, reads and writes.
    pub(super) fn fence(&mut self, before: u32, behind: u32) {
        const WRITES: u32 = 0b0101;
        const READS: u32 = 0b1010;
        if before == 0 || behind == 0 {
        } else if before & WRITES == 0 {
            dynasm!(self.ops ; .arch aarch64 ; dmb ishld);
        } else if before & READS == 0 && behind & READS == 0 {
            dynasm!(self.ops ; .arch aarch64 ; dmb ishst);
        } else {
            dynasm!(self.ops ; .arch aarch64 ; dmb ish);
        }
    }

    pub(super) fn jump_indirect(&mut self, inst: &Inst, next: u32) {
        // A place has 16 bytes, and is the one that the address without its lowest bit says.
        const { assert!(PLACES == 1 << 12) };
        let base = self.source(inst.rs1, 1);
        self.add_imm(1, base, inst.imm);
        self.constant(inst.rd, next);
        dynasm!(self.ops
            ; .arch aarch64
            ; and w1, w1, 0xffff_fffe
            ; ubfx w2, w1, 1, 12
            ; add x2, sp, x2, uxtx 4
            ; ldr w3, [x2, offset(TABLE)]
            ; cmp w3, w1
            ; b.ne >miss
            ; ldr x3, [x2, offset(TABLE + PLACE_CODE)]
            ; br x3
            ; miss:
            ; str w1, [sp, offset(PC)]
        );
        self.load_number(0, INDIRECT);
        self.jump_to_leave();
    }

    /// Ends the hart's reservation.
    pub(super) fn unreserve(&mut self) {
        self.load_number(3, UNRESERVED);
        dynasm!(self.ops ; .arch aarch64 ; str w3, [sp, offset(RESERVED)]);
    }

    pub(super) fn branch(&mut self, inst: &Inst, key: u32) {
        let a = self.source(inst.rs1, 0);
        let b = self.source(inst.rs2, 1);
        let is_equal = inst.op == Op::Beq;
        let test = match inst.op {
            Op::Beq | Op::Bne if b == ZERO => Test::zero(a, is_equal),
            Op::Beq | Op::Bne if a == ZERO => Test::zero(b, is_equal),
            _ => {
                dynasm!(self.ops ; .arch aarch64 ; cmp W(a), W(b));
                Test::flags(match inst.op {
                    Op::Beq => 0x0,
                    Op::Bne => 0x1,
                    Op::Blt => 0xb,
                    Op::Bge => 0xa,
                    Op::Bltu => 0x3,
                    _ => 0x2,
                })
            }
        };
        if self.is_own(key) {
            let back = distance(HEADER, self.at(), 19);
            self.word(test.bits | back << 5);
        } else {
            // A conditional branch does not reach all blocks: the contrary goes round one that does.
            self.word((test.bits ^ test.contrary) | 2 << 5);
            let site = self.jump();
            self.lead(site, key);
        }
    }
}
