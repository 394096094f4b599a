//! Addresses, bytes and pages: one made of another.

use super::RegionAllocator;
use crate::{
    page::{AddressRange, PageRange},
    provider::{Error, ErrorKind, PageProvider},
    range_map::Pages,
};
use core::ptr::{NonNull, with_exposed_provenance_mut};

impl<P: PageProvider + Copy, M: PageProvider + Copy, R> RegionAllocator<P, M, R> {
    /// Returns the page behind the last one.
    pub(super) const fn end(&self) -> u64 {
        1 << (u64::BITS - self.page.bytes().trailing_zeros())
    }

    pub(super) const fn page_of(&self, addr: usize) -> u64 {
        (addr >> self.page.bytes().trailing_zeros()) as u64
    }

    pub(super) fn bytes(&self, pages: u64) -> usize {
        let bytes = pages.saturating_mul(self.page.bytes() as u64);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Returns the pages of a range, which is in the host's pages.
    pub(super) fn pages(&self, range: PageRange) -> Result<Pages, Error> {
        let whole = self.page.is_aligned(range.addr()) && self.page.is_aligned(range.len_bytes());
        let pages = (self.page_of(range.addr()), self.page_of(range.end()));
        whole
            .then_some(pages)
            .ok_or(ErrorKind::InvalidArgument.into())
    }

    /// Returns the pages that lie wholly in a window.
    pub(super) fn pages_inside(&self, window: AddressRange) -> Option<Pages> {
        let mask = self.page.bytes() - 1;
        let low = self.page_of(window.start()) + u64::from(window.start() & mask != 0);
        let high = self.page_of(window.last()) + u64::from(window.last() & mask == mask);
        (low < high).then_some((low, high))
    }

    /// Returns the address of a page of the address space.
    fn address_of(&self, page: u64) -> usize {
        let addr = page << self.page.bytes().trailing_zeros();
        usize::try_from(addr).unwrap_or(usize::MAX)
    }

    pub(super) fn addresses(&self, (start, end): Pages) -> AddressRange {
        let last = self.address_of(end - 1) | (self.page.bytes() - 1);
        AddressRange::new(self.address_of(start), last).expect("ranges are not empty")
    }

    /// Describes pages that were adopted.
    pub(super) fn range(&self, (start, end): Pages) -> PageRange {
        let first = with_exposed_provenance_mut(self.address_of(start));
        let first = NonNull::new(first).expect("page 0 is never adopted");
        // Not all of the address space, so that the length is one too.
        let range = PageRange::new(first, self.address_of(end - start), self.page);
        range.expect("whole pages below the end of the address space")
    }
}
