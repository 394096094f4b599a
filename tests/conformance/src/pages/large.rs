//! Large pages.

use crate::{Outcome, harness::Region, report::or_skip};
use hostmem_core::{
    page::PageSize,
    provider::{Capabilities, Commit, Error, PageProvider, PageWish, Request},
};

/// A size of large pages that most hosts know.
const LARGE: usize = 2 << 20;

fn commit(pages: PageWish) -> Commit {
    Commit {
        pages,
        ..Commit::READ_WRITE
    }
}

/// Reserves two large pages.
fn reserve<P: PageProvider + Copy>(p: P) -> Result<Region<P>, Error> {
    Region::reserve(p, &Request::bytes(2 * LARGE).align(LARGE))
}

pub(super) fn large_or_base_pages_work<P: PageProvider + Copy>(p: P) -> Outcome {
    let result = or_skip!(reserve(p), "no room for two large pages");
    let mut region = result.expect("a host with room grants it");
    let (half, all) = (region.len() / 2, region.len());
    let wish = commit(PageWish::Large {
        bytes: LARGE,
        or_base: true,
    });
    let got = region.commit(0..all, wish).expect("base pages will do");
    assert!(
        got == p.page_size() || Some(got) == PageSize::new(LARGE),
        "{got:?} is neither the size asked for nor the host's"
    );
    use_large_pages(&mut region, half, all);
    if got == p.page_size() {
        Outcome::Skipped("host pages were got instead")
    } else {
        Outcome::Passed
    }
}

pub(super) fn large_pages_work_or_are_refused<P: PageProvider + Copy>(p: P) -> Outcome {
    let result = or_skip!(reserve(p), "no room for two large pages");
    let mut region = result.expect("a host with room grants it");
    let (half, all) = (region.len() / 2, region.len());
    let wish = commit(PageWish::Large {
        bytes: LARGE,
        or_base: false,
    });
    let got = region.commit(0..all, wish);
    if let Ok(got) = got {
        assert_eq!(
            Some(got),
            PageSize::new(LARGE),
            "only large pages were asked for"
        );
        use_large_pages(&mut region, half, all);
        return Outcome::Passed;
    }
    // The reservation must be whole, and no other code's.
    region
        .commit(0..all, Commit::READ_WRITE)
        .expect("a refused commit leaves the range reserved");
    region.expect_zero(0..1);
    region.fill(all - 1..all, 4);
    if p.capabilities().contains(Capabilities::LARGE_PAGES) {
        Outcome::Skipped("no large pages are free")
    } else {
        Outcome::Skipped("no large pages")
    }
}

/// Uses pages that change state only by halves.
fn use_large_pages<P: PageProvider + Copy>(region: &mut Region<P>, half: usize, all: usize) {
    region.expect_zero(0..all);
    region.fill(0..half, 6);
    region.fill(half..all, 7);
    region
        .decommit(0..half)
        .expect("a whole large page can be decommitted");
    region.expect_pattern(half..all, 7);
    region
        .commit(0..half, Commit::READ_WRITE)
        .expect("and committed as base pages");
    region.expect_zero(0..half);
    region.release(half..all).expect("and released");
}

pub(super) fn the_size_of_transparent_pages_is_told<P: PageProvider + Copy>(p: P) -> Outcome {
    let (page, large) = (p.page_size(), p.large_page());
    assert!(page <= large && page.is_aligned(large.bytes()), "{large:?}");
    let request = Request::bytes(large.bytes()).align(large.bytes());
    let reserved = or_skip!(Region::reserve(p, &request), "no room for a large page");
    let mut region = reserved.expect("a host with room grants it");
    let all = region.len();
    region
        .commit(0..all, commit(PageWish::Transparent))
        .expect("advice never fails");
    region.fill(0..1, 3);
    region.fill(all - 1..all, 4);
    region.expect_pattern(0..1, 3);
    region.expect_pattern(all - 1..all, 4);
    Outcome::Passed
}

pub(super) fn odd_page_sizes_are_refused<P: PageProvider + Copy>(p: P) -> Outcome {
    let mut region = Region::pages(p, 4);
    for bytes in [0, 3, usize::MAX, 1 << (usize::BITS - 2)] {
        let wish = commit(PageWish::Large {
            bytes,
            or_base: false,
        });
        assert!(
            region.commit(0..4, wish).is_err(),
            "no host has pages of {bytes} bytes"
        );
    }
    region
        .commit(0..4, Commit::READ_WRITE)
        .expect("a refused commit leaves the range reserved");
    region.expect_zero(0..4);
    Outcome::Passed
}

pub(super) fn transparent_pages_are_pages<P: PageProvider + Copy>(p: P) -> Outcome {
    let result = or_skip!(reserve(p), "no room for two large pages");
    let mut region = result.expect("a host with room grants it");
    let all = region.len();
    let got = region
        .commit(0..all, commit(PageWish::Transparent))
        .expect("advice never fails");
    assert_eq!(
        got,
        p.page_size(),
        "transparent pages change state by host pages"
    );
    region.fill(0..all, 8);
    region
        .decommit(1..3)
        .expect("also in the middle of a large one");
    region
        .commit(1..3, commit(PageWish::Transparent))
        .expect("and back");
    region.expect_zero(1..3);
    Outcome::Passed
}
