//! Changes that are prepared, told, seen at once, or tried.

use super::{PAGE, from_to, map_of, pages};
use crate::common::is_slowed;
use hostmem::{
    OsProvider,
    page::{AddressRange, PageSize},
    provider::ErrorKind,
    range_map::RangeMap,
    sim::{Calls, Faulty, Policy, Sim},
};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A tracker asks before the host changes something, and notes it afterwards.
#[test]
fn what_was_prepared_is_noted_with_little_memory() {
    for (bounds, whole) in [
        (AddressRange::LOW_4G, pages(0x10_0000, 0x8_0000)),
        (
            from_to(0, 1 << 47),
            AddressRange::from_len(1 << 40, 1 << 40).expect("there"),
        ),
    ] {
        for kib in [16, 64, 256] {
            let new = RangeMap::on(OsProvider::new(), bounds, PageSize::KIB_4, kib << 10);
            let map: RangeMap<u32, _> = new.expect("made");
            map.insert_new(whole, 1).expect("one range");
            let (mut at, mut holes) = (whole.start(), 0);
            // As long as there is memory for eight more.
            while map.prepare(8).is_ok() {
                for _ in 0..8 {
                    let hole = pages(at, 1);
                    assert_eq!(map.remove(hole), Ok(1), "{kib} KiB, {holes} holes");
                    at += 2 * PAGE;
                    holes += 1;
                }
                assert!(at < whole.last(), "there is not so much memory");
            }
            assert!(kib < 256 || holes > 100, "{kib} KiB, {holes} holes");
            let before = map.statistics();
            assert_eq!(
                map.prepare(8).map_err(|e| e.kind()),
                Err(ErrorKind::Exhausted)
            );
            assert_eq!(map.statistics().ranges, before.ranges);
            assert_eq!(map.query(at), map.query(at + PAGE), "nothing changed");
        }
    }
    let map = map_of::<u32>(AddressRange::LOW_4G);
    assert_eq!(map.prepare(0), Ok(()));
    for absurd in [usize::MAX, usize::MAX / 2, 1 << 40] {
        let kind = map.prepare(absurd).map_err(|e| e.kind());
        assert_eq!(kind, Err(ErrorKind::Exhausted));
    }
}

/// The same for a change of many ranges, as `mprotect` of a guest is.
#[test]
fn a_change_of_many_ranges_that_was_prepared_does_not_fail() {
    for bounds in [AddressRange::LOW_4G, from_to(0, 1 << 47)] {
        for kib in [64, 256] {
            let new = RangeMap::on(OsProvider::new(), bounds, PageSize::KIB_4, kib << 10);
            let map: RangeMap<u32, _> = new.expect("made");
            let (start, mut ranges) = (0x10_0000, 0);
            let mut changes = 0;
            loop {
                for _ in 0..20 {
                    let added = map.insert_new(pages(start + 2 * ranges * PAGE, 1), 1);
                    if added.is_err() {
                        break;
                    }
                    ranges += 1;
                }
                let all = pages(start, 2 * ranges);
                if map.prepare_rewrite(all).is_err() {
                    break;
                }
                // All become different, and gaps are filled.
                let mut next = 2;
                let filled = map.rewrite(all, |_, _| {
                    next += 1;
                    Some(next)
                });
                assert_eq!(filled, Ok(ranges), "{kib} KiB, {ranges} ranges");
                changes += 1;
                let odd = |piece: AddressRange| (piece.start() - start) / PAGE % 2 == 1;
                if map.prepare_rewrite(all).is_err() {
                    break;
                }
                let emptied = map.rewrite(all, |piece, _| (!odd(piece)).then_some(1));
                assert_eq!(emptied, Ok(2 * ranges), "{kib} KiB, {ranges} ranges");
                if map.prepare_rewrite(all).is_err() {
                    break;
                }
                assert_eq!(map.update(all, |value| value + 1), Ok(ranges));
            }
            assert!(changes > 1, "{kib} KiB, {ranges} ranges");
        }
    }
    let map = map_of::<u32>(AddressRange::LOW_4G);
    let outside = pages(1 << 40, 1);
    let refused = map.prepare_rewrite(outside).map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::OutsideRange));
}

