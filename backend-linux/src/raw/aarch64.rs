//! System calls on AArch64: `syscall(2)`, "Architecture calling conventions".

use core::arch::asm;

const NR_PRCTL: usize = 167;

/// Calls `prctl`.
///
/// # Safety
///
/// The operation does nothing with its arguments that they do not allow.
pub(super) unsafe fn prctl(op: usize, a2: usize, a3: usize, a4: usize, a5: usize) -> isize {
    let value;
    // SAFETY: the kernel preserves all registers but x0; what the operation does is the caller's
    // promise.
    unsafe {
        asm!(
            "svc 0",
            in("x8") NR_PRCTL,
            inlateout("x0") op => value,
            in("x1") a2, in("x2") a3, in("x3") a4, in("x4") a5,
            options(nostack, preserves_flags),
        );
    }
    value
}
