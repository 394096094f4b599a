//! Guest instructions to x86-64.
//!
//! Twelve guest registers live in registers of the host, in all blocks alike, so that a jump from
//! one block to another moves nothing; the others are in memory, behind the stack pointer.
//! Registers hold numbers extended by zeros to 64 bits, so that they are addresses as they are.
//! `rax`, `rcx` and `rdx` are free within an instruction.

#![expect(
    clippy::useless_conversion,
    reason = "what dynasm! expands to converts numbers of registers"
)]

/// Emits an instruction on a register, and a guest register wherever that is.
macro_rules! with_operand {
    ($self:ident, $op:tt, $d:expr, $guest:expr) => {{
        let (d, guest) = ($d, $guest);
        match home(guest) {
            Some(host) => dynasm!($self.ops ; .arch x64 ; $op Rd(d), Rd(host)),
            None if guest == 0 => dynasm!($self.ops ; .arch x64 ; $op Rd(d), 0),
            None => dynasm!($self.ops ; .arch x64 ; $op Rd(d), [rsp + slot(guest)]),
        }
    }};
}

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

/// Bytes of the window that all code lies in: any block reaches any other by a relative jump.
pub(super) const WINDOW: usize = 1 << 30;

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;

/// Guest registers and the host's that they live in: those that compressed instructions can name,
/// the stack pointer, and the next of those that calls keep, which loops have their variables in.
const PINNED: [(u8, u8); 12] = [
    (8, 5),
    (9, 3),
    (10, 7),
    (11, 6),
    (12, 8),
    (13, 9),
    (14, 10),
    (15, 11),
    (2, 14),
    (18, 13),
    (19, 12),
    (20, 15),
];

/// The host's register of each guest register that has one.
const HOME: [Option<u8>; 32] = homes(&PINNED);

fn home(register: u8) -> Option<u8> {
    HOME[usize::from(register & 31)]
}

/// Where a guest register is behind the stack pointer.
fn slot(register: u8) -> i32 {
    i32::from(register) * 4
}

/// Makes the gates: `enter(registers, code)` returns what `leave` was told.
pub(super) fn gates() -> Gates {
    let mut ops = Ops::new();
    dynasm!(ops
        ; .arch x64
        ; push rbx
        ; push rbp
        ; push r12
        ; push r13
        ; push r14
        ; push r15
        ; mov [rdi + HOST_STACK], rsp
        ; mov rsp, rdi
        ; mov rax, rsi
    );
    for (guest, host) in PINNED {
        dynasm!(ops ; .arch x64 ; mov Rd(host), [rsp + slot(guest)]);
    }
    dynasm!(ops ; .arch x64 ; jmp rax);
    let leave = ops.offset();
    for (guest, host) in PINNED {
        dynasm!(ops ; .arch x64 ; mov [rsp + slot(guest)], Rd(host));
    }
    dynasm!(ops
        ; .arch x64
        ; mov rsp, [rsp + HOST_STACK]
        ; pop r15
        ; pop r14
        ; pop r13
        ; pop r12
        ; pop rbp
        ; pop rbx
        ; ret
    );
    Gates {
        code: ops.finish(),
        leave,
    }
}

/// Returns the distance that leads to `to` from a jump that ends with it at `at`.
pub(super) fn field(to: usize, at: usize) -> [u8; 4] {
    let [a, b, c, d, ..] = to.wrapping_sub(at + 4).to_le_bytes();
    [a, b, c, d]
}

impl Emitter {
    /// Returns a register of the host that has a guest register's value: its home, or `scratch`.
    fn source(&mut self, register: u8, scratch: u8) -> u8 {
        match home(register) {
            Some(host) => return host,
            None if register == 0 => dynasm!(self.ops ; .arch x64 ; xor Rd(scratch), Rd(scratch)),
            None => {
                dynasm!(self.ops ; .arch x64 ; mov Rd(scratch), [rsp + slot(register)]);
            }
        }
        scratch
    }

    /// Copies a guest register to one of the host's.
    fn copy(&mut self, to: u8, register: u8) {
        let from = self.source(register, to);
        self.move_to(to, from);
    }

    fn move_to(&mut self, to: u8, from: u8) {
        if to != from {
            dynasm!(self.ops ; .arch x64 ; mov Rd(to), Rd(from));
        }
    }

    /// Stores what was computed in `host`, unless that is the register's home.
    fn store(&mut self, register: u8, host: u8) {
        match home(register) {
            Some(home) => self.move_to(home, host),
            None if register == 0 => {}
            None => dynasm!(self.ops ; .arch x64 ; mov [rsp + slot(register)], Rd(host)),
        }
    }

