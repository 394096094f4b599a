//! By NEON, which AArch64 has wherever programs may use vector registers.

use super::{PAIRS, RANKED};
use crate::atomic::AtomicU64;
use core::arch::asm;

/// Compares four at a time, and looks for the first one in four bits each.
#[inline(always)]
pub(super) fn first_above(words: &[AtomicU64; PAIRS], key: u32) -> usize {
    const { assert!(RANKED == 16, "four bits each of sixteen") };
    let above: u64;
    // SAFETY: it reads the words and writes registers. The elements that it loads are aligned
    // words, each of which is read in one access, as by a relaxed load (Arm Architecture Reference
    // Manual for A-profile, B2.2 "Atomicity in the Arm architecture"); which comes first does not
    // matter.
    unsafe {
        asm!(
            "dup v4.4s, {key:w}",
            "ld1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [{words}]",
            "cmgt v0.4s, v0.4s, v4.4s",
            "cmgt v1.4s, v1.4s, v4.4s",
            "cmgt v2.4s, v2.4s, v4.4s",
            "cmgt v3.4s, v3.4s, v4.4s",
            "uzp1 v0.8h, v0.8h, v1.8h",
            "uzp1 v2.8h, v2.8h, v3.8h",
            "uzp1 v0.16b, v0.16b, v2.16b",
            "shrn v0.8b, v0.8h, #4",
            "fmov {above}, d0",
            key = in(reg) key,
            words = in(reg) words.as_ptr(),
            above = lateout(reg) above,
            out("v0") _,
            out("v1") _,
            out("v2") _,
            out("v3") _,
            out("v4") _,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    (above.trailing_zeros() / 4) as usize
}

/// Compares four at a time.
#[inline(always)]
pub(super) fn largest(words: &[[AtomicU64; 2]]) -> u32 {
    let most: u32;
    // SAFETY: it reads the words and writes registers, as above.
    unsafe {
        asm!(
            "movi v0.4s, #0",
            "cbz {count}, 3f",
            "2:",
            "ld1 {{v1.2d}}, [{words}], #16",
            "umax v0.4s, v0.4s, v1.4s",
            "sub {count}, {count}, #1",
            "cbnz {count}, 2b",
            "3:",
            "umaxv s0, v0.4s",
            "fmov {most:w}, s0",
            words = inout(reg) words.as_ptr() => _,
            count = inout(reg) words.len() => _,
            most = lateout(reg) most,
            out("v0") _,
            out("v1") _,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    most
}

#[inline(always)]
pub(super) fn copy_halves(from: &[AtomicU64], nth: usize, to: &[AtomicU64]) {
    let (fours, rest) = to.as_chunks::<4>();
    let mut at = from.as_ptr().cast::<u32>().wrapping_add(nth);
    for four in fours {
        // SAFETY: `copy_halves` in the module above checked that as many halves are there from the
        // nth on as `to` has, and these are four words of them. No other thread writes what is read
        // here. The stores are those of a shared reference to atomics: the elements are aligned
        // words, each of which is written in one access, as by a relaxed store (Arm Architecture
        // Reference Manual for A-profile, B2.2 "Atomicity in the Arm architecture"); which comes
        // first does not matter.
        unsafe {
            asm!(
                "ld1 {{v0.4s, v1.4s}}, [{from}]",
                "st1 {{v0.2d, v1.2d}}, [{to}]",
                from = in(reg) at,
                to = in(reg) four.as_ptr(),
                out("v0") _,
                out("v1") _,
                options(nostack, preserves_flags),
            );
        }
        at = at.wrapping_add(8);
    }
    for word in rest {
        // SAFETY: as above, of one word: two halves are read, and one aligned word is written.
        unsafe {
            asm!(
                "ldp {a:w}, {b:w}, [{from}]",
                "orr {a}, {a}, {b}, lsl 32",
                "str {a}, [{to}]",
                from = in(reg) at,
                to = in(reg) core::ptr::from_ref(word),
                a = out(reg) _,
                b = out(reg) _,
                options(nostack, preserves_flags),
            );
        }
        at = at.wrapping_add(2);
    }
}
