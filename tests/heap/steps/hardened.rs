//! Children of calls of a hardened heap.

use super::{Block, HEAP, IS_FULL, KIB, MIB, alloc, fork_in, free};
use crate::common::{emulated, steps::isolated_with_loops};
use core::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
    ptr::NonNull,
    sync::atomic::Ordering::Relaxed,
};
use hostmem::heap::Level;
use hostmem_test_support::isolate::test_path;

/// Calls by the quick way to a hardened heap, and by others.
#[test]
fn children_of_hardened_calls_use_the_heap() {
    isolated_with_loops(
        &test_path!("children_of_hardened_calls_use_the_heap"),
        || {
            if emulated() {
                return;
            }
            IS_FULL.store(true, Relaxed);
            // Not those whose contents take long to look at, step by step.
            for size in [48, 1000, 600 * KIB, 3 * MIB] {
                let layout = Layout::from_size_align(size, 16).expect("a layout");
                let alloc = || {
                    // SAFETY: not of size zero.
                    let block = NonNull::new(unsafe { HEAP.alloc(layout) })?;
                    // SAFETY: a block of more bytes, which is this thread's.
                    unsafe { block.write(1) };
                    Some(block)
                };
                let frees = |block: Block| {
                    let is_there = block.is_some();
                    if let Some(block) = block {
                        // SAFETY: allocated with this layout, and used no more.
                        unsafe { HEAP.dealloc(block.as_ptr(), layout) };
                    }
                    is_there
                };
                let flush = || HEAP.flush();
                // What has a slab: both calls of a test are then about as long.
                assert!(frees(alloc()));
                fork_in(&flush, &alloc, &frees);
                if size == 1000 {
                    // What makes one, with all that is kept of its blocks.
                    let give_back = || HEAP.collect(Level::Free).expect("the heap is open");
                    fork_in(&give_back, &alloc, &frees);
                }
                let cache = || {
                    flush();
                    assert!(frees(alloc()));
                };
                fork_in(&cache, &alloc, &frees);
                let block = Cell::new(None);
                let prepare = || {
                    flush();
                    block.set(alloc());
                };
                let call = || {
                    assert!(frees(block.take()));
                    None
                };
                fork_in(&prepare, &call, &|_| true);
            }
            let prepare = || {
                for size in [100 * KIB, 3 * MIB, 2000, 48, 600 * KIB] {
                    let blocks = [(); 6].map(|()| alloc(size));
                    assert!(blocks.iter().all(|block| block.is_some_and(free)));
                }
            };
            let call = || {
                HEAP.collect(Level::Free).expect("the heap is open");
                None
            };
            fork_in(&prepare, &call, &|_| true);
        },
    );
}
