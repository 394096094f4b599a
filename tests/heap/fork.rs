//! H7: heaps around forks, while eight threads allocate in a high and in a low one. The children
//! come from a raw `clone`, which runs no handlers: they use those two heaps, and no other
//! memory that another thread may have guarded by a lock.

use crate::{
    common::{
        at_length, emulated,
        random::Random,
        repaired_fork,
        signals::tick_every,
        threads::{Stop, await_more},
        wait,
    },
    system::{OS, OsHeap, OsLocal, bytes, heap, heap_on},
};
use core::{
    alloc::Layout,
    ptr::NonNull,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};
use hostmem::{
    OsProvider,
    fork::ForkChild,
    heap::{HeapConfig, Level},
    page::AddressRange,
    provider::{PageProvider, Within},
};
use hostmem_test_support::isolate::isolated;
use std::thread;

/// Threads that allocate.
const THREADS: u64 = 8;

type Low = Within<OsProvider>;

/// Where the low heap may lie: an emulator keeps low addresses for itself.
fn low_addresses() -> AddressRange {
    if emulated() {
        AddressRange::ALL
    } else {
        AddressRange::LOW_4G
    }
}

/// A layout of all kinds of blocks, mostly small ones.
fn layout(random: &mut Random) -> Layout {
    let number = random.below(1 << 24);
    let size = match number % 1000 {
        0..900 => number / 1000 % 700,
        900..980 => number / 100 % 9000,
        980..999 => number / 10 % 200_000,
        _ => number % 1_500_000,
    };
    bytes(size)
}

/// Writes both ends of a block.
fn mark(block: NonNull<u8>, layout: Layout, byte: u8) {
    for at in [0, layout.size().saturating_sub(1)] {
        if at < layout.size() {
            // SAFETY: within the block, which is live and this thread's.
            let place = unsafe { block.add(at) };
            // SAFETY: within the block, which is live and this thread's.
            unsafe { place.write(byte) };
        }
    }
}

/// Says whether both ends are as they were marked.
fn is_marked(block: NonNull<u8>, layout: Layout, byte: u8) -> bool {
    [0, layout.size().saturating_sub(1)].into_iter().all(|at| {
        at >= layout.size() || {
            // SAFETY: within the block, which is live and this thread's.
            let place = unsafe { block.add(at) };
            // SAFETY: within the block, which is live and this thread's, and written by `mark`.
            let found = unsafe { place.read() };
            found == byte
        }
    })
}

/// Blocks of one heap that a thread has, the oldest of which goes first.
struct Churn<'a, P: PageProvider + Copy> {
    local: OsLocal<'a, P>,
    blocks: Vec<(NonNull<u8>, Layout)>,
    random: Random,
}

impl<'a, P: PageProvider + Copy> Churn<'a, P> {
    fn new(heap: &'a OsHeap<P>, seed: u64) -> Self {
        Self {
            local: heap.local().expect("metadata"),
            blocks: Vec::with_capacity(64),
            random: Random(seed),
        }
    }

    /// Allocates a block, and frees one if there are many.
    fn step(&mut self, n: u64) {
        let byte = self.random.0.to_le_bytes()[0];
        let layout = layout(&mut self.random);
        let block = self.local.alloc(layout).expect("memory");
        mark(block, layout, n.to_le_bytes()[0] ^ byte);
        assert!(is_marked(block, layout, n.to_le_bytes()[0] ^ byte));
        self.blocks.push((block, layout));
        if self.blocks.len() == self.blocks.capacity() {
            for (block, _) in self.blocks.drain(..) {
                // SAFETY: live, and used no more.
                unsafe { self.local.free(block) }.expect("a live block");
            }
            self.local.heap().collect(Level::Free);
        }
    }
}

