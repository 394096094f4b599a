//! What a provider does with the calls of its system.

use super::{
    Calls, DualSystem, System, Was, mappable, place::map_with_slack, reserve, reserve_over,
};
use crate::{
    page::{Access, PageRange, PageSize},
    provider::{
        AddressSpace, Capabilities, Clock, Commit, CoreSync, Dump, Error, ErrorKind, MapEntry,
        PageProvider, PageWish, ProcessMap, Purged, Request, Resource, order::MAX_DIRECTORIES,
        reserve_and_commit,
    },
};
use core::ffi::CStr;

/// A provider over a system's calls: a handle without state of its own but for the directories that
/// files for dual mappings may be put into, hence `Copy`.
#[derive(Clone, Copy, Debug)]
pub struct SystemProvider<S> {
    pub(crate) system: S,
    pub(super) directories: &'static [&'static CStr],
}

impl<S: DualSystem> SystemProvider<S> {
    /// Makes a handle that may put files for dual mappings into `/tmp` and `/var/tmp`, where
    /// nothing that needs no directory gives executable memory.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_directories(&[c"/tmp", c"/var/tmp"])
    }

    /// Makes a handle that may put files for dual mappings into `directories`, tried in order.
    ///
    /// # Panics
    ///
    /// With more than [`MAX_DIRECTORIES`] of them.
    #[must_use]
    pub const fn with_directories(directories: &'static [&'static CStr]) -> Self {
        assert!(
            directories.len() <= MAX_DIRECTORIES,
            "no more directories than the order names"
        );
        Self {
            system: S::SYSTEM,
            directories,
        }
    }

    /// Returns the directories.
    #[must_use]
    pub const fn directories(&self) -> &'static [&'static CStr] {
        self.directories
    }
}

impl<S: DualSystem> Default for SystemProvider<S> {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: a range is a mapping that the system made where nothing was (reserve), and is handed to
// its calls as the state says; System and Calls promise what those calls do.
unsafe impl<S: System> PageProvider for SystemProvider<S> {
    fn page_size(&self) -> PageSize {
        self.system.calls().page_size()
    }

    fn capabilities(&self) -> Capabilities {
        self.system.capabilities_among(Capabilities::all())
    }

    fn capabilities_among(&self, wanted: Capabilities) -> Capabilities {
        self.system.capabilities_among(wanted)
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        let range = reserve(&self.system, request)?;
        // SAFETY: reserved just now, for this call.
        unsafe { self.system.describe(range, request.name, request.dump) };
        Ok(range)
    }

    fn reserve_committed(&self, request: &Request<'_>, how: Commit) -> Result<PageRange, Error> {
        let plan = request.plan(self.page_size())?;
        let in_one_step = S::RESERVES_COMMITTED
            && plan.unconstrained()
            && plan.body() == plan.total()
            && how.pages == PageWish::Base
            && how.ceiling.allows(how.access);
        if !in_one_step {
            return reserve_and_commit(self, request, how);
        }
        let map = |len| self.system.calls().map_fresh(len, how.access);
        let range = plan.halving(|plan| map_with_slack(&self.system, plan, map))?;
        // SAFETY: mapped just now, for this call.
        unsafe { self.system.describe(range, request.name, request.dump) };
        Ok(range)
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        if !how.ceiling.allows(how.access) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        // SAFETY: the caller's range is reserved, and no other code uses it.
        unsafe { self.system.commit(range, how) }
    }

    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error> {
        // SAFETY: the caller's range is committed, and no other code uses what the access forbids.
        unsafe { self.system.calls().protect(range, access) }
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the range is the caller's, and no other code uses it.
        unsafe { reserve_over(&self.system, range, Was::Plain) }
    }

    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        // SAFETY: the caller's range is committed, and its contents are not needed.
        unsafe { self.system.calls().purge(range) }
    }

    unsafe fn move_pages(&self, from: PageRange, to: PageRange) -> Result<(), Error> {
        // SAFETY: both ranges are the caller's, committed and reserved.
        unsafe { self.system.move_pages(from, to) }
    }

    unsafe fn describe(&self, range: PageRange, name: Option<&CStr>, dump: Dump) {
        // SAFETY: the caller owns the range, as describe asks.
        unsafe { self.system.describe(range, name, dump) };
    }

    unsafe fn avoid_large_pages(&self, range: PageRange) {
        // SAFETY: the caller's range is committed, as avoid_large_pages asks.
        unsafe { self.system.advise(range, PageWish::Never) };
    }

    unsafe fn wish_large_pages(&self, range: PageRange) {
        // SAFETY: the caller's range is committed, as wish_large_pages asks.
        unsafe { self.system.advise(range, PageWish::Transparent) };
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the range is the caller's, and no other code uses it.
        unsafe { self.system.calls().unmap(range) }
    }

    fn left(&self, of: Resource) -> Option<usize> {
        self.system.left(of)
    }

    fn random_key(&self) -> Option<[u8; 32]> {
        self.system.calls().random_key()
    }

    fn large_page(&self) -> PageSize {
        self.system.large_page()
    }
}

impl<S: System> ProcessMap for SystemProvider<S> {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        self.system.walk(visit)
    }

    fn address_space(&self) -> AddressSpace {
        AddressSpace {
            user: mappable(&self.system),
            ..self.system.address_space()
        }
    }
}

// SAFETY: the system makes all cores see new instructions before it returns `Ok`.
unsafe impl<S: CoreSync> CoreSync for SystemProvider<S> {
    fn sync_cores(&self) -> Result<(), Error> {
        self.system.sync_cores()
    }
}

impl<S: System> Clock for SystemProvider<S> {
    fn now_ms(&self) -> Option<u64> {
        self.system.calls().now_ms()
    }
}
