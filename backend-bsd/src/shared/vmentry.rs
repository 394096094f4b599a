//! Records of the process map, as FreeBSD and NetBSD have them.

use super::sysctl::{entry, int, long};
use core::mem::offset_of;
use hostmem_core::provider::{MapEntry, MapFlags};
use libc::kinfo_vmentry as Record;

/// Makes an entry of a record, and of what else is known of it.
#[must_use]
pub fn entry_of(record: &[u8], flags: MapFlags) -> Option<MapEntry> {
    let start = long(record, offset_of!(Record, kve_start))?;
    let end = long(record, offset_of!(Record, kve_end))?;
    let protection = int(record, offset_of!(Record, kve_protection))?;
    entry((start, end), protection, flags)
}
