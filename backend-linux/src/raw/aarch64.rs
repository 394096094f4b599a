//! System calls on AArch64: `syscall(2)`, "Architecture calling conventions".

use core::arch::asm;

pub(super) const CLOCK_GETTIME: usize = 113;
pub(super) const BRK: usize = 214;
pub(super) const PERSONALITY: usize = 92;
pub(super) const PRCTL: usize = 167;
pub(super) const PRLIMIT64: usize = 261;
pub(super) const UNAME: usize = 160;
pub(super) const SYSINFO: usize = 179;

/// Makes a system call.
///
/// # Safety
///
/// The call does nothing with its arguments that they do not allow.
pub(super) unsafe fn call(number: usize, arguments: [usize; 5]) -> isize {
    let [a1, a2, a3, a4, a5] = arguments;
    let value;
    // SAFETY: the kernel preserves all registers but x0; the call does what its arguments allow, by
    // this function's `# Safety`.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a1 => value,
            in("x1") a2, in("x2") a3, in("x3") a4, in("x4") a5,
            options(nostack, preserves_flags),
        );
    }
    value
}
