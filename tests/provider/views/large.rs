//! Large pages.

use super::{OS, commit, release, reserve};
use crate::common::{call, skip_emulated, unmap_dual, write_code};
use hostmem::{
    page::{PageRange, PageSize},
    provider::{
        Commit, DualMapProvider, DualRequest, DualStep, ErrorKind, PageProvider, PageWish, Request,
    },
};
use hostmem_test_support::{
    hugetlb::with_huge_pages,
    isolate::{isolated, or_skip},
    maps,
};

#[test]
fn p7_large_pages_are_used_when_there_are_any() {
    if skip_emulated("shows pages of its own in smaps") {
        return;
    }
    isolated!("p7_large_pages_are_used_when_there_are_any", || {
        let two_mib = PageSize::new(2 << 20).expect("a power of two");
        let pages = PageWish::Large {
            bytes: two_mib.bytes(),
            or_base: true,
        };
        let request = DualRequest {
            pages,
            ..DualRequest::bytes(two_mib.bytes())
        };
        let page_size_at = |view: PageRange| {
            maps::kernel_page_size(view.addr())
                .expect("/proc is mounted")
                .expect("mapped")
        };
        let done = or_skip(with_huge_pages(4, |given| {
            assert!(given >= 2, "{given} large pages are too few for the test");
            // SAFETY: neither target is a range of ours.
            let mapping = unsafe { OS.map_dual(&request) }.expect("a strategy works");
            assert_eq!(
                (mapping.page_size(), mapping.step()),
                (two_mib, DualStep::MemfdLarge)
            );
            assert_eq!(page_size_at(mapping.rw()), two_mib.bytes());
            assert_eq!(page_size_at(mapping.rx()), two_mib.bytes());
            // SAFETY: ours alone.
            unsafe { write_code(&mapping, 4096, 11) };
            // SAFETY: published just now.
            let value = unsafe { call(mapping.rx().start().as_ptr().wrapping_add(4096)) };
            assert_eq!(value, 11);
            unmap_dual(&OS, mapping);

            let range = reserve(&Request::bytes(two_mib.bytes()).align(two_mib.bytes()));
            let how = Commit {
                pages,
                ..Commit::READ_WRITE
            };
            // SAFETY: reserved just now.
            let got = unsafe { OS.commit(range, how) }.expect("large pages are left");
            assert_eq!(got, two_mib);
            assert_eq!(page_size_at(range), two_mib.bytes());
            // SAFETY: committed just now.
            unsafe { range.start().write(1) };
            // SAFETY: ours, and not used meanwhile.
            unsafe { OS.decommit(range) }.expect("whole large pages are decommitted");
            commit(range);
            // SAFETY: committed just now.
            assert_eq!(unsafe { range.start().read() }, 0);
            release(range);
        }));
        if done.is_none() {
            return;
        }
        let done = or_skip(with_huge_pages(0, |_| {
            // SAFETY: neither target is a range of ours.
            let mapping = unsafe { OS.map_dual(&request) }.expect("the host's pages will do");
            assert_eq!(
                (mapping.page_size(), mapping.step()),
                (OS.page_size(), DualStep::Memfd)
            );
            unmap_dual(&OS, mapping);
            let pages = PageWish::Large {
                bytes: two_mib.bytes(),
                or_base: false,
            };
            // SAFETY: neither target is a range of ours.
            let refused = unsafe { OS.map_dual(&DualRequest { pages, ..request }) };
            let error = refused.expect_err("there are no large pages");
            let steps: Vec<_> = error.steps().map(|(step, e)| (step, e.errno())).collect();
            assert_eq!(steps, [(DualStep::MemfdLarge, Some(libc::ENOMEM))]);

            let range = reserve(&Request::bytes(two_mib.bytes()).align(two_mib.bytes()));
            let how = Commit {
                pages,
                ..Commit::READ_WRITE
            };
            // SAFETY: reserved just now.
            let error = unsafe { OS.commit(range, how) }.expect_err("there are no large pages");
            assert_eq!(
                (error.kind(), error.errno()),
                (ErrorKind::Exhausted, Some(libc::ENOMEM))
            );
            let or_base = PageWish::Large {
                bytes: two_mib.bytes(),
                or_base: true,
            };
            // SAFETY: still reserved, since a failed commit changes nothing.
            let got = unsafe {
                OS.commit(
                    range,
                    Commit {
                        pages: or_base,
                        ..how
                    },
                )
            };
            assert_eq!(got, Ok(OS.page_size()));
            release(range);
        }));
        assert!(done.is_some(), "the pool could be resized before");
    });
}
