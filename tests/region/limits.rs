//! A region at the limits of a real host: the last mapping, names, core files, and large tables.

use crate::{
    common::{emulated, skip_emulated},
    space::{OS, byte_at, lent},
};
use core::ptr::null_mut;
use hostmem::{
    page::{Access, PageRange},
    provider::{Capabilities, Commit, ErrorKind, PageProvider, PageWish, Place, Purged, Request},
    region::{PageState, RegionConfig},
};
use hostmem_test_support::{
    isolate::{isolated, skip},
    maps,
};

const RW: Commit = Commit::READ_WRITE;

/// Makes mappings until the host refuses one more.
fn use_up_mappings() -> (*mut libc::c_void, usize) {
    let (len, page) = (1 << 30, OS.page_size().bytes());
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping wherever the kernel likes.
    let base = unsafe { libc::mmap(null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(base, libc::MAP_FAILED);
    // Pairs of mappings, and then one more by the end of the last.
    for n in (1..len / page - 1).step_by(2) {
        let at = base.wrapping_byte_add(n * page);
        // SAFETY: a page of the mapping above.
        if unsafe { libc::mprotect(at, page, libc::PROT_READ) } != 0 {
            let last = base.wrapping_byte_add(len - page);
            // SAFETY: a page of the mapping above. It fails where all are used up already.
            let _ = unsafe { libc::mprotect(last, page, libc::PROT_READ) };
            return (base, len);
        }
    }
    panic!("this host has no limit of mappings below a quarter of a million");
}

#[test]
fn a_protect_at_the_limit_of_mappings_changes_nothing() {
    if skip_emulated("has the limits of its host") {
        return;
    }
    isolated!("a_protect_at_the_limit_of_mappings_changes_nothing", || {
        let page = OS.page_size().bytes();
        let (region, _) = lent(RegionConfig::new(), 16 << 20);
        let first = region
            .map(&Request::bytes(2 * page), RW, 1)
            .expect("memory");
        let large = Commit {
            pages: PageWish::Transparent,
            ..RW
        };
        let place = Place::Exact(first.end());
        let second = region.map(&Request::bytes(4 * page).place(place), large, 1);
        second.expect("memory");
        let part = PageRange::new(first.start(), 3 * page, OS.page_size()).expect("whole pages");
        let (base, len) = use_up_mappings();
        // SAFETY: committed, and this test's.
        let done = unsafe { region.protect(part, Access::Read) };
        let found = region.query(first.addr()).map(|range| range.state);
        // SAFETY: mapped above; no other code uses it.
        unsafe { libc::munmap(base, len) };
        let Err(error) = done else {
            skip("this kernel splits no mapping here");
            return;
        };
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert_eq!(found, Some(PageState::Committed(Access::ReadWrite)));
        for addr in (part.addr()..part.end()).step_by(page) {
            let mapping = maps::find(addr).expect("/proc is mounted").expect("mapped");
            assert!(mapping.perms.read && mapping.perms.write, "{addr:#x}");
        }
        // SAFETY: writable, as on record.
        unsafe { first.start().write(1) };
        // SAFETY: committed, and this test's.
        unsafe { region.protect(part, Access::Read) }.expect("there is room again");
    });
}

/// Returns the lines of the mapping around an address in `smaps`.
fn smaps_of(addr: usize) -> String {
    let all = std::fs::read_to_string("/proc/self/smaps").expect("/proc is mounted");
    let mut found = String::new();
    let mut inside = false;
    for line in all.lines() {
        let range = line
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'));
        let number = |text| usize::from_str_radix(text, 16).ok();
        if let Some((start, end)) = range
            && let (Some(start), Some(end)) = (number(start), number(end))
        {
            inside = (start..end).contains(&addr);
        }
        if inside {
            found.push_str(line);
            found.push('\n');
        }
    }
    found
}

#[test]
fn names_and_core_files_are_the_hosts() {
    if skip_emulated("shows a map of its own") {
        return;
    }
    isolated!("names_and_core_files_are_the_hosts", || {
        let page = OS.page_size().bytes();
        let (region, space) = lent(RegionConfig::new(), 64 * page);
        let request = Request::bytes(4 * page).exclude_from_dump().name(c"guest");
        let is_left_out = |addr| {
            let smaps = smaps_of(addr);
            let flags = smaps.lines().find(|line| line.starts_with("VmFlags"));
            flags.is_some_and(|flags| flags.split(' ').any(|flag| flag == "dd"))
        };
        let named = OS.reserve(&request).expect("addresses");
        let has_names = smaps_of(named.addr()).contains("guest");
        let mapped = region.map(&request, RW, 1).expect("memory");
        assert!(is_left_out(mapped.addr()), "{}", smaps_of(mapped.addr()));
        assert_eq!(has_names, smaps_of(mapped.addr()).contains("guest"));
        assert_eq!(region.host_mappings(), 2);
        let reserved = region.reserve(&request).expect("addresses");
        assert!(is_left_out(reserved.addr()));
        for range in [mapped, reserved] {
            // SAFETY: no other code uses it.
            unsafe { region.unmap(range) }.expect("it goes");
            assert!(!is_left_out(range.addr()), "{}", smaps_of(range.addr()));
            assert!(!smaps_of(range.addr()).contains("guest"));
        }
        assert_eq!(region.host_mappings(), 1);
        let plain = region
            .map(&Request::bytes(4 * page), RW, 1)
            .expect("memory");
        assert_eq!(plain.addr(), space.addr());
        assert!(!is_left_out(plain.addr()));
    });
}

#[test]
fn large_tables_are_cleared_without_a_mapping_more() {
    isolated!("large_tables_are_cleared_without_a_mapping_more", || {
        let (region, _) = lent(RegionConfig::new(), 64 << 20);
        let table = region.map(&Request::bytes(8 << 20), RW, 1).expect("memory");
        let page = OS.page_size();
        // SAFETY: mapped just now.
        unsafe { table.start().write_bytes(7, table.len_bytes()) };
        let part = table.part(1 << 20, 4 << 20, page).expect("a part");
        // SAFETY: committed, and the contents are not needed.
        let shown = unsafe { region.purge(part) }.expect("committed pages can be purged");
        // SAFETY: committed.
        let byte = |offset| unsafe { byte_at(table, offset).read() };
        assert_eq!(byte(0), 7);
        assert_eq!(byte(6 << 20), 7);
        if shown == Purged::Zero {
            assert_eq!((byte(1 << 20), byte((5 << 20) - 1)), (0, 0));
        }
        assert_eq!(region.host_mappings(), 2);
        // What is not committed by the region is refused.
        let free = PageRange::new(table.start(), 16 << 20, page).expect("whole pages");
        // SAFETY: refused.
        let refused = unsafe { region.purge(free) }.map_err(|e| e.kind());
        assert_eq!(refused, Err(ErrorKind::OutsideRange));
        // Large pages go as a whole.
        let large = Commit {
            pages: PageWish::Transparent,
            ..RW
        };
        let request = Request::bytes(8 << 20).align(2 << 20);
        let table = region.map(&request, large, 2).expect("memory");
        // SAFETY: mapped just now.
        unsafe { table.start().write_bytes(9, table.len_bytes()) };
        let part = table.part(1 << 20, 4 << 20, page).expect("a part");
        // SAFETY: committed, and the contents are not needed.
        let shown = unsafe { region.purge(part) }.expect("committed pages can be purged");
        // SAFETY: committed.
        let byte = |offset| unsafe { byte_at(table, offset).read() };
        assert_ne!(shown, Purged::Zero);
        assert_eq!((byte(1 << 20), byte((4 << 20) + 1)), (9, 9));
        if shown == Purged::ZeroOrOld && !emulated() {
            assert_eq!((byte(2 << 20), byte((4 << 20) - 1)), (0, 0));
        }
    });
}

#[test]
fn a_mapping_that_moves_is_not_copied() {
    isolated!("a_mapping_that_moves_is_not_copied", || {
        if !OS.capabilities().contains(Capabilities::MOVE_PAGES) {
            skip("this host moves no pages");
            return;
        }
        let page = OS.page_size().bytes();
        let (region, space) = lent(RegionConfig::new(), 64 << 20);
        let first = region.map(&Request::bytes(8 << 20), RW, 5).expect("memory");
        let _behind = region.map(&Request::bytes(page), RW, 6).expect("memory");
        // One page of it was touched: a copy would touch all.
        // SAFETY: mapped just now.
        unsafe { byte_at(first, 3 * page).write(0x5a) };
        // SAFETY: no other code uses it meanwhile.
        let new = unsafe { region.remap(first, 16 << 20, RW) }.expect("there is room");
        assert_ne!(new.addr(), first.addr());
        // SAFETY: mapped.
        assert_eq!(unsafe { byte_at(new, 3 * page).read() }, 0x5a);
        // SAFETY: mapped.
        unsafe { byte_at(new, (16 << 20) - 1).write(1) };
        let found = region.query(new.addr()).expect("mapped");
        let access = PageState::Committed(Access::ReadWrite);
        assert_eq!((found.state, found.tag), (access, 5));
        let found = region.query(new.end() - 1).expect("mapped");
        assert_eq!((found.state, found.tag), (access, 5));
        assert_eq!(region.query(first.addr()), None, "its old place is free");
        assert_eq!(region.statistics().used, (16 << 20) + page);
        let smaps = smaps_of(new.addr());
        let rss = smaps.lines().find(|line| line.starts_with("Rss:"));
        let rss = rss.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
        assert!(emulated() || rss.is_some_and(|kib| kib < 4096), "{smaps}");
        // Again, of what is two mappings of the host now.
        let _behind = region.map(&Request::bytes(page).place(Place::Exact(new.end())), RW, 6);
        // SAFETY: no other code uses it meanwhile.
        let new = unsafe { region.remap(new, 20 << 20, RW) }.expect("there is room");
        // SAFETY: mapped.
        assert_eq!(unsafe { byte_at(new, 3 * page).read() }, 0x5a);
        // SAFETY: mapped.
        assert_eq!(unsafe { byte_at(new, (16 << 20) - 1).read() }, 1);
        // SAFETY: no other code uses it.
        unsafe { region.unmap(space) }.expect("it goes");
        assert_eq!((region.statistics().used, region.host_mappings()), (0, 1));
    });
}
