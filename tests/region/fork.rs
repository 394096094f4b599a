//! The region allocator and the range map in forked children of threads that change them. The
//! parent takes no lock for a fork. Every other child comes from a raw `clone`, which runs no
//! handlers, the others from `fork`: they use neither the heap nor locks that another thread may
//! have held.

use crate::{
    common::{
        at_length, emulated, repaired_fork,
        threads::{Stop, await_more},
        wait,
    },
    space::{self, OS, Region},
};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use hostmem::{
    OsLock, OsProvider,
    page::{Access, AddressRange, PageRange, PageSize},
    provider::{Commit, MapFlags, PageProvider, Place, Request},
    range_map::RangeMap,
    region::{PageState, RegionConfig},
};
use hostmem_test_support::isolate::isolated;

type Map = RangeMap<u32, OsProvider, OsLock>;

/// Threads that change what is forked.
const THREADS: usize = 4;

fn forks() -> u32 {
    match (emulated(), at_length()) {
        (true, _) => 20,
        (false, true) => 3000,
        (false, false) => 200,
    }
}

/// Says whether the process map has every page of `space` as the region does, and nothing at pages
/// that were set aside.
fn is_as_mapped(region: &Region, space: PageRange) -> bool {
    space::is_as_mapped(region, space, Some(MapFlags::empty()))
}

/// What a child checks in a region; zero if all is well.
fn child_of_region(region: &Region, space: PageRange, kept: PageRange) -> i32 {
    let page = OS.page_size().bytes();
    // An emulator keeps accounts of its own.
    if !emulated() && !is_as_mapped(region, space) {
        return 1;
    }
    // SAFETY: committed, and the child's own.
    if unsafe { kept.start().read() } != 0x11 || region.query(kept.addr()).is_none() {
        return 2;
    }
    // What the threads were mapping and unmapping, which none of them is here to do.
    // SAFETY: the forking thread was in no call.
    if unsafe { region.free_interrupted() }.is_err() {
        return 9;
    }
    for range in region.ranges(space.addresses()) {
        match range.state {
            PageState::Committed(_) => {}
            PageState::Interrupted => return 10,
            _ => continue,
        }
        let mark: *mut u8 = core::ptr::with_exposed_provenance_mut(range.addresses.start());
        // SAFETY: threads that are not here any more committed it, or this one.
        let mark = unsafe { mark.read() };
        if mark != 0 && u16::from(mark) != range.tag {
            return 3;
        }
    }
    let Ok(mine) = region.map(&Request::bytes(3 * page), Commit::READ_WRITE, 0xee) else {
        return 4;
    };
    // SAFETY: mapped just now.
    if unsafe { mine.start().read() } != 0 {
        return 5;
    }
    // SAFETY: mapped just now.
    unsafe { mine.start().write_bytes(0xee, 3 * page) };
    // SAFETY: the child's own.
    unsafe { kept.start().write_bytes(0xee, page) };
    // Over everything that the threads had.
    // SAFETY: no other code uses it in this process.
    if unsafe { region.unmap(space) }.is_err() || region.statistics().used != 0 {
        return 6;
    }
    let all = Request::bytes(space.len_bytes()).place(Place::Exact(space.addr()));
    if region.map(&all, Commit::READ_WRITE, 0xef) != Ok(space) {
        return 7;
    }
    let whole = region.query(space.end() - 1).map(|range| range.addresses);
    if whole != Some(space.addresses()) || !(emulated() || is_as_mapped(region, space)) {
        return 8;
    }
    0
}

