//! FreeBSD: `kern.proc.vmmap`: records of different lengths, each beginning with its own.

use crate::shared::{
    pages::page_size,
    sysctl::{Buffer, int, long, process},
    vmentry::entry_of,
};
use core::{ffi::c_int, mem::offset_of};
use hostmem_core::provider::{Error, MapEntry, MapFlags, backend::visit_others};
use libc::kinfo_vmentry as Record;

/// `KVME_TYPE_GUARD` of `sys/user.h`.
const KVME_TYPE_GUARD: c_int = 9;

pub(crate) fn walk(visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
    /// Room for more than a few new mappings, the buffer's own among them.
    const SPARE: usize = 16 << 10;
    let name = [
        libc::CTL_KERN,
        libc::KERN_PROC,
        libc::KERN_PROC_VMMAP,
        process(),
    ];
    let buffer = Buffer::read(&name, |len| {
        // A quarter more, since the longer the map, the more of it may change.
        let len = (len / 4).saturating_add(len).saturating_add(SPARE);
        page_size().round_up(len).unwrap_or(len)
    })?;
    let mut rest = buffer.bytes();
    let records = core::iter::from_fn(|| next_record(&mut rest));
    visit_others(records.filter_map(entry), buffer.addresses(), visit);
    Ok(())
}

/// Splits the next record off; `None` at the end, and where the rest is none.
fn next_record<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = int(rest, offset_of!(Record, kve_structsize))?;
    let len = usize::try_from(len).ok().filter(|&len| len != 0)?;
    let (record, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(record)
}

fn entry(record: &[u8]) -> Option<MapEntry> {
    let object = match int(record, offset_of!(Record, kve_type))? {
        libc::KVME_TYPE_NONE | KVME_TYPE_GUARD => false,
        // Anonymous memory has its handle here, of which other objects have none (since 13).
        libc::KVME_TYPE_DEFAULT | libc::KVME_TYPE_SWAP => {
            long(record, offset_of!(Record, kve_vn_fsid))? == 0
        }
        _ => true,
    };
    // Of anonymous memory it is not said whether it is shared.
    let copied = int(record, offset_of!(Record, kve_flags))? & libc::KVME_FLAG_COW != 0;
    let mut flags = MapFlags::empty();
    flags.set(MapFlags::OBJECT, object);
    flags.set(MapFlags::SHARED, object && !copied);
    entry_of(record, flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostmem_core::page::AddressRange;

    #[test]
    fn records_become_entries() {
        const LEN: usize = offset_of!(Record, kve_path) + 8;
        let len = c_int::try_from(LEN).expect("short");
        let mut bytes = [0; LEN + 4];
        for (at, value) in [
            (0, len),
            (offset_of!(Record, kve_type), libc::KVME_TYPE_VNODE),
            (offset_of!(Record, kve_start), 0x1000),
            (offset_of!(Record, kve_end), 0x3000),
            (offset_of!(Record, kve_protection), 5),
        ] {
            bytes[at..at + size_of::<c_int>()].copy_from_slice(&value.to_ne_bytes());
        }
        let mut rest = &bytes[..];
        let record = next_record(&mut rest).expect("one record");
        let flags = MapFlags::READ | MapFlags::EXEC | MapFlags::OBJECT | MapFlags::SHARED;
        let range = AddressRange::new(0x1000, 0x2fff).expect("not empty");
        assert_eq!(entry(record), Some(MapEntry { range, flags }));
        assert_eq!(next_record(&mut rest), None, "the rest is too short");
    }
}
