//! What a region says of its mappings is what the host has: counts, names, core files, sizes of pages,
//! and what callers mapped themselves.
#![cfg(all(target_os = "linux", feature = "linux", target_pointer_width = "64"))]

mod common;

use common::skip_emulated;
use core::ffi::c_void;
use hostmem::{
    OsLock, OsProvider,
    page::{Access, PageRange},
    provider::{
        Commit, DualMapProvider, DualRequest, Dump, Error, ErrorKind, Leave, PageProvider,
        PageWish, Place, ProcessMap, Purged, Request,
    },
    region::{PageState, RegionAllocator, RegionConfig},
};
use hostmem_test_support::isolate::{isolated, skip};
use std::{fs::File, io, os::fd::AsRawFd, os::unix::fs::FileExt};

const OS: OsProvider = OsProvider::new();
const RW: Commit = Commit::READ_WRITE;
const READ: PageState = PageState::Committed(Access::Read);

type Region = RegionAllocator<OsProvider, OsProvider, OsLock>;

fn page() -> usize {
    OS.page_size().bytes()
}

fn lent(pages: usize) -> (Region, PageRange) {
    let config = RegionConfig::new().mapping_limit(1000);
    let region = Region::new(OS, OS, config).expect("metadata");
    let space = OS.reserve(&Request::bytes(pages * page()));
    let space = space.expect("addresses");
    // SAFETY: reserved just now, and the region's until the end.
    unsafe { region.adopt(space) }.expect("fresh addresses");
    (region, space)
}

/// Counts the kernel's mappings that have a part of some addresses.
fn mappings_in(range: PageRange) -> usize {
    let mut count = 0;
    let walked = OS.walk(&mut |entry| {
        count += usize::from(entry.range.intersect(range.addresses()).is_some());
        true
    });
    walked.expect("/proc is mounted");
    count
}

#[track_caller]
fn agree(region: &Region, space: PageRange, what: &str) -> usize {
    let (kernel, ours) = (mappings_in(space), region.host_mappings());
    let maps = || std::fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
    assert_eq!(ours, kernel, "{what}:\n{}", maps());
    kernel
}

/// This program's own file, which has many pages.
fn program() -> File {
    File::open("/proc/self/exe").expect("readable")
}

/// Maps a part of something over a range.
fn map_fixed(range: PageRange, flags: i32, fd: i32, offset: usize) -> Result<(), Error> {
    let (at, len) = (range.start().as_ptr().cast::<c_void>(), range.len_bytes());
    let offset = libc::off_t::try_from(offset).expect("a short file");
    let flags = flags | libc::MAP_FIXED;
    // SAFETY: the pages are the region's, and given to this call.
    let got = unsafe { libc::mmap(at, len, libc::PROT_READ, flags, fd, offset) };
    if got == at {
        return Ok(());
    }
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    Err(Error::os(ErrorKind::Other, errno))
}

fn map_file(region: &Region, file: &File, request: &Request<'_>) -> PageRange {
    let place = |range| map_fixed(range, libc::MAP_PRIVATE, file.as_raw_fd(), 0);
    let mapped = region.map_with(request, 7, READ, place);
    mapped.expect("a file can be mapped")
}

fn map_shared(region: &Region, request: &Request<'_>) -> PageRange {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let mapped = region.map_with(request, 8, READ, |range| map_fixed(range, flags, -1, 0));
    mapped.expect("shared memory can be mapped")
}

#[test]
fn what_a_caller_places_counts_by_itself() {
    if skip_emulated("shows a map of its own") {
        return;
    }
    isolated("what_a_caller_places_counts_by_itself", || {
        let (region, space) = lent(8192);
        let file = program();
        let one = Request::bytes(page());
        let mut files = Vec::with_capacity(2000);
        for _ in 0..2000 {
            files.push(map_file(&region, &file, &one));
        }
        assert_eq!(agree(&region, space, "files"), 2001);
        let pressure = region.mapping_pressure().expect("far more than 1000");
        assert_eq!((pressure.mappings, pressure.limit), (2001, 1000));
        // Each is a range of its own.
        for file in &files {
            let found = region.query(file.addr()).expect("mapped");
            assert_eq!(found.addresses, file.addresses());
        }
        for pair in files.chunks(2) {
            // SAFETY: no other code uses it.
            unsafe { region.unmap(pair[0]) }.expect("a file can go");
        }
        agree(&region, space, "every second one gone");
        // Between what is there still.
        for _ in 0..500 {
            map_file(&region, &file, &one);
            map_shared(&region, &one);
        }
        agree(&region, space, "others in their places");
        // SAFETY: no other code uses them.
        unsafe { region.unmap(space) }.expect("all can go");
        assert_eq!(agree(&region, space, "nothing"), 1);
        assert_eq!(region.mapping_pressure(), None);
    });
}

