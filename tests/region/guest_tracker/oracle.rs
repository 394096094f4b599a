//! The tracker against an array of pages.

use super::{Kind, PAGE, Tracker, pages_of, range};
use crate::common::random::Random;
use hostmem::range_map::GapRequest;
use std::collections::{BTreeMap, BTreeSet};

/// A page, by the oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    resource: usize,
    shared: bool,
    offset: usize,
    prot: u8,
    advised: bool,
}

/// Compares all pages, and what is known beside the map.
fn compare(tracker: &Tracker, oracle: &BTreeMap<usize, Page>, step: usize) {
    let mut pages = oracle.iter();
    let mut counted = BTreeMap::new();
    for (range, kept) in tracker.map.ranges(tracker.map.bounds()) {
        let mapping = tracker.tables.mapping(kept);
        let resource = tracker.tables.resources[mapping.resource].as_ref();
        *counted.entry(kept.mapping).or_insert(0) += pages_of(range);
        for addr in (range.start()..=range.last()).step_by(PAGE) {
            let page = Page {
                resource: mapping.resource,
                shared: resource.is_some_and(|r| matches!(r.kind, Kind::Shared(_))),
                offset: mapping.offset + (addr - mapping.base),
                prot: kept.prot,
                advised: kept.advised,
            };
            assert_eq!(pages.next(), Some((&addr, &page)), "step {step}");
        }
    }
    assert_eq!(pages.next(), None, "step {step}");
    for (id, mapping) in (0..).zip(&tracker.tables.mappings) {
        let pages = mapping.as_ref().map(|mapping| mapping.pages);
        assert_eq!(pages, counted.get(&id).copied(), "step {step}");
    }
    let live: BTreeSet<_> = oracle.values().map(|page| page.resource).collect();
    let known = tracker.tables.resources.iter().enumerate();
    let known: BTreeSet<_> = known.filter(|(_, r)| r.is_some()).map(|(n, _)| n).collect();
    assert_eq!(live, known, "step {step}");
}

#[test]
fn a_guests_mappings_are_tracked_as_an_array_of_pages_says() {
    const BASE: usize = 0x1_0000;
    const PAGES: usize = 400;
    let emulated = std::env::var_os("HOSTMEM_EMULATED").is_some();
    let steps = if emulated { 1000 } else { 40_000 };
    let mut tracker = Tracker::new();
    let mut oracle: BTreeMap<usize, Page> = BTreeMap::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut done = [0; 9];
    for step in 0..steps {
        let (first, count) = (random.below(PAGES - 40), 1 + random.below(40));
        let (base, prot) = (
            BASE + first * PAGE,
            u8::try_from(random.below(8)).expect("few"),
        );
        let at = range(base, count);
        let kind = random.below(9);
        done[kind] += 1;
        match kind {
            // mmap, over whatever is there; shmat.
            0..3 => {
                let (kind, len) = match random.below(4) {
                    0 => (Kind::Anonymous, 0),
                    1 => (Kind::Shared(random.below(3)), 30 * PAGE),
                    _ => (Kind::File(random.below(5)), 0),
                };
                let shared = matches!(kind, Kind::Shared(_));
                let at = if shared { range(base, 30) } else { at };
                let offset = match kind {
                    Kind::File(_) => random.below(100) * PAGE,
                    _ => 0,
                };
                let resource = tracker.tables.resource(kind, len);
                let mapped = tracker.map(at, (resource, offset), prot);
                mapped.expect("there is memory");
                for n in 0..pages_of(at) {
                    let page = Page {
                        resource,
                        shared,
                        offset: offset + n * PAGE,
                        prot,
                        advised: false,
                    };
                    oracle.insert(base + n * PAGE, page);
                }
            }
            3 => {
                tracker.unmap(at).expect("there is memory");
                oracle.retain(|addr, _| !at.contains(*addr));
            }
            4 => {
                tracker.protect(at, prot).expect("there is memory");
                for (_, page) in oracle.range_mut(base..=at.last()) {
                    page.prot = prot;
                }
            }
            5 => {
                let whole = tracker.advise(at).expect("there is memory");
                assert_eq!(whole, oracle.range(base..=at.last()).count() == count);
                for (_, page) in oracle.range_mut(base..=at.last()) {
                    page.advised = true;
                }
            }
            6 => {
                let from = range(base, 1 + random.below(4));
                let to = range(BASE + random.below(PAGES - 40) * PAGE, count);
                if from.intersect(to).is_some() {
                    continue;
                }
                let moved = tracker.remap(from, to).expect("there is memory");
                if moved {
                    let page = *oracle.get(&base).expect("it was mapped");
                    oracle.retain(|addr, _| !from.contains(*addr));
                    for n in 0..count {
                        let offset = page.offset + n * PAGE;
                        let addr = to.start() + n * PAGE;
                        oracle.insert(
                            addr,
                            Page {
                                offset,
                                advised: false,
                                ..page
                            },
                        );
                    }
                }
            }
            7 => {
                // Where something was attached, or not.
                let start = match oracle.range(base..).next() {
                    Some((addr, page)) if *addr >= page.offset => addr - page.offset,
                    _ => base,
                };
                let len = tracker.detach(start).expect("there is memory");
                if len > 0 {
                    let resource = oracle.iter().find_map(|(addr, page)| {
                        let known = addr.checked_sub(page.offset) == Some(start);
                        let at = known && page.shared && (start..start + len).contains(addr);
                        at.then_some(page.resource)
                    });
                    let gone = |addr: usize, page: &Page| {
                        let inside = (start..start + len).contains(&addr);
                        let base = addr.checked_sub(page.offset) == Some(start);
                        inside && base && Some(page.resource) == resource
                    };
                    oracle.retain(|addr, page| !gone(*addr, page));
                }
            }
            _ => {
                // Room for the next mapping, and what lies around it.
                let request = GapRequest::bytes(count * PAGE).within(range(BASE, PAGES));
                if let Ok(gap) = tracker.map.find_gap(&request) {
                    assert_eq!(oracle.range(gap.start()..=gap.last()).next(), None);
                    let below = tracker.map.prev(gap.start()).map(|(range, _)| range.last());
                    let last = oracle.range(..gap.start()).next_back();
                    assert_eq!(below, last.map(|(addr, _)| addr + PAGE - 1));
                }
            }
        }
        if step % 16 == 0 || step < 2000 {
            compare(&tracker, &oracle, step);
        }
    }
    compare(&tracker, &oracle, steps);
    assert!(done.iter().all(|count| *count > 10), "{done:?}");
}
