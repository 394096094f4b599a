//! What other allocators of executable memory got wrong, where it takes a process of its own to
//! see. The others are the conformance suite's, `jit::defects`.

use crate::{
    code::{OS, allocator, place, run},
    common::{CODE_LEN, call, code_returning, skip_emulated},
};
use hostmem::{
    jit::{JitConfig, LargePages, Mapping},
    page::{PageRange, PageSize},
    provider::PageProvider,
};
use hostmem_test_support::{
    hugetlb::with_huge_pages,
    isolate::{isolated, or_skip, skip},
    maps, seccomp,
};

/// Checks that an allocator works by the second strategy when the first is shut with an errno.
fn works_by_the_next_strategy(test: &str, errno: i32) {
    isolated!(test, || {
        if or_skip(seccomp::refuse(&[libc::SYS_memfd_create], errno)).is_none() {
            return;
        }
        let jit = allocator(JitConfig::new());
        let span = place(&jit, 5);
        assert_eq!(run(&span), 5);
        assert_eq!(jit.mapping(), (Mapping::Dual, None), "mapped twice still");
        assert_ne!(span.rx(), span.rw());
        jit.release(span).expect("once");
    });
}

#[test]
fn a_first_strategy_shut_by_enosys_is_not_the_last() {
    works_by_the_next_strategy(
        "a_first_strategy_shut_by_enosys_is_not_the_last",
        libc::ENOSYS,
    );
}

#[test]
fn a_first_strategy_shut_by_eperm_is_not_the_last() {
    works_by_the_next_strategy(
        "a_first_strategy_shut_by_eperm_is_not_the_last",
        libc::EPERM,
    );
}

#[test]
fn a_first_strategy_shut_by_eacces_is_not_the_last() {
    works_by_the_next_strategy(
        "a_first_strategy_shut_by_eacces_is_not_the_last",
        libc::EACCES,
    );
}

/// Makes pages accessible as `access` says, behind the allocator's back.
fn protect(pages: PageRange, access: libc::c_int) {
    // SAFETY: the pages are those of a block, and the test uses what it left accessible only.
    let done = unsafe { libc::mprotect(pages.start().as_ptr().cast(), pages.len_bytes(), access) };
    assert_eq!(done, 0, "{:?}", std::io::Error::last_os_error());
}

#[test]
fn calls_touch_no_more_code_than_they_write() {
    let test = "calls_touch_no_more_code_than_they_write";
    // It would end the process with a fault.
    isolated!(test, || {
        let page = OS.page_size();
        let jit = allocator(JitConfig::new().block_size(1 << 20, 1 << 20));
        let mut span = jit.alloc(512 << 10).expect("memory");
        let other = jit.alloc(64 << 10).expect("memory");
        let block = jit.blocks().next().expect("there is one");
        let views = [
            (block.rw, libc::PROT_READ | libc::PROT_WRITE),
            (block.rx, libc::PROT_READ | libc::PROT_EXEC),
        ];
        // All but the page in the middle that is written.
        let hole = page.round_down(256 << 10);
        for (view, _) in views {
            let before = view.part(0, hole, page).expect("inside");
            let behind = hole + page.bytes();
            let after = view.part(behind, view.len_bytes() - behind, page);
            protect(before, libc::PROT_NONE);
            protect(after.expect("inside"), libc::PROT_NONE);
        }
        let offset = hole + 100 - (span.rx().addr().get() - block.rx.addr());
        jit.write(&mut span, offset, &code_returning(6))
            .expect("ours");
        // SAFETY: written just now, on a page that is accessible.
        let value = unsafe { call(span.rx().as_ptr().wrapping_add(offset)) };
        assert_eq!(value, 6);
        // Nor do calls that write nothing touch anything.
        assert_eq!(jit.query(other.rx().addr().get() + 5), Some(other.info()));
        jit.shrink(&mut span, 100).expect("ours");
        jit.release(other).expect("once");
        let again = jit.alloc(600 << 10).expect("memory");
        jit.release(again).expect("once");
        assert_eq!(jit.statistics().spans, 1);
        for (view, access) in views {
            protect(view, access);
        }
        jit.release(span).expect("once");
    });
}

#[test]
fn large_pages_back_dual_mappings_or_are_advised() {
    if skip_emulated("shows pages of its own in smaps") {
        return;
    }
    isolated!("large_pages_back_dual_mappings_or_are_advised", || {
        let large = PageSize::new(2 << 20).expect("a power of two");
        let config = JitConfig::new().large_pages(LargePages::Align { bytes: 2 << 20 });
        let page_size_at = |addr| {
            let size = maps::kernel_page_size(addr).expect("/proc is mounted");
            size.expect("it is mapped")
        };
        let done = or_skip(with_huge_pages(4, |given| {
            assert!(given >= 1, "the kernel gave some");
            let jit = allocator(config);
            let span = place(&jit, 8);
            let block = jit.blocks().next().expect("there is one");
            assert_eq!(block.page_size, large);
            for view in [block.rx, block.rw] {
                assert_eq!(page_size_at(view.addr()), large.bytes());
                assert!(view.addr().is_multiple_of(large.bytes()), "{view:?}");
            }
            assert_eq!(run(&span), 8);
            jit.release(span).expect("once");
        }));
        if done.is_none() {
            return;
        }
        or_skip(with_huge_pages(0, |_| {
            // None: the host's pages, with the advice that large ones would be welcome.
            let jit = allocator(config);
            let span = place(&jit, 8);
            let block = jit.blocks().next().expect("there is one");
            assert_eq!(block.page_size, OS.page_size());
            assert_eq!(
                block.rx.len_bytes() % large.bytes(),
                0,
                "as long all the same"
            );
            assert_eq!(run(&span), 8);
            let exists = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
            let smaps = std::fs::read_to_string("/proc/self/smaps").expect("/proc is mounted");
            for view in [block.rx, block.rw] {
                let start = format!("{:x}-", view.addr());
                let ours = smaps.lines().skip_while(|line| !line.starts_with(&start));
                let flags = ours.filter_map(|line| line.strip_prefix("VmFlags:")).next();
                let flags = flags.expect("the view is mapped");
                assert_eq!(flags.contains("hg"), exists, "{view:?}: {flags}");
            }
            jit.release(span).expect("once");
        }));
    });
}

#[test]
fn a_span_may_be_longer_than_two_gib() {
    isolated!("a_span_may_be_longer_than_two_gib", || {
        let jit = allocator(JitConfig::new().granularity(4096));
        let len = 3 << 30;
        let mut span = match jit.alloc(len) {
            Ok(span) => span,
            Err(error) => return skip(format!("3 GiB of addresses: {error}")),
        };
        let code = code_returning(33);
        jit.write(&mut span, len - CODE_LEN, &code).expect("ours");
        let last = span.rx().as_ptr().wrapping_add(len - CODE_LEN);
        // SAFETY: published just now.
        assert_eq!(unsafe { call(last) }, 33, "to the end");
        let found = jit.query(last.addr()).expect("live");
        assert_eq!((found.rx, found.len), (span.rx(), len));
        jit.shrink(&mut span, 100).expect("ours");
        jit.release(span).expect("once");
        assert_eq!(jit.statistics().used, 0);
    });
}
