//! The process map: `sysctl(3)` `vm.proc.map`.
//!
//! All of it at once, so it goes to a buffer that is mapped for the call and is not shown to the
//! visitor. Nothing is allocated.

use crate::{
    NetBsdProvider,
    errno::{check, error},
    pages::{mappable, page_size},
};
use core::{
    ffi::{c_int, c_uint, c_void},
    mem::offset_of,
    ptr::{NonNull, null, null_mut},
};
use hostmem_core::{
    page::{AddressRange, PageRange},
    provider::{AddressSpace, Error, ErrorKind, MapEntry, MapFlags, ProcessMap},
};
use libc::kinfo_vmentry as Record;
use rustix::{
    io::Errno,
    mm::{MapFlags as Flags, ProtFlags, mmap_anonymous, munmap},
};

/// Bytes of a record. The kernel would cut records to any size that is asked for, but until
/// 10.99.12 at least it then writes behind a buffer of its own: only whole ones are safe.
const RECORD: usize = size_of::<Record>();

/// `KVME_TYPE_UNKNOWN` of `sys/sysctl.h`: no object, which is what anonymous memory has.
const KVME_TYPE_UNKNOWN: u32 = 255;

/// Reads a sysctl into `buffer`; returns how many bytes there were.
fn sysctl(name: &[c_int], buffer: *mut c_void, size: usize) -> Result<usize, Errno> {
    let parts = c_uint::try_from(name.len()).map_err(|_| Errno::INVAL)?;
    let mut len = size;
    // SAFETY: the name has that many parts, and the callers' buffers have `size` bytes, or are null
    // to ask for the length only.
    let done = unsafe { libc::sysctl(name.as_ptr(), parts, buffer, &raw mut len, null(), 0) };
    check(done).map(|_| len)
}

/// Reads a sysctl that is an integer.
pub(crate) fn sysctl_int(name: &[c_int]) -> Option<c_int> {
    let mut value = 0;
    let len = sysctl(name, (&raw mut value).cast(), size_of::<c_int>());
    len.is_ok_and(|len| len == size_of::<c_int>())
        .then_some(value)
}

/// Memory mapped for one call.
struct Buffer {
    range: PageRange,
    used: usize,
}

impl Buffer {
    fn new(len: usize) -> Result<Self, Error> {
        let len = page_size().round_up(len).ok_or(ErrorKind::Exhausted)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
        let got = unsafe { mmap_anonymous(null_mut(), len, access, Flags::PRIVATE) };
        let start = NonNull::new(got.map_err(error)?.cast());
        let range = start.and_then(|start| PageRange::new(start, len, page_size()));
        let range = range.ok_or(ErrorKind::Other)?;
        Ok(Self { range, used: 0 })
    }

