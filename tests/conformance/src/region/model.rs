//! Random calls, beside an array that knows every page.

use super::Lent;
use crate::{Outcome, SplitMix64};
use alloc::{vec, vec::Vec};
use hostmem_core::{
    page::{Access, AddressRange},
    provider::{Commit, ErrorKind, PageProvider, Place, Provider, Request},
    region::{PageState, RegionRange},
};

/// Pages of the region under test.
const PAGES: usize = 96;

/// Calls.
const STEPS: usize = 3000;

type Page = Option<(PageState, u16)>;

/// Returns the maximal runs of pages for which `of` gives the same.
fn runs<T: PartialEq + Copy>(
    pages: &[Page],
    of: impl Fn(Page) -> Option<T>,
) -> Vec<(usize, usize, T)> {
    let mut all: Vec<(usize, usize, T)> = Vec::new();
    for (n, page) in pages.iter().enumerate() {
        let Some(what) = of(*page) else { continue };
        match all.last_mut() {
            Some((_, end, last)) if *end == n && *last == what => *end = n + 1,
            _ => all.push((n, n + 1, what)),
        }
    }
    all
}

pub(super) fn random_calls_match_a_page_array<P: Provider + Copy>(p: P) -> Outcome {
    let lent = Lent::new(p, PAGES).expect("a small region can be lent");
    let region = &lent.region;
    let mut random = SplitMix64::new(0x4e61);
    let mut pages: Vec<Page> = vec![None; PAGES];
    for step in 0..STEPS {
        let first = random.below(PAGES);
        let len = random.between(1, 1 + (PAGES - first - 1).min(12));
        let (range, all) = (lent.part(first, len), first..first + len);
        let tag = u16::try_from(random.below(3)).expect("below 3");
        match random.below(8) {
            0 | 1 => {
                let got = region.map(&Request::bytes(lent.bytes(len)), Commit::READ_WRITE, tag);
                let free = runs(&pages, |page| page.is_none().then_some(()));
                let lowest = free.iter().find(|(start, end, ())| end - start >= len);
                match (got, lowest) {
                    (Ok(range), Some(&(start, ..))) => {
                        assert_eq!(lent.page(range.addr()), start, "step {step}: the lowest");
                        let state = PageState::Committed(Access::ReadWrite);
                        pages[start..start + len].fill(Some((state, tag)));
                    }
                    (Err(error), None) => assert_eq!(error.kind(), ErrorKind::Exhausted),
                    (got, lowest) => panic!("step {step}: {got:?} where {lowest:?} is free"),
                }
            }
            2 => {
                let request = Request::bytes(lent.bytes(len)).place(Place::Exact(lent.at(first)));
                let got = region.reserve(&request);
                let free = pages[all.clone()].iter().all(Option::is_none);
                assert_eq!(got.is_ok(), free, "step {step}: {got:?}");
                if free {
                    pages[all].fill(Some((PageState::Reserved, 0)));
                }
            }
            3 => {
                // SAFETY: nobody uses pages of the region.
                unsafe { region.map_over(range, Commit::READ_WRITE, tag) }.expect("ours");
                pages[all].fill(Some((PageState::Committed(Access::ReadWrite), tag)));
            }
            4 => {
                // SAFETY: as above.
                let got = unsafe { region.protect(range, Access::Read) };
                let committed = |page: &Page| matches!(page, Some((PageState::Committed(_), _)));
                let fits = pages[all.clone()].iter().all(committed);
                assert_eq!(got.is_ok(), fits, "step {step}: {got:?}");
                for page in pages[all].iter_mut().flatten().filter(|_| fits) {
                    page.0 = PageState::Committed(Access::Read);
                }
            }
            5 => {
                // SAFETY: as above.
                let got = unsafe { region.decommit(range) };
                let fits = pages[all.clone()].iter().all(Option::is_some);
                assert_eq!(got.is_ok(), fits, "step {step}: {got:?}");
                for page in pages[all].iter_mut().flatten().filter(|_| fits) {
                    page.0 = PageState::Reserved;
                }
            }
            _ => {
                // SAFETY: as above.
                unsafe { region.unmap(range) }.expect("anything can be unmapped");
                pages[all].fill(None);
            }
        }
        let used = pages.iter().flatten().count();
        assert_eq!(region.statistics().used, lent.bytes(used), "step {step}");
        let here = random.below(PAGES);
        let found = region.query(lent.at(here) + random.below(lent.bytes(1)));
        let found = found.map(|r: RegionRange| (r.state, r.tag));
        assert_eq!(found, pages[here], "step {step}: page {here}");
        if step % 16 == 0 {
            let expected = runs(&pages, |page| page);
            let got: Vec<_> = region
                .ranges(AddressRange::ALL)
                .map(|r| {
                    let (start, last) = (r.addresses.start(), r.addresses.last());
                    (lent.page(start), lent.page(last) + 1, (r.state, r.tag))
                })
                .collect();
            assert_eq!(got, expected, "step {step}");
            let free = runs(&pages, |page| page.is_none().then_some(()));
            let gaps: Vec<_> = region
                .gaps(AddressRange::ALL)
                .map(|gap| (lent.page(gap.start()), lent.page(gap.last()) + 1, ()))
                .collect();
            assert_eq!(gaps, free, "step {step}");
            let largest = region
                .largest_gap(AddressRange::ALL)
                .map(|gap| lent.page(gap.start()));
            let longest = free.iter().rev().max_by_key(|(start, end, ())| end - start);
            assert_eq!(largest, longest.map(|(start, ..)| *start), "step {step}");
        }
    }
    // SAFETY: nobody uses pages of the region.
    unsafe { region.unmap(lent.range) }.expect("everything can go");
    assert_eq!(region.statistics().used, 0);
    Outcome::Passed
}
