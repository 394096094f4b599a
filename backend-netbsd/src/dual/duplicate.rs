//! Duplicates of a mapping, by `mremap(2)`.
//!
//! A duplicate lands on a hole, or the call says `ENOMEM`: right for exact places, and the reason
//! why a target range is unmapped first.

use crate::pages::{NetBsd, aligned};
use core::ffi::c_int;
use hostmem_bsd::shared::{
    errno::{error, last},
    pages::{BsdCalls, page_size},
};
use hostmem_core::{
    page::PageRange,
    provider::{
        DualStepError, Error, ErrorKind, Placement, Request, Target,
        backend::{At, Calls, map_at, pointer, range_at, refused, search_places},
    },
};
use rustix::io::Errno;

/// Duplicates a mapping where the system likes, or at a hole (`MAP_FIXED`); replaces nothing.
fn remap(of: PageRange, at: At, flags: c_int) -> Result<PageRange, Error> {
    let (len, flags) = (of.len_bytes(), libc::MAP_REMAPDUP | flags);
    // SAFETY: the source stays as it is, and the duplicate lands on a hole or nowhere.
    let got = unsafe { libc::mremap(pointer(of), len, at.pointer(), len, flags) };
    if got != libc::MAP_FAILED {
        return range_at(page_size(), got, len);
    }
    Err(match last() {
        // Kernels before 8 do not know that a mapping can be duplicated.
        Errno::INVAL => Error::os(ErrorKind::Unsupported, Errno::INVAL.raw_os_error()),
        errno => error(errno),
    })
}

fn duplicate_at(of: PageRange, addr: usize) -> Result<PageRange, Error> {
    let got = remap(of, At::Exact(addr), libc::MAP_FIXED);
    got.map_err(|error| refused(&NetBsd, addr, of.len_bytes(), error))
}

/// Duplicates a mapping at its target.
///
/// # Safety
///
/// A range in [`Target::Into`] is the caller's, and no other code uses it.
pub(super) unsafe fn duplicate(of: PageRange, target: Target) -> Result<PageRange, DualStepError> {
    match target {
        Target::Find(placement) => Ok(duplicate_found(of, placement)?),
        // SAFETY: the range is the caller's, and no other code uses it.
        Target::Into(range) => unsafe { duplicate_onto(of, range) },
    }
}

fn duplicate_found(of: PageRange, placement: Placement) -> Result<PageRange, Error> {
    let request = Request::bytes(of.len_bytes()).placement(placement);
    let plan = request.plan(page_size())?;
    if plan.unconstrained() {
        let at_page = plan.align() == page_size().bytes();
        let flags = if at_page { 0 } else { aligned(plan.align()) };
        let range = remap(of, At::Anywhere, flags)?;
        if plan.aligned(range.addr()) {
            return Ok(range);
        }
        // SAFETY: mapped just now, and no other code has its address yet.
        unsafe { BsdCalls.unmap(range)? };
    }
    search_places(&NetBsd, &request, &mut |addr, _| duplicate_at(of, addr))
}

/// Makes the range a hole, and duplicates into it. Whoever gets in between keeps it.
///
/// # Safety
///
/// The range is the caller's, and no other code uses it.
unsafe fn duplicate_onto(of: PageRange, range: PageRange) -> Result<PageRange, DualStepError> {
    // SAFETY: the range is the caller's, and no other code uses it.
    unsafe { BsdCalls.unmap(range)? };
    duplicate_at(of, range.addr()).map_err(|error| {
        let lost = map_at(&NetBsd, range.addr(), range.len_bytes()).is_err();
        DualStepError {
            error,
            lost: lost.then_some(range),
        }
    })
}
