//! Every instruction of RV32IMAC, as an assembler encodes it, with the least and largest
//! immediates; and encodings that are none.

use super::decode;
use crate::inst::Op;

/// Bits, how they are written, the operation, `rd`, `rs1` and `rs2`, and the immediate.
#[rustfmt::skip]
pub(crate) const ENCODINGS: &[(u32, &str, Op, [u8; 3], i32)] = &[
    (0x0808, "c.addi4spn a0, sp, 16", Op::Addi, [10, 2, 0], 16),
    (0x1ffc, "c.addi4spn a5, sp, 1020", Op::Addi, [15, 2, 0], 1020),
    (0x42d0, "c.lw a2, 4(a3)", Op::Lw, [12, 13, 0], 4),
    (0x5ce0, "c.lw s0, 124(s1)", Op::Lw, [8, 9, 0], 124),
    (0xc2b0, "c.sw a2, 64(a3)", Op::Sw, [0, 13, 12], 64),
    (0xdd5c, "c.sw a5, 60(a0)", Op::Sw, [0, 10, 15], 60),
    (0x0001, "c.nop", Op::Addi, [0, 0, 0], 0),
    (0x02fd, "c.addi t0, 31", Op::Addi, [5, 5, 0], 31),
    (0x1901, "c.addi s2, -32", Op::Addi, [18, 18, 0], -32),
    (0x5ffd, "c.li t6, -1", Op::Addi, [31, 0, 0], -1),
    (0x457d, "c.li a0, 31", Op::Addi, [10, 0, 0], 31),
    (0x7101, "c.addi16sp sp, -512", Op::Addi, [2, 2, 0], -512),
    (0x617d, "c.addi16sp sp, 496", Op::Addi, [2, 2, 0], 496),
    (0x65fd, "c.lui a1, 31", Op::Lui, [11, 0, 0], 126976),
    (0x7301, "c.lui t1, 0xfffe0", Op::Lui, [6, 0, 0], -131072),
    (0x817d, "c.srli a0, 31", Op::Srli, [10, 10, 0], 31),
    (0x8585, "c.srai a1, 1", Op::Srai, [11, 11, 0], 1),
    (0x9801, "c.andi s0, -32", Op::Andi, [8, 8, 0], -32),
    (0x8d0d, "c.sub a0, a1", Op::Sub, [10, 10, 11], 0),
    (0x8c25, "c.xor s0, s1", Op::Xor, [8, 8, 9], 0),
    (0x8f5d, "c.or a4, a5", Op::Or, [14, 14, 15], 0),
    (0x8ef1, "c.and a3, a2", Op::And, [13, 13, 12], 0),
    (0x0efe, "c.slli t4, 31", Op::Slli, [29, 29, 0], 31),
    (0x50fe, "c.lwsp ra, 252(sp)", Op::Lw, [1, 2, 0], 252),
    (0x4d92, "c.lwsp s11, 4(sp)", Op::Lw, [27, 2, 0], 4),
    (0x8282, "c.jr t0", Op::Jalr, [0, 5, 0], 0),
    (0x89fe, "c.mv s3, t6", Op::Add, [19, 0, 31], 0),
    (0x9002, "c.ebreak", Op::Ebreak, [0, 0, 0], 0),
    (0x9502, "c.jalr a0", Op::Jalr, [1, 10, 0], 0),
    (0x994e, "c.add s2, s3", Op::Add, [18, 18, 19], 0),
    (0xdf86, "c.swsp ra, 252(sp)", Op::Sw, [0, 2, 1], 252),
    (0xc402, "c.swsp x0, 8(sp)", Op::Sw, [0, 2, 0], 8),
    (0xaffd, "c.j 2046", Op::Jal, [0, 0, 0], 2046),
    (0xb001, "c.j -2048", Op::Jal, [0, 0, 0], -2048),
    (0x2109, "c.jal 1026", Op::Jal, [1, 0, 0], 1026),
    (0x3ffd, "c.jal -2", Op::Jal, [1, 0, 0], -2),
    (0xcd7d, "c.beqz a0, 254", Op::Beq, [0, 10, 0], 254),
    (0xd081, "c.beqz s1, -256", Op::Beq, [0, 9, 0], -256),
    (0xe3c9, "c.bnez a5, 130", Op::Bne, [0, 15, 0], 130),
    (0xfc7d, "c.bnez s0, -2", Op::Bne, [0, 8, 0], -2),
    (0x800002b7, "lui t0, 0x80000", Op::Lui, [5, 0, 0], -2147483648),
    (0xfffff517, "auipc a0, 0xfffff", Op::Auipc, [10, 0, 0], -4096),
    (0x7ffff0ef, "jal ra, 1048574", Op::Jal, [1, 0, 0], 1048574),
    (0x8000006f, "jal x0, -1048576", Op::Jal, [0, 0, 0], -1048576),
    (0x80050367, "jalr t1, -2048(a0)", Op::Jalr, [6, 10, 0], -2048),
    (0x7eb50fe3, "beq a0, a1, 4094", Op::Beq, [0, 10, 11], 4094),
    (0x80b51063, "bne a0, a1, -4096", Op::Bne, [0, 10, 11], -4096),
    (0x00944463, "blt s0, s1, 8", Op::Blt, [0, 8, 9], 8),
    (0xfe945ce3, "bge s0, s1, -8", Op::Bge, [0, 8, 9], -8),
    (0x0062e0e3, "bltu t0, t1, 2048", Op::Bltu, [0, 5, 6], 2048),
    (0x0062ff63, "bgeu t0, t1, 30", Op::Bgeu, [0, 5, 6], 30),
    (0xfff58503, "lb a0, -1(a1)", Op::Lb, [10, 11, 0], -1),
    (0x7ff59503, "lh a0, 2047(a1)", Op::Lh, [10, 11, 0], 2047),
    (0x8005a503, "lw a0, -2048(a1)", Op::Lw, [10, 11, 0], -2048),
    (0x0005c503, "lbu a0, 0(a1)", Op::Lbu, [10, 11, 0], 0),
    (0x0025d503, "lhu a0, 2(a1)", Op::Lhu, [10, 11, 0], 2),
    (0xfea58fa3, "sb a0, -1(a1)", Op::Sb, [0, 11, 10], -1),
    (0x7ea59fa3, "sh a0, 2047(a1)", Op::Sh, [0, 11, 10], 2047),
    (0x81ff2023, "sw t6, -2048(t5)", Op::Sw, [0, 30, 31], -2048),
    (0x80058513, "addi a0, a1, -2048", Op::Addi, [10, 11, 0], -2048),
    (0x7ff5a513, "slti a0, a1, 2047", Op::Slti, [10, 11, 0], 2047),
    (0xfff5b513, "sltiu a0, a1, -1", Op::Sltiu, [10, 11, 0], -1),
    (0xfff5c513, "xori a0, a1, -1", Op::Xori, [10, 11, 0], -1),
    (0x0015e513, "ori a0, a1, 1", Op::Ori, [10, 11, 0], 1),
    (0x0ff5f513, "andi a0, a1, 255", Op::Andi, [10, 11, 0], 255),
    (0x01f59513, "slli a0, a1, 31", Op::Slli, [10, 11, 0], 31),
    (0x01f5d513, "srli a0, a1, 31", Op::Srli, [10, 11, 0], 31),
    (0x41f5d513, "srai a0, a1, 31", Op::Srai, [10, 11, 0], 31),
    (0x00c58533, "add a0, a1, a2", Op::Add, [10, 11, 12], 0),
    (0x40c58533, "sub a0, a1, a2", Op::Sub, [10, 11, 12], 0),
    (0x00c59533, "sll a0, a1, a2", Op::Sll, [10, 11, 12], 0),
    (0x00c5a533, "slt a0, a1, a2", Op::Slt, [10, 11, 12], 0),
    (0x00c5b533, "sltu a0, a1, a2", Op::Sltu, [10, 11, 12], 0),
    (0x00c5c533, "xor a0, a1, a2", Op::Xor, [10, 11, 12], 0),
    (0x00c5d533, "srl a0, a1, a2", Op::Srl, [10, 11, 12], 0),
    (0x40c5d533, "sra a0, a1, a2", Op::Sra, [10, 11, 12], 0),
    (0x00c5e533, "or a0, a1, a2", Op::Or, [10, 11, 12], 0),
    (0x01df7fb3, "and t6, t5, t4", Op::And, [31, 30, 29], 0),
    (0x02c58533, "mul a0, a1, a2", Op::Mul, [10, 11, 12], 0),
    (0x02c59533, "mulh a0, a1, a2", Op::Mulh, [10, 11, 12], 0),
    (0x02c5a533, "mulhsu a0, a1, a2", Op::Mulhsu, [10, 11, 12], 0),
    (0x02c5b533, "mulhu a0, a1, a2", Op::Mulhu, [10, 11, 12], 0),
    (0x02c5c533, "div a0, a1, a2", Op::Div, [10, 11, 12], 0),
    (0x02c5d533, "divu a0, a1, a2", Op::Divu, [10, 11, 12], 0),
    (0x02c5e533, "rem a0, a1, a2", Op::Rem, [10, 11, 12], 0),
    (0x02c5f533, "remu a0, a1, a2", Op::Remu, [10, 11, 12], 0),
    (0x1605a52f, "lr.w.aqrl a0, (a1)", Op::LrW, [10, 11, 0], 0),
    (0x1ac5a52f, "sc.w.rl a0, a2, (a1)", Op::ScW, [10, 11, 12], 0),
    (0x0cc5a52f, "amoswap.w.aq a0, a2, (a1)", Op::AmoSwap, [10, 11, 12], 0),
    (0x00c5a52f, "amoadd.w a0, a2, (a1)", Op::AmoAdd, [10, 11, 12], 0),
    (0x20c5a52f, "amoxor.w a0, a2, (a1)", Op::AmoXor, [10, 11, 12], 0),
    (0x60c5a52f, "amoand.w a0, a2, (a1)", Op::AmoAnd, [10, 11, 12], 0),
    (0x40c5a52f, "amoor.w a0, a2, (a1)", Op::AmoOr, [10, 11, 12], 0),
    (0x80c5a52f, "amomin.w a0, a2, (a1)", Op::AmoMin, [10, 11, 12], 0),
    (0xa0c5a52f, "amomax.w a0, a2, (a1)", Op::AmoMax, [10, 11, 12], 0),
    (0xc0c5a52f, "amominu.w a0, a2, (a1)", Op::AmoMinu, [10, 11, 12], 0),
    (0xe6c5a52f, "amomaxu.w.aqrl a0, a2, (a1)", Op::AmoMaxu, [10, 11, 12], 0),
    (0x0310000f, "fence rw, w", Op::Fence, [0, 0, 0], 49),
    (0x0000100f, "fence.i", Op::FenceI, [0, 0, 0], 0),
    (0x00000073, "ecall", Op::Ecall, [0, 0, 0], 0),
    (0x00100073, "ebreak", Op::Ebreak, [0, 0, 0], 0),
    (0x0050_000b, ".insn i 0x0b, 0, x0, x0, 5", Op::Thunk, [0, 0, 0], 5),
];

