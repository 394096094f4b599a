//! A shared reference to a provider is a provider.

use super::{
    AddressSpace, Capabilities, Clock, Commit, CoreSync, DualError, DualMapProvider, DualMapping,
    DualRequest, Dump, Error, Leave, MapEntry, PageProvider, ProcessMap, Purged, Request, Resource,
};
use crate::page::{Access, AddressRange, PageRange, PageSize};
use core::ffi::CStr;

// SAFETY: every call is passed on unchanged, so the referent's promises are this type's.
unsafe impl<P: PageProvider + ?Sized> PageProvider for &P {
    fn page_size(&self) -> PageSize {
        (**self).page_size()
    }

    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    fn capabilities_among(&self, wanted: Capabilities) -> Capabilities {
        (**self).capabilities_among(wanted)
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        (**self).reserve(request)
    }

    fn reserve_committed(&self, request: &Request<'_>, how: Commit) -> Result<PageRange, Error> {
        (**self).reserve_committed(request, how)
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        // SAFETY: the caller's range is reserved, as commit asks; it came from the provider behind
        // the reference.
        unsafe { (**self).commit(range, how) }
    }

    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error> {
        // SAFETY: the caller's range is committed, as protect asks; it came from the provider
        // behind the reference.
        unsafe { (**self).protect(range, access) }
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the caller's range is reserved or committed, and its contents are given up, as
        // decommit asks; it came from the provider behind the reference.
        unsafe { (**self).decommit(range) }
    }

    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        // SAFETY: the caller's range is committed, and its contents are not needed, as purge asks;
        // it came from the provider behind the reference.
        unsafe { (**self).purge(range) }
    }

    unsafe fn move_pages(&self, from: PageRange, to: PageRange) -> Result<(), Error> {
        // SAFETY: `from` is committed and `to` reserved, as move_pages asks; both came from the
        // provider behind the reference.
        unsafe { (**self).move_pages(from, to) }
    }

    unsafe fn describe(&self, range: PageRange, name: Option<&CStr>, dump: Dump) {
        // SAFETY: the caller owns the range, as describe asks; it came from the provider behind the
        // reference.
        unsafe { (**self).describe(range, name, dump) }
    }

    unsafe fn avoid_large_pages(&self, range: PageRange) {
        // SAFETY: the caller's range is committed, as avoid_large_pages asks; it came from the
        // provider behind the reference.
        unsafe { (**self).avoid_large_pages(range) }
    }

    unsafe fn wish_large_pages(&self, range: PageRange) {
        // SAFETY: the caller's range is committed, as wish_large_pages asks; it came from the
        // provider behind the reference.
        unsafe { (**self).wish_large_pages(range) }
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the caller owns the range, and no other code uses it, as release asks; it came
        // from the provider behind the reference.
        unsafe { (**self).release(range) }
    }

    fn left(&self, of: Resource) -> Option<usize> {
        (**self).left(of)
    }

    fn large_page(&self) -> PageSize {
        (**self).large_page()
    }

    fn random_key(&self) -> Option<[u8; 32]> {
        (**self).random_key()
    }

    fn addresses(&self) -> AddressRange {
        (**self).addresses()
    }
}

// SAFETY: every call is passed on unchanged, so the referent's promises are this type's.
unsafe impl<P: DualMapProvider + ?Sized> DualMapProvider for &P {
    unsafe fn map_dual(&self, request: &DualRequest<'_>) -> Result<DualMapping, DualError> {
        // SAFETY: Into targets are reservations of the caller's, as map_dual asks; they came from
        // the provider behind the reference.
        unsafe { (**self).map_dual(request) }
    }

    unsafe fn unmap_dual(
        &self,
        mapping: DualMapping,
        leave: Leave,
    ) -> Result<(), (DualMapping, Error)> {
        // SAFETY: no other code uses the mapping, as unmap_dual asks; the provider behind the
        // reference made it.
        unsafe { (**self).unmap_dual(mapping, leave) }
    }

    unsafe fn purge_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        // SAFETY: no other code uses those pages until they are refilled, as purge_dual asks; the
        // provider behind the reference made the mapping.
        unsafe { (**self).purge_dual(mapping, offset, len) }
    }

    unsafe fn refill_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        // SAFETY: the mapping is one of this provider, as refill_dual asks; that is, of the
        // provider behind the reference.
        unsafe { (**self).refill_dual(mapping, offset, len) }
    }

    unsafe fn fork_child_dual(&self, mapping: &DualMapping) -> Result<(), Error> {
        // SAFETY: this is the only thread of a forked child, and the one call for this mapping, as
        // fork_child_dual asks; the provider behind the reference made it.
        unsafe { (**self).fork_child_dual(mapping) }
    }
}

// SAFETY: every call is passed on unchanged, so the referent's promises are this type's.
unsafe impl<P: CoreSync + ?Sized> CoreSync for &P {
    fn sync_cores(&self) -> Result<(), Error> {
        (**self).sync_cores()
    }
}

impl<P: Clock + ?Sized> Clock for &P {
    fn now_ms(&self) -> Option<u64> {
        (**self).now_ms()
    }
}

impl<P: ProcessMap + ?Sized> ProcessMap for &P {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        (**self).walk(visit)
    }

    fn address_space(&self) -> AddressSpace {
        (**self).address_space()
    }
}
