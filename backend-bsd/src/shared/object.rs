//! What the two views of a dual mapping show: memory objects that are files, and the views.

use super::{errno::error, limits::ask_file_size, sysctl::process};
use core::{
    ffi::{CStr, c_void},
    sync::atomic::AtomicU32,
};
use hostmem_core::{
    page::{PageRange, PageSize},
    provider::{
        DualRequest, DualStepError, Error,
        backend::{At, System, View, map_both, with_new_name, write_zeros},
    },
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, Mode, OFlags, open, openat, unlinkat},
    io::{pwrite, retry_on_intr},
    mm::{MapFlags, ProtFlags, mmap},
    shm,
};

/// Owner only: no other user may open it in the moment that it has a name.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A memory object: closed on exec, and not to be found by name.
#[derive(Debug)]
pub struct MemoryObject {
    /// It, to be read and written.
    pub file: OwnedFd,
    /// The same, opened for reading only, where that is to be had.
    pub read_only: Option<OwnedFd>,
    /// The size of its pages.
    pub page: PageSize,
    /// Flags to map it with.
    pub flags: MapFlags,
}

impl MemoryObject {
    /// Makes an object of pages of `page` that is mapped without flags.
    #[must_use]
    pub const fn new(file: OwnedFd, read_only: Option<OwnedFd>, page: PageSize) -> Self {
        Self {
            file,
            read_only,
            page,
            flags: MapFlags::empty(),
        }
    }

    /// Makes a file of `len` bytes in a directory, whose name is gone at once.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn in_directory(directory: &CStr, len: u64, page: PageSize) -> Result<Self, Error> {
        ask_file_size(len, page)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(directory, flags, Mode::empty()).map_err(error)?;
        let (file, read_only) = with_name(b"hostmem-", |name| {
            let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let new = flags | OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
            let file = openat(&directory, name, new, MODE).map_err(error)?;
            let read_only = openat(&directory, name, flags | OFlags::RDONLY, Mode::empty());
            unlinkat(&directory, name, AtFlags::empty()).map_err(error)?;
            Ok((file, read_only.ok()))
        })?;
        let object = Self::new(file, read_only, page);
        object.fill(len)?;
        Ok(object)
    }

    /// Makes an empty shared memory object that may become `len` bytes long, and whose name is gone
    /// at once. Such an object is a file.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn named(len: u64, page: PageSize) -> Result<Self, Error> {
        ask_file_size(len, page)?;
        let (file, read_only) = with_name(b"/hostmem-", |name| {
            let new = shm::OFlags::CREATE | shm::OFlags::EXCL | shm::OFlags::RDWR;
            let file = shm::open(name, new, MODE).map_err(error)?;
            let read_only = shm::open(name, shm::OFlags::RDONLY, Mode::empty());
            shm::unlink(name).map_err(error)?;
            Ok((file, read_only.ok()))
        })?;
        Ok(Self::new(file, read_only, page))
    }

    /// Fills a file with zeros: a full file system shall fail here, not kill the process at a later
    /// store. No call does it on every file system (ZFS and FFS refuse `posix_fallocate(2)`).
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn fill(&self, len: u64) -> Result<(), Error> {
        write_zeros(0, len, |zeros, at| {
            retry_on_intr(|| pwrite(&self.file, zeros, at)).map_err(error)
        })
    }

    /// Maps both views: the writable and the executable one by the protections given, with the
    /// flags `anywhere` where the system chooses the place.
    ///
    /// # Errors
    ///
    /// What the system says, and whether a target range was lost.
    ///
    /// # Safety
    ///
    /// A range in [`Target::Into`](hostmem_core::provider::Target::Into) is the caller's, and no
    /// other code uses it.
    pub unsafe fn map_views(
        &self,
        system: &impl System,
        request: &DualRequest<'_>,
        [rw, rx]: [ProtFlags; 2],
        anywhere: MapFlags,
    ) -> Result<(PageRange, PageRange), DualStepError> {
        let file = self.file.as_fd();
        let rw = self.view(file, rw, request.len, anywhere);
        let file = self.read_only.as_ref().map_or(file, AsFd::as_fd);
        let rx = self.view(file, rx, request.len, anywhere);
        // SAFETY: target ranges are the caller's, and no other code uses them.
        unsafe { map_both(system, (&rw, request.rw), || Ok(()), (&rx, request.rx)) }
    }

    fn view(
        &self,
        file: BorrowedFd<'_>,
        protection: ProtFlags,
        len: usize,
        anywhere: MapFlags,
    ) -> View<impl Fn(At) -> Result<*mut c_void, Error>> {
        let flags = MapFlags::SHARED | self.flags;
        let map = move |at: At| {
            let more = if at.replaces() {
                MapFlags::FIXED
            } else {
                anywhere
            };
            let flags = flags | more;
            // SAFETY: FIXED replaces a range that the view's caller gives up; else it is a new
            // mapping wherever the system likes.
            unsafe { mmap(at.pointer(), len, protection, flags, file, 0) }.map_err(error)
        };
        // SAFETY: the call maps as many bytes, and replaces no more than the range given.
        unsafe { View::new(len, self.page, map) }
    }
}

/// Tries names until one is new.
fn with_name<T>(prefix: &[u8], create: impl Fn(&CStr) -> Result<T, Error>) -> Result<T, Error> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    with_new_name(prefix, process().unsigned_abs(), &COUNTER, create)
}
