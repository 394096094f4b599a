//! Code blocks that have grown leave others the most of what a limit of addresses leaves, on a
//! simulated host, in windows and under `ulimit -v`; and nearly all of it can be had in the end.

use crate::{
    code::{Jit, OS},
    common::skip_emulated,
};
use hostmem::{
    OsLock, OsProvider,
    jit::{CodeProvider, JitConfig, JitError, LargePages, Mapping, Span},
    page::{AddressRange, PageSize},
    provider::{PageProvider, Placement, Request, Resource, Within},
    region::{RegionAllocator, RegionConfig},
    sim::{Policy, Sim},
};
use hostmem_test_support::isolate::isolated;
use std::collections::BTreeSet;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The part of what is left that a block may take with its views.
const PART: usize = 64;

/// How many views a block has.
fn views(mapping: Mapping) -> usize {
    if mapping == Mapping::Dual { 2 } else { 1 }
}

/// Allocates spans of `size` bytes until there is no room, and looks at each new block. Returns the
/// spans, and the bytes of all views.
fn fill<P: CodeProvider + Copy>(provider: P, jit: &Jit<P>, size: usize) -> (Vec<Span>, usize) {
    let config = jit.config();
    let (first, views) = (config.block_size_bytes(), views(jit.mapping().0));
    let (mut spans, mut known, mut taken) = (Vec::new(), BTreeSet::new(), 0);
    // A span takes no addresses, but what this test notes comes and goes under the same limit.
    let left = || {
        provider
            .left(Resource::Addresses)
            .expect("there is a limit")
            + 4 * MIB
    };
    let mut before = left();
    loop {
        let reserved = jit.statistics().reserved;
        match jit.alloc(size) {
            Ok(span) => spans.push(span),
            // Metadata comes from the same addresses, of which this test takes some, too.
            Err(JitError::Map(_) | JitError::Metadata(_)) => return (spans, taken),
            Err(error) => panic!("{error}"),
        }
        if jit.statistics().reserved == reserved {
            continue;
        }
        for block in jit.blocks() {
            let (at, len) = (block.rx.addr(), block.rx.len_bytes());
            if known.insert(at) {
                taken += views * len;
                // A block that is made for one span is as long as that.
                let needed = (size + 2 * KIB).next_multiple_of(first);
                assert!(
                    views * len <= before / PART || len <= needed,
                    "a block of {len} bytes where {before} or less are left"
                );
            }
        }
        before = left();
    }
}

/// Configurations, and sizes of spans.
fn cases() -> impl Iterator<Item = (JitConfig, usize)> {
    let large = LargePages::Wish { bytes: 2 * MIB };
    let plain = JitConfig::new();
    [
        (plain, 4 * KIB),
        (plain, 20 * KIB),
        (plain, 300 * KIB),
        (plain.block_size(64 * KIB, 256 * MIB), 20 * KIB),
        (plain.large_pages(large), 20 * KIB),
    ]
    .into_iter()
    .flat_map(|(config, size)| {
        [Mapping::Dual, Mapping::Toggle].map(|mapping| (config.mapping(mapping), size))
    })
}

/// Fills what `provider` has with spans of several sizes; `space` bytes were free at first.
fn serves_bit_by_bit<P: CodeProvider + Copy>(provider: P, space: usize, what: &str) {
    for (config, size) in cases() {
        let jit = Jit::on(provider, OS, config).expect("it is valid");
        let (spans, taken) = fill(provider, &jit, size);
        let first = config.block_size_bytes().max(2 * size);
        // Metadata, and this test's own lists of spans and blocks, come from the same addresses.
        let own = MIB / 2;
        assert!(
            taken + space / 10 + 2 * first + own >= space,
            "{what}, {config:?}, {size}: {taken} of {space} bytes"
        );
        for span in spans {
            jit.release(span).expect("once");
        }
    }
}

#[test]
fn blocks_of_a_simulated_host_leave_room() {
    for (page, space) in [(PageSize::KIB_4, 64 * MIB), (PageSize::KIB_16, 200 * MIB)] {
        let sim = Sim::new(OS, Policy::new(page).space(space)).expect("the base has room");
        serves_bit_by_bit(&sim, space, "a simulated host");
        assert_eq!(sim.take_misuse(), None);
        assert_eq!(sim.left(Resource::Addresses), Some(space), "all went back");
    }
}

#[test]
fn blocks_in_a_region_leave_room() {
    let space = OS.reserve(&Request::bytes(96 * MIB)).expect("addresses");
    let region: RegionAllocator<OsProvider, OsProvider, OsLock> =
        RegionAllocator::on(OS, OS, RegionConfig::new()).expect("metadata");
    // SAFETY: reserved just now, and the region's until the end.
    unsafe { region.adopt(space) }.expect("fresh addresses");
    serves_bit_by_bit(&region, space.len_bytes(), "a region");
}

