//! What a region says of its mappings is what the host has: counts, names, core files, sizes of
//! pages, and what callers mapped themselves.

use crate::common::skip_emulated;
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
use hostmem_test_support::isolate::{isolated, leave_out, skip};
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
    let region = Region::on(OS, OS, config).expect("metadata");
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
    isolated!("what_a_caller_places_counts_by_itself", || {
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
    isolated!("parts_of_what_a_caller_placed_join_again", || {
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
    isolated!(test, || {
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
            leave_out("the kernel keeps no names: all the same it counts");
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
            let mapping = unsafe { region.map_dual(&view) };
            views.push(mapping.expect("a dual mapping"));
        }
        agree(&region, space, "views");
        for (view, leave) in views
            .drain(..)
            .zip([Leave::Hole, Leave::Reserved].repeat(2))
        {
            // SAFETY: no other code uses it.
            unsafe { region.unmap_dual(view, leave) }.expect("it goes");
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
    let committed = unsafe { region.commit(reserved, RW) }.map_err(|e| e.kind());
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
    isolated!("sizes_of_pages_are_wished_when_committed_and_later", || {
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
        unsafe { region.commit(reserved, never) }.expect("memory");
        assert!(smaps_of(reserved.addr()).has_flag("nh"));
        // SAFETY: committed just now.
        unsafe { region.wish_large_pages(reserved) };
        assert!(smaps_of(reserved.addr()).has_flag("hg"));
        agree(&region, space, "a provider's");
        // SAFETY: no other code uses it.
        unsafe { region.decommit(reserved) }.expect("committed");
        // SAFETY: reserved.
        unsafe { region.commit(reserved, RW) }.expect("memory");
        assert!(!smaps_of(reserved.addr()).has_flag("hg"));
        agree(&region, space, "plain again");
        // Over what was wished otherwise.
        // SAFETY: no other code uses it.
        unsafe { region.map_over(mapped, RW, 2) }.expect("memory");
        assert!(!smaps_of(mapped.addr()).has_flag("nh"));
        agree(&region, space, "replaced");
    });
}

#[test]
fn files_replace_whatever_lies_there_at_once() {
    if skip_emulated("shows a map of its own") {
        return;
    }
    isolated!("files_replace_whatever_lies_there_at_once", || {
        let (region, space) = lent(256);
        let file = program();
        let four = Request::bytes(4 * page());
        let mut magic = [0; 4];
        file.read_exact_at(&mut magic, 0).expect("readable");
        for (from, len) in [(0, 4), (1, 2), (3, 6), (2, 13), (0, 40)] {
            // Memory, addresses, a file, shared memory, memory, and nothing.
            region.map(&four, RW, 1).expect("memory");
            region.reserve(&four).expect("addresses");
            map_file(&region, &file, &four);
            map_shared(&region, &four);
            region.map(&four, RW, 2).expect("memory");
            agree(&region, space, "before");
            let range = space.part(from * page(), len * page(), OS.page_size());
            let range = range.expect("a part");
            let place = |range| map_fixed(range, libc::MAP_PRIVATE, file.as_raw_fd(), 0);
            // SAFETY: no other code uses it.
            let done = unsafe { region.map_over_with(range, 33, READ, place) };
            done.expect("a file can be mapped over it");
            let found = region.query(range.addr()).expect("mapped");
            let is = (found.addresses, found.state, found.tag);
            assert_eq!(is, (range.addresses(), READ, 33));
            // SAFETY: mapped.
            assert_eq!(unsafe { range.start().cast::<[u8; 4]>().read() }, magic);
            agree(&region, space, "over it");
            // SAFETY: refused.
            let longer = unsafe { region.resize(range, 100 * page(), RW) };
            assert_eq!(
                longer.map_err(|e| e.kind()),
                Err(ErrorKind::InvalidArgument)
            );
            // SAFETY: no other code uses them.
            unsafe { region.unmap(space) }.expect("all can go");
            assert_eq!(agree(&region, space, "nothing"), 1);
        }
    });
}

#[test]
fn what_replaces_nothing_leaves_what_was_there() {
    isolated!("what_replaces_nothing_leaves_what_was_there", || {
        let (region, space) = lent(64);
        let four = Request::bytes(4 * page());
        let mapped = region.map(&four, RW, 1).expect("memory");
        // SAFETY: mapped just now.
        unsafe { mapped.start().write(0x5a) };
        let both = PageRange::new(mapped.start(), 8 * page(), OS.page_size()).expect("pages");
        let before = region.statistics();
        // No such descriptor.
        let place = |range| map_fixed(range, libc::MAP_PRIVATE, 9999, 0);
        // SAFETY: no other code uses it.
        let done = unsafe { region.map_over_with(both, 2, READ, place) };
        let error = done.expect_err("no such file");
        assert_eq!(
            (error.errno(), error.errno_like()),
            (Some(libc::EBADF), libc::EBADF)
        );
        assert_eq!(region.statistics(), before);
        let found = region.query(mapped.addr()).expect("mapped");
        assert_eq!((found.addresses, found.tag), (mapped.addresses(), 1));
        // SAFETY: mapped.
        assert_eq!(unsafe { mapped.start().read() }, 0x5a);
        // A call that takes away what was there, and fails.
        let place = |range: PageRange| {
            // SAFETY: given to this call.
            unsafe { OS.release(range) }?;
            Err(Error::os(ErrorKind::Exhausted, libc::ENOMEM))
        };
        // SAFETY: no other code uses it.
        let done = unsafe { region.map_over_with(both, 2, READ, place) };
        let error = done.expect_err("it failed");
        assert_eq!(
            (error.kind(), error.errno()),
            (ErrorKind::RangeLost, Some(libc::ENOMEM))
        );
        assert_eq!(error.errno_like(), libc::ENOMEM);
        assert_eq!(
            (region.query(mapped.addr()), region.statistics().used),
            (None, 0)
        );
        agree(&region, space, "free, and reserved");
        let again = region.map(&four, RW, 3).expect("memory");
        assert_eq!(again, mapped, "the region has it still");
        // SAFETY: mapped just now.
        assert_eq!(unsafe { again.start().read() }, 0);
        // What is not to be replaced is not asked for.
        let never = |_: PageRange| panic!("it is refused before");
        let beyond = PageRange::new(again.start(), 65 * page(), OS.page_size()).expect("pages");
        // SAFETY: refused.
        let refused = unsafe { region.map_over_with(beyond, 2, READ, never) };
        assert_eq!(refused.map_err(|e| e.kind()), Err(ErrorKind::OutsideRange));
        // SAFETY: refused.
        let refused = unsafe { region.map_over_with(again, 2, PageState::Dual, never) };
        assert_eq!(
            refused.map_err(|e| e.kind()),
            Err(ErrorKind::InvalidArgument)
        );
        // SAFETY: both views are wherever the region places them.
        let dual = unsafe { region.map_dual(&DualRequest::bytes(page())) };
        let dual = dual.expect("a dual mapping");
        // SAFETY: refused.
        let refused = unsafe { region.map_over_with(dual.rx(), 2, READ, never) };
        assert_eq!(refused.map_err(|e| e.kind()), Err(ErrorKind::Taken));
        // SAFETY: no other code uses it.
        unsafe { region.unmap_dual(dual, Leave::Hole) }.expect("it goes");
    });
}

#[test]
fn what_moves_keeps_contents_sharing_and_tag() {
    if skip_emulated("shows a map of its own") {
        return;
    }
    isolated!("what_moves_keeps_contents_sharing_and_tag", || {
        let (region, space) = lent(256);
        // SAFETY: a new descriptor.
        let fd = unsafe { libc::memfd_create(c"shared".as_ptr(), 0) };
        assert!(fd >= 0);
        let len = libc::off_t::try_from(4 * page()).expect("short");
        // SAFETY: made just now.
        assert_eq!(unsafe { libc::ftruncate(fd, len) }, 0);
        let four = Request::bytes(4 * page());
        let state = PageState::Committed(Access::ReadWrite);
        let place = |range: PageRange| {
            let (at, len) = (range.start().as_ptr().cast(), range.len_bytes());
            let (access, flags) = (
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_FIXED | libc::MAP_SHARED,
            );
            // SAFETY: the pages are the region's, and given to this call.
            let got = unsafe { libc::mmap(at, len, access, flags, fd, 0) };
            assert_eq!(got, at);
            Ok(())
        };
        let views = [1, 2].map(|tag| region.map_with(&four, tag, state, place).expect("a view"));
        agree(&region, space, "two views");
        // SAFETY: mapped just now.
        unsafe { views[0].start().write(0x5a) };
        let to = region.reserve(&four).expect("addresses");
        // SAFETY: the one is mapped, the other reserved.
        match unsafe { region.move_pages(views[0], to) } {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                skip("this kernel does not move shared mappings");
                return;
            }
            moved => moved.expect("a mapping moves"),
        }
        let found = region.query(to.addr()).expect("mapped");
        assert_eq!((found.state, found.tag), (state, 1));
        agree(&region, space, "moved");
        // SAFETY: mapped.
        unsafe { to.start().write(0x5b) };
        // SAFETY: mapped.
        let seen = unsafe { views[1].start().read() };
        assert_eq!(seen, 0x5b, "they share it still");
        let found = region.query(views[0].addr()).expect("reserved");
        assert_eq!(found.state, PageState::Reserved);
        // It is the caller's still.
        // SAFETY: refused.
        let longer = unsafe { region.resize(to, 8 * page(), RW) };
        assert_eq!(
            longer.map_err(|e| e.kind()),
            Err(ErrorKind::InvalidArgument)
        );
        // SAFETY: no other code uses them.
        unsafe { region.unmap(space) }.expect("all can go");
        assert_eq!(agree(&region, space, "nothing"), 1);
    });
}

#[test]
fn mistakes_have_the_numbers_that_linux_gives() {
    let (region, space) = lent(16);
    let one = Request::bytes(page());
    let mapped = region.map(&one.place(Place::Exact(space.addr())), RW, 1);
    let mapped = mapped.expect("memory");
    let behind = region.map(&one.place(Place::Exact(mapped.end())), RW, 2);
    let behind = behind.expect("memory");
    let of = |error: Result<PageRange, Error>| error.expect_err("a mistake").errno_like();
    let exact = |addr| Request::bytes(page()).place(Place::Exact(addr));
    let map = |request: &Request<'_>| of(region.map(request, RW, 1));
    // mmap(2), each as Linux answers it.
    assert_eq!(map(&Request::bytes(0)), libc::EINVAL);
    assert_eq!(map(&Request::bytes(usize::MAX)), libc::ENOMEM);
    assert_eq!(map(&Request::bytes(usize::MAX / 2)), libc::ENOMEM);
    assert_eq!(map(&Request::bytes(1 << 46)), libc::ENOMEM);
    assert_eq!(map(&exact(mapped.addr())), libc::EEXIST);
    assert_eq!(map(&exact(mapped.addr() + 1)), libc::EINVAL);
    assert_eq!(map(&exact(space.end())), libc::ENOMEM);
    // mremap(2).
    // SAFETY: refused, as are the others.
    let resize = |range, len| of(unsafe { region.resize(range, len, RW) });
    assert_eq!(resize(mapped, 0), libc::EINVAL);
    assert_eq!(resize(mapped, usize::MAX), libc::EINVAL);
    assert_eq!(resize(mapped, 2 * page()), libc::ENOMEM);
    let both = PageRange::new(mapped.start(), 2 * page(), OS.page_size()).expect("pages");
    assert_eq!(resize(both, 3 * page()), libc::EFAULT);
    let free = space
        .part(8 * page(), page(), OS.page_size())
        .expect("free");
    assert_eq!(resize(free, 2 * page()), libc::EFAULT);
    // SAFETY: refused.
    let moved = of(unsafe { region.remap(behind, 1 << 46, RW) });
    assert_eq!(moved, libc::ENOMEM);
    // mprotect(2).
    // SAFETY: refused.
    let protect = unsafe { region.protect(free, Access::Read) };
    assert_eq!(protect.map_err(Error::errno_like), Err(libc::ENOMEM));
    let numbers = [
        (Error::of(ErrorKind::Denied), libc::EACCES),
        (Error::os(ErrorKind::Denied, libc::EPERM), libc::EPERM),
        (Error::os(ErrorKind::Denied, libc::EACCES), libc::EACCES),
        (Error::of(ErrorKind::Unsupported), libc::EINVAL),
        (Error::of(ErrorKind::RangeLost), libc::ENOMEM),
        (Error::of(ErrorKind::Other), libc::EINVAL),
        (Error::os(ErrorKind::Other, libc::ENODEV), libc::ENODEV),
        // Another number elsewhere.
        (Error::os(ErrorKind::Other, libc::EAGAIN), libc::EINVAL),
        (Error::os(ErrorKind::Exhausted, 35), libc::ENOMEM),
    ];
    for (error, number) in numbers {
        assert_eq!(error.errno_like(), number, "{error:?}");
    }
}
