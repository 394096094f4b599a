//! By SSE2, which x86-64 has wherever programs may use vector registers.

use super::{PAIRS, RANKED};
use crate::atomic::AtomicU64;
use core::arch::asm;

/// Compares four at a time. What is above comes last, so that the first one that is tells how many
/// are not.
#[inline(always)]
pub(super) fn rank_pairs(words: &[AtomicU64; PAIRS], key: u32) -> usize {
    const { assert!(RANKED == 16, "a bit each of sixteen") };
    let above: u32;
    // SAFETY: it reads the words and writes registers. An instruction reads each of its two aligned
    // words in one access on all of these CPUs, as a relaxed load does; which comes first does not
    // matter here.
    unsafe {
        asm!(
            "movd {key}, {number:e}",
            "pshufd {key}, {key}, 0",
            "movdqu {a}, xmmword ptr [{words}]",
            "movdqu {b}, xmmword ptr [{words} + 16]",
            "movdqu {c}, xmmword ptr [{words} + 32]",
            "movdqu {d}, xmmword ptr [{words} + 48]",
            "pcmpgtd {a}, {key}",
            "pcmpgtd {b}, {key}",
            "pcmpgtd {c}, {key}",
            "pcmpgtd {d}, {key}",
            "packssdw {a}, {b}",
            "packssdw {c}, {d}",
            "packsswb {a}, {c}",
            "pmovmskb {above:e}, {a}",
            number = in(reg) key,
            words = in(reg) words.as_ptr(),
            key = out(xmm_reg) _,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            above = lateout(reg) above,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    (above | 1 << RANKED).trailing_zeros() as usize
}