/// Windows without any limit: those of a provider, of a configuration and of a request are alike.
#[test]
fn blocks_in_a_window_take_a_small_part_of_it() {
    isolated!("blocks_in_a_window_take_a_small_part_of_it", || {
        let window = OS.reserve(&Request::bytes(128 * MIB)).expect("addresses");
        // SAFETY: reserved just now, and not used.
        unsafe { OS.release(window) }.expect("it is reserved");
        let window = window.addresses();
        let most = |jit: &dyn Fn() -> usize| {
            let longest = jit();
            assert!(longest > 128 * KIB, "blocks grow: {longest}");
            assert!(longest <= 2 * MIB, "{longest} of 128 MiB");
        };
        let longest = |blocks: &mut dyn Iterator<Item = usize>| blocks.max().unwrap_or(0);
        most(&|| {
            let within = Within::new(OS, window);
            let jit = Jit::on(within, OS, JitConfig::new()).expect("it is valid");
            let spans: Vec<_> = (0..800).map(|_| jit.alloc(20_000).expect("room")).collect();
            assert!(spans.len() == 800);
            longest(&mut jit.blocks().map(|block| block.rx.len_bytes()))
        });
        most(&|| {
            let config = JitConfig::new().rx(Placement::within(window));
            let jit = Jit::on(OS, OS, config).expect("it is valid");
            let spans: Vec<_> = (0..800).map(|_| jit.alloc(20_000).expect("room")).collect();
            assert!(spans.len() == 800);
            longest(&mut jit.blocks().map(|block| block.rx.len_bytes()))
        });
        most(&|| {
            let jit = Jit::on(OS, OS, JitConfig::new()).expect("it is valid");
            let place = Placement::within(window);
            let alloc = |_| jit.alloc_with(20_000, place).expect("room");
            let spans: Vec<_> = (0..800).map(alloc).collect();
            assert!(spans.len() == 800);
            longest(&mut jit.blocks().map(|block| block.rx.len_bytes()))
        });
    });
}

/// A window that was full has room again: blocks start small there, and grow.
#[test]
fn blocks_grow_again_where_a_window_was_full() {
    isolated!("blocks_grow_again_where_a_window_was_full", || {
        let room = OS.reserve(&Request::bytes(64 * MIB)).expect("addresses");
        let window = AddressRange::from_len(room.addr(), room.len_bytes()).expect("a range");
        let place = Placement::within(window);
        let jit = Jit::on(OS, OS, JitConfig::new()).expect("it is valid");
        let mut spans: Vec<_> = (0..100).map(|_| jit.alloc(20_000).expect("room")).collect();
        for _ in 0..2 {
            jit.alloc_with(20_000, place)
                .expect_err("the window is taken");
        }
        // SAFETY: reserved by the test, and not used.
        unsafe { OS.release(room) }.expect("it is reserved");
        let blocks = || {
            let inside = jit.blocks().map(|block| block.rx);
            let inside = inside.filter(|rx| window.contains_range(rx.addresses()));
            inside.map(|rx| rx.len_bytes()).collect::<BTreeSet<_>>()
        };
        spans.push(jit.alloc_with(20_000, place).expect("there is room"));
        assert_eq!(blocks(), BTreeSet::from([128 * KIB]));
        for _ in 0..50 {
            spans.push(jit.alloc_with(20_000, place).expect("there is room"));
        }
        assert!(blocks().len() > 1, "{:?}", blocks());
    });
}

/// Limits the addresses of this process to `bytes` more than it has; the hard limit stays.
fn limit_addresses(bytes: Option<usize>) {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    if let Some(bytes) = bytes {
        limit.rlim_cur = (bytes_mapped() + bytes) as u64;
    }
    // SAFETY: the structure outlives the call.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// Returns the bytes that the kernel counts (`VmSize`).
fn bytes_mapped() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kib.expect("a number of kilobytes") * KIB
}

#[test]
fn blocks_under_a_limit_of_addresses_leave_room() {
    if skip_emulated("has no limit of addresses") {
        return;
    }
    isolated!("blocks_under_a_limit_of_addresses_leave_room", || {
        for space in [24 * MIB, 100 * MIB, 200 * MIB] {
            limit_addresses(Some(space));
            serves_bit_by_bit(OS, space, "a limit");
            limit_addresses(None);
        }
    });
}

/// A limit that comes when blocks have grown already counts for the next one.
#[test]
fn a_limit_that_comes_late_is_kept() {
    if skip_emulated("has no limit of addresses") {
        return;
    }
    isolated!("a_limit_that_comes_late_is_kept", || {
        let jit = Jit::on(OS, OS, JitConfig::new()).expect("it is valid");
        let mut spans = Vec::new();
        while jit.statistics().reserved < 60 * MIB {
            spans.push(jit.alloc(100 * KIB).expect("there is no limit"));
        }
        let longest = jit.blocks().map(|block| block.rx.len_bytes()).max();
        assert_eq!(
            longest,
            Some(32 * MIB),
            "blocks grow where nothing is short"
        );
        limit_addresses(Some(64 * MIB));
        let before = jit.statistics().reserved;
        while jit.statistics().reserved == before {
            spans.push(jit.alloc(100 * KIB).expect("there is room"));
        }
        let got = jit.statistics().reserved - before;
        assert!(got <= 512 * KIB, "{got} bytes of 64 MiB");
        limit_addresses(None);
    });
}
