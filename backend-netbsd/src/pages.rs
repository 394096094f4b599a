//! Pages: reserve, commit, protect, decommit, release.
//!
//! Under PaX MPROTECT what was mapped inaccessible stays so, whatever `mprotect(2)` is asked. So
//! committing maps over the reservation, with `PROT_MPROTECT` for what the commit's ceiling allows
//! later, and decommitting maps over again, since advice may leave contents, which is enough for a
//! purge.
//!
//! No flag refuses to replace a mapping. Instead `MAP_TRYFIXED` takes the address for a hint that
//! is not adjusted, and where the mapping came to lie is looked at.

use crate::{limits, probe};
use core::{
    ffi::{c_int, c_void},
    sync::atomic::AtomicUsize,
};
use hostmem_bsd::shared::{
    errno::{error, number},
    pages::{BsdCalls, ceiling_protection, map_private, protection},
};
use hostmem_core::{
    page::PageRange,
    provider::{
        Capabilities, Commit, Error, MapFlags as Entry, Resource,
        backend::{At, System, SystemProvider, last_mapped_address},
    },
};
use rustix::{
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap_anonymous},
};

/// The system calls of NetBSD.
#[derive(Clone, Copy, Debug)]
pub struct NetBsd;

/// Memory from NetBSD.
///
/// A handle without state of its own but for the directories that files for dual mappings may be
/// put into, where neither duplicates nor shared memory objects give executable memory; hence
/// `Copy`.
///
/// ```
/// use hostmem_netbsd::NetBsdProvider;
/// use hostmem_core::provider::{PageProvider, Request};
///
/// let netbsd = NetBsdProvider::new();
/// let range = netbsd.reserve(&Request::bytes(1 << 20))?;
/// // SAFETY: the range came from reserve, and is not used any more.
/// unsafe { netbsd.release(range)? };
/// # Ok::<(), hostmem_core::provider::Error>(())
/// ```
pub type NetBsdProvider = SystemProvider<NetBsd>;

/// Returns the flags that let `mprotect(2)` give these protections later, under PaX MPROTECT too.
pub(crate) fn may_become(protections: ProtFlags) -> ProtFlags {
    /// `PROT_MPROTECT` of `sys/mman.h` shifts by as much.
    const SHIFT: u32 = 3;
    ProtFlags::from_bits_retain(protections.bits() << SHIFT)
}

/// Returns the flag that asks for an alignment, a power of two of at least a page.
pub(crate) fn aligned(align: usize) -> c_int {
    let log2 = c_int::try_from(align.trailing_zeros()).unwrap_or(0);
    libc::MAP_ALIGNED(log2)
}

// SAFETY: the functions are system calls on the ranges that they were given. Policy is asked before
// anything is unmapped, and so is the limit of addresses; kernels then unmap (before 8 in a step of
// its own), and may fail later, for instance since memory is to be locked.
unsafe impl System for NetBsd {
    /// Duplicates show no object.
    const VIEW: Entry = Entry::SHARED;

    type Calls = BsdCalls;

    fn calls(&self) -> BsdCalls {
        BsdCalls
    }

    unsafe fn map_reserved(&self, len: usize, at: At) -> Result<*mut c_void, Error> {
        let flags = match at {
            At::Anywhere | At::Hint(_) => 0,
            At::Aligned(align) => aligned(align),
            At::Exact(_) => libc::MAP_TRYFIXED,
            At::Over(_) => libc::MAP_FIXED,
        };
        let flags = MapFlags::PRIVATE | MapFlags::from_bits_retain(flags.unsigned_abs());
        // SAFETY: a range that is replaced is the caller's to give up; otherwise a new mapping,
        // which replaces nothing: an exact address is a hint.
        unsafe { mmap_anonymous(at.pointer(), len, ProtFlags::empty(), flags) }.map_err(error)
    }

    unsafe fn map_committed(&self, range: PageRange, how: Commit) -> Result<(), Error> {
        let protection = protection(how.access) | may_become(ceiling_protection(how.ceiling));
        // SAFETY: the range is the caller's to give up.
        let mapped = unsafe { map_private(At::Over(range), range.len_bytes(), protection) };
        mapped.map(drop)
    }

    fn may_be_taken(&self, error: Error) -> bool {
        // It says that the place is in use, and other things too.
        number(error) == Some(Errno::NOMEM)
    }

    /// The address is a hint, also where there is nothing to be had.
    fn elsewhere(&self) -> Option<Error> {
        None
    }

    fn is_too_long(&self, error: Error) -> bool {
        number(error) == Some(Errno::NOMEM)
    }

    fn capabilities_among(&self, wanted: Capabilities) -> Capabilities {
        probe::current_capabilities() & wanted
    }

    fn left(&self, of: Resource) -> Option<usize> {
        limits::left(of)
    }

    fn last_address(&self) -> Option<usize> {
        // `vm.maxaddress` on amd64 is no user's address.
        static CACHED: AtomicUsize = AtomicUsize::new(0);
        last_mapped_address(self, &CACHED)
    }
}
