//! A heap where addresses, memory and mappings are few.
#![cfg(all(target_os = "linux", feature = "linux", target_pointer_width = "64"))]

#[path = "../common/mod.rs"]
mod common;

mod small;
#[path = "../../examples/custom_provider/static_pages.rs"]
mod static_pages;

use crate::common::skip_emulated;
use core::{alloc::Layout, ptr::NonNull};
use hostmem::{
    OsLock, OsProvider,
    heap::{Heap, HeapConfig, HeapError, Level, Return},
    page::AddressRange,
    provider::{PageProvider, Request, Within},
    region::{RegionAllocator, RegionConfig},
};
use hostmem_test_support::isolate::{isolated, skip};
use static_pages::StaticPages;
use std::{
    ptr::null_mut,
    sync::{Mutex, PoisonError},
    time::Instant,
};

const OS: OsProvider = OsProvider::new();
const MIB: usize = 1 << 20;

/// Where windows lie: addresses that nothing else is mapped at.
const FREE: usize = 0x10_0000_0000;

/// Held by tests that use the same window, or count mappings.
static ALONE: Mutex<()> = Mutex::new(());

fn bytes(size: usize) -> Layout {
    Layout::from_size_align(size, 16).expect("a layout")
}

/// Fills a heap with blocks of a size; returns them, and asserts that the error says that there is
/// no room.
fn fill<P: PageProvider + Copy>(heap: &Heap<P, P, OsLock>, size: usize) -> Vec<NonNull<u8>> {
    let mut blocks = Vec::new();
    loop {
        match heap.alloc(bytes(size)) {
            Ok(block) => blocks.push(block),
            Err(HeapError::Memory(_) | HeapError::Metadata(_)) => return blocks,
            Err(error) => panic!("{size}: {error}"),
        }
    }
}

fn free_all<P: PageProvider + Copy>(heap: &Heap<P, P, OsLock>, blocks: Vec<NonNull<u8>>) {
    for block in blocks {
        // SAFETY: live, and used no more.
        unsafe { heap.free(block) }.expect("a live block");
    }
}

/// Asserts that a heap whose blocks and metadata come from `len` bytes of addresses serves nine
/// tenths of them in blocks of each size, one after the other.
fn serves_most<P: PageProvider + Copy>(p: P, len: usize, what: &str) {
    let open = || {
        let heap = Heap::<P, P, OsLock>::on(p, p, HeapConfig::new());
        heap.unwrap_or_else(|error| panic!("{what}: {error}"))
    };
    let all = open();
    let large = if len >= 64 * MIB { MIB } else { 40_000 };
    // Millions of blocks would take long.
    let few = |size: &usize| len / size <= 300_000;
    let sizes = [64, 1000, 4096, 20_000, 65_536, large, 48, 65_536];
    for size in sizes.into_iter().filter(few) {
        {
            all.trim();
            // One heap that serves all sizes keeps descriptors of each.
            let blocks = fill(&all, size);
            let got = blocks.len() * all.usable_size(blocks[0]).expect("a live block");
            assert!(
                got >= len / 10 * 7,
                "{what}: {got} of {len} bytes by {size}, too"
            );
            // Every second one, so that hardly any slab is free as a whole at first.
            let (kept, freed): (Vec<_>, Vec<_>) = blocks
                .into_iter()
                .enumerate()
                .partition(|(n, _)| n % 2 == 0);
            free_all(&all, freed.into_iter().map(|(_, block)| block).collect());
            // Another size, for which there may be no metadata until some granules are given back.
            for small in [100, 200].into_iter().filter(|_| size == 65_536) {
                let block = all.alloc(bytes(small)).expect("granules are free");
                free_all(&all, vec![block]);
            }
            free_all(&all, kept.into_iter().map(|(_, block)| block).collect());
        }
    }
    drop(all);
    let sizes = [64, 1000, 4096, 20_000, 65_536, large];
    for size in sizes.into_iter().filter(few) {
        let heap = open();
        let blocks = fill(&heap, size);
        let got = blocks.len() * heap.usable_size(blocks[0]).expect("a live block");
        println!("{what}: {} of 1000 by {size}", got / (len / 1000));
        assert!(
            got >= len / 10 * 9,
            "{what}: {got} of {len} bytes by {size}"
        );
    }
}

