//! Addresses and pages: one made of another.

use super::node::Entry;
use super::{Pages, RangeMap, Value};
use crate::{
    page::{AddressRange, PageSize},
    provider::{Error, ErrorKind, PageProvider},
};

impl<T, M: PageProvider + Copy, R> RangeMap<T, M, R> {
    #[inline]
    pub(super) const fn page_of(&self, addr: usize) -> u64 {
        (addr >> self.shift) as u64
    }

    /// Returns the first page that a window touches and the last one, in the bounds; the first is
    /// behind the last where there is none.
    pub(super) const fn touched_pages(&self, window: AddressRange) -> Pages {
        match window.intersect(self.bounds) {
            Some(window) => (self.page_of(window.start()), self.page_of(window.last())),
            None => (1, 0),
        }
    }

    #[inline]
    pub(super) fn addresses(&self, (start, end): Pages) -> AddressRange {
        let start = to_usize(start << self.shift);
        // The end of all addresses wraps.
        let last = to_usize((end << self.shift).wrapping_sub(1));
        AddressRange::spanning(start, last)
    }

    #[inline]
    pub(super) fn seen(&self, entry: Entry) -> (AddressRange, T)
    where
        T: Value,
    {
        let range = self.addresses((entry.start, entry.end()));
        (range, entry.value::<T>())
    }

    /// Returns the pages of a range to be changed.
    #[inline]
    pub(super) fn pages(&self, range: AddressRange) -> Result<Pages, Error> {
        let mask = (1 << self.shift) - 1;
        if (range.start() | !range.last()) & mask != 0 {
            return Err(ErrorKind::InvalidArgument.into());
        }
        if !self.bounds.contains_range(range) {
            return Err(ErrorKind::OutsideRange.into());
        }
        // No number of a page in the bounds is the last one that there is.
        Ok((self.page_of(range.start()), self.page_of(range.last()) + 1))
    }

    /// Returns the pages that lie wholly in a window, and in the bounds.
    pub(super) fn pages_inside(&self, window: AddressRange) -> Option<Pages> {
        let window = window.intersect(self.bounds)?;
        let mask = (1 << self.shift) - 1;
        let low = self.page_of(window.start()) + u64::from(window.start() & mask != 0);
        let high = self.page_of(window.last()) + u64::from(window.last() & mask == mask);
        (low < high).then_some((low, high))
    }
}

/// Returns the pages of a range, if they are whole.
#[inline]
pub(super) fn whole_pages(range: AddressRange, page: PageSize) -> Option<Pages> {
    let (shift, mask) = (page.bytes().trailing_zeros(), page.bytes() - 1);
    // Numbers of pages have 63 bits.
    let few = range.last() >> shift <= usize::MAX >> 1;
    let whole = few && range.start() & mask == 0 && range.last() & mask == mask;
    let (first, last) = (range.start() >> shift, range.last() >> shift);
    whole.then(|| (first as u64, last as u64 + 1))
}

#[inline]
pub(super) fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("pages and addresses of this machine")
}
