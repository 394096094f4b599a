//! Bits to instructions: RV32I, M, A and C, as the RISC-V unprivileged specification has them
//! (chapters "RV32I", "M", "A", "C" and "RV32/64G Instruction Set Listings").

#[cfg(test)]
#[path = "decode/tests.rs"]
pub(crate) mod tests;

use crate::inst::{Inst, Op};

/// Returns how many bytes the instruction with these low 16 bits has.
pub(crate) const fn len_bytes(low: u16) -> u32 {
    if low & 3 == 3 { 4 } else { 2 }
}

/// Decodes an instruction, of whose bits a compressed one has the low 16. `None` where RV32IMAC has
/// no such instruction.
pub(crate) fn decode(bits: u32) -> Option<Inst> {
    if bits & 3 == 3 {
        wide(bits)
    } else {
        compressed(bits & 0xffff)
    }
}

/// Returns `len` bits of `bits` from bit `at` on.
const fn field(bits: u32, at: u32, len: u32) -> u32 {
    (bits >> at) & ((1 << len) - 1)
}

/// Extends a number of `len` bits by its sign.
const fn signed(bits: u32, len: u32) -> i32 {
    (bits << (32 - len)).cast_signed() >> (32 - len)
}

/// Returns the register whose number is in the five bits from `at` on.
fn register(bits: u32, at: u32) -> u8 {
    field(bits, at, 5).to_le_bytes()[0]
}

/// Returns the register of the eight that three bits can name.
fn popular(bits: u32, at: u32) -> u8 {
    8 + field(bits, at, 3).to_le_bytes()[0]
}

/// Gathers an immediate: `(from, len, to)` moves bits `from..from + len` to bit `to`.
fn gather(bits: u32, parts: &[(u32, u32, u32)]) -> u32 {
    let place = |&(from, len, to): &(u32, u32, u32)| field(bits, from, len) << to;
    parts.iter().map(place).fold(0, |all, part| all | part)
}

