//! The array against an allocator.

use super::super::ensure;
use super::{Array, Ours, Page};
use alloc::string::String;
use core::ops::Range;
use hostmem_core::{
    page::{Access, AddressRange},
    provider::PageProvider,
    region::{PageState, RegionAllocator},
};

/// What an allocator tells, page by page.
impl<P: PageProvider + Copy> Array<P> {
    /// Compares what the allocator counts.
    pub(in crate::region) fn compare_counts<I, M>(
        &self,
        region: &RegionAllocator<I, M>,
    ) -> Result<(), String>
    where
        I: PageProvider + Copy,
        M: PageProvider + Copy,
    {
        let told = region.statistics();
        let (adopted, used) = (self.bytes(self.adopted), self.bytes(self.used));
        ensure!(
            (told.adopted, told.used) == (adopted, used),
            "{told:?}, but {adopted} bytes are adopted and {used} used"
        );
        Ok(())
    }

    /// Compares everything.
    pub(in crate::region) fn compare<I, M>(
        &self,
        region: &RegionAllocator<I, M>,
    ) -> Result<(), String>
    where
        I: PageProvider + Copy,
        M: PageProvider + Copy,
    {
        self.compare_counts(region)?;
        self.compare_window(region, self.all())?;
        let mappings = self.host_mappings();
        let told = region.host_mappings();
        // Moved mappings are apart from their neighbours, and may be in several parts.
        let apart = self.pages.iter().any(|page| page.is_apart());
        let right = told == mappings || apart && told > mappings;
        ensure!(right, "{told} mappings, not {mappings}");
        Ok(())
    }

    fn host_mappings(&self) -> usize {
        let (mut count, mut before) = (0, None);
        for page in &self.pages {
            let access = match page {
                Page::Foreign | Page::Gone => None,
                Page::Ours(Ours {
                    state: PageState::Committed(access),
                    ..
                }) => Some(*access),
                Page::Free | Page::Ours(_) => Some(Access::None),
            };
            count += usize::from(access.is_some() && access != before);
            before = access;
        }
        count
    }

    /// Compares a window: what each page holds and is said to be, ranges and gaps.
    pub(in crate::region) fn compare_window<I, M>(
        &self,
        region: &RegionAllocator<I, M>,
        window: Range<usize>,
    ) -> Result<(), String>
    where
        I: PageProvider + Copy,
        M: PageProvider + Copy,
    {
        let addresses = self.part(window.clone()).addresses();
        for n in window.clone() {
            self.holds(n)?;
            let told = region.query(self.at(n) + n % self.page.bytes());
            let told = told.map(|range| (range.state, range.tag));
            let is = self.pages[n].told();
            ensure!(told == is, "page {n} is {told:?}, not {is:?}");
        }
        let mut end = window.start;
        for range in region.ranges(addresses) {
            let is = Some((range.state, range.tag));
            let told = self.described(range.addresses);
            let differs = |n: usize| self.page(n).told() != is;
            let alike = told.end <= self.len() && !told.clone().any(differs);
            let apart = |n: usize| self.page(n).is_apart();
            let ends =
                |inside: usize, outside: usize| differs(outside) || apart(inside) || apart(outside);
            let whole = ends(told.start, told.start.wrapping_sub(1))
                && ends(told.end.wrapping_sub(1), told.end);
            let none = |n: usize| self.pages[n].told().is_none();
            let others = told.start <= end || (end..told.start).all(none);
            ensure!(alike && whole && others, "{told:?} is no range: {range:?}");
            end = told.end;
        }
        let missed = (end..window.end).find(|&n| self.pages[n].told().is_some());
        ensure!(missed.is_none(), "page {missed:?} is in no range");
        let mut free = self.free_runs(window.clone());
        for gap in region.gaps(addresses) {
            let (told, is) = (self.described(gap), free.next());
            ensure!(Some(&told) == is.as_ref(), "{told:?} is a gap, not {is:?}");
        }
        let missed = free.next();
        ensure!(missed.is_none(), "{missed:?} is no gap");
        let longest = self.free_runs(window).fold(0..0, |longest, run| {
            if run.len() > longest.len() {
                run
            } else {
                longest
            }
        });
        let told = region.largest_gap(addresses);
        let told = told.map_or(0..0, |gap| self.described(gap));
        ensure!(
            told == longest,
            "{told:?} is the longest gap, not {longest:?}"
        );
        Ok(())
    }

    /// Describes addresses by the numbers of their pages.
    fn described(&self, range: AddressRange) -> Range<usize> {
        self.page_of(range.start())..self.page_of(range.last()) + 1
    }
}
