//! Duplicates of a mapping, by `mremap(2)`.
//!
//! A duplicate lands on a hole, or the call says `ENOMEM`: right for exact places, and the reason
//! why a target range is unmapped first.

use crate::{
    NetBsdProvider,
    errno::{error, last},
    pages::{aligned, map_at, page_size, pointer, range_at, refused, unmap},
};
use core::{
    ffi::{c_int, c_void},
    ptr::{null_mut, without_provenance_mut},
};
use hostmem_core::{
    page::PageRange,
    provider::{DualStepError, Error, ErrorKind, Placement, Request, Target},
};
use rustix::io::Errno;

/// Duplicates a mapping where the system likes, or at a hole (`MAP_FIXED`); replaces nothing.
fn remap(of: PageRange, at: *mut c_void, flags: c_int) -> Result<*mut c_void, Errno> {
    let (len, flags) = (of.len_bytes(), libc::MAP_REMAPDUP | flags);
    // SAFETY: the source stays as it is, and the duplicate lands on a hole or nowhere.
    let got = unsafe { libc::mremap(pointer(of), len, at, len, flags) };
    if got == libc::MAP_FAILED {
        Err(last())
    } else {
        Ok(got)
    }
}

fn duplicate_anywhere(of: PageRange, align: usize) -> Result<PageRange, Error> {
    let flags = if align > page_size().bytes() {
        aligned(align)
    } else {
        0
    };
    match remap(of, null_mut(), flags) {
        Ok(got) => range_at(got, of.len_bytes()),
        Err(errno) => Err(unknown(errno).unwrap_or_else(|| error(errno))),
    }
}

fn duplicate_at(of: PageRange, addr: usize) -> Result<PageRange, Error> {
    match remap(of, without_provenance_mut(addr), libc::MAP_FIXED) {
        Ok(got) => range_at(got, of.len_bytes()),
        Err(errno) => Err(unknown(errno).unwrap_or_else(|| refused(addr, of.len_bytes(), errno))),
    }
}

/// Kernels before 8 do not know that a mapping can be duplicated.
fn unknown(errno: Errno) -> Option<Error> {
    (errno == Errno::INVAL).then(|| Error::os(ErrorKind::Unsupported, errno.raw_os_error()))
}

/// Duplicates a mapping at its target.
///
/// # Safety
///
/// A range in [`Target::Into`] is the caller's, and no other code uses it.
pub(super) unsafe fn duplicate(of: PageRange, target: Target) -> Result<PageRange, DualStepError> {
    match target {
        Target::Find(placement) => Ok(duplicate_found(of, placement)?),
        // SAFETY: the caller's promise.
        Target::Into(range) => unsafe { duplicate_onto(of, range) },
    }
}

fn duplicate_found(of: PageRange, placement: Placement) -> Result<PageRange, Error> {
    let request = Request::bytes(of.len_bytes()).placement(placement);
    let plan = request.plan(page_size())?;
    if plan.unconstrained() {
        let range = duplicate_anywhere(of, plan.align())?;
        if plan.aligned(range.addr()) {
            return Ok(range);
        }
        // SAFETY: mapped just now, and no other code has its address yet.
        unsafe { unmap(range)? };
    }
    NetBsdProvider::new().search(&request, &mut |addr, _| duplicate_at(of, addr))
}

/// Makes the range a hole, and duplicates into it. Whoever gets in between keeps it.
///
/// # Safety
///
/// The range is the caller's, and no other code uses it.
unsafe fn duplicate_onto(of: PageRange, range: PageRange) -> Result<PageRange, DualStepError> {
    // SAFETY: the caller's promise.
    unsafe { unmap(range)? };
    duplicate_at(of, range.addr()).map_err(|error| {
        let lost = map_at(range.addr(), range.len_bytes()).is_err();
        DualStepError {
            error,
            lost: lost.then_some(range),
        }
    })
}
