//! Moves that fail.

use super::{
    Failure, MREMAP_FIXED, OS, PATTERN, decommit, holds, is_reserved, kind, written_middle,
};
use hostmem::{
    page::{Access, PageRange},
    provider::{ErrorKind, PageProvider},
};
use hostmem_test_support::isolate::{isolated, skip};

/// A block to move, and a reservation to move it to.
fn block_and_target() -> (PageRange, PageRange) {
    let from = written_middle();
    let to = written_middle();
    decommit(to).expect("nothing fails yet");
    (from, to)
}

fn move_pages(from: PageRange, to: PageRange) -> Result<(), ErrorKind> {
    // SAFETY: both are the test's: the one committed, the other reserved.
    kind(unsafe { OS.move_pages(from, to) })
}

#[test]
fn a_move_that_failed_leaves_anothers_mapping_alone() {
    isolated!("a_move_that_failed_leaves_anothers_mapping_alone", || {
        let (from, to) = block_and_target();
        let failure = Failure::of(libc::EFAULT).with_stranger();
        if failure.install(libc::SYS_mremap, MREMAP_FIXED, to) {
            assert_eq!(move_pages(from, to), Err(ErrorKind::RangeLost));
            assert!(holds(to, PATTERN), "it is left alone");
            assert!(holds(from, 1));
        }
    });
}

#[test]
fn a_move_that_failed_keeps_the_target() {
    isolated!("a_move_that_failed_keeps_the_target", || {
        let (from, to) = block_and_target();
        let failure = Failure::of(libc::EFAULT).that_unmaps();
        if failure.install(libc::SYS_mremap, MREMAP_FIXED, to) {
            assert_eq!(move_pages(from, to), Err(ErrorKind::Unsupported));
            assert!(is_reserved(to));
            assert!(holds(from, 1));
        }
    });
}

#[test]
fn several_mappings_are_moved_whole_or_not_at_all() {
    isolated!("several_mappings_are_moved_whole_or_not_at_all", || {
        let (from, to) = block_and_target();
        let page = OS.page_size();
        let part = from.part(4 * page.bytes(), page.bytes(), page);
        // SAFETY: committed, the test's, and not written to meanwhile.
        unsafe { OS.protect(part.expect("inside"), Access::Read) }
            .expect("a page can be split off");
        assert_eq!(move_pages(from, to), Err(ErrorKind::Unsupported));
        assert!(holds(from, 1));
        assert!(is_reserved(to));
        let (from, to) = block_and_target();
        if move_pages(from, to) == Ok(()) {
            assert!(holds(to, 1) && is_reserved(from));
        } else {
            skip("this kernel moves no pages");
        }
    });
}
