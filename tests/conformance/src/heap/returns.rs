//! Memory that goes back to the host: what is freed, kept, purged and decommitted.

use super::{bytes, config, counted, heap, keeps_memory};
use crate::{Outcome, SplitMix64};
use alloc::{vec, vec::Vec};
use core::{alloc::Layout, ptr::NonNull};
use hostmem_core::{
    heap::{Level, Return},
    provider::Provider,
};

/// Allocates many blocks of all sizes and writes them.
fn fill(
    size: impl Fn(&mut SplitMix64) -> usize,
    mut alloc: impl FnMut(Layout) -> NonNull<u8>,
) -> Vec<NonNull<u8>> {
    let mut random = SplitMix64::new(7);
    let mut left: usize = 12 << 20;
    let mut blocks = vec![];
    while left > 2 << 20 {
        let size = size(&mut random);
        let block = alloc(bytes(size));
        // SAFETY: a live block of this many bytes.
        unsafe { block.write_bytes(1, size) };
        blocks.push(block);
        left -= size;
    }
    blocks
}

fn mixed(random: &mut SplitMix64) -> usize {
    match random.below(100) {
        0..90 => random.between(1, 2000),
        90..99 => random.between(2000, 100_000),
        _ => random.between(100_000, 1_500_000),
    }
}

pub(super) fn all_freed_goes_back_when_trimmed<P: Provider + Copy>(p: P) -> Outcome {
    let counted = counted(p);
    let heap = heap(&counted, config());
    let local = heap.local().expect("metadata");
    let blocks = fill(mixed, |layout| local.alloc(layout).expect("memory"));
    assert!(heap.statistics().committed > 10 << 20);
    for block in blocks {
        // SAFETY: live, and used no more.
        unsafe { local.free(block) }.expect("a live block");
    }
    local.flush();
    heap.trim();
    let held = heap.statistics();
    assert_eq!((held.committed, held.reserved), (0, 0), "{held:?}");
    drop(local);
    drop(heap);
    assert_eq!(counted.counters().reserved.now, 0, "all goes back");
    Outcome::Passed
}

pub(super) fn all_freed_goes_back_after_two_ticks<P: Provider + Copy>(p: P) -> Outcome {
    let heap = heap(p, config().memory_return(Return::After(1000)));
    let local = heap.local().expect("metadata");
    let blocks = fill(mixed, |layout| local.alloc(layout).expect("memory"));
    for block in blocks {
        // SAFETY: live, and used no more.
        unsafe { local.free(block) }.expect("a live block");
    }
    local.flush();
    heap.tick(1000);
    let held = heap.statistics();
    assert!(held.committed > 8 << 20, "free for no time yet: {held:?}");
    heap.tick(1999);
    assert_eq!(heap.statistics(), held, "a second has not passed");
    heap.tick(2000);
    let held = heap.statistics();
    assert_eq!(held.committed, held.refused, "{held:?}");
    assert_eq!(held.refused != 0, keeps_memory(p), "{held:?}");
    Outcome::Passed
}

pub(super) fn ticks_of_a_handle_release_what_it_cached<P: Provider + Copy>(p: P) -> Outcome {
    let heap = heap(p, config());
    let local = heap.local().expect("metadata");
    let blocks = fill(mixed, |layout| local.alloc(layout).expect("memory"));
    for block in blocks {
        // SAFETY: live, and used no more.
        unsafe { local.free(block) }.expect("a live block");
    }
    assert!(heap.statistics().cached > 0, "some are cached");
    local.tick(1000);
    local.tick(2000);
    let held = heap.statistics();
    assert_eq!((held.cached, held.committed), (0, held.refused), "{held:?}");
    Outcome::Passed
}

