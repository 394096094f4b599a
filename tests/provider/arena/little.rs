//! What works with little: in a window, and under a limit of addresses.

use crate::common::limits::set_limit;
use core::alloc::Layout;
use hostmem::{
    OsLock, OsProvider,
    arena::Arena,
    counted::{Counted, Limits},
    jit::{JitAllocator, JitConfig},
    page::{AddressRange, PageRange, PageSize},
    provider::{Commit, ErrorKind, PageProvider, Request, Within},
    range_map::RangeMap,
    region::{RegionAllocator, RegionConfig},
};
use hostmem_test_support::{isolate::isolated, maps};

/// A window that nothing else is in, `len` bytes long.
fn window(len: usize) -> (PageRange, AddressRange) {
    let os = OsProvider::new();
    let range = os.reserve(&Request::bytes(len)).expect("addresses");
    // SAFETY: reserved just now, and used by no other code: what is wanted is a hole.
    unsafe { os.release(range) }.expect("released");
    (range, range.addresses())
}

#[test]
fn a_window_is_not_used_up_by_what_is_reserved_ahead() {
    // Others may map into a window meanwhile, which a process of its own keeps from happening.
    let name = "a_window_is_not_used_up_by_what_is_reserved_ahead";
    isolated!(name, || {
        for len in [256 << 10, 1 << 20, 4 << 20, 16 << 20] {
            let (_, addresses) = window(len);
            let within = Within::new(OsProvider::new(), addresses);
            let arena: Arena<_> = Arena::new(within, 1 << 30).expect("a valid bound");
            arena.alloc(Layout::new::<u64>()).expect("there is room");
            assert!(arena.reserved_bytes() <= 64 << 10);
            let layout = Layout::from_size_align(500, 8).expect("valid");
            let mut before = arena.reserved_bytes();
            let mut served = 0;
            while arena.alloc(layout).is_ok() {
                served += layout.size();
                let reserved = arena.reserved_bytes();
                // What is left of a window is not known: it counts as free.
                let page = within.page_size().bytes();
                let ahead = (reserved - before).saturating_sub(2 * page);
                assert!(before == 64 << 10 || ahead <= len / 64, "{ahead} of {len}");
                before = reserved;
            }
            assert!(served >= len * 8 / 10, "{served} of {len}");
        }
    });
}

#[test]
fn a_map_of_ranges_works_with_little() {
    let bounds = AddressRange::from_len(0, 1 << 40).expect("a range");
    let page = PageSize::KIB_4;
    for (max, least) in [(16 << 10, 100), (64 << 10, 1000), (1 << 20, 20_000)] {
        let map: RangeMap<u32, _, OsLock> =
            RangeMap::on(OsProvider::new(), bounds, page, max).expect("valid");
        let range = |n: usize| AddressRange::from_len(n << 14, 1 << 12).expect("a page");
        let mut count = 0;
        let error = loop {
            match map.insert_new(range(count), 1) {
                Ok(()) => count += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert!(count >= least, "{count} ranges in {max} bytes");
        assert!(map.statistics().metadata_bytes <= max);
        assert!((0..count).all(|n| map.query(n << 14) == Some((range(n), 1))));
        assert_eq!(map.query(count << 14), None);
    }
}

/// Runs `body` where a megabyte of addresses is left.
fn with_a_megabyte(name: &str, body: fn()) {
    isolated!(name, || {
        // What the test itself needs is there before.
        let spare: Vec<u8> = Vec::with_capacity(1 << 16);
        drop(spare);
        let maps = maps::of_self().expect("a process map");
        let used: usize = maps.iter().map(|m| m.end - m.start).sum();
        set_limit(libc::RLIMIT_AS, used + (1 << 20));
        body();
    });
}

#[test]
fn a_counter_starts_under_a_limit_of_addresses() {
    with_a_megabyte("a_counter_starts_under_a_limit_of_addresses", || {
        let counted = Counted::<_, OsLock>::new(OsProvider::new(), "test", Limits::NONE);
        let counted = counted.expect("a counter");
        let range = counted.reserve(&Request::bytes(1 << 16)).expect("room");
        // SAFETY: reserved just now.
        unsafe { counted.commit(range, Commit::READ_WRITE) }.expect("committed");
        assert_eq!(counted.counters().committed.now, 1 << 16);
    });
}

#[test]
fn a_range_map_starts_under_a_limit_of_addresses() {
    with_a_megabyte("a_range_map_starts_under_a_limit_of_addresses", || {
        let (bounds, page) = (AddressRange::LOW_4G, PageSize::KIB_4);
        let map: RangeMap<u32, _, OsLock> =
            RangeMap::on(OsProvider::new(), bounds, page, 1 << 30).expect("a map");
        for n in 0..10_000 {
            let range = AddressRange::from_len(n << 13, 1 << 12).expect("a page");
            map.insert_new(range, 1).expect("there is room");
        }
        assert_eq!(map.statistics().ranges, 10_000);
    });
}

#[test]
fn a_region_starts_under_a_limit_of_addresses() {
    with_a_megabyte("a_region_starts_under_a_limit_of_addresses", || {
        let os = OsProvider::new();
        let range = os.reserve(&Request::bytes(256 << 10)).expect("room");
        let region: RegionAllocator<_, _, OsLock> =
            RegionAllocator::on(os, os, RegionConfig::new()).expect("a region allocator");
        // SAFETY: reserved just now, and given to the region.
        unsafe { region.adopt(range) }.expect("given");
        let part = region.reserve(&Request::bytes(64 << 10)).expect("room");
        // SAFETY: reserved just now.
        unsafe { region.commit(part, Commit::READ_WRITE) }.expect("committed");
    });
}

#[test]
fn a_jit_allocator_starts_under_a_limit_of_addresses() {
    with_a_megabyte("a_jit_allocator_starts_under_a_limit_of_addresses", || {
        let os = OsProvider::new();
        let jit: JitAllocator<_, _, OsLock> =
            JitAllocator::on(os, os, JitConfig::new()).expect("an allocator");
        for _ in 0..100 {
            let mut span = jit.alloc(100).expect("there is room");
            jit.write(&mut span, 0, &crate::common::code_returning(7))
                .expect("written");
        }
    });
}
