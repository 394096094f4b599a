//! Limits: what is left of them.
//!
//! A limit that is not set costs one system call; one that is, a look at the process by
//! `sysctl(3)`. `RLIMIT_AS` counts reservations. `RLIMIT_DATA` is about the program break only.

use core::mem::offset_of;
use hostmem_bsd::shared::{
    limits::{left as left_of, limit, process_record},
    pages::page_size,
    sysctl::int,
};
use hostmem_core::provider::Resource;
use libc::kinfo_proc2 as Record;

/// Returns how much of a resource is left. How much is locked is not told, and there is no limit of
/// mappings.
pub(crate) fn left(of: Resource) -> Option<usize> {
    match of {
        Resource::FileSize => limit(libc::RLIMIT_FSIZE),
        Resource::Addresses => left_of(libc::RLIMIT_AS, mapped),
        _ => None,
    }
}

/// Returns the bytes of addresses that are mapped; `None` where the system does not tell.
fn mapped() -> Option<usize> {
    let record = process_record::<{ size_of::<Record>() }>(libc::KERN_PROC2, true)?;
    let pages = int(&record, offset_of!(Record, p_vm_vsize))?;
    usize::try_from(pages)
        .ok()?
        .checked_mul(page_size().bytes())
}
