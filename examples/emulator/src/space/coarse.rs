//! Guest pages on hosts whose pages are larger.
//!
//! There all of the guest's memory is one memory file, which is mapped twice:
//!
//! ```text
//!   host pages      │     A     │     B     │     C     │
//!   guest pages     │rw rw rw rw│rw rw r  --│-- -- -- --│
//!   where they lie  │    rw     │    --     │    --     │  as little as any of its guest pages has
//!   the second view │    rw     │    rw     │    --     │  as much as one of them has
//! ```
//!
//! What the guest may do in all of a host page, it does there. In others it faults: the instruction
//! is then interpreted, the map of mappings asked, and memory reached by the second view
//! (`access.rs`). That is exact, and slow; so mappings end where host pages do, if the guest lets
//! them lie anywhere. The kernel is told addresses of the second view. It can therefore read and
//! write for a system call what the guest may not, in host pages that have both.

use super::{FilePart, Mapping};
use crate::{
    access,
    host::{GUEST_SPACE, Region},
    sys::Fd,
};
use alloc::vec;
use hostmem::{
    OsLock, OsProvider,
    page::{Access, AddressRange},
    provider::{Error, ErrorKind, PageProvider, Request, Resource},
    range_map::RangeMap,
};
use linux_raw_sys::general::{
    FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, MAP_FIXED, MAP_NORESERVE, MAP_SHARED, MFD_CLOEXEC,
};
use syscalls::{Errno, Sysno, syscall};

/// The memory file, and where it is mapped beside the guest's own addresses.
pub(super) struct Coarse {
    memory: Fd,
    view: usize,
    /// Bytes of a host page.
    page: usize,
}

type Map = RangeMap<Mapping, &'static Region, OsLock>;

/// What a call that maps or fills pages failed by.
pub(super) fn error(error: Errno) -> Error {
    match error {
        Errno::EACCES | Errno::EPERM => ErrorKind::Denied.into(),
        Errno::EINVAL | Errno::ENODEV => ErrorKind::InvalidArgument.into(),
        _ => ErrorKind::Exhausted.into(),
    }
}

impl Coarse {
    /// Makes the memory file, and the second view.
    pub(super) fn new(region: &'static Region, page: usize) -> Result<Self, Error> {
        let limit = OsProvider::new().left(Resource::FileSize);
        if limit.is_some_and(|limit| limit < GUEST_SPACE) {
            // A longer file would end this process.
            return Err(ErrorKind::Exhausted.into());
        }
        // SAFETY: the name ends with zero.
        let made = unsafe { syscall!(Sysno::memfd_create, c"guest".as_ptr(), MFD_CLOEXEC) };
        // SAFETY: made just now, for this alone.
        let memory = unsafe { Fd::of(made.map_err(error)?) }
            .raised()
            .map_err(error)?;
        // SAFETY: the file is this one's.
        let sized = unsafe { syscall!(Sysno::ftruncate, memory.number(), GUEST_SPACE) };
        sized.map_err(error)?;
        let view = region.reserve(&Request::bytes(GUEST_SPACE))?;
        let coarse = Self {
            memory,
            view: view.addr(),
            page,
        };
        access::set_view(coarse.view);
        Ok(coarse)
    }

    /// Returns how many bytes a host page has.
    pub(super) const fn page(&self) -> usize {
        self.page
    }

    /// Makes guest pages read zero, and gives the memory of whole host pages back.
    pub(super) fn clear(&self, range: AddressRange) -> Result<(), Error> {
        let (fd, how) = (
            self.memory.number(),
            FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
        );
        let (start, len) = (range.start(), range.last() - range.start() + 1);
        // SAFETY: the guest's memory, whose contents it gave up.
        let cleared = unsafe { syscall!(Sysno::fallocate, fd, how, start, len) };
        cleared.map(|_| ()).map_err(error)
    }

    /// Makes both views of a range what the map says.
    pub(super) fn show(&self, map: &Map, range: AddressRange) -> Result<(), Error> {
        let mut at = range.start() / self.page * self.page;
        let end = (range.last() + 1).next_multiple_of(self.page);
        while at < end {
            let (until, access) = alike(map, at, end);
            let whole = until / self.page * self.page;
            if whole > at {
                self.map(at, whole - at, access, access)?;
                at = whole;
                continue;
            }
            let (mut least, mut most) = (access, access);
            let mut next = until;
            while next < at + self.page {
                let (until, access) = alike(map, next, at + self.page);
                least = least.min(access);
                most = most.max(access);
                next = until;
            }
            self.map(at, self.page, least, most)?;
            at += self.page;
        }
        Ok(())
    }

    /// Maps both views of host pages.
    fn map(&self, at: usize, len: usize, least: u32, most: u32) -> Result<(), Error> {
        let (fd, flags) = (self.memory.number(), MAP_SHARED | MAP_FIXED | MAP_NORESERVE);
        for (place, access) in [(at, least), (self.view + at, most)] {
            // SAFETY: the guest's pages, reserved for it or mapped here before, or those of the
            // second view; the host keeps no reference to them.
            let mapped = unsafe { syscall!(Sysno::mmap, place, len, access, flags, fd, at) };
            mapped.map_err(error)?;
        }
        Ok(())
    }

    /// Copies a part of a file to guest pages. What lies behind its end stays zero.
    pub(super) fn read_file(&self, range: AddressRange, file: FilePart) -> Result<(), Error> {
        self.copy(
            file.fd,
            file.offset,
            range.start(),
            range.last() - range.start() + 1,
        )
    }

    /// Copies guest pages to others.
    pub(super) fn move_pages(&self, from: usize, to: usize, len: usize) -> Result<(), Error> {
        self.copy(self.memory.number(), from as u64, to, len)
    }

    fn copy(&self, from: i32, offset: u64, to: usize, len: usize) -> Result<(), Error> {
        let mut bytes = vec![0_u8; len.min(64 << 10)];
        let mut done = 0;
        while done < len {
            let (at, piece) = (offset + done as u64, bytes.len().min(len - done));
            // SAFETY: `bytes` is `piece` bytes long at least.
            let got = unsafe { syscall!(Sysno::pread64, from, bytes.as_mut_ptr(), piece, at) };
            let got = got.map_err(error)?;
            if got == 0 {
                return Ok(());
            }
            let (fd, to) = (self.memory.number(), to + done);
            // SAFETY: the first `got` of `bytes` were read just now.
            let put = unsafe { syscall!(Sysno::pwrite64, fd, bytes.as_ptr(), got, to) };
            done += put.map_err(error)?;
        }
        Ok(())
    }
}

/// Returns up to where pages have one access from `at` on, and which, as `mmap` takes it.
fn alike(map: &Map, at: usize, end: usize) -> (usize, u32) {
    let rest = AddressRange::new(at, end - 1);
    match rest.and_then(|rest| map.ranges(rest).next()) {
        Some((found, _)) if found.start() > at => (found.start(), 0),
        Some((found, mapping)) => {
            let access = match mapping.protection.access() {
                Access::ReadWrite => 3,
                Access::Read => 1,
                _ => 0,
            };
            (end.min(found.last() + 1), access)
        }
        None => (end, 0),
    }
}
