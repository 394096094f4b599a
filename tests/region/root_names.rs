//! The names of the crate's root: what they are made of, and where what they give lies.

use crate::common::{bare_fork, exit, skip_emulated, wait};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use hostmem::{
    Heap, HeapConfig, JitAllocator, JitConfig, JitRuntime, LowHeap, OsProvider, RangeMap,
    RegionAllocator, RegionConfig, RegionHeap, StaticRegion, adopt_claim, generic, low_heap,
    page::{AddressRange, PageSize},
    provider::{Commit, ErrorKind, PageProvider, ProcessMap, Request},
    region::{ClaimRequest, PageState},
    region_above,
};
use hostmem_test_support::isolate::isolated;
use std::thread;

const GUEST_END: usize = 4 << 30;

static HOST: StaticRegion = StaticRegion::new(RegionConfig::new());

hostmem::global_heap! {
    /// A heap in the region.
    static IN_REGION: RegionHeap<'static> = HOST.heap(HeapConfig::new());
}

hostmem::global_heap! {
    /// A heap below 4 GiB.
    pub(crate) static LOW_HEAP: LowHeap = low_heap(HeapConfig::new());
}

#[test]
fn types_need_no_parameters() {
    let heap = Heap::new(HeapConfig::new()).expect("metadata");
    let local = heap.local().expect("metadata");
    let block = heap.alloc_bytes(100).expect("memory");
    assert!(heap.owns(block.addr().get()));
    // SAFETY: live, and not used any more.
    unsafe { local.free(block) }.expect("live");
    let jit = JitAllocator::new(JitConfig::new()).expect("it is valid");
    let span = jit.alloc(1).expect("memory");
    jit.release(span).expect("ours");
    JitRuntime::new(JitConfig::new()).expect("it is valid");
    let region = RegionAllocator::new(RegionConfig::new()).expect("metadata");
    let mapped = region
        .map(&Request::bytes(1), Commit::READ_WRITE, 0)
        .expect("memory");
    // SAFETY: mapped just now.
    unsafe { region.unmap(mapped) }.expect("ours");
    let map = RangeMap::new(AddressRange::LOW_4G, PageSize::KIB_4, 1 << 20).expect("metadata");
    let page = AddressRange::from_len(4096, 4096).expect("not empty");
    map.insert_new(page, true).expect("metadata");
    assert_eq!(map.query(5000), Some((page, true)));
}

#[test]
fn a_low_heap_lies_below_4_gib_and_heaps_in_statics_open_themselves() {
    let heap = low_heap(HeapConfig::new()).expect("metadata");
    for size in [1, 1000, 100_000, 10 << 20] {
        let block = heap.alloc_bytes(size).expect("memory");
        assert!(block.addr().get() + size <= GUEST_END);
        let block = LOW_HEAP.alloc_bytes(size).expect("memory");
        assert!(block.addr().get() + size <= GUEST_END);
        assert!(LOW_HEAP.owns(block.addr().get()) && !heap.owns(block.addr().get()));
        // SAFETY: live, and not used any more.
        unsafe { LOW_HEAP.free(block) }.expect("live");
    }
}

/// Reserves a page from `start` upwards where anybody could still map one; returns where.
fn free_above(start: usize) -> Option<usize> {
    let range = AddressRange::new(start, usize::MAX)?;
    let got = OsProvider::new().reserve(&Request::bytes(4096).within(range));
    got.ok().map(|pages| pages.addr())
}

#[test]
fn a_region_above_an_address_has_all_that_was_free_there() {
    isolated!(
        "a_region_above_an_address_has_all_that_was_free_there",
        || {
            let (region, report) = region_above(GUEST_END, RegionConfig::new()).expect("metadata");
            assert!(!report.full);
            assert_eq!(report.missed.bytes, 0, "{report:?}");
            assert!(region.is_active());
            // Room for the stack is left; 64 TiB are half of the least that Linux has.
            assert!(region.statistics().adopted > 64 << 40);
            let heap = RegionHeap::on(&region, &region, HeapConfig::new()).expect("metadata");
            let block = heap.alloc_bytes(100 << 20).expect("memory");
            assert!(block.addr().get() >= GUEST_END);
            let found = region.query(block.addr().get()).expect("the region's");
            assert!(matches!(found.state, PageState::Committed(_)));
            let jit = generic::JitAllocator::on(&region, &region, JitConfig::new());
            let span = jit.as_ref().expect("it is valid").alloc(1).expect("memory");
            assert!(span.rx().addr().get() >= GUEST_END);
        },
    );
}

