//! The functions over a system that is an array of mappings, and fails on demand.

mod fake;

use super::*;
use crate::{
    page::{AddressRange, PageRange, PageSize},
    provider::{
        Commit, DualMapping, DualRequest, DualStep, Error, ErrorKind, Fork, Leave, Placement,
        Request, Target,
        backend::views::{leave_views, reserve_lost},
    },
};
use core::{ffi::c_void, ptr::without_provenance_mut};
use fake::{DENIED, END, EXISTS, Fake, Fate, NO_MEMORY, PAGE, PLAIN, VIEW, fake};

fn range(at: usize, len: usize) -> PageRange {
    range_at(PageSize::KIB_4, without_provenance_mut(at), len).expect("whole pages")
}

fn kind(result: Result<PageRange, Error>) -> Result<usize, ErrorKind> {
    result.map(PageRange::addr).map_err(Error::kind)
}

#[test]
fn an_exact_place_is_taken_or_there_is_no_room() {
    let os = fake().with(0x4000, PAGE, PLAIN);
    assert_eq!(kind(map_at(&os, 0x8000, PAGE)), Ok(0x8000));
    assert_eq!(
        map_at(&os, 0x4000, PAGE),
        Err(NO_MEMORY.with_kind(ErrorKind::Taken))
    );
    // Nothing lies there, and nothing more can be mapped.
    os.set(|state| state.limit = 2 * PAGE);
    assert_eq!(kind(map_at(&os, 0x2000, PAGE)), Err(ErrorKind::Exhausted));
    assert_eq!(kind(map_at(&os, 0x3000, 2 * PAGE)), Err(ErrorKind::Taken));
    // Without a map it depends on whether as much can be had elsewhere, if the place exists.
    os.set(|state| state.shows_map = false);
    assert_eq!(kind(map_at(&os, 0x4000, PAGE)), Err(ErrorKind::Exhausted));
    os.set(|state| state.limit = usize::MAX);
    assert_eq!(kind(map_at(&os, 0x4000, PAGE)), Err(ErrorKind::Taken));
    assert_eq!(kind(map_at(&os, END, PAGE)), Err(ErrorKind::Exhausted));
    // A refusal that says what it means is believed.
    os.set(|state| state.refusal = EXISTS);
    assert_eq!(map_at(&os, END, PAGE), Err(EXISTS));
    assert_eq!(os.mapped().len(), 2, "what was tried is gone");
}

#[test]
fn a_mapping_that_came_to_lie_elsewhere_is_taken_back() {
    let os = fake().with(0x4000, PAGE, PLAIN);
    os.set(|state| state.hints = true);
    assert_eq!(map_at(&os, 0x4000, PAGE), Err(ErrorKind::Taken.into()));
    assert_eq!(map_at(&os, END, PAGE), Err(ErrorKind::Exhausted.into()));
    assert_eq!(os.mapped(), [(0x4000, PAGE, PLAIN)]);
}

#[test]
fn a_range_is_kept_where_it_cannot_have_been_lost() {
    let here = range(0x4000, PAGE);
    let after = |os: Fake, was, error| keep_after(&os, Call::Map, here, was, error);
    // Refused before anything was unmapped.
    let os = fake().with(0x4000, PAGE, PLAIN);
    assert_eq!(after(os, Was::Plain, DENIED), Kept::Unchanged);
    // A hole is reserved again.
    let os = fake();
    assert_eq!(after(os, Was::Plain, NO_MEMORY), Kept::Reserved);
    assert_eq!(os.mapped(), [(0x4000, PAGE, PLAIN)]);
    // What lies there may be another's.
    assert_eq!(after(os, Was::Plain, NO_MEMORY), Kept::Lost);
    // At the limit nothing was unmapped, if it looks like what it was.
    os.set(|state| state.limit = PAGE);
    assert_eq!(after(os, Was::Plain, NO_MEMORY), Kept::Unchanged);
    assert_eq!(after(os, Was::View, NO_MEMORY), Kept::Lost);
    let os = fake()
        .with(0x4000, PAGE, VIEW)
        .set(|state| state.limit = PAGE);
    assert_eq!(after(os, Was::View, NO_MEMORY), Kept::Unchanged);
    assert_eq!(after(os, Was::Plain, NO_MEMORY), Kept::Lost);
    assert_eq!(
        Kept::Lost.report(NO_MEMORY),
        NO_MEMORY.with_kind(ErrorKind::RangeLost)
    );
}

