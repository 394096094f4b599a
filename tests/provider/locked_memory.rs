//! Purging memory that is locked: the memory goes, or it stays and whoever purged is told so, on
//! kernels that take the advice for locked pages and on those that do not know it.

use crate::common::{CODE_LEN, call, code_returning, map_dual, skip_emulated, unmap_dual};
use core::{alloc::Layout, ptr::NonNull};
use hostmem::{
    OsLock, OsProvider,
    heap::{Heap, HeapConfig},
    jit::{JitAllocator, JitConfig, Mapping, Span},
    page::PageRange,
    provider::{Capabilities, Commit, DualMapProvider, PageProvider, Purged, Request},
    region::{RegionAllocator, RegionConfig},
};
use hostmem_test_support::{
    isolate::{isolated, or_skip, skip},
    seccomp,
};
use std::io;

const OS: OsProvider = OsProvider::new();
const PAGES: usize = 32;

/// `MADV_DONTNEED_LOCKED`, since Linux 5.18.
const DONTNEED_LOCKED: u64 = 24;

fn page() -> usize {
    OS.page_size().bytes()
}

fn part(range: PageRange, first: usize, pages: usize) -> PageRange {
    let part = range.part(first * page(), pages * page(), OS.page_size());
    part.expect("a part")
}

/// Locks pages; `None`, aloud, where that is not permitted.
fn lock(range: PageRange) -> Option<()> {
    // SAFETY: the pages are mapped; locking changes no contents.
    let done = unsafe { libc::mlock(range.start().as_ptr().cast(), range.len_bytes()) };
    permitted(done)
}

/// Locks all that there is and comes; `None`, aloud, where that is not permitted.
fn lock_all() -> Option<()> {
    // SAFETY: changes no contents.
    permitted(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) })
}

fn permitted(done: libc::c_int) -> Option<()> {
    if done == 0 {
        return Some(());
    }
    skip(format!("locking memory: {}", io::Error::last_os_error()));
    None
}

/// Runs `body` on this kernel, or as on one that does not know the advice for locked pages; `body`
/// is told whether it knows it.
fn locked(test: &str, knows: bool, body: fn(bool)) {
    if skip_emulated("locks nothing") {
        return;
    }
    isolated!(test, || {
        if !knows {
            let (call, all) = (libc::SYS_madvise, u64::from(u32::MAX));
            let refused = seccomp::refuse_when(call, 2, all, DONTNEED_LOCKED, libc::EINVAL);
            if or_skip(refused).is_none() {
                return;
            }
        }
        body(knows);
    });
}

/// Returns the first byte of each page.
fn bytes(range: PageRange) -> Vec<u8> {
    let addresses = (0..range.len_bytes()).step_by(page());
    let byte = |offset| range.start().as_ptr().wrapping_add(offset);
    // SAFETY: committed.
    addresses
        .map(|offset| unsafe { byte(offset).read() })
        .collect()
}

/// Says whether pages that were all 7 show what was said.
fn shows(range: PageRange, shown: Purged) -> bool {
    bytes(range).into_iter().all(|byte| match shown {
        Purged::Zero => byte == 0,
        Purged::Kept => byte == 7,
        Purged::ZeroOrOld => byte == 0 || byte == 7,
    })
}

fn mark(range: PageRange) {
    // SAFETY: committed, and this test's.
    unsafe { range.start().write_bytes(7, range.len_bytes()) };
}

fn committed(pages: usize) -> PageRange {
    let range = OS
        .reserve(&Request::bytes(pages * page()))
        .expect("addresses");
    // SAFETY: reserved just now.
    unsafe { OS.commit(range, Commit::READ_WRITE) }.expect("memory");
    mark(range);
    range
}

