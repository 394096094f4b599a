//! By SSE2, which x86-64 has wherever programs may use vector registers.

use crate::atomic::AtomicU64;
use core::arch::asm;

#[inline(always)]
pub(super) fn copy_halves(from: &[AtomicU64], nth: usize, to: &[AtomicU64]) {
    // Four words at a time, and then one.
    let fours = to.len() / 4;
    let from = from.as_ptr().cast::<u32>().wrapping_add(nth);
    // SAFETY: `copy_halves` above checked that as many halves are there from the nth on as `to` has,
    // so that all that is read and written lies in the two slices; nobody writes what is read
    // meanwhile. The stores are those of a shared reference to atomics: an instruction writes each
    // of its aligned words in one access on all of these CPUs, as a relaxed store does; which comes
    // first does not matter here.
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