fn wide(bits: u32) -> Option<Inst> {
    let (funct3, funct7) = (field(bits, 12, 3), field(bits, 25, 7));
    let (rd, rs1, rs2) = (register(bits, 7), register(bits, 15), register(bits, 20));
    let inst = |op, rd, rs1, rs2, imm| {
        Some(Inst {
            op,
            rd,
            rs1,
            rs2,
            len: 4,
            imm,
        })
    };
    let imm_i = bits.cast_signed() >> 20;
    let imm_u = (bits & 0xffff_f000).cast_signed();
    match field(bits, 2, 5) {
        0b01101 => inst(Op::Lui, rd, 0, 0, imm_u),
        0b00101 => inst(Op::Auipc, rd, 0, 0, imm_u),
        0b11011 => {
            let imm = gather(bits, &[(31, 1, 20), (12, 8, 12), (20, 1, 11), (21, 10, 1)]);
            inst(Op::Jal, rd, 0, 0, signed(imm, 21))
        }
        0b11001 if funct3 == 0 => inst(Op::Jalr, rd, rs1, 0, imm_i),
        0b11000 => {
            let op = match funct3 {
                0 => Op::Beq,
                1 => Op::Bne,
                4 => Op::Blt,
                5 => Op::Bge,
                6 => Op::Bltu,
                7 => Op::Bgeu,
                _ => return None,
            };
            let imm = gather(bits, &[(31, 1, 12), (7, 1, 11), (25, 6, 5), (8, 4, 1)]);
            inst(op, 0, rs1, rs2, signed(imm, 13))
        }
        0b00000 => {
            let op = match funct3 {
                0 => Op::Lb,
                1 => Op::Lh,
                2 => Op::Lw,
                4 => Op::Lbu,
                5 => Op::Lhu,
                _ => return None,
            };
            inst(op, rd, rs1, 0, imm_i)
        }
        0b01000 => {
            let op = match funct3 {
                0 => Op::Sb,
                1 => Op::Sh,
                2 => Op::Sw,
                _ => return None,
            };
            let imm = gather(bits, &[(25, 7, 5), (7, 5, 0)]);
            inst(op, 0, rs1, rs2, signed(imm, 12))
        }
        0b00100 => {
            let shift = field(bits, 20, 5).cast_signed();
            match (funct3, funct7) {
                (0, _) => inst(Op::Addi, rd, rs1, 0, imm_i),
                (2, _) => inst(Op::Slti, rd, rs1, 0, imm_i),
                (3, _) => inst(Op::Sltiu, rd, rs1, 0, imm_i),
                (4, _) => inst(Op::Xori, rd, rs1, 0, imm_i),
                (6, _) => inst(Op::Ori, rd, rs1, 0, imm_i),
                (7, _) => inst(Op::Andi, rd, rs1, 0, imm_i),
                (1, 0) => inst(Op::Slli, rd, rs1, 0, shift),
                (5, 0) => inst(Op::Srli, rd, rs1, 0, shift),
                (5, 0x20) => inst(Op::Srai, rd, rs1, 0, shift),
                _ => None,
            }
        }
        0b01100 => {
            let op = match (funct7, funct3) {
                (0, 0) => Op::Add,
                (0x20, 0) => Op::Sub,
                (0, 1) => Op::Sll,
                (0, 2) => Op::Slt,
                (0, 3) => Op::Sltu,
                (0, 4) => Op::Xor,
                (0, 5) => Op::Srl,
                (0x20, 5) => Op::Sra,
                (0, 6) => Op::Or,
                (0, 7) => Op::And,
                (1, 0) => Op::Mul,
                (1, 1) => Op::Mulh,
                (1, 2) => Op::Mulhsu,
                (1, 3) => Op::Mulhu,
                (1, 4) => Op::Div,
                (1, 5) => Op::Divu,
                (1, 6) => Op::Rem,
                (1, 7) => Op::Remu,
                _ => return None,
            };
            inst(op, rd, rs1, rs2, 0)
        }
        0b01011 if funct3 == 2 => {
            // Bits 25 and 26 ask for an order; every operation here has the strongest one.
            let op = match field(bits, 27, 5) {
                0b00010 if rs2 == 0 => Op::LrW,
                0b00011 => Op::ScW,
                0b00001 => Op::AmoSwap,
                0b00000 => Op::AmoAdd,
                0b00100 => Op::AmoXor,
                0b01100 => Op::AmoAnd,
                0b01000 => Op::AmoOr,
                0b10000 => Op::AmoMin,
                0b10100 => Op::AmoMax,
                0b11000 => Op::AmoMinu,
                0b11100 => Op::AmoMaxu,
                _ => return None,
            };
            inst(op, rd, rs1, rs2, 0)
        }
        // Registers and modes that are reserved are ignored, as the specification asks.
        0b00011 if funct3 == 0 => inst(Op::Fence, 0, 0, 0, field(bits, 20, 8).cast_signed()),
        0b00011 if funct3 == 1 => inst(Op::FenceI, 0, 0, 0, 0),
        0b11100 if bits == 0x0000_0073 => inst(Op::Ecall, 0, 0, 0, 0),
        0b11100 if bits == 0x0010_0073 => inst(Op::Ebreak, 0, 0, 0, 0),
        0b00010 if funct3 == 0 && rd == 0 && rs1 == 0 => inst(Op::Thunk, 0, 0, 0, imm_i),
        _ => None,
    }
}