/// Purges what is locked in part, in several places.
fn purge_of_a_provider(knows: bool) {
    for (first, pages) in [(0, PAGES), (0, 5), (10, 7), (PAGES - 5, 5)] {
        let range = committed(PAGES);
        if lock(part(range, first, pages)).is_none() {
            return;
        }
        // SAFETY: committed, and the contents are not needed.
        let shown = unsafe { OS.purge(range) }.expect("committed pages can be purged");
        assert!(
            shows(range, shown),
            "{first}, {pages}: {shown:?}, {:?}",
            bytes(range)
        );
        if knows {
            assert_eq!(shown, Purged::Zero, "{first}, {pages}");
        } else if first == 0 {
            assert_eq!(shown, Purged::Kept, "{first}, {pages}");
        }
        // It can be used as before.
        mark(range);
        assert!(shows(range, Purged::Kept));
        // SAFETY: committed, and not used.
        unsafe { OS.release(range) }.expect("locked pages can be unmapped");
    }
}

fn purge_of_a_region(knows: bool) {
    let region: RegionAllocator<OsProvider, OsProvider, OsLock> =
        RegionAllocator::on(OS, OS, RegionConfig::new()).expect("metadata");
    let space = OS.reserve(&Request::bytes(2 * PAGES * page()));
    // SAFETY: reserved just now, and the region's until the end.
    unsafe { region.adopt(space.expect("addresses")) }.expect("fresh addresses");
    let request = Request::bytes(PAGES * page());
    for (first, pages) in [(0, PAGES), (0, 5), (10, 7)] {
        let range = region.map(&request, Commit::READ_WRITE, 1).expect("room");
        mark(range);
        if lock(part(range, first, pages)).is_none() {
            return;
        }
        // SAFETY: committed, and the contents are not needed.
        let shown = unsafe { region.purge(range) }.expect("committed pages can be purged");
        assert!(
            shows(range, shown),
            "{first}, {pages}: {shown:?}, {:?}",
            bytes(range)
        );
        assert!(
            !knows || shown == Purged::Zero,
            "{first}, {pages}: {shown:?}"
        );
        // SAFETY: committed, and not used.
        unsafe { region.unmap(range) }.expect("it goes");
    }
}

/// Frees much in a process that locks all, and asks for it to go back.
fn purge_of_a_heap(knows: bool) {
    const BLOCK: Layout = Layout::new::<[u8; 40_000]>();
    const HUGE: Layout = Layout::new::<[u8; 5 << 20]>();
    if lock_all().is_none() {
        return;
    }
    let heap = Heap::<_, _, OsLock>::on(OS, OS, HeapConfig::new()).expect("a heap");
    let alloc = |layout: Layout| {
        let block: NonNull<u8> = heap.alloc(layout).expect("memory");
        // SAFETY: a block of this many bytes.
        unsafe { block.write_bytes(7, layout.size()) };
        block
    };
    let blocks: Vec<_> = (0..1000).map(|_| alloc(BLOCK)).collect();
    let huge: Vec<_> = (0..4).map(|_| alloc(HUGE)).collect();
    // Not all, so that segments stay.
    let is_kept = |n: usize| n.is_multiple_of(50);
    let freed = blocks.iter().enumerate().filter(|(n, _)| !is_kept(*n));
    let freed = freed.map(|(_, block)| block).chain(&huge[1..]);
    let before = heap.statistics();
    for block in freed {
        // SAFETY: live, and used no more.
        unsafe { heap.free(*block) }.expect("a live block");
    }
    heap.trim();
    let after = heap.statistics();
    if knows {
        assert_eq!(after.refused, 0, "{after:?}");
        assert!(after.resident + (30 << 20) < before.resident, "{after:?}");
    } else {
        // What is whole and free stays, and is counted where it stays.
        assert!(after.refused >= 20 << 20, "{after:?}");
        assert!(after.resident >= after.refused, "{after:?}");
    }
    // It serves as before, from what stayed or anew.
    let blocks: Vec<_> = (0..1000).map(|_| alloc(BLOCK)).collect();
    for block in blocks {
        // SAFETY: a live block.
        assert_eq!(unsafe { block.read() }, 7);
        // SAFETY: live, and used no more.
        unsafe { heap.free(block) }.expect("a live block");
    }
    let zeroed = heap.alloc_zeroed(BLOCK).expect("memory");
    // SAFETY: a block of this many bytes, which nothing writes.
    let zeroed = unsafe { NonNull::slice_from_raw_parts(zeroed, BLOCK.size()).as_ref() };
    assert!(zeroed.iter().all(|byte| *byte == 0), "pages that were kept");
}

