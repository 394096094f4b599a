//! H9: the heap of the process, called by hand, since only on Linux the suite lives in it.

use super::{child, jit::RaiseOnDrop};
use hostmem::GlobalHeap;
use hostmem_conformance::{Outcome, SplitMix64};
use std::{
    alloc::{GlobalAlloc, Layout},
    ptr::NonNull,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
};

const HEAP: GlobalHeap = GlobalHeap::new();

/// Blocks that a thread has at most.
const BLOCKS: usize = 200;

/// A block of the heap, all of it the same byte.
struct Block {
    start: NonNull<u8>,
    layout: Layout,
    byte: u8,
}

// SAFETY: whoever has this has the block, and any thread may free it.
unsafe impl Send for Block {}

impl Block {
    fn new(random: &mut SplitMix64) -> Self {
        let size = match random.below(100) {
            0..90 => 1 + random.below(500),
            90..99 => 1 + random.below(20_000),
            _ => 1 + random.below(600_000),
        };
        let layout = Layout::from_size_align(size, 1 << random.below(8)).expect("a layout");
        let byte = random.below(256).to_le_bytes()[0];
        // SAFETY: it is not empty.
        let start = NonNull::new(unsafe { HEAP.alloc(layout) }).expect("memory");
        assert!(start.addr().get().is_multiple_of(layout.align()));
        // SAFETY: a live block of this many bytes, and no other code's.
        unsafe { start.write_bytes(byte, size) };
        Self {
            start,
            layout,
            byte,
        }
    }

    /// Gives it another size.
    fn resize(&mut self, size: usize) {
        let (old, kept) = (self.start.as_ptr(), size.min(self.layout.size()));
        // SAFETY: a live block of this layout; the size is not zero, and far from overflow.
        let start = unsafe { HEAP.realloc(old, self.layout, size) };
        self.start = NonNull::new(start).expect("memory");
        self.layout = Layout::from_size_align(size, self.layout.align()).expect("a layout");
        self.check(kept);
        // SAFETY: a live block of this many bytes, and no other code's.
        unsafe { self.start.write_bytes(self.byte, size) };
    }

    /// Asserts that the first `len` bytes are what was written.
    fn check(&self, len: usize) {
        // SAFETY: live, all written, and this owner's.
        let bytes = unsafe { NonNull::slice_from_raw_parts(self.start, len).as_ref() };
        assert!(bytes.iter().all(|byte| *byte == self.byte), "it is intact");
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.check(self.layout.size());
        }
        // SAFETY: a live block of this layout, and used no more.
        unsafe { HEAP.dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// What a thread has: in an array, so that a child of a fork needs no other heap.
type Blocks = [Option<Block>; BLOCKS];

/// Fills the empty places, resizes, frees and makes blocks, and leaves some.
fn work(seed: u64, live: &mut Blocks) {
    let mut random = SplitMix64::new(seed);
    for place in live.iter_mut() {
        place.get_or_insert_with(|| Block::new(&mut random));
    }
    for _ in 0..BLOCKS {
        let place = &mut live[random.below(BLOCKS)];
        match (random.below(3), place.as_mut()) {
            (0, Some(block)) => block.resize(1 + random.below(3000)),
            (1, Some(_)) => *place = None,
            _ => *place = Some(Block::new(&mut random)),
        }
    }
    for place in live.iter_mut().step_by(2) {
        *place = None;
    }
}

/// The blocks of a thread that begins.
fn begin(seed: u64) -> Blocks {
    let mut live = [const { None }; BLOCKS];
    work(seed, &mut live);
    live
}

/// Threads in all; as many before the heap is looked at.
const SHORT: u64 = 200;

pub(super) fn threads_that_end_leave_the_process_heap_to_others<P>(_: P) -> Outcome {
    let rounds = || {
        for seed in 0..SHORT {
            let thread = thread::spawn(move || begin(seed));
            drop(thread.join().expect("no thread fails"));
        }
        HEAP.heap().expect("it is open").statistics()
    };
    let (before, after) = (rounds(), rounds());
    // Metadata is had in steps, of which this may be the next. A kibibyte that each thread left
    // would be more.
    let metadata = before.metadata + (128 << 10);
    assert!(after.metadata <= metadata, "{before:?} {after:?}");
    // Where the suite itself lives here, it may have a little more.
    let used = before.used + (64 << 10);
    assert!(after.used <= used, "{before:?} {after:?}");
    Outcome::Passed
}

/// Threads beside the one that forks.
const THREADS: usize = 3;

/// Children, each of which finds all those threads at work.
const FORKS: usize = 30;

pub(super) fn children_of_a_threaded_process_use_its_heap<P>(_: P) -> Outcome {
    let stop = &AtomicBool::new(false);
    let rounds: [AtomicUsize; THREADS] = Default::default();
    thread::scope(|scope| {
        let _stop = RaiseOnDrop(stop);
        for (rounds, seed) in rounds.iter().zip(1..) {
            scope.spawn(move || {
                let _stop = RaiseOnDrop(stop);
                while !stop.load(Relaxed) {
                    drop(begin(seed));
                    rounds.fetch_add(1, Relaxed);
                    // There may be fewer cores than threads, and the forking one is to get on.
                    thread::yield_now();
                }
            });
        }
        let mut kept = begin(0);
        for n in 0..FORKS {
            for rounds in &rounds {
                let before = rounds.load(Relaxed);
                while rounds.load(Relaxed) == before {
                    assert!(!stop.load(Relaxed), "fork {n}: a thread failed");
                    thread::yield_now();
                }
            }
            // What the parent had is the child's too.
            child::check(|| {
                work(n as u64, &mut kept);
                kept.fill_with(|| None);
            });
            work(n as u64, &mut kept);
        }
    });
    super::remark(format_args!("{FORKS} forks, {THREADS} threads"));
    Outcome::Passed
}