    fn start(&self) -> *mut c_void {
        self.range.start().as_ptr().cast()
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped and readable until drop, zero at first, and no longer written to; the
        // part used is no longer than the whole.
        unsafe { core::slice::from_raw_parts(self.range.start().as_ptr(), self.used) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and the borrows of it have ended.
        // It cannot fail for a whole mapping.
        let _ = unsafe { munmap(self.start(), self.range.len_bytes()) };
    }
}

/// Reads the whole map.
fn read_map() -> Result<Buffer, Error> {
    /// Attempts. The map may grow between asking for its length and reading it, by more than the
    /// spare records below only where other threads map all the time.
    const TRIES: u32 = 8;
    /// Room for a few new mappings, the buffer's own among them.
    const SPARE: usize = 16;
    /// The kernel refuses longer buffers (`E2BIG`), and so to show longer maps.
    const MOST: usize = (10 << 20) / RECORD;
    let process = rustix::process::getpid().as_raw_nonzero().get();
    let size = c_int::try_from(RECORD).map_err(|_| ErrorKind::Other)?;
    let name = [
        libc::CTL_VM,
        libc::VM_PROC,
        libc::VM_PROC_MAP,
        process,
        size,
    ];
    let mut result = Errno::NOMEM;
    for _ in 0..TRIES {
        let records = sysctl(&name, null_mut(), 0).map_err(error)? / RECORD;
        // A quarter more, since the longer the map, the more of it may change.
        let records = (records + records / 4).saturating_add(SPARE).min(MOST);
        let mut buffer = Buffer::new(records * RECORD)?;
        match sysctl(&name, buffer.start(), records * RECORD) {
            Ok(used) => {
                buffer.used = used.min(records * RECORD);
                return Ok(buffer);
            }
            // Another word for the same: there are more records now.
            Err(errno @ (Errno::NOMEM | Errno::NOSPC)) => result = errno,
            Err(errno) => return Err(error(errno)),
        }
    }
    Err(error(result))
}

impl ProcessMap for NetBsdProvider {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        let buffer = read_map()?;
        let own = buffer.range.addresses();
        for record in buffer.bytes().chunks_exact(RECORD) {
            let Some(MapEntry { range, flags }) = entry(record) else {
                continue;
            };
            for range in without(range, own).into_iter().flatten() {
                if !visit(MapEntry { range, flags }) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn address_space(&self) -> AddressSpace {
        AddressSpace {
            user: mappable(),
            // A stack is mapped at its full length, inaccessible where it has not grown to.
            ..AddressSpace::default()
        }
    }
}

/// Returns what is left of `range` below and above `hole`.
fn without(range: AddressRange, hole: AddressRange) -> [Option<AddressRange>; 2] {
    if range.intersect(hole).is_none() {
        return [Some(range), None];
    }
    let below = hole.start().checked_sub(1);
    let above = hole.last().checked_add(1);
    [
        below.and_then(|last| AddressRange::new(range.start(), last)),
        above.and_then(|start| AddressRange::new(start, range.last())),
    ]
}

fn int(record: &[u8], at: usize) -> Option<u32> {
    let bytes = record.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn long(record: &[u8], at: usize) -> Option<u64> {
    let bytes = record.get(at..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*bytes))
}

fn entry(record: &[u8]) -> Option<MapEntry> {
    let start = usize::try_from(long(record, offset_of!(Record, kve_start))?).ok()?;
    let end = usize::try_from(long(record, offset_of!(Record, kve_end))?).ok()?;
    let range = AddressRange::new(start, end.checked_sub(1)?)?;
    let protection = int(record, offset_of!(Record, kve_protection))?;
    let may = |bit: c_int| protection & bit.unsigned_abs() != 0;
    let copied = int(record, offset_of!(Record, kve_flags))? & libc::KVME_FLAG_COW.unsigned_abs();
    let kind = int(record, offset_of!(Record, kve_type))?;
    let mut flags = MapFlags::empty();
    flags.set(MapFlags::READ, may(libc::KVME_PROT_READ));
    flags.set(MapFlags::WRITE, may(libc::KVME_PROT_WRITE));
    flags.set(MapFlags::EXEC, may(libc::KVME_PROT_EXEC));
    flags.set(MapFlags::OBJECT, kind != KVME_TYPE_UNKNOWN);
    flags.set(MapFlags::SHARED, copied == 0);
    Some(MapEntry { range, flags })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(record: &mut [u8], at: usize, value: &[u8]) {
        record[at..at + value.len()].copy_from_slice(value);
    }

    #[test]
    fn records_become_entries() {
        let mut bytes = [0; RECORD];
        put(
            &mut bytes,
            offset_of!(Record, kve_type),
            &2u32.to_ne_bytes(),
        );
        put(
            &mut bytes,
            offset_of!(Record, kve_start),
            &0x1000u64.to_ne_bytes(),
        );
        put(
            &mut bytes,
            offset_of!(Record, kve_end),
            &0x3000u64.to_ne_bytes(),
        );
        put(
            &mut bytes,
            offset_of!(Record, kve_protection),
            &5u32.to_ne_bytes(),
        );
        let flags = MapFlags::READ | MapFlags::EXEC | MapFlags::OBJECT | MapFlags::SHARED;
        let range = AddressRange::new(0x1000, 0x2fff).expect("not empty");
        assert_eq!(entry(&bytes), Some(MapEntry { range, flags }));
        assert_eq!(entry(&bytes[..8]), None);
    }

    #[test]
    fn the_buffer_is_left_out() {
        let range = |start, last| AddressRange::new(start, last).expect("not empty");
        let hole = range(0x2000, 0x2fff);
        assert_eq!(
            without(range(0, 0x1fff), hole),
            [Some(range(0, 0x1fff)), None]
        );
        assert_eq!(without(hole, hole), [None, None]);
        assert_eq!(
            without(range(0x1000, 0x4fff), hole),
            [Some(range(0x1000, 0x1fff)), Some(range(0x3000, 0x4fff))]
        );
    }
}