/// Maps, marks, looks and unmaps until it is told to stop, and counts how often it did.
fn churn(region: &Region, tag: u8, stop: &AtomicBool, changes: &AtomicU64) {
    let page = OS.page_size().bytes();
    let mut rounds = 0;
    while !stop.load(Relaxed) {
        let len = (1 + usize::try_from(rounds % 7).expect("few")) * page;
        let mapped = region.map(&Request::bytes(len), Commit::READ_WRITE, tag.into());
        let mapped = mapped.expect("there is room for all");
        // SAFETY: mapped just now.
        assert_eq!(unsafe { mapped.start().read() }, 0, "not fresh");
        // SAFETY: mapped just now.
        unsafe { mapped.start().write_bytes(tag, len) };
        // There are fewer cores than threads, and the forking one is to get on.
        std::thread::yield_now();
        // SAFETY: mapped, and this thread's.
        let bytes = unsafe { core::slice::from_raw_parts(mapped.start().as_ptr(), len) };
        assert!(bytes.iter().all(|b| *b == tag), "a child was here");
        // SAFETY: no other code uses it any more.
        unsafe { region.unmap(mapped) }.expect("it goes");
        reserve_and_change(region, len, tag);
        rounds += 1;
        changes.fetch_add(1, Relaxed);
    }
}

/// Takes pages through all states.
fn reserve_and_change(region: &Region, len: usize, tag: u8) {
    let reserved = region
        .reserve(&Request::bytes(len))
        .expect("there is room for all");
    // SAFETY: reserved just now.
    unsafe { region.commit(reserved, Commit::READ_WRITE) }.expect("memory");
    // SAFETY: committed just now.
    unsafe { region.protect(reserved, Access::Read) }.expect("memory");
    // SAFETY: no other code uses it.
    unsafe { region.decommit(reserved) }.expect("it goes");
    // SAFETY: no other code uses it.
    unsafe { region.map_over(reserved, Commit::READ_WRITE, tag.into()) }.expect("memory");
    // SAFETY: no other code uses it any more.
    unsafe { region.unmap(reserved) }.expect("it goes");
}

#[test]
fn children_of_mapping_threads_have_regions_of_their_own() {
    isolated!(
        "children_of_mapping_threads_have_regions_of_their_own",
        || {
            let region = &Region::on(OS, OS, RegionConfig::new()).expect("metadata");
            let page = OS.page_size().bytes();
            let space = OS.reserve(&Request::bytes(128 * page)).expect("addresses");
            // SAFETY: reserved just now, and the region's until the end.
            unsafe { region.adopt(space) }.expect("fresh addresses");
            let kept = region.map(&Request::bytes(page), Commit::READ_WRITE, 0x11);
            let kept = kept.expect("a page");
            // SAFETY: mapped just now.
            unsafe { kept.start().write_bytes(0x11, page) };
            let (stop, changes) = (&AtomicBool::new(false), &AtomicU64::new(0));
            std::thread::scope(|scope| {
                let _stop = Stop(stop);
                for tag in (0x21..).take(THREADS) {
                    scope.spawn(move || churn(region, tag, stop, changes));
                }
                let mut seen = 0;
                for n in 0..forks() {
                    seen = await_more(changes, seen);
                    let child = repaired_fork(&[region], n % 2 == 0, || {
                        if n % 8 != 0 {
                            return child_of_region(region, space, kept);
                        }
                        // Of the second generation.
                        let child = || child_of_region(region, space, kept);
                        wait(repaired_fork(&[region], true, child))
                    });
                    // At once, while the child is at work.
                    let mine = region.map(&Request::bytes(page), Commit::READ_WRITE, 1);
                    let mine = mine.expect("there is room for all");
                    assert_eq!(wait(child), 0, "fork {n}");
                    // SAFETY: mapped above.
                    assert_eq!(unsafe { mine.start().read() }, 0, "fork {n}");
                    // SAFETY: no other code uses it.
                    unsafe { region.unmap(mine) }.expect("it goes");
                    // SAFETY: mapped above.
                    assert_eq!(unsafe { kept.start().read() }, 0x11, "fork {n}");
                }
            });
            assert_eq!(region.statistics().used, page);
            assert!(emulated() || is_as_mapped(region, space));
            // SAFETY: no other code uses it.
            unsafe { region.unmap(space) }.expect("it goes");
        },
    );
}

