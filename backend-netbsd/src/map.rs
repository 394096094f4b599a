//! The process map: `sysctl(3)` `vm.proc.map`.
//!
//! All of it at once, so it goes to a buffer that is mapped for the call and is not shown to the
//! visitor. Nothing is allocated.

use crate::pages::NetBsd;
use core::{ffi::c_int, mem::offset_of};
use hostmem_bsd::shared::{
    sysctl::{Buffer, int, process},
    vmentry::entry_of,
};
use hostmem_core::provider::{
    Error, ErrorKind, MapEntry, MapFlags, ProcessMap, backend::visit_others,
};
use libc::kinfo_vmentry as Record;

/// Bytes of a record. The kernel would cut records to any size that is asked for, but until
/// 10.99.12 at least it then writes behind a buffer of its own: only whole ones are safe.
const RECORD: usize = size_of::<Record>();

/// `KVME_TYPE_UNKNOWN` of `sys/sysctl.h`: no object, which is what anonymous memory has.
const KVME_TYPE_UNKNOWN: c_int = 255;

impl ProcessMap for NetBsd {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        /// Room for a few new mappings, the buffer's own among them.
        const SPARE: usize = 16;
        /// The kernel refuses longer buffers (`E2BIG`), and so to show longer maps.
        const MOST: usize = (10 << 20) / RECORD;
        let size = c_int::try_from(RECORD).map_err(|_| ErrorKind::Other)?;
        let name = [
            libc::CTL_VM,
            libc::VM_PROC,
            libc::VM_PROC_MAP,
            process(),
            size,
        ];
        let buffer = Buffer::read(&name, |len| {
            let records = len / RECORD;
            // A quarter more, since the longer the map, the more of it may change.
            let records = (records + records / 4).saturating_add(SPARE).min(MOST);
            records * RECORD
        })?;
        let records = buffer.bytes().chunks_exact(RECORD);
        visit_others(records.filter_map(entry), buffer.addresses(), visit);
        Ok(())
    }
}

fn entry(record: &[u8]) -> Option<MapEntry> {
    let copied = int(record, offset_of!(Record, kve_flags))? & libc::KVME_FLAG_COW;
    let kind = int(record, offset_of!(Record, kve_type))?;
    let mut flags = MapFlags::empty();
    flags.set(MapFlags::OBJECT, kind != KVME_TYPE_UNKNOWN);
    flags.set(MapFlags::SHARED, copied == 0);
    entry_of(record, flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostmem_core::page::AddressRange;

    #[test]
    fn records_become_entries() {
        let mut bytes = [0; RECORD];
        for (at, value) in [
            (offset_of!(Record, kve_type), 2),
            (offset_of!(Record, kve_start), 0x1000),
            (offset_of!(Record, kve_end), 0x3000),
            (offset_of!(Record, kve_protection), 5),
        ] {
            bytes[at..at + size_of::<c_int>()].copy_from_slice(&c_int::to_ne_bytes(value));
        }
        let flags = MapFlags::READ | MapFlags::EXEC | MapFlags::OBJECT | MapFlags::SHARED;
        let range = AddressRange::new(0x1000, 0x2fff).expect("not empty");
        assert_eq!(entry(&bytes), Some(MapEntry { range, flags }));
        assert_eq!(entry(&bytes[..8]), None);
    }
}
