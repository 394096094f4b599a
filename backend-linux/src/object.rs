//! What the two views of a dual mapping show: a memory file, by one strategy each.

use crate::{LinuxProvider, errno::error, probe::read_number, raw};
use core::{
    ffi::CStr,
    sync::atomic::{AtomicU8, AtomicU32, Ordering},
};
use hostmem_core::{
    page::PageSize,
    provider::{DualRequest, DualStep, Error, ErrorKind, PageWish},
};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd},
    fs::{
        AtFlags, FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags, fallocate, fcntl_add_seals,
        fstat, fstatvfs, ftruncate, memfd_create, open, openat, unlinkat,
    },
    io::{Errno, pwrite},
};

/// Owner only: nobody else is to open it in the moment that it has a name.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A memory file, as long as the views of it, before it is mapped.
pub(crate) struct MemoryFile {
    file: OwnedFd,
    /// The same file opened for reading only, or why it could not be.
    read_only: Result<OwnedFd, Error>,
    len: u64,
    page: PageSize,
    memory: Memory,
    seals: bool,
}

/// When a file gets its memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    /// At the first access to a page, which cannot fail.
    OnAccess,
    /// Before it is used, since an access that finds none is answered by a signal.
    Ahead,
}

/// What the executable view is mapped from, so that it can never become writable.
pub(crate) enum Execution<'a> {
    /// A descriptor that is open for reading only.
    ReadOnly(BorrowedFd<'a>),
    /// The descriptor that the writable view was mapped from, after [`MemoryFile::seal`].
    Sealed,
}

impl MemoryFile {
    fn new(
        file: OwnedFd,
        read_only: Result<OwnedFd, Error>,
        (len, page): (u64, PageSize),
        memory: Memory,
        seals: bool,
    ) -> Result<Self, Error> {
        // Nothing is allocated yet, and nothing later makes the file longer: this is the call that
        // a limit of file sizes answers by a signal, and it was asked before.
        ftruncate(&file, len).map_err(error)?;
        Ok(Self {
            file,
            read_only,
            len,
            page,
            memory,
            seals,
        })
    }

    /// Returns the descriptor that can be read and written.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Returns the size of the file's pages.
    pub(crate) const fn page(&self) -> PageSize {
        self.page
    }

    /// Returns what the executable view is to be mapped from.
    ///
    /// # Errors
    ///
    /// Why the file could not be opened for reading only, where nothing can take the place of that.
    pub(crate) fn execution(&self) -> Result<Execution<'_>, Error> {
        match &self.read_only {
            Ok(file) => Ok(Execution::ReadOnly(file.as_fd())),
            Err(_) if self.seals => Ok(Execution::Sealed),
            Err(error) => Err(*error),
        }
    }

    /// Says whether pages that are given back can be asked for again; `populates` says whether the
    /// kernel can be told to give pages their memory, and is asked only where that matters.
    pub(crate) fn refills(&self, populates: impl FnOnce() -> bool) -> bool {
        self.read_only.is_ok() && (self.memory == Memory::OnAccess || populates())
    }

    /// Closes the file, by one system call where both descriptors lie side by side.
    pub(crate) fn close(self) {
        let Self {
            file,
            read_only: Ok(read_only),
            ..
        } = self
        else {
            return;
        };
        let (one, other) = (file.as_raw_fd(), read_only.as_raw_fd());
        if one.abs_diff(other) == 1 {
            // SAFETY: the range is these two descriptors, which are owned here.
            if unsafe { raw::close_range(one.min(other), one.max(other)) }.is_ok() {
                let _ = file.into_raw_fd();
                let _ = read_only.into_raw_fd();
            }
        }
    }

    /// Gives the file its memory, where accesses would have to find it.
    pub(crate) fn allocate(&self) -> Result<(), Error> {
        match self.memory {
            Memory::OnAccess => Ok(()),
            Memory::Ahead => allocate(&self.file, self.len, self.page),
        }
    }

    /// Forbids new ways to write to the file: mappings from now on can never become writable, and
    /// those from before stay as they are.
    ///
    /// # Errors
    ///
    /// Why the file could not be opened for reading only, on kernels that do not know the seal
    /// (before 5.1).
    pub(crate) fn seal(&self) -> Result<(), Error> {
        let seals = SealFlags::FUTURE_WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fcntl_add_seals(&self.file, seals).map_err(|errno| match &self.read_only {
            Err(reason) => *reason,
            Ok(_) => error(errno),
        })
    }
}

