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

use common::skip_emulated;
use core::{
    alloc::Layout,
    ptr::NonNull,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};
use hostmem::{
    OsLock, OsProvider,
    heap::{BlockInfo, Hardening, Heap, HeapConfig, HeapError, RangeKind, Return},
    page::PageSize,
    provider::{Capabilities, Commit, Error, ErrorKind, PageProvider, Purged, Request},
    sim::{Policy, Sim},
};
use hostmem_test_support::isolate::isolated;
use std::{collections::BTreeMap, sync::Mutex, thread};

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
                // SAFETY: as above, and nobody else uses it.
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

/// A host that gives addresses far apart, which nobody touches: as many as are asked for, and of
/// any length.
struct Far(Mutex<(usize, BTreeMap<usize, usize>)>);

const PAGE: PageSize = PageSize::KIB_4;

// SAFETY: ranges are apart, as they rise. They cannot be accessed, and the tests do not.
unsafe impl PageProvider for Far {
    fn page_size(&self) -> PageSize {
        PAGE
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }

    fn reserve(&self, request: &Request<'_>) -> Result<hostmem::page::PageRange, Error> {
        let plan = request.plan(PAGE)?;
        let mut held = self.0.lock().expect("no test fails with it");
        let start = plan.start_at_or_above(held.0).ok_or(ErrorKind::Exhausted)?;
        // A hole behind each.
        held.0 = start
            .checked_add(plan.total() + MIB)
            .ok_or(ErrorKind::Exhausted)?;
        held.1.insert(start, plan.total());
        let start = NonNull::new(core::ptr::without_provenance_mut(start));
        let range =
            start.and_then(|start| hostmem::page::PageRange::new(start, plan.total(), PAGE));
        range.ok_or(ErrorKind::Exhausted.into())
    }

    unsafe fn commit(&self, _: hostmem::page::PageRange, _: Commit) -> Result<PageSize, Error> {
        Ok(PAGE)
    }

    unsafe fn protect(
        &self,
        _: hostmem::page::PageRange,
        _: hostmem::page::Access,
    ) -> Result<(), Error> {
        Ok(())
    }

    unsafe fn decommit(&self, _: hostmem::page::PageRange) -> Result<(), Error> {
        Ok(())
    }

    unsafe fn purge(&self, _: hostmem::page::PageRange) -> Result<Purged, Error> {
        Ok(Purged::Zero)
    }

    unsafe fn release(&self, range: hostmem::page::PageRange) -> Result<(), Error> {
        let mut held = self.0.lock().expect("no test fails with it");
        let (start, len) = held
            .1
            .range(..=range.addr())
            .next_back()
            .map(|(start, len)| (*start, *len))
            .ok_or(ErrorKind::OutsideRange)?;
        let (before, behind) = (range.addr() - start, start + len - range.end());
        held.1.remove(&start);
        if before != 0 {
            held.1.insert(start, before);
        }
        if behind != 0 {
            held.1.insert(range.end(), behind);
        }
        Ok(())
    }
}

fn far(from: usize) -> &'static Far {
    Box::leak(Box::new(Far(Mutex::new((from, BTreeMap::new())))))
}

#[test]
fn a_hundred_thousand_huge_blocks_are_told_apart() {
    let host = far(1 << 32);
    let heap = heap(host, HeapConfig::new().memory_return(Return::Eager));
    let size = |n: usize| 2 * MIB + n % 50 * 4096;
    let blocks: Vec<_> = (0..100_000)
        .map(|n| heap.alloc(bytes(size(n))).expect("addresses"))
        .collect();
    for (n, block) in blocks.iter().enumerate().step_by(331) {
        knows_far(&heap, *block, size(n));
    }
    let held = heap.statistics();
    assert_eq!(held.huge_blocks, 100_000);
    assert!(held.metadata <= 100_000 * 300, "{held:?}");
    // Most of them, in an order that is neither rising nor falling.
    for n in (0..99_991_usize)
        .map(|n| n * 7919 % 99_991)
        .filter(|n| n % 10 != 0)
    {
        free(&heap, blocks[n]);
        assert!(!heap.owns(blocks[n].addr().get()), "{n}");
    }
    for n in (0..99_991).step_by(1990) {
        knows_far(&heap, blocks[n], size(n));
    }
    for n in (0..99_991).filter(|n| n % 10 == 0).chain(99_991..100_000) {
        free(&heap, blocks[n]);
    }
    let held = heap.statistics();
    assert_eq!((held.huge_blocks, held.reserved, held.committed), (0, 0, 0));
    assert!(
        host.0.lock().expect("not poisoned").1.is_empty(),
        "all went back"
    );
}

