//! What instructions do to memory: loads, stores, faults, and the A extension.

use super::{BASE, Bytes, MIN, ONES, encoded, run_at, with_imm};
use crate::{
    inst::Op,
    interpret::{Fault, Hart, Kind, Memory, Trap, UNRESERVED},
};

#[test]
fn loads_and_stores() {
    let memory = Bytes::new(&[0x80, 0xff, 0x34, 0x12, 0xfe]);
    let loads = [
        (Op::Lb, 0, 0xffff_ff80),
        (Op::Lb, 2, 0x34),
        (Op::Lbu, 0, 0x80),
        (Op::Lh, 0, 0xffff_ff80),
        (Op::Lh, 1, 0x34ff),
        (Op::Lhu, 0, 0xff80),
        (Op::Lw, 0, 0x1234_ff80),
        (Op::Lw, 1, 0xfe12_34ff),
    ];
    for (op, offset, expected) in loads {
        let mut hart = Hart::new(BASE);
        hart.x[11] = BASE;
        let bits = with_imm(encoded(op), offset);
        assert_eq!(run_at(bits, &mut hart, &memory), Ok(BASE + 4));
        assert_eq!(hart.x[10], expected, "{op:?} {offset}");
    }
    // sb, sh and sw of a2 at 8(a1) leave what lies around.
    let stores = [
        (0x00c5_8423, 0x0000_00ef_u32),
        (0x00c5_9423, 0x0000_beef),
        (0x00c5_a423, 0xdead_beef),
    ];
    for (bits, expected) in stores {
        let memory = Bytes::new(&[]);
        let mut hart = Hart::new(BASE);
        (hart.x[11], hart.x[12]) = (BASE, 0xdead_beef);
        assert_eq!(run_at(bits, &mut hart, &memory), Ok(BASE + 4));
        assert_eq!(memory.load_u32(BASE + 8), Ok(expected), "{bits:08x}");
        assert_eq!(memory.load_u32(BASE + 4), Ok(0));
        assert_eq!(memory.load_u32(BASE + 12), Ok(0));
    }
}

#[test]
fn accesses_that_fault_change_nothing() {
    let memory = Bytes::new(&[]);
    let mut hart = Hart::new(BASE);
    (hart.x[10], hart.x[11]) = (7, BASE - 4);
    let before = hart.clone();
    let addr = BASE - 4;
    let (load, store) = (Kind::Load, Kind::Store);
    for (bits, kind) in [
        (with_imm(encoded(Op::Lw), 0), load),
        (0x00c5_a023, store),
        (encoded(Op::LrW), load),
        (encoded(Op::AmoAdd), load),
    ] {
        let next = run_at(bits, &mut hart, &memory);
        assert_eq!(next, Err(Trap::Fault(Fault { addr, kind })), "{bits:08x}");
        assert_eq!(hart, before);
    }
    // An address wraps at 4 GiB.
    hart.x[11] = 4;
    let next = run_at(with_imm(encoded(Op::Lw), -8), &mut hart, &memory);
    let addr = 0xffff_fffc;
    assert_eq!(next, Err(Trap::Fault(Fault { addr, kind: load })));
}

#[test]
fn atomic_operations() {
    let table = [
        (Op::AmoSwap, 5, 9, 9),
        (Op::AmoAdd, ONES, 2, 1),
        (Op::AmoXor, 0xff, 0x0f, 0xf0),
        (Op::AmoAnd, 0xfc, 0x3f, 0x3c),
        (Op::AmoOr, 0xf0, 0x0f, 0xff),
        (Op::AmoMin, MIN, 1, MIN),
        (Op::AmoMin, 3, ONES, ONES),
        (Op::AmoMax, MIN, 1, 1),
        (Op::AmoMax, 3, ONES, 3),
        (Op::AmoMinu, MIN, 1, 1),
        (Op::AmoMinu, 3, ONES, 3),
        (Op::AmoMaxu, MIN, 1, MIN),
        (Op::AmoMaxu, 3, ONES, ONES),
    ];
    for (op, word, operand, expected) in table {
        let word: u32 = word;
        let memory = Bytes::new(&word.to_le_bytes());
        let mut hart = Hart::new(BASE);
        (hart.x[11], hart.x[12]) = (BASE, operand);
        assert_eq!(run_at(encoded(op), &mut hart, &memory), Ok(BASE + 4));
        assert_eq!(hart.x[10], word, "{op:?}");
        assert_eq!(memory.load_u32(BASE), Ok(expected), "{op:?}");
        hart.x[11] = BASE + 2;
        let next = run_at(encoded(op), &mut hart, &memory);
        assert_eq!(next, Err(Trap::Misaligned(BASE + 2)), "{op:?}");
    }
}

#[test]
fn reservations() {
    let (lr, sc) = (encoded(Op::LrW), encoded(Op::ScW));
    let memory = Bytes::new(&[1, 0, 0, 0, 1]);
    let mut hart = Hart::new(BASE);
    (hart.x[11], hart.x[12]) = (BASE, 77);
    // Without a reservation nothing is stored.
    assert_eq!(run_at(sc, &mut hart, &memory), Ok(BASE + 4));
    assert_eq!((hart.x[10], memory.load_u32(BASE)), (1, Ok(1)));
    // With one it is, once.
    assert_eq!(run_at(lr, &mut hart, &memory), Ok(BASE + 4));
    assert_eq!(hart.x[10], 1);
    assert_eq!(run_at(sc, &mut hart, &memory), Ok(BASE + 4));
    assert_eq!((hart.x[10], memory.load_u32(BASE)), (0, Ok(77)));
    assert_eq!(hart.reserved, UNRESERVED);
    assert_eq!(run_at(sc, &mut hart, &memory), Ok(BASE + 4));
    assert_eq!(hart.x[10], 1);
    // Not at another address, nor where the word has changed; and the reservation is gone then.
    for changes in [false, true] {
        hart.x[11] = BASE;
        assert_eq!(run_at(lr, &mut hart, &memory), Ok(BASE + 4));
        if changes {
            assert_eq!(memory.store_u32(BASE, 78), Ok(()));
        } else {
            hart.x[11] = BASE + 4;
        }
        assert_eq!(run_at(sc, &mut hart, &memory), Ok(BASE + 4));
        assert_eq!((hart.x[10], hart.reserved), (1, UNRESERVED));
        assert_eq!(memory.load_u32(BASE + 4), Ok(1));
    }
}
