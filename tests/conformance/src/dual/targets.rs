//! Where the two views lie, and what they leave behind.

use super::need_dual;
use crate::{
    Outcome,
    harness::{Region, Views, undisturbed},
};
use hostmem_core::{
    page::{AddressRange, PageRange},
    provider::{
        Commit, DualMapProvider, DualRequest, ErrorKind, PageProvider, Place, Placement, Request,
        Target,
    },
};

/// Reserves pages and releases them again: addresses that are most probably free.
fn free_range<P: PageProvider + Copy>(p: P, pages: usize) -> PageRange {
    let mut region = Region::pages(p, pages);
    let range = region.range();
    region.release(0..pages).expect("release succeeds");
    range
}

pub(super) fn placement_of_both_views_is_kept<P>(p: P) -> Outcome
where
    P: PageProvider + DualMapProvider + Copy,
{
    need_dual!(p);
    let page = p.page_size().bytes();
    let len = 4 * page;
    // Views checks alignment and range; here is that every kind of placement is granted.
    undisturbed("dual mappings in windows", || {
        let free = free_range(p, 64).addresses();
        let middle = free.start() + 32 * page;
        let low = Placement::within(AddressRange::new(free.start(), middle - 1)?);
        let high = Placement::within(AddressRange::new(middle, free.last())?);
        let near = Placement::near(middle, 16 * page);
        let aligned = Placement {
            align: 16 * page,
            ..Placement::ANYWHERE
        };
        let any = Placement::ANYWHERE;
        for (rw, rx) in [
            (low, high),
            (high, low),
            (near, near),
            (any, near),
            (near, any),
            (aligned, aligned),
        ] {
            let (rw, rx) = (Target::Find(rw), Target::Find(rx));
            let request = DualRequest {
                rw,
                rx,
                ..DualRequest::bytes(len)
            };
            let mut views = Views::map(p, &request).ok()?;
            views.fill(views.all(), 1);
            views.expect_pattern(views.all(), 1);
        }
        Some(Outcome::Passed)
    })
}

pub(super) fn exact_views_are_exact<P>(p: P) -> Outcome
where
    P: PageProvider + DualMapProvider + Copy,
{
    need_dual!(p);
    let page = p.page_size().bytes();
    undisturbed("a dual mapping at free addresses", || {
        let base = free_range(p, 8).addr();
        let at = |addr| {
            Target::Find(Placement {
                place: Place::Exact(addr),
                ..Placement::ANYWHERE
            })
        };
        let request = DualRequest {
            rw: at(base + 5 * page),
            rx: at(base + page),
            ..DualRequest::bytes(3 * page)
        };
        let mut views = match Views::map(p, &request) {
            Ok(views) => views,
            Err(e) if e.kind() == ErrorKind::Taken => return None,
            Err(e) => panic!("free addresses were refused: {e}"),
        };
        assert_eq!(
            views.rw().addr(),
            base + 5 * page,
            "an exact writable view is exact"
        );
        assert_eq!(
            views.rx().addr(),
            base + page,
            "an exact executable view is exact"
        );
        views.fill(views.all(), 2);
        views.expect_pattern(views.all(), 2);
        Some(Outcome::Passed)
    })
}

pub(super) fn views_land_in_reservations<P>(p: P) -> Outcome
where
    P: PageProvider + DualMapProvider + Copy,
{
    need_dual!(p);
    let mut rw = Region::pages(p, 8);
    let mut rx = Region::pages(p, 8);
    let len = 3 * rw.page();
    for region in [&mut rw, &mut rx] {
        region
            .commit(0..2, Commit::READ_WRITE)
            .expect("a small commit succeeds");
        region.fill(0..2, 3);
    }
    let into = |region| Some((region, 2..5));
    let both = Views::map_into(p, len, into(&mut rw), into(&mut rx));
    let mut both = both.expect("reservations can be replaced");
    both.expect_zero(both.all());
    both.fill(both.all(), 4);
    let one = Views::map_into(p, len, Some((&mut rw, 5..8)), None);
    let mut one = one.expect("the writable view alone can be placed so");
    one.fill(one.all(), 5);
    let other = Views::map_into(p, len, None, Some((&mut rx, 5..8)));
    let mut other = other.expect("the executable view alone can be placed so");
    other.fill(other.all(), 6);
    for (views, seed) in [(&both, 4), (&one, 5), (&other, 6)] {
        views.expect_pattern(views.all(), seed);
    }
    rw.expect_pattern(0..2, 3);
    rx.expect_pattern(0..2, 3);
    // Both views in one reservation, the executable one below the writable one.
    let mut region = Region::pages(p, 6);
    let halves = Views::map_into_halves(p, &mut region);
    let mut halves = halves.expect("two parts of one reservation can be replaced");
    halves.fill(halves.all(), 7);
    halves.expect_pattern(halves.all(), 7);
    Outcome::Passed
}

pub(super) fn unmapping_leaves_holes<P>(p: P) -> Outcome
where
    P: PageProvider + DualMapProvider + Copy,
{
    need_dual!(p);
    undisturbed("an exact reservation where views were", || {
        let mut rw = Region::pages(p, 4);
        let len = 4 * rw.page();
        for into in [None, Some((&mut rw, 0..4))] {
            let views = Views::map_into(p, len, into, None).expect("the capability is a promise");
            let places = [views.rw().addr(), views.rx().addr()];
            assert!(views.unmap().is_ok(), "unmapping succeeds");
            for place in places {
                match Region::reserve(p, &Request::bytes(len).place(Place::Exact(place))) {
                    Ok(_) => {}
                    Err(e) if e.kind() == ErrorKind::Taken => return None,
                    Err(e) => panic!("a hole that unmapping left was refused: {e}"),
                }
            }
        }
        Some(Outcome::Passed)
    })
}

pub(super) fn unmapping_leaves_reservations<P>(p: P) -> Outcome
where
    P: PageProvider + DualMapProvider + Copy,
{
    need_dual!(p);
    let mut ground = Region::pages(p, 8);
    let page = ground.page();
    for into in [None, Some((&mut ground, 2..6))] {
        let mut views = Views::map_into(p, 4 * page, into, None).expect("mapping succeeds");
        views.fill(views.all(), 8);
        let (mut rw, mut rx) = views
            .unmap_reserved()
            .map_err(|(_, e)| e)
            .expect("unmapping too");
        for region in [&mut rw, &mut rx] {
            let place = Request::bytes(page).place(Place::Exact(region.at(1)));
            let taken = p.reserve(&place);
            assert!(taken.is_err(), "what was left reserved is no other code's");
            region
                .commit(0..4, Commit::READ_WRITE)
                .expect("it can be committed");
            region.expect_zero(0..4);
            region.fill(0..4, 9);
        }
        rw.expect_pattern(0..4, 9);
        rx.decommit(0..4).expect("and decommitted");
        let again = Views::map_into(p, 4 * page, None, Some((&mut rx, 0..4)));
        let mut again = again.expect("and replaced again");
        again.expect_zero(again.all());
        again.fill(again.all(), 10);
        again.expect_pattern(again.all(), 10);
    }
    ground
        .commit(0..2, Commit::READ_WRITE)
        .expect("the neighbours are as before");
    ground.expect_zero(0..2);
    Outcome::Passed
}
