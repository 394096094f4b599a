//! What of a heap is in memory.

use super::{OS, Random, layout};
use crate::common::{at_length, skip_emulated};
use core::alloc::Layout;
use hostmem::{
    OsLock, OsProvider,
    heap::{Heap, HeapConfig, Level},
    provider::PageProvider,
};
use std::thread;

#[test]
fn short_threads_leave_memory_flat() {
    let heap = Heap::<_, _, OsLock>::on(OS, OS, HeapConfig::new()).expect("metadata");
    let threads = if at_length() { 100_000 } else { 1000 };
    let (mut first, mut resident) = (None, 0);
    for n in 0..threads {
        thread::scope(|scope| {
            scope.spawn(|| {
                let local = heap.local().expect("metadata");
                for size in [10, 100, 1000, 10_000] {
                    let layout = Layout::from_size_align(size, 8).expect("a layout");
                    let block = local.alloc(layout).expect("memory");
                    // SAFETY: live, and used no more.
                    unsafe { local.free(block) }.expect("a live block");
                }
            });
        });
        // Each shard has been used then.
        if n == 8 {
            resident = in_memory(&heap);
        }
        if n >= 4 {
            let mut held = heap.statistics();
            held.requested = 0;
            assert_eq!(held, *first.get_or_insert(held), "thread {n}");
        }
    }
    let after = in_memory(&heap);
    assert!(after <= resident, "{after} bytes after {resident}");
}

/// Returns how many bytes of a heap's blocks the host holds in memory.
fn in_memory<P: PageProvider + Copy>(heap: &Heap<P, OsProvider, OsLock>) -> usize {
    let page = OS.page_size().bytes();
    let mut bytes = 0;
    let mut pages = vec![0_u8; 1 << 14];
    for range in heap.ranges() {
        let (start, last) = (range.addresses.start(), range.addresses.last());
        for part in (start..last).step_by(pages.len() * page) {
            let len = (last - part + 1).min(pages.len() * page);
            let at = core::ptr::without_provenance_mut(part);
            // SAFETY: the kernel writes a byte for each page, as many as there are, and touches
            // nothing else.
            let result = unsafe { libc::mincore(at, len, pages.as_mut_ptr().cast()) };
            assert_eq!(result, 0, "mapped: {range:x?}");
            let held = pages[..len / page].iter().filter(|page| **page & 1 == 1);
            bytes += held.count() * page;
        }
    }
    bytes
}

#[test]
fn what_is_resident_is_what_the_host_holds() {
    if skip_emulated("has pages of its own") {
        return;
    }
    let thp = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    // Then a page that is touched may bring others along.
    let alone = !thp.is_ok_and(|thp| thp.contains("[always]"));
    let page = OS.page_size().bytes();
    let config = HeapConfig::new().large_pages(false);
    let heap = Heap::<_, _, OsLock>::on(OS, OS, config).expect("metadata");
    let classes = heap.class_statistics().count();
    let local = heap.local().expect("metadata");
    // What was cached once may never have been touched, and nor may the page that it ended in, one
    // a class.
    let check = |cached: usize| {
        let (held, there) = (heap.statistics(), in_memory(&heap));
        if alone {
            assert!(there <= held.resident, "{there} bytes, {held:?}");
        }
        let slack = if cached == 0 {
            0
        } else {
            cached + classes * page
        };
        assert!(held.resident <= there + slack, "{there} bytes, {held:?}");
    };
    let mut cached = 0;
    let mut random = Random(0x5eed);
    let mut blocks = Vec::new();
    for n in 0..40_000 {
        let layout = layout(&mut random);
        let block = if n < 20_000 {
            heap.alloc(layout)
        } else {
            local.alloc(layout)
        };
        let block = block.expect("memory");
        let len = heap.usable_size(block).expect("a live block");
        // SAFETY: a live block of this many bytes.
        unsafe { block.write_bytes(1, len) };
        blocks.push(block);
        if n % 5000 != 4999 {
            continue;
        }
        cached = cached.max(heap.statistics().cached);
        check(cached);
    }
    for percent in [30, 70, 95] {
        blocks.retain(|block| {
            let stays = random.below(100) >= percent;
            if !stays {
                // SAFETY: live, and used no more.
                unsafe { local.free(*block) }.expect("a live block");
            }
            stays
        });
        local.flush();
        for level in [Level::Free, Level::Deep] {
            heap.collect(level);
            check(cached);
        }
    }
}