/// Pages of a neighbourhood that a thread has in the map.
const SLOTS: usize = 400;

fn pages(first: usize, count: usize) -> AddressRange {
    AddressRange::from_len(first << 12, count << 12).expect("in the address space")
}

/// What a child checks in a map; zero if all is well.
fn child_of_map(map: &Map, rounds: &[AtomicU64; THREADS]) -> i32 {
    if map.query(0x1000) != Some((pages(1, 2), 77)) {
        return 1;
    }
    // What the threads had is whole: of two changes in a row the second one may be missing.
    for (n, rounds) in rounds.iter().enumerate() {
        let at = (n + 1) * SLOTS;
        let have = rounds.load(Relaxed);
        let ranges = map.ranges(pages(at, SLOTS)).count() as u64;
        let all = map.ranges(pages(at, SLOTS)).all(|(range, value)| {
            range.last() - range.start() == 0x1fff && value as usize == n + 100
        });
        if !all || ranges.abs_diff(have) > 1 {
            return 2;
        }
    }
    let (before, held) = (map.statistics(), map.ranges(AddressRange::ALL).count());
    if before.ranges != held {
        return 3;
    }
    for n in 0..20 {
        if map.insert(pages(10 * SLOTS + 3 * n, 1), 1) != Ok(0) {
            return 4;
        }
    }
    if map.remove(map.bounds()) != Ok(before.pages + 20) || map.next_from(0).is_some() {
        return 5;
    }
    if map.insert_new(map.bounds(), 9).is_err() || map.statistics().ranges != 1 {
        return 6;
    }
    0
}

#[test]
fn children_of_threads_that_change_a_map_have_maps_of_their_own() {
    isolated!(
        "children_of_threads_that_change_a_map_have_maps_of_their_own",
        || {
            let map = Map::on(OS, AddressRange::LOW_4G, PageSize::KIB_4, 16 << 20);
            let map = &map.expect("metadata");
            map.insert_new(pages(1, 2), 77).expect("free");
            let stop = &AtomicBool::new(false);
            // Ranges that each thread has in the map, give or take the one that it is at.
            let have = &[const { AtomicU64::new(0) }; THREADS];
            let changes = &AtomicU64::new(0);
            std::thread::scope(|scope| {
                let _stop = Stop(stop);
                for (n, have) in have.iter().enumerate() {
                    scope.spawn(move || {
                        let value = u32::try_from(n + 100).expect("few");
                        let mut round = 0;
                        while !stop.load(Relaxed) {
                            let slot = round * 7919 % (SLOTS / 4);
                            let range = pages((n + 1) * SLOTS + 4 * slot, 2);
                            if map.query(range.start()).is_none() {
                                map.insert_new(range, value).expect("this thread's");
                                have.fetch_add(1, Relaxed);
                            } else {
                                assert_eq!(map.remove(range), Ok(2));
                                have.fetch_sub(1, Relaxed);
                            }
                            round += 1;
                            changes.fetch_add(1, Relaxed);
                            std::thread::yield_now();
                        }
                    });
                }
                let mut seen = 0;
                for n in 0..forks() {
                    seen = await_more(changes, seen);
                    let child = repaired_fork(&[map], n % 2 == 0, || child_of_map(map, have));
                    let mine = pages(100 * SLOTS, 1);
                    map.insert_new(mine, n).expect("free");
                    assert_eq!(wait(child), 0, "fork {n}");
                    assert_eq!(map.query(mine.start()), Some((mine, n)));
                    assert_eq!(map.remove(mine), Ok(1));
                    assert_eq!(map.query(0x2000), Some((pages(1, 2), 77)));
                }
            });
            let left: u64 = have.iter().map(|n| n.load(Relaxed)).sum();
            let ranges = map.statistics().ranges;
            assert_eq!(ranges as u64, left + 1);
            assert_eq!(map.remove(map.bounds()), Ok(2 * ranges));
        },
    );
}
