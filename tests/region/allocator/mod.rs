//! R10, R11 and R12 on real Linux, the allocator's half: what lies in a claim, and nowhere else.

mod signals;

use crate::{
    common::{CODE_LEN, call, code_returning, skip_emulated},
    space::{OS, Region, claim_above_4_gib, mappings_in},
};
use core::{ffi::c_void, ptr::null_mut};
use hostmem::{
    OsLock,
    jit::{JitAllocator, JitConfig},
    page::{Access, AddressRange, PageRange},
    provider::{Commit, Error, ErrorKind, PageProvider, ProcessMap, Request},
    region::{GuardedStack, MappingPressure, PageState, RegionConfig},
};
use hostmem_test_support::isolate;
use std::{io, os::fd::AsRawFd};

const GIB: usize = 1 << 30;
const LOW: AddressRange = AddressRange::LOW_4G;
fn region() -> Region {
    Region::on(OS, OS, RegionConfig::new()).expect("metadata can be reserved")
}

/// The mappings that lie below 4 GiB.
fn low_mappings() -> Vec<AddressRange> {
    let mut found = Vec::with_capacity(64);
    let walked = OS.walk(&mut |entry| {
        let low = LOW.contains_range(entry.range);
        if low {
            assert!(
                found.len() < found.capacity(),
                "nothing is allocated meanwhile"
            );
            found.push(entry.range);
        }
        low
    });
    walked.expect("/proc is mounted");
    found
}

#[test]
fn r12_memory_and_code_above_leave_nothing_below_4_gib() {
    isolate::isolated!(
        "r12_memory_and_code_above_leave_nothing_below_4_gib",
        || {
            if skip_emulated("has mappings that the guest does not see") {
                return;
            }
            let region = region();
            // What was mapped before stays valid.
            let early = region.map(&Request::bytes(1 << 16), Commit::READ_WRITE, 0);
            let early = early.expect("a pass-through");
            let mut spans = Vec::with_capacity(10_000);
            let mut pieces = Vec::with_capacity(1024);
            claim_above_4_gib(&region);
            let before = low_mappings();

            for _ in 0..1024 {
                let piece = region.map(&Request::bytes(1 << 20), Commit::READ_WRITE, 1);
                let piece = piece.expect("there is room");
                assert!(piece.addr() >= 4 * GIB);
                // SAFETY: mapped just now.
                unsafe { piece.start().write_volatile(0xa5) };
                pieces.push(piece);
            }
            let jit = JitAllocator::<_, _, OsLock>::on(&region, &region, JitConfig::new());
            let jit = jit.expect("the configuration is valid");
            for n in 0..10_000_u32 {
                let mut span = jit.alloc(CODE_LEN).expect("there is room");
                assert!(span.rx().addr().get() >= 4 * GIB && span.rw().addr().get() >= 4 * GIB);
                jit.write(&mut span, 0, &code_returning(n)).expect("ours");
                spans.push(span);
            }
            let stack = GuardedStack::new(&region, 1 << 20, 1 << 16).expect("there is room");
            assert!(stack.base().addr().get() >= 4 * GIB);
            for (n, span) in (0..).zip(&spans).step_by(997) {
                // SAFETY: published above.
                assert_eq!(unsafe { call(span.rx().as_ptr()) }, n);
            }
            assert_eq!(low_mappings(), before, "something new lies below 4 GiB");

            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: a new mapping wherever the kernel likes; nothing is replaced.
            let other = unsafe { libc::mmap(null_mut(), 1 << 16, libc::PROT_NONE, flags, -1, 0) };
            assert!(other.addr() < 4 * GIB, "{other:p}: others land below");

            for span in spans.drain(..) {
                jit.release(span).expect("once");
            }
            drop(jit);
            // SAFETY: no thread runs on it.
            unsafe { stack.release() }.expect("it goes");
            for piece in pieces.drain(..).chain([early]) {
                // SAFETY: no other code uses it.
                unsafe { region.unmap(piece) }.expect("it goes");
            }
            assert_eq!(region.statistics().used, 0);
        },
    );
}

