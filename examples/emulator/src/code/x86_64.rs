//! Guest instructions to x86-64.
//!
//! Twelve guest registers live in registers of the host, in all blocks alike, so that a jump from
//! one block to another moves nothing; the others are in memory, behind the stack pointer.
//! Registers hold numbers extended by zeros to 64 bits, so that they are addresses as they are.
//! `rax`, `rcx` and `rdx` are free within an instruction.
//!
//! A block begins at an address that something jumps to, and goes on behind branches that are not
//! taken, to the first jump. Nothing is kept back for later: at each instruction all guest
//! registers are what they are to be, so that a fault needs no repair.

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

use super::cpu::{HOST_STACK, INTERRUPT, PC, PLACE_CODE, PLACES, TABLE};
use crate::{
    inst::{Inst, Op},
    interpret::{Code, Trap, decode_at},
};
use dynasmrt::{DynasmApi, DynasmLabelApi, VecAssembler, dynasm, x64::X64Relocation};

type Ops = VecAssembler<X64Relocation>;

/// The most guest instructions of a block.
const MOST: usize = 128;

/// What `leave` is told in `eax`, beside numbers of exits, which are lower.
pub(super) const INDIRECT: u32 = 0x8000_0000;
/// The instruction at the program counter is to be interpreted.
pub(super) const STEP: u32 = 0x8000_0001;
pub(super) const INTERRUPTED: u32 = 0x8000_0002;

/// Bytes before a block's code: its guest address, and where its table of addresses is.
pub(super) const HEADER: usize = 16;

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
const HOME: [Option<u8>; 32] = {
    let mut home = [None; 32];
    let mut index = 0;
    while index < PINNED.len() {
        let (guest, host) = PINNED[index];
        home[guest as usize] = Some(host);
        index += 1;
    }
    home
};

fn home(register: u8) -> Option<u8> {
    HOME[usize::from(register & 31)]
}

/// Where a guest register is behind the stack pointer.
fn slot(register: u8) -> i32 {
    i32::from(register) * 4
}

/// Ways into generated code and out of it.
pub(super) struct Gates {
    pub(super) code: Vec<u8>,
    /// Where in it `leave` begins.
    pub(super) leave: usize,
}

/// Makes the gates: `enter(registers, code)` returns what `leave` was told.
pub(super) fn gates() -> Gates {
    let mut ops = Ops::new(0);
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
    let leave = ops.offset().0;
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
        code: assembled(ops),
        leave,
    }
}

fn assembled(ops: Ops) -> Vec<u8> {
    ops.finalize()
        .unwrap_or_else(|error| unreachable!("all labels are there: {error}"))
}

/// A jump out of a block to another guest address.
pub(super) struct ExitSite {
    pub(super) target: u32,
    /// Where the jump's distance is: four bytes, at a multiple of four.
    pub(super) site: usize,
    /// Where the jump leads as long as it is not linked.
    pub(super) stub: usize,
    /// Where the stub has its exit's number.
    pub(super) number_at: usize,
}

/// A translated block, which is to be told where it lies.
pub(super) struct Translated {
    pub(super) bytes: Vec<u8>,
    pub(super) exits: Vec<ExitSite>,
    /// Where distances to `leave` are.
    pub(super) leaves: Vec<usize>,
    /// The address behind the last guest instruction.
    pub(super) end: u32,
    pub(super) instructions: usize,
}

struct Emitter {
    ops: Ops,
    start: u32,
    exits: Vec<ExitSite>,
    leaves: Vec<usize>,
    /// Where the code of guest instructions begins that can fault, or must be found otherwise.
    table: Vec<(u32, u32)>,
    /// Jumps to be given the distance to the block's own start.
    own: Vec<usize>,
    /// What registers are known to hold.
    known: [Option<u32>; 32],
    /// Exits that interpret an instruction, or that an interrupt takes: label, address, code.
    stubs: Vec<(dynasmrt::DynamicLabel, u32, u32)>,
}

