//! OpenBSD: `RLIMIT_DATA`, of which all accessible private memory is a part. There is no limit of
//! addresses.

use super::record;
use crate::pages::page_size;
use core::ffi::c_int;
use hostmem_core::provider::Resource;

pub(super) const LIMITED: Resource = Resource::Memory;
pub(super) const LIMIT: c_int = libc::RLIMIT_DATA;

/// Returns the bytes that count as data.
pub(super) fn used() -> Option<usize> {
    let process = rustix::process::getpid().as_raw_nonzero().get();
    let size = c_int::try_from(size_of::<libc::kinfo_proc>()).ok()?;
    let name = [
        libc::CTL_KERN,
        libc::KERN_PROC,
        libc::KERN_PROC_PID,
        process,
        size,
        1,
    ];
    let found = record::<libc::kinfo_proc>(&name)?;
    // SAFETY: inside the record.
    let pages = unsafe { &raw const (*found.as_ptr()).p_vm_dsize };
    // SAFETY: a number, which any bytes are; zeroed at first.
    let pages = usize::try_from(unsafe { pages.read() }).ok()?;
    pages.checked_mul(page_size().bytes())
}
