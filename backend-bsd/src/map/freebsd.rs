//! FreeBSD: `kern.proc.vmmap`: records of different lengths, each beginning with its own.

use crate::{
    errno::{check, error},
    pages::page_size,
};
use core::{
    ffi::{c_int, c_uint, c_void},
    mem::offset_of,
    ptr::{NonNull, null, null_mut},
};
use hostmem_core::{
    page::{AddressRange, PageRange},
    provider::{Error, ErrorKind, MapEntry, MapFlags},
};
use libc::kinfo_vmentry as Record;
use rustix::{
    io::Errno,
    mm::{MapFlags as Flags, ProtFlags, mmap_anonymous, munmap},
};

/// `KVME_TYPE_GUARD` of `sys/user.h`.
const KVME_TYPE_GUARD: c_int = 9;

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
    /// spare room below only where other threads map all the time.
    const TRIES: u32 = 8;
    /// Room for more than a few new mappings, the buffer's own among them.
    const SPARE: usize = 16 << 10;
    let process = rustix::process::getpid().as_raw_nonzero().get();
    let name = [
        libc::CTL_KERN,
        libc::KERN_PROC,
        libc::KERN_PROC_VMMAP,
        process,
    ];
    for _ in 0..TRIES {
        let len = sysctl(&name, null_mut(), 0).map_err(error)?;
        // A quarter more, since the longer the map, the more of it may change.
        let len = (len / 4).saturating_add(len).saturating_add(SPARE);
        let mut buffer = Buffer::new(len)?;
        match sysctl(&name, buffer.start(), buffer.range.len_bytes()) {
            Ok(used) => {
                buffer.used = used.min(buffer.range.len_bytes());
                return Ok(buffer);
            }
            Err(Errno::NOMEM) => {}
            Err(errno) => return Err(error(errno)),
        }
    }
    Err(error(Errno::NOMEM))
}

pub(super) fn walk(visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
    let buffer = read_map()?;
    let own = buffer.range.addresses();
    let mut rest = buffer.bytes();
    while let Some(record) = next_record(&mut rest) {
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

/// Splits the next record off; `None` at the end, and where the rest is none.
fn next_record<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = int(rest, offset_of!(Record, kve_structsize))?;
    let len = usize::try_from(len).ok().filter(|&len| len != 0)?;
    let (record, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(record)
}

fn int(record: &[u8], at: usize) -> Option<c_int> {
    let bytes = record.get(at..)?.first_chunk()?;
    Some(c_int::from_ne_bytes(*bytes))
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
    let mut flags = MapFlags::empty();
    flags.set(MapFlags::READ, protection & libc::KVME_PROT_READ != 0);
    flags.set(MapFlags::WRITE, protection & libc::KVME_PROT_WRITE != 0);
    flags.set(MapFlags::EXEC, protection & libc::KVME_PROT_EXEC != 0);
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
    flags.set(MapFlags::OBJECT, object);
    flags.set(MapFlags::SHARED, object && !copied);
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
        const LEN: usize = offset_of!(Record, kve_path) + 8;
        let len = c_int::try_from(LEN).expect("short");
        let mut bytes = [0; LEN + 4];
        put(&mut bytes, 0, &len.to_ne_bytes());
        put(
            &mut bytes,
            offset_of!(Record, kve_type),
            &libc::KVME_TYPE_VNODE.to_ne_bytes(),
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
            &5i32.to_ne_bytes(),
        );
        let mut rest = &bytes[..];
        let record = next_record(&mut rest).expect("one record");
        let flags = MapFlags::READ | MapFlags::EXEC | MapFlags::OBJECT | MapFlags::SHARED;
        let range = AddressRange::new(0x1000, 0x2fff).expect("not empty");
        assert_eq!(entry(record), Some(MapEntry { range, flags }));
        assert_eq!(next_record(&mut rest), None, "the rest is too short");
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
