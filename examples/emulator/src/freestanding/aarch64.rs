//! AArch64: the program's entry, threads, and functions of memory that compiled code calls.

use super::system::Block;
use core::arch::{asm, global_asm};
use syscalls::Sysno;

global_asm!(
    ".globl _start",
    "_start: mov x29, xzr",
    "mov x30, xzr",
    "mov x0, sp",
    "bl {program}",
    "brk 1",
    program = sym crate::program,
);

// As in C. Eight bytes at a time.
global_asm!(
    ".globl memcpy, memmove, memset, memcmp, bcmp, strlen",
    "memcpy: mov x3, x0",
    "2: subs x4, x2, #8",
    "b.lo 3f",
    "ldr x5, [x1], #8",
    "str x5, [x3], #8",
    "mov x2, x4",
    "b 2b",
    "3: cbz x2, 4f",
    "ldrb w5, [x1], #1",
    "strb w5, [x3], #1",
    "sub x2, x2, #1",
    "b 3b",
    "4: ret",
    "memmove: sub x4, x0, x1",
    "cmp x4, x2",
    "b.hs memcpy",
    "add x3, x0, x2",
    "add x1, x1, x2",
    "2: subs x4, x2, #8",
    "b.lo 3f",
    "ldr x5, [x1, #-8]!",
    "str x5, [x3, #-8]!",
    "mov x2, x4",
    "b 2b",
    "3: cbz x2, 4f",
    "ldrb w5, [x1, #-1]!",
    "strb w5, [x3, #-1]!",
    "sub x2, x2, #1",
    "b 3b",
    "4: ret",
    "memset: mov x3, x0",
    "and x1, x1, #0xff",
    "mov x4, #0x0101010101010101",
    "mul x1, x1, x4",
    "2: subs x4, x2, #8",
    "b.lo 3f",
    "str x1, [x3], #8",
    "mov x2, x4",
    "b 2b",
    "3: cbz x2, 4f",
    "strb w1, [x3], #1",
    "sub x2, x2, #1",
    "b 3b",
    "4: ret",
    "memcmp:",
    "bcmp: cbz x2, 3f",
    "ldrb w3, [x0], #1",
    "ldrb w4, [x1], #1",
    "sub x2, x2, #1",
    "subs w3, w3, w4",
    "b.eq bcmp",
    "mov w0, w3",
    "ret",
    "3: mov w0, wzr",
    "ret",
    "strlen: mov x1, x0",
    "2: ldrb w2, [x1], #1",
    "cbnz w2, 2b",
    "sub x0, x1, x0",
    "sub x0, x0, #1",
    "ret",
);

/// Answers the compiler's question for atomics of newer CPUs: unknown, so none are used.
#[unsafe(no_mangle)]
extern "C" fn getauxval(_kind: u64) -> u64 {
    0
}

/// Sets the calling thread's pointer.
///
/// # Safety
///
/// The block begins with its own address, and stays as long as the thread.
pub(crate) unsafe fn set_thread(block: *const Block) {
    // SAFETY: sets a register that nothing else here uses.
    unsafe { asm!("msr tpidr_el0, {}", in(reg) block, options(nostack, preserves_flags)) };
}

/// Returns the calling thread's pointer.
#[inline(always)]
pub(crate) fn thread() -> *const Block {
    let block;
    // SAFETY: reads a register that the thread was begun with.
    unsafe {
        asm!("mrs {}, tpidr_el0", out(reg) block, options(nostack, preserves_flags, nomem, pure));
    }
    block
}

/// Starts a thread that calls `entry(argument)` on the stack below `block`, to which its pointer
/// leads; returns its number, or an error as a negative one. The kernel stores zero at `there` when
/// the thread is gone.
///
/// # Safety
///
/// The stack is the thread's alone and large enough, and `entry` may be called once with `argument`
/// on any thread. The block stays until `there` is zero.
pub(crate) unsafe fn start_thread(
    flags: usize,
    block: *mut Block,
    entry: extern "C" fn(*mut u8),
    argument: *mut u8,
    there: *mut u32,
) -> isize {
    let result;
    // SAFETY: the child has a stack of its own and never comes back here: it calls entry and exits.
    // The parent finds all registers but the clobbered ones as they were.
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x10",
            "blr x9",
            "mov x0, xzr",
            "mov x8, {exit}",
            "svc 0",
            "brk 1",
            "2:",
            exit = const Sysno::exit as i32,
            in("x8") Sysno::clone as isize,
            inlateout("x0") flags => result,
            in("x1") block, in("x2") 0, in("x3") block, in("x4") there,
            in("x9") entry as usize, in("x10") argument,
            lateout("x30") _,
        );
    }
    result
}
