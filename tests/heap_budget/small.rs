//! A small heap takes little memory.

use super::{MIB, OS, bytes};
use crate::common::skip_emulated;
use core::ptr::NonNull;
use hostmem::{
    OsLock,
    heap::{Heap, HeapConfig},
};
use hostmem_test_support::isolate::{isolated, skip};

/// Returns how many bytes of this process are in memory, to the page.
fn resident_exactly() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").expect("a sum");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number
        .and_then(|n| n.trim().parse::<usize>().ok())
        .expect("a number")
        << 10
}

/// Makes a heap and a hundred small blocks; returns by how many bytes this process has grown.
fn grown_by_a_small_heap() -> usize {
    // Whatever reading the file takes is there by then.
    resident_exactly();
    let before = resident_exactly();
    let heap = Heap::<_, _, OsLock>::on(OS, OS, HeapConfig::new()).expect("metadata");
    let local = heap.local().expect("metadata");
    for n in 0..100 {
        let block = local.alloc(bytes(16 + n % 10 * 24)).expect("memory");
        // SAFETY: a live block.
        unsafe { block.write(1) };
    }
    let grown = resident_exactly() - before;
    let ranges = heap.ranges().chain(heap.metadata_ranges());
    let addresses: usize = ranges
        .map(|range| range.addresses.last() - range.addresses.start() + 1)
        .sum();
    println!("{grown} bytes in memory, {addresses} of addresses");
    assert!(addresses <= 16 * MIB, "{addresses} bytes of addresses");
    grown
}

#[test]
fn a_small_heap_takes_little_memory() {
    if skip_emulated("has pages of its own") {
        return;
    }
    isolated!("a_small_heap_takes_little_memory", || {
        let grown = grown_by_a_small_heap();
        assert!(grown <= 128 << 10, "{grown} bytes");
    });
}

#[test]
fn a_small_heap_takes_little_memory_where_all_is_locked() {
    if skip_emulated("does not lock") {
        return;
    }
    let name = "a_small_heap_takes_little_memory_where_all_is_locked";
    isolated!(name, || {
        // SAFETY: no memory is passed.
        if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } != 0 {
            skip("this process may not lock its memory");
            return;
        }
        let grown = grown_by_a_small_heap();
        assert!(grown <= 2 * MIB, "{grown} bytes");
        // What is locked stays, and is said to.
        let heap = Heap::<_, _, OsLock>::on(OS, OS, HeapConfig::new()).expect("metadata");
        let blocks = [(); 20].map(|()| heap.alloc(bytes(65_536)).expect("memory"));
        for block in &blocks[1..] {
            // SAFETY: a live block of this many bytes, used no more after.
            unsafe { block.write_bytes(1, 65_536) };
            // SAFETY: live, and used no more.
            unsafe { heap.free(*block) }.expect("a live block");
        }
        heap.trim();
        let held = heap.statistics();
        assert!(
            held.refused == 0 || held.resident >= held.refused + 65_536,
            "{held:?}"
        );
        let again = [(); 19].map(|()| heap.alloc_zeroed(bytes(65_536)).expect("memory"));
        for block in again {
            // SAFETY: a live block of this many bytes.
            let all = unsafe { NonNull::slice_from_raw_parts(block, 65_536).as_ref() };
            assert!(all.iter().all(|byte| *byte == 0), "old contents");
        }
    });
}