#[test]
fn every_instruction_is_decoded() {
    for &(bits, text, op, [rd, rs1, rs2], imm) in ENCODINGS {
        let inst = decode(bits).unwrap_or_else(|| panic!("{text}"));
        let found = (inst.op, [inst.rd, inst.rs1, inst.rs2], inst.imm);
        assert_eq!(found, (op, [rd, rs1, rs2], imm), "{text}");
        let len = if bits & 3 == 3 { 4 } else { 2 };
        assert_eq!(inst.len, len, "{text}");
    }
}

#[test]
fn every_operation_has_an_encoding_here() {
    for number in 0..=Op::Thunk as u8 {
        let has = |(_, _, op, ..): &(u32, &str, Op, [u8; 3], i32)| *op as u8 == number;
        assert!(ENCODINGS.iter().any(has), "operation {number}");
    }
}

#[test]
fn what_is_no_instruction_is_refused() {
    let none = [
        0x0000_0000, // all zeros
        0xffff_ffff, // all ones
        0x0000_2007, // flw
        0x0000_3003, // ld
        0x0000_303b, // of RV64
        0x0200_1013, // slli by 32
        0x0000_1067, // jalr with another funct3
        0x0000_2063, // a branch with a funct3 that none has
        0x4000_1033, // sll with sub's funct7
        0x1010_202f, // lr.w with a second source
        0x0000_302f, // amoadd.d
        0x1050_0073, // wfi
        0xc000_2573, // rdcycle
        0x0000_0004, // c.addi4spn with an immediate of zero
        0x0000_6101, // c.addi16sp with an immediate of zero
        0x0000_6281, // c.lui with an immediate of zero
        0x0000_8002, // c.jr x0
        0x0000_4002, // c.lwsp to x0
        0x0000_2000, // c.fld
        0x0000_9c05, // c.subw
        0x0000_1282, // c.slli by 32
        0x0000_9101, // c.srli by 32
    ];
    for bits in none {
        assert_eq!(decode(bits), None, "{bits:08x}");
    }
}

#[test]
fn any_bits_decode_or_are_refused() {
    // All compressed ones, and every 32-bit pattern of opcode and function with some operands.
    for bits in 0..=0xffff {
        let _ = decode(bits);
    }
    let mut bits = 3u32;
    for _ in 0..1_000_000 {
        bits = bits.wrapping_mul(0x915f_77f5).wrapping_add(0x1234_5679) | 3;
        if let Some(inst) = decode(bits) {
            assert!(inst.rd < 32 && inst.rs1 < 32 && inst.rs2 < 32);
        }
    }
}
