//! OpenBSD: mmap(2).

use core::ffi::c_int;
use rustix::mm::{MapFlags, ProtFlags};

/// A reservation: private and inaccessible.
pub(super) const RESERVED: c_int = libc::MAP_PRIVATE | libc::MAP_ANON;

/// Exactly there, or not at all: `__MAP_NOREPLACE` of `sys/mman.h` beside `MAP_FIXED`.
pub(super) const EXACT: c_int = libc::MAP_FIXED | 0x0800;

/// There are no alignments to ask for.
pub(super) fn aligned(_align: usize) -> Option<c_int> {
    None
}

/// There are no limits to what `mprotect(2)` may do, other than that it may not do both.
pub(crate) fn most(_protections: ProtFlags) -> ProtFlags {
    ProtFlags::empty()
}

/// There is nothing to ask for.
pub(crate) const SUPERPAGE_ALIGNED: MapFlags = MapFlags::empty();

/// There is nothing to ask for.
pub(crate) const FILE: MapFlags = MapFlags::empty();

/// For `minherit(2)`.
pub(crate) const INHERIT_NONE: c_int = libc::MAP_INHERIT_NONE;