/// Translates the block at `pc`.
///
/// # Errors
///
/// The trap of its first instruction, if that cannot be decoded.
pub(super) fn translate<C: Code>(code: &C, start: u32) -> Result<Translated, Trap> {
    let mut emitter = Emitter {
        ops: Ops::new(0),
        start,
        exits: Vec::new(),
        leaves: Vec::new(),
        table: Vec::new(),
        own: Vec::new(),
        known: [None; 32],
        stubs: Vec::new(),
    };
    emitter.known[0] = Some(0);
    emitter.ops.extend([0; HEADER]);
    let mut inst = decode_at(code, start)?;
    let (mut pc, mut count) = (start, 0);
    loop {
        let ends = emitter.instruction(&inst, pc);
        pc = inst.next(pc);
        count += 1;
        if ends {
            break;
        }
        match decode_at(code, pc) {
            Ok(next) if count < MOST => inst = next,
            // What cannot be decoded traps when it is reached.
            _ => {
                emitter.exit(None, pc);
                break;
            }
        }
    }
    Ok(emitter.finish(pc, count))
}

impl Emitter {
    fn at(&self) -> usize {
        self.ops.offset().0
    }

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

    /// Gives a guest register a value that is known now.
    fn constant(&mut self, register: u8, value: u32) {
        if register == 0 {
            return;
        }
        let signed = value.cast_signed();
        match home(register) {
            Some(home) => dynasm!(self.ops ; .arch x64 ; mov Rd(home), signed),
            None => dynasm!(self.ops ; .arch x64 ; mov DWORD [rsp + slot(register)], signed),
        }
        self.known[usize::from(register)] = Some(value);
    }

    fn known(&self, register: u8) -> Option<u32> {
        self.known[usize::from(register & 31)]
    }

    /// Emits bytes that do nothing until a field that follows `opcode` bytes is aligned.
    fn align_field(&mut self, opcode: usize) {
        let padding: &[u8] = match (self.at() + opcode) % 4 {
            0 => &[],
            1 => &[0x0f, 0x1f, 0x00],
            2 => &[0x66, 0x90],
            _ => &[0x90],
        };
        self.ops.extend(padding);
    }

    /// Jumps to a guest address, always or on a condition of the host's flags.
    fn exit(&mut self, condition: Option<u8>, target: u32) {
        let opcode: &[u8] = match condition {
            Some(condition) => &[0x0f, 0x80 | condition],
            None => &[0xe9],
        };
        self.align_field(opcode.len());
        self.ops.extend(opcode);
        let site = self.at();
        self.ops.extend(&[0; 4]);
        if target == self.start {
            self.own.push(site);
        } else {
            self.exits.push(ExitSite {
                target,
                site,
                stub: 0,
                number_at: 0,
            });
        }
    }

    /// Leaves with a program counter, and what is to be done.
    fn leave(&mut self, pc: u32, code: u32) {
        let (pc, code) = (pc.cast_signed(), code.cast_signed());
        dynasm!(self.ops
            ; .arch x64
            ; mov DWORD [rsp + PC], pc
            ; mov eax, code
        );
        self.jump_to_leave();
    }

    fn jump_to_leave(&mut self) {
        self.ops.extend(&[0xe9]);
        self.leaves.push(self.at());
        self.ops.extend(&[0; 4]);
    }

    /// Makes the thread leave here if it has something else to do; it comes back to `pc`.
    fn look_for_interrupt(&mut self, pc: u32) {
        let label = self.ops.new_dynamic_label();
        self.stubs.push((label, pc, INTERRUPTED));
        dynasm!(self.ops
            ; .arch x64
            ; cmp DWORD [rsp + INTERRUPT], 0
            ; jne =>label
        );
    }