#[test]
fn a_window_of_any_size_is_served_nearly_whole() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (mib, more, start) in [
        (8, 0, 0),
        (8, 0x3000, 0x5000),
        (16, 0, 0x1000),
        (16, 0, 0),
        (33, 0x1000, 0x7000),
        (64, 0, 0),
        (64, 0, 0xf000),
        (256, 0, 0x10_1000),
        (512, 0, 0),
        (1024, 0, 0),
        (1030, 0, 0x1000),
    ] {
        let len = mib * MIB + more;
        let window = AddressRange::from_len(FREE + start, len).expect("a range");
        let p = Within::new(OS, window);
        serves_most(p, len, &format!("{mib} MiB and {more} at {start:#x}"));
        let left = OS.reserve(&Request::bytes(len).within(window));
        // SAFETY: reserved just now, and not used.
        unsafe { OS.release(left.expect("all went back")) }.expect("a reservation");
    }
}

#[test]
fn a_static_array_is_served_nearly_whole() {
    static SMALL: StaticPages<{ 16 * MIB / 4096 }> = StaticPages::new();
    static LARGE: StaticPages<{ 64 * MIB / 4096 }> = StaticPages::new();
    serves_most(&SMALL, 16 * MIB, "an array of 16 MiB");
    serves_most(&LARGE, 64 * MIB, "an array of 64 MiB");
}

#[test]
fn a_region_is_served_nearly_whole() {
    for mib in [16, 64] {
        let space = OS.reserve(&Request::bytes(mib * MIB)).expect("addresses");
        let region: RegionAllocator<OsProvider, OsProvider, OsLock> =
            RegionAllocator::on(OS, OS, RegionConfig::new()).expect("metadata");
        // SAFETY: reserved just now, and the region's until the end.
        unsafe { region.adopt(space) }.expect("fresh addresses");
        serves_most(&region, mib * MIB, &format!("a region of {mib} MiB"));
        assert_eq!(region.statistics().used, 0, "all went back");
        drop(region);
        // SAFETY: reserved above.
        unsafe { OS.release(space) }.expect("a reservation");
    }
}

#[test]
fn the_least_window_is_enough_and_less_is_refused() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for shards in [1, 4, 64] {
        let config = HeapConfig::new().shards(shards);
        let needed = config.least_window();
        let open = |len| {
            let window = AddressRange::from_len(FREE + 0x7000, len).expect("a range");
            let p = Within::new(OS, window);
            Heap::<_, _, OsLock>::on(p, p, config)
        };
        let heap = open(needed).expect("it is enough");
        for size in [100, 5000, MIB, 30_000] {
            heap.alloc(bytes(size)).expect("it is enough");
        }
        drop(heap);
        let refused = open(needed - 4096).expect_err("too few addresses");
        assert_eq!(refused, HeapError::TooSmall { needed });
        assert!(
            refused.to_string().contains(&needed.to_string()),
            "{refused}"
        );
    }
}

fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("a process map");
    maps.lines().count()
}

/// Returns how many bytes of this process are in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("a file of numbers");
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse::<usize>().ok());
    pages.expect("a number") * OS.page_size().bytes()
}

/// Allocates `count` blocks, writes a byte of each if so, frees every second one, and has `give`
/// give their memory back; returns how many bytes went, as the heap says. Mappings do not become
/// more.
fn every_second(
    config: HeapConfig,
    (count, size, touched): (usize, usize, bool),
    give: impl Fn(&Heap<OsProvider, OsProvider, OsLock>),
) -> usize {
    let heap = Heap::<_, _, OsLock>::on(OS, OS, config).expect("metadata");
    let local = heap.local().expect("metadata");
    let mut blocks = Vec::with_capacity(count);
    for _ in 0..count {
        let block = local.alloc(bytes(size)).expect("memory");
        // Large pages would be a few gigabytes.
        if touched {
            // SAFETY: a live block.
            unsafe { block.write(1) };
        }
        blocks.push(block);
    }
    blocks.sort();
    for block in blocks.iter().skip(1).step_by(2) {
        // SAFETY: live, and used no more.
        unsafe { local.free(*block) }.expect("a live block");
    }
    local.flush();
    let (before, held) = (mappings(), heap.statistics());
    let since = Instant::now();
    give(&heap);
    println!("{count} blocks of {size}: {:?}", since.elapsed());
    let (after, now) = (mappings(), heap.statistics());
    assert!(after <= before + 64, "{before} mappings, then {after}");
    let calls = now.calls.purge - held.calls.purge;
    assert!(calls <= count / 2 + 1, "{calls} calls for {count} blocks");
    assert_eq!(now.calls.decommit, 0, "no mapping is split: {now:?}");
    for block in blocks.iter().step_by(2).filter(|_| touched) {
        // SAFETY: a live block.
        assert_eq!(unsafe { block.read() }, 1, "those that live are intact");
    }
    held.resident - now.resident
}