#[test]
fn parts_of_what_a_caller_placed_join_again() {
    if skip_emulated("shows a map of its own") {
        return;
    }
    isolated("parts_of_what_a_caller_placed_join_again", || {
        let (region, space) = lent(256);
        let file = program();
        let eight = Request::bytes(8 * page());
        let (first, second) = (
            map_file(&region, &file, &eight),
            map_file(&region, &file, &eight),
        );
        map_shared(&region, &eight);
        agree(&region, space, "three");
        let part = |range: PageRange, from: usize, pages: usize| {
            range
                .part(from * page(), pages * page(), OS.page_size())
                .expect("a part")
        };
        for (range, access) in [(first, Access::None), (second, Access::ReadExec)] {
            let middle = part(range, 2, 3);
            // SAFETY: mapped, and not used meanwhile.
            unsafe { region.protect(middle, access) }.expect("an access");
            agree(&region, space, "parts");
            // SAFETY: as above.
            unsafe { region.protect(middle, Access::Read) }.expect("an access");
            agree(&region, space, "whole again");
        }
        // A hole, and something else in it.
        let middle = part(first, 2, 3);
        // SAFETY: no other code uses it.
        unsafe { region.unmap(middle) }.expect("a part can go");
        agree(&region, space, "a hole");
        let place = Place::Exact(middle.addr());
        map_file(&region, &file, &Request::bytes(3 * page()).place(place));
        agree(&region, space, "another in it");
        let both = [first, second];
        for (n, range) in both.into_iter().enumerate() {
            // SAFETY: no other code uses it.
            unsafe { region.map_over(part(range, n, 4), RW, 1) }.expect("memory");
            agree(&region, space, "memory over it");
        }
    });
}

#[test]
fn names_wishes_views_and_guards_are_counted_as_the_host_has_them() {
    if skip_emulated("shows a map of its own") {
        return;
    }
    let test = "names_wishes_views_and_guards_are_counted_as_the_host_has_them";
    isolated(test, || {
        let (region, space) = lent(4096);
        let four = Request::bytes(4 * page());
        let map = |request: &Request<'_>, how, tag| region.map(request, how, tag).expect("memory");
        map(&four, RW, 1);
        map(&four, RW, 2);
        agree(&region, space, "alike but for their owners");
        map(&four.exclude_from_dump(), RW, 1);
        map(&four.exclude_from_dump(), RW, 2);
        agree(&region, space, "in no core file");
        for pages in [PageWish::Never, PageWish::Transparent, PageWish::Base] {
            map(&four, Commit { pages, ..RW }, 1);
            map(&four, Commit { pages, ..RW }, 2);
        }
        agree(&region, space, "wishes");
        map(&four.guards(page(), page()).exclude_from_dump(), RW, 3);
        agree(&region, space, "guards");
        let named = map(&four.name(c"one"), RW, 1);
        if !smaps_of(named.addr()).text.contains("[anon:one]") {
            skip("the kernel keeps no names: all the same it counts");
        }
        agree(&region, space, "a name");
        map(&four.name(c"one"), RW, 2);
        map(&four.name(c"two"), RW, 2);
        map(&four.name(c"no $name"), RW, 2);
        map(&four.name(c"one").guards(page(), 0), RW, 2);
        agree(&region, space, "names");
        // SAFETY: the region's.
        unsafe { region.describe(named, Some(c"three"), Dump::Excluded) };
        agree(&region, space, "another name");
        if smaps_of(named.addr()).text.contains("[anon:three]") {
            // More than there are numbers for.
            for n in 0..100 {
                let name = std::ffi::CString::new(format!("name {n}")).expect("no zero");
                map(&four.name(&name), RW, 2);
            }
            agree(&region, space, "many names");
        }
        let mut views = Vec::with_capacity(4);
        for _ in 0..4 {
            let view = DualRequest::bytes(4 * page());
            // SAFETY: both views are wherever the region places them.
            let mapping = unsafe { (&region).map_dual(&view) };
            views.push(mapping.expect("a dual mapping"));
        }
        agree(&region, space, "views");
        for (view, leave) in views
            .drain(..)
            .zip([Leave::Hole, Leave::Reserved].repeat(2))
        {
            // SAFETY: no other code uses it.
            unsafe { (&region).unmap_dual(view, leave) }.expect("it goes");
            agree(&region, space, "a view less");
        }
        // SAFETY: no other code uses them.
        unsafe { region.unmap(space) }.expect("all can go");
        assert_eq!(agree(&region, space, "nothing"), 1);
    });
}

