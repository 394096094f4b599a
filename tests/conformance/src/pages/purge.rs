//! Purging, moving, and what limits leave.

use crate::{Outcome, harness::Region};
use core::ops::Range;
use hostmem_core::{
    page::Access,
    provider::{Capabilities, Commit, ErrorKind, PageProvider, Purged, Request, Resource},
};

/// Fills all `pages` of a region, purges some, and looks again: those show what the purge says, and
/// the others what they had.
pub(super) fn purge_among<P: PageProvider + Copy>(
    region: &mut Region<P>,
    pages: usize,
    purged: Range<usize>,
) {
    for page in 0..pages {
        region.fill(page..page + 1, page as u64);
    }
    let shown = region.purge(purged.clone());
    let shown = shown.expect("committed pages can be purged");
    for page in 0..pages {
        let (one, seed) = (page..page + 1, page as u64);
        match shown {
            _ if !purged.contains(&page) => region.expect_pattern(one, seed),
            Purged::Zero => region.expect_zero(one),
            Purged::ZeroOrOld => region.expect_zero_or_pattern(one, seed),
            Purged::Kept => region.expect_pattern(one, seed),
        }
    }
}

/// Moves pages that were filled by `seed`, and looks for their contents where they are then; says
/// whether they were moved, which a provider may refuse.
fn move_filled<P: PageProvider + Copy>(
    from: &mut Region<P>,
    to: &mut Region<P>,
    pages: Range<usize>,
    seed: u64,
) -> bool {
    match from.move_to(to) {
        Ok(()) => {
            to.expect_pattern(pages, seed);
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "or they are moved");
            from.expect_pattern(pages, seed);
            false
        }
    }
}

pub(super) fn purged_pages_show_what_it_says<P: PageProvider + Copy>(p: P) -> Outcome {
    purge_among(&mut Region::committed(p, 6), 6, 1..5);
    Outcome::Passed
}

pub(super) fn purged_pages_can_be_used<P: PageProvider + Copy>(p: P) -> Outcome {
    let mut region = Region::committed(p, 4);
    for seed in 1..4 {
        region.fill(0..4, seed);
        region.purge(0..4).expect("again and again");
        region.fill(0..4, seed + 10);
        region.expect_pattern(0..4, seed + 10);
    }
    region
        .protect(0..4, Access::Read)
        .expect("they are as committed as before");
    region.expect_pattern(0..4, 13);
    region.decommit(0..4).expect("likewise");
    region.commit(0..4, Commit::READ_WRITE).expect("likewise");
    region.expect_zero(0..4);
    Outcome::Passed
}

pub(super) fn purging_keeps_the_access<P: PageProvider + Copy>(p: P) -> Outcome {
    let mut region = Region::committed(p, 2);
    region.fill(0..2, 1);
    region.protect(0..2, Access::Read).expect("readable alone");
    let shown = region.purge(0..2).expect("committed pages can be purged");
    if shown == Purged::Zero {
        region.expect_zero(0..2);
    }
    region
        .protect(0..2, Access::ReadWrite)
        .expect("writable again");
    region.fill(0..2, 2);
    region.expect_pattern(0..2, 2);
    Outcome::Passed
}

pub(super) fn moved_pages_keep_their_contents<P: PageProvider + Copy>(p: P) -> Outcome {
    if !p.capabilities().contains(Capabilities::MOVE_PAGES) {
        let (mut from, mut to) = (Region::committed(p, 4), Region::pages(p, 4));
        let refused = from.move_to(&mut to).expect_err("it lacks the capability");
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        return Outcome::Skipped("pages are not moved");
    }
    let (mut from, mut to) = (Region::committed(p, 4), Region::pages(p, 4));
    from.fill(0..4, 1);
    if !move_filled(&mut from, &mut to, 0..4, 1) {
        return Outcome::Skipped("these pages are not moved");
    }
    from.commit(0..4, Commit::READ_WRITE)
        .expect("what is left is reserved");
    from.expect_zero(0..4);
    to.fill(0..4, 2);
    to.expect_pattern(0..4, 2);
    from.expect_zero(0..4);
    Outcome::Passed
}

pub(super) fn pages_of_several_accesses_are_moved_whole_or_not<P: PageProvider + Copy>(
    p: P,
) -> Outcome {
    let (mut from, mut to) = (Region::committed(p, 6), Region::pages(p, 6));
    from.fill(0..6, 1);
    from.protect(2..4, Access::Read)
        .expect("pages of their own");
    if !move_filled(&mut from, &mut to, 0..6, 1) {
        to.commit(0..6, Commit::READ_WRITE)
            .expect("the target is as it was");
    }
    Outcome::Passed
}

pub(super) fn what_is_left_can_be_asked<P: PageProvider + Copy>(p: P) -> Outcome {
    for resource in [
        Resource::Addresses,
        Resource::Memory,
        Resource::Locked,
        Resource::FileSize,
        Resource::Mappings,
    ] {
        // None, or a number; it needs nothing that a process may lack.
        let _ = p.left(resource);
    }
    let Some(left) = p.left(Resource::Addresses) else {
        return Outcome::Skipped("addresses are not limited");
    };
    let too_many = left.saturating_add(p.page_size().bytes());
    let refused = p.reserve(&Request::bytes(too_many));
    assert!(refused.is_err(), "more than is left cannot be had");
    Outcome::Passed
}
