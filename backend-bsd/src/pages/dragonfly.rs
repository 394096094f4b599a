//! DragonFly: mmap(2).

use core::ffi::c_int;
use rustix::mm::{MapFlags, ProtFlags};

/// A reservation: private and inaccessible.
pub(super) const RESERVED: c_int = libc::MAP_PRIVATE | libc::MAP_ANON;

/// Exactly there, or not at all: `MAP_TRYFIXED` of `sys/mman.h`. Where it comes to lie is looked at
/// all the same.
pub(super) const EXACT: c_int = 0x0001_0000;

/// There are no alignments to ask for but that of the length.
pub(super) fn aligned(_align: usize) -> Option<c_int> {
    None
}

/// There are no limits to what `mprotect(2)` may do.
pub(crate) fn most(_protections: ProtFlags) -> ProtFlags {
    ProtFlags::empty()
}

/// There is nothing to ask for.
pub(crate) const SUPERPAGE_ALIGNED: MapFlags = MapFlags::empty();

/// For views of files: nobody needs what they hold on a disk.
pub(crate) const FILE: MapFlags = MapFlags::from_bits_retain(libc::MAP_NOSYNC.unsigned_abs());

/// For `minherit(2)`.
pub(crate) const INHERIT_NONE: c_int = libc::INHERIT_NONE;