/// What `smaps` says of a mapping.
struct Smaps {
    text: String,
}

impl Smaps {
    fn has_flag(&self, flag: &str) -> bool {
        let mut lines = self.text.lines();
        let flags = lines.find(|line| line.starts_with("VmFlags"));
        flags.is_some_and(|flags| flags.split(' ').any(|one| one == flag))
    }
}

fn smaps_of(addr: usize) -> Smaps {
    let all = std::fs::read_to_string("/proc/self/smaps").expect("/proc is mounted");
    let (mut text, mut inside) = (String::new(), false);
    for line in all.lines() {
        let number = |text| usize::from_str_radix(text, 16).ok();
        let range = line.split(' ').next().and_then(|r| r.split_once('-'));
        if let Some((Some(start), Some(end))) = range.map(|(a, b)| (number(a), number(b))) {
            inside = (start..end).contains(&addr);
        }
        if inside {
            text.push_str(line);
            text.push('\n');
        }
    }
    Smaps { text }
}

#[test]
fn what_a_caller_placed_is_made_longer_by_nobody_else() {
    let (region, space) = lent(256);
    let file = program();
    let one = Request::bytes(page());
    let read = Commit {
        access: Access::Read,
        ..RW
    };
    for pages in [1, 3] {
        let request = Request::bytes(pages * page());
        let of_file = map_file(&region, &file, &request);
        let _barrier = region.map(&one, RW, 9).expect("memory");
        let of_shared = map_shared(&region, &request);
        for mapped in [of_file, of_shared] {
            for more in [1, 2, 100] {
                for how in [read, RW] {
                    let len = (pages + more) * page();
                    // SAFETY: refused.
                    let resized = unsafe { region.resize(mapped, len, how) };
                    // SAFETY: refused.
                    let moved = unsafe { region.remap(mapped, len, how) };
                    for refused in [resized, moved] {
                        let kind = refused.map_err(|e| e.kind());
                        assert_eq!(kind, Err(ErrorKind::InvalidArgument), "{more} more");
                    }
                }
            }
            let found = region.query(mapped.addr()).expect("mapped");
            assert_eq!((found.addresses, found.state), (mapped.addresses(), READ));
        }
        let mut magic = [0; 4];
        file.read_exact_at(&mut magic, 0).expect("readable");
        // SAFETY: mapped.
        assert_eq!(unsafe { of_file.start().cast::<[u8; 4]>().read() }, magic);
        if pages > 1 {
            // SAFETY: no other code uses what goes.
            let shorter = unsafe { region.resize(of_file, page(), read) }.expect("shorter");
            assert_eq!(shorter.len_bytes(), page());
            // SAFETY: mapped.
            assert_eq!(unsafe { shorter.start().cast::<[u8; 4]>().read() }, magic);
            assert_eq!(region.query(shorter.end()), None, "its end is free");
        }
        // Together with memory of the region.
        let mixed = PageRange::new(space.start(), 2 * page(), OS.page_size()).expect("pages");
        // SAFETY: refused.
        let refused = unsafe { region.resize(mixed, 9 * page(), read) };
        assert!(refused.is_err());
        // SAFETY: no other code uses them.
        unsafe { region.unmap(space) }.expect("all can go");
    }
}

#[test]
fn states_that_are_not_the_callers_to_give_are_refused() {
    let (region, space) = lent(64);
    let one = Request::bytes(page());
    let mut called = false;
    for state in [PageState::Dual, PageState::Interrupted] {
        let refused = region.map_with(&one, 1, state, |_| {
            called = true;
            Ok(())
        });
        let kind = refused.map_err(|e| e.kind());
        assert_eq!(kind, Err(ErrorKind::InvalidArgument), "{state:?}");
    }
    assert!(!called, "nothing was placed");
    assert_eq!(region.statistics().used, 0);
    // What is said to be committed, and is not, is given no memory by anybody.
    let lie = region.map_with(&one, 1, PageState::Committed(Access::ReadWrite), |_| Ok(()));
    let lie = lie.expect("the caller vouches for it");
    // SAFETY: nothing is there to be needed.
    assert_eq!(unsafe { region.purge(lie) }, Ok(Purged::Kept));
    // SAFETY: refused.
    let longer = unsafe { region.remap(lie, 8 * page(), RW) }.map_err(|e| e.kind());
    assert_eq!(longer, Err(ErrorKind::InvalidArgument));
    let reserved = region.map_with(&one, 1, PageState::Reserved, |_| Ok(()));
    let reserved = reserved.expect("the caller vouches for it");
    // SAFETY: refused.
    let committed = unsafe { (&region).commit(reserved, RW) }.map_err(|e| e.kind());
    assert_eq!(committed, Err(ErrorKind::InvalidArgument));
    for range in [lie, reserved] {
        // SAFETY: no other code uses it.
        unsafe { region.unmap(range) }.expect("it can go");
    }
    assert_eq!((region.statistics().used, region.host_mappings()), (0, 1));
    drop(region);
    // SAFETY: reserved above; no other code uses it.
    unsafe { OS.release(space) }.expect("it goes");
}

