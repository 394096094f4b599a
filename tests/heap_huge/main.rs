//! Huge blocks: what they cost at any length, who knows their addresses, and what is kept of those
//! that were freed.
#![cfg(all(
    target_os = "linux",
    feature = "linux",
    feature = "sim",
    target_pointer_width = "64"
))]

#[path = "../common/mod.rs"]
mod common;
mod far;
mod kept;

use crate::common::skip_emulated;
use core::{alloc::Layout, ptr::NonNull};
use hostmem::{
    OsLock, OsProvider,
    heap::{BlockInfo, Hardening, Heap, HeapConfig, HeapError, RangeKind},
    provider::PageProvider,
    sim::Sim,
};
use hostmem_test_support::isolate::isolated;

const OS: OsProvider = OsProvider::new();
const MIB: usize = 1 << 20;

fn bytes(size: usize) -> Layout {
    Layout::from_size_align(size, 16).expect("a layout")
}

fn heap<P: PageProvider + Copy>(p: P, config: HeapConfig) -> Heap<P, OsProvider, OsLock> {
    Heap::on(p, OS, config).expect("metadata")
}

fn free<P: PageProvider + Copy>(heap: &Heap<P, OsProvider, OsLock>, block: NonNull<u8>) {
    // SAFETY: live, and used no more.
    unsafe { heap.free(block) }.expect("a live block");
}

/// Asserts that a heap knows the addresses of a live huge block, and those around it.
fn knows<P: PageProvider + Copy>(
    heap: &Heap<P, OsProvider, OsLock>,
    block: NonNull<u8>,
    size: usize,
) {
    let (addr, len) = (block.addr().get(), size.next_multiple_of(4096));
    for at in [0, 1, 65_536, size / 3, size / 2, size - 1] {
        assert!(heap.owns(addr + at), "{at} of {size}");
        let found = heap.block_of(addr + at);
        assert_eq!(found, Some(BlockInfo { addr, len }), "{at} of {size}");
    }
    assert_eq!(heap.usable_size(block), Some(len));
    let inside = NonNull::new(block.as_ptr().wrapping_add(size / 2)).expect("not null");
    // SAFETY: no block's start.
    let freed = unsafe { heap.free(inside) };
    assert_eq!(freed, Err(HeapError::Interior));
    assert_ne!(heap.block_of(addr - 1).map(|found| found.addr), Some(addr));
    assert_ne!(
        heap.block_of(addr + len).map(|found| found.addr),
        Some(addr)
    );
    let ends = |range: &hostmem::heap::HeapRange| range.addresses.contains(addr + size / 2);
    let ranges: Vec<_> = heap.ranges().filter(ends).collect();
    assert!(
        matches!(&ranges[..], [one] if one.kind == RangeKind::Huge),
        "{ranges:?}"
    );
}

/// Returns how many bytes of this process are in memory, to the page.
fn resident() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").expect("a sum");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib = number.and_then(|n| n.trim().parse::<usize>().ok());
    kib.expect("a number") << 10
}

