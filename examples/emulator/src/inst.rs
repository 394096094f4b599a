//! Instructions as the interpreter and the code generators see them: one form for all lengths.

/// What an instruction does. Compressed instructions have the operation that they abbreviate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Op {
    Lui,
    Auipc,
    Jal,
    Jalr,
    Beq,
    Bne,
    Blt,
    Bge,
    Bltu,
    Bgeu,
    Lb,
    Lh,
    Lw,
    Lbu,
    Lhu,
    Sb,
    Sh,
    Sw,
    Addi,
    Slti,
    Sltiu,
    Xori,
    Ori,
    Andi,
    Slli,
    Srli,
    Srai,
    Add,
    Sub,
    Sll,
    Slt,
    Sltu,
    Xor,
    Srl,
    Sra,
    Or,
    And,
    Mul,
    Mulh,
    Mulhsu,
    Mulhu,
    Div,
    Divu,
    Rem,
    Remu,
    LrW,
    ScW,
    AmoSwap,
    AmoAdd,
    AmoXor,
    AmoAnd,
    AmoOr,
    AmoMin,
    AmoMax,
    AmoMinu,
    AmoMaxu,
    /// Orders memory accesses; the immediate is the instruction's `pred` and `succ`.
    Fence,
    /// Makes stores to instructions visible to instruction fetches.
    FenceI,
    Ecall,
    Ebreak,
    /// Calls a function of the host, by its number: opcode *custom-0*, which the specification
    /// keeps free for such uses.
    Thunk,
}

/// A decoded instruction. Fields that an operation does not have are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inst {
    pub(crate) op: Op,
    pub(crate) rd: u8,
    pub(crate) rs1: u8,
    pub(crate) rs2: u8,
    /// The length in bytes: 2 or 4.
    pub(crate) len: u8,
    /// The immediate, extended to 32 bits; of branches and jumps, the distance from the
    /// instruction.
    pub(crate) imm: i32,
}

impl Inst {
    /// Says whether the instruction may lead elsewhere than to the next one, or leaves guest code.
    pub(crate) const fn ends_block(&self) -> bool {
        matches!(
            self.op,
            Op::Jal | Op::Jalr | Op::Ecall | Op::Ebreak | Op::FenceI | Op::Thunk
        ) || self.is_branch()
    }

    /// Says whether the instruction is a conditional branch.
    pub(crate) const fn is_branch(&self) -> bool {
        matches!(
            self.op,
            Op::Beq | Op::Bne | Op::Blt | Op::Bge | Op::Bltu | Op::Bgeu
        )
    }

    /// Says whether a reservation of the hart's ends with the instruction, unless the instruction
    /// is the one that makes or uses it.
    pub(crate) const fn ends_reservation(&self) -> bool {
        matches!(
            self.op,
            Op::Jalr | Op::Fence | Op::FenceI | Op::Ecall | Op::Ebreak | Op::Thunk
        ) || self.is_load_or_store()
            || self.is_amo()
    }

    /// Says whether the instruction is one of the A extension.
    pub(crate) const fn is_atomic(&self) -> bool {
        matches!(self.op, Op::LrW | Op::ScW) || self.is_amo()
    }

    const fn is_load_or_store(&self) -> bool {
        matches!(
            self.op,
            Op::Lb | Op::Lh | Op::Lw | Op::Lbu | Op::Lhu | Op::Sb | Op::Sh | Op::Sw
        )
    }

    const fn is_amo(&self) -> bool {
        matches!(
            self.op,
            Op::AmoSwap
                | Op::AmoAdd
                | Op::AmoXor
                | Op::AmoAnd
                | Op::AmoOr
                | Op::AmoMin
                | Op::AmoMax
                | Op::AmoMinu
                | Op::AmoMaxu
        )
    }

    /// Returns where a branch or `jal` at `pc` leads.
    pub(crate) const fn target(&self, pc: u32) -> u32 {
        pc.wrapping_add_signed(self.imm)
    }

    /// Returns the address of the next instruction.
    pub(crate) const fn next(&self, pc: u32) -> u32 {
        pc.wrapping_add(self.len as u32)
    }
}
