//! Where requests find room, on maps that tests make up.

use super::*;
use crate::{
    page::PageSize,
    provider::{MapEntry, Placement, Request},
};
use core::ptr::NonNull;

const PAGE: PageSize = PageSize::KIB_4;

struct Used<'a>(&'a [(usize, usize)]);

impl ProcessMap for Used<'_> {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        for &(start, end) in self.0 {
            let range = AddressRange::new(start, end - 1).expect("not empty");
            if !visit(MapEntry {
                range,
                flags: MapFlags::READ,
            }) {
                break;
            }
        }
        Ok(())
    }
}

struct NoMap;

impl ProcessMap for NoMap {
    fn walk(&self, _: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        Err(ErrorKind::Unsupported.into())
    }
}

fn found(request: Request<'_>, used: &[(usize, usize)]) -> Result<usize, ErrorKind> {
    let plan = request.plan(PAGE).map_err(Error::kind)?;
    run(&plan, &Used(used), used)
}

fn run(plan: &Plan, map: &dyn ProcessMap, used: &[(usize, usize)]) -> Result<usize, ErrorKind> {
    search(plan, map, &mut |base, len| {
        if used.iter().any(|&(s, e)| base < e && s < base + len) {
            return Err(ErrorKind::Taken.into());
        }
        let start = NonNull::new(core::ptr::without_provenance_mut(base));
        start
            .and_then(|s| PageRange::new(s, len, PAGE))
            .ok_or(ErrorKind::InvalidArgument.into())
    })
    .map(|r| r.addr())
    .map_err(Error::kind)
}

fn window(start: usize, end: usize) -> AddressRange {
    AddressRange::new(start, end - 1).expect("not empty")
}

#[test]
fn anywhere_takes_the_lowest_hole_of_the_window() {
    let used = [(0x10_0000, 0x10_2000), (0x10_3000, 0x11_0000)];
    let request = Request::bytes(0x1000).within(window(0x10_0000, 0x12_0000));
    assert_eq!(found(request, &used), Ok(0x10_2000));
    assert_eq!(
        found(
            Request {
                len: 0x2000,
                ..request
            },
            &used
        ),
        Ok(0x11_0000)
    );
    let full = request.within(window(0x10_0000, 0x10_2000));
    assert_eq!(found(full, &used), Err(ErrorKind::Exhausted));
}

#[test]
fn near_takes_the_closest_hole_on_either_side() {
    let used = [(0x50_0000, 0x60_0000), (0x60_1000, 0x70_0000)];
    let near = |anchor| Request::bytes(0x1000).placement(Placement::near(anchor, 1 << 24));
    assert_eq!(found(near(0x51_0000), &used), Ok(0x4f_f000));
    assert_eq!(found(near(0x5f_0000), &used), Ok(0x60_0000));
    assert_eq!(found(near(0x6f_0000), &used), Ok(0x70_0000));
    assert_eq!(found(near(0x80_0000), &used), Ok(0x80_0000));
}

#[test]
fn guards_lie_inside_the_window_and_align_the_body() {
    let request = Request::bytes(0x1000)
        .guards(0x1000, 0x1000)
        .align(0x1_0000)
        .within(window(0x10_0000, 0x20_0000));
    assert_eq!(found(request, &[]), Ok(0x10_f000));
    let tight = request.within(window(0x10_f000, 0x11_2000));
    assert_eq!(found(tight, &[]), Ok(0x10_f000));
    let too_tight = request.within(window(0x10_f000, 0x11_1000));
    assert_eq!(found(too_tight, &[]), Err(ErrorKind::Exhausted));
}

#[test]
fn a_hole_taken_meanwhile_is_avoided() {
    let plan = Request::bytes(0x1000).within(window(0x10_0000, 0x20_0000));
    let plan = plan.plan(PAGE).expect("valid");
    assert_eq!(
        run(&plan, &Used(&[]), &[(0x10_0000, 0x10_1000)]),
        Ok(0x10_1000)
    );
}

/// A map that counts how often it is walked.
struct Walks<'a>(Used<'a>, core::sync::atomic::AtomicUsize);

impl ProcessMap for Walks<'_> {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        self.1.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        self.0.walk(visit)
    }
}