/// Purges views of a dual mapping, and free pages of code blocks.
fn purge_of_code(_: bool) {
    if lock_all().is_none() {
        return;
    }
    if OS.capabilities().contains(Capabilities::PURGE_DUAL) {
        let mapping = map_dual(&OS);
        mark(mapping.rw());
        // SAFETY: this test's, and the contents are not needed.
        let purged = unsafe { OS.purge_dual(&mapping, 0, mapping.len_bytes()) };
        let shown = match purged {
            Ok(()) => Purged::Zero,
            Err(_) => Purged::Kept,
        };
        assert!(
            shows(mapping.rw(), shown) && shows(mapping.rx(), shown),
            "{shown:?}"
        );
        unmap_dual(&OS, mapping);
    }
    for mapping in [Mapping::Dual, Mapping::Toggle] {
        let config = JitConfig::new().mapping(mapping);
        let jit: JitAllocator<_, _, OsLock> =
            JitAllocator::on(OS, OS, config).expect("the configuration is valid");
        let function = |value: u32, size| {
            let mut span: Span = jit.alloc(size).expect("memory");
            assert!(size >= CODE_LEN);
            jit.write(&mut span, 0, &code_returning(value))
                .expect("ours");
            span
        };
        let check = |span: &Span, value| {
            // SAFETY: published, and live.
            assert_eq!(unsafe { call(span.rx().as_ptr()) }, value);
        };
        let live = function(11, 100);
        let gone: Vec<_> = (0..10).map(|_| function(12, 20_000)).collect();
        for span in gone {
            jit.release(span).expect("once");
        }
        let before = jit.statistics();
        let given = jit.decommit_unused();
        assert!(given <= before.reserved, "{given}, {before:?}");
        check(&live, 11);
        // The same pages again, whether they went or not.
        let again: Vec<_> = (0..10).map(|n| function(20 + n, 20_000)).collect();
        for (span, value) in again.iter().zip(20..) {
            check(span, value);
        }
        for span in again.into_iter().chain([live]) {
            jit.release(span).expect("once");
        }
    }
}

#[test]
fn locked_pages_go_where_the_kernel_lets_them() {
    let test = "locked_pages_go_where_the_kernel_lets_them";
    locked(test, true, purge_of_a_provider);
}

#[test]
fn locked_pages_that_stay_are_said_to() {
    let test = "locked_pages_that_stay_are_said_to";
    locked(test, false, purge_of_a_provider);
}

#[test]
fn locked_pages_of_a_region_go_where_the_kernel_lets_them() {
    let test = "locked_pages_of_a_region_go_where_the_kernel_lets_them";
    locked(test, true, purge_of_a_region);
}

#[test]
fn locked_pages_of_a_region_that_stay_are_said_to() {
    let test = "locked_pages_of_a_region_that_stay_are_said_to";
    locked(test, false, purge_of_a_region);
}

#[test]
fn a_locked_heap_gives_memory_back() {
    locked("a_locked_heap_gives_memory_back", true, purge_of_a_heap);
}

#[test]
fn a_locked_heap_counts_what_stays() {
    locked("a_locked_heap_counts_what_stays", false, purge_of_a_heap);
}

#[test]
fn locked_code_is_as_it_is_said_to_be() {
    locked("locked_code_is_as_it_is_said_to_be", true, purge_of_code);
}

#[test]
fn locked_code_is_as_it_is_said_to_be_on_older_kernels() {
    let test = "locked_code_is_as_it_is_said_to_be_on_older_kernels";
    locked(test, false, purge_of_code);
}
