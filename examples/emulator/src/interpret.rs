//! The interpreter: what each instruction does, in the words of the specification. It is the oracle
//! of the code generator, and runs programs by itself (`--interpret`, `run.rs`).

mod run;
#[cfg(test)]
mod tests;

pub(crate) use run::Interpreter;

use crate::{
    decode,
    inst::{Inst, Op},
};

/// An access to memory that the guest may not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) addr: u32,
    pub(crate) kind: Kind,
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Load,
    Store,
    Fetch,
}

/// Why a guest stops running its own code. The program counter is that of the instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trap {
    Ecall,
    Ebreak,
    FenceI,
    Thunk(u32),
    Fault(Fault),
    /// An atomic operation on an address that is no multiple of four.
    Misaligned(u32),
    /// No instruction of RV32IMAC.
    Illegal,
    /// Another thread wants this one to look for what it has to do.
    Interrupted,
}

/// Memory of a guest.
pub(crate) trait Memory {
    fn load_u8(&self, addr: u32) -> Result<u8, Fault>;
    fn load_u16(&self, addr: u32) -> Result<u16, Fault>;
    fn load_u32(&self, addr: u32) -> Result<u32, Fault>;
    fn store_u8(&self, addr: u32, value: u8) -> Result<(), Fault>;
    fn store_u16(&self, addr: u32, value: u16) -> Result<(), Fault>;
    fn store_u32(&self, addr: u32, value: u32) -> Result<(), Fault>;

    /// Stores `new` if the word at `addr` is `expected`, in one step; returns the word that was
    /// there.
    fn compare_exchange(&self, addr: u32, expected: u32, new: u32) -> Result<u32, Fault>;

    /// Changes a word in one step; returns what it was.
    fn update(&self, addr: u32, change: impl Fn(u32) -> u32) -> Result<u32, Fault> {
        let mut seen = self.load_u32(addr)?;
        loop {
            let found = self.compare_exchange(addr, seen, change(seen))?;
            if found == seen {
                return Ok(seen);
            }
            seen = found;
        }
    }

    /// Orders all accesses before the call before all that follow it.
    fn fence(&self);
}

/// Where instructions come from.
pub(crate) trait Code {
    /// Reads the instruction at `pc`; a compressed one is in the low 16 bits.
    ///
    /// # Errors
    ///
    /// Where the guest may not execute.
    fn fetch(&self, pc: u32) -> Result<u32, Fault>;
}

/// Reads and decodes the instruction at `pc`.
///
/// # Errors
///
/// [`Trap::Fault`] and [`Trap::Illegal`].
pub(crate) fn decode_at<C: Code>(code: &C, pc: u32) -> Result<Inst, Trap> {
    let bits = code.fetch(pc).map_err(Trap::Fault)?;
    decode::decode(bits).ok_or(Trap::Illegal)
}

/// The address of no reservation: one that no word can have.
///
/// A reservation ends where the hart itself accesses memory, has a fence, jumps through a register
/// or traps: the specification lets `sc.w` fail then. So between `lr.w` and an `sc.w` that succeeds
/// a hart sees nothing of memory but the one word, as if it had been read just before it is
/// written. That others changed it meanwhile and changed it back makes no difference, and to compare
/// words is enough.
pub(crate) const UNRESERVED: u32 = 1;

/// The registers of a hart, the specification's word for what a thread runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Hart {
    pub(crate) x: [u32; 32],
    pub(crate) pc: u32,
    /// What `lr.w` reserved, or [`UNRESERVED`].
    pub(crate) reserved: u32,
    /// The word that `lr.w` found there.
    pub(crate) reserved_word: u32,
}

impl Hart {
    /// Makes the registers of a hart that is to run from `pc` on.
    pub(crate) const fn new(pc: u32) -> Self {
        Self {
            x: [0; 32],
            pc,
            reserved: UNRESERVED,
            reserved_word: 0,
        }
    }

    #[inline(always)]
    pub(crate) fn get(&self, register: u8) -> u32 {
        self.x[usize::from(register & 31)]
    }

    #[inline(always)]
    pub(crate) fn set(&mut self, register: u8, value: u32) {
        self.x[usize::from(register & 31)] = value;
        self.x[0] = 0;
    }
}

