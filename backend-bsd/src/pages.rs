//! Pages: reserve, commit, protect, decommit, release.
//!
//! A reservation is never made accessible by protection: committing maps over it, with `PROT_MAX`
//! (FreeBSD) holding the pages below the commit's ceiling, and decommitting maps over again, since
//! advice leaves contents (`MADV_FREE` "gives the system the freedom", and no promise of zeroes).
//! That is enough for a purge.
//!
//! An exact place that is in use is refused by `ENOMEM` (FreeBSD 13: `MAP_FIXED | MAP_EXCL` over a
//! mapping or a guard), `EINVAL` (as mmap(2) has it) or `EEXIST`, and the first two are also said
//! for other reasons. So after a refusal the process map is looked at, and the same length is tried
//! elsewhere.

use crate::{
    host, limits, probe,
    shared::{
        errno::{error, last, number},
        pages::{BsdCalls, ceiling_protection, map_private, protection},
    },
};
use core::{ffi::c_void, sync::atomic::AtomicUsize};
use hostmem_core::{
    page::PageRange,
    provider::{
        Capabilities, Commit, Error, ErrorKind, Resource,
        backend::{At, System, SystemProvider, last_mapped_address},
    },
};
use rustix::io::Errno;

/// The system calls of FreeBSD, DragonFly or OpenBSD.
#[derive(Clone, Copy, Debug)]
pub struct Bsd;

/// Memory from FreeBSD, DragonFly or OpenBSD.
///
/// A handle without state of its own but for the directories that files for dual mappings may be
/// put into, where shared memory objects do not give executable memory; hence `Copy`.
///
/// ```
/// use hostmem_bsd::BsdProvider;
/// use hostmem_core::provider::{PageProvider, Request};
///
/// let bsd = BsdProvider::new();
/// let range = bsd.reserve(&Request::bytes(1 << 20))?;
/// // SAFETY: the range came from reserve, and is not used any more.
/// unsafe { bsd.release(range)? };
/// # Ok::<(), hostmem_core::provider::Error>(())
/// ```
pub type BsdProvider = SystemProvider<Bsd>;

// SAFETY: the functions are system calls on the ranges that they were given. Policy is asked before
// anything is unmapped, and so is the limit of addresses.
unsafe impl System for Bsd {
    type Calls = BsdCalls;

    fn calls(&self) -> BsdCalls {
        BsdCalls
    }

    fn capabilities_among(&self, wanted: Capabilities) -> Capabilities {
        probe::capabilities_among(wanted)
    }

    unsafe fn map_reserved(&self, len: usize, at: At) -> Result<*mut c_void, Error> {
        let flags = match at {
            At::Anywhere | At::Hint(_) => 0,
            At::Aligned(align) => host::aligned(align).ok_or(ErrorKind::Unsupported)?,
            At::Exact(_) => host::EXACT,
            At::Over(_) => libc::MAP_FIXED,
        };
        let (none, flags) = (libc::PROT_NONE, host::RESERVED | flags);
        // SAFETY: a range that is replaced is the caller's to give up; an exact place is mapped
        // where it is a hole, or is a hint.
        let got = unsafe { libc::mmap(at.pointer(), len, none, flags, -1, 0) };
        if got == libc::MAP_FAILED {
            Err(error(last()))
        } else {
            Ok(got)
        }
    }

    unsafe fn map_committed(&self, range: PageRange, how: Commit) -> Result<(), Error> {
        let protection = protection(how.access) | host::most(ceiling_protection(how.ceiling));
        // SAFETY: the range is the caller's to give up.
        let mapped = unsafe { map_private(At::Over(range), range.len_bytes(), protection) };
        mapped.map(drop).map_err(|error| match number(error) {
            // All arguments are valid. FreeBSD says this where no swap can be set aside.
            Some(errno @ Errno::INVAL) => Error::os(ErrorKind::Exhausted, errno.raw_os_error()),
            _ => error,
        })
    }

    fn left(&self, of: Resource) -> Option<usize> {
        limits::left(of)
    }

    fn last_address(&self) -> Option<usize> {
        static CACHED: AtomicUsize = AtomicUsize::new(0);
        last_mapped_address(self, &CACHED)
    }

    fn may_be_taken(&self, error: Error) -> bool {
        let number = number(error);
        number.is_some_and(|errno| matches!(errno, Errno::NOMEM | Errno::INVAL | Errno::NOSPC))
    }

    fn is_too_long(&self, error: Error) -> bool {
        number(error).is_some_and(|errno| matches!(errno, Errno::NOMEM | Errno::INVAL))
    }
}
