//! The allocator as a provider.

use super::{
    PageState, RegionAllocator,
    record::{Mark, Record},
};
use crate::{
    page::{Access, AddressRange, PageRange, PageSize},
    provider::{
        AddressSpace, Capabilities, Clock, Commit, CoreSync, DualError, DualMapProvider,
        DualMapping, DualRequest, Dump, Error, ErrorKind, Leave, MapEntry, PageProvider, PageWish,
        Places, Plan, ProcessMap, Purged, Request, Resource, Target, place_views,
    },
    sync::RawMutex,
};
use core::ffi::CStr;

/// How often two other places are tried where one was lost to somebody else.
const TRIES: usize = 8;

// SAFETY: every call goes to the provider below, for pages that are in the state which that
// provider asks for: what is free was adopted, reserved and inaccessible, and belongs to whom it is
// given until it is released. In the pass-through the promises are that provider's.
unsafe impl<P: PageProvider + Copy, M: PageProvider + Copy, R: RawMutex + Send + Sync> PageProvider
    for RegionAllocator<P, M, R>
{
    fn page_size(&self) -> PageSize {
        self.page
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn capabilities_among(&self, wanted: Capabilities) -> Capabilities {
        self.inner.capabilities_among(wanted)
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        self.reserve_pages(request, 0)
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        // SAFETY: commit_pages asks what this method asks: the range is the caller's, reserved and
        // not committed.
        unsafe { self.commit_pages(range, how) }
    }

    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error> {
        // SAFETY: protect_pages asks what this method asks: the range is the caller's, and
        // committed.
        unsafe { self.protect_pages(range, access) }
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: decommit_pages asks what this method asks: the range is the caller's, and its
        // contents are not used any more.
        unsafe { self.decommit_pages(range) }
    }

    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        // Which parts of large pages go is the affair of those who live in the region.
        // SAFETY: purge_pages asks what this method asks: the range is committed, and its contents
        // are not needed.
        unsafe { self.purge_pages(range, false) }
    }

    unsafe fn move_pages(&self, from: PageRange, to: PageRange) -> Result<(), Error> {
        // SAFETY: move_committed asks what this method asks: `from` is committed, `to` is reserved
        // and not committed, and both are the caller's.
        unsafe { self.move_committed(from, to) }
    }

    unsafe fn describe(&self, range: PageRange, name: Option<&CStr>, dump: Dump) {
        // SAFETY: describe asks that the range is the caller's, which is the trait's condition.
        unsafe { self.describe(range, name, dump) }
    }

    unsafe fn avoid_large_pages(&self, range: PageRange) {
        // SAFETY: wish_pages asks that the range is the caller's, which is the trait's condition.
        unsafe { self.wish_pages(range, PageWish::Never) }
    }

    unsafe fn wish_large_pages(&self, range: PageRange) {
        // SAFETY: wish_pages asks that the range is the caller's, which is the trait's condition.
        unsafe { self.wish_pages(range, PageWish::Transparent) }
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: unmap asks that no other code uses the range, and where it is not the allocator's
        // that it came from the provider below: the caller got it from this provider, and gives it
        // up.
        unsafe { self.unmap(range) }
    }

    fn left(&self, of: Resource) -> Option<usize> {
        if of == Resource::Addresses && self.is_active() {
            return Some(self.statistics().free());
        }
        self.inner.left(of)
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

impl<P, M, R> RegionAllocator<P, M, R>
where
    P: PageProvider + DualMapProvider + Copy,
    M: PageProvider + Copy,
    R: RawMutex + Send + Sync,
{
    /// Notes what became of the range of a view, which was in one state.
    fn note(
        &self,
        range: PageRange,
        was: PageState,
        becomes: Option<PageState>,
    ) -> Result<(), Error> {
        let pages = self.pages(range)?;
        loop {
            let mut held = self.lock();
            let parts = held.parts;
            let record = becomes.map(|state| {
                let mut mark = Mark::of(0);
                if state == PageState::Dual {
                    // Each view is a mapping of its own.
                    mark.colour = parts.colour_beside(pages);
                }
                Record::Ours(state, mark)
            });
            // Not what is from before the allocator was active.
            let is = |r| matches!(r, Some(Record::Ours(state, _)) if state == was);
            let mut at = pages.0;
            while at < pages.1
                && let Some((piece, _)) = parts.entries((at, pages.1)).find(|(_, r)| is(*r))
            {
                self.record(&mut held, piece, record)?;
                at = piece.1;
            }
            if self.parts.is_current(parts) {
                return Ok(());
            }
            // A child that was forked meanwhile, and may not have it.
        }
    }

    /// Maps into two places.
    ///
    /// # Safety
    ///
    /// The promises of [`DualMapProvider::map_dual`]; both are reserved, and no other code uses
    /// them.
    unsafe fn map_into(
        &self,
        request: &DualRequest<'_>,
        rw: PageRange,
        rx: PageRange,
    ) -> Result<DualMapping, DualError> {
        // Noted first: what is not noted could be given out again.
        for range in [rw, rx] {
            self.note(range, PageState::Reserved, Some(PageState::Dual))
                .map_err(DualError::from)?;
        }
        let placed = DualRequest {
            rw: Target::Into(rw),
            rx: Target::Into(rx),
            ..*request
        };
        // SAFETY: both targets were reserved from the provider below when they were adopted, and no
        // other code uses them, by this function's condition.
        let result = unsafe { self.inner.map_dual(&placed) };
        if let Err(error) = &result {
            for range in [rw, rx] {
                if error.lost() == Some(range) {
                    let mut guard = self.lock();
                    if let Ok(pages) = self.pages(range) {
                        self.lose(&mut guard, pages);
                    }
                } else {
                    // Where there is no memory to note it, addresses are wasted.
                    let _ = self.note(range, PageState::Dual, Some(PageState::Reserved));
                }
            }
        }
        result
    }
}

/// A region as where places come from.
struct Pieces<'a, P: PageProvider + Copy, M: PageProvider + Copy, R>(&'a RegionAllocator<P, M, R>);

impl<P, M, R> Places for Pieces<'_, P, M, R>
where
    P: PageProvider + DualMapProvider + Copy,
    M: PageProvider + Copy,
    R: RawMutex + Send + Sync,
{
    fn leaves_to_host(&self, _: &Plan) -> bool {
        false
    }

    fn reserve(&mut self, request: &Request<'_>) -> Result<PageRange, Error> {
        self.0.reserve_pages(request, 0)
    }

    fn release(&mut self, range: PageRange) {
        // SAFETY: reserved for a view that was not mapped, and used by no other code. It cannot
        // fail but for want of memory, which wastes addresses.
        let _ = unsafe { self.0.unmap(range) };
    }
}

// SAFETY: the provider below makes the pages and keeps the trait's promises for them; both views
// lie in what was reserved for them, and no page call is made on a view, since the tree knows it as
// one.
unsafe impl<P, M, R> DualMapProvider for RegionAllocator<P, M, R>
where
    P: PageProvider + DualMapProvider + Copy,
    M: PageProvider + Copy,
    R: RawMutex + Send + Sync,
{
    unsafe fn map_dual(&self, request: &DualRequest<'_>) -> Result<DualMapping, DualError> {
        if !self.is_active() {
            // SAFETY: a range of `Target::Into` was reserved by the caller from this provider,
            // which passed that on to the one below, and no other code uses it.
            return unsafe { self.inner.map_dual(request) };
        }
        request.validate(self.page)?;
        let mut last = DualError::of(ErrorKind::Exhausted);
        for _ in 0..TRIES {
            let mut views = place_views(&mut Pieces(self), request, self.page)?;
            let Some((rw, rx)) = views.ranges() else {
                return Err(DualError::of(ErrorKind::Other)); // Every place was reserved.
            };
            let placed = DualRequest {
                len: views.len_bytes(),
                min_len: None,
                ..*request
            };
            // SAFETY: each range was reserved by place_views above, or by the caller as
            // `Target::Into` asks; no other code uses it.
            last = match unsafe { self.map_into(&placed, rw, rx) } {
                Ok(mapping) => return Ok(mapping),
                Err(error) => error,
            };
            let lost = last.lost().filter(|range| views.reserved(*range));
            if let Some(range) = lost {
                views.forget(range);
            }
            views.release(&mut Pieces(self));
            // Elsewhere, if a place that this call had found was lost.
            if lost.is_none() {
                break;
            }
        }
        Err(last)
    }

    unsafe fn unmap_dual(
        &self,
        mapping: DualMapping,
        leave: Leave,
    ) -> Result<(), (DualMapping, Error)> {
        let views = [mapping.rw(), mapping.rx()];
        let foreign = |range: &PageRange| self.query(range.addr()).is_none();
        if views.iter().any(foreign) {
            // SAFETY: the mapping came from this provider, which knows no such views: it passed
            // them on from the one below before it was active. No other code uses them.
            return unsafe { self.inner.unmap_dual(mapping, leave) };
        }
        // SAFETY: the mapping came from this provider, which has it from the one below, and no
        // other code uses either view; what was adopted stays reserved.
        unsafe { self.inner.unmap_dual(mapping, Leave::Reserved)? };
        for range in views {
            let becomes = match leave {
                Leave::Hole => None,
                Leave::Reserved => Some(PageState::Reserved),
            };
            // Where there is no memory to note it, addresses are wasted.
            let _ = self.note(range, PageState::Dual, becomes);
        }
        Ok(())
    }

    unsafe fn purge_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        // SAFETY: the mapping came from this provider, which has it from the one below, and no
        // other code uses those pages until they are refilled.
        unsafe { self.inner.purge_dual(mapping, offset, len) }
    }

    unsafe fn refill_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        // SAFETY: the mapping came from this provider, which has it from the one below.
        unsafe { self.inner.refill_dual(mapping, offset, len) }
    }

    unsafe fn fork_child_dual(&self, mapping: &DualMapping) -> Result<(), Error> {
        // SAFETY: the caller is the only thread of a child forked since the mapping was made, and
        // calls once for it.
        unsafe { self.inner.fork_child_dual(mapping) }
    }
}