/// Searches, where a host maps no more than `most` bytes at once; returns what was found and
/// the walks that it took.
fn longest(
    request: Request<'_>,
    used: &[(usize, usize)],
    most: usize,
) -> (Result<(usize, usize), ErrorKind>, usize) {
    let map = Walks(Used(used), core::sync::atomic::AtomicUsize::new(0));
    let plan = match request.plan(PAGE) {
        Ok(plan) => plan,
        Err(error) => return (Err(error.kind()), 0),
    };
    let found = search(&plan, &map, &mut |base, len| {
        if used.iter().any(|&(s, e)| base < e && s < base + len) {
            return Err(ErrorKind::Taken.into());
        }
        if len > most {
            return Err(ErrorKind::Exhausted.into());
        }
        let start = NonNull::new(core::ptr::without_provenance_mut(base));
        let range = start.and_then(|start| PageRange::new(start, len, PAGE));
        range.ok_or(ErrorKind::InvalidArgument.into())
    });
    let found = found.map(|range| (range.addr(), range.len_bytes()));
    (found.map_err(Error::kind), map.1.into_inner())
}

#[test]
fn one_walk_finds_the_longest_hole_that_will_do() {
    // Holes of two, five, three and five pages.
    let used = [
        (0x10_0000, 0x10_1000),
        (0x10_3000, 0x10_4000),
        (0x10_9000, 0x10_a000),
        (0x10_d000, 0x10_e000),
        (0x11_3000, 0x12_0000),
    ];
    let within = window(0x10_0000, 0x12_0000);
    let ask = |len, min| Request::bytes(len).at_least(min).within(within);
    let all = usize::MAX;
    let found = |request| longest(request, &used, all);
    // What fits is where it would be anyway.
    assert_eq!(found(ask(0x2000, 0x1000)), (Ok((0x10_1000, 0x2000)), 1));
    assert_eq!(found(ask(0x3000, 0x1000)), (Ok((0x10_4000, 0x3000)), 1));
    // What does not fit gets the lowest of the longest.
    assert_eq!(found(ask(0x1_0000, 0x1000)), (Ok((0x10_4000, 0x5000)), 1));
    assert_eq!(found(ask(0x1_0000, 0x5000)), (Ok((0x10_4000, 0x5000)), 1));
    let none = (Err(ErrorKind::Exhausted), 1);
    assert_eq!(found(ask(0x1_0000, 0x5001)), none, "six pages");
    assert_eq!(found(ask(0x1_0000, 0x6000)), none);
    assert_eq!(found(Request::bytes(0x6000).within(within)), none);
    // Alignment and guards take their part of a hole.
    let aligned = ask(0x1_0000, 0x1000).align(0x4000);
    assert_eq!(found(aligned), (Ok((0x10_4000, 0x5000)), 1));
    let aligned = ask(0x1_0000, 0x1000).align(0x1_0000);
    assert_eq!(found(aligned), (Ok((0x11_0000, 0x3000)), 1));
    let guarded = ask(0x1_0000, 0x3000).guards(0x1000, 0x1000);
    assert_eq!(found(guarded), (Ok((0x10_4000, 0x5000)), 1));
    assert_eq!(found(ask(0x1_0000, 0x4000).guards(0x1000, 0x1000)), none);
    // A window ends in the middle of a page.
    let odd = ask(0x1_0000, 0x1000).within(window(0x10_4800, 0x10_8800));
    assert_eq!(found(odd), (Ok((0x10_5000, 0x3000)), 1));
    // Near, the closest of those that fit; else the longest.
    let near = |len| ask(len, 0x1000).place(Place::Near(0x10_b000));
    assert_eq!(found(near(0x3000)), (Ok((0x10_a000, 0x3000)), 1));
    assert_eq!(found(near(0x8000)), (Ok((0x10_4000, 0x5000)), 1));
}

#[test]
fn an_exact_place_gives_what_is_free_there() {
    let used = [(0x10_4000, 0x10_5000)];
    let at = |base, len, min| {
        let request = Request::bytes(len).at_least(min);
        longest(request.place(Place::Exact(base)), &used, usize::MAX)
    };
    assert_eq!(at(0x10_0000, 0x4000, 0x1000), (Ok((0x10_0000, 0x4000)), 0));
    assert_eq!(at(0x10_0000, 0x9000, 0x1000), (Ok((0x10_0000, 0x4000)), 1));
    assert_eq!(at(0x10_0000, 0x9000, 0x5000), (Err(ErrorKind::Taken), 1));
    assert_eq!(at(0x10_4000, 0x9000, 0x1000), (Err(ErrorKind::Taken), 1));
    assert_eq!(at(0x10_5000, 0x9000, 0x1000), (Ok((0x10_5000, 0x9000)), 0));
    // The range asked for ends before all of it.
    let inside = |base, min| {
        let request = Request::bytes(0x4000).at_least(min);
        let request = request.within(window(0x10_0000, 0x10_2000));
        longest(request.place(Place::Exact(base)), &used, usize::MAX).0
    };
    assert_eq!(inside(0x10_0000, 0x1000), Ok((0x10_0000, 0x2000)));
    assert_eq!(inside(0x10_1000, 0x1000), Ok((0x10_1000, 0x1000)));
    assert_eq!(inside(0x10_1000, 0x2000), Err(ErrorKind::OutsideRange));
    assert_eq!(inside(0x10_2000, 0x1000), Err(ErrorKind::OutsideRange));
}

