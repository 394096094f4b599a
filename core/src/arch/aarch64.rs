//! AArch64: data and instruction caches are not coherent; software cleans the one and invalidates
//! the other (Arm Architecture Reference Manual for A-profile, B2.7.4 "Synchronization of
//! instruction and data accesses").

use super::ctr::{CacheOps, CacheType, maintain};
use core::{
    arch::asm,
    sync::atomic::{AtomicUsize, Ordering},
};

pub(super) const SUPPORTED: bool = true;

pub(super) const FETCHES_AHEAD: bool = true;

/// `brk #0`.
pub(super) const TRAP: u32 = 0xd420_0000;

/// Cleans and invalidates by virtual address to the point of unification.
pub(super) unsafe fn publish_code(code: *const u8, len: usize) {
    maintain(cache_type(), &[(code.addr(), len)], &mut Instructions);
}

/// As [`publish_code`], for several ranges at the price of one wait.
pub(super) unsafe fn publish_ranges(ranges: &[(*const u8, usize)]) {
    // Pointers have the size and the bits of their addresses.
    maintain(cache_type(), ranges, &mut Instructions);
}

/// Reads the register that has it.
#[inline]
pub(super) unsafe fn thread_pointer() -> usize {
    let pointer: usize;
    // SAFETY: TPIDR_EL0 is readable at EL0; reading it has no effect.
    unsafe {
        asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nomem, nostack, preserves_flags))
    };
    pointer
}

#[inline(always)]
pub(super) fn stack_pointer() -> usize {
    if cfg!(miri) {
        let here = 0_u8;
        return (&raw const here).addr();
    }
    let pointer: usize;
    // SAFETY: it reads a register, and changes nothing.
    unsafe { asm!("mov {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}

/// Makes a client request of valgrind: five instructions that leave everything as it was, but under
/// valgrind, which takes them for a call. Returns zero elsewhere.
#[inline]
pub(super) fn client_request(request: &[usize; 6]) -> usize {
    let mut result = 0_usize;
    // SAFETY: the rotations add up to 128 bits, and the last instruction copies a register to
    // itself; valgrind reads the six words, and stores in X3.
    unsafe {
        asm!(
            "ror x12, x12, #3", "ror x12, x12, #13", "ror x12, x12, #51", "ror x12, x12, #61",
            "orr x10, x10, x10",
            in("x4") request.as_ptr(), inout("x3") result, options(nostack),
        );
    }
    result
}

/// Fetches a cache line that will be read.
#[inline]
pub(super) fn prefetch(at: *const u8) {
    // SAFETY: a prefetch of any address has no effect but on caches.
    unsafe {
        asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
}

/// Reads `CTR_EL0`. Not cached: systems with unequal cores emulate the read, so that every core
/// sees lines that are right for all.
fn cache_type() -> CacheType {
    let raw: u64;
    // SAFETY: CTR_EL0 is readable at EL0 on every OS supported here (SCTLR_EL1.UCT, or emulated);
    // reading it has no effect.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) raw, options(nomem, nostack, preserves_flags)) };
    CacheType::from_raw(raw)
}

/// The instructions themselves. The addresses they get lie in the range of `publish_code`, whose
/// caller promised that it is mapped and readable; rounding down to a line stays in its page.
struct Instructions;

impl CacheOps for Instructions {
    fn clean_data(&mut self, addr: usize) {
        // SAFETY: see the type; cleaning a line changes no contents.
        unsafe { asm!("dc cvau, {}", in(reg) addr, options(nostack, preserves_flags)) };
    }

    fn invalidate_instructions(&mut self, addr: usize) {
        // SAFETY: see the type; invalidating an instruction line changes no contents.
        unsafe { asm!("ic ivau, {}", in(reg) addr, options(nostack, preserves_flags)) };
    }

    fn data_barrier(&mut self) {
        // SAFETY: a barrier has no operands.
        unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
    }

    fn instruction_barrier(&mut self) {
        // SAFETY: a barrier has no operands.
        unsafe { asm!("isb", options(nostack, preserves_flags)) };
    }
}

#[inline(always)]
pub(super) fn store_stack_pointer(to: &AtomicUsize) {
    to.store(stack_pointer(), Ordering::Relaxed);
}
