//! The metadata arena against an oracle that remembers every byte.

use core::{
    alloc::Layout,
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};
use hostmem::{
    OsLock, OsProvider,
    arena::Arena,
    counted::{Counted, Limits},
    jit::{JitAllocator, JitConfig},
    page::{Access, AddressRange, PageRange, PageSize},
    provider::{Capabilities, Commit, Error, ErrorKind, PageProvider, Purged, Request, Within},
    range_map::RangeMap,
    region::{RegionAllocator, RegionConfig},
    sim::{Calls, Faulty, Policy, Sim},
};
use hostmem_test_support::{
    isolate::{isolated, skip},
    maps,
};
use proptest::prelude::*;
use std::sync::Mutex;

#[derive(Clone, Debug)]
enum Op {
    Alloc {
        size: usize,
        align: u32,
        zeroed: bool,
    },
    Free {
        which: usize,
    },
    /// Reservations and commits fail from here on, or again do not.
    Fail(bool),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let size = prop_oneof![
        8 => 1..100usize,
        8 => 1..5_000usize,
        8 => 1..200_000usize,
        1 => 1_000_000..3_000_000usize,
    ];
    let op = prop_oneof![
        6 => (size, 0..13u32, any::<bool>())
            .prop_map(|(size, align, zeroed)| Op::Alloc { size, align, zeroed }),
        4 => any::<usize>().prop_map(|which| Op::Free { which }),
        1 => any::<bool>().prop_map(Op::Fail),
    ];
    prop::collection::vec(op, 1..120)
}

struct Block {
    memory: NonNull<u8>,
    layout: Layout,
    tag: u8,
}

fn check_blocks(blocks: &[Block]) {
    for (n, block) in blocks.iter().enumerate() {
        let bytes = NonNull::slice_from_raw_parts(block.memory, block.layout.size());
        // SAFETY: a live allocation, all of it filled, and nobody writes it meanwhile.
        let bytes = unsafe { bytes.as_ref() };
        assert!(
            bytes.iter().all(|&byte| byte == block.tag),
            "block {n} lost its bytes"
        );
    }
}

fn run(ops: &[Op], page: PageSize, max: usize) {
    let sim = Sim::new(OsProvider::new(), Policy::new(page).space(64 << 20)).expect("mapped");
    let faulty = Faulty::new(&sim);
    faulty.only(Calls::COMMIT | Calls::RESERVE);
    let mut blocks: Vec<Block> = Vec::new();
    {
        let arena: Arena<_> = Arena::new(&faulty, max).expect("a valid bound");
        let mut failing = false;
        for (n, op) in ops.iter().enumerate() {
            match *op {
                Op::Alloc {
                    size,
                    align,
                    zeroed,
                } => {
                    let layout = Layout::from_size_align(size, 1 << align).expect("valid");
                    let held = || (arena.committed_bytes(), arena.reserved_bytes());
                    let before = held();
                    let found = if zeroed {
                        arena.alloc_zeroed(layout)
                    } else {
                        arena.alloc(layout)
                    };
                    match found {
                        Ok(memory) => {
                            if zeroed {
                                let bytes = NonNull::slice_from_raw_parts(memory, size);
                                // SAFETY: fresh memory of this size, which reads zero.
                                let bytes = unsafe { bytes.as_ref() };
                                assert!(bytes.iter().all(|&byte| byte == 0), "not zero");
                            }
                            assert_eq!(memory.addr().get() % layout.align(), 0);
                            let start = memory.addr().get();
                            for other in &blocks {
                                let at = other.memory.addr().get();
                                let apart = at + other.layout.size() <= start || start + size <= at;
                                assert!(apart, "blocks overlap");
                            }
                            let tag = u8::try_from(n).expect("at most 120 operations");
                            // SAFETY: fresh memory of this size.
                            unsafe { memory.write_bytes(tag, size) };
                            blocks.push(Block {
                                memory,
                                layout,
                                tag,
                            });
                        }
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Exhausted);
                            assert_eq!(
                                error.errno().is_some(),
                                failing && error.errno() == Some(12),
                                "only the provider's errors have a number"
                            );
                            assert_eq!(held(), before, "a failure changes nothing");
                        }
                    }
                }
                Op::Free { which } if !blocks.is_empty() => {
                    let block = blocks.swap_remove(which % blocks.len());
                    // SAFETY: allocated with this layout, and forgotten now.
                    unsafe { arena.free(block.memory, block.layout) };
                }
                Op::Free { .. } => {}
                Op::Fail(on) => {
                    failing = on;
                    if on {
                        faulty.fail_randomly(0, 1)
                    } else {
                        faulty.fail_none()
                    }
                }
            }
            assert!(arena.committed_bytes() <= arena.reserved_bytes());
            assert!(arena.reserved_bytes() <= arena.max_bytes());
        }
        check_blocks(&blocks);
        let live: usize = blocks.iter().map(|block| block.layout.size()).sum();
        assert!(arena.used_bytes() >= live);
        for block in blocks.drain(..) {
            // SAFETY: as above.
            unsafe { arena.free(block.memory, block.layout) };
        }
        assert_eq!(arena.used_bytes(), 0, "all of it came back");
    }
    assert_eq!(sim.take_misuse(), None);
    assert_eq!(sim.pages_in_use(), 0, "the arena gave its addresses back");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn allocations_are_apart_aligned_and_keep_their_bytes(ops in ops()) {
        for page in [PageSize::KIB_4, PageSize::KIB_16, PageSize::KIB_64] {
            run(&ops, page, 1 << 20);
            run(&ops, page, 16 << 20);
        }
    }
}

