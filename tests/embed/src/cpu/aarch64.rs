//! AArch64: entry, system calls, threads and a function made of machine code.

use core::{
    arch::{asm, global_asm},
    ffi::c_void,
};

global_asm!(
    ".globl _start",
    "_start: mov x29, xzr",
    "mov x30, xzr",
    "bl {program}",
    "brk 1",
    program = sym crate::program,
);

const NR_WRITE: usize = 64;
const NR_EXIT: usize = 93;
const NR_EXIT_GROUP: usize = 94;
const NR_CLONE: usize = 220;

/// Machine code of `extern "C" fn() -> u32` that returns `value`, which is below 65,536.
pub(crate) fn returning(value: u32) -> [u8; 8] {
    let [a, b, c, d] = (0x5280_0000 | value << 5).to_le_bytes(); // mov w0, value
    [a, b, c, d, 0xc0, 0x03, 0x5f, 0xd6] // ret
}

/// Writes to standard output, as much as goes at once.
pub(crate) fn print(bytes: &[u8]) {
    // SAFETY: write reads the bytes, which are borrowed for the call.
    unsafe {
        asm!(
            "svc 0",
            in("x8") NR_WRITE,
            inlateout("x0") 1usize => _,
            in("x1") bytes.as_ptr(), in("x2") bytes.len(),
            options(nostack, readonly),
        );
    }
}

/// Ends the process.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: exit_group takes a status and does not return.
    unsafe { asm!("svc 0", in("x8") NR_EXIT_GROUP, in("x0") code, options(noreturn)) }
}

/// Starts a thread that calls `entry(argument)` on a stack that ends at `stack_top`; returns its
/// number, or an error as a negative one. With `CLONE_CHILD_CLEARTID`, the kernel stores zero at
/// `ended` when the thread is gone.
///
/// # Safety
///
/// The stack is the thread's alone and large enough, `stack_top` is aligned to 16 bytes, and
/// `entry` may be called once with `argument` on any thread. `ended` is there until it is zero.
pub(crate) unsafe fn start_thread(
    flags: usize,
    stack_top: *mut u8,
    entry: extern "C" fn(*mut c_void),
    argument: *mut c_void,
    ended: *mut u32,
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
            exit = const NR_EXIT,
            in("x8") NR_CLONE,
            inlateout("x0") flags => result,
            in("x1") stack_top, in("x2") 0, in("x3") 0, in("x4") ended,
            in("x9") entry as usize, in("x10") argument,
            lateout("x30") _,
        );
    }
    result
}
