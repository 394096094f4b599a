//! Pages: reserve, commit, protect, decommit, release.
//!
//! Reserved is `PROT_NONE`, private, anonymous, `MAP_NORESERVE`: the flags of an ordinary fresh
//! mapping, so that the kernel merges neighbours into one. Decommitting maps over, which drops the
//! contents and leaves exactly such a mapping in one call.

mod addresses;
mod keep;
mod moves;
mod names;

pub(crate) use addresses::{address_of_stack, page_size};
pub(crate) use names::{NAMES, takes_page_advice};

use crate::{
    errno::{error, number},
    limits, probe, random,
};
use core::ffi::{CStr, c_void};
use hostmem_core::{
    page::{Access, AddressRange, PageRange, PageSize},
    provider::{
        Capabilities, Commit, Dump, Error, ErrorKind, PageWish, Purged, Resource,
        backend::{self, At, Call, Calls, System, commit_over, mappable, pointer},
    },
};
use rustix::{
    io::Errno,
    mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap_anonymous, mprotect, munmap},
};

/// The system calls of Linux.
#[derive(Clone, Copy, Debug)]
pub struct Linux;

/// The kind of mapping that every reservation is.
const PLAIN: MapFlags = MapFlags::PRIVATE.union(MapFlags::NORESERVE);

/// Tells how long transparent large pages are (admin-guide/mm/transhuge.rst; since Linux 4.20).
const LARGE_PAGE: &CStr = c"/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";

pub(crate) fn protection(access: Access) -> ProtFlags {
    ProtFlags::from_bits_retain(backend::protection(access))
}

/// Returns the protection that makes pages refuse indirect branches but to landing pads.
#[cfg(target_arch = "aarch64")]
pub(crate) fn landing_pads() -> Result<ProtFlags, Error> {
    use hostmem_core::provider::{Request, backend::reserve};
    /// `PROT_BTI` of `asm/mman.h`.
    const PROT_BTI: ProtFlags = ProtFlags::from_bits_retain(0x10);
    let page = reserve(&Linux, &Request::bytes(1))?;
    let flags = MprotectFlags::from_bits_retain((ProtFlags::READ | PROT_BTI).bits());
    // mmap ignores what it does not know; mprotect refuses it.
    // SAFETY: reserved just now, and no other code has its address yet.
    let known = unsafe { mprotect(pointer(page), page.len_bytes(), flags) };
    // SAFETY: reserved above. A failure wastes a page of addresses.
    let _ = unsafe { Linux.unmap(page) };
    known
        .map(|()| PROT_BTI)
        .map_err(|_| ErrorKind::Unsupported.into())
}

/// Says that this CPU has no such pages, or that its kernel keeps them from programs.
#[cfg(not(target_arch = "aarch64"))]
pub(crate) fn landing_pads() -> Result<ProtFlags, Error> {
    Err(ErrorKind::Unsupported.into())
}

/// Passes advice on.
///
/// # Safety
///
/// The range is the caller's, and needs nothing that the advice takes away.
pub(crate) unsafe fn advise(range: PageRange, advice: Advice) -> Result<(), Errno> {
    // SAFETY: the range is the caller's, and needs nothing that the advice takes away.
    unsafe { madvise(pointer(range), range.len_bytes(), advice) }
}

// SAFETY: each is one system call on the range that it was given, and does as the trait says.
unsafe impl Calls for Linux {
    fn page_size(&self) -> PageSize {
        page_size()
    }

    fn map_fresh(&self, len: usize, access: Access) -> Result<*mut c_void, Error> {
        let null = At::Anywhere.pointer();
        // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
        unsafe { mmap_anonymous(null, len, protection(access), PLAIN) }.map_err(error)
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
        // SAFETY: this advice changes nothing in this process.
        unsafe { advise(range, Advice::LinuxDontFork) }.map_err(error)
    }

    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        // SAFETY: the pages are the caller's, private and anonymous, and the contents are not
        // needed. They read zero afterwards (madvise(2), MADV_DONTNEED).
        let advised = match unsafe { advise(range, Advice::LinuxDontNeed) } {
            // Locked pages are to be asked for by name, since Linux 5.18.
            // SAFETY: private pages of the caller's, whose contents are not needed.
            Err(Errno::INVAL) => unsafe { advise(range, Advice::LinuxDontneedLocked) },
            result => result,
        };
        match advised {
            Ok(()) => Ok(Purged::Zero),
            // Mappings before the first one that is refused have lost their memory: none have where
            // the first page is refused too.
            // SAFETY: the first of those pages, whose contents are not needed either.
            Err(Errno::INVAL) => match unsafe { madvise(pointer(range), 1, Advice::LinuxDontNeed) }
            {
                Err(Errno::INVAL) => Ok(Purged::Kept),
                _ => Ok(Purged::ZeroOrOld),
            },
            Err(errno) => Err(error(errno)),
        }
    }

    fn random_key(&self) -> Option<[u8; 32]> {
        random::key()
    }
}

// SAFETY: the functions are system calls on the ranges that they were given; which failing calls
// unmap nothing is what the kernel's sources say.
unsafe impl System for Linux {
    type Calls = Self;

