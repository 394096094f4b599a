//! Sizes of pages that are wished for.

use super::{OS, RW, agree, lent, page, smaps_of};
use crate::common::skip_emulated;
use hostmem::provider::{Commit, PageProvider, PageWish, Request};
use hostmem_test_support::isolate::{isolated, skip};

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
