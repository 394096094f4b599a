//! Children that are forked within changes of a range map.

use super::{Map, OS, forks};
use crate::common::steps::{Then, at_every_step};
use hostmem::{
    fork::ForkChild,
    page::{AddressRange, PageSize},
    provider::Error,
};
use hostmem_test_support::isolate::isolated;

fn pages(first: usize, count: usize) -> AddressRange {
    AddressRange::from_len(first << 12, count << 12).expect("in the address space")
}

/// What the ranges of a map sum up to.
fn sum(map: &Map, window: AddressRange) -> u64 {
    let hash = |sum: u64, (range, value): (AddressRange, u32)| {
        let word = (range.start() as u64) ^ (range.last() as u64) << 20 ^ u64::from(value) << 50;
        (sum ^ word).wrapping_mul(0x100_0000_01b3)
    };
    map.ranges(window).fold(0, hash)
}

#[test]
fn children_forked_within_a_maps_changes_have_whole_maps() {
    let name = "children_forked_within_a_maps_changes_have_whole_maps";
    isolated!(name, || {
        let map = Map::on(OS, AddressRange::LOW_4G, PageSize::KIB_4, 16 << 20);
        let map = &map.expect("metadata");
        let prepare = || {
            map.remove(map.bounds()).expect("memory");
            // Some leaves, the first of them full.
            for n in 0..400 {
                map.insert(pages(4 * n, 2), 7).expect("memory");
            }
            map.insert(pages(2001, 4), 9).expect("memory");
            map.remove(pages(2002, 1)).expect("memory");
        };
        let (window, mine) = (pages(0, 1 << 18), pages(1 << 19, 1));
        let insert = || map.insert(pages(101, 1), 3).map(drop);
        let split = || map.insert_new(pages(2, 1), 3);
        let many = || map.insert(pages(10, 900), 3).map(drop);
        let remove = || map.remove(pages(40, 2)).map(drop);
        let remove_many = || map.remove(pages(33, 1200)).map(drop);
        let revive = || map.insert_new(pages(2002, 1), 5);
        let update = || map.update(pages(61, 40), |value| value + 1).map(drop);
        let changes: [&dyn Fn() -> Result<(), Error>; 7] = [
            &insert,
            &split,
            &many,
            &remove,
            &remove_many,
            &revive,
            &update,
        ];
        for (n, change) in changes.into_iter().enumerate() {
            prepare();
            let before = sum(map, window);
            change().expect("memory");
            let done = sum(map, window);
            for then in [Then::Ends, Then::Resumes] {
                eprintln!("change {n}, {then:?}");
                let child = || {
                    // SAFETY: the only thread of a child; the provider below has no state.
                    if unsafe { map.fork_child() }.is_err() {
                        return 1;
                    }
                    // An update is seen range by range.
                    let now = sum(map, window);
                    if n != 6 && now != before && now != done {
                        return 2;
                    }
                    let ranges = map.ranges(AddressRange::ALL).count();
                    let covered = map.ranges(AddressRange::ALL);
                    let covered: usize =
                        covered.map(|(r, _)| (r.last() - r.start() + 1) >> 12).sum();
                    let holds = map.statistics();
                    if holds.ranges != ranges || holds.pages != covered {
                        return 3;
                    }
                    if map.insert_new(mine, 1).is_err() || map.insert_new(mine, 1).is_ok() {
                        return 4;
                    }
                    let free: usize = map
                        .gaps(map.bounds())
                        .map(|r| (r.last() - r.start() + 1) >> 12)
                        .sum();
                    if free + covered + 1 != 1 << 20 {
                        return 5;
                    }
                    0
                };
                at_every_step(forks(), then, &prepare, &change, &child, &|result| {
                    i32::from(result.is_err()) << 4 | i32::from(sum(map, window) != done) << 5
                });
            }
        }
    });
}
