//! The region allocator, on addresses that the provider gave it.
//!
//! [`check`] takes the configuration and the calls, and [`stress`] their number, so that fuzzers
//! and long runs call the same code as the cases here.

mod array;
mod calls;
mod failures;
mod model;
mod ops;

pub use model::stress;
pub use ops::{LONGEST, Op, Order, Setup, Spot, Tally, check, random_ops};

use crate::{Case, report};
use alloc::{vec, vec::Vec};
use core::ptr::NonNull;
use hostmem_core::{
    page::PageRange,
    provider::{Commit, Error, PageProvider, Provider, Request},
    region::{RegionAllocator, RegionConfig},
};

/// Yields the cases.
pub fn cases<P: Provider + Copy>() -> impl Iterator<Item = Case<P>> {
    report::cases!("region", P:
        calls::a_page_is_replaced_where_it_lies,
        calls::all_but_the_end_can_be_fixed,
        calls::holes_are_found_by_place_and_by_hint,
        failures::bad_arguments_change_nothing,
        failures::failures_of_the_provider_change_nothing,
        failures::protecting_that_fails_in_the_middle_changes_nothing,
        failures::lack_of_metadata_changes_nothing,
        failures::a_full_region_is_exhausted_and_serves_again,
        calls::pages_above_2_to_the_32_stand_alone,
        calls::unmapping_across_two_regions_frees_both,
        calls::alignments_waste_nothing,
        calls::what_is_freed_becomes_one_range_again,
        calls::free_addresses_go_back,
        calls::a_pass_through_serves_before_and_after,
        calls::mappings_shrink_and_grow_in_place,
        calls::dual_mappings_lie_in_it,
        model::random_calls_match_a_page_array,
        model::random_calls_match_a_page_array_while_others_fail,
    )
}

/// Leaves with a message where something does not hold.
macro_rules! ensure {
    ($holds:expr, $($say:tt)*) => {
        if !$holds {
            return Err(alloc::format!($($say)*));
        }
    };
}
use ensure;

/// What lies around a region that was lent.
const NEIGHBOUR: u8 = 0x5a;

/// A region between two pages of somebody else, which are looked at in the end.
struct Lent<P: PageProvider + Copy, I: PageProvider + Copy = P> {
    provider: P,
    whole: PageRange,
    /// What is to be released in the end.
    parts: Vec<PageRange>,
    range: PageRange,
    region: RegionAllocator<I, P>,
}

impl<P: PageProvider + Copy> Lent<P> {
    fn new(provider: P, pages: usize) -> Result<Self, Error> {
        Self::around(provider, provider, pages)
    }
}

impl<P: PageProvider + Copy, I: PageProvider + Copy> Lent<P, I> {
    /// Lends pages of `provider` to a region that makes its calls on `inner`.
    fn around(provider: P, inner: I, pages: usize) -> Result<Self, Error> {
        let page = provider.page_size();
        let config = RegionConfig::new().metadata(16 << 20);
        let region = RegionAllocator::on(inner, provider, config)?;
        let len = (pages + 2) * page.bytes();
        let whole = provider.reserve(&Request::bytes(len))?;
        let part = |offset, len| whole.part(offset, len, page).expect("a part");
        for edge in [0, len - page.bytes()] {
            let edge = part(edge, page.bytes());
            // SAFETY: reserved above, and this case's alone.
            unsafe { provider.commit(edge, Commit::READ_WRITE)? };
            // SAFETY: committed just now.
            unsafe { edge.start().write_bytes(NEIGHBOUR, page.bytes()) };
        }
        let range = part(page.bytes(), pages * page.bytes());
        // SAFETY: reserved above, and from now on the region's.
        unsafe { region.adopt(range)? };
        Ok(Self {
            provider,
            whole,
            parts: vec![whole],
            range,
            region,
        })
    }

    /// Returns how many bytes that many pages have.
    fn bytes(&self, pages: usize) -> usize {
        pages * self.provider.page_size().bytes()
    }

    /// Describes pages of the region by number.
    fn part(&self, first: usize, pages: usize) -> PageRange {
        let page = self.provider.page_size();
        let part = self.range.part(self.bytes(first), self.bytes(pages), page);
        part.expect("a part of the region")
    }

    /// Returns the address of a page of the region.
    fn at(&self, page: usize) -> usize {
        self.range.addr() + self.bytes(page)
    }

    /// Returns the number of a page of the region.
    fn page(&self, addr: usize) -> usize {
        (addr - self.range.addr()) / self.bytes(1)
    }
}

impl<P: PageProvider + Copy, I: PageProvider + Copy> Drop for Lent<P, I> {
    fn drop(&mut self) {
        let page = self.provider.page_size().bytes();
        for edge in [0, self.whole.len_bytes() - page] {
            // SAFETY: both edges lie in the whole range, are committed, and no other code's.
            let edge = unsafe { self.whole.start().add(edge) };
            let intact = (0..page).all(|n| {
                // SAFETY: both edges lie in the whole range, are committed, and no other code's.
                let byte: NonNull<u8> = unsafe { edge.add(n) };
                // SAFETY: both edges lie in the whole range, are committed, and no other code's.
                unsafe { byte.read() == NEIGHBOUR }
            });
            assert!(intact, "somebody else's page at {edge:p} was written");
        }
        for part in &self.parts {
            // SAFETY: reserved when this was made; nothing in it is used any more.
            unsafe { self.provider.release(*part) }.expect("what was reserved can be released");
        }
    }
}
