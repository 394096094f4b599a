//! What the two views of a dual mapping show, where they are no duplicates: a memory object, by
//! one strategy each.

use crate::{
    NetBsdProvider,
    errno::{check, error},
    limits::ask_file_size,
    map::sysctl_int,
    pages::page_size,
};
use core::{
    ffi::{CStr, c_int, c_uint},
    sync::atomic::{AtomicU32, Ordering},
};
use hostmem_core::provider::{DualRequest, DualStep, Error, ErrorKind};
use rustix::{
    fd::{AsFd, FromRawFd, OwnedFd},
    fs::{AtFlags, Mode, OFlags, ftruncate, open, openat, unlinkat},
    io::{Errno, pwrite},
    shm,
};

/// Owner only: nobody else is to open it in the moment that it has a name.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// `SYS_memfd_create` of `sys/syscall.h`.
const SYS_MEMFD_CREATE: c_int = 500;
/// `MFD_CLOEXEC` of `sys/mman.h`.
const MFD_CLOEXEC: c_uint = 1;
/// `kern.osrevision` (as in `param(3)`) of the first kernel known to have the call. Among releases
/// that is 11.0 (`memfd_create(2)`, HISTORY), 1100000000; no 10 has it. It entered the development
/// of 11 in July 2023 and has been seen at work in 10.99.12: what lies between is not asked.
const FIRST_WITH_MEMFD: c_int = 1_099_001_200;

/// A memory object: closed on exec, and not to be found by name.
pub(crate) struct MemoryObject {
    pub(crate) file: OwnedFd,
    /// The same, opened for reading only, where that is to be had.
    pub(crate) read_only: Option<OwnedFd>,
}

impl NetBsdProvider {
    /// Makes the memory object of one strategy, `request.len` bytes long.
    pub(crate) fn memory_object(
        &self,
        step: DualStep,
        request: &DualRequest<'_>,
    ) -> Result<MemoryObject, Error> {
        let len = u64::try_from(request.len).map_err(|_| ErrorKind::InvalidArgument)?;
        match step {
            DualStep::Memfd => memfd(request.name.unwrap_or(c"hostmem"), len),
            DualStep::PosixShm => named_shm(len),
            DualStep::Directory(n) => {
                let directory = self.directories().get(usize::from(n));
                file_in(directory.ok_or(ErrorKind::Unsupported)?, len)
            }
            _ => Err(ErrorKind::Unsupported.into()),
        }
    }
}

/// Older kernels kill a process that makes an unknown call, by `SIGSYS`.
fn has_memfd() -> bool {
    let revision = sysctl_int(&[libc::CTL_KERN, libc::KERN_OSREV]);
    revision.is_some_and(|revision| revision >= FIRST_WITH_MEMFD)
}

fn memfd(name: &CStr, len: u64) -> Result<MemoryObject, Error> {
    if !has_memfd() {
        return Err(Error::os(
            ErrorKind::Unsupported,
            Errno::NOSYS.raw_os_error(),
        ));
    }
    // SAFETY: the call exists, and reads the name, a C string that is borrowed for the call.
    let fd = unsafe { libc::syscall(SYS_MEMFD_CREATE, name.as_ptr(), MFD_CLOEXEC) };
    let fd = check(fd).map_err(error)?;
    // SAFETY: a descriptor that the system just made, and no other code knows of.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    ftruncate(&file, len).map_err(error)?;
    // Its mappings can never become what they are not mapped for.
    Ok(MemoryObject {
        file,
        read_only: None,
    })
}

/// Makes a shared memory object, whose name is gone at once: a file of the `tmpfs` at `/var/shm`.
fn named_shm(len: u64) -> Result<MemoryObject, Error> {
    ask_file_size(len, page_size())?;
    let (file, read_only) = with_new_name(b"/hostmem-", |name| {
        let new = shm::OFlags::CREATE | shm::OFlags::EXCL | shm::OFlags::RDWR;
        let file = shm::open(name, new, MODE)?;
        let read_only = shm::open(name, shm::OFlags::RDONLY, Mode::empty());
        shm::unlink(name)?;
        Ok((file, read_only.ok()))
    })?;
    fill(&file, len)?;
    Ok(MemoryObject { file, read_only })
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
fn file_in(directory: &CStr, len: u64) -> Result<MemoryObject, Error> {
    ask_file_size(len, page_size())?;
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
    Ok(MemoryObject { file, read_only })
}

/// Fills a file with zeroes: a full file system shall fail here, not kill the process at a later
/// store. No call does it on every file system (FFS refuses `posix_fallocate(2)`).
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
