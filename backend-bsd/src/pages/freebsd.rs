//! FreeBSD: guards, `MAP_EXCL`, `MAP_ALIGNED` and `PROT_MAX`; mmap(2).

use core::ffi::c_int;
use rustix::mm::{MapFlags, ProtFlags};

/// A reservation: a guard, which cannot be made accessible by protection. Such a mapping takes no
/// other flags than those of placement.
pub(super) const RESERVED: c_int = libc::MAP_GUARD;

/// Exactly there, or not at all.
pub(super) const EXACT: c_int = libc::MAP_FIXED | libc::MAP_EXCL;

/// Returns the flags that ask for an alignment, a power of two of at least a page.
pub(super) fn aligned(align: usize) -> Option<c_int> {
    let log2 = c_int::try_from(align.trailing_zeros()).ok()?;
    // An `int` has its sign in the way of the largest, which no address space has either.
    (log2 < 64).then(|| libc::MAP_ALIGNED(log2))
}

/// Returns the flags that keep a mapping from ever having other protections than these, not even
/// by `mprotect(2)`.
pub(crate) fn most(protections: ProtFlags) -> ProtFlags {
    /// `_PROT_MAX_SHIFT` of `sys/mman.h`.
    const SHIFT: u32 = 16;
    ProtFlags::from_bits_retain(protections.bits() << SHIFT)
}

/// For views where larger pages are welcome: starts where one can.
pub(crate) const SUPERPAGE_ALIGNED: MapFlags =
    MapFlags::from_bits_retain(libc::MAP_ALIGNED_SUPER.unsigned_abs());

/// For views of files: nobody needs what they hold on a disk.
pub(crate) const FILE: MapFlags = MapFlags::from_bits_retain(libc::MAP_NOSYNC.unsigned_abs());

/// For `minherit(2)`.
pub(crate) const INHERIT_NONE: c_int = libc::INHERIT_NONE;
