//! Pages of a simulated host: each call is checked, passed on, and noted in the tables.

use super::{Sim, SimState, table::Page};
use crate::{
    page::{Access, AddressRange, PageRange, PageSize},
    provider::{
        Capabilities, Commit, Dump, Error, ErrorKind, PageProvider, Purged, Request, Resource,
    },
};
use core::ffi::CStr;

// SAFETY: the base keeps the promises, inside a range that is reserved from it for the whole life
// of this value; the tables make sure that no two callers get the same page.
unsafe impl<B: PageProvider + Copy> PageProvider for Sim<B> {
    fn page_size(&self) -> PageSize {
        self.policy.page
    }

    fn capabilities(&self) -> Capabilities {
        self.policy.capabilities
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        let plan = request.plan(self.policy.page)?;
        self.find(&mut self.lock(), &plan)
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        let mut state = self.lock();
        state.check("commit", range, |s| s == SimState::Reserved)?;
        self.allow(how.access)?;
        if !how.ceiling.allows(how.access) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        let pages = self.grant(how.pages)?;
        // SAFETY: the range lies in what this value reserved from the base, and the tables say that
        // it is reserved there.
        let got = unsafe { self.base.commit(range, Commit { pages, ..how })? };
        state
            .table
            .set(range, Page::committed(how.access, how.ceiling));
        Ok(got.max(self.policy.page))
    }

    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error> {
        let mut state = self.lock();
        state.check("protect", range, |s| s == SimState::Committed)?;
        self.allow(access)?;
        let toggle = self.policy.capabilities.contains(Capabilities::TOGGLE_EXEC);
        let denied = state.table.pages_of(range).any(|(_, page)| {
            let gains_exec = access.executable() && !page.access.executable();
            !page.ceiling.allows(access) || (gains_exec && !toggle)
        });
        if denied {
            return Err(ErrorKind::Denied.into());
        }
        // SAFETY: the tables say that the range is committed in the base.
        unsafe { self.base.protect(range, access)? };
        state.table.update(range, |page| Page { access, ..page });
        Ok(())
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        let mut state = self.lock();
        state.check("decommit", range, SimState::is_plain)?;
        // SAFETY: the tables say that the range is reserved or committed in the base; the caller
        // gives its contents up.
        unsafe { self.base.decommit(range)? };
        state.set_but_guards(range, Page::RESERVED);
        Ok(())
    }

    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        let mut state = self.lock();
        state.check("purge", range, |s| s == SimState::Committed)?;
        match self.policy.purged {
            // SAFETY: the tables say that the range is committed; its contents are not needed, as
            // purge asks.
            Purged::Zero => unsafe { self.base.purge(range) },
            // The old contents are there, as they may be on such a host.
            shown => Ok(shown),
        }
    }

    unsafe fn move_pages(&self, from: PageRange, to: PageRange) -> Result<(), Error> {
        if !self.policy.capabilities.contains(Capabilities::MOVE_PAGES) {
            return Err(ErrorKind::Unsupported.into());
        }
        if from.len_bytes() != to.len_bytes() || from.overlaps(to) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        let mut state = self.lock();
        state.check("move_pages", from, |s| s == SimState::Committed)?;
        state.check("move_pages", to, |s| s == SimState::Reserved)?;
        // SAFETY: the tables say that one is committed and the other reserved in the base.
        unsafe { self.base.move_pages(from, to)? };
        state.table.copy(from, to);
        state.table.set(from, Page::RESERVED);
        Ok(())
    }

    unsafe fn describe(&self, range: PageRange, name: Option<&CStr>, dump: Dump) {
        // SAFETY: the caller owns the range, as describe asks; it came from the base.
        unsafe { self.base.describe(range, name, dump) }
    }

    unsafe fn avoid_large_pages(&self, range: PageRange) {
        // SAFETY: the caller's range is committed, as avoid_large_pages asks; it came from the
        // base.
        unsafe { self.base.avoid_large_pages(range) }
    }

    unsafe fn wish_large_pages(&self, range: PageRange) {
        // SAFETY: the caller's range is committed, as wish_large_pages asks; it came from the base.
        unsafe { self.base.wish_large_pages(range) }
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        let mut state = self.lock();
        state.check("release", range, SimState::is_plain)?;
        // SAFETY: the tables say that the range is reserved or committed; no other code uses it, as
        // release asks, and the base keeps the addresses reserved for this value.
        unsafe { self.base.decommit(range)? };
        state.table.set(range, Page::HOLE);
        Ok(())
    }

    fn left(&self, of: Resource) -> Option<usize> {
        match of {
            Resource::Addresses => {
                Some(self.policy.space - self.pages_in_use() * self.policy.page.bytes())
            }
            _ => self.base.left(of),
        }
    }

    fn random_key(&self) -> Option<[u8; 32]> {
        self.base.random_key()
    }

    fn addresses(&self) -> AddressRange {
        self.space().addresses()
    }
}
