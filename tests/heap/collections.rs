//! Collections of allocator-api2 in heaps.

use crate::system::OS;
use allocator_api2::{
    alloc::{Allocator, Layout},
    boxed::Box,
    vec::Vec,
};
use hostmem::{
    GlobalHeap, OsLock,
    heap::{Heap, HeapConfig},
};

/// Grows and shrinks vectors, and says what an allocator gives is owned where it should be.
fn exercise<A: Allocator + Copy>(allocator: A, owns: impl Fn(usize) -> bool) {
    let mut numbers = Vec::new_in(allocator);
    for n in 0..50_000_u64 {
        numbers.push(n);
    }
    assert!(owns(numbers.as_ptr().addr()));
    numbers.truncate(100);
    numbers.shrink_to_fit();
    assert!(numbers.iter().zip(0..).all(|(a, b)| *a == b));
    assert!(owns(numbers.as_ptr().addr()));
    let boxed = Box::new_in([7_u8; 300], allocator);
    assert!(owns(boxed.as_ptr().addr()) && *boxed == [7; 300]);

    let old = Layout::from_size_align(100, 8).expect("a layout");
    let new = Layout::from_size_align(5000, 4096).expect("a layout");
    let block = allocator.allocate_zeroed(old).expect("memory");
    assert_eq!(block.len(), 100);
    // SAFETY: a live block of this layout.
    let block = unsafe { allocator.grow_zeroed(block.cast(), old, new) }.expect("memory");
    assert!(block.cast::<u8>().addr().get().is_multiple_of(4096));
    // SAFETY: a live block that is zero as far as it was made, and behind that.
    assert!(unsafe { block.as_ref() }.iter().all(|b| *b == 0));
    // SAFETY: a live block of this layout.
    let block = unsafe { allocator.shrink(block.cast(), new, old) }.expect("memory");
    // SAFETY: a live block of this layout.
    unsafe { allocator.deallocate(block.cast(), old) };
}

#[test]
fn collections_live_in_heaps() {
    let heap = Heap::<_, _, OsLock>::on(OS, OS, HeapConfig::new()).expect("metadata");
    exercise(&heap, |addr| heap.owns(addr));
    let local = heap.local().expect("metadata");
    exercise(&local, |addr| heap.owns(addr));
    drop(local);
    assert_eq!(heap.statistics().used, 0);

    let global = GlobalHeap::new();
    let of_process = global.heap().expect("it is open");
    exercise(global, |addr| of_process.owns(addr));
    assert!(!of_process.owns((&raw const heap).addr()));
}

#[test]
fn exhaustion_is_an_error() {
    let heap = Heap::<_, _, OsLock>::on(OS, OS, HeapConfig::new()).expect("metadata");
    let huge = Layout::from_size_align(1 << 60, 8).expect("a layout");
    assert!((&heap).allocate(huge).is_err());
    let mut numbers: Vec<u8, _> = Vec::new_in(&heap);
    assert!(numbers.try_reserve(1 << 60).is_err());
}