/// What a child does in a heap; zero if all is well.
fn use_heap<P: PageProvider + Copy>(local: &OsLocal<'_, P>, kept: NonNull<u8>, seed: u64) -> i32 {
    let heap = local.heap();
    let start = kept.addr().get();
    let found = heap.block_of(start + 100);
    if !heap.owns(start) || found.is_none_or(|found| found.addr != start) {
        return 1;
    }
    if !is_marked(kept, KEPT, 0x3c) {
        return 2;
    }
    let mut random = Random(seed + 1);
    for n in 0..100_u8 {
        let layout = layout(&mut random);
        let got = match n % 3 {
            0 => heap.alloc(layout),
            _ => local.alloc(layout),
        };
        let Ok(block) = got else {
            return 3;
        };
        mark(block, layout, n);
        let start = block.addr().get();
        let found = heap.block_of(start);
        if !is_marked(block, layout, n) || found.is_none_or(|found| found.addr != start) {
            return 4;
        }
        // SAFETY: live, and used no more.
        if unsafe { local.free(block) }.is_err() || heap.block_of(start).is_some() {
            return 5;
        }
    }
    // The parent's, of which this is a copy.
    // SAFETY: live, and used no more.
    if unsafe { heap.free(kept) }.is_err() {
        return 6;
    }
    heap.collect(Level::Free);
    0
}

/// Kills this process once it has used a second of processor time. Whoever waits for a lock that no
/// thread holds yields again and again.
fn die_after_a_second() {
    if !tick_every(1_000_000) {
        crate::common::exit(98);
    }
}

/// The block that every child finds.
const KEPT: Layout = Layout::new::<[u64; 50]>();

fn keep<P: PageProvider + Copy>(local: &OsLocal<'_, P>) -> NonNull<u8> {
    let kept = local.alloc(KEPT).expect("memory");
    mark(kept, KEPT, 0x3c);
    kept
}

#[test]
fn children_of_allocating_threads_use_both_heaps() {
    isolated!("children_of_allocating_threads_use_both_heaps", || {
        let forks = match (at_length(), emulated()) {
            (_, true) => 20,
            (true, _) => 10_000,
            _ => 1000,
        };
        let config = HeapConfig::new().shards(2);
        let high = &heap(config);
        let low = Within::new(OS, low_addresses());
        let low: &OsHeap<Low> = &heap_on(low, config);
        let (stop, changes) = (&AtomicBool::new(false), &AtomicU64::new(0));
        thread::scope(|scope| {
            let _stop = Stop(stop);
            for seed in 1..=THREADS {
                scope.spawn(move || {
                    let mut highs = Churn::new(high, seed);
                    let mut lows = Churn::new(low, seed + THREADS);
                    while !stop.load(Relaxed) {
                        let n = changes.fetch_add(1, Relaxed);
                        highs.step(n);
                        lows.step(n);
                        // There are fewer cores than threads, and the forking one is to get on.
                        if n % 16 == 0 {
                            thread::yield_now();
                        }
                    }
                });
            }
            let locals = (high.local(), low.local());
            let (highs, lows) = (locals.0.expect("metadata"), locals.1.expect("metadata"));
            let kept = (keep(&highs), keep(&lows));
            let heaps: [&dyn ForkChild; 2] = [high, low];
            let mut seen = 0;
            for n in 0..forks {
                seen = await_more(changes, seen);
                let child = repaired_fork(&heaps, true, || {
                    die_after_a_second();
                    match use_heap(&highs, kept.0, n) {
                        0 => match use_heap(&lows, kept.1, n) {
                            0 => 0,
                            code => 20 + code,
                        },
                        code => 10 + code,
                    }
                });
                // At once, while the child is at work.
                let block = highs.alloc(KEPT).expect("memory");
                assert_eq!(wait(child), 0, "fork {n}");
                // SAFETY: live, and used no more.
                unsafe { highs.free(block) }.expect("a live block");
                assert!(is_marked(kept.0, KEPT, 0x3c) && is_marked(kept.1, KEPT, 0x3c));
            }
        });
    });
}
