//! What depends on the CPU: making new instructions visible to the core that runs them, and telling
//! threads apart.
//!
//! Making them visible to *other* cores is the operating system's part:
//! [`CoreSync`](crate::provider::CoreSync).

pub mod ctr;
mod valgrind;
mod vectors;

pub(crate) use vectors::{PAIRS, RANKED, copy_halves, first_above, largest};

use core::sync::atomic::AtomicUsize;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
mod other;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as cpu;
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
use other as cpu;
#[cfg(target_arch = "x86_64")]
use x86_64 as cpu;

/// Whether this CPU's instruction-cache maintenance is known here. Where it is not, the JIT
/// allocator refuses to be made.
pub const SUPPORTED: bool = cpu::SUPPORTED;

/// An instruction that traps, as often as it fits in four bytes, in the CPU's byte order.
pub const TRAP: u32 = cpu::TRAP;

/// Whether another core may run what memory held before code was written there for the first time.
///
/// Arm allows an implementation to fetch instructions from any executable address at any time, and
/// to run them until its next context synchronization event, although the line was invalidated
/// meanwhile (Arm ARM, "Concurrent modification and execution of instructions" and "Ordering of
/// instruction fetches"): that nothing was there before is no reason to do without one.
pub const FETCHES_AHEAD: bool = cpu::FETCHES_AHEAD;

/// Tells an emulator that the instructions in `len` bytes at `code` were replaced, where this
/// process runs under one that keeps translations of instructions and does not watch the memory:
/// valgrind. Elsewhere this is a comparison.
#[inline]
pub fn discard_translations(code: *const u8, len: usize) {
    valgrind::discard_translations(code, len);
}

/// Says whether this process runs under valgrind, whose auxiliary vector is not the kernel's. It
/// asks once; later calls are a comparison.
#[inline]
pub fn runs_under_valgrind() -> bool {
    valgrind::is_running()
}

/// Makes `len` bytes of instructions at `code`, just written through another mapping of the same
/// pages, visible to instruction fetches of this core, and to those of other cores that have not
/// fetched from there before.
///
/// `code` is the *executable* alias: the instruction cache may be tagged by virtual address.
///
/// # Safety
///
/// `code..code + len` is mapped and readable.
#[inline]
pub unsafe fn publish_code(code: *const u8, len: usize) {
    if len != 0 {
        // SAFETY: the caller's promise, passed on.
        unsafe { cpu::publish_code(code, len) };
    }
}

/// Makes several ranges of instructions visible as [`publish_code`] does, with one wait for all.
///
/// # Safety
///
/// The promises of [`publish_code`], for each start and length.
#[inline]
pub unsafe fn publish_ranges(ranges: &[(*const u8, usize)]) {
    if !ranges.is_empty() {
        // SAFETY: the caller's promise, passed on.
        unsafe { cpu::publish_ranges(ranges) };
    }
}

/// Returns the calling thread's thread pointer, as the ABI of ELF systems has it: a number that no
/// two live threads have alike, for a `heap::SlotTable`, say. Zero where this CPU's is not known,
/// or where there is none; a thread that `clone` made without one has that of the thread that made
/// it.
///
/// # Safety
///
/// On x86-64, FS leads to a thread control block, as a C library or a runtime sets it up before
/// anything else runs. In a program without either, reading it faults.
#[inline]
#[must_use]
pub unsafe fn thread_pointer() -> usize {
    // SAFETY: the caller's promise, passed on.
    unsafe { cpu::thread_pointer() }
}

/// Returns an address in the frame of the calling function, or near it.
#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    cpu::stack_pointer()
}

/// Stores such an address, which no other thread stores meanwhile.
#[inline(always)]
pub(crate) fn store_stack_pointer(to: &AtomicUsize) {
    cpu::store_stack_pointer(to);
}

/// Begins to fetch `value`, cache line by cache line, where the CPU can; nothing waits for it.
#[inline]
pub(crate) fn prefetch<T>(value: &T) {
    /// The shortest cache line of the CPUs that have a prefetch here.
    const LINE: usize = 64;
    for offset in (0..size_of::<T>()).step_by(LINE) {
        cpu::prefetch(core::ptr::from_ref(value).cast::<u8>().wrapping_add(offset));
    }
}
