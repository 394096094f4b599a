//! What every instruction does, by examples from its text in the specification, its limits among
//! them; `memory` has those that access it.

mod memory;

use super::{Code, Fault, Hart, Kind, Memory, Trap, decode_at, step};
use crate::{decode::tests::ENCODINGS, inst::Op};
use std::cell::RefCell;

/// Operations with cases of each.
type Table<C> = &'static [(Op, &'static [C])];

/// Where the memory of tests begins.
const BASE: u32 = 0x1000;

/// A little memory. What lies outside faults.
struct Bytes(RefCell<[u8; 64]>);

impl Bytes {
    fn new(bytes: &[u8]) -> Self {
        let mut all = [0; 64];
        all[..bytes.len()].copy_from_slice(bytes);
        Self(RefCell::new(all))
    }

    fn load<const N: usize>(&self, addr: u32) -> Result<[u8; N], Fault> {
        let kind = Kind::Load;
        let at = addr.wrapping_sub(BASE) as usize;
        let bytes = self.0.borrow();
        let found = bytes.get(at..at.saturating_add(N));
        found
            .and_then(|found| found.first_chunk().copied())
            .ok_or(Fault { addr, kind })
    }

    fn store<const N: usize>(&self, addr: u32, value: [u8; N]) -> Result<(), Fault> {
        let kind = Kind::Store;
        let at = addr.wrapping_sub(BASE) as usize;
        let mut bytes = self.0.borrow_mut();
        let found = bytes.get_mut(at..at.saturating_add(N));
        found
            .map(|found| found.copy_from_slice(&value))
            .ok_or(Fault { addr, kind })
    }
}

impl Memory for Bytes {
    fn load_u8(&self, addr: u32) -> Result<u8, Fault> {
        self.load(addr).map(|[byte]| byte)
    }
    fn load_u16(&self, addr: u32) -> Result<u16, Fault> {
        self.load(addr).map(u16::from_le_bytes)
    }
    fn load_u32(&self, addr: u32) -> Result<u32, Fault> {
        self.load(addr).map(u32::from_le_bytes)
    }
    fn store_u8(&self, addr: u32, value: u8) -> Result<(), Fault> {
        self.store(addr, [value])
    }
    fn store_u16(&self, addr: u32, value: u16) -> Result<(), Fault> {
        self.store(addr, value.to_le_bytes())
    }
    fn store_u32(&self, addr: u32, value: u32) -> Result<(), Fault> {
        self.store(addr, value.to_le_bytes())
    }
    fn compare_exchange(&self, addr: u32, expected: u32, new: u32) -> Result<u32, Fault> {
        let found = self.load_u32(addr)?;
        if found == expected {
            self.store_u32(addr, new)?;
        }
        Ok(found)
    }
    fn fence(&self) {}
}

impl Code for Bytes {
    fn fetch(&self, pc: u32) -> Result<u32, Fault> {
        self.load_u32(pc)
    }
}

/// Returns the encoding that an assembler gave for an operation, with other operands.
fn encoded(op: Op) -> u32 {
    let of = |(bits, _, found, ..): &&(u32, &str, Op, [u8; 3], i32)| *found == op && bits & 3 == 3;
    ENCODINGS.iter().find(of).expect("every operation").0
}

/// Puts an immediate of the I format in the place of another.
fn with_imm(bits: u32, imm: i32) -> u32 {
    bits & 0x000f_ffff | imm.cast_unsigned() << 20
}

/// Runs one instruction at `BASE` on `a0`, `a1` and `a2`; returns the result and where it leads.
fn run_at(bits: u32, hart: &mut Hart, memory: &Bytes) -> Result<u32, Trap> {
    let code = Bytes::new(&bits.to_le_bytes());
    let inst = decode_at(&code, BASE)?;
    let next = step(hart, memory, &inst, BASE);
    assert_eq!(hart.x[0], 0);
    next
}

/// Computes `a0` of `a1` and `a2`.
fn computed(bits: u32, a: u32, b: u32) -> u32 {
    let mut hart = Hart::new(BASE);
    (hart.x[11], hart.x[12]) = (a, b);
    let next = run_at(bits, &mut hart, &Bytes::new(&[]));
    assert_eq!(next, Ok(BASE + 4));
    hart.x[10]
}

const MIN: u32 = 0x8000_0000;
const MAX: u32 = 0x7fff_ffff;
const ONES: u32 = 0xffff_ffff;

