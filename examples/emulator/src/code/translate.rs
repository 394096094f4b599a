//! What the code generators share: where a block begins and ends, what is known of its registers,
//! where its jumps lead, and what lies behind its code. What an instruction becomes is told by the
//! generator of the host's CPU, in more methods of [`Emitter`].
//!
//! A block begins at an address that something jumps to, and goes on behind branches that are not
//! taken, to the first jump. Nothing is kept back for later: at each instruction all guest
//! registers are what they are to be, so that a fault needs no repair.
//!
//! A hart that holds a reservation runs blocks of their own, made for the same addresses: these end
//! the reservation where `interpret::UNRESERVED` says, and all others need not think of it. The
//! *key* of a block is its address, with the lowest bit set in those.

use super::target::{self, Ops};
use crate::{
    inst::{Inst, Op},
    interpret::{Code, Trap, compute, decode_at},
};
use alloc::vec::Vec;
use dynasmrt::DynamicLabel;

/// The most guest instructions of a block.
const MOST: usize = 128;

/// What `leave` is told, beside numbers of exits, which are lower.
pub(super) const INDIRECT: u32 = 0x8000_0000;
/// The instruction at the program counter is to be interpreted.
pub(super) const STEP: u32 = 0x8000_0001;
pub(super) const INTERRUPTED: u32 = 0x8000_0002;

/// Bytes before a block's code: its key, and where its table of addresses is.
pub(super) const HEADER: usize = 16;

/// Ways into generated code and out of it.
pub(super) struct Gates {
    pub(super) code: Vec<u8>,
    /// Where in it `leave` begins.
    pub(super) leave: usize,
}

/// The bit of keys of blocks for harts that hold a reservation.
pub(super) const HOLDS: u32 = 1;

/// A jump out of a block to another one.
pub(super) struct ExitSite {
    /// The other one's key.
    pub(super) target: u32,
    /// Where the jump's field is: four bytes, at a multiple of four.
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
    /// Where the fields of jumps to `leave` are.
    pub(super) leaves: Vec<usize>,
    /// The address behind the last guest instruction.
    pub(super) end: u32,
    pub(super) instructions: usize,
}

/// Returns the host's register of each guest register that has one.
pub(super) const fn homes(pinned: &[(u8, u8)]) -> [Option<u8>; 32] {
    let mut home = [None; 32];
    let mut index = 0;
    while index < pinned.len() {
        let (guest, host) = pinned[index];
        home[guest as usize] = Some(host);
        index += 1;
    }
    home
}

/// A block in the making.
pub(super) struct Emitter {
    pub(super) ops: Ops,
    key: u32,
    /// Whether the hart may hold a reservation.
    holds: bool,
    exits: Vec<ExitSite>,
    leaves: Vec<usize>,
    /// Where the code of guest instructions begins that can fault, or must be found otherwise.
    table: Vec<(u32, u32)>,
    /// What registers are known to hold.
    known: [Option<u32>; 32],
    /// Ways out to interpret an instruction, or for an interrupt: label, address, what to tell.
    stubs: Vec<(DynamicLabel, u32, u32)>,
}

/// Translates the block with a key.
///
/// # Errors
///
/// The trap of its first instruction, if that cannot be decoded.
pub(super) fn translate<C: Code>(code: &C, key: u32) -> Result<Translated, Trap> {
    let start = key & !HOLDS;
    let mut emitter = Emitter {
        ops: Ops::new(),
        key,
        holds: key & HOLDS != 0,
        exits: Vec::new(),
        leaves: Vec::new(),
        table: Vec::new(),
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
                emitter.exit(pc);
                break;
            }
        }
    }
    Ok(emitter.finish(pc, count))
}

impl Emitter {
    /// Returns how many bytes there are.
    pub(super) fn at(&self) -> usize {
        self.ops.offset()
    }

    /// Returns what a guest register holds here, if that is known.
    pub(super) fn known(&self, register: u8) -> Option<u32> {
        self.known[usize::from(register & 31)]
    }

    /// Gives a guest register a value that is known now.
    pub(super) fn constant(&mut self, register: u8, value: u32) {
        if register != 0 {
            self.set(register, value);
            self.known[usize::from(register & 31)] = Some(value);
        }
    }

    /// Notes that the code that follows is of the instruction at `pc`.
    pub(super) fn note(&mut self, pc: u32) {
        let at = u32::try_from(self.at()).unwrap_or(u32::MAX);
        self.table.push((at, pc));
    }

    /// Returns a label at which the block is left at `pc`, where `leave` is told `code`.
    pub(super) fn way_out(&mut self, pc: u32, code: u32) -> DynamicLabel {
        let label = self.ops.new_dynamic_label();
        self.stubs.push((label, pc, code));
        label
    }

    /// Jumps to `leave`, wherever that will be.
    pub(super) fn jump_to_leave(&mut self) {
        let site = self.jump();
        self.leaves.push(site);
    }

    /// Jumps to a guest address.
    fn exit(&mut self, target: u32) {
        let site = self.jump();
        self.lead(site, self.key_of(target));
    }

    /// Returns the key of the block that goes on at an address.
    fn key_of(&self, target: u32) -> u32 {
        target | if self.holds { HOLDS } else { 0 }
    }

    /// Says whether a key is the block's own.
    pub(super) const fn is_own(&self, key: u32) -> bool {
        key == self.key
    }

