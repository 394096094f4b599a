//! The arguments of the calls: regions, pages, accesses.

use super::errno::{Errno, INVALID};
use crate::{
    object,
    region::{RegionObject, hm_region},
};
use core::{
    ffi::{c_int, c_void},
    ptr::NonNull,
};
use hostmem::{
    page::{Access, Ceiling, PageRange, PageSize, RwxOptIn},
    provider::{Commit, PageWish},
};

/// Finds the region of a call.
///
/// # Safety
///
/// It is null, or a handle of this library, which is not closed during the call.
pub(super) unsafe fn find(region: *mut hm_region) -> Result<&'static RegionObject, Errno> {
    if region.is_null() {
        return Err(Errno(libc::ENODEV));
    }
    // SAFETY: not null; a handle of this library which is not closed during the call, by this
    // function's condition.
    Ok(unsafe { object::get::<RegionObject, _>(region) }?.1)
}

/// Makes whole pages of an address, which is one's start, and a length.
pub(super) fn whole(addr: *mut c_void, len: usize, page: PageSize) -> Result<PageRange, Errno> {
    let len = page.round_up(len).filter(|len| *len != 0).ok_or(INVALID)?;
    let start = NonNull::new(addr.cast::<u8>()).ok_or(INVALID)?;
    PageRange::new(start, len, page).ok_or(INVALID)
}

/// Makes an access of `PROT_` bits. Writable or executable pages are readable, as on most CPUs.
pub(super) fn access(prot: c_int) -> Result<Access, Errno> {
    const KNOWN: c_int = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    if prot & !KNOWN != 0 {
        return Err(INVALID);
    }
    Ok(match (prot & libc::PROT_WRITE, prot & libc::PROT_EXEC) {
        (0, 0) if prot == libc::PROT_NONE => Access::None,
        (0, 0) => Access::Read,
        (_, 0) => Access::ReadWrite,
        (0, _) => Access::ReadExec,
        // SAFETY: the caller in C has asked for it by its bits.
        _ => Access::ReadWriteExec(unsafe { RwxOptIn::accept() }),
    })
}

/// Makes what memory is like that may be given any access later, as mmap's may.
pub(super) fn how(access: Access) -> Commit {
    let ceiling = match access {
        Access::ReadWriteExec(consent) => Ceiling::ReadWriteExec(consent),
        _ => Ceiling::WriteXorExec,
    };
    Commit {
        access,
        ceiling,
        pages: PageWish::Base,
    }
}
