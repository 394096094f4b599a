//! What the two views of a dual mapping show: a memory object, by one strategy each.

#[cfg(target_os = "dragonfly")]
mod dragonfly;
#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "openbsd")]
mod openbsd;

#[cfg(target_os = "dragonfly")]
use dragonfly as host;
#[cfg(target_os = "freebsd")]
use freebsd as host;
#[cfg(target_os = "openbsd")]
use openbsd as host;

#[cfg(target_os = "freebsd")]
pub(crate) use host::page_sizes;

use crate::{BsdProvider, errno::error, limits::ask_file_size, pages::FILE};
use core::{
    ffi::CStr,
    sync::atomic::{AtomicU32, Ordering},
};
use hostmem_core::{
    page::PageSize,
    provider::{DualRequest, DualStep, Error, ErrorKind},
};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, Mode, OFlags, ftruncate, open, openat, unlinkat},
    io::{Errno, pwrite},
    mm::MapFlags,
};

/// Owner only: nobody else is to open it in the moment that it has a name.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A memory object: closed on exec, and not to be found by name.
pub(crate) struct MemoryObject {
    pub(crate) file: OwnedFd,
    /// The same, opened for reading only, where that is to be had.
    pub(crate) read_only: Option<OwnedFd>,
    /// The size of its pages.
    pub(crate) page: PageSize,
    /// Flags to map it with.
    pub(crate) flags: MapFlags,
}

impl MemoryObject {
    /// An object of the host's pages.
    const fn of(file: OwnedFd, read_only: Option<OwnedFd>, page: PageSize) -> Self {
        Self {
            file,
            read_only,
            page,
            flags: MapFlags::empty(),
        }
    }
}

impl BsdProvider {
    /// Makes the memory object of one strategy, `request.len` bytes long.
    pub(crate) fn memory_object(
        &self,
        step: DualStep,
        request: &DualRequest<'_>,
        base: PageSize,
    ) -> Result<MemoryObject, Error> {
        let len = u64::try_from(request.len).map_err(|_| ErrorKind::InvalidArgument)?;
        if let DualStep::Directory(n) = step {
            let directory = self.directories().get(usize::from(n));
            return file_in(directory.ok_or(ErrorKind::Unsupported)?, len, base);
        }
        let object = host::open(step, request, base)?;
        ftruncate(&object.file, len).map_err(error)?;
        Ok(object)
    }
}

/// Tries names until one is new.
fn with_new_name<T>(prefix: &[u8], create: impl Fn(&CStr) -> Result<T, Errno>) -> Result<T, Error> {
    /// Names tried. Others may only have taken them on purpose, or before a process of the same
    /// number died in between.
    const TRIES: u32 = 16;
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let process = rustix::process::getpid()
        .as_raw_nonzero()
        .get()
        .unsigned_abs();
    for _ in 0..TRIES {
        let name = Text::new(prefix).number(process).byte(b'-');
        let name = name.number(COUNTER.fetch_add(1, Ordering::Relaxed));
        match create(name.as_c_str()) {
            Err(Errno::EXIST) => {}
            result => return result.map_err(error),
        }
    }
    Err(error(Errno::EXIST))
}

/// Makes a file in a directory, whose name is gone at once.
fn file_in(directory: &CStr, len: u64, base: PageSize) -> Result<MemoryObject, Error> {
    ask_file_size(len, base)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(directory, flags, Mode::empty()).map_err(error)?;
    let (file, read_only) = with_new_name(b"hostmem-", |name| {
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let new = flags | OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
        let file = openat(&directory, name, new, MODE)?;
        let read_only = openat(&directory, name, flags | OFlags::RDONLY, Mode::empty());
        unlinkat(&directory, name, AtFlags::empty())?;
        Ok((file, read_only.ok()))
    })?;
    fill(&file, len)?;
    Ok(MemoryObject {
        flags: FILE,
        ..MemoryObject::of(file, read_only, base)
    })
}

/// Fills a file with zeroes: a full file system shall fail here, not kill the process at a later
/// store. No call does it on every file system (ZFS refuses `posix_fallocate(2)`).
fn fill(file: impl AsFd, len: u64) -> Result<(), Error> {
    /// Bytes written at a time.
    const BLOCK: usize = 16 << 10;
    static ZEROES: [u8; BLOCK] = [0; BLOCK];
    let mut at = 0;
    while at < len {
        let rest = usize::try_from(len - at).unwrap_or(BLOCK).min(BLOCK);
        match pwrite(&file, &ZEROES[..rest], at) {
            Ok(0) => return Err(error(Errno::NOSPC)),
            // A write is never longer than the block.
            Ok(written) => at += written as u64,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(error(errno)),
        }
    }
    Ok(())
}

/// A short C string, made without allocating.
struct Text {
    bytes: [u8; Self::CAPACITY],
    len: usize,
}

impl Text {
    /// Room for the longest text made here: 9 characters, two numbers of ten digits, one dash.
    const CAPACITY: usize = 32;

    fn new(prefix: &[u8]) -> Self {
        let text = Self {
            bytes: [0; Self::CAPACITY],
            len: 0,
        };
        prefix.iter().fold(text, |text, &byte| text.byte(byte))
    }

    fn byte(mut self, byte: u8) -> Self {
        // The last byte stays zero.
        debug_assert!(self.len + 1 < Self::CAPACITY, "texts made here fit");
        if self.len + 1 < Self::CAPACITY {
            self.bytes[self.len] = byte;
            self.len += 1;
        }
        self
    }

    fn number(self, n: u32) -> Self {
        let text = if n >= 10 { self.number(n / 10) } else { self };
        text.byte(b"0123456789"[(n % 10) as usize])
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }
}

#[cfg(test)]
mod tests {
    use super::Text;

    #[test]
    fn texts_are_c_strings() {
        assert_eq!(Text::new(b"hostmem-").number(0).as_c_str(), c"hostmem-0");
        let longest = Text::new(b"/hostmem-")
            .number(u32::MAX)
            .byte(b'-')
            .number(u32::MAX);
        assert_eq!(longest.as_c_str(), c"/hostmem-4294967295-4294967295");
    }
}
