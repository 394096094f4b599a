//! Calls for pages, and what protections there are.

#[cfg(any(target_os = "freebsd", target_os = "dragonfly"))]
use libc::INHERIT_NONE;
#[cfg(any(target_os = "openbsd", target_os = "netbsd"))]
use libc::MAP_INHERIT_NONE as INHERIT_NONE;

use super::errno::{check, error};
use core::ffi::c_void;
use hostmem_core::{
    page::{Access, Ceiling, PageRange, PageSize},
    provider::{
        Clock, Error, Purged,
        backend::{self, At, Calls, milliseconds, pointer},
    },
};
use rustix::{
    mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap},
    time::{ClockId, clock_gettime},
};

/// Returns the host's page size.
#[must_use]
pub fn page_size() -> PageSize {
    // A system without an answer would have no pages of another size than the smallest.
    PageSize::new(rustix::param::page_size()).unwrap_or(PageSize::KIB_4)
}

/// Returns the protections of an access.
#[must_use]
pub fn protection(access: Access) -> ProtFlags {
    ProtFlags::from_bits_retain(backend::protection(access))
}

/// Returns the protections that a ceiling allows, all of them together: no system here can hold a
/// page to one of two at a time.
#[must_use]
pub fn ceiling_protection(ceiling: Ceiling) -> ProtFlags {
    match ceiling {
        Ceiling::Read => ProtFlags::READ,
        Ceiling::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        Ceiling::ReadExec => ProtFlags::READ | ProtFlags::EXEC,
        _ => ProtFlags::READ | ProtFlags::WRITE | ProtFlags::EXEC,
    }
}

/// Maps fresh private memory, over a range or where the system likes.
///
/// # Errors
///
/// What the system says.
///
/// # Safety
///
/// The range of [`At::Over`] is the caller's, and no other code uses it.
pub unsafe fn map_private(at: At, len: usize, protection: ProtFlags) -> Result<*mut c_void, Error> {
    let mut flags = MapFlags::PRIVATE;
    flags.set(MapFlags::FIXED, at.replaces());
    // SAFETY: FIXED replaces a range that is the caller's to give up; else it is a new mapping
    // wherever the system likes, since an address alone is a hint.
    unsafe { mmap_anonymous(at.pointer(), len, protection, flags) }.map_err(error)
}

/// The calls that are the same on all BSDs.
#[derive(Clone, Copy, Debug)]
pub struct BsdCalls;

// SAFETY: each is one system call on the range that it was given, and does as the trait says.
unsafe impl Calls for BsdCalls {
    fn page_size(&self) -> PageSize {
        page_size()
    }

    fn map_fresh(&self, len: usize, access: Access) -> Result<*mut c_void, Error> {
        // SAFETY: a new mapping wherever the system likes; nothing is replaced.
        unsafe { map_private(At::Anywhere, len, protection(access)) }
    }

    unsafe fn unmap(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the range is the caller's, and no other code uses it.
        unsafe { munmap(pointer(range), range.len_bytes()) }.map_err(error)
    }

    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error> {
        let flags = MprotectFlags::from_bits_retain(backend::protection(access));
        // SAFETY: the range is the caller's, and no other code uses it in a way that the new access
        // forbids.
        unsafe { mprotect(pointer(range), range.len_bytes(), flags) }.map_err(error)
    }

    unsafe fn hide_from_children(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: this changes nothing in this process.
        let done = unsafe { libc::minherit(pointer(range), range.len_bytes(), INHERIT_NONE) };
        check(done).map(drop).map_err(error)
    }

    /// The system may take the memory until the pages are written again: some read zero then, and
    /// others, for instance such as a forked process has too, stay as they are (`madvise(2)`,
    /// `MADV_FREE`).
    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        // SAFETY: the pages are the caller's, private and anonymous; their contents are not needed.
        let done = unsafe { libc::madvise(pointer(range), range.len_bytes(), libc::MADV_FREE) };
        check(done).map(|_| Purged::ZeroOrOld).map_err(error)
    }

    /// `arc4random_buf(3)` always has some, and starts anew in a child of a fork.
    fn random_key(&self) -> Option<[u8; 32]> {
        let mut key = [0; 32];
        // SAFETY: the array is as long as its length says, and may be written.
        unsafe { libc::arc4random_buf(key.as_mut_ptr().cast(), key.len()) };
        Some(key)
    }
}

impl Clock for BsdCalls {
    fn now_ms(&self) -> Option<u64> {
        let now = clock_gettime(ClockId::Monotonic);
        milliseconds(now.tv_sec, now.tv_nsec)
    }
}