#[test]
fn a_reservation_in_place_of_a_range_is_what_a_hole_becomes() {
    let here = range(0x4000, PAGE);
    for (fate, expected) in [
        (Fate::IsHole, Ok(())),
        (Fate::IsOthers(PLAIN), Err(ErrorKind::RangeLost)),
        (Fate::Stays, Err(ErrorKind::RangeLost)),
    ] {
        let os = fake().with(0x4000, PAGE, VIEW).failing(NO_MEMORY, fate);
        // SAFETY: no address of this system is one of the process's.
        let done = unsafe { reserve_over(&os, here, Was::View) };
        assert_eq!(done.map_err(Error::kind), expected, "{fate:?}");
    }
    let os = fake()
        .with(0x4000, PAGE, PLAIN)
        .failing(NO_MEMORY, Fate::IsHole);
    // SAFETY: no address of this system is one of the process's.
    let committed = unsafe { commit_over(&os, here, Commit::READ_WRITE) };
    assert_eq!(committed, Err(NO_MEMORY), "and the range is reserved");
    assert_eq!(os.mapped(), [(0x4000, PAGE, PLAIN)]);
}

#[test]
fn places_are_aligned_by_the_system_or_by_slack() {
    let align = 0x10000;
    for aligns in [false, true] {
        let os = fake()
            .with(0x1000, PAGE, PLAIN)
            .set(|state| state.aligns = aligns);
        let got = reserve(&os, &Request::bytes(PAGE).align(align));
        assert_eq!(kind(got), Ok(align));
        assert_eq!(os.mapped().len(), 2, "the slack is gone");
        // Where the slack is too much, places are searched for.
        os.set(|state| state.limit = 3 * PAGE);
        let got = reserve(&os, &Request::bytes(PAGE).align(align));
        assert_eq!(kind(got), Ok(2 * align));
    }
    let os = fake();
    let low = AddressRange::new(0, 2 * END).expect("not empty");
    let got = reserve(&os, &Request::bytes(PAGE).within(low));
    assert!(got.is_ok_and(|range| range.end() <= END));
    let none = AddressRange::new(END, 2 * END).expect("not empty");
    let got = reserve(&os, &Request::bytes(PAGE).within(none));
    assert_eq!(kind(got), Err(ErrorKind::Exhausted));
}

#[test]
fn the_last_address_is_found_above_the_highest_mapping() {
    use core::sync::atomic::{AtomicUsize, Ordering};
    let cached = AtomicUsize::new(0);
    assert_eq!(
        last_mapped_address(&fake(), &cached),
        None,
        "nothing is mapped"
    );
    let os = fake().with(END / 2, PAGE, PLAIN);
    assert_eq!(last_mapped_address(&os, &cached), Some(END - 1));
    os.set(|state| state.shows_map = false);
    assert_eq!(
        last_mapped_address(&os, &cached),
        Some(END - 1),
        "it is known"
    );
    // At its limit a process is refused every place: that is not remembered.
    let (cached, full) = (AtomicUsize::new(0), os.set(|state| state.shows_map = true));
    full.set(|state| state.limit = PAGE);
    assert!(last_mapped_address(&full, &cached).is_some());
    assert_eq!(cached.load(Ordering::Relaxed), 0);
    assert_eq!(address_bits(&os), Some(28));
    assert_eq!(mappable(&os), AddressRange::new(PAGE, END - 1));
}

/// A view of one page that the system maps.
fn view(os: Fake) -> View<impl Fn(At) -> Result<*mut c_void, Error>> {
    let map = move |at| os.0.lock().expect("no test panics").map(PAGE, at, VIEW);
    // SAFETY: it maps a page, and replaces no more than the range given.
    unsafe { View::new(PAGE, PageSize::KIB_4, map) }
}