fn knows_far(heap: &Heap<&'static Far, OsProvider, OsLock>, block: NonNull<u8>, size: usize) {
    let (addr, len) = (block.addr().get(), size.next_multiple_of(4096));
    for at in [0, size / 2, size - 1] {
        assert_eq!(heap.block_of(addr + at), Some(BlockInfo { addr, len }));
    }
    assert_eq!(heap.block_of(addr + len), None);
    assert!(!heap.owns(addr + len.next_multiple_of(65_536)));
}

/// Beyond all that a page map tells apart.
#[test]
fn huge_blocks_lie_at_any_address() {
    let heap = heap(far(1 << 52), HeapConfig::new());
    let blocks = [2 * MIB, 8 << 40, 3 * MIB + 1].map(|size| {
        let block = heap.alloc(bytes(size)).expect("addresses");
        knows_far(&heap, block, size);
        block
    });
    for block in blocks {
        free(&heap, block);
    }
    heap.trim();
    assert_eq!(heap.statistics().reserved, 0);
}

/// Readers tell what lives apart from what comes and goes around it.
#[test]
fn addresses_are_told_apart_while_huge_blocks_come_and_go() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let heap = heap(OS, HeapConfig::new().memory_return(Return::Eager));
    let heap = &heap;
    let stays: Vec<_> = (0..40)
        .map(|_| heap.alloc(bytes(2 * MIB)).expect("memory").addr().get())
        .collect();
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !STOP.load(Relaxed) {
                        for addr in &stays {
                            let found = heap.block_of(addr + MIB);
                            let block = BlockInfo {
                                addr: *addr,
                                len: 2 * MIB,
                            };
                            assert_eq!(found, Some(block));
                            assert!(heap.owns(addr + 2 * MIB - 1));
                        }
                    }
                })
            })
            .collect();
        for _ in 0..50 {
            let blocks: Vec<_> = (0..40)
                .map(|n| heap.alloc(bytes(MIB + n * 50_000 + 1)).expect("memory"))
                .collect();
            for block in blocks {
                free(heap, block);
            }
        }
        STOP.store(true, Relaxed);
        for reader in readers {
            reader.join().expect("it found what it looked for");
        }
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

/// What is kept follows what is in use, and goes when it was not used for a while.
#[test]
fn what_is_kept_follows_what_is_in_use_and_goes_by_ticks() {
    let heap = heap(OS, HeapConfig::new().memory_return(Return::After(1000)));
    let size = 12 * MIB;
    let blocks: Vec<_> = (0..30)
        .map(|_| heap.alloc(bytes(size)).expect("memory"))
        .collect();
    let (gone, stay) = blocks.split_at(20);
    let reserves = |heap: &Heap<OsProvider, OsProvider, OsLock>| heap.statistics().calls.reserve;
    for block in gone {
        free(&heap, *block);
    }
    let held = heap.statistics();
    assert_eq!(held.huge, 10 * size);
    let kept = held.committed - held.huge;
    assert!(kept >= 3 * size && kept <= 10 * size, "{kept} bytes");
    // They serve again without a call.
    let before = reserves(&heap);
    let again: Vec<_> = (0..3)
        .map(|_| heap.alloc(bytes(size - 100_000)).expect("memory"))
        .collect();
    assert_eq!(reserves(&heap), before, "no new addresses");
    for block in again {
        free(&heap, block);
    }
    heap.tick(1000);
    assert!(heap.statistics().committed > held.huge, "not at once");
    heap.tick(2000);
    heap.tick(3000);
    let held = heap.statistics();
    assert_eq!((held.committed, held.reserved), (held.huge, held.huge));
    for block in stay {
        free(&heap, *block);
    }
    let held = heap.statistics();
    assert!(
        held.committed <= 64 * MIB,
        "little where little is in use: {held:?}"
    );
    heap.tick(9000);
    heap.tick(10_000);
    assert_eq!(heap.statistics().committed, 0);
}

