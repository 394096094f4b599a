//! What the two views show.

use super::need_dual;
use crate::{
    Outcome,
    harness::{Views, expect_refused},
};
use alloc::vec::Vec;
use hostmem_core::{
    page::PageSize,
    provider::{
        Capabilities, DualMapProvider, DualRequest, ErrorKind, Fork, PageProvider, PageWish,
    },
};

/// A size of large pages that most hosts know.
const LARGE: usize = 2 << 20;

pub(super) fn both_views_show_the_same_pages<P>(p: P) -> Outcome
where
    P: PageProvider + DualMapProvider + Copy,
{
    need_dual!(p);
    for pages in [1, 2, 3, 16, 33] {
        let mut views = Views::pages(p, pages).expect("the capability is a promise");
        assert_eq!(
            views.mapping().page_size(),
            p.page_size(),
            "host pages were asked for"
        );
        views.expect_zero(views.all());
        for seed in 1..3 {
            views.fill(views.all(), seed);
            views.expect_pattern(views.all(), seed);
        }
        let last = views.all().end - 1;
        views.fill(last..last + 1, 9);
        views.expect_pattern(last..last + 1, 9);
        assert!(views.unmap().is_ok(), "unmapping succeeds");
    }
    Outcome::Passed
}

pub(super) fn code_written_through_one_view_runs_in_the_other<P>(p: P) -> Outcome
where
    P: PageProvider + DualMapProvider + Copy,
{
    need_dual!(p);
    let mut views = Views::pages(p, 4).expect("the capability is a promise");
    for (page, value) in [(0, 42), (3, 43), (0, 0), (0, u16::MAX)] {
        let Some(returned) = views.run(page, value) else {
            return Outcome::Skipped("no code is known for this CPU");
        };
        assert_eq!(
            returned,
            u32::from(value),
            "the code that was written last runs"
        );
    }
    Outcome::Passed
}

pub(super) fn mappings_are_independent<P>(p: P) -> Outcome
where
    P: PageProvider + DualMapProvider + Copy,
{
    need_dual!(p);
    let mut all: Vec<Views<P>> = Vec::new();
    for seed in 1..=6 {
        let mut views = Views::pages(p, 3).expect("the capability is a promise");
        for other in &all {
            let new = [views.rw(), views.rx()];
            let old = [other.rw(), other.rx()];
            let overlap = new.iter().any(|n| old.iter().any(|o| n.overlaps(*o)));
            assert!(
                !overlap,
                "{:?} overlaps {:?}",
                views.mapping(),
                other.mapping()
            );
        }
        views.expect_zero(views.all());
        views.fill(views.all(), seed);
        all.push(views);
    }
    for gone in [4, 0] {
        assert!(all.remove(gone).unmap().is_ok(), "unmapping succeeds");
    }
    for (views, seed) in all.iter().zip([2, 3, 4, 6]) {
        views.expect_pattern(views.all(), seed);
    }
    Outcome::Passed
}

pub(super) fn purged_pages_read_zero_in_both_views<P>(p: P) -> Outcome
where
    P: PageProvider + DualMapProvider + Copy,
{
    need_dual!(p);
    let mut views = Views::pages(p, 8).expect("the capability is a promise");
    for page in views.all() {
        views.fill(page..page + 1, page as u64);
    }
    let able = p.capabilities().contains(Capabilities::PURGE_DUAL);
    assert_eq!(
        views.mapping().purges(),
        able,
        "the mapping says what it can"
    );
    if !able {
        expect_refused(
            views.purge(2..5),
            &[ErrorKind::Unsupported],
            "purge without the capability",
        );
        views.refill(2..5).expect("they have memory");
        views.expect_pattern(2..3, 2);
        return Outcome::Skipped("dual mappings cannot be purged");
    }
    for purged in [2..5, 7..8, 3..4] {
        views
            .purge(purged.clone())
            .expect("the capability is a promise");
        views.refill(purged.clone()).expect("there is memory");
        views.expect_zero(purged);
    }
    for page in [0, 1, 5, 6] {
        views.expect_pattern(page..page + 1, page as u64);
    }
    views.fill(2..5, 12);
    views.refill(2..5).expect("they have memory");
    views.expect_pattern(2..5, 12);
    views.purge(views.all()).expect("all pages can be purged");
    for part in [0..3, 1..2, 2..8] {
        views.refill(part).expect("there is memory");
    }
    views.expect_zero(views.all());
    views.fill(views.all(), 14);
    views.expect_pattern(views.all(), 14);
    Outcome::Passed
}