#[test]
fn what_a_host_has_too_little_of_is_halved_in_the_same_hole() {
    let within = window(0x10_0000, 0x20_0000);
    let ask = |min| Request::bytes(0x1_0000).at_least(min).within(within);
    let found = |min, most| longest(ask(min), &[], most);
    assert_eq!(found(0x1000, 0x5000), (Ok((0x10_0000, 0x4000)), 1));
    assert_eq!(found(0x3000, 0x3000), (Ok((0x10_0000, 0x3000)), 1));
    assert_eq!(found(0x6000, 0x5000), (Err(ErrorKind::Exhausted), 1));
}

#[test]
fn a_least_length_is_validated() {
    let kind = |len, min| {
        let plan = Request::bytes(len).at_least(min).plan(PAGE);
        plan.map(|plan| (plan.min_total(), plan.total()))
            .map_err(Error::kind)
    };
    assert_eq!(kind(0x3000, 1), Ok((0x1000, 0x3000)));
    assert_eq!(kind(0x2001, 0x2001), Ok((0x3000, 0x3000)));
    assert_eq!(kind(0x3000, 0), Err(ErrorKind::InvalidArgument));
    assert_eq!(kind(0x3000, 0x3001), Err(ErrorKind::InvalidArgument));
    assert_eq!(kind(0x3000, usize::MAX), Err(ErrorKind::InvalidArgument));
}

#[test]
fn without_a_map_the_least_length_is_tried_last() {
    let used = [(0x10_1000, 0x1f_f000)];
    let within = window(0x10_0000, 0x20_0000);
    let plan = Request::bytes(0x4000).at_least(0x1000).within(within);
    let plan = plan.plan(PAGE).expect("valid");
    assert_eq!(run(&plan, &NoMap, &used), Ok(0x10_0000));
}

#[test]
fn without_a_map_addresses_are_tried() {
    let used = [(0x10_0000, 0x18_0000)];
    let plan = Request::bytes(0x1000).within(window(0x10_0000, 0x20_0000));
    let base = run(&plan.plan(PAGE).expect("valid"), &NoMap, &used).expect("half is free");
    assert!((0x18_0000..0x20_0000).contains(&base));
    let near = Request::bytes(0x1000).placement(Placement {
        within: window(0x10_0000, 0x20_0000),
        ..Placement::near(0x17_f000, 0)
    });
    assert_eq!(
        run(&near.plan(PAGE).expect("valid"), &NoMap, &used),
        Ok(0x18_0000)
    );
    let full = plan
        .within(window(0x10_0000, 0x18_0000))
        .plan(PAGE)
        .expect("valid");
    assert_eq!(run(&full, &NoMap, &used), Err(ErrorKind::Exhausted));
}

#[test]
fn a_window_at_the_top_of_the_address_space_does_not_overflow() {
    let top = AddressRange::new(usize::MAX - 0xffff, usize::MAX).expect("not empty");
    // The last page's end is not representable, so it is not used.
    let got = found(Request::bytes(0x1000).within(top), &[]);
    assert_eq!(got, Ok(usize::MAX - 0xffff));
    let all = found(Request::bytes(0x1_0000).within(top), &[]);
    assert!(all.is_err());
}

#[test]
fn a_range_consists_of_what_covers_all_of_it() {
    let range = |start: usize, len| {
        let start = NonNull::new(core::ptr::without_provenance_mut(start)).expect("not null");
        PageRange::new(start, len, PAGE).expect("whole pages")
    };
    let map = Used(&[
        (0x1_0000, 0x1_2000),
        (0x1_2000, 0x1_3000),
        (0x1_4000, 0x1_5000),
    ]);
    let plain = |range| consists_of(&map, range, MapFlags::empty()).expect("there is a map");
    assert!(plain(range(0x1_0000, 0x3000)));
    assert!(plain(range(0x1_1000, 0x2000)));
    assert!(!plain(range(0x1_1000, 0x3000)), "a hole at the end");
    assert!(!plain(range(0x1_3000, 0x2000)), "a hole at the start");
    assert!(!plain(range(0x2_0000, 0x1000)), "all a hole");
    let view = MapFlags::SHARED | MapFlags::OBJECT;
    assert_eq!(consists_of(&map, range(0x1_0000, 0x1000), view), Ok(false));
    assert!(consists_of(&NoMap, range(0x1_0000, 0x1000), view).is_err());
}