#[test]
fn the_longest_blocks_cost_no_more_than_others() {
    if skip_emulated("has addresses of its own") {
        return;
    }
    isolated!("the_longest_blocks_cost_no_more_than_others", || {
        let heap = heap(OS, HeapConfig::new());
        free(&heap, heap.alloc(bytes(100)).expect("memory"));
        free(&heap, heap.alloc(bytes(2 * MIB)).expect("memory"));
        heap.trim();
        let before = heap.statistics();
        // Whatever reading the file takes is there by then.
        resident();
        let mut served = 0;
        for size in [
            1 << 30,
            64 << 30,
            1 << 40,
            8 << 40,
            (16 << 40) + 12_345,
            64 << 40,
        ] {
            let start = resident();
            let Ok(block) = heap.alloc(bytes(size)) else {
                // Where the host does not promise that much: refused, and nothing is left of it.
                println!("{} GiB are refused", size >> 30);
                assert_eq!(heap.statistics().reserved, before.reserved);
                continue;
            };
            served += 1;
            let took = resident().saturating_sub(start);
            assert!(took <= 64 << 10, "{took} bytes of memory for {size}");
            knows(&heap, block, size);
            for at in [0, size / 2, size - 1] {
                // SAFETY: inside the live block.
                let byte = unsafe { block.add(at) };
                // SAFETY: inside the live block, which nothing else uses.
                unsafe { byte.write(1) };
            }
            let held = heap.statistics();
            assert_eq!((held.huge_blocks, held.page_map), (1, before.page_map));
            // SAFETY: live, and used no more.
            let resized = unsafe { heap.realloc(block, bytes(size), size - size / 3) };
            let block = resized.expect("less");
            knows(&heap, block, size - size / 3);
            free(&heap, block);
            heap.trim();
            let held = heap.statistics();
            assert_eq!(
                (held.reserved, held.committed, held.huge, held.metadata),
                (before.reserved, before.committed, 0, before.metadata)
            );
            assert!(!heap.owns(block.addr().get() + size / 2), "it is gone");
        }
        // More than any host has.
        for size in [1 << 56, usize::MAX / 2 - (1 << 30)] {
            let refused = heap.alloc(bytes(size));
            assert!(
                matches!(refused, Err(HeapError::Memory(_) | HeapError::InvalidSize)),
                "{refused:?}"
            );
        }
        assert_eq!(heap.statistics().reserved, before.reserved);
        println!("{served} sizes were served");
    });
}

#[test]
fn two_thousand_huge_blocks_come_and_go() {
    let heap = heap(OS, HeapConfig::new());
    for round in 0..2 {
        let blocks: Vec<_> = (0..2000)
            .map(|n| {
                let size = MIB + 1 + (n * 37 + round) % 100 * 4096;
                let block = heap.alloc(bytes(size)).expect("memory");
                // SAFETY: a live block.
                unsafe { block.write(1) };
                block
            })
            .collect();
        let held = heap.statistics();
        assert_eq!(held.huge_blocks, 2000);
        for block in &blocks {
            assert!(heap.owns(block.addr().get() + MIB));
        }
        for block in blocks {
            free(&heap, block);
        }
    }
    let held = heap.statistics();
    assert_eq!((held.huge_blocks, held.used), (0, 0));
    assert!(
        held.reserved <= 512 * MIB,
        "what is kept is bounded: {held:?}"
    );
    heap.trim();
    assert_eq!(heap.statistics().reserved, 0);
}

fn knows_sim(heap: &Heap<&Sim<OsProvider>, OsProvider, OsLock>, block: NonNull<u8>, size: usize) {
    let info = BlockInfo {
        addr: block.addr().get(),
        len: size,
    };
    assert_eq!(heap.block_of(block.addr().get() + size / 2), Some(info));
}

#[test]
fn hardened_huge_blocks_are_told_apart() {
    let heap = heap(OS, HeapConfig::new().hardening(Hardening::Full));
    let size = 5 * MIB - 100;
    let block = heap.alloc(bytes(size)).expect("memory");
    let addr = block.addr().get();
    let info = BlockInfo { addr, len: size };
    assert_eq!(heap.block_of(addr + size - 1), Some(info));
    assert_eq!(
        heap.block_of(addr + size),
        None,
        "behind what was asked for"
    );
    assert!(
        heap.owns(addr - 1) && heap.owns(addr + size + 65_536),
        "guards"
    );
    let guard = NonNull::new(block.as_ptr().wrapping_sub(4096)).expect("not null");
    // SAFETY: no block's start.
    assert_eq!(unsafe { heap.free(guard) }, Err(HeapError::NotLive));
    free(&heap, block);
    assert!(heap.owns(addr), "its addresses wait");
    assert_eq!(heap.block_of(addr), None);
    assert_eq!(heap.statistics().committed, 0, "its memory is gone at once");
    heap.trim();
    assert!(!heap.owns(addr));
}
