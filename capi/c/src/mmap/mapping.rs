//! Mapping as `mmap` does, in a region.

use super::{
    arguments::{access, how, whole},
    errno::{Errno, INVALID, last_errno},
};
use crate::region::RegionObject;
use core::ffi::{c_int, c_void};
use hostmem::{
    page::{AddressRange, PageRange, PageSize},
    provider::{Error, ErrorKind, PageProvider, Place, Request},
    region::PageState,
};

/// Returns what the kernel said, in terms of a provider's.
fn refused(errno: c_int) -> Error {
    let kind = match errno {
        libc::ENOMEM | libc::EAGAIN | libc::ENFILE => ErrorKind::Exhausted,
        libc::EACCES | libc::EPERM => ErrorKind::Denied,
        libc::EINVAL | libc::EOVERFLOW => ErrorKind::InvalidArgument,
        libc::ENODEV => ErrorKind::Unsupported,
        libc::EEXIST => ErrorKind::Taken,
        _ => ErrorKind::Other,
    };
    Error::os(kind, errno)
}

/// The arguments of mmap but for the place.
#[derive(Clone, Copy)]
pub(super) struct Mapped {
    pub(super) prot: c_int,
    pub(super) flags: c_int,
    pub(super) fd: c_int,
    pub(super) offset: libc::off_t,
}

/// Only x86-64 has it.
#[cfg(target_arch = "x86_64")]
const MAP_32BIT: c_int = libc::MAP_32BIT;
#[cfg(not(target_arch = "x86_64"))]
const MAP_32BIT: c_int = 0;

/// Flags that say which place is meant.
const PLACES: c_int = libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE | MAP_32BIT;
/// Flags that change nothing here.
const PASSED: c_int = libc::MAP_NORESERVE | libc::MAP_STACK;
/// Flags for which the kernel is asked for a mapping of its own.
const OWN: c_int = libc::MAP_POPULATE | libc::MAP_LOCKED | libc::MAP_HUGETLB | libc::MAP_NONBLOCK;

impl Mapped {
    /// Says whether the region's own memory serves: private, of no file, and nothing special.
    const fn is_plain(self) -> bool {
        self.flags & libc::MAP_ANONYMOUS != 0
            && self.flags & libc::MAP_TYPE == libc::MAP_PRIVATE
            && self.flags & OWN == 0
    }

    /// Maps over pages, in one step.
    fn place(self, pages: PageRange) -> Result<(), Error> {
        let (at, len) = (pages.start().as_ptr().cast(), pages.len_bytes());
        let flags = self.flags & !PLACES | libc::MAP_FIXED;
        // SAFETY: the pages are the region's, which gives them to this call, and no other code
        // uses what was there, by the promise of the caller in C.
        let got = unsafe { libc::mmap(at, len, self.prot, flags, self.fd, self.offset) };
        if got == libc::MAP_FAILED {
            return Err(refused(last_errno()));
        }
        Ok(())
    }

    fn check(self, len: usize, page: PageSize) -> Result<(), Errno> {
        const KNOWN: c_int = PLACES | PASSED | OWN | libc::MAP_ANONYMOUS | libc::MAP_TYPE;
        let offset = usize::try_from(self.offset).map_err(|_| INVALID)?;
        if len == 0 || !page.is_aligned(offset) {
            return Err(INVALID);
        }
        let kind = self.flags & libc::MAP_TYPE;
        let kinds = [
            libc::MAP_PRIVATE,
            libc::MAP_SHARED,
            libc::MAP_SHARED_VALIDATE,
        ];
        if !kinds.contains(&kind) {
            return Err(INVALID);
        }
        // Sizes of large pages are above the flags.
        let sizes = libc::MAP_HUGE_MASK << libc::MAP_HUGE_SHIFT;
        let sizes = if self.flags & libc::MAP_HUGETLB != 0 {
            sizes
        } else {
            0
        };
        if self.flags & !(KNOWN | sizes) != 0 {
            return Err(Errno(libc::EOPNOTSUPP));
        }
        Ok(())
    }

    /// Maps, in a region.
    ///
    /// # Safety
    ///
    /// No other code uses what it replaces.
    pub(super) unsafe fn map(
        self,
        region: &RegionObject,
        addr: *mut c_void,
        len: usize,
    ) -> Result<PageRange, Errno> {
        let page = region.page_size();
        self.check(len, page)?;
        if !self.is_plain() && !region.is_hosts() {
            return Err(Errno(libc::EOPNOTSUPP));
        }
        let access = access(self.prot)?;
        let state = PageState::Committed(access);
        let is_exact = self.flags & libc::MAP_FIXED_NOREPLACE != 0;
        if self.flags & libc::MAP_FIXED != 0 && !is_exact {
            let pages = whole(addr, len, page)?;
            if self.is_plain() {
                // SAFETY: no other code uses what it replaces, by this function's condition.
                unsafe { region.map_over(pages, how(access), 0)? };
            } else {
                // SAFETY: no other code uses what it replaces, by this function's condition.
                unsafe { region.map_over_with(pages, 0, state, |pages| self.place(pages))? };
            }
            return Ok(pages);
        }
        let place = match (is_exact, addr.addr()) {
            (true, _) => Place::Exact(whole(addr, len, page)?.addr()),
            (false, 0) => Place::Anywhere,
            (false, hint) => Place::Hint(page.round_down(hint)),
        };
        let len = page.round_up(len).ok_or(Errno(libc::ENOMEM))?;
        let request = Request::bytes(len).place(place);
        let request = if self.flags & MAP_32BIT != 0 {
            request.within(AddressRange::new(0, (2 << 30) - 1).ok_or(INVALID)?)
        } else {
            request
        };
        if self.is_plain() {
            return Ok(region.map(&request, how(access), 0)?);
        }
        Ok(region.map_with(&request, 0, state, |pages| self.place(pages))?)
    }
}
