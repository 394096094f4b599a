//! x86-64: instruction caches are coherent with stores, whatever mapping they came through.

use core::{
    arch::{
        asm,
        x86_64::{_MM_HINT_T0, _mm_prefetch},
    },
    sync::atomic::{AtomicUsize, Ordering, compiler_fence},
};

pub(super) const SUPPORTED: bool = true;

/// Instruction fetches see stores in order, and memory that no core has run is in no pipeline.
pub(super) const FETCHES_AHEAD: bool = false;

/// `int3`, four times.
pub(super) const TRAP: u32 = 0xcccc_cccc;

/// Keeps the compiler from moving the stores behind the call; the hardware does the rest (Intel
/// SDM volume 3, "Self-Modifying Code"; AMD APM volume 2, "Cache Coherency").
#[inline]
pub(super) unsafe fn publish_code(_code: *const u8, _len: usize) {
    compiler_fence(Ordering::SeqCst);
}

/// As [`publish_code`].
#[inline]
pub(super) unsafe fn publish_ranges(_ranges: &[(*const u8, usize)]) {
    compiler_fence(Ordering::SeqCst);
}

/// Reads the first word behind FS, which is its own address.
#[inline]
pub(super) unsafe fn thread_pointer() -> usize {
    let pointer: usize;
    // SAFETY: the caller's promise: FS leads to a thread control block.
    unsafe {
        asm!("mov {}, fs:[0]", out(reg) pointer, options(nostack, preserves_flags, readonly));
    }
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
    unsafe { asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}

/// By one instruction, for which the compiler needs two.
#[inline(always)]
pub(super) fn store_stack_pointer(to: &AtomicUsize) {
    if cfg!(miri) {
        return to.store(stack_pointer(), Ordering::Relaxed);
    }
    // SAFETY: it stores a number as an aligned word, as an atomic store does on this CPU.
    unsafe {
        asm!("mov qword ptr [{}], rsp", in(reg) to.as_ptr(), options(nostack, preserves_flags));
    }
}

/// Makes a client request of valgrind: five instructions that leave everything as it was, but under
/// valgrind, which takes them for a call. Returns zero elsewhere.
#[inline]
pub(super) fn client_request(request: &[usize; 6]) -> usize {
    let mut result = 0_usize;
    // SAFETY: the rotations add up to 128 bits, and exchanging a register with itself is nothing;
    // valgrind reads the six words, and stores in RDX.
    unsafe {
        asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") request.as_ptr(), inout("rdx") result, options(nostack),
        );
    }
    result
}

/// Fetches a cache line that will be read.
#[inline]
pub(super) fn prefetch(at: *const u8) {
    // SAFETY: SSE is part of x86-64, and a prefetch of any address has no effect but on caches.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}
