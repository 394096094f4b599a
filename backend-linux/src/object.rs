//! What the two views of a dual mapping show: a memory file, by one strategy each.

mod memory;

use crate::{errno::error, limits::limit, pages::page_size, raw};
use core::{ffi::CStr, sync::atomic::AtomicU32};
use hostmem_core::{
    page::PageSize,
    provider::{
        DualRequest, DualStep, Error, ErrorKind,
        backend::{Text, check_file_limit, large_page_of, with_new_name},
    },
};
use memory::{Memory, allocate, memfd_memory};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd},
    fs::{
        AtFlags, MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, fstat, ftruncate,
        memfd_create, open, openat, unlinkat,
    },
    io::Errno,
};

/// Owner only: no other user may open it in the moment that it has a name.
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

impl MemoryFile {
    /// Returns the descriptor that can be read and written.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Returns the size of the file's pages.
    pub(crate) const fn page(&self) -> PageSize {
        self.page
    }

    /// Returns the descriptor that the executable view is to be mapped from, so that it can never
    /// become writable: one that is open for reading only; `None` for the one that the writable
    /// view was mapped from, after [`MemoryFile::seal`].
    ///
    /// # Errors
    ///
    /// Why the file could not be opened for reading only, where nothing can take the place of that.
    pub(crate) fn execution(&self) -> Result<Option<BorrowedFd<'_>>, Error> {
        match &self.read_only {
            Ok(file) => Ok(Some(file.as_fd())),
            Err(_) if self.seals => Ok(None),
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

/// Makes the memory file of one strategy, `request.len` bytes long. Closed on exec, and not to be
/// found by name.
pub(crate) fn memory_file(
    step: DualStep,
    directory: Option<&CStr>,
    request: &DualRequest<'_>,
) -> Result<MemoryFile, Error> {
    let (len, base) = (request.len as u64, page_size());
    let name = request.name.unwrap_or(c"hostmem");
    // To make a file longer than the limit is answered by `SIGXFSZ`. Asked each time, since a
    // process may lower it as it runs. A filter that refuses the question is taken for no limit.
    let limit = limit(raw::RLIMIT_FSIZE);
    check_file_limit(limit, len, base, Errno::FBIG.raw_os_error())?;
    let file = match (step, directory) {
        (DualStep::Memfd, _) => {
            // Asked first, while there may be but one descriptor left.
            let memory = memfd_memory(len);
            memfd(name, MemfdFlags::empty(), (len, base), memory)?
        }
        (DualStep::MemfdLarge, _) => {
            /// `MFD_HUGE_SHIFT`: the size is given as a power of two in the upper bits.
            const SHIFT: u32 = 26;
            let page = large_page_of(request)?;
            let log2 = page.bytes().trailing_zeros();
            let flags = MemfdFlags::HUGETLB | MemfdFlags::from_bits_retain(log2 << SHIFT);
            // Mapping reserves pages of the pool; limits of groups and nodes come later.
            memfd(name, flags, (len, page), Memory::Ahead)?
        }
        (DualStep::DevShm, _) => file_in(c"/dev/shm", (len, base))?,
        (_, Some(directory)) => file_in(directory, (len, base))?,
        _ => return Err(ErrorKind::Unsupported.into()),
    };
    // Nothing is allocated yet, and nothing later makes the file longer: this is the call that a
    // limit of file sizes answers by a signal, and it was asked before.
    ftruncate(&file.file, len).map_err(error)?;
    Ok(file)
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
    Ok(MemoryFile {
        file,
        read_only,
        len,
        page,
        memory,
        seals,
    })
}

/// Makes a file without a name in a directory.
fn file_in(directory: &CStr, (len, page): (u64, PageSize)) -> Result<MemoryFile, Error> {
    let flags = OFlags::TMPFILE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let unnamed = open(directory, flags, MODE).map_err(error);
    let unnamed = unnamed.and_then(|file| read_only(&file).map(|again| (file, again)));
    // Not every file system can, and without /proc a name is needed to open it again. A file whose
    // name is gone at once is as good.
    let (file, again) = unnamed.or_else(|_| unlinked_file_in(directory))?;
    Ok(MemoryFile {
        file,
        read_only: Ok(again),
        len,
        page,
        memory: Memory::Ahead,
        seals: false,
    })
}

/// Makes a file in a directory, opens it twice, the second time for reading only, and takes its
/// name away.
fn unlinked_file_in(directory: &CStr) -> Result<(OwnedFd, OwnedFd), Error> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(directory, flags, Mode::empty()).map_err(error)?;
    let process = rustix::process::getpid().as_raw_nonzero().get();
    let (file, again) = with_new_name(b"hostmem-", process.unsigned_abs(), &COUNTER, |name| {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let flags = flags | OFlags::RDWR | OFlags::CLOEXEC;
        let file = openat(&directory, name, flags, MODE).map_err(error)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let again = openat(&directory, name, flags, Mode::empty());
        unlinkat(&directory, name, AtFlags::empty()).map_err(error)?;
        Ok((file, again.map_err(error)?))
    })?;
    let (one, other) = (fstat(&file).map_err(error)?, fstat(&again).map_err(error)?);
    // Whoever may write to the directory may have put another file in its place.
    if (one.st_dev, one.st_ino) != (other.st_dev, other.st_ino) {
        return Err(ErrorKind::Denied.into());
    }
    Ok((file, again))
}

/// Opens a memory file again for reading only, so that its mapping can never become writable, not
/// even by `mprotect`.
fn read_only(file: impl AsFd) -> Result<OwnedFd, Error> {
    let number = u32::try_from(file.as_fd().as_raw_fd()).map_err(|_| ErrorKind::Other)?;
    let path = Text::new(b"/proc/self/fd/").number(number);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    open(path.as_c_str(), flags, Mode::empty()).map_err(error)
}
