//! Two threads that free one block at once: at most one of them is told that it did, and no other
//! block is harmed.

use crate::system::{OsHeap, heap};
use hostmem::heap::{Hardening, HeapConfig, HeapError};
use std::{
    alloc::Layout,
    ptr::NonNull,
    sync::atomic::{
        AtomicPtr, AtomicUsize,
        Ordering::{Acquire, Release},
    },
    thread,
};

/// Of each kind of block: small ones, those of slabs of one block, large and huge ones.
const SIZES: [usize; 9] = [
    1,
    100,
    3000,
    30_000,
    100_000,
    260_000,
    300_000,
    1 << 20,
    3_000_000,
];

const ROUNDS: usize = 100;

/// How a thread frees a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Heap,
    Handle,
    Sized,
    /// As a signal handler does.
    NotWaiting,
}

fn bytes(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a layout")
}

/// Frees a block.
///
/// # Safety
///
/// This call gives it up, or it was freed.
unsafe fn free(heap: &OsHeap, by: By, block: NonNull<u8>, size: usize) -> Result<(), HeapError> {
    match by {
        // SAFETY: the caller gives up a live block of this heap, or one whose free is refused.
        By::Heap => unsafe { heap.free(block) },
        By::Handle => {
            let local = heap.local().expect("metadata");
            // SAFETY: the caller gives up a live block of this heap, or one whose free is refused.
            unsafe { local.free(block) }
        }
        // SAFETY: the caller gives up a live block of this heap, or one whose free is refused.
        By::Sized => unsafe { heap.free_sized(block, bytes(size)) },
        // SAFETY: the caller gives up a live block of this heap, or one whose free is refused.
        By::NotWaiting => unsafe { heap.try_free(block) },
    }
}

/// Has two threads free each of some blocks at once; tells `check` what they were told of each.
fn race(
    heap: &OsHeap,
    size: usize,
    by: [By; 2],
    check: impl Fn(Result<(), HeapError>, Result<(), HeapError>),
) {
    let shared = AtomicPtr::new(std::ptr::null_mut::<u8>());
    let (round, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut told = Vec::new();
            for now in 1..=ROUNDS {
                while round.load(Acquire) < now {
                    thread::yield_now();
                }
                let block = NonNull::new(shared.load(Acquire)).expect("a block");
                // SAFETY: none: this is the fault, which the heap is to find.
                told.push(unsafe { free(heap, by[1], block, size) });
                done.store(now, Release);
            }
            told
        });
        let mut own = Vec::new();
        for now in 1..=ROUNDS {
            let neighbours = [(); 2].map(|()| heap.alloc(bytes(size)).expect("memory"));
            let block = heap.alloc(bytes(size)).expect("memory");
            for neighbour in neighbours {
                // SAFETY: a live block of this many bytes.
                unsafe { neighbour.write_bytes(0x77, size) };
            }
            shared.store(block.as_ptr(), Release);
            round.store(now, Release);
            // SAFETY: none: as above.
            own.push(unsafe { free(heap, by[0], block, size) });
            while done.load(Acquire) < now {
                thread::yield_now();
            }
            for neighbour in neighbours {
                // SAFETY: a live block of this many bytes, which were written.
                let contents = unsafe { NonNull::slice_from_raw_parts(neighbour, size).as_ref() };
                // Both ends, and some bytes between.
                let some = contents.iter().step_by((size / 500).max(1));
                assert!(
                    some.chain(contents.last()).all(|byte| *byte == 0x77),
                    "{size}"
                );
                // SAFETY: live, and used no more.
                unsafe { heap.free(neighbour) }.expect("no other block is harmed");
            }
        }
        let others = other.join().expect("no panic");
        for (own, other) in own.into_iter().zip(others) {
            check(own, other);
        }
    });
}

const PAIRS: [[By; 2]; 4] = [
    [By::Heap, By::Heap],
    [By::Handle, By::Handle],
    [By::Sized, By::Handle],
    [By::NotWaiting, By::Heap],
];

#[test]
fn of_two_that_free_a_hardened_block_at_once_one_is_refused() {
    for size in SIZES {
        for by in PAIRS {
            let config = HeapConfig::new().hardening(Hardening::Full);
            let heap = heap(config);
            race(&heap, size, by, |one, other| match (one, other) {
                (Ok(()), Err(HeapError::NotLive | HeapError::NotOwned))
                | (Err(HeapError::NotLive | HeapError::NotOwned), Ok(())) => {}
                told => panic!("{size} {by:?}: {told:?}"),
            });
            heap.trim();
            let held = heap.statistics();
            assert_eq!((held.used, held.corrupt_blocks), (0, 0), "{held:?}");
        }
    }
}

/// Of blocks that lie in slabs, both may be told `Ok`, as is documented, if both free them by quick
/// calls; nothing else goes wrong.
#[test]
fn of_two_that_free_a_block_at_once_one_goes_on() {
    for size in SIZES {
        for by in PAIRS {
            let heap = heap(HeapConfig::new());
            let is_quick = by.contains(&By::Handle) && size <= 256 << 10;
            race(&heap, size, by, |one, other| match (one, other) {
                (Ok(()), Ok(())) if is_quick => {}
                (Ok(()), Err(HeapError::NotLive | HeapError::NotOwned))
                | (Err(HeapError::NotLive | HeapError::NotOwned), Ok(())) => {}
                told => panic!("{size} {by:?}: {told:?}"),
            });
            heap.trim();
            let held = heap.statistics();
            assert_eq!(held.used, 0, "{held:?}");
        }
    }
}