impl LinuxProvider {
    /// Makes the memory file of one strategy, `request.len` bytes long. Closed on exec, and not to
    /// be found by name.
    pub(crate) fn memory_file(
        &self,
        step: DualStep,
        request: &DualRequest<'_>,
        base: PageSize,
    ) -> Result<MemoryFile, Error> {
        let len = u64::try_from(request.len).map_err(|_| ErrorKind::InvalidArgument)?;
        let name = request.name.unwrap_or(c"hostmem");
        ask_limit(len, base)?;
        match step {
            DualStep::Memfd => {
                // Asked first, while there may be but one descriptor left.
                let memory = memfd_memory(len);
                memfd(name, MemfdFlags::empty(), (len, base), memory)
            }
            DualStep::MemfdLarge => {
                let (flags, page) = large(request)?;
                // Mapping reserves pages of the pool; limits of groups and nodes come later.
                memfd(name, flags, (len, page), Memory::Ahead)
            }
            DualStep::DevShm => file_in(c"/dev/shm", (len, base)),
            DualStep::Directory(n) => {
                let directory = self.directories().get(usize::from(n));
                file_in(directory.ok_or(ErrorKind::Unsupported)?, (len, base))
            }
            _ => Err(ErrorKind::Unsupported.into()),
        }
    }
}

/// Asks whether a file may be `len` bytes long: to make one longer than the limit is answered by
/// `SIGXFSZ`. Asked each time, since a process may lower it as it runs. A filter that refuses the
/// question is taken for no limit.
///
/// # Errors
///
/// [`ErrorKind::Exhausted`] where a shorter file may be made, [`ErrorKind::Denied`] where not even
/// one page may.
fn ask_limit(len: u64, base: PageSize) -> Result<(), Error> {
    let Some(limit) = raw::file_limit().ok().filter(|limit| *limit < len) else {
        return Ok(());
    };
    let kind = if limit < base.bytes() as u64 {
        ErrorKind::Denied
    } else {
        ErrorKind::Exhausted
    };
    Err(Error::os(kind, Errno::FBIG.raw_os_error()))
}