#[test]
fn operations_on_two_registers() {
    let table: Table<(u32, u32, u32)> = &[
        (Op::Add, &[(1, 2, 3), (ONES, 1, 0), (MAX, 1, MIN)]),
        (Op::Sub, &[(1, 2, ONES), (MIN, 1, MAX), (5, 5, 0)]),
        (Op::Sll, &[(1, 31, MIN), (1, 32, 1), (3, 0xffff_ff01, 6)]),
        (
            Op::Slt,
            &[(MIN, 0, 1), (0, MIN, 0), (ONES, 0, 1), (4, 4, 0)],
        ),
        (
            Op::Sltu,
            &[(MIN, 0, 0), (0, MIN, 1), (0, ONES, 1), (4, 4, 0)],
        ),
        (Op::Xor, &[(0xf0f0, 0xff00, 0x0ff0), (ONES, ONES, 0)]),
        (Op::Srl, &[(MIN, 31, 1), (MIN, 32, MIN), (ONES, 0x21, MAX)]),
        (
            Op::Sra,
            &[(MIN, 31, ONES), (MAX, 30, 1), (MIN, 33, 0xc000_0000)],
        ),
        (Op::Or, &[(0xf0, 0x0f, 0xff), (0, 0, 0)]),
        (Op::And, &[(0xf0, 0x3c, 0x30), (ONES, MIN, MIN)]),
        (
            Op::Mul,
            &[
                (7, 6, 42),
                (ONES, ONES, 1),
                (MIN, 2, 0),
                (0x1_0001, 0x1_0001, 0x2_0001),
            ],
        ),
        (
            Op::Mulh,
            &[
                (ONES, ONES, 0),
                (MIN, MIN, 0x4000_0000),
                (MAX, MAX, 0x3fff_ffff),
                (ONES, 1, ONES),
            ],
        ),
        (
            Op::Mulhsu,
            &[
                (ONES, ONES, ONES),
                (MIN, ONES, MIN),
                (MAX, ONES, 0x7fff_fffe),
                (1, ONES, 0),
            ],
        ),
        (
            Op::Mulhu,
            &[(ONES, ONES, 0xffff_fffe), (MIN, 2, 1), (MAX, 2, 0)],
        ),
        (
            Op::Div,
            &[
                (7, 2, 3),
                (0xffff_fff9, 2, 0xffff_fffd),
                (5, 0, ONES),
                (MIN, ONES, MIN),
                (MIN, 0, ONES),
            ],
        ),
        (
            Op::Divu,
            &[(7, 2, 3), (ONES, 2, MAX), (5, 0, ONES), (MIN, ONES, 0)],
        ),
        (
            Op::Rem,
            &[
                (7, 2, 1),
                (0xffff_fff9, 2, ONES),
                (5, 0, 5),
                (MIN, ONES, 0),
                (7, 0xffff_fffe, 1),
            ],
        ),
        (
            Op::Remu,
            &[(7, 2, 1), (ONES, 2, 1), (5, 0, 5), (MIN, ONES, MIN)],
        ),
    ];
    for (op, cases) in table {
        for &(a, b, expected) in *cases {
            let bits = match op {
                // Its encoding above has other registers.
                Op::And => 0x00c5_f533,
                op => encoded(*op),
            };
            assert_eq!(computed(bits, a, b), expected, "{op:?} {a:#x} {b:#x}");
        }
    }
}

#[test]
fn operations_with_an_immediate() {
    let table: Table<(u32, i32, u32)> = &[
        (
            Op::Addi,
            &[(1, -2048, 0xffff_f801), (MAX, 1, MIN), (0, 2047, 2047)],
        ),
        (
            Op::Slti,
            &[(ONES, 0, 1), (0, -1, 0), (MIN, -2048, 1), (5, 5, 0)],
        ),
        (
            Op::Sltiu,
            &[(0, 1, 1), (5, -1, 1), (ONES, -1, 0), (0, 0, 0)],
        ),
        (Op::Xori, &[(0xff, -1, 0xffff_ff00), (1, 1, 0)]),
        (Op::Ori, &[(0xf0, 0xf, 0xff), (0, -2048, 0xffff_f800)]),
        (
            Op::Andi,
            &[(ONES, 0x7ff, 0x7ff), (0x1234_5678, -16, 0x1234_5670)],
        ),
        (Op::Slli, &[(1, 31, MIN), (ONES, 0, ONES)]),
        (Op::Srli, &[(MIN, 31, 1), (ONES, 1, MAX)]),
        (
            Op::Srai,
            &[(MIN, 31 | 0x400, ONES), (MAX, 1 | 0x400, 0x3fff_ffff)],
        ),
    ];
    for (op, cases) in table {
        for &(a, imm, expected) in *cases {
            let bits = with_imm(encoded(*op), imm);
            assert_eq!(computed(bits, a, 0), expected, "{op:?} {a:#x} {imm}");
        }
    }
}

