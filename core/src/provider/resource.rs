//! What the host's limits leave, so that callers do not run into them.

use super::PageProvider;

/// What the host may limit for a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resource {
    /// Addresses, in bytes: RLIMIT_AS, the size of a window, the length of an array. Reservations
    /// count.
    Addresses,
    /// Writable private memory, in bytes: RLIMIT_DATA. Committed pages count, touched or not.
    Memory,
    /// Memory that is locked, in bytes: RLIMIT_MEMLOCK, in a process that locks what it maps. On
    /// some systems reservations count, too.
    Locked,
    /// The length of a file, in bytes: RLIMIT_FSIZE. A file that grows beyond ends the process.
    FileSize,
    /// Mappings: `vm.max_map_count` on Linux. Costs a walk of the process map.
    Mappings,
}

/// Which part of what is left may be reserved before it is needed.
pub(crate) const AHEAD: usize = 64;

/// Returns how many bytes may be reserved at once by somebody who needs `needed` now and would like
/// `wanted` for what comes later: no more than `needed`, or 1/64 of what is left.
pub fn reserve_ahead<P: PageProvider + ?Sized>(
    provider: &P,
    needed: usize,
    wanted: usize,
) -> usize {
    let mut len = wanted;
    for resource in [Resource::Addresses, Resource::Locked] {
        // A question can cost system calls.
        if len <= needed {
            return needed;
        }
        let left = provider.left(resource);
        len = left.map_or(len, |left| len.min(left / AHEAD));
    }
    len.max(needed)
}