/// Says when a file of `memfd_create` gets its memory. Under strict accounting
/// (`vm.overcommit_memory` = 2) its pages are charged one by one as they are first used, and a page
/// that cannot be charged is a `SIGBUS`. What cannot be found out is taken for strict. An answer
/// serves for short files, which are many, until a longer one asks anew.
fn memfd_memory(len: u64) -> Memory {
    /// Asking takes a part of what mapping this takes.
    const LONG: u64 = 1 << 20;
    const ON_ACCESS: u8 = 1;
    const AHEAD: u8 = 2;
    static CACHED: AtomicU8 = AtomicU8::new(0);
    match CACHED.load(Ordering::Relaxed) {
        ON_ACCESS if len < LONG => return Memory::OnAccess,
        AHEAD if len < LONG => return Memory::Ahead,
        _ => {}
    }
    let (memory, code) = match read_number(None, c"/proc/sys/vm/overcommit_memory") {
        Some(0 | 1) => (Memory::OnAccess, ON_ACCESS),
        _ => (Memory::Ahead, AHEAD),
    };
    CACHED.store(code, Ordering::Relaxed);
    memory
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

fn memfd(
    name: &CStr,
    flags: MemfdFlags,
    (len, page): (u64, PageSize),
    memory: Memory,
) -> Result<MemoryFile, Error> {
    let flags = flags | MemfdFlags::CLOEXEC;
    let sealing = MemfdFlags::ALLOW_SEALING;
    let (file, seals) = match memfd_create(name, flags | sealing | MemfdFlags::EXEC) {
        // Kernels before 6.3 do not know that they may be asked, and those before 4.16 do not seal
        // large pages.
        Err(Errno::INVAL) => match memfd_create(name, flags | sealing) {
            Err(Errno::INVAL) => (memfd_create(name, flags), false),
            result => (result, true),
        },
        result => (result, true),
    };
    let file = file.map_err(error)?;
    let read_only = read_only(&file);
    MemoryFile::new(file, read_only, (len, page), memory, seals)
}

/// Makes a file without a name in a directory.
fn file_in(directory: &CStr, size: (u64, PageSize)) -> Result<MemoryFile, Error> {
    let flags = OFlags::TMPFILE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(file) = open(directory, flags, MODE)
        && let Ok(read_only) = read_only(&file)
    {
        return MemoryFile::new(file, Ok(read_only), size, Memory::Ahead, false);
    }
    // Not every file system can, and without /proc a name is needed to open it again. A file whose
    // name is gone at once is as good.
    let (file, read_only) = unlinked_file_in(directory)?;
    MemoryFile::new(file, Ok(read_only), size, Memory::Ahead, false)
}

/// Allocates all of a file: a full file system shall fail here, not kill the process at a later
/// access.
fn allocate(file: &OwnedFd, len: u64, page: PageSize) -> Result<(), Error> {
    /// Bytes asked for in one call. A signal that comes meanwhile undoes the call on some file
    /// systems, so that one long call would never end under a timer.
    const PIECE: u64 = 1 << 20;
    /// Signals that are sat out.
    const TRIES: u32 = 1000;
    // What cannot fit is not begun: pieces would take all that others have left.
    if len > room_for(file) {
        return Err(error(Errno::NOSPC));
    }
    let page = page.bytes() as u64;
    let (mut at, mut piece, mut tries) = (0, PIECE.max(page), TRIES);
    while at < len {
        let now = piece.min(len - at);
        match fallocate(file, FallocateFlags::KEEP_SIZE, at, now) {
            Ok(()) => at += now,
            Err(Errno::INTR) if tries > 0 => {
                tries -= 1;
                piece = (piece / 2).max(page);
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return write_zeros(file, at, len),
            Err(errno) => return Err(error(errno)),
        }
    }
    Ok(())
}

/// Returns how many bytes a file can have at most: what its file system has left, or the memory of
/// the host where the file system has no limit of its own.
fn room_for(file: &OwnedFd) -> u64 {
    let Ok(system) = fstatvfs(file) else {
        return u64::MAX;
    };
    if system.f_blocks != 0 {
        return system.f_bavail.saturating_mul(system.f_frsize);
    }
    raw::memory().unwrap_or(u64::MAX)
}

/// Allocates a part of a file whose file system knows no other way.
fn write_zeros(file: &OwnedFd, from: u64, len: u64) -> Result<(), Error> {
    static ZEROS: [u8; 4096] = [0; 4096];
    let mut at = from;
    while at < len {
        let now = usize::try_from(len - at).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        match pwrite(file, &ZEROS[..now], at) {
            Err(Errno::INTR) => {}
            Ok(0) => return Err(ErrorKind::Other.into()),
            Ok(written) => at += written as u64,
            Err(errno) => return Err(error(errno)),
        }
    }
    Ok(())
}

/// Makes a file in a directory, opens it twice, the second time for reading only, and takes its
/// name away.
fn unlinked_file_in(directory: &CStr) -> Result<(OwnedFd, OwnedFd), Error> {
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
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let again = openat(&directory, name.as_c_str(), flags, Mode::empty());
                unlinkat(&directory, name.as_c_str(), AtFlags::empty()).map_err(error)?;
                let again = again.map_err(error)?;
                let (one, other) = (fstat(&file).map_err(error)?, fstat(&again).map_err(error)?);
                // Whoever may write to the directory may have put another file in its place.
                if (one.st_dev, one.st_ino) != (other.st_dev, other.st_ino) {
                    return Err(ErrorKind::Denied.into());
                }
                return Ok((file, again));
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
/// even by `mprotect`.
fn read_only(file: impl AsFd) -> Result<OwnedFd, Error> {
    let number = u32::try_from(file.as_fd().as_raw_fd()).map_err(|_| ErrorKind::Other)?;
    let path = Text::new(b"/proc/self/fd/").number(number);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    open(path.as_c_str(), flags, Mode::empty()).map_err(error)
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
