//! Which failing calls leave alone the range that they would have replaced.

use crate::{pages::Linux, raw};
use core::sync::atomic::{AtomicU32, Ordering};
use hostmem_core::provider::{
    Resource,
    backend::{Call, System},
};
use rustix::io::Errno;

/// Says whether a call that fails with `errno` fails before it unmaps anything, or undoes that.
pub(super) fn fails_before_unmapping(call: Call, errno: Errno) -> bool {
    match (call, errno) {
        // Policy, of the kernel's own and of filters, and calls that there are not.
        (_, Errno::PERM | Errno::ACCESS | Errno::NOSYS) => true,
        // Since 6.12 a map unmaps nothing until all that can fail is done, but for the file's own
        // part in it, which wants no memory. Until then memory for the kernel's own structures, and
        // what overcommitting leaves, came later.
        (Call::Map | Call::MapFile, Errno::NOMEM) => is_kernel(6, 12),
        // Arguments, and the limit of locked memory.
        (Call::Map, _) => true,
        (
            Call::MapFile | Call::MapLarge,
            Errno::AGAIN | Errno::BADF | Errno::NODEV | Errno::OVERFLOW,
        ) => true,
        // Arguments: what is moved is looked at when the target is unmapped.
        (Call::Move, Errno::INVAL) => true,
        // A file is asked last, and may say anything else.
        _ => false,
    }
}

/// Says whether the kernel is of that version at least, as far as it says.
pub(super) fn is_kernel(major: u32, minor: u32) -> bool {
    static CACHED: AtomicU32 = AtomicU32::new(0);
    let mut version = CACHED.load(Ordering::Relaxed);
    if version == 0 {
        // One that does not say is taken for an old one.
        version = raw::kernel_version().unwrap_or(1);
        CACHED.store(version, Ordering::Relaxed);
    }
    version >= (major << 16 | minor)
}

/// Says whether the process is at its limit of mappings, which is looked at before anything is
/// unmapped.
pub(super) fn is_at_limit_of_mappings() -> bool {
    /// As many as a move wants to be free; a map splits two.
    const ROOM: usize = 6;
    Linux
        .left(Resource::Mappings)
        .is_some_and(|left| left <= ROOM)
}
