//! By NEON, which AArch64 has wherever programs may use vector registers.

use super::PAIRS;
use crate::atomic::AtomicU64;
use core::arch::asm;

/// Compares four at a time: those that are reached are minus one, which is summed up.
#[inline(always)]
pub(super) fn rank_pairs(words: &[AtomicU64; PAIRS], key: u32) -> usize {
    let reached: u32;
    // SAFETY: it reads the words and writes registers. The elements that it loads are aligned
    // words, each of which is read in one access, as by a relaxed load (Arm Architecture Reference
    // Manual for A-profile, B2.2 "Atomicity in the Arm architecture"); which comes first does not
    // matter.
    unsafe {
        asm!(
            "dup v4.4s, {key:w}",
            "ld1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [{words}]",
            "cmhs v0.4s, v4.4s, v0.4s",
            "cmhs v1.4s, v4.4s, v1.4s",
            "cmhs v2.4s, v4.4s, v2.4s",
            "cmhs v3.4s, v4.4s, v3.4s",
            "add v0.4s, v0.4s, v1.4s",
            "add v2.4s, v2.4s, v3.4s",
            "add v0.4s, v0.4s, v2.4s",
            "addv s0, v0.4s",
            "fmov {reached:w}, s0",
            key = in(reg) key,
            words = in(reg) words.as_ptr(),
            reached = lateout(reg) reached,
            out("v0") _,
            out("v1") _,
            out("v2") _,
            out("v3") _,
            out("v4") _,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    reached.wrapping_neg() as usize
}
