//! Heaps that are closed, or whose process is forked, within a call of them.

use super::{Meeting, OS, check_closed, close, exercise, own_number};
use crate::common::{bare_fork, exit, wait};
use core::{
    ptr::NonNull,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};
use hostmem::{
    OsLock, OsProvider,
    heap::{
        DETACHED, GlobalHeap, Heap, HeapConfig, HeapError, HeapOf, SlotTable, State, StaticHeap,
        ThreadSlot,
    },
};
use hostmem_test_support::isolate::isolated;
use std::thread;

hostmem::std_slot! {
    struct InnerSlot;
}

static_heap!(Inner, InnerSlot, {
    note_inner();
    Heap::on(
        OS,
        OS,
        HeapConfig::new().clock(|| {
            note_inner();
            Some(1)
        }),
    )
});

static TRIED: AtomicUsize = AtomicUsize::new(0);
static REFUSED: AtomicUsize = AtomicUsize::new(0);

/// Tries to close a heap within a call of it, as a signal handler may.
fn note_inner() {
    TRIED.fetch_add(1, Relaxed);
    if close::<Inner>() == Err(HeapError::Busy) {
        REFUSED.fetch_add(1, Relaxed);
    }
}

#[test]
fn a_heap_is_not_closed_within_a_call() {
    isolated!("a_heap_is_not_closed_within_a_call", || {
        exercise::<Inner>();
        GlobalHeap::<Inner>::new().detach();
        exercise::<Inner>();
        let tried = TRIED.load(Relaxed);
        assert!(tried > 2, "the clock is read in calls");
        assert_eq!(REFUSED.load(Relaxed), tried);
        assert_eq!(close::<Inner>(), Ok(()));
    });
}

table_slot!(ForkedSlot, FORKED, FORKED.place(own_number()));

static_heap!(
    Forked,
    ForkedSlot,
    Heap::on(OS, OS, HeapConfig::new().clock(fork_once))
);

/// Whether the next look at the clock forks, and whether this process is the child.
static FORKS: AtomicBool = AtomicBool::new(false);
static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// Forks within a call, as a signal handler does that interrupts it.
#[expect(clippy::unnecessary_wraps, reason = "it is a clock")]
fn fork_once() -> Option<u64> {
    if FORKS.swap(false, Relaxed) {
        let child = bare_fork();
        IS_CHILD.store(child == 0, Relaxed);
        if child != 0 {
            assert_eq!(wait(child), 0);
        }
    }
    Some(1)
}

/// What was a thread's in the parent is no slot in the child.
#[test]
fn a_child_of_a_call_leaves_slots_of_the_parent_alone() {
    isolated!("a_child_of_a_call_leaves_slots_of_the_parent_alone", || {
        let heap = GlobalHeap::<Forked>::new();
        exercise::<Forked>();
        let step = Meeting::new();
        let number = AtomicUsize::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                exercise::<Forked>();
                number.store(own_number(), Relaxed);
                step.wait();
                step.wait();
                check_closed::<Forked>(NonNull::from(&0_u8));
            });
            step.wait();
            let number = number.load(Relaxed);
            assert_ne!(FORKED.get(number), DETACHED);
            FORKS.store(true, Relaxed);
            exercise::<Forked>();
            assert!(!FORKS.load(Relaxed), "a call read the clock");
            let block = heap.alloc_bytes(64).expect("memory");
            assert_eq!(close::<Forked>(), Ok(()));
            check_closed::<Forked>(block);
            if IS_CHILD.load(Relaxed) {
                exit(i32::from(FORKED.get(number) == DETACHED));
            }
            assert_eq!(FORKED.get(number), DETACHED);
            step.wait();
        });
    });
}