#[test]
fn what_goes_is_told_piece_by_piece() {
    let map = map_of::<u32>(AddressRange::LOW_4G);
    for (start, count, value) in [(0x1000, 4, 1), (0x5000, 2, 2), (0x9000, 4, 1)] {
        map.insert_new(pages(start, count), value).expect("free");
    }
    let mut told = Vec::new();
    let had = map.insert_with(pages(0x3000, 8), 9, |range, value| {
        told.push((range, value))
    });
    assert_eq!(had, Ok(6));
    let pieces = [
        (pages(0x3000, 2), 1),
        (pages(0x5000, 2), 2),
        (pages(0x9000, 2), 1),
    ];
    assert_eq!(told, pieces);
    told.clear();
    let had = map.remove_with(pages(0x2000, 4), |range, value| told.push((range, value)));
    assert_eq!(had, Ok(4));
    assert_eq!(told, [(pages(0x2000, 1), 1), (pages(0x3000, 3), 9)]);
    let all: Vec<_> = map.ranges(map.bounds()).collect();
    let left = [
        (pages(0x1000, 1), 1),
        (pages(0x6000, 5), 9),
        (pages(0xb000, 2), 1),
    ];
    assert_eq!(all, left);
    // A panic changes nothing.
    let remove = || map.remove_with(pages(0x1000, 16), |_, _| panic!("not now"));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(remove));
    assert!(caught.is_err());
    let change = || {
        map.rewrite(pages(0x1000, 16), |range, _| {
            assert!(range.start() < 0x9000, "not now");
            Some(5)
        })
    };
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(change));
    assert!(caught.is_err());
    assert!(map.ranges(map.bounds()).eq(left));
    let nodes = map.statistics().nodes;
    assert_eq!(nodes, 1, "none is lost");
}

#[test]
fn a_rewrite_fills_changes_and_removes() {
    let map = map_of::<u32>(AddressRange::LOW_4G);
    map.insert_new(pages(0x2000, 2), 1).expect("free");
    map.insert_new(pages(0x6000, 2), 2).expect("free");
    let mut asked = Vec::new();
    let had = map.rewrite(pages(0x1000, 6), |range, value| {
        asked.push((range, value));
        match value {
            None => Some(7),
            Some(1) => None,
            other => other,
        }
    });
    assert_eq!(had, Ok(3));
    let pieces = [
        (pages(0x1000, 1), None),
        (pages(0x2000, 2), Some(1)),
        (pages(0x4000, 2), None),
        (pages(0x6000, 1), Some(2)),
    ];
    assert_eq!(asked, pieces);
    let all: Vec<_> = map.ranges(map.bounds()).collect();
    let left = [
        (pages(0x1000, 1), 7),
        (pages(0x4000, 2), 7),
        (pages(0x6000, 2), 2),
    ];
    assert_eq!(all, left, "what stays is not cut");
    assert_eq!(map.rewrite(pages(0x10_0000, 1), |_, old| old), Ok(0));
    assert_eq!(map.prev(0x6fff), Some((pages(0x6000, 2), 2)));
    assert_eq!(map.prev(0x5_0000), Some((pages(0x6000, 2), 2)));
    assert_eq!(map.prev(0x3fff), Some((pages(0x1000, 1), 7)));
    assert_eq!(map.prev(0xfff), None);
}