// SAFETY: the provider below keeps the promise that no thread executes what it fetched before: the
// call is passed on unchanged.
unsafe impl<P: PageProvider + CoreSync + Copy, M: PageProvider + Copy, R: RawMutex + Send + Sync>
    CoreSync for RegionAllocator<P, M, R>
{
    fn sync_cores(&self) -> Result<(), Error> {
        self.inner.sync_cores()
    }
}

impl<P: PageProvider + Clock + Copy, M: PageProvider + Copy, R: RawMutex + Send + Sync> Clock
    for RegionAllocator<P, M, R>
{
    fn now_ms(&self) -> Option<u64> {
        self.inner.now_ms()
    }
}

/// Free addresses are no mappings here, though the host keeps them inaccessible: they can be
/// reserved from this provider.
impl<P, M, R> ProcessMap for RegionAllocator<P, M, R>
where
    P: PageProvider + ProcessMap + Copy,
    M: PageProvider + Copy,
    R: RawMutex + Send + Sync,
{
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        self.inner.walk(&mut |entry| {
            let mut rest = Some(entry.range);
            for gap in self.gaps(entry.range) {
                let before = rest
                    .and_then(|rest| AddressRange::new(rest.start(), gap.start().checked_sub(1)?));
                if !before.is_none_or(|range| visit(MapEntry { range, ..entry })) {
                    return false;
                }
                let behind = gap.last().checked_add(1);
                rest = behind.and_then(|start| AddressRange::new(start, entry.range.last()));
            }
            rest.is_none_or(|range| visit(MapEntry { range, ..entry }))
        })
    }

    fn address_space(&self) -> AddressSpace {
        self.inner.address_space()
    }
}
