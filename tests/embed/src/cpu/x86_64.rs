//! x86-64: entry, system calls, threads and a function made of machine code.

use core::{
    arch::{asm, global_asm},
    ffi::c_void,
};

global_asm!(
    ".globl _start",
    "_start: xor ebp, ebp",
    "and rsp, -16",
    "call {program}",
    "ud2",
    program = sym crate::program,
);

const NR_WRITE: isize = 1;
const NR_CLONE: isize = 56;
const NR_EXIT: usize = 60;
const NR_EXIT_GROUP: usize = 231;

/// Machine code of `extern "C" fn() -> u32` that returns `value`.
pub(crate) fn returning(value: u32) -> [u8; 6] {
    let [a, b, c, d] = value.to_le_bytes();
    [0xb8, a, b, c, d, 0xc3] // mov eax, value; ret
}

/// Writes to standard output, as much as goes at once.
pub(crate) fn print(bytes: &[u8]) {
    // SAFETY: write reads the bytes, which are borrowed for the call.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") NR_WRITE => _,
            in("rdi") 1, in("rsi") bytes.as_ptr(), in("rdx") bytes.len(),
            lateout("rcx") _, lateout("r11") _,
            options(nostack, readonly),
        );
    }
}

/// Ends the process.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: exit_group takes a status and does not return.
    unsafe { asm!("syscall", in("rax") NR_EXIT_GROUP, in("rdi") code, options(noreturn)) }
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
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "xor edi, edi",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "2:",
            exit = const NR_EXIT,
            inlateout("rax") NR_CLONE => result,
            in("rdi") flags, in("rsi") stack_top,
            in("rdx") 0, in("r10") ended, in("r8") 0,
            in("r12") entry as usize, in("r13") argument,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}