/// A program that asks for as much again and again, between two ticks, has its pages back each
/// time.
#[test]
fn more_is_kept_where_much_is_asked_for_between_two_ticks() {
    let heap = heap(OS, HeapConfig::new().memory_return(Return::After(1000)));
    let size = 12 * MIB;
    let turn = || {
        let blocks: Vec<_> = (0..30)
            .map(|_| heap.alloc(bytes(size)).expect("memory"))
            .collect();
        for block in blocks {
            free(&heap, block);
        }
    };
    heap.tick(1000);
    (0..6).for_each(|_| turn());
    let held = heap.statistics();
    assert!(held.committed >= 29 * size, "all is kept: {held:?}");
    let before = held.calls.reserve;
    turn();
    assert_eq!(heap.statistics().calls.reserve, before, "no new addresses");
    // Once that does not happen any more, it goes as all does.
    heap.tick(2000);
    heap.tick(3000);
    assert_eq!(heap.statistics().committed, 0);
    turn();
    let held = heap.statistics();
    assert!(held.committed <= 3 * 30 * size / 2, "{held:?}");
    heap.tick(4000);
    heap.tick(5000);
    turn();
    let held = heap.statistics();
    assert!(
        held.committed <= 15 * size,
        "little where it is seldom: {held:?}"
    );
}

/// Blocks of other lengths take the pages that are kept along.
#[test]
fn kept_blocks_serve_for_longer_and_shorter_ones() {
    let sim = Sim::new(OS, Policy::new(PageSize::KIB_4)).expect("addresses");
    let heap = heap(&sim, HeapConfig::new());
    let layout = |mib: usize| bytes(mib * MIB);
    let mut live = BTreeMap::new();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for step in 0..400 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let number = usize::try_from(random >> 40).expect("24 bits");
        let mib = 2 + number % 9;
        let block = heap.alloc(layout(mib)).expect("memory");
        for at in [0, mib * MIB - 1] {
            // SAFETY: inside the live block.
            let byte = unsafe { block.add(at) };
            // SAFETY: as above.
            unsafe { byte.write(7) };
        }
        live.insert(number << 9 | step, (block, mib));
        if live.len() > 12
            && let Some((_, (block, mib))) = live.pop_first()
        {
            knows_sim(&heap, block, mib * MIB);
            free(&heap, block);
        }
        let used = live.values().map(|(_, mib)| mib * MIB).sum::<usize>();
        assert_eq!(heap.statistics().huge, used);
    }
    let calls = heap.statistics().calls;
    assert!(calls.reserve < 200, "{calls:?}");
    for (block, _) in live.into_values() {
        free(&heap, block);
    }
    // What reads zero does, whatever was there.
    let block = heap.alloc_zeroed(layout(7)).expect("memory");
    // SAFETY: live, and this test's alone.
    let all = unsafe { NonNull::slice_from_raw_parts(block, 7 * MIB).as_ref() };
    assert!(all.iter().all(|byte| *byte == 0));
    free(&heap, block);
    heap.trim();
    assert_eq!(heap.statistics().reserved, 0);
    drop(heap);
    assert_eq!((sim.take_misuse(), sim.pages_in_use()), (None, 0));
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
