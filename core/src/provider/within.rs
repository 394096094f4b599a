//! A provider that keeps every request inside an address range.

use super::{
    AddressSpace, Capabilities, Clock, Commit, CoreSync, DualError, DualMapProvider, DualMapping,
    DualRequest, DualView, Dump, Error, ErrorKind, Leave, MapEntry, PageProvider, Placement,
    ProcessMap, Purged, Request, Resource, Target,
};
use crate::page::{Access, AddressRange, PageRange, PageSize};
use core::ffi::CStr;

/// Keeps every request inside an address range: the low 4 GiB, or ±128 MiB of an anchor.
///
/// Without state, hence `Copy` where `P` is.
///
/// ```
/// use hostmem_core::{page::AddressRange, provider::Within};
/// # struct Linux;
/// let low = Within::new(Linux, AddressRange::LOW_4G);
/// assert_eq!(low.range(), AddressRange::LOW_4G);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Within<P> {
    inner: P,
    range: AddressRange,
}

impl<P> Within<P> {
    /// Narrows `inner` to `range`.
    pub const fn new(inner: P, range: AddressRange) -> Self {
        Self { inner, range }
    }

    /// Returns the range.
    pub const fn range(&self) -> AddressRange {
        self.range
    }

    fn narrow(&self, placement: Placement) -> Result<Placement, Error> {
        let within = placement
            .within
            .intersect(self.range)
            .ok_or(ErrorKind::OutsideRange)?;
        Ok(Placement {
            within,
            ..placement
        })
    }

    fn narrow_target(&self, view: DualView, target: Target) -> Result<Target, DualError> {
        let narrowed = match target {
            Target::Find(placement) => self.narrow(placement).map(Target::Find),
            Target::Into(range) if self.range.contains_range(range.addresses()) => Ok(target),
            Target::Into(_) => Err(ErrorKind::OutsideRange.into()),
        };
        narrowed.map_err(|error| DualError::unplaceable(view, error))
    }
}

// SAFETY: calls are passed on, with a narrower request; the inner provider keeps the promises.
unsafe impl<P: PageProvider> PageProvider for Within<P> {
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
        let placement = self.narrow(request.placement)?;
        let range = self.inner.reserve(&Request {
            placement,
            ..*request
        })?;
        debug_assert!(
            self.range.contains_range(range.addresses()),
            "the provider keeps the range"
        );
        Ok(range)
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        // SAFETY: the caller's range is reserved, as commit asks; it came from the inner provider.
        unsafe { self.inner.commit(range, how) }
    }

    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error> {
        // SAFETY: the caller's range is committed, as protect asks; it came from the inner
        // provider.
        unsafe { self.inner.protect(range, access) }
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the caller's range is reserved or committed, and its contents are given up, as
        // decommit asks; it came from the inner provider.
        unsafe { self.inner.decommit(range) }
    }

    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        // SAFETY: the caller's range is committed, and its contents are not needed, as purge asks;
        // it came from the inner provider.
        unsafe { self.inner.purge(range) }
    }

    unsafe fn move_pages(&self, from: PageRange, to: PageRange) -> Result<(), Error> {
        // SAFETY: `from` is committed and `to` reserved, as move_pages asks; both came from the
        // inner provider.
        unsafe { self.inner.move_pages(from, to) }
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
        // SAFETY: the caller owns the range, and no other code uses it, as release asks; it came
        // from the inner provider.
        unsafe { self.inner.release(range) }
    }

    fn left(&self, of: Resource) -> Option<usize> {
        let left = self.inner.left(of);
        match of {
            // How much of the range is in use is not known here.
            Resource::Addresses => {
                let range = self.addresses();
                let len = (range.last() - range.start()).saturating_add(1);
                Some(left.map_or(len, |left| left.min(len)))
            }
            _ => left,
        }
    }

    fn large_page(&self) -> PageSize {
        self.inner.large_page()
    }

    fn random_key(&self) -> Option<[u8; 32]> {
        self.inner.random_key()
    }

    fn addresses(&self) -> AddressRange {
        // Where they have nothing in common, no request is met, and any range will do.
        self.inner
            .addresses()
            .intersect(self.range)
            .unwrap_or(self.range)
    }
}

// SAFETY: calls are passed on, with narrower targets; the inner provider keeps the promises.
unsafe impl<P: DualMapProvider> DualMapProvider for Within<P> {
    unsafe fn map_dual(&self, request: &DualRequest<'_>) -> Result<DualMapping, DualError> {
        let (rw, rx) = (
            self.narrow_target(DualView::Rw, request.rw)?,
            self.narrow_target(DualView::Rx, request.rx)?,
        );
        // SAFETY: Into targets are reservations of the caller's, as map_dual asks; they are passed
        // on unchanged, and came from the inner provider.
        unsafe { self.inner.map_dual(&DualRequest { rw, rx, ..*request }) }
    }

    unsafe fn unmap_dual(
        &self,
        mapping: DualMapping,
        leave: Leave,
    ) -> Result<(), (DualMapping, Error)> {
        // SAFETY: no other code uses the mapping, as unmap_dual asks; the inner provider made it.
        unsafe { self.inner.unmap_dual(mapping, leave) }
    }

    unsafe fn purge_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        // SAFETY: no other code uses those pages until they are refilled, as purge_dual asks; the
        // inner provider made the mapping.
        unsafe { self.inner.purge_dual(mapping, offset, len) }
    }

    unsafe fn refill_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        // SAFETY: the mapping is one of this provider, as refill_dual asks; that is, of the inner
        // provider.
        unsafe { self.inner.refill_dual(mapping, offset, len) }
    }

    unsafe fn fork_child_dual(&self, mapping: &DualMapping) -> Result<(), Error> {
        // SAFETY: this is the only thread of a forked child, and the one call for this mapping, as
        // fork_child_dual asks; the inner provider made it.
        unsafe { self.inner.fork_child_dual(mapping) }
    }
}

// SAFETY: the inner provider makes all cores see new instructions before it returns `Ok`.
unsafe impl<P: CoreSync> CoreSync for Within<P> {
    fn sync_cores(&self) -> Result<(), Error> {
        self.inner.sync_cores()
    }
}

impl<P: Clock> Clock for Within<P> {
    fn now_ms(&self) -> Option<u64> {
        self.inner.now_ms()
    }
}

impl<P: ProcessMap> ProcessMap for Within<P> {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        self.inner.walk(visit)
    }

    fn address_space(&self) -> AddressSpace {
        self.inner.address_space()
    }
}