#[test]
fn constants_and_addresses() {
    assert_eq!(computed(0x8000_0537, 0, 0), MIN); // lui a0, 0x80000
    assert_eq!(computed(0xffff_f517, 0, 0), 0); // auipc a0, 0xfffff, at 0x1000
    assert_eq!(computed(0x7fff_f517, 0, 0), MIN); // auipc a0, 0x7ffff
    // lui x0 changes nothing.
    assert_eq!(computed(0x8000_0037, 0, 0), 0);
}

#[test]
fn branches() {
    let table: Table<(u32, u32, bool)> = &[
        (Op::Beq, &[(1, 1, true), (1, 2, false)]),
        (Op::Bne, &[(1, 1, false), (1, 2, true)]),
        (
            Op::Blt,
            &[
                (ONES, 0, true),
                (0, ONES, false),
                (1, 1, false),
                (MIN, MAX, true),
            ],
        ),
        (
            Op::Bge,
            &[
                (ONES, 0, false),
                (0, ONES, true),
                (1, 1, true),
                (MIN, MAX, false),
            ],
        ),
        (
            Op::Bltu,
            &[(ONES, 0, false), (0, ONES, true), (1, 1, false)],
        ),
        (Op::Bgeu, &[(ONES, 0, true), (0, ONES, false), (1, 1, true)]),
    ];
    for (op, cases) in table {
        for &(a, b, taken) in *cases {
            // Operands a1 and a2, sixteen bytes back.
            let bits = encoded(*op) & 0x707f | 11 << 15 | 12 << 20;
            let bits = bits | 0x7f << 25 | 0b1000 << 8 | 1 << 7;
            let mut hart = Hart::new(BASE);
            (hart.x[11], hart.x[12]) = (a, b);
            let before = hart.clone();
            let next = run_at(bits, &mut hart, &Bytes::new(&[]));
            let expected = if taken { BASE - 16 } else { BASE + 4 };
            assert_eq!(next, Ok(expected), "{op:?} {a:#x} {b:#x}");
            assert_eq!(hart, before);
        }
    }
}

#[test]
fn jumps() {
    let memory = Bytes::new(&[]);
    let mut hart = Hart::new(BASE);
    // jal ra, 1048574
    let next = run_at(0x7fff_f0ef, &mut hart, &memory);
    assert_eq!((next, hart.x[1]), (Ok(BASE + 1_048_574), BASE + 4));
    // jalr a0, 3(a0): the target is computed before the link is written, and is even.
    hart.x[10] = 0x2000;
    let next = run_at(0x0035_0567, &mut hart, &memory);
    assert_eq!((next, hart.x[10]), (Ok(0x2002), BASE + 4));
    // jalr x0, -2048(a1) wraps.
    hart.x[11] = 0;
    let next = run_at(0x8005_8067, &mut hart, &memory);
    assert_eq!(next, Ok(0xffff_f800));
    // c.jalr links behind two bytes, and c.jr does not link.
    hart.x[10] = 0x3000;
    let next = run_at(0x9502, &mut hart, &memory);
    assert_eq!((next, hart.x[1]), (Ok(0x3000), BASE + 2));
    hart.x[1] = 7;
    hart.x[5] = 0x4000;
    assert_eq!(run_at(0x8282, &mut hart, &memory), Ok(0x4000));
    assert_eq!(hart.x[1], 7);
}

#[test]
fn what_leaves_guest_code() {
    let memory = Bytes::new(&[]);
    let mut hart = Hart::new(BASE);
    let mut trap = |bits| run_at(bits, &mut hart, &memory);
    assert_eq!(trap(encoded(Op::Ecall)), Err(Trap::Ecall));
    assert_eq!(trap(encoded(Op::Ebreak)), Err(Trap::Ebreak));
    assert_eq!(trap(0x9002), Err(Trap::Ebreak));
    assert_eq!(trap(encoded(Op::FenceI)), Err(Trap::FenceI));
    assert_eq!(trap(encoded(Op::Thunk)), Err(Trap::Thunk(5)));
    assert_eq!(trap(0), Err(Trap::Illegal));
    assert_eq!(trap(encoded(Op::Fence)), Ok(BASE + 4));
    let fault = Fault {
        addr: 0,
        kind: Kind::Load,
    };
    assert_eq!(decode_at(&memory, 0), Err(Trap::Fault(fault)));
}