#[test]
fn memory_goes_back_without_more_mappings() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let config = HeapConfig::new();
    let gone = every_second(config, (68_000, 4096, true), |heap| {
        heap.collect(Level::Deep)
    });
    assert!(gone >= 33_000 * 4096, "{gone} bytes of pages");
    let small = config.large_pages(false);
    let gone = every_second(small, (80_000, 65_536, true), Heap::trim);
    assert!(gone >= 39_000 * 65_536, "{gone} bytes of granules");
    let ticks = |heap: &Heap<OsProvider, OsProvider, OsLock>| {
        heap.tick(5000);
        heap.tick(10_000);
    };
    let gone = every_second(small, (80_000, 65_536, true), ticks);
    assert!(gone >= 39_000 * 65_536, "{gone} bytes of granules");
    // Where memory came by large pages, whole ones go.
    every_second(config, (80_000, 65_536, false), ticks);
    every_second(config, (80_000, 65_536, false), Heap::trim);
    let eager = config.memory_return(Return::Eager);
    every_second(eager, (20_000, 100_000, false), Heap::trim);
}

#[test]
fn huge_blocks_that_cannot_be_released_give_their_memory_back() {
    if skip_emulated("has mappings of its own") {
        return;
    }
    let name = "huge_blocks_that_cannot_be_released_give_their_memory_back";
    isolated!(name, || {
        const SIZE: usize = 4 * MIB;
        let config = HeapConfig::new().memory_return(Return::Eager);
        let heap = Heap::<_, _, OsLock>::on(OS, OS, config).expect("metadata");
        let start = resident();
        let mut blocks = Vec::with_capacity(50);
        for _ in 0..50 {
            let block = heap.alloc(bytes(SIZE)).expect("memory");
            // SAFETY: a live block of this many bytes.
            unsafe { block.write_bytes(1, SIZE) };
            blocks.push(block);
        }
        blocks.sort();
        // Mappings until there are no more.
        let len = 1 << 30;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping wherever the kernel likes.
        let base = unsafe { libc::mmap(null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        let mut full = false;
        for offset in (0..len).step_by(8192) {
            let page = base.wrapping_byte_add(offset);
            // SAFETY: a page of the mapping, which no other code uses.
            if unsafe { libc::mprotect(page, 4096, libc::PROT_READ) } != 0 {
                full = true;
                break;
            }
        }
        if !full {
            skip("this host allows more mappings than the test makes");
            return;
        }
        for block in blocks.iter().skip(1).step_by(2) {
            // SAFETY: live, and used no more.
            unsafe { heap.free(*block) }.expect("a live block");
        }
        let held = heap.statistics();
        assert_eq!((held.huge_blocks, held.used), (25, 25 * SIZE), "{held:?}");
        assert!(held.resident <= 25 * SIZE && held.refused == 0, "{held:?}");
        let there = resident() - start;
        assert!(there <= 25 * SIZE + 8 * MIB, "{there} bytes are in memory");
        assert!(held.reserved > 30 * SIZE, "some are kept: {held:?}");
        // Those that could not be released serve again, zeroed if that is asked for.
        let again = heap.alloc_zeroed(bytes(SIZE)).expect("kept addresses");
        assert_eq!(
            heap.statistics().reserved,
            held.reserved,
            "no new addresses"
        );
        // SAFETY: a live block of this many bytes.
        let all = unsafe { NonNull::slice_from_raw_parts(again, SIZE).as_ref() };
        assert!(all.iter().all(|byte| *byte == 0));
        // SAFETY: live, and used no more.
        unsafe { heap.free(again) }.expect("a live block");
        // SAFETY: the mapping from above, of which nothing is used.
        assert_eq!(unsafe { libc::munmap(base, len) }, 0);
        heap.trim();
        let held = heap.statistics();
        assert_eq!(held.reserved, 25 * SIZE, "they are released now: {held:?}");
        for block in blocks.iter().step_by(2) {
            // SAFETY: a live block of this many bytes, all written.
            let all = unsafe { NonNull::slice_from_raw_parts(*block, SIZE).as_ref() };
            assert!(
                all.iter().all(|byte| *byte == 1),
                "those that live are intact"
            );
        }
        drop(heap);
        let there = resident().saturating_sub(start);
        assert!(there <= 8 * MIB, "{there} bytes after all was dropped");
    });
}