#[test]
fn r10_freed_pages_leave_the_mappings_that_there_were() {
    isolate::isolated!("r10_freed_pages_leave_the_mappings_that_there_were", || {
        const PAGES: usize = 20_000;
        let region = region();
        let page = OS.page_size().bytes();
        let space = OS
            .reserve(&Request::bytes(2 * PAGES * page))
            .expect("addresses");
        // SAFETY: reserved just now, and the region's until the end.
        unsafe { region.adopt(space) }.expect("fresh addresses");
        let one = Request::bytes(page);
        let mut singles = Vec::with_capacity(PAGES);
        let mut pairs = Vec::with_capacity(PAGES / 4);
        // The nodes that the pages need are there, and the process map is quiet.
        for _ in 0..PAGES {
            singles.push(region.map(&one, Commit::READ_WRITE, 0).expect("a page"));
        }
        // SAFETY: no other code uses them.
        unsafe { region.unmap(space) }.expect("all pages go");
        singles.clear();
        let (kernel, ours) = (mappings_in(space), region.host_mappings());
        assert_eq!((kernel, ours), (1, 1));
        for _ in 0..PAGES {
            singles.push(region.map(&one, Commit::READ_WRITE, 0).expect("a page"));
        }
        assert_eq!(
            region.host_mappings(),
            2,
            "pages of equal access are one mapping"
        );
        for page in singles.iter().step_by(2) {
            // SAFETY: no other code uses it.
            unsafe { region.unmap(*page) }.expect("a page can go");
        }
        for _ in 0..PAGES / 4 {
            let pair = region.map(&Request::bytes(2 * page), Commit::READ_WRITE, 0);
            pairs.push(pair.expect("two pages"));
        }
        let kept: Vec<_> = singles.iter().skip(1).step_by(2).chain(&pairs).collect();
        let mut sorted = kept.clone();
        sorted.sort_by_key(|range| range.addr());
        assert!(
            sorted.windows(2).all(|w| w[0].end() <= w[1].addr()),
            "an overlap"
        );
        for range in kept {
            // SAFETY: no other code uses it.
            unsafe { region.unmap(*range) }.expect("everything can go");
        }
        assert_eq!(region.host_mappings(), 1);
        assert_eq!(mappings_in(space), kernel, "mappings of the kernel");
        drop(region);
        // SAFETY: reserved above.
        unsafe { OS.release(space) }.expect("it goes");
    });
}

#[test]
fn files_are_placed_in_it() {
    let region = region();
    let page = OS.page_size().bytes();
    let space = OS.reserve(&Request::bytes(64 * page)).expect("addresses");
    // SAFETY: reserved just now, and the region's until the end.
    unsafe { region.adopt(space) }.expect("fresh addresses");
    let program = std::env::current_exe().expect("a program has a path");
    let file = std::fs::File::open(program).expect("readable");
    let state = PageState::Committed(Access::Read);
    let place = |range: PageRange| {
        let (at, len) = (range.start().as_ptr().cast::<c_void>(), range.len_bytes());
        let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
        // SAFETY: the pages are the region's, and given to this call.
        let got = unsafe { libc::mmap(at, len, libc::PROT_READ, flags, file.as_raw_fd(), 0) };
        if got == at {
            return Ok(());
        }
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
        Err(Error::os(ErrorKind::Other, errno))
    };
    let mapped = region.map_with(&Request::bytes(page), 77, state, place);
    let mapped = mapped.expect("a file can be mapped");
    assert!(space.contains_range(mapped));
    // SAFETY: mapped just now, and a program has more bytes than that.
    let magic = unsafe { mapped.start().cast::<[u8; 4]>().read() };
    assert_eq!(&magic, b"\x7fELF");
    let found = region.query(mapped.addr() + 1).expect("known");
    assert_eq!((found.state, found.tag), (state, 77));

    let denied = Error::of(ErrorKind::Denied);
    let refused = region.map_with(&Request::bytes(page), 0, state, |_| Err(denied));
    assert_eq!(refused, Err(denied), "what the caller says");
    assert_eq!(region.statistics().used, page, "and nothing changed");
    // SAFETY: no other code uses it.
    unsafe { region.unmap(mapped) }.expect("a file can go");
    let fresh = region.map(&Request::bytes(page), Commit::READ_WRITE, 0);
    let fresh = fresh.expect("the lowest page again");
    assert_eq!(fresh, mapped);
    // SAFETY: mapped just now.
    assert_eq!(unsafe { fresh.start().read() }, 0, "nothing of the file");
    drop(region);
    // SAFETY: reserved above; no other code uses it.
    unsafe { OS.release(space) }.expect("it goes");
}