    /// Says where the jump with its field at `site` is to lead, which leads to the block's begin
    /// as it is.
    pub(super) fn lead(&mut self, site: usize, key: u32) {
        if !self.is_own(key) {
            self.exits.push(ExitSite {
                target: key,
                site,
                stub: 0,
                number_at: 0,
            });
        }
    }

    /// Ends a reservation, if one may be held.
    fn end_reservation(&mut self) {
        if self.holds {
            self.holds = false;
            self.unreserve();
        }
    }

    /// Makes the thread leave here if it has something else to do; it comes back to `pc`.
    fn look_for_interrupt(&mut self, pc: u32) {
        let label = self.way_out(pc, INTERRUPTED);
        self.leave_if_interrupted(label);
    }

    /// Emits an instruction; says whether the block ends with it.
    fn instruction(&mut self, inst: &Inst, pc: u32) -> bool {
        let imm = inst.imm.cast_unsigned();
        if inst.ends_reservation() {
            self.end_reservation();
        }
        match inst.op {
            Op::Lui => self.constant(inst.rd, imm),
            Op::Auipc => self.constant(inst.rd, pc.wrapping_add(imm)),
            Op::Jal => {
                self.jump_on(inst, pc, inst.target(pc));
                return true;
            }
            Op::Jalr => {
                self.jump_register(inst, pc);
                return true;
            }
            _ if inst.is_branch() => {
                let target = inst.target(pc);
                if target <= pc {
                    self.look_for_interrupt(pc);
                }
                self.branch(inst, self.key_of(target));
            }
            Op::Lb | Op::Lh | Op::Lw | Op::Lbu | Op::Lhu => {
                self.load(inst, pc);
                self.forget(inst.rd);
            }
            Op::Sb | Op::Sh | Op::Sw => self.store_to_memory(inst, pc),
            _ if inst.is_atomic() => {
                self.atomic(inst, pc);
                self.holds = inst.op == Op::LrW;
                self.forget(inst.rd);
            }
            Op::Fence => self.fence(imm >> 4 & 15, imm & 15),
            Op::FenceI | Op::Ecall | Op::Ebreak | Op::Thunk => {
                self.leave(pc, STEP);
                return true;
            }
            _ if inst.rd != 0 => self.arithmetic(inst),
            _ => {}
        }
        false
    }

    /// Jumps to an address that is known, with the next one in `rd`.
    fn jump_on(&mut self, inst: &Inst, pc: u32, target: u32) {
        if target <= pc {
            self.look_for_interrupt(pc);
        }
        self.constant(inst.rd, inst.next(pc));
        self.exit(target);
    }

    fn jump_register(&mut self, inst: &Inst, pc: u32) {
        if let Some(base) = self.known(inst.rs1) {
            self.jump_on(inst, pc, base.wrapping_add_signed(inst.imm) & !1);
        } else {
            self.look_for_interrupt(pc);
            self.jump_indirect(inst, inst.next(pc));
        }
    }

    /// Emits an instruction that computes `rd`, which is not `x0`; or its result, if that is known.
    fn arithmetic(&mut self, inst: &Inst) {
        let second = if has_imm(inst.op) {
            Some(inst.imm.cast_unsigned())
        } else {
            self.known(inst.rs2)
        };
        if let (Some(a), Some(b)) = (self.known(inst.rs1), second)
            && let Some(value) = compute(inst.op, a, b)
        {
            self.constant(inst.rd, value);
        } else {
            self.compute(inst);
            self.forget(inst.rd);
        }
    }

    fn forget(&mut self, register: u8) {
        if register != 0 {
            self.known[usize::from(register & 31)] = None;
        }
    }

    /// Emits what lies behind the code: stubs, and the table of addresses.
    fn finish(mut self, end: u32, instructions: usize) -> Translated {
        for (label, pc, code) in core::mem::take(&mut self.stubs) {
            self.ops.dynamic_label(label);
            self.leave(pc, code);
        }
        for index in 0..self.exits.len() {
            self.exits[index].stub = self.at();
            self.exits[index].number_at = self.stub(self.exits[index].target);
        }
        let padding = self.at().wrapping_neg() % 8;
        self.ops.extend([0; 8].iter().take(padding));
        let table_at = self.at();
        let mut bytes = self.ops.finish();
        for (at, pc) in &self.table {
            bytes.extend(at.to_le_bytes());
            bytes.extend(pc.to_le_bytes());
        }
        let word = |number: usize| u32::try_from(number).unwrap_or(0).to_le_bytes();
        put(&mut bytes, 0, self.key.to_le_bytes());
        put(&mut bytes, 4, word(table_at));
        put(&mut bytes, 8, word(self.table.len()));
        for exit in &self.exits {
            put(&mut bytes, exit.site, target::field(exit.stub, exit.site));
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

/// Says whether the second operand is the immediate.
fn has_imm(op: Op) -> bool {
    matches!(
        op,
        Op::Addi
            | Op::Slti
            | Op::Sltiu
            | Op::Xori
            | Op::Ori
            | Op::Andi
            | Op::Slli
            | Op::Srli
            | Op::Srai
    )
}

/// Writes four bytes of a block.
pub(super) fn put(bytes: &mut [u8], at: usize, field: [u8; 4]) {
    if let Some(to) = bytes.get_mut(at..at + 4) {
        to.copy_from_slice(&field);
    }
}