/// Two answers of a reader are never of different halves of one change.
#[test]
fn readers_see_a_change_of_many_ranges_at_once() {
    const RANGES: usize = 600;
    let map = map_of::<u32>(AddressRange::LOW_4G);
    let at = |n: usize| pages(0x10_0000 + 3 * n * PAGE, 2);
    // Odd ones have another value, so that they stay apart.
    for n in 0..RANGES {
        map.insert_new(at(n), u32::from(n % 2 == 1)).expect("free");
    }
    let window = AddressRange::new(at(0).start(), at(RANGES - 1).last()).expect("not empty");
    let rounds = if is_slowed() { 20 } else { 300 };
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for ends in [[0, RANGES - 1], [RANGES - 2, 2], [RANGES / 2, 0]] {
            let (map, done) = (&map, &done);
            scope.spawn(move || {
                let value = |n: usize| map.query(at(n).start()).expect("always there").1 / 2;
                while done.load(Relaxed) == 0 {
                    let seen = [value(ends[0]), value(ends[1]), value(ends[0])];
                    assert!(seen.is_sorted(), "{seen:?}");
                }
            });
        }
        for _ in 0..rounds {
            let had = map.update(window, |value| value + 2);
            assert_eq!(had, Ok(2 * RANGES));
        }
        done.store(1, Relaxed);
    });
    assert_eq!(map.statistics().ranges, RANGES);
}

#[test]
fn another_value_where_it_lies_takes_no_memory() {
    let sim = Sim::new(OsProvider::new(), Policy::new(PageSize::KIB_4)).expect("a host");
    let faulty = Faulty::new(&sim);
    let new = RangeMap::on(&faulty, AddressRange::LOW_4G, PageSize::KIB_4, 16 << 10);
    let map: RangeMap<u32, _> = new.expect("made");
    let whole = pages(0x10_0000, 0x8_0000);
    map.insert_new(whole, 1).expect("one range");
    let mut holes = 0;
    while map
        .remove(pages(whole.start() + 2 * holes * PAGE, 1))
        .is_ok()
    {
        holes += 1;
    }
    assert!(holes > 50, "{holes}");
    faulty.only(Calls::all());
    faulty.fail_randomly(1, 1);
    // A whole range, of several.
    let range = pages(whole.start() + PAGE, 1);
    assert_eq!(map.update(range, |_| 5), Ok(1));
    assert_eq!(map.query(range.start()), Some((range, 5)));
}

#[test]
fn writers_that_cannot_wait_try() {
    let map = map_of::<u32>(AddressRange::LOW_4G);
    let range = pages(0x1000, 2);
    assert_eq!(map.try_insert(range, 1), Some(Ok(0)));
    let taken = map
        .try_insert_new(range, 1)
        .map(|done| done.map_err(|e| e.kind()));
    assert_eq!(taken, Some(Err(ErrorKind::Taken)));
    assert_eq!(map.try_update(range, |value| value + 1), Some(Ok(2)));
    // Within a change nothing else begins, and reading goes on.
    let done = map.update(range, |value| {
        assert_eq!(map.try_insert(pages(0x9000, 1), 1), None);
        assert_eq!(map.try_remove(range), None);
        assert_eq!(
            map.try_rewrite(range, |_, _| unreachable!("another change is under way")),
            None
        );
        assert_eq!(map.query(0x1000), Some((range, 2)));
        assert_eq!(map.ranges(map.bounds()).count(), 1);
        value + 1
    });
    assert_eq!(done, Ok(2));
    assert_eq!(map.query(0x1000), Some((range, 3)));
    let one_more = |_, old: Option<u32>| Some(old.unwrap_or(0) + 1);
    assert_eq!(map.try_rewrite(pages(0x1000, 3), one_more), Some(Ok(2)));
    assert_eq!(map.query(0x3000), Some((pages(0x3000, 1), 1)));
    assert_eq!(map.try_remove(pages(0x3000, 1)), Some(Ok(1)));
    let wrong = map
        .try_remove(from_to(1, 2))
        .map(|done| done.map_err(|e| e.kind()));
    assert_eq!(wrong, Some(Err(ErrorKind::InvalidArgument)));
    assert_eq!(map.try_remove(range), Some(Ok(2)));
}
