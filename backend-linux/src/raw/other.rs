//! CPUs whose system calls are not written down here: names and settings are unknown there.

/// `-ENOSYS`: the kernel does not have the call.
const NOT_IMPLEMENTED: isize = -38;

/// Does nothing, and says so.
///
/// # Safety
///
/// None is needed; the signature is that of the other CPUs.
pub(super) unsafe fn prctl(_: usize, _: usize, _: usize, _: usize, _: usize) -> isize {
    NOT_IMPLEMENTED
}