fn compressed(bits: u32) -> Option<Inst> {
    let inst = |op, rd, rs1, rs2, imm: u32| {
        Some(Inst {
            op,
            rd,
            rs1,
            rs2,
            len: 2,
            imm: imm.cast_signed(),
        })
    };
    let extend = |imm, len| signed(imm, len).cast_unsigned();
    let (rd, rs2) = (register(bits, 7), register(bits, 2));
    let (low, high) = (popular(bits, 2), popular(bits, 7));
    let imm6 = gather(bits, &[(12, 1, 5), (2, 5, 0)]);
    let word = || gather(bits, &[(10, 3, 3), (6, 1, 2), (5, 1, 6)]);
    let jump = || {
        let parts = [
            (12, 1, 11),
            (11, 1, 4),
            (9, 2, 8),
            (8, 1, 10),
            (7, 1, 6),
            (6, 1, 7),
            (3, 3, 1),
            (2, 1, 5),
        ];
        extend(gather(bits, &parts), 12)
    };
    let branch = || {
        let parts = [(12, 1, 8), (10, 2, 3), (5, 2, 6), (3, 2, 1), (2, 1, 5)];
        extend(gather(bits, &parts), 9)
    };
    match (field(bits, 0, 2), field(bits, 13, 3)) {
        (0, 0b000) => match gather(bits, &[(11, 2, 4), (7, 4, 6), (6, 1, 2), (5, 1, 3)]) {
            0 => None,
            imm => inst(Op::Addi, low, 2, 0, imm),
        },
        (0, 0b010) => inst(Op::Lw, low, high, 0, word()),
        (0, 0b110) => inst(Op::Sw, 0, high, low, word()),
        (1, 0b000) => inst(Op::Addi, rd, rd, 0, extend(imm6, 6)),
        (1, 0b001) => inst(Op::Jal, 1, 0, 0, jump()),
        (1, 0b010) => inst(Op::Addi, rd, 0, 0, extend(imm6, 6)),
        (1, 0b011) if imm6 == 0 => None,
        (1, 0b011) if rd == 2 => {
            let imm = gather(
                bits,
                &[(12, 1, 9), (6, 1, 4), (5, 1, 6), (3, 2, 7), (2, 1, 5)],
            );
            inst(Op::Addi, 2, 2, 0, extend(imm, 10))
        }
        (1, 0b011) => inst(Op::Lui, rd, 0, 0, extend(imm6, 6) << 12),
        (1, 0b100) => match (field(bits, 10, 2), field(bits, 12, 1), field(bits, 5, 2)) {
            (0, 0, _) => inst(Op::Srli, high, high, 0, imm6),
            (1, 0, _) => inst(Op::Srai, high, high, 0, imm6),
            (2, _, _) => inst(Op::Andi, high, high, 0, extend(imm6, 6)),
            (3, 0, 0) => inst(Op::Sub, high, high, low, 0),
            (3, 0, 1) => inst(Op::Xor, high, high, low, 0),
            (3, 0, 2) => inst(Op::Or, high, high, low, 0),
            (3, 0, 3) => inst(Op::And, high, high, low, 0),
            _ => None,
        },
        (1, 0b101) => inst(Op::Jal, 0, 0, 0, jump()),
        (1, 0b110) => inst(Op::Beq, 0, high, 0, branch()),
        (1, 0b111) => inst(Op::Bne, 0, high, 0, branch()),
        // Shifts by 32 and more are for wider registers.
        (2, 0b000) if imm6 < 32 => inst(Op::Slli, rd, rd, 0, imm6),
        (2, 0b010) if rd != 0 => {
            let imm = gather(bits, &[(12, 1, 5), (4, 3, 2), (2, 2, 6)]);
            inst(Op::Lw, rd, 2, 0, imm)
        }
        (2, 0b100) => match (field(bits, 12, 1), rd, rs2) {
            (0, 0, 0) => None,
            (0, _, 0) => inst(Op::Jalr, 0, rd, 0, 0),
            (0, _, _) => inst(Op::Add, rd, 0, rs2, 0),
            (_, 0, 0) => inst(Op::Ebreak, 0, 0, 0, 0),
            (_, _, 0) => inst(Op::Jalr, 1, rd, 0, 0),
            (_, _, _) => inst(Op::Add, rd, rd, rs2, 0),
        },
        (2, 0b110) => {
            let imm = gather(bits, &[(9, 4, 2), (7, 2, 6)]);
            inst(Op::Sw, 0, 2, rs2, imm)
        }
        _ => None,
    }
}
