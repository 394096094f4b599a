//! Heaps below 4 GiB that are filled.

use super::OS;
use crate::common::skip_emulated;
use core::{alloc::Layout, ptr::NonNull};
use hostmem::{
    OsLock,
    heap::{Heap, HeapConfig, HeapError},
    page::AddressRange,
    provider::Within,
};
use hostmem_test_support::isolate::isolated;
use std::{sync::Mutex, thread};

#[test]
fn a_low_heap_serves_nearly_4_gib_of_3_mib_blocks() {
    isolated!("a_low_heap_serves_nearly_4_gib_of_3_mib_blocks", || {
        if skip_emulated("keeps low addresses for itself") {
            return;
        }
        let low = Within::new(OS, AddressRange::LOW_4G);
        let heap = Heap::<_, _, OsLock>::on(low, OS, HeapConfig::new()).expect("metadata");
        let layout = Layout::from_size_align(3 << 20, 16).expect("a layout");
        for _ in 0..2 {
            let blocks: Mutex<Vec<usize>> = Mutex::default();
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let local = heap.local().expect("metadata");
                        loop {
                            match local.alloc(layout) {
                                Ok(block) => blocks
                                    .lock()
                                    .expect("no thread panicked")
                                    .push(block.addr().get()),
                                Err(HeapError::Memory(_)) => break,
                                Err(error) => panic!("{error}"),
                            }
                        }
                    });
                }
            });
            let blocks = blocks.into_inner().expect("no thread panicked");
            let last = blocks.iter().max().expect("some");
            assert!(last + layout.size() <= 1 << 32, "a high pointer");
            let bytes = blocks.len() * layout.size();
            assert!(bytes * 10 >= 39 << 30, "{} MiB", bytes >> 20);
            for block in blocks {
                let block = heap.block_of(block).expect("live");
                let start = NonNull::new(core::ptr::with_exposed_provenance_mut(block.addr));
                // SAFETY: live, and used no more.
                unsafe { heap.free(start.expect("not null")) }.expect("a live block");
            }
        }
    });
}

#[test]
fn a_low_heap_of_small_blocks_fills_up_and_serves_again() {
    isolated!(
        "a_low_heap_of_small_blocks_fills_up_and_serves_again",
        || {
            // A part of the low addresses, since each of these blocks takes memory for its page.
            let part = AddressRange::new(0x1000_0000, 0x17ff_ffff).expect("a range");
            let heap = Heap::<_, _, OsLock>::on(Within::new(OS, part), OS, HeapConfig::new());
            let heap = heap.expect("metadata");
            let local = heap.local().expect("metadata");
            let layout = Layout::from_size_align(16 << 10, 16).expect("a layout");
            for _ in 0..2 {
                let mut blocks = Vec::new();
                while let Ok(block) = local.alloc(layout) {
                    assert!(part.contains(block.addr().get()), "outside");
                    blocks.push(block);
                }
                let bytes = blocks.len() * layout.size();
                assert!(bytes * 100 >= 97 * (128 << 20), "{} MiB", bytes >> 20);
                for block in blocks {
                    // SAFETY: live, and used no more.
                    unsafe { local.free(block) }.expect("a live block");
                }
            }
        }
    );
}
