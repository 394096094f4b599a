//! Many threads that free each other's blocks.

use super::{Block, OS, Random, layout};
use crate::common::{at_length, is_slowed};
use core::{alloc::Layout, ops::ControlFlow};
use hostmem::{
    OsLock, OsProvider,
    counted::{Counted, Limits},
    heap::{Hardening, Heap, HeapConfig, Level},
    page::AddressRange,
    provider::PageProvider,
};
use std::{collections::HashMap, sync::Mutex, thread};

#[test]
fn threads_free_each_others_blocks_and_every_block_stays_intact() {
    let steps = match (at_length(), is_slowed()) {
        (true, _) => 1_250_000,
        (false, false) => 60_000,
        (false, true) => 2_000,
    };
    many_threads(HeapConfig::new().shards(2), steps);
}

#[test]
fn hardened_blocks_of_threads_stay_intact_and_are_not_found_corrupt() {
    let steps = match (at_length(), is_slowed()) {
        (true, _) => 200_000,
        (false, false) => 6_000,
        (false, true) => 500,
    };
    let config = HeapConfig::new().shards(2).hardening(Hardening::Full);
    many_threads(config, steps);
}

fn many_threads(config: HeapConfig, steps: usize) {
    let counted: Counted<OsProvider, OsLock> =
        Counted::new(OS, "heap", Limits::NONE).expect("a small arena");
    {
        let heap = Heap::<_, _, OsLock>::on(&counted, &counted, config).expect("metadata");
        let shared: Mutex<Vec<Block>> = Mutex::default();
        thread::scope(|scope| {
            for seed in 1..=8 {
                let (heap, shared) = (&heap, &shared);
                scope.spawn(move || run(heap, shared, seed, steps));
            }
        });
        for block in shared.into_inner().expect("no thread panicked") {
            block.check(block.layout.size());
            // SAFETY: live, and used no more.
            unsafe { heap.free(block.start) }.expect("a live block");
        }
        let held = heap.statistics();
        assert_eq!((held.used, held.cached), (0, 0), "{held:?}");
        assert_eq!(held.corrupt_blocks, 0, "{held:?}");
        heap.trim();
        let held = heap.statistics();
        assert_eq!((held.reserved, held.committed), (0, 0), "{held:?}");
    }
    assert_eq!(counted.counters().reserved.now, 0, "all goes back");
}

/// What a thread does: half of what it frees, another one has allocated.
fn run(
    heap: &Heap<&Counted<OsProvider, OsLock>, &Counted<OsProvider, OsLock>, OsLock>,
    shared: &Mutex<Vec<Block>>,
    seed: u64,
    steps: usize,
) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut local = heap.local().expect("metadata");
    let mut own: Vec<Block> = Vec::new();
    for step in 0..steps {
        let pattern = random.below(256).to_le_bytes()[0];
        let layout = layout(&mut random);
        match random.below(100) {
            0..46 if own.len() < 2000 => {
                let block = match random.below(8) {
                    0 => heap.alloc(layout),
                    _ => local.alloc(layout),
                };
                own.push(Block::fill(block.expect("memory"), layout, pattern));
            }
            46..56 if !own.is_empty() => {
                let n = random.below(own.len());
                let block = &mut own[n];
                let size = random.below(6000);
                block.check(block.layout.size());
                // SAFETY: a live block of this layout, which is this thread's.
                let moved = unsafe { local.realloc(block.start, block.layout, size) };
                block.start = moved.expect("memory");
                block.check(size.min(block.layout.size()));
                let layout = Layout::from_size_align(size, block.layout.align());
                *block = Block::fill(block.start, layout.expect("a layout"), pattern);
            }
            56..58 => {
                // Many at once, so that the lock of this test is not what is tested.
                let mut shared = shared.lock().expect("no thread panicked");
                let half = own.len() / 2;
                let theirs = shared.len().min(half);
                let taken: Vec<_> = shared.drain(..theirs).collect();
                shared.extend(own.drain(..half));
                own.extend(taken);
            }
            58 if step % 50 == 0 => {
                drop(local);
                local = heap.local().expect("metadata");
            }
            59 if step % 100 == 0 => local.tick(step as u64),
            60 if step % 500 == 0 => heap.collect(Level::Deep),
            61 if step % 500 == 0 => {
                heap.trim_to(random.below(64 << 20));
            }
            62 if step % 200 == 0 => see_all(heap, &own),
            _ if !own.is_empty() => {
                let n = random.below(own.len());
                let block = own.swap_remove(n);
                block.check(block.layout.size());
                let found = heap.block_of(block.start.addr().get());
                assert!(found.is_some_and(|found| found.len >= block.layout.size()));
                // SAFETY: live, and used no more.
                unsafe { local.free(block.start) }.expect("a live block");
            }
            _ => {}
        }
    }
    shared.lock().expect("no thread panicked").extend(own);
}

/// Asserts that a walk visits each of these blocks once, while others allocate and free, and that
/// they lie in what the heap holds.
fn see_all<P: PageProvider + Copy>(heap: &Heap<P, P, OsLock>, own: &[Block]) {
    let mut seen: HashMap<usize, usize> = HashMap::new();
    let _ = heap.walk(|block| {
        *seen.entry(block.addr).or_default() += 1;
        ControlFlow::<()>::Continue(())
    });
    for block in own {
        let addr = block.start.addr().get();
        assert_eq!(seen.get(&addr), Some(&1), "{addr:#x}");
    }
    let ranges: Vec<_> = heap.ranges().map(|range| range.addresses).collect();
    assert!(
        ranges.is_sorted_by(|a, b| a.last() < b.start()),
        "{ranges:x?}"
    );
    for block in own {
        let addr = block.start.addr().get();
        let place = ranges.partition_point(|range| range.last() < addr);
        assert!(ranges[place].contains(addr), "{addr:#x} in {ranges:x?}");
        let block = AddressRange::new(addr, addr).expect("an address");
        assert!(heap.overlaps(block), "{addr:#x}");
    }
}