    /// Gives a guest register other than `x0` a value.
    pub(super) fn set(&mut self, register: u8, value: u32) {
        let signed = value.cast_signed();
        match home(register) {
            Some(home) => dynasm!(self.ops ; .arch x64 ; mov Rd(home), signed),
            None => dynasm!(self.ops ; .arch x64 ; mov DWORD [rsp + slot(register)], signed),
        }
    }

    /// Emits a jump to the block's begin; returns where its field is.
    pub(super) fn jump(&mut self) -> usize {
        self.jump_by(&[0xe9])
    }

    /// Emits a jump with this opcode to the block's begin; returns where its field is, which is
    /// aligned, so that it can be changed by one store.
    fn jump_by(&mut self, opcode: &[u8]) -> usize {
        let padding: &[u8] = match (self.at() + opcode.len()) % 4 {
            0 => &[],
            1 => &[0x0f, 0x1f, 0x00],
            2 => &[0x66, 0x90],
            _ => &[0x90],
        };
        self.ops.extend(padding);
        self.ops.extend(opcode);
        let site = self.at();
        self.ops.extend(&field(HEADER, site));
        site
    }

    /// Leaves with a program counter, and what is to be done.
    pub(super) fn leave(&mut self, pc: u32, code: u32) {
        let (pc, code) = (pc.cast_signed(), code.cast_signed());
        dynasm!(self.ops
            ; .arch x64
            ; mov DWORD [rsp + PC], pc
            ; mov eax, code
        );
        self.jump_to_leave();
    }

    /// Emits what an exit to `target` does as long as it is not linked; returns where its number
    /// goes.
    pub(super) fn stub(&mut self, target: u32) -> usize {
        dynasm!(self.ops
            ; .arch x64
            ; mov DWORD [rsp + PC], target.cast_signed()
            ; mov eax, DWORD 0x7fff_ffff
        );
        let number_at = self.at() - 4;
        self.jump_to_leave();
        number_at
    }

    pub(super) fn leave_if_interrupted(&mut self, label: DynamicLabel) {
        dynasm!(self.ops
            ; .arch x64
            ; cmp DWORD [rsp + INTERRUPT], 0
            ; jne =>label
        );
    }

    /// Orders accesses: bits of `before` and `behind` are input, output, reads and writes. The host
    /// orders all but a load behind a store to elsewhere.
    pub(super) fn fence(&mut self, before: u32, behind: u32) {
        const WRITES: u32 = 0b0101;
        const READS: u32 = 0b1010;
        if before & WRITES != 0 && behind & READS != 0 {
            dynasm!(self.ops ; .arch x64 ; mfence);
        }
    }

    pub(super) fn jump_indirect(&mut self, inst: &Inst, next: u32) {
        let base = self.source(inst.rs1, RCX);
        dynasm!(self.ops
            ; .arch x64
            ; lea ecx, [Rq(base) + inst.imm]
            ; and ecx, -2
        );
        self.constant(inst.rd, next);
        // A place has 16 bytes, and is the one that the address without its lowest bit says.
        let mask = i32::try_from((PLACES - 1) << 4).unwrap_or(0);
        dynasm!(self.ops
            ; .arch x64
            ; lea edx, [rcx * 8]
            ; and edx, mask
            ; cmp [rsp + rdx + TABLE], ecx
            ; jne >miss
            ; jmp QWORD [rsp + rdx + (TABLE + PLACE_CODE)]
            ; miss:
            ; mov [rsp + PC], ecx
            ; mov eax, INDIRECT.cast_signed()
        );
        self.jump_to_leave();
    }

    /// Ends the hart's reservation.
    pub(super) fn unreserve(&mut self) {
        let none = UNRESERVED.cast_signed();
        dynasm!(self.ops ; .arch x64 ; mov DWORD [rsp + RESERVED], none);
    }

    pub(super) fn branch(&mut self, inst: &Inst, key: u32) {
        let condition = match inst.op {
            Op::Beq => 0x4,
            Op::Bne => 0x5,
            Op::Blt => 0xc,
            Op::Bge => 0xd,
            Op::Bltu => 0x2,
            _ => 0x3,
        };
        let a = self.source(inst.rs1, RAX);
        if inst.rs2 == 0 {
            dynasm!(self.ops ; .arch x64 ; test Rd(a), Rd(a));
        } else {
            with_operand!(self, cmp, a, inst.rs2);
        }
        let site = self.jump_by(&[0x0f, 0x80 | condition]);
        self.lead(site, key);
    }
}