    const RESERVES_COMMITTED: bool = true;

    fn calls(&self) -> Self {
        *self
    }

    fn capabilities_among(&self, wanted: Capabilities) -> Capabilities {
        probe::capabilities_among(wanted)
    }

    unsafe fn map_reserved(&self, len: usize, at: At) -> Result<*mut c_void, Error> {
        let flags = match at {
            At::Anywhere | At::Hint(_) => MapFlags::empty(),
            At::Exact(_) => MapFlags::FIXED_NOREPLACE,
            At::Over(_) => MapFlags::FIXED,
            At::Aligned(_) => return Err(ErrorKind::Unsupported.into()),
        };
        let (none, flags) = (ProtFlags::empty(), PLAIN | flags);
        // SAFETY: FIXED replaces a range that is the caller's to give up; FIXED_NOREPLACE maps a
        // hole or fails, or takes the address for a hint.
        unsafe { mmap_anonymous(at.pointer(), len, none, flags) }.map_err(error)
    }

    unsafe fn map_committed(&self, range: PageRange, how: Commit) -> Result<(), Error> {
        let (at, len) = (pointer(range), range.len_bytes());
        let (access, flags) = (protection(how.access), PLAIN | MapFlags::FIXED);
        // SAFETY: FIXED replaces what is there, which is the caller's to give up.
        let mapped = unsafe { mmap_anonymous(at, len, access, flags) };
        mapped.map(drop).map_err(error)
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        if let PageWish::Large { bytes, or_base } = how.pages {
            // SAFETY: the range is reserved by the caller, and no other code uses it.
            match unsafe { moves::commit_large(range, how.access, bytes) } {
                Err(e) if or_base && e.kind() != ErrorKind::RangeLost => {}
                result => return result,
            }
        }
        if how.access.executable() {
            // Not by protection, which hardened kernels refuse: a page may not gain execution.
            // SAFETY: the range is reserved by the caller, and no other code uses it.
            unsafe { commit_over(self, range, how)? };
        } else {
            // SAFETY: the range is reserved, so nothing is taken away.
            let result = unsafe { self.protect(range, how.access) };
            if let Err(e) = result {
                // Part of it may have been done.
                // SAFETY: reserved before, so that no other code uses what is there.
                let _ = unsafe { self.protect(range, Access::None) };
                return Err(e);
            }
        }
        // SAFETY: the caller's range, which is committed now; this advice takes nothing away.
        unsafe { System::advise(self, range, how.pages) };
        Ok(page_size())
    }

    unsafe fn move_pages(&self, from: PageRange, to: PageRange) -> Result<(), Error> {
        // SAFETY: both ranges are the caller's, committed and reserved.
        unsafe { moves::move_pages(from, to) }
    }

    unsafe fn describe(&self, range: PageRange, name: Option<&CStr>, dump: Dump) {
        // Neither is worth failing for: kernels may be built without names, and a core file is
        // larger than it need be.
        if let Some(text) = name {
            names::name_range(range, text);
        }
        if dump == Dump::Excluded {
            // SAFETY: this advice changes nothing that the process can see.
            let _ = unsafe { advise(range, Advice::LinuxDontDump) };
        }
    }

    unsafe fn advise(&self, range: PageRange, wish: PageWish) {
        let advice = match wish {
            PageWish::Transparent => Advice::LinuxHugepage,
            PageWish::Never => Advice::LinuxNoHugepage,
            PageWish::Base | PageWish::Large { .. } => return,
        };
        // Kernels may lack large pages, which is no failure.
        // SAFETY: this advice changes nothing that the process can see.
        let _ = unsafe { advise(range, advice) };
    }

    fn left(&self, of: Resource) -> Option<usize> {
        limits::left(of)
    }

    fn large_page(&self) -> PageSize {
        let size = probe::read_number(None, LARGE_PAGE).and_then(PageSize::new);
        size.unwrap_or_else(|| page_size().of_table())
    }

    fn last_address(&self) -> Option<usize> {
        addresses::last_user_address()
    }

    fn first_address(&self) -> usize {
        0
    }

    /// The end of the address space is not looked for where the window lies below it for sure.
    fn within_user_addresses(&self, window: AddressRange) -> Option<AddressRange> {
        if window.last() <= address_of_stack() {
            return Some(window);
        }
        match mappable(self) {
            Some(user) => window.intersect(user),
            None => Some(window),
        }
    }

    fn may_be_taken(&self, _: Error) -> bool {
        // A place in use is `EEXIST` alone.
        false
    }

    /// Kernels before 4.17 do not know the flag and take the address for a hint.
    fn elsewhere(&self) -> Option<Error> {
        Some(error(Errno::EXIST))
    }

    fn is_too_long(&self, error: Error) -> bool {
        number(error) == Some(Errno::NOMEM)
    }

    fn unmaps_nothing(&self, call: Call, error: Error) -> bool {
        number(error).is_some_and(|errno| keep::fails_before_unmapping(call, errno))
    }

    fn is_at_limit(&self, _: usize, error: Error) -> bool {
        number(error) == Some(Errno::NOMEM) && keep::is_at_limit_of_mappings()
    }
}
