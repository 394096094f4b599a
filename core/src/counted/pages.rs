//! Pages that are counted as they come and go.

use super::Counted;
use crate::{
    page::{Access, AddressRange, PageRange, PageSize},
    provider::{
        Capabilities, Commit, Dump, Error, ErrorKind, PageProvider, Purged, Request, Resource,
    },
    sync::RawMutex,
};
use core::ffi::CStr;

// SAFETY: calls are passed on unchanged or refused; the inner provider keeps the promises.
unsafe impl<P: PageProvider + Copy, R: RawMutex> PageProvider for Counted<P, R>
where
    R: Send + Sync,
{
    fn page_size(&self) -> PageSize {
        self.inner.page_size()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn capabilities_among(&self, wanted: Capabilities) -> Capabilities {
        self.inner.capabilities_among(wanted)
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        self.counting(|| {
            let page = self.inner.page_size();
            let plan = request.plan(page)?;
            let room = self.limits.reserved.saturating_sub(self.reserved.get().now);
            let room = page.round_down(room);
            if plan.min_total() > room {
                return Err(ErrorKind::Exhausted.into());
            }
            let body = plan.body() - plan.total().saturating_sub(room);
            let range = self.inner.reserve(&Request {
                len: body,
                ..*request
            })?;
            self.reserved.add(range.len_bytes());
            Ok(range)
        })
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        self.counting(|| {
            self.check_memory(range.len_bytes())?;
            self.committed.prepare(1)?;
            debug_assert!(
                self.is_uncommitted(range),
                "only reserved pages are committed"
            );
            // SAFETY: the caller's range is reserved, as commit asks; it came from the inner
            // provider.
            let page = unsafe { self.inner.commit(range, how)? };
            self.commit_booked(range)?;
            Ok(page)
        })
    }

    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error> {
        // SAFETY: the caller's range is committed, as protect asks; it came from the inner
        // provider.
        self.counting(|| unsafe { self.inner.protect(range, access) })
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        self.counting(|| {
            self.committed.prepare(1)?;
            // SAFETY: the caller's range is reserved or committed, and its contents are given up,
            // as decommit asks; it came from the inner provider.
            let result = unsafe { self.inner.decommit(range) };
            match result {
                Ok(()) => self.uncommit(range)?,
                Err(e) if e.kind() == ErrorKind::RangeLost => {
                    self.uncommit(range)?;
                    self.reserved.sub(range.len_bytes());
                }
                Err(_) => {}
            }
            result
        })
    }

    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        // What is committed may take memory again at any time, and counts as before.
        // SAFETY: the caller's range is committed, and its contents are not needed, as purge asks;
        // it came from the inner provider.
        self.counting(|| unsafe { self.inner.purge(range) })
    }

    unsafe fn move_pages(&self, from: PageRange, to: PageRange) -> Result<(), Error> {
        self.counting(|| {
            // One range more at most: `from` may be the middle of one, and `to` joins none.
            self.committed.prepare(2)?;
            // SAFETY: `from` is committed and `to` reserved, as move_pages asks; both came from the
            // inner provider.
            let result = unsafe { self.inner.move_pages(from, to) };
            match result {
                Ok(()) => {
                    self.uncommit(from)?;
                    self.commit_booked(to)?;
                }
                Err(e) if e.kind() == ErrorKind::RangeLost => {
                    self.reserved.sub(to.len_bytes());
                }
                Err(_) => {}
            }
            result
        })
    }

    unsafe fn describe(&self, range: PageRange, name: Option<&CStr>, dump: Dump) {
        // SAFETY: the caller owns the range, as describe asks; it came from the inner provider.
        unsafe { self.inner.describe(range, name, dump) }
    }

    unsafe fn avoid_large_pages(&self, range: PageRange) {
        // SAFETY: the caller's range is committed, as avoid_large_pages asks; it came from the
        // inner provider.
        unsafe { self.inner.avoid_large_pages(range) }
    }

    unsafe fn wish_large_pages(&self, range: PageRange) {
        // SAFETY: the caller's range is committed, as wish_large_pages asks; it came from the inner
        // provider.
        unsafe { self.inner.wish_large_pages(range) }
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        self.counting(|| {
            self.committed.prepare(1)?;
            // SAFETY: the caller owns the range, and no other code uses it, as release asks; it
            // came from the inner provider.
            unsafe { self.inner.release(range)? };
            self.uncommit(range)?;
            self.reserved.sub(range.len_bytes());
            Ok(())
        })
    }

    fn left(&self, of: Resource) -> Option<usize> {
        let left = self.inner.left(of);
        let counters = self.counters();
        let own = match of {
            Resource::Addresses if self.limits.reserved != usize::MAX => {
                self.limits.reserved.saturating_sub(counters.reserved.now)
            }
            Resource::Memory if self.limits.memory != usize::MAX => {
                let used = counters.committed.now.saturating_add(counters.dual.now);
                self.limits.memory.saturating_sub(used)
            }
            _ => return left,
        };
        Some(left.map_or(own, |left| left.min(own)))
    }

    fn large_page(&self) -> PageSize {
        self.inner.large_page()
    }

    fn random_key(&self) -> Option<[u8; 32]> {
        self.inner.random_key()
    }

    fn addresses(&self) -> AddressRange {
        self.inner.addresses()
    }
}
