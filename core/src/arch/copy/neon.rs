//! By NEON, which AArch64 has wherever programs may use vector registers.

use crate::atomic::AtomicU64;
use core::arch::asm;

#[inline(always)]
pub(super) fn copy_halves(from: &[AtomicU64], nth: usize, to: &[AtomicU64]) {
    let (fours, rest) = to.as_chunks::<4>();
    let mut at = from.as_ptr().cast::<u32>().wrapping_add(nth);
    for four in fours {
        // SAFETY: `copy_halves` above checked that as many halves are there from the nth on as `to`
        // has, and four words of them come now, which nobody writes meanwhile. The stores are those
        // of a shared reference to atomics: the elements are aligned words, each of which is
        // written in one access, as by a relaxed store (Arm Architecture Reference Manual for
        // A-profile, B2.2 "Atomicity in the Arm architecture"); which comes first does not matter.
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