#[test]
fn r11_threads_never_get_the_same_pages() {
    const THREADS: usize = 4;
    let region = region();
    let page = OS.page_size().bytes();
    let space = OS.reserve(&Request::bytes(256 * page)).expect("addresses");
    // SAFETY: reserved just now, and the region's until the end.
    unsafe { region.adopt(space) }.expect("fresh addresses");
    std::thread::scope(|scope| {
        for thread in 1..=THREADS {
            let region = &region;
            scope.spawn(move || {
                let mark = u8::try_from(thread).expect("few");
                for round in 0..400 {
                    let len = (1 + round % 7) * page;
                    let request = Request::bytes(len);
                    let mapped = region.map(&request, Commit::READ_WRITE, u16::from(mark));
                    let mapped = mapped.expect("there is room for all");
                    // SAFETY: mapped just now.
                    unsafe { mapped.start().write_bytes(mark, len) };
                    let found = region.query(mapped.addr()).expect("known");
                    assert_eq!(found.tag, u16::from(mark));
                    assert!(found.addresses.contains_range(mapped.addresses()));
                    // SAFETY: mapped, and this thread's.
                    let bytes =
                        unsafe { core::slice::from_raw_parts(mapped.start().as_ptr(), len) };
                    assert!(bytes.iter().all(|b| *b == mark), "round {round}");
                    // SAFETY: no other code uses it any more.
                    unsafe { region.unmap(mapped) }.expect("it goes");
                }
            });
        }
    });
    assert_eq!(region.statistics().used, 0);
    drop(region);
    // SAFETY: reserved above; no other code uses it.
    unsafe { OS.release(space) }.expect("it goes");
}

#[test]
fn many_mappings_are_warned_of_before_the_host_refuses() {
    let limit = OS.probe_now().max_map_count;
    assert!(limit.is_none_or(|limit| limit > 1000), "{limit:?}");
    let config = RegionConfig::new().mapping_limit(100);
    let region = Region::on(OS, OS, config).expect("metadata can be reserved");
    let page = OS.page_size().bytes();
    let space = OS.reserve(&Request::bytes(256 * page)).expect("addresses");
    // SAFETY: reserved just now, and the region's until the end.
    unsafe { region.adopt(space) }.expect("fresh addresses");
    let mut mapped = 0;
    let warning = loop {
        let place = hostmem::provider::Place::Exact(space.addr() + 2 * mapped * page);
        let request = Request::bytes(page).place(place);
        let result = region.map(&request, Commit::READ_WRITE, 0);
        result.expect("every other page is free");
        mapped += 1;
        if let Some(warning) = region.mapping_pressure() {
            break warning;
        }
    };
    // Each page is one, and so is what is free behind it.
    let (mappings, limit) = (region.host_mappings(), 100);
    assert_eq!(mappings, 2 * mapped);
    assert_eq!(warning, MappingPressure { mappings, limit });
    assert_eq!(mappings, 76, "the first count above three quarters");
    // SAFETY: no other code uses it.
    unsafe { region.unmap(space) }.expect("all pages go");
    assert_eq!(region.mapping_pressure(), None);
    drop(region);
    // SAFETY: reserved above; no other code uses it.
    unsafe { OS.release(space) }.expect("it goes");
}
