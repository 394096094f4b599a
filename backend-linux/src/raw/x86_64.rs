//! System calls on x86-64: `syscall(2)`, "Architecture calling conventions".

use core::arch::asm;

pub(super) const CLOCK_GETTIME: usize = 228;
pub(super) const BRK: usize = 12;
pub(super) const PERSONALITY: usize = 135;
pub(super) const PRCTL: usize = 157;
pub(super) const PRLIMIT64: usize = 302;
pub(super) const UNAME: usize = 63;
pub(super) const SYSINFO: usize = 99;

/// Makes a system call.
///
/// # Safety
///
/// The call does nothing with its arguments that they do not allow.
pub(super) unsafe fn call(number: usize, arguments: [usize; 5]) -> isize {
    let [a1, a2, a3, a4, a5] = arguments;
    let value;
    // SAFETY: the kernel preserves all registers but rax, rcx and r11; the call does what its
    // arguments allow, by this function's `# Safety`.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => value,
            in("rdi") a1, in("rsi") a2, in("rdx") a3, in("r10") a4, in("r8") a5,
            lateout("rcx") _, lateout("r11") _,
            options(nostack, preserves_flags),
        );
    }
    value
}
