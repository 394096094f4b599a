//! System calls on x86-64: `syscall(2)`, "Architecture calling conventions".

use core::arch::asm;

const NR_PRCTL: isize = 157;

/// Calls `prctl`.
///
/// # Safety
///
/// The operation does nothing with its arguments that they do not allow.
pub(super) unsafe fn prctl(op: usize, a2: usize, a3: usize, a4: usize, a5: usize) -> isize {
    let value;
    // SAFETY: the kernel preserves all registers but rax, rcx and r11; what the operation does is
    // the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") NR_PRCTL => value,
            in("rdi") op, in("rsi") a2, in("rdx") a3, in("r10") a4, in("r8") a5,
            lateout("rcx") _, lateout("r11") _,
            options(nostack, preserves_flags),
        );
    }
    value
}