/// Whatever the host shows then.
pub(super) fn what_was_purged_reads_zero_when_asked_to<P: Provider + Copy>(p: P) -> Outcome {
    for config in [config(), config().memory_return(Return::Eager)] {
        let heap = heap(p, config);
        for (round, size) in [24, 3000, 20_000, 65_536, 100_000, 700_000, 3_000_000]
            .into_iter()
            .flat_map(|size| [(0, size), (1, size), (2, size)])
        {
            let alloc = |zeroed| {
                let block = if zeroed {
                    heap.alloc_zeroed(bytes(size)).expect("memory")
                } else {
                    heap.alloc(bytes(size)).expect("memory")
                };
                if zeroed {
                    // SAFETY: a live block of this many bytes.
                    let all = unsafe { NonNull::slice_from_raw_parts(block, size).as_ref() };
                    assert!(all.iter().all(|byte| *byte == 0), "{size}: {round}");
                }
                // SAFETY: a live block of this many bytes.
                unsafe { block.write_bytes(0x5a, size) };
                block
            };
            let count = (3 << 20) / size + 2;
            let mut blocks: Vec<_> = (0..count).map(|_| alloc(false)).collect();
            let survivors = blocks.split_off(count - 1);
            // SAFETY: live, and used no more.
            let free = |block| unsafe { heap.free(block) }.expect("a live block");
            blocks.into_iter().for_each(free);
            match round {
                0 => heap.collect(Level::Deep),
                1 => [5000, 10_000].into_iter().for_each(|now| heap.tick(now)),
                _ => {
                    heap.trim_to(0);
                }
            }
            let again: Vec<_> = (0..count).map(|n| alloc(n % 3 != 0)).collect();
            again.into_iter().chain(survivors).for_each(free);
        }
    }
    Outcome::Passed
}

pub(super) fn pages_between_survivors_go_back_and_serve_again<P: Provider + Copy>(p: P) -> Outcome {
    if keeps_memory(p) {
        return Outcome::Skipped("the host keeps memory that is purged");
    }
    let counted = counted(p);
    let heap = heap(&counted, config());
    let local = heap.local().expect("metadata");
    let page = p.page_size().bytes();
    for size in [48, 200, 3000, 12_000] {
        let live = (8 << 20) / size;
        let mut blocks: Vec<_> = (0..live)
            .map(|_| local.alloc(bytes(size)).expect("memory"))
            .collect();
        for block in &blocks {
            // SAFETY: a live block of this many bytes.
            unsafe { block.write_bytes(0x5a, size) };
        }
        // One survives in that many bytes: some in every slab.
        let every = (256 << 10) / size + 1;
        let mut number = 0;
        blocks.retain(|block| {
            number += 1;
            let stays = number % every == 0;
            if !stays {
                // SAFETY: live, and used no more.
                unsafe { local.free(*block) }.expect("a live block");
            }
            stays
        });
        local.flush();
        heap.collect(Level::Deep);
        let held = heap.statistics();
        let most = blocks.len() * (size.next_multiple_of(page) + 2 * page).min(256 << 10);
        assert!(held.committed <= most, "{size}: {most} {held:?}");
        let check = |blocks: &[NonNull<u8>]| {
            for block in blocks {
                // SAFETY: a live block of this many bytes, all written.
                let bytes = unsafe { NonNull::slice_from_raw_parts(*block, size).as_ref() };
                assert!(bytes.iter().all(|byte| *byte == 0x5a), "{size} bytes");
            }
        };
        check(&blocks);
        for n in 0..live {
            let block = if n % 2 == 0 {
                local.alloc(bytes(size))
            } else {
                local.alloc_zeroed(bytes(size))
            };
            let block = block.expect("memory");
            if n % 2 != 0 {
                // SAFETY: a live block of this many bytes, zeroed.
                let all = unsafe { NonNull::slice_from_raw_parts(block, size).as_ref() };
                assert!(all.iter().all(|byte| *byte == 0), "{size} bytes");
            }
            // SAFETY: a live block of this many bytes.
            unsafe { block.write_bytes(0x5a, size) };
            blocks.push(block);
        }
        check(&blocks);
        for block in blocks {
            // SAFETY: live, and used no more.
            unsafe { local.free(block) }.expect("a live block");
        }
        local.flush();
        heap.collect(Level::Deep);
        let held = heap.statistics();
        assert_eq!((held.committed, held.reserved), (0, 0), "{held:?}");
    }
    drop(local);
    drop(heap);
    assert_eq!(counted.counters().reserved.now, 0, "all goes back");
    Outcome::Passed
}

pub(super) fn eager_heaps_keep_no_free_granules<P: Provider + Copy>(p: P) -> Outcome {
    if keeps_memory(p) {
        return Outcome::Skipped("the host keeps memory that is purged");
    }
    let heap = heap(p, config().memory_return(Return::Eager));
    let blocks = fill(mixed, |layout| heap.alloc(layout).expect("memory"));
    for block in blocks {
        // SAFETY: live, and used no more.
        unsafe { heap.free(block) }.expect("a live block");
    }
    let held = heap.statistics();
    assert_eq!(held.committed, 0, "{held:?}");
    Outcome::Passed
}