#[test]
fn the_memory_of_what_a_caller_placed_is_left_alone() {
    let (region, _) = lent(64);
    let place = |range: PageRange| {
        let (at, len) = (range.start().as_ptr().cast(), range.len_bytes());
        let flags = libc::MAP_FIXED | libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the pages are the region's, and given to this call.
        let got = unsafe { libc::mmap(at, len, access, flags, -1, 0) };
        assert_eq!(got, at);
        Ok(())
    };
    let state = PageState::Committed(Access::ReadWrite);
    let plain = region
        .map(&Request::bytes(4 * page()), RW, 1)
        .expect("memory");
    let shared = region.map_with(&Request::bytes(4 * page()), 1, state, place);
    let shared = shared.expect("shared memory");
    assert_eq!(plain.end(), shared.addr(), "side by side");
    for range in [plain, shared] {
        // SAFETY: mapped just now.
        unsafe { range.start().write_bytes(0x5a, range.len_bytes()) };
    }
    let both = PageRange::new(plain.start(), 8 * page(), OS.page_size()).expect("pages");
    // SAFETY: committed; the contents are not needed.
    let shown = unsafe { region.purge(both) };
    assert_eq!(shown, Ok(Purged::ZeroOrOld), "some of each");
    // SAFETY: mapped.
    assert_eq!(unsafe { shared.start().read() }, 0x5a);
    // SAFETY: mapped.
    assert_eq!(unsafe { plain.start().read() }, 0);
}

#[test]
fn sizes_of_pages_are_wished_when_committed_and_later() {
    if skip_emulated("shows a map of its own") {
        return;
    }
    isolated("sizes_of_pages_are_wished_when_committed_and_later", || {
        let (region, space) = lent(256);
        let eight = Request::bytes(8 * page());
        let never = Commit {
            pages: PageWish::Never,
            ..RW
        };
        let mapped = region.map(&eight, never, 1).expect("memory");
        if !smaps_of(mapped.addr()).has_flag("nh") {
            skip("the kernel has no large pages");
            return;
        }
        let plain = region.map(&eight, RW, 1).expect("memory");
        agree(&region, space, "two");
        let part = plain
            .part(page(), 2 * page(), OS.page_size())
            .expect("a part");
        for (wish, flag) in [(PageWish::Never, "nh"), (PageWish::Transparent, "hg")] {
            // SAFETY: committed, and this test's.
            unsafe { region.wish_pages(part, wish) };
            assert!(smaps_of(part.addr()).has_flag(flag), "{wish:?}");
            assert!(!smaps_of(plain.addr()).has_flag(flag), "{wish:?}");
            agree(&region, space, flag);
        }
        // As a provider the region passes on what others wish.
        let reserved = PageProvider::reserve(&&region, &eight).expect("addresses");
        // SAFETY: reserved just now.
        unsafe { (&region).commit(reserved, never) }.expect("memory");
        assert!(smaps_of(reserved.addr()).has_flag("nh"));
        // SAFETY: committed just now.
        unsafe { (&region).wish_large_pages(reserved) };
        assert!(smaps_of(reserved.addr()).has_flag("hg"));
        agree(&region, space, "a provider's");
        // SAFETY: no other code uses it.
        unsafe { (&region).decommit(reserved) }.expect("committed");
        // SAFETY: reserved.
        unsafe { (&region).commit(reserved, RW) }.expect("memory");
        assert!(!smaps_of(reserved.addr()).has_flag("hg"));
        agree(&region, space, "plain again");
        // Over what was wished otherwise.
        // SAFETY: no other code uses it.
        unsafe { region.map_over(mapped, RW, 2) }.expect("memory");
        assert!(!smaps_of(mapped.addr()).has_flag("nh"));
        agree(&region, space, "replaced");
    });
}
