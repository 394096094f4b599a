//! What a region says of its mappings is what the host has: counts, names, core files, sizes of
//! pages, and what callers mapped themselves.

mod counting;
mod replacing;
mod wishes;

use crate::{
    common::skip_emulated,
    space::{self, OS, Region, mappings_in, page},
};
use core::ffi::c_void;
use hostmem::{
    page::{Access, PageRange},
    provider::{Commit, Error, ErrorKind, PageProvider, Place, Purged, Request},
    region::{PageState, RegionConfig},
};
use hostmem_test_support::isolate::{isolated, skip};
use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
};

const RW: Commit = Commit::READ_WRITE;
const READ: PageState = PageState::Committed(Access::Read);
fn lent(pages: usize) -> (Region, PageRange) {
    space::lent(RegionConfig::new().mapping_limit(1000), pages * page())
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