/// Returns the high 32 bits.
#[inline(always)]
fn high(product: i64) -> u32 {
    let [_, _, _, _, a, b, c, d] = product.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Divides as the specification says: by zero gives all ones, and the one overflow the dividend.
pub(crate) fn div(a: u32, b: u32) -> u32 {
    if b == 0 {
        return u32::MAX;
    }
    a.cast_signed()
        .wrapping_div(b.cast_signed())
        .cast_unsigned()
}

/// The remainder: of a division by zero the dividend, of the one overflow zero.
pub(crate) fn rem(a: u32, b: u32) -> u32 {
    if b == 0 {
        return a;
    }
    a.cast_signed()
        .wrapping_rem(b.cast_signed())
        .cast_unsigned()
}

/// What an instruction without effects on anything but `rd` computes of its operands; `None` for
/// other instructions. `b` is `rs2`, or the immediate of an instruction that has one.
#[inline(always)]
pub(crate) fn compute(op: Op, a: u32, b: u32) -> Option<u32> {
    let (sa, sb) = (a.cast_signed(), b.cast_signed());
    Some(match op {
        Op::Add | Op::Addi => a.wrapping_add(b),
        Op::Sub => a.wrapping_sub(b),
        Op::Slt | Op::Slti => (sa < sb).into(),
        Op::Sltu | Op::Sltiu => (a < b).into(),
        Op::Xor | Op::Xori => a ^ b,
        Op::Or | Op::Ori => a | b,
        Op::And | Op::Andi => a & b,
        Op::Sll | Op::Slli => a.wrapping_shl(b),
        Op::Srl | Op::Srli => a.wrapping_shr(b),
        Op::Sra | Op::Srai => sa.wrapping_shr(b).cast_unsigned(),
        Op::Mul => a.wrapping_mul(b),
        Op::Mulh => high(i64::from(sa) * i64::from(sb)),
        Op::Mulhsu => high(i64::from(sa) * i64::from(b)),
        Op::Mulhu => high((u64::from(a) * u64::from(b)).cast_signed()),
        Op::Div => div(a, b),
        Op::Divu => a.checked_div(b).unwrap_or(u32::MAX),
        Op::Rem => rem(a, b),
        Op::Remu => a.checked_rem(b).unwrap_or(a),
        _ => return None,
    })
}

/// Says whether a branch is taken.
#[inline(always)]
fn is_taken(op: Op, a: u32, b: u32) -> bool {
    match op {
        Op::Beq => a == b,
        Op::Bne => a != b,
        Op::Blt => a.cast_signed() < b.cast_signed(),
        Op::Bge => a.cast_signed() >= b.cast_signed(),
        Op::Bltu => a < b,
        _ => a >= b,
    }
}

/// What an atomic operation makes of a word.
fn amo(op: Op, word: u32, b: u32) -> u32 {
    let (sa, sb) = (word.cast_signed(), b.cast_signed());
    match op {
        Op::AmoAdd => word.wrapping_add(b),
        Op::AmoXor => word ^ b,
        Op::AmoAnd => word & b,
        Op::AmoOr => word | b,
        Op::AmoMin => sa.min(sb).cast_unsigned(),
        Op::AmoMax => sa.max(sb).cast_unsigned(),
        Op::AmoMinu => word.min(b),
        Op::AmoMaxu => word.max(b),
        _ => b,
    }
}

/// Runs one instruction, which lies at `pc`; returns where the next one lies. Where it traps, no
/// register has changed; a reservation does not outlast a trap.
#[inline(always)]
pub(crate) fn step<M: Memory>(
    hart: &mut Hart,
    memory: &M,
    inst: &Inst,
    pc: u32,
) -> Result<u32, Trap> {
    let next = inst.next(pc);
    let imm = inst.imm.cast_unsigned();
    let a = hart.get(inst.rs1);
    let b = hart.get(inst.rs2);
    let addr = a.wrapping_add(imm);
    match inst.op {
        Op::Lui => hart.set(inst.rd, imm),
        Op::Auipc => hart.set(inst.rd, pc.wrapping_add(imm)),
        Op::Jal => {
            hart.set(inst.rd, next);
            return Ok(inst.target(pc));
        }
        Op::Jalr => {
            hart.reserved = UNRESERVED;
            hart.set(inst.rd, next);
            return Ok(addr & !1);
        }
        Op::Beq | Op::Bne | Op::Blt | Op::Bge | Op::Bltu | Op::Bgeu => {
            if is_taken(inst.op, a, b) {
                return Ok(inst.target(pc));
            }
        }
        Op::Lb => {
            hart.reserved = UNRESERVED;
            let byte = memory.load_u8(addr).map_err(Trap::Fault)?;
            hart.set(inst.rd, i32::from(byte.cast_signed()).cast_unsigned());
        }
        Op::Lh => {
            hart.reserved = UNRESERVED;
            let half = memory.load_u16(addr).map_err(Trap::Fault)?;
            hart.set(inst.rd, i32::from(half.cast_signed()).cast_unsigned());
        }
        Op::Lw => {
            hart.reserved = UNRESERVED;
            hart.set(inst.rd, memory.load_u32(addr).map_err(Trap::Fault)?);
        }
        Op::Lbu => {
            hart.reserved = UNRESERVED;
            hart.set(inst.rd, memory.load_u8(addr).map_err(Trap::Fault)?.into());
        }
        Op::Lhu => {
            hart.reserved = UNRESERVED;
            hart.set(inst.rd, memory.load_u16(addr).map_err(Trap::Fault)?.into());
        }
        Op::Sb => {
            hart.reserved = UNRESERVED;
            let stored = memory.store_u8(addr, b.to_le_bytes()[0]);
            stored.map_err(Trap::Fault)?;
        }
        Op::Sh => {
            hart.reserved = UNRESERVED;
            let [low, high, ..] = b.to_le_bytes();
            let half = u16::from_le_bytes([low, high]);
            memory.store_u16(addr, half).map_err(Trap::Fault)?;
        }
        Op::Sw => {
            hart.reserved = UNRESERVED;
            memory.store_u32(addr, b).map_err(Trap::Fault)?;
        }
        Op::Addi
        | Op::Slti
        | Op::Sltiu
        | Op::Xori
        | Op::Ori
        | Op::Andi
        | Op::Slli
        | Op::Srli
        | Op::Srai => {
            if let Some(value) = compute(inst.op, a, imm) {
                hart.set(inst.rd, value);
            }
        }
        Op::Add
        | Op::Sub
        | Op::Sll
        | Op::Slt
        | Op::Sltu
        | Op::Xor
        | Op::Srl
        | Op::Sra
        | Op::Or
        | Op::And
        | Op::Mul
        | Op::Mulh
        | Op::Mulhsu
        | Op::Mulhu
        | Op::Div
        | Op::Divu
        | Op::Rem
        | Op::Remu => {
            if let Some(value) = compute(inst.op, a, b) {
                hart.set(inst.rd, value);
            }
        }
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
        | Op::AmoMaxu => atomic(hart, memory, inst, a, b)?,
        Op::Fence => {
            hart.reserved = UNRESERVED;
            memory.fence();
        }
        Op::FenceI => return Err(Trap::FenceI),
        Op::Ecall => return Err(Trap::Ecall),
        Op::Ebreak => return Err(Trap::Ebreak),
        Op::Thunk => return Err(Trap::Thunk(imm)),
    }
    Ok(next)
}

/// Runs an instruction of the A extension on the word at `addr`.
#[inline(never)]
fn atomic<M: Memory>(
    hart: &mut Hart,
    memory: &M,
    inst: &Inst,
    addr: u32,
    b: u32,
) -> Result<(), Trap> {
    if addr & 3 != 0 {
        return Err(Trap::Misaligned(addr));
    }
    match inst.op {
        Op::LrW => {
            let word = memory.load_u32(addr).map_err(Trap::Fault)?;
            (hart.reserved, hart.reserved_word) = (addr, word);
            hart.set(inst.rd, word);
        }
        Op::ScW => {
            let word = hart.reserved_word;
            let done = hart.reserved == addr
                && memory
                    .compare_exchange(addr, word, b)
                    .map_err(Trap::Fault)?
                    == word;
            hart.reserved = UNRESERVED;
            hart.set(inst.rd, (!done).into());
        }
        op => {
            hart.reserved = UNRESERVED;
            let old = memory.update(addr, |word| amo(op, word, b));
            hart.set(inst.rd, old.map_err(Trap::Fault)?);
        }
    }
    Ok(())
}