pub(super) fn bad_purges_are_refused<P>(p: P) -> Outcome
where
    P: PageProvider + DualMapProvider + Copy,
{
    need_dual!(p);
    if !p.capabilities().contains(Capabilities::PURGE_DUAL) {
        return Outcome::Skipped("dual mappings cannot be purged");
    }
    let mut views = Views::pages(p, 4).expect("the capability is a promise");
    views.fill(views.all(), 13);
    let page = p.page_size().bytes();
    let whole = usize::MAX - page + 1;
    for (offset, len) in [
        (1, page),
        (0, page + 1),
        (page, 1),
        (0, 5 * page),
        (4 * page, page),
        (3 * page, 2 * page),
        (whole, page),
        (page, whole),
        (0, whole),
    ] {
        let what = "a purge of bytes that are misaligned or leave the mapping";
        expect_refused(
            views.purge_bytes(offset, len),
            &[ErrorKind::InvalidArgument],
            what,
        );
        expect_refused(
            views.refill_bytes(offset, len),
            &[ErrorKind::InvalidArgument],
            "a refill of such bytes",
        );
    }
    views.expect_pattern(views.all(), 13);
    Outcome::Passed
}

pub(super) fn fork_policies_are_accepted<P>(p: P) -> Outcome
where
    P: PageProvider + DualMapProvider + Copy,
{
    need_dual!(p);
    let request = DualRequest::bytes(2 * p.page_size().bytes());
    for fork in [
        Fork::Detach,
        Fork::ChildLosesRw,
        Fork::ChildLosesBoth,
        Fork::Share,
    ] {
        for name in [None, Some(c"hostmem: test"), Some(c"[odd] \\ $name`")] {
            let request = DualRequest {
                fork,
                name,
                ..request
            };
            let mut views = Views::map(p, &request).expect("the capability is a promise");
            assert_eq!(
                views.mapping().fork(),
                fork,
                "the mapping has the policy asked for"
            );
            views.expect_zero(views.all());
            views.fill(views.all(), 1);
            views.expect_pattern(views.all(), 1);
        }
    }
    Outcome::Passed
}

pub(super) fn large_pages_are_given_or_refused<P>(p: P) -> Outcome
where
    P: PageProvider + DualMapProvider + Copy,
{
    need_dual!(p);
    let mut large = false;
    for or_base in [true, false] {
        let pages = PageWish::Large {
            bytes: LARGE,
            or_base,
        };
        let request = DualRequest {
            pages,
            ..DualRequest::bytes(2 * LARGE)
        };
        let mut views = match Views::map(p, &request) {
            Ok(views) => views,
            Err(e) if or_base && e.kind() != ErrorKind::Exhausted => {
                panic!("host pages will do, and yet: {e}")
            }
            Err(_) => continue,
        };
        let got = views.mapping().page_size();
        let is_large = Some(got) == PageSize::new(LARGE);
        assert!(
            is_large || (or_base && got == p.page_size()),
            "{got:?} was not asked for"
        );
        large |= is_large;
        views.expect_zero(views.all());
        views.fill(views.all(), 14);
        views.expect_pattern(views.all(), 14);
        assert!(views.unmap().is_ok(), "unmapping succeeds");
    }
    if large {
        Outcome::Passed
    } else {
        Outcome::Skipped("no large pages")
    }
}
