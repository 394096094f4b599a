//! What a heap says that it holds: addresses, blocks and numbers.

use super::{config, counted, heap, keeps_memory, oracle::Oracle};
use crate::{Outcome, SplitMix64};
use alloc::{collections::BTreeMap, vec::Vec};
use core::{alloc::Layout, ops::ControlFlow, ptr::NonNull};
use hostmem_core::{
    heap::{Heap, HeapRange, HeapStatistics, Level, RangeKind},
    page::AddressRange,
    provider::{PageProvider, Provider},
};

/// Sizes of each kind of block.
const SIZES: [usize; 10] = [
    1, 16, 100, 1000, 5000, 30_000, 100_000, 500_000, 1_500_000, 2_000_001,
];

fn bytes(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a layout")
}

fn len(range: HeapRange) -> usize {
    range.addresses.last() - range.addresses.start() + 1
}

/// Returns all live blocks by address, and how long they are.
fn walked<P: PageProvider + Copy, M: PageProvider + Copy>(
    heap: &Heap<P, M>,
) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    let end = heap.walk(|block| {
        let rises = found
            .last()
            .is_none_or(|(addr, len)| addr + len <= block.addr);
        assert!(rises, "{block:x?} after {:x?}", found.last());
        found.push((block.addr, block.len));
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(end, ControlFlow::Continue(()), "nothing breaks it");
    found
}

/// Asserts that the heap knows of the blocks of the oracle, of no others, and of the addresses of
/// all.
pub(super) fn check<P: PageProvider + Copy, M: PageProvider + Copy>(
    heap: &Heap<P, M>,
    oracle: &Oracle,
    is_hard: bool,
) {
    let held = heap.statistics();
    let ranges: Vec<_> = heap.ranges().collect();
    for pair in ranges.windows(2) {
        let (below, above) = (pair[0].addresses, pair[1].addresses);
        assert!(below.last() < above.start(), "{pair:x?}");
        let between = AddressRange::new(below.last() + 1, above.start() - 1);
        if let Some(between) = below.last().checked_add(1).and(between) {
            let metadata = heap.metadata_ranges();
            let here = metadata.filter(|range| range.addresses.intersect(between).is_some());
            assert_eq!(heap.overlaps(between), here.count() != 0, "{pair:x?}");
        }
    }
    let all: usize = ranges.iter().copied().map(len).sum();
    assert_eq!(all, held.reserved, "{ranges:x?}");
    for range in &ranges {
        let addresses = range.addresses;
        assert!(
            heap.owns(addresses.start()) && heap.owns(addresses.last()),
            "{range:x?}"
        );
    }
    let found = walked(heap);
    assert_eq!(found.len(), oracle.blocks.len(), "as many as live");
    let found: BTreeMap<_, _> = found.into_iter().collect();
    let mut counts = BTreeMap::new();
    for block in &oracle.blocks {
        let addr = block.start.addr().get();
        let bytes = found.get(&addr).copied().expect("a block that lives");
        assert!(
            bytes >= block.layout.size(),
            "{bytes} of {:?}",
            block.layout
        );
        let place = ranges.partition_point(|range| range.addresses.last() < addr);
        let range = AddressRange::from_len(addr, bytes).expect("a block");
        assert!(ranges[place].addresses.contains_range(range), "{range:?}");
        *counts.entry((ranges[place].kind, bytes)).or_default() += 1;
        assert!(heap.overlaps(range), "{range:?}");
    }
    if is_hard {
        let classes = heap.class_statistics().map(|class| class.used);
        let all = classes.sum::<usize>() + held.large_blocks + held.huge_blocks;
        assert_eq!(all, oracle.blocks.len(), "{held:?}");
        assert_eq!(held.corrupt_blocks, 0, "{held:?}");
    } else {
        // What may be used of a block is then all of it.
        numbers(heap, held, counts);
    }
}

/// Asserts that the numbers of a heap are those of that many live blocks of each length, in segments
/// or elsewhere.
fn numbers<P: PageProvider + Copy, M: PageProvider + Copy>(
    heap: &Heap<P, M>,
    held: HeapStatistics,
    mut counts: BTreeMap<(RangeKind, usize), usize>,
) {
    let (mut cached, mut used) = (0, 0);
    for class in heap.class_statistics() {
        let live = counts.remove(&(RangeKind::Segment, class.size));
        assert_eq!(class.used, live.unwrap_or(0), "{class:?}");
        assert!(class.used + class.cached <= class.blocks, "{class:?}");
        assert_eq!(class.slabs == 0, class.blocks == 0, "{class:?}");
        cached += class.cached * class.size;
        used += class.used * class.size;
    }
    let sum = |of: RangeKind| {
        let these = counts.iter().filter(|((kind, _), _)| *kind == of);
        these.fold((0, 0), |(bytes, all), ((_, len), count)| {
            (bytes + len * count, all + count)
        })
    };
    let (large, huge) = (sum(RangeKind::Segment), sum(RangeKind::Huge));
    assert_eq!((held.large, held.large_blocks), large, "{held:?}");
    assert_eq!((held.huge, held.huge_blocks), huge, "{held:?}");
    used += large.0 + huge.0;
    assert_eq!((held.used, held.cached), (used, cached), "{held:?}");
    assert!(held.used <= held.committed, "{held:?}");
    assert!(held.resident <= held.committed, "{held:?}");
    assert!(held.committed <= held.reserved, "{held:?}");
}

pub(super) fn ranges_are_all_that_is_reserved<P: Provider + Copy>(p: P) -> Outcome {
    let (pages, metadata) = (counted(p), counted(p));
    let heap = Heap::<_, _>::on(&pages, &metadata, config()).expect("metadata");
    assert_eq!(heap.ranges().count(), 0, "no block, no address");
    let mut blocks = Vec::new();
    for size in SIZES {
        for _ in 0..3 {
            blocks.push((size, heap.alloc(bytes(size)).expect("memory")));
        }
    }
    let last = blocks.pop().expect("a huge block").1;
    // SAFETY: live, and used no more.
    unsafe { heap.free(last) }.expect("a live block");
    let held = heap.statistics();
    let ranges: Vec<_> = heap.ranges().collect();
    let all: usize = ranges.iter().copied().map(len).sum();
    assert_eq!((all, held.reserved), (pages.counters().reserved.now, all));
    let count = |kind| ranges.iter().filter(|range| range.kind == kind).count();
    assert_eq!(
        (count(RangeKind::Huge), count(RangeKind::Kept)),
        (5, 1),
        "{ranges:x?}"
    );
    // Those that are reserved side by side are still two.
    assert_eq!(count(RangeKind::Segment), held.segments, "{ranges:x?}");
    for (size, block) in &blocks {
        let addr = block.addr().get();
        let around = ranges.iter().find(|range| range.addresses.contains(addr));
        let around = around.expect("every block lies in a range");
        assert!(around.addresses.contains(addr + size - 1), "{around:x?}");
        let end = AddressRange::new(around.addresses.last(), around.addresses.last());
        assert!(
            end.is_some_and(|end| heap.overlaps(end)),
            "what is left over, too"
        );
    }
    let own: Vec<_> = heap.metadata_ranges().collect();
    let all: usize = own.iter().copied().map(len).sum();
    assert_eq!(all, metadata.counters().reserved.now, "{own:x?}");
    let maps = own.iter().filter(|range| range.kind == RangeKind::PageMap);
    assert_eq!(maps.copied().map(len).sum::<usize>(), held.page_map);
    assert!(own.is_sorted_by(|a, b| a.addresses.last() < b.addresses.start()));
    assert!(own.iter().all(|range| heap.overlaps(range.addresses)));
    assert!(heap.overlaps(AddressRange::ALL));
    let local = 0_u8;
    let stack = (&raw const local).addr();
    assert!(!heap.overlaps(AddressRange::new(stack, stack).expect("one address")));
    Outcome::Passed
}

pub(super) fn ranges_may_change_while_they_are_yielded<P: Provider + Copy>(p: P) -> Outcome {
    let heap = heap(p, config());
    let mut random = SplitMix64::new(11);
    let kept: Vec<_> = (0..4)
        .map(|n| heap.alloc(bytes(2_000_000 + n)).expect("memory"))
        .collect();
    let mut others = Vec::new();
    for _ in 0..30 {
        let mut found = Vec::new();
        for range in heap.ranges() {
            if random.below(2) == 0 {
                others.push(
                    heap.alloc(bytes(40_000_000 >> random.below(6)))
                        .expect("memory"),
                );
            } else if let Some(block) = others.pop() {
                // SAFETY: live, and used no more.
                unsafe { heap.free(block) }.expect("a live block");
                heap.trim();
            }
            found.push(range.addresses);
            if found.len() > 1000 {
                // As many as there is room for would be yielded one after the other.
                break;
            }
        }
        assert!(
            found.is_sorted_by(|a, b| a.last() < b.start()),
            "{found:x?}"
        );
        for block in &kept {
            let addr = block.addr().get();
            let there = found.iter().any(|range| range.contains(addr));
            assert!(there || found.len() > 1000, "{addr:#x} in {found:x?}");
        }
        for block in others.drain(..) {
            // SAFETY: live, and used no more.
            unsafe { heap.free(block) }.expect("a live block");
        }
    }
    Outcome::Passed
}

pub(super) fn a_walk_visits_live_blocks_which_it_may_free<P: Provider + Copy>(p: P) -> Outcome {
    let heap = heap(p, config());
    let local = heap.local().expect("metadata");
    assert_eq!(walked(&heap), [], "none is there");
    let mut live = BTreeMap::new();
    for round in 0..40 {
        for size in SIZES.into_iter().filter(|size| *size < 10_000 || round < 2) {
            let block = local.alloc(bytes(size)).expect("memory");
            if round % 3 == 1 {
                // SAFETY: live, and used no more.
                unsafe { local.free(block) }.expect("a live block");
            } else {
                let len = heap.usable_size(block).expect("a live block");
                live.insert(block.addr().get(), (block, len));
            }
        }
    }
    let expected: Vec<_> = live.iter().map(|(addr, (_, len))| (*addr, *len)).collect();
    assert_eq!(walked(&heap), expected);
    let mut first = None;
    let stopped = heap.walk(|block| {
        assert_eq!(first.replace(block.addr), None, "it goes on after a break");
        ControlFlow::Break(7)
    });
    assert_eq!(stopped, ControlFlow::Break(7));
    let _ = heap.walk(|block| {
        let (start, _) = live.remove(&block.addr).expect("a live block, once");
        // SAFETY: live, and used no more.
        unsafe { heap.free(start) }.expect("a live block");
        // What is allocated meanwhile need not be visited, and must not be confused with what was.
        let other = heap.alloc(bytes(block.len)).expect("memory");
        // SAFETY: live, and used no more.
        unsafe { heap.free(other) }.expect("a live block");
        ControlFlow::<()>::Continue(())
    });
    assert!(live.is_empty(), "{} were not visited", live.len());
    assert_eq!(walked(&heap), []);
    Outcome::Passed
}

fn write(block: NonNull<u8>, size: usize) -> NonNull<u8> {
    // SAFETY: a live block of this many bytes.
    unsafe { block.write_bytes(0x5a, size) };
    block
}

pub(super) fn trimming_stops_as_soon_as_little_enough_is_resident<P: Provider + Copy>(
    p: P,
) -> Outcome {
    const GRANULE: usize = 64 << 10;
    if keeps_memory(p) {
        return Outcome::Skipped("the host keeps memory that is purged");
    }
    let heap = heap(p, config());
    let all = |size: usize, count: usize| -> Vec<_> {
        let alloc = |_| write(heap.alloc(bytes(size)).expect("memory"), size);
        (0..count).map(alloc).collect()
    };
    let free = |blocks: Vec<NonNull<u8>>| {
        for block in blocks {
            // SAFETY: live, and used no more.
            unsafe { heap.free(block) }.expect("a live block");
        }
    };
    // Pages between survivors, free granules, and kept blocks of three sizes.
    let mut small = all(3000, 2000);
    let survivors: Vec<_> = small.iter().copied().step_by(100).collect();
    small.retain(|block| !survivors.contains(block));
    free(small);
    free(all(500_000, 10));
    let huge = [2 << 20, 3 << 20, 5 << 20];
    free(huge.iter().flat_map(|size| all(*size, 1)).collect());
    let resident = || heap.statistics().resident;
    let before = resident();
    assert_eq!(heap.trim_to(before), before, "it is little enough");
    // The least of those that are kept which is enough.
    let left = heap.trim_to(before - (2 << 20) - 1);
    assert_eq!((left, resident()), (before - huge[1], left));
    let left = heap.trim_to(left - 1);
    assert_eq!(left, before - huge[1] - huge[0]);
    // The last one, and granules one by one.
    let before = left - huge[2];
    let addresses = heap.statistics().reserved - huge[2];
    let left = heap.trim_to(before - 3 * GRANULE - 1);
    assert_eq!(left, before - 4 * GRANULE);
    assert_eq!(heap.statistics().reserved, addresses, "addresses are kept");
    // All granules, and pages of some slabs.
    let free_granules = heap.statistics();
    let least = free_granules.slabs;
    let left = heap.trim_to(least);
    assert!(left <= least && left + GRANULE > least, "{left} of {least}");
    let page = p.page_size().bytes();
    if page < GRANULE {
        let left = heap.trim_to(least - page);
        assert!(
            left <= least - page && left + GRANULE > least,
            "{left} of {least}"
        );
    }
    let left = heap.trim_to(0);
    heap.collect(Level::Deep);
    assert_eq!(resident(), left, "nothing more can go");
    assert!(left >= survivors.len() * 3000, "{left} bytes");
    assert!(
        left <= survivors.len() * (page + 3000).next_multiple_of(page).min(GRANULE),
        "{left} bytes"
    );
    free(survivors);
    assert_eq!(heap.trim_to(0), 0, "all is free");
    heap.trim();
    assert_eq!(heap.statistics().reserved, 0);
    Outcome::Passed
}

pub(super) fn what_was_never_handed_out_is_not_resident<P: Provider + Copy>(p: P) -> Outcome {
    let page = p.page_size().bytes();
    for size in [16, 48, 700, 5000, 20_000] {
        let counted = counted(p);
        let heap = Heap::<_, _>::on(&counted, p, config().shards(1)).expect("metadata");
        assert_eq!(heap.statistics().resident, 0);
        let count = (600_000 / size).min(500);
        let blocks: Vec<_> = (1..=count)
            .map(|n| {
                let block = heap.alloc(bytes(size)).expect("memory");
                let held = heap.statistics();
                let stride = heap.usable_size(block).expect("a live block");
                // The page that the next slab begins in, and what no block of a slab has.
                let slack = page + held.slabs / 16;
                let least = n * stride;
                assert!(
                    (least..=least + slack).contains(&held.resident),
                    "{size}: {n} {held:?}"
                );
                assert_eq!(held.committed, counted.counters().committed.now);
                block
            })
            .collect();
        let before = heap.statistics();
        for block in blocks {
            // SAFETY: live, and used no more.
            unsafe { heap.free(block) }.expect("a live block");
        }
        heap.collect(Level::Deep);
        let held = heap.statistics();
        assert_eq!((held.resident, held.committed), (0, 0), "{held:?}");
        let calls = held.calls;
        assert_eq!(calls.reserve, calls.release, "{held:?}");
        assert!(
            calls.commit >= before.segments && calls.reserve == before.segments,
            "{held:?}"
        );
        let all = calls.reserve + calls.commit + calls.purge + calls.decommit + calls.release;
        assert_eq!(all as u64, counted.calls(), "{held:?}");
    }
    Outcome::Passed
}