#[test]
fn at_its_bound_the_arena_says_so_and_serves_again() {
    let arena: Arena<OsProvider> = Arena::new(OsProvider::new(), 1 << 20).expect("reserved");
    let layout = Layout::from_size_align(100_000, 8).expect("valid");
    let mut blocks = Vec::new();
    let error = loop {
        match arena.alloc(layout) {
            Ok(block) => blocks.push(block),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(
        (8..=10).contains(&blocks.len()),
        "{} blocks of 100 kB in 1 MiB",
        blocks.len()
    );
    let last = blocks.pop().expect("some");
    // SAFETY: allocated with this layout, and forgotten now.
    unsafe { arena.free(last, layout) };
    arena.alloc(layout).expect("there is room again");
    let zero = Layout::from_size_align(0, 1).expect("valid");
    assert_eq!(
        arena.alloc(zero).map(drop).map_err(|e| e.kind()),
        Err(ErrorKind::InvalidArgument)
    );
}

#[test]
fn objects_come_from_larger_ones_at_the_bound() {
    let layout = |size| Layout::from_size_align(size, 8).expect("valid");
    // Out of the pools, and out of the list.
    for (large, small) in [(20_000, 100), (40_000, 3000)] {
        let arena: Arena<_> = Arena::new(OsProvider::new(), 256 << 10).expect("a valid bound");
        let mut blocks = Vec::new();
        for size in [large, small] {
            while let Ok(block) = arena.alloc(layout(size)) {
                blocks.push(block);
            }
        }
        assert!(
            arena.used_bytes() > arena.max_bytes() * 9 / 10,
            "it is full"
        );
        // SAFETY: the first block was allocated with this layout, and is forgotten now.
        unsafe { arena.free(blocks.swap_remove(0), layout(large)) };
        let mut found: Vec<NonNull<u8>> = Vec::new();
        while let Ok(block) = arena.alloc(layout(small)) {
            // SAFETY: fresh memory of this size.
            unsafe { block.write_bytes(1, small) };
            let apart = |other: &NonNull<u8>| block.addr().get().abs_diff(other.addr().get());
            assert!(found.iter().all(|other| apart(other) >= small), "overlap");
            found.push(block);
        }
        let served = found.len() * small;
        assert!(served > large * 6 / 10, "{served} bytes of {large}");
    }
}

/// A provider that remembers what was reserved and is reserved still.
struct Recording {
    ranges: Mutex<Vec<PageRange>>,
    reserved: AtomicUsize,
}

impl Recording {
    const fn new() -> Self {
        Self {
            ranges: Mutex::new(Vec::new()),
            reserved: AtomicUsize::new(0),
        }
    }

    fn bytes(&self) -> usize {
        let ranges = self.ranges.lock().expect("no test panics under it");
        ranges.iter().map(|range| range.len_bytes()).sum()
    }

    /// Counts the pages that have memory.
    fn resident_pages(&self) -> usize {
        let page = OsProvider::new().page_size().bytes();
        let ranges = self.ranges.lock().expect("no test panics under it");
        let resident = |range: &PageRange| {
            let mut pages = vec![0_u8; range.len_bytes() / page];
            // SAFETY: the vector has a byte for each page.
            let done = unsafe {
                libc::mincore(
                    range.start().as_ptr().cast(),
                    range.len_bytes(),
                    pages.as_mut_ptr(),
                )
            };
            assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
            pages.iter().filter(|&&page| page & 1 == 1).count()
        };
        ranges.iter().map(resident).sum()
    }
}

// SAFETY: every call goes on to the system's provider.
unsafe impl PageProvider for Recording {
    fn page_size(&self) -> PageSize {
        OsProvider::new().page_size()
    }

    fn capabilities(&self) -> Capabilities {
        OsProvider::new().capabilities()
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        let range = OsProvider::new().reserve(request)?;
        self.reserved.fetch_add(1, Relaxed);
        self.ranges.lock().expect("no test panics").push(range);
        Ok(range)
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        // SAFETY: the caller's promise, passed on.
        unsafe { OsProvider::new().commit(range, how) }
    }

    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error> {
        // SAFETY: the caller's promise, passed on.
        unsafe { OsProvider::new().protect(range, access) }
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the caller's promise, passed on.
        unsafe { OsProvider::new().decommit(range) }
    }

    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        // SAFETY: the caller's promise, passed on.
        unsafe { OsProvider::new().purge(range) }
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        // SAFETY: the caller's promise, passed on.
        unsafe { OsProvider::new().release(range) }?;
        let mut ranges = self.ranges.lock().expect("no test panics");
        ranges.retain(|other| *other != range);
        Ok(())
    }
}

#[test]
fn a_small_program_has_a_small_arena() {
    let host = Recording::new();
    let arena: Arena<_> = Arena::new(&host, 1 << 30).expect("a valid bound");
    assert_eq!((host.bytes(), arena.reserved_bytes()), (0, 0));
    arena.alloc(Layout::new::<u64>()).expect("there is memory");
    assert_eq!(host.bytes(), 64 << 10);
    assert_eq!(host.reserved.load(Relaxed), 1);
    assert_eq!(arena.reserved_bytes(), 64 << 10);
    if !crate::common::skip_emulated("does not tell what is resident") {
        assert_eq!(host.resident_pages(), 1);
    }
    drop(arena);
    assert_eq!(host.bytes(), 0);
}

#[test]
fn no_page_is_written_before_something_lies_in_it() {
    let large = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    if large.is_ok_and(|modes| modes.contains("[always]")) {
        return skip("this host gives large pages unasked");
    }
    if crate::common::skip_emulated("does not tell what is resident") {
        return;
    }
    let host = Recording::new();
    let arena: Arena<_> = Arena::new(&host, 1 << 30).expect("a valid bound");
    // All kinds: pools, the list, and a piece of its own. Not so much that large pages are asked
    // for.
    let sizes = [20_000, 30_000, 100_000, 700_000];
    for size in sizes.into_iter().cycle().take(16).chain([3 << 20]) {
        let layout = Layout::from_size_align(size, 64).expect("valid");
        arena.alloc_zeroed(layout).expect("there is memory");
    }
    let pieces = host.reserved.load(Relaxed);
    let resident = host.resident_pages();
    // A header each, and what aligning leaves in between, which is put to use.
    assert!(resident <= pieces + 8, "{resident} pages, {pieces} pieces");
}

#[test]
fn ten_functions_take_two_pages_of_metadata() {
    let host = Recording::new();
    let code = Counted::<_, OsLock>::new(OsProvider::new(), "code", Limits::NONE);
    let code = code.expect("book-keeping");
    let jit: JitAllocator<_, _, OsLock> =
        JitAllocator::on(&code, &host, JitConfig::new()).expect("a valid configuration");
    let spans: Vec<_> = (0..10)
        .map(|n| {
            let mut span = jit.alloc(100 + 50 * n).expect("there is memory");
            jit.write(&mut span, 0, &crate::common::code_returning(7))
                .expect("written");
            span
        })
        .collect();
    let code_bytes = 2 * code.counters().dual.now + code.counters().reserved.now;
    assert!(
        host.bytes() + code_bytes <= 512 << 10,
        "{} bytes of metadata, {code_bytes} of code",
        host.bytes()
    );
    if !crate::common::skip_emulated("does not tell what is resident") {
        let pages = host.resident_pages();
        assert!(pages <= 2, "{pages} pages of metadata");
    }
    drop(spans);
}

#[test]
fn a_small_span_in_a_large_block_takes_little_metadata() {
    let host = Recording::new();
    let config = JitConfig::new().block_size(256 << 20, 256 << 20);
    let jit: JitAllocator<_, _, OsLock> =
        JitAllocator::on(OsProvider::new(), &host, config).expect("a valid configuration");
    let Ok(_span) = jit.alloc(64) else {
        return skip("no room for 256 MiB of code");
    };
    if !crate::common::skip_emulated("does not tell what is resident") {
        let pages = host.resident_pages();
        assert!(pages <= 12, "{pages} pages of metadata");
    }
}

#[test]
fn metadata_of_a_long_span_goes_with_it() {
    let host = Recording::new();
    let faulty = Faulty::new(OsProvider::new());
    let jit: JitAllocator<_, _, OsLock> =
        JitAllocator::on(&faulty, &host, JitConfig::new()).expect("a valid configuration");
    let small = jit.alloc(64).expect("there is room");
    let before = (host.bytes(), jit.statistics().metadata);
    // One that cannot be mapped.
    faulty.only(Calls::MAP_DUAL);
    for _ in 0..3 {
        faulty.fail_randomly(1, 1);
        jit.alloc(1 << 34).expect_err("nothing can be mapped");
        assert_eq!((host.bytes(), jit.statistics().metadata), before);
    }
    faulty.fail_none();
    // One that can.
    for _ in 0..3 {
        let Ok(long) = jit.alloc(512 << 20) else {
            return skip("no room for 512 MiB of code");
        };
        jit.release(long).expect("it is live");
        if !crate::common::skip_emulated("does not tell what is resident") {
            let pages = host.resident_pages();
            assert!(pages <= 16, "{pages} pages of metadata");
        }
    }
    jit.release(small).expect("it is live");
}

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

/// Sets a limit of this process, for good.
fn set_limit(resource: libc::__rlimit_resource_t, bytes: usize) {
    let limit = libc::rlimit {
        rlim_cur: bytes as u64,
        rlim_max: bytes as u64,
    };
    // SAFETY: the structure outlives the call.
    let done = unsafe { libc::setrlimit(resource, &raw const limit) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
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
