//! What the two views of a dual mapping show: a memory file, by one strategy each.

use crate::{LinuxProvider, errno::error};
use core::{
    ffi::CStr,
    sync::atomic::{AtomicU32, Ordering},
};
use hostmem_core::{
    page::PageSize,
    provider::{DualRequest, DualStep, Error, ErrorKind, PageWish},
};
use rustix::{
    fd::{AsFd, AsRawFd, OwnedFd},
    fs::{
        AtFlags, FallocateFlags, MemfdFlags, Mode, OFlags, fallocate, ftruncate, memfd_create,
        open, openat, unlinkat,
    },
    io::Errno,
};

/// Owner only: nobody else is to open it in the moment that it has a name.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

impl LinuxProvider {
    /// Makes the memory file of one strategy, `request.len` bytes long; returns it with the size of
    /// its pages. Closed on exec, and not to be found by name.
    pub(crate) fn memory_file(
        &self,
        step: DualStep,
        request: &DualRequest<'_>,
        base: PageSize,
    ) -> Result<(OwnedFd, PageSize), Error> {
        let len = u64::try_from(request.len).map_err(|_| ErrorKind::InvalidArgument)?;
        let name = request.name.unwrap_or(c"hostmem");
        match step {
            DualStep::Memfd => Ok((memfd(name, MemfdFlags::empty(), len)?, base)),
            DualStep::MemfdLarge => {
                let (flags, page) = large(request)?;
                Ok((memfd(name, flags, len)?, page))
            }
            DualStep::DevShm => Ok((file_in(c"/dev/shm", len)?, base)),
            DualStep::Directory(n) => {
                let directory = self.directories().get(usize::from(n));
                Ok((
                    file_in(directory.ok_or(ErrorKind::Unsupported)?, len)?,
                    base,
                ))
            }
            _ => Err(ErrorKind::Unsupported.into()),
        }
    }
}

/// Returns the flags for the large pages asked for.
fn large(request: &DualRequest<'_>) -> Result<(MemfdFlags, PageSize), Error> {
    let PageWish::Large { bytes, .. } = request.pages else {
        return Err(ErrorKind::InvalidArgument.into());
    };
    let page = PageSize::new(bytes).ok_or(ErrorKind::InvalidArgument)?;
    if !page.is_aligned(request.len) {
        return Err(ErrorKind::InvalidArgument.into());
    }
    /// `MFD_HUGE_SHIFT`: the size is given as a power of two in the upper bits.
    const SHIFT: u32 = 26;
    let size = MemfdFlags::from_bits_retain(bytes.trailing_zeros() << SHIFT);
    Ok((MemfdFlags::HUGETLB | size, page))
}

fn memfd(name: &CStr, flags: MemfdFlags, len: u64) -> Result<OwnedFd, Error> {
    let flags = flags | MemfdFlags::CLOEXEC;
    let file = match memfd_create(name, flags | MemfdFlags::EXEC) {
        // Kernels before 6.3 do not know that they may be asked.
        Err(Errno::INVAL) => memfd_create(name, flags),
        result => result,
    };
    let file = file.map_err(error)?;
    ftruncate(&file, len).map_err(error)?;
    Ok(file)
}

/// Makes a file without a name in a directory.
fn file_in(directory: &CStr, len: u64) -> Result<OwnedFd, Error> {
    let flags = OFlags::TMPFILE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let file = match open(directory, flags, MODE) {
        Ok(file) => file,
        // Not every file system can; a file whose name is gone at once is as good.
        Err(_) => unlinked_file_in(directory)?,
    };
    // All of it now: a full file system shall fail here, not kill the process at a later store.
    match fallocate(&file, FallocateFlags::empty(), 0, len) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => ftruncate(&file, len).map_err(error)?,
        result => result.map_err(error)?,
    }
    Ok(file)
}

fn unlinked_file_in(directory: &CStr) -> Result<OwnedFd, Error> {
    /// Names tried. Others may only have taken them on purpose, or before a process of the same
    /// number died in between.
    const TRIES: u32 = 16;
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(directory, flags, Mode::empty()).map_err(error)?;
    let process = rustix::process::getpid()
        .as_raw_nonzero()
        .get()
        .unsigned_abs();
    let mut last = Errno::EXIST;
    for _ in 0..TRIES {
        let name = Text::new(b"hostmem-").number(process).byte(b'-');
        let name = name.number(COUNTER.fetch_add(1, Ordering::Relaxed));
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let flags = flags | OFlags::RDWR | OFlags::CLOEXEC;
        match openat(&directory, name.as_c_str(), flags, MODE) {
            Ok(file) => {
                unlinkat(&directory, name.as_c_str(), AtFlags::empty()).map_err(error)?;
                return Ok(file);
            }
            Err(Errno::EXIST) => {}
            Err(errno) => {
                last = errno;
                break;
            }
        }
    }
    Err(error(last))
}

/// Opens a memory file again for reading only, so that its mapping can never become writable, not
/// even by `mprotect`. `None` where `/proc` does not let us: the view is then only mapped so.
pub(crate) fn read_only(file: impl AsFd) -> Option<OwnedFd> {
    let number = u32::try_from(file.as_fd().as_raw_fd()).ok()?;
    let path = Text::new(b"/proc/self/fd/").number(number);
    open(
        path.as_c_str(),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()
}

/// A short C string, made without allocating.
struct Text {
    bytes: [u8; Self::CAPACITY],
    len: usize,
}

impl Text {
    /// Room for the longest text made here: 14 characters, two numbers of ten digits, one dash.
    const CAPACITY: usize = 40;

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
        assert_eq!(
            Text::new(b"/proc/self/fd/").number(0).as_c_str(),
            c"/proc/self/fd/0"
        );
        let longest = Text::new(b"hostmem-")
            .number(u32::MAX)
            .byte(b'-')
            .number(u32::MAX);
        assert_eq!(longest.as_c_str(), c"hostmem-4294967295-4294967295");
    }
}