#[test]
fn slots_of_a_claim_are_left_nowhere() {
    isolated!("slots_of_a_claim_are_left_nowhere", || {
        // All addresses: the slots lie in the range, where nothing below it is free.
        let region = RegionAllocator::new(RegionConfig::new()).expect("metadata");
        let report = adopt_claim(&region, &ClaimRequest::above(1)).expect("metadata");
        assert_eq!(report.missed.bytes, 0, "{report:?}");
        // What is free now is room that the claim leaves on purpose: near a stack.
        if let Some(addr) = free_above(0) {
            let stack = OsProvider::new()
                .address_space()
                .stack
                .expect("Linux tells");
            let room = report.stack_room + (1 << 30);
            assert!(
                addr.abs_diff(stack) < room,
                "{addr:#x} is free, the stack is at {stack:#x}"
            );
        }
    });
}

#[test]
fn a_claim_that_cannot_be_adopted_is_given_back() {
    isolated!("a_claim_that_cannot_be_adopted_is_given_back", || {
        // Too little metadata for any range.
        let config = RegionConfig::new().metadata(4096);
        let before = free_above(GUEST_END);
        match region_above(GUEST_END, config) {
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::InvalidArgument);
                assert_eq!(free_above(GUEST_END).is_some(), before.is_some());
            }
            Ok((region, report)) => {
                assert!(region.is_active() && !report.full);
            }
        }
    });
}

#[test]
fn a_static_region_is_one_for_all_threads_and_for_their_children() {
    if skip_emulated("knows no clone of this kind") {
        return;
    }
    isolated!(
        "a_static_region_is_one_for_all_threads_and_for_their_children",
        || {
            let opened: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| core::ptr::from_ref(HOST.get().expect("memory")).addr())
                    })
                    .collect();
                let addresses = threads
                    .into_iter()
                    .map(|thread| thread.join().expect("no panic"));
                addresses.collect()
            });
            assert!(opened.iter().all(|addr| *addr == opened[0]));
            let before = IN_REGION.alloc_bytes(1000).expect("memory");
            HOST.claim_above(GUEST_END).expect("metadata");
            let region = HOST.get().expect("it is open");
            let (done, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
            thread::scope(|scope| {
                for _ in 0..2 {
                    // Both hold the region's lock most of the time.
                    scope.spawn(|| {
                        while !stop.load(Ordering::Relaxed) {
                            let pages = region.map(&Request::bytes(1 << 16), Commit::READ_WRITE, 1);
                            // SAFETY: mapped just now.
                            unsafe { region.unmap(pages.expect("memory")) }.expect("ours");
                            let block = IN_REGION.alloc_bytes(3 << 20).expect("memory");
                            // SAFETY: live, and not used any more.
                            unsafe { IN_REGION.free(block) }.expect("live");
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
                for _ in 0..100 {
                    let seen = done.load(Ordering::Relaxed);
                    let pid = bare_fork();
                    if pid == 0 {
                        // SAFETY: it ends this process if it hangs.
                        unsafe { libc::alarm(100) };
                        let pages = region.map(&Request::bytes(1 << 16), Commit::READ_WRITE, 2);
                        let block = IN_REGION.alloc_bytes(5 << 20);
                        let is_right = pages.is_ok_and(|pages| pages.addr() >= GUEST_END)
                            && block.is_ok_and(|block| block.addr().get() >= GUEST_END)
                            && IN_REGION.owns(before.addr().get());
                        exit(i32::from(!is_right));
                    }
                    assert_eq!(wait(pid), 0);
                    while done.load(Ordering::Relaxed) == seen {
                        thread::yield_now();
                    }
                }
                stop.store(true, Ordering::Relaxed);
            });
            // SAFETY: live, and not used any more.
            unsafe { IN_REGION.free(before) }.expect("live");
        },
    );
}
