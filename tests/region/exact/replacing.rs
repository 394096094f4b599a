//! What is placed over something, and what replaces nothing.

use super::{OS, READ, RW, agree, lent, map_file, map_fixed, map_shared, page, program};
use crate::common::skip_emulated;
use hostmem::{
    page::PageRange,
    provider::{DualMapProvider, DualRequest, Error, ErrorKind, Leave, PageProvider, Request},
    region::PageState,
};
use hostmem_test_support::isolate::isolated;
use std::os::{fd::AsRawFd, unix::fs::FileExt};

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
