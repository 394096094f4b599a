//! H1: threads allocate, and half of what they free others have allocated.

use hostmem::OsLock;
use hostmem_conformance::{Outcome, SplitMix64};
use hostmem_core::{
    heap::{Heap, HeapConfig, Level, LocalHeap},
    provider::{PageProvider, Provider},
};
use std::{
    alloc::Layout,
    mem,
    ptr::NonNull,
    sync::{Mutex, PoisonError},
    thread,
};

/// Calls of a case, of all threads together.
const STEPS: usize = 160_000;

/// Blocks that a thread has at most, so that every host has room for all.
const MOST: usize = 300;

type Local<'a, P> = LocalHeap<'a, P, P, OsLock>;

/// A block, and what is in it.
struct Block {
    start: NonNull<u8>,
    layout: Layout,
    pattern: u8,
}

// SAFETY: whoever has this has the block.
unsafe impl Send for Block {}

impl Block {
    fn new(start: NonNull<u8>, layout: Layout, pattern: u8) -> Self {
        let addr = start.addr().get();
        assert!(addr.is_multiple_of(layout.align()), "{start:?} {layout:?}");
        // SAFETY: a live block of this many bytes, which no other code has.
        unsafe { start.write_bytes(pattern, layout.size()) };
        Self {
            start,
            layout,
            pattern,
        }
    }

    /// Asserts that the first `len` bytes are what was written.
    fn check(&self, len: usize) {
        // SAFETY: live, all written, and this thread's.
        let bytes = unsafe { NonNull::slice_from_raw_parts(self.start, len).as_ref() };
        let wrong = bytes.iter().position(|byte| *byte != self.pattern);
        assert_eq!(wrong, None, "{:?} {:?}", self.start, self.layout);
    }
}

/// Blocks on their way to another thread.
type Exchange = Mutex<Vec<Block>>;

fn layout(random: &mut SplitMix64) -> Layout {
    let size = match random.below(1000) {
        0..800 => random.below(400),
        800..970 => random.below(6000),
        970..998 => random.below(60_000),
        _ => random.below(600_000),
    };
    let align = match random.below(8) {
        0 => 1 << random.below(13),
        _ => 8,
    };
    Layout::from_size_align(size, align).expect("a layout")
}

fn free<P: PageProvider + Copy>(local: &Local<'_, P>, block: &Block) {
    block.check(block.layout.size());
    let found = local.heap().block_of(block.start.addr().get());
    let found = found.expect("a live block");
    assert_eq!(found.addr, block.start.addr().get());
    assert!(found.len >= block.layout.size());
    // SAFETY: live, and used no more.
    unsafe { local.free_sized(block.start, block.layout) }.expect("a live block");
}

/// What a thread does.
fn work<P: PageProvider + Copy>(
    heap: &Heap<P, P, OsLock>,
    exchange: &Exchange,
    seed: u64,
    steps: usize,
) {
    let mut random = SplitMix64::new(seed);
    let mut local = heap.local().expect("metadata");
    let mut own: Vec<Block> = Vec::new();
    for step in 0..steps {
        let pattern = random.below(256).to_le_bytes()[0];
        match random.below(100) {
            0..45 if own.len() < MOST => {
                let layout = layout(&mut random);
                let block = match random.below(8) {
                    0 => heap.alloc(layout),
                    1 => local.alloc_zeroed(layout),
                    _ => local.alloc(layout),
                };
                own.push(Block::new(block.expect("memory"), layout, pattern));
            }
            45..50 if !own.is_empty() => {
                let n = random.below(own.len());
                let old = own.swap_remove(n);
                old.check(old.layout.size());
                let size = random.below(5000);
                // SAFETY: a live block of this layout, which is this thread's.
                let moved = unsafe { local.realloc(old.start, old.layout, size) };
                let start = moved.expect("memory");
                let layout = Layout::from_size_align(size, old.layout.align());
                let kept = Block { start, ..old };
                kept.check(size.min(kept.layout.size()));
                own.push(Block::new(start, layout.expect("a layout"), pattern));
            }
            50..52 => {
                // Half of what is there, for as much of others: many at once, since the lock of the
                // exchange is not what is tested.
                let mut others = exchange.lock().unwrap_or_else(PoisonError::into_inner);
                let kept = own.len() / 2;
                let given = own.split_off(kept);
                let wanted = others.len().saturating_sub(given.len());
                let taken = others.split_off(wanted);
                others.extend(given);
                own.extend(taken);
            }
            52 if step % 40 == 0 => local = heap.local().expect("metadata"),
            53 if step % 100 == 0 => heap.collect(Level::Deep),
            54 if step % 10 == 0 => local.tick(step as u64),
            _ if !own.is_empty() => {
                let n = random.below(own.len());
                free(&local, &own.swap_remove(n));
            }
            _ => {}
        }
    }
    exchange
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .extend(own);
}

/// Has threads make `steps` calls, all together, of a heap; then frees what is left.
pub(crate) fn exchange<P: Provider + Copy>(p: P, threads: usize, steps: usize) {
    let config = HeapConfig::new().metadata(64 << 20).shards(2);
    let heap = Heap::<P, P, OsLock>::on(p, p, config).expect("metadata");
    let between = Exchange::default();
    thread::scope(|scope| {
        for seed in 0..threads {
            let (heap, between) = (&heap, &between);
            scope.spawn(move || work(heap, between, seed as u64 + 1, steps / threads));
        }
    });
    let local = heap.local().expect("metadata");
    for block in mem::take(&mut *between.lock().expect("no thread panicked")) {
        free(&local, &block);
    }
    drop(local);
    let held = heap.statistics();
    assert_eq!((held.used, held.cached), (0, 0), "{held:?}");
    heap.trim();
    let held = heap.statistics();
    assert_eq!((held.reserved, held.committed), (0, 0), "{held:?}");
}

pub(super) fn threads_free_each_others_blocks<P: Provider + Copy>(p: P) -> Outcome {
    for threads in [1, 2, 4, 8] {
        exchange(p, threads, STEPS / 4);
    }
    Outcome::Passed
}
