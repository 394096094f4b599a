//! `sysctl(3)`: numbers, records, and the process map.

use super::{
    errno::{check, error},
    pages::{BsdCalls, page_size},
};
use core::{
    ffi::{c_int, c_uint, c_void},
    ptr::null_mut,
};
use hostmem_core::{
    page::{Access, AddressRange, PageRange},
    provider::{
        Error, ErrorKind, MapEntry, MapFlags,
        backend::{Calls, range_at},
    },
};
use rustix::io::Errno;

/// Returns the number of this process.
#[must_use]
pub fn process() -> c_int {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Reads a sysctl; returns how many bytes there were.
///
/// # Safety
///
/// `buffer` has `size` bytes that may be written, or is null to ask for the length only.
unsafe fn sysctl(name: &[c_int], buffer: *mut c_void, size: usize) -> Result<usize, Errno> {
    let parts = c_uint::try_from(name.len()).map_err(|_| Errno::INVAL)?;
    let mut len = size;
    // SAFETY: the name has that many parts, and the buffer as many bytes as its length says.
    let done = unsafe { libc::sysctl(name.as_ptr(), parts, buffer, &raw mut len, null_mut(), 0) };
    check(done).map(|_| len)
}

/// Reads a sysctl into `bytes`; returns how many there were.
///
/// # Errors
///
/// What the system says.
pub fn sysctl_bytes(name: &[c_int], bytes: &mut [u8]) -> Result<usize, Errno> {
    let (buffer, size) = (bytes.as_mut_ptr().cast(), bytes.len());
    // SAFETY: the slice has as many bytes, and may be written.
    unsafe { sysctl(name, buffer, size) }
}

/// Reads a sysctl that is an integer.
#[must_use]
pub fn sysctl_int(name: &[c_int]) -> Option<c_int> {
    let mut value = [0; size_of::<c_int>()];
    let len = sysctl_bytes(name, &mut value).ok()?;
    (len == value.len()).then_some(c_int::from_ne_bytes(value))
}

/// Memory mapped for one call.
#[derive(Debug)]
pub struct Buffer {
    range: PageRange,
    used: usize,
}

impl Buffer {
    fn new(len: usize) -> Result<Self, Error> {
        let len = page_size().round_up(len).ok_or(ErrorKind::Exhausted)?;
        let start = BsdCalls.map_fresh(len, Access::ReadWrite)?;
        let range = range_at(page_size(), start, len)?;
        Ok(Self { range, used: 0 })
    }

    /// Reads a sysctl that may grow between asking for its length and reading it, with as many
    /// bytes of room as `room` returns for the length.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn read(name: &[c_int], room: impl Fn(usize) -> usize) -> Result<Self, Error> {
        /// Attempts. The map may grow by more than the spare room only where other threads map all
        /// the time.
        const TRIES: u32 = 8;
        let mut result = Errno::NOMEM;
        for _ in 0..TRIES {
            // SAFETY: null asks for the length only.
            let len = room(unsafe { sysctl(name, null_mut(), 0) }.map_err(error)?);
            let mut buffer = Self::new(len)?;
            let start = buffer.range.start().as_ptr().cast();
            // SAFETY: mapped just now, writable, and at least as long.
            match unsafe { sysctl(name, start, len) } {
                Ok(used) => {
                    buffer.used = used.min(len);
                    return Ok(buffer);
                }
                // Another word for the same: there is more now.
                Err(errno @ (Errno::NOMEM | Errno::NOSPC)) => result = errno,
                Err(errno) => return Err(error(errno)),
            }
        }
        Err(error(result))
    }

    /// Returns what was read.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped and readable until drop, zero at first, and no longer written to; the
        // part used is no longer than the whole.
        unsafe { core::slice::from_raw_parts(self.range.start().as_ptr(), self.used) }
    }

    /// Returns where the buffer lies.
    #[must_use]
    pub fn addresses(&self) -> AddressRange {
        self.range.addresses()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and the borrows of it have ended.
        // It cannot fail for a whole mapping.
        let _ = unsafe { BsdCalls.unmap(self.range) };
    }
}

/// Returns the integer at an offset of a record; `None` behind its end.
#[must_use]
pub fn int(record: &[u8], at: usize) -> Option<c_int> {
    let bytes = record.get(at..)?.first_chunk()?;
    Some(c_int::from_ne_bytes(*bytes))
}

/// Returns the number of 64 bits at an offset of a record; `None` behind its end.
#[must_use]
pub fn long(record: &[u8], at: usize) -> Option<u64> {
    let bytes = record.get(at..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*bytes))
}

/// Makes an entry of the process map of its ends, its protection (`PROT_READ` and the like) and
/// what else is known of it.
#[must_use]
pub fn entry((start, end): (u64, u64), protection: c_int, mut flags: MapFlags) -> Option<MapEntry> {
    let (start, end) = (usize::try_from(start).ok()?, usize::try_from(end).ok()?);
    let range = AddressRange::new(start, end.checked_sub(1)?)?;
    flags.set(MapFlags::READ, protection & libc::PROT_READ != 0);
    flags.set(MapFlags::WRITE, protection & libc::PROT_WRITE != 0);
    flags.set(MapFlags::EXEC, protection & libc::PROT_EXEC != 0);
    Some(MapEntry { range, flags })
}
