//! Giving memory back while its pages stay, and moving it.

use super::purge::purge_among;
use crate::{
    Outcome,
    harness::{Region, expect_refused},
};
use hostmem_core::{
    page::Access,
    provider::{Capabilities, Commit, ErrorKind, PageProvider, Purged},
};

const RW: Commit = Commit::READ_WRITE;

pub(super) fn parts_are_purged_by_themselves<P: PageProvider + Copy>(p: P) -> Outcome {
    let mut region = Region::committed(p, 8);
    purge_among(&mut region, 8, 3..5);
    // Over pages of several accesses, committed by several calls.
    region.decommit(2..4).expect("parts can be decommitted");
    region.commit(2..4, RW).expect("memory is left");
    region
        .protect(6..7, Access::Read)
        .expect("below the ceiling");
    // SAFETY: committed, and the contents are not needed.
    let shown = unsafe { p.purge(region.part(&(1..8))) }.expect("several mappings can be purged");
    if shown == Purged::Zero {
        region.expect_zero(1..8);
    }
    region
        .protect(6..7, Access::ReadWrite)
        .expect("below the ceiling");
    region.fill(0..8, 9);
    region.expect_pattern(0..8, 9);
    Outcome::Passed
}

pub(super) fn moved_pages_take_contents_and_access_along<P: PageProvider + Copy>(p: P) -> Outcome {
    if !p.capabilities().contains(Capabilities::MOVE_PAGES) {
        return Outcome::Skipped("pages cannot be moved");
    }
    let mut from = Region::committed(p, 4);
    let to = Region::pages(p, 4);
    from.fill(0..4, 3);
    from.protect(0..4, Access::Read).expect("below the ceiling");
    let (source, target) = (from.part(&(0..4)), to.part(&(0..4)));
    for round in 0..3 {
        let (here, there) = if round % 2 == 0 {
            (source, target)
        } else {
            (target, source)
        };
        // SAFETY: the one is committed, the other reserved.
        match unsafe { p.move_pages(here, there) } {
            Ok(()) => {}
            Err(e) if round == 0 && e.kind() == ErrorKind::Unsupported => {
                from.expect_pattern(0..4, 3);
                return Outcome::Skipped("these pages cannot be moved");
            }
            Err(e) => panic!("round {round}: {e}"),
        }
        // SAFETY: committed by the move, and no other code writes it.
        let first = unsafe { there.start().read() };
        // SAFETY: what was reserved is committed for a moment, and no other code uses it.
        unsafe { p.commit(here, RW) }.expect("what was moved away is reserved");
        // SAFETY: committed just now.
        let left = unsafe { here.start().read() };
        assert_eq!(left, 0, "round {round}: contents stayed");
        // SAFETY: committed above, and used by no other code.
        unsafe { p.decommit(here) }.expect("it is reserved again");
        // SAFETY: committed; the ceiling of the commit allows it.
        unsafe { p.protect(there, Access::ReadWrite) }.expect("the ceiling moved along");
        // SAFETY: committed, and writable now.
        unsafe { there.start().write(first) };
        // SAFETY: committed.
        unsafe { p.protect(there, Access::Read) }.expect("below the ceiling");
    }
    // It ended at the target: back, so that the pattern can be looked at.
    // SAFETY: the one is committed, the other reserved.
    unsafe { p.move_pages(target, source) }.expect("it moved before");
    from.expect_pattern(0..4, 3);
    Outcome::Passed
}

pub(super) fn impossible_moves_change_nothing<P: PageProvider + Copy>(p: P) -> Outcome {
    let mut region = Region::pages(p, 12);
    region.commit(0..4, RW).expect("memory is left");
    region.fill(0..4, 2);
    for (from, to) in [(0..4, 4..7), (0..3, 4..8), (0..4, 2..6), (0..4, 0..4)] {
        // SAFETY: refused for what it is, before anything is moved.
        let moved = unsafe { p.move_pages(region.part(&from), region.part(&to)) };
        let refusals = [ErrorKind::InvalidArgument, ErrorKind::Unsupported];
        expect_refused(moved, &refusals, "a move of unequal or overlapping ranges");
        region.expect_pattern(0..4, 2);
    }
    region
        .commit(4..12, RW)
        .expect("what moves did not take is reserved");
    region.expect_zero(4..12);
    Outcome::Passed
}