#[test]
fn a_view_that_fails_leaves_what_was_there() {
    let into = Target::Into(range(0x4000, PAGE));
    let near = Target::Find(Placement::near(0x8_0000, 0x1000));
    // SAFETY: no address of this system is one of the process's.
    let map = |os: Fake, target| unsafe { view(os).map(&os, target) };
    let os = fake().with(0x4000, PAGE, PLAIN);
    assert_eq!(map(os, into).map(PageRange::addr), Ok(0x4000));
    assert_eq!(map(os, near).map(PageRange::addr), Ok(0x8_0000));
    assert_eq!(os.mapped(), [(0x4000, PAGE, VIEW), (0x8_0000, PAGE, VIEW)]);
    // A place that was found is given back, unless it is another's.
    for (fate, left) in [(Fate::IsHole, 0), (Fate::IsOthers(PLAIN), 1)] {
        let os = fake().failing(NO_MEMORY, fate);
        let failure = map(os, near).expect_err("it fails");
        assert_eq!((failure.lost, os.mapped().len()), (None, left));
        let os = fake().with(0x4000, PAGE, PLAIN).failing(NO_MEMORY, fate);
        let failure = map(os, into).expect_err("it fails");
        assert_eq!(failure.lost.is_some(), left == 1, "{fate:?}");
        assert_eq!(os.mapped(), [(0x4000, PAGE, PLAIN)]);
    }
    let failure = map(fake(), Target::Into(range(0x4000, 2 * PAGE)));
    let failure = failure.expect_err("the range has another length");
    assert_eq!(failure.error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn what_fails_after_the_first_view_takes_it_back() {
    let (here, there) = (range(0x4000, PAGE), range(0x8000, PAGE));
    let (rw, rx) = (Target::Into(here), Target::Into(there));
    let both = |os: Fake, rw, between: Result<(), Error>| {
        let (one, other) = (view(os), view(os));
        // SAFETY: no address of this system is one of the process's.
        unsafe { map_both(&os, (&one, rw), || between, (&other, rx)) }
    };
    let os = || fake().with(0x4000, PAGE, PLAIN).with(0x8000, PAGE, PLAIN);
    let one = os();
    assert_eq!(both(one, rw, Ok(())), Ok((here, there)));
    assert!(one.mapped().iter().all(|m| m.2 == VIEW));
    let one = os();
    let failure = both(one, rw, Err(DENIED)).expect_err("it fails");
    assert_eq!((failure.error, failure.lost), (DENIED, None));
    assert!(one.mapped().iter().all(|m| m.2 == PLAIN), "reserved again");
    let one = os();
    let failure = both(one, Target::ANYWHERE, Err(DENIED)).expect_err("it fails");
    assert_eq!(
        (failure.lost, one.mapped().len()),
        (None, 2),
        "unmapped again"
    );
    // Both views are taken back where what comes after them fails.
    let one = fake().with(0x4000, PAGE, VIEW).with(0x8000, PAGE, VIEW);
    let request = DualRequest {
        rw,
        rx,
        ..DualRequest::bytes(PAGE)
    };
    one.failing(NO_MEMORY, Fate::IsOthers(PLAIN));
    // SAFETY: no address of this system is one of the process's.
    let failure = unsafe { both_or_neither(&one, (here, there), &request, Err(DENIED)) };
    let failure = failure.expect_err("it fails");
    assert_eq!((failure.error, failure.lost), (DENIED, Some(there)));
    assert!(one.mapped().iter().all(|m| m.2 == PLAIN));
}

fn mapping(fork: Fork) -> DualMapping {
    let (rw, rx) = (range(0x4000, PAGE), range(0x8000, PAGE));
    // SAFETY: no address of this system is one of the process's.
    unsafe { DualMapping::from_parts(rw, rx, DualStep::Provider, PageSize::KIB_4, fork) }
}

#[test]
fn a_view_that_stays_keeps_the_place_of_the_other() {
    let os = || fake().with(0x4000, PAGE, VIEW).with(0x8000, PAGE, VIEW);
    // SAFETY: no address of this system is one of the process's.
    let leave = |os: Fake, leave| unsafe { leave_views(&os, &mapping(Fork::Share), leave) };
    let one = os();
    assert_eq!(leave(one, Leave::Hole), Ok(()));
    assert_eq!(one.mapped(), []);
    let one = os();
    assert_eq!(leave(one, Leave::Reserved), Ok(()));
    assert!(one.mapped().iter().all(|m| m.2 == PLAIN));
    let one = os().set(|state| state.stuck = Some(0x8000));
    assert_eq!(leave(one, Leave::Hole), Err(NO_MEMORY));
    assert_eq!(one.mapped(), [(0x4000, PAGE, PLAIN), (0x8000, PAGE, VIEW)]);
    let one = os().set(|state| state.stuck = Some(0x4000));
    assert_eq!(leave(one, Leave::Hole), Err(NO_MEMORY));
    assert!(
        one.mapped().iter().all(|m| m.2 == VIEW),
        "nothing was changed"
    );
    // A process at its limit cannot keep the place.
    let one = os().set(|state| (state.stuck, state.limit) = (Some(0x8000), PAGE));
    assert_eq!(leave(one, Leave::Hole), Err(ErrorKind::RangeLost.into()));
}

#[test]
fn a_child_reserves_what_it_lost() {
    let os = fake();
    assert_eq!(reserve_lost(&os, &mapping(Fork::Detach)), Ok(()));
    assert_eq!(os.mapped(), [(0x4000, PAGE, PLAIN)]);
    let lost = reserve_lost(&os, &mapping(Fork::ChildLosesBoth));
    assert_eq!(lost, Err(ErrorKind::RangeLost.into()));
    let os = fake();
    assert_eq!(reserve_lost(&os, &mapping(Fork::ChildLosesBoth)), Ok(()));
    assert_eq!(os.mapped().len(), 2);
    assert_eq!(reserve_lost(&os, &mapping(Fork::Share)), Ok(()));
}
