//! By SSE2, which x86-64 has wherever programs may use vector registers.

use super::{PAIRS, RANKED};
use crate::atomic::AtomicU64;
use core::arch::asm;

/// Compares four at a time, and looks for the first one in a bit each.
#[inline(always)]
pub(super) fn first_above(words: &[AtomicU64; PAIRS], key: u32) -> usize {
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

/// Adds to four what the next four have more, none of which has the sign.
#[inline(always)]
pub(super) fn largest(words: &[[AtomicU64; 2]]) -> u32 {
    let most: u32;
    // SAFETY: it reads the words and writes registers, as above.
    unsafe {
        asm!(
            "pxor {most}, {most}",
            "test {count}, {count}",
            "jz 3f",
            "2:",
            "movdqu {more}, xmmword ptr [{words}]",
            "psubd {more}, {most}",
            "movdqa {less}, {more}",
            "psrad {less}, 31",
            "pandn {less}, {more}",
            "paddd {most}, {less}",
            "add {words}, 16",
            "dec {count}",
            "jnz 2b",
            "3:",
            "pshufd {more}, {most}, 0x4e",
            "psubd {more}, {most}",
            "movdqa {less}, {more}",
            "psrad {less}, 31",
            "pandn {less}, {more}",
            "paddd {most}, {less}",
            "pshufd {more}, {most}, 0xb1",
            "psubd {more}, {most}",
            "movdqa {less}, {more}",
            "psrad {less}, 31",
            "pandn {less}, {more}",
            "paddd {most}, {less}",
            "movd {number:e}, {most}",
            words = inout(reg) words.as_ptr() => _,
            count = inout(reg) words.len() => _,
            most = out(xmm_reg) _,
            more = out(xmm_reg) _,
            less = out(xmm_reg) _,
            number = lateout(reg) most,
            options(pure, readonly, nostack),
        );
    }
    most
}

#[inline(always)]
pub(super) fn copy_halves(from: &[AtomicU64], nth: usize, to: &[AtomicU64]) {
    // Four words at a time, and then one.
    let fours = to.len() / 4;
    let from = from.as_ptr().cast::<u32>().wrapping_add(nth);
    // SAFETY: `copy_halves` in the module above checked that as many halves are there from the nth
    // on as `to` has, so that all that is read and written lies in the two slices. No other thread
    // writes what is read here. The stores are those of a shared reference to atomics: an
    // instruction writes each of its aligned words in one access on all of these CPUs, as a relaxed
    // store does; which comes first does not matter here.
    unsafe {
        asm!(
            "test {fours}, {fours}",
            "jz 3f",
            "2:",
            "movdqu {a}, xmmword ptr [{from}]",
            "movdqu {b}, xmmword ptr [{from} + 16]",
            "movdqu xmmword ptr [{to}], {a}",
            "movdqu xmmword ptr [{to} + 16], {b}",
            "add {from}, 32",
            "add {to}, 32",
            "dec {fours}",
            "jnz 2b",
            "3:",
            "test {rest}, {rest}",
            "jz 5f",
            "4:",
            "mov {fours}, qword ptr [{from}]",
            "mov qword ptr [{to}], {fours}",
            "add {from}, 8",
            "add {to}, 8",
            "dec {rest}",
            "jnz 4b",
            "5:",
            fours = inout(reg) fours => _,
            rest = inout(reg) to.len() % 4 => _,
            from = inout(reg) from => _,
            to = inout(reg) to.as_ptr() => _,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            options(nostack),
        );
    }
}
