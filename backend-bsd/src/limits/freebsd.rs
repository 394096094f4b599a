//! FreeBSD: `RLIMIT_VMEM`, of which reservations are a part, guards too. `RLIMIT_DATA` is about the
//! program break only, and what a user has of `RLIMIT_SWAP` is not told.

use super::record;
use core::ffi::c_int;
use hostmem_core::provider::Resource;

pub(super) const LIMITED: Resource = Resource::Addresses;
pub(super) const LIMIT: c_int = libc::RLIMIT_VMEM;

/// Returns the bytes of addresses that are mapped.
pub(super) fn used() -> Option<usize> {
    let process = rustix::process::getpid().as_raw_nonzero().get();
    let name = [
        libc::CTL_KERN,
        libc::KERN_PROC,
        libc::KERN_PROC_PID,
        process,
    ];
    let found = record::<libc::kinfo_proc>(&name)?;
    // SAFETY: inside the record.
    let size = unsafe { &raw const (*found.as_ptr()).ki_size };
    // SAFETY: a number, which any bytes are; zeroed at first.
    Some(unsafe { size.read() })
}