    /// Emits an instruction; says whether the block ends with it.
    fn instruction(&mut self, inst: &Inst, pc: u32) -> bool {
        let imm = inst.imm.cast_unsigned();
        match inst.op {
            Op::Lui => self.constant(inst.rd, imm),
            Op::Auipc => self.constant(inst.rd, pc.wrapping_add(imm)),
            Op::Jal => {
                let target = inst.target(pc);
                if target <= pc {
                    self.look_for_interrupt(pc);
                }
                self.constant(inst.rd, inst.next(pc));
                self.exit(None, target);
                return true;
            }
            Op::Jalr => {
                self.jump_register(inst, pc);
                return true;
            }
            _ if inst.is_branch() => self.branch(inst, pc),
            Op::Lb | Op::Lh | Op::Lw | Op::Lbu | Op::Lhu => self.load(inst, pc),
            Op::Sb | Op::Sh | Op::Sw => self.store_to_memory(inst, pc),
            Op::LrW
            | Op::ScW
            | Op::AmoSwap
            | Op::AmoAdd
            | Op::AmoXor
            | Op::AmoAnd
            | Op::AmoOr
            | Op::AmoMin
            | Op::AmoMax
            | Op::AmoMinu
            | Op::AmoMaxu => self.atomic(inst, pc),
            Op::Fence => {
                // The host orders all but a load behind a store to elsewhere.
                const WRITES_BEFORE: u32 = 0b0101_0000;
                const READS_BEHIND: u32 = 0b0000_1010;
                if imm & WRITES_BEFORE != 0 && imm & READS_BEHIND != 0 {
                    dynasm!(self.ops ; .arch x64 ; mfence);
                }
            }
            Op::FenceI | Op::Ecall | Op::Ebreak | Op::Thunk => {
                self.leave(pc, STEP);
                return true;
            }
            _ => self.arithmetic(inst),
        }
        false
    }

    fn jump_register(&mut self, inst: &Inst, pc: u32) {
        let next = inst.next(pc);
        if let Some(base) = self.known(inst.rs1) {
            let target = base.wrapping_add_signed(inst.imm) & !1;
            if target <= pc {
                self.look_for_interrupt(pc);
            }
            self.constant(inst.rd, next);
            self.exit(None, target);
            return;
        }
        self.look_for_interrupt(pc);
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

    fn branch(&mut self, inst: &Inst, pc: u32) {
        let target = inst.target(pc);
        if target <= pc {
            self.look_for_interrupt(pc);
        }
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
        self.exit(Some(condition), target);
    }

    /// Notes that the code that follows is of the instruction at `pc`.
    fn note(&mut self, pc: u32) {
        let at = u32::try_from(self.at()).unwrap_or(u32::MAX);
        self.table.push((at, pc));
    }

    fn forget(&mut self, register: u8) {
        if register != 0 {
            self.known[usize::from(register & 31)] = None;
        }
    }

    /// Emits what lies behind the code: stubs, and the table of addresses.
    fn finish(mut self, end: u32, instructions: usize) -> Translated {
        for (label, pc, code) in std::mem::take(&mut self.stubs) {
            dynasm!(self.ops ; .arch x64 ; =>label);
            self.leave(pc, code);
        }
        for index in 0..self.exits.len() {
            let target = self.exits[index].target.cast_signed();
            self.exits[index].stub = self.at();
            dynasm!(self.ops
                ; .arch x64
                ; mov DWORD [rsp + PC], target
                ; mov eax, DWORD 0x7fff_ffff
            );
            self.exits[index].number_at = self.at() - 4;
            self.jump_to_leave();
        }
        self.ops
            .extend([0; 8].iter().take(self.at().wrapping_neg() % 8));
        let table_at = self.at();
        let entries = self.table.len();
        let mut bytes = assembled(self.ops);
        for (at, pc) in &self.table {
            bytes.extend(at.to_le_bytes());
            bytes.extend(pc.to_le_bytes());
        }
        let word = |number: usize| u32::try_from(number).unwrap_or(0).to_le_bytes();
        put(&mut bytes, 0, self.start.to_le_bytes());
        put(&mut bytes, 4, word(table_at));
        put(&mut bytes, 8, word(entries));
        for site in self.own {
            put(&mut bytes, site, distance(HEADER, site));
        }
        for exit in &self.exits {
            put(&mut bytes, exit.site, distance(exit.stub, exit.site));
        }
        Translated {
            bytes,
            exits: self.exits,
            leaves: self.leaves,
            end,
            instructions,
        }
    }
}

/// Writes four bytes of a block.
pub(super) fn put(bytes: &mut [u8], at: usize, field: [u8; 4]) {
    if let Some(to) = bytes.get_mut(at..at + 4) {
        to.copy_from_slice(&field);
    }
}

/// Returns the distance that leads to `to` from a jump that ends with it at `site`.
pub(super) fn distance(to: usize, site: usize) -> [u8; 4] {
    let [a, b, c, d, ..] = to.wrapping_sub(site + 4).to_le_bytes();
    [a, b, c, d]
}
