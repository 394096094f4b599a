//! Range maps, and readers without a lock.

use hostmem_core::{
    page::{AddressRange, PageSize},
    provider::Capabilities,
    range_map::RangeMap,
};
use hostmem_miri::{Host, Random};
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

const BOUNDS: usize = 1 << 24;

fn pages(first: usize, count: usize) -> AddressRange {
    AddressRange::from_len(first * 4096, count * 4096).expect("not empty")
}

fn range_map(host: &Host) -> RangeMap<u32, &Host> {
    let bounds = AddressRange::new(0, BOUNDS - 1).expect("not empty");
    RangeMap::on(host, bounds, PageSize::KIB_4, 256 << 10).expect("metadata")
}

#[test]
fn a_range_map() {
    let host = Host::new(Capabilities::empty());
    let map = range_map(&host);
    let mut model = vec![None; BOUNDS / 4096];
    let mut random = Random(5);
    for n in 0..150 {
        let (first, count) = (random.below(4000), 1 + random.below(30));
        let range = pages(first, count);
        let of_model = &mut model[first..first + count];
        match random.below(4) {
            0 | 1 => {
                map.insert(range, n % 5).expect("metadata");
                of_model.fill(Some(n % 5));
            }
            2 => {
                map.remove(range).expect("metadata");
                of_model.fill(None);
            }
            _ => {
                map.update(range, |value| value + 1).expect("metadata");
                of_model.iter_mut().flatten().for_each(|value| *value += 1);
            }
        }
        let page = random.below(model.len());
        let found = map.query(page * 4096 + 5).map(|(_, value)| value);
        assert_eq!(found, model[page]);
    }
}

#[test]
fn a_range_map_that_changes_while_it_is_read() {
    let host = Host::new(Capabilities::empty());
    let map = range_map(&host);
    let (map, is_done) = (&map, &AtomicBool::new(false));
    for n in 0..40_u32 {
        map.insert(pages(n as usize * 100, 3), n).expect("metadata");
    }
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut random = Random(9);
            for n in 0..40 {
                let first = random.below(40) * 100;
                if n % 2 == 0 {
                    map.remove(pages(first, 50)).expect("metadata");
                } else {
                    let range = pages(first + 3, 1 + random.below(20));
                    map.insert(range, 1000 + n).expect("metadata");
                    map.update(pages(first, 50), |value| value)
                        .expect("metadata");
                }
            }
            is_done.store(true, Relaxed);
        });
        scope.spawn(move || {
            let mut random = Random(3);
            let mut reads = 0;
            while !is_done.load(Relaxed) || reads < 10 {
                let addr = random.below(4000) * 4096;
                if let Some((range, _)) = map.query(addr) {
                    assert!(range.contains(addr));
                }
                if let Some((range, _)) = map.next_from(addr) {
                    assert!(range.last() >= addr);
                }
                reads += 1;
            }
        });
    });
}
