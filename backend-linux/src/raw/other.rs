//! CPUs whose system calls are not written down here: names, settings and limits are unknown there.

pub(super) const CLOCK_GETTIME: usize = 0;
pub(super) const BRK: usize = 0;
pub(super) const PERSONALITY: usize = 0;
pub(super) const PRCTL: usize = 0;
pub(super) const PRLIMIT64: usize = 0;
pub(super) const UNAME: usize = 0;
pub(super) const SYSINFO: usize = 0;

/// `-ENOSYS`: the kernel does not have the call.
const NOT_IMPLEMENTED: isize = -38;

/// Does nothing, and says so.
///
/// # Safety
///
/// None is needed; the signature is that of the other CPUs.
pub(super) unsafe fn call(_: usize, _: [usize; 5]) -> isize {
    NOT_IMPLEMENTED
}
