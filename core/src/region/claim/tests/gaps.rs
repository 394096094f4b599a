//! Which ranges a claim gets.

extern crate std;
use super::super::*;
use super::host::*;
use crate::provider::MapFlags;
use std::{vec, vec::Vec};

#[test]
fn every_gap_above_is_claimed() {
    for page in PAGES {
        let p = page.bytes();
        let host = Host::new(47, page)
            .mapped(0x40_0000, 0x50_0000)
            .mapped(0x5555_0000_0000, 0x5555_0010_0000)
            .mapped(0x7fff_f000_0000, 0x7fff_f000_0000 + p)
            .mapped(0x7fff_f000_0000 + 2 * p, 0x7fff_f000_0000 + 4 * p);
        let request = above().hole(span(4 * GIB, 8 * GIB));
        let found = survey(&host, &request).expect("there is a map");
        let (got, report) = check(&host, &request);
        let expected = [
            (4 * GIB, 8 * GIB, Purpose::Hole),
            (8 * GIB, 0x5555_0000_0000, Purpose::Usable),
            (0x5555_0010_0000, 0x7fff_f000_0000, Purpose::Usable),
            (
                0x7fff_f000_0000 + p,
                0x7fff_f000_0000 + 2 * p,
                Purpose::Usable,
            ),
            (0x7fff_f000_0000 + 4 * p, 1 << 47, Purpose::Usable),
        ];
        assert_eq!(got, expected);
        assert_eq!(found.ranges, expected.len(), "the survey told");
        let bytes: usize = expected.iter().map(|(start, end, _)| end - start).sum();
        assert_eq!(found.bytes, bytes);
        assert_eq!(report.address_bits, Some(47));
        assert_eq!(report.missed, Tally::default());
        assert_eq!((report.error, report.map), (None, Ok(())));
        assert_eq!(
            (report.scans, report.settled, report.full),
            (2, true, false)
        );
        assert_eq!(report.block_break, BreakBlock::NotAsked);
    }
}

#[test]
fn the_edges_of_the_range_are_the_edges_of_the_claim() {
    let host = Host::new(39, PageSize::KIB_4).mapped(6 * GIB, 7 * GIB);
    // One mapping covers the start, another the end.
    let range = span(6 * GIB + 4096, 9 * GIB);
    let (got, _) = check(&host, &ClaimRequest::range(range));
    assert_eq!(got, [(7 * GIB, 9 * GIB, Purpose::Usable)]);
    // Parts of pages are not claimed.
    let range = span(7 * GIB + 1, 7 * GIB + 3 * 4096 - 1);
    let (got, _) = check(&host, &ClaimRequest::range(range));
    assert_eq!(got, [(7 * GIB + 4096, 7 * GIB + 2 * 4096, Purpose::Usable)]);
    // Nothing is free.
    let (got, report) = check(&host, &ClaimRequest::range(span(6 * GIB, 7 * GIB)));
    assert!(got.is_empty() && report.settled);
    // A hole at the end, and one that is the whole range.
    let (got, _) = check(
        &host,
        &ClaimRequest::range(span(7 * GIB, 9 * GIB)).hole(span(8 * GIB, 9 * GIB)),
    );
    assert_eq!(
        got,
        [
            (7 * GIB, 8 * GIB, Purpose::Usable),
            (8 * GIB, 9 * GIB, Purpose::Hole)
        ]
    );
    let all = span(8 * GIB, 9 * GIB);
    let (got, _) = check(&host, &ClaimRequest::range(all).hole(all));
    assert_eq!(got, [(8 * GIB, 9 * GIB, Purpose::Hole)]);
}

#[test]
fn what_becomes_free_is_claimed_by_renewing() {
    let host = Host::new(47, PageSize::KIB_4)
        .mapped(20 * GIB, 21 * GIB)
        .mapped(30 * GIB, 31 * GIB);
    let mut slots = [None; 3];
    let request = above();
    let mut claim = claim(&host, &request, &mut slots).expect("valid");
    assert_eq!(claim.ranges().count(), 3);
    let once = *claim.report();
    let again = *claim.renew();
    assert_eq!(
        (once.scans, again.scans),
        (2, 1),
        "there was nothing to take"
    );
    assert_eq!(ClaimReport { scans: 2, ..again }, once);
    host.state.lock().used.retain(|used| used.start != 20 * GIB);
    assert!(claim.renew().settled);
    assert_eq!(
        usable(&claim),
        [(4 * GIB, 30 * GIB), (31 * GIB, 1 << 47)],
        "the parts were joined"
    );
    // SAFETY: no other code uses the claim.
    unsafe { claim.give_back() }.expect("all can go");
    assert_eq!(host.used().len(), 1);
    assert_eq!(claim.renew().missed, Tally::default());
    assert_eq!(claim.ranges().count(), 2, "also after giving back");
}

#[test]
fn a_hole_outside_the_range_is_refused() {
    let host = Host::new(47, PageSize::KIB_4);
    let request = ClaimRequest::above(8 * GIB).hole(span(4 * GIB, 8 * GIB));
    let refused = claim(&host, &request, &mut []).expect_err("it is not in the range");
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    let request = ClaimRequest::above(8 * GIB).least(usize::MAX);
    assert!(claim(&host, &request, &mut []).is_err());
    assert_eq!(host.state.lock().calls, 0);
}

#[test]
fn short_gaps_are_left_when_asked() {
    let host = Host::new(47, PageSize::KIB_4)
        .mapped(5 * GIB, 6 * GIB)
        .mapped(6 * GIB + 0x1_0000, 7 * GIB)
        .mapped(7 * GIB + 0xf000, 8 * GIB);
    let (got, report) = check(&host, &above().least(0xf001));
    let starts: Vec<_> = got.iter().map(|&(start, ..)| start).collect();
    assert_eq!(starts, [4 * GIB, 6 * GIB, 8 * GIB]);
    assert_eq!(report.missed, Tally::default(), "nothing that was wanted");
}

#[test]
fn a_39_bit_host_gives_what_it_has() {
    let stack = (1 << 39) - 0x10_0000;
    let grows = MapFlags::READ | MapFlags::GROWS;
    for page in PAGES {
        let host = Host::new(39, page).with(stack, (1 << 39) - 0x1_0000, grows);
        let (got, report) = check(&host, &above());
        assert_eq!(report.address_bits, Some(39));
        let room = 128 << 20;
        let expected = [
            (4 * GIB, (1 << 39) - 0x1_0000 - room, Purpose::Usable),
            ((1 << 39) - 0x1_0000, 1 << 39, Purpose::Usable),
        ];
        assert_eq!(got, expected);
        // A 64-bit guest wants what such a host has not.
        let (got, report) = check(&host, &ClaimRequest::range(span(1 << 47, 1 << 48)));
        assert!(got.is_empty());
        assert_eq!((report.range, report.scans), (None, 0));
    }
    let host = Host::new(48, PageSize::KIB_4);
    let (got, _) = check(&host, &ClaimRequest::range(span(1 << 47, 1 << 48)));
    assert_eq!(got, [(1 << 47, 1 << 48, Purpose::Usable)]);
}

#[test]
fn too_few_slots_are_reported() {
    let mut host = Host::new(47, PageSize::KIB_4);
    for n in 1..=10 {
        host = host.mapped((4 + n) * GIB, (4 + n) * GIB + 4096);
    }
    for count in 0..11 {
        let mut slots = vec![None; count];
        let mut claim = claim(&host, &above(), &mut slots).expect("valid");
        assert_eq!(claim.ranges().count(), count);
        assert!(claim.report().full && claim.report().settled);
        assert_eq!(claim.report().missed.ranges, 11 - count);
        assert_eq!(
            claim.report().error.map(Error::kind),
            Some(ErrorKind::Exhausted)
        );
        // SAFETY: no other code uses the claim.
        unsafe { claim.give_back() }.expect("all can go");
    }
    let mut slots = [None; 11];
    assert!(
        !claim(&host, &above(), &mut slots)
            .expect("valid")
            .report()
            .full
    );
}

#[test]
fn more_gaps_than_a_batch_holds_are_claimed() {
    let mut host = Host::new(47, PageSize::KIB_4);
    for n in 0..300 {
        host = host.mapped(8 * GIB + n * 0x2000, 8 * GIB + n * 0x2000 + 0x1000);
    }
    let (got, report) = check(&host, &above());
    assert_eq!(got.len(), 301);
    assert_eq!((report.scans, report.missed.ranges), (2, 0));
}

#[test]
fn what_is_withdrawn_is_not_given_back() {
    let host = Host::new(47, PageSize::KIB_4);
    let mut slots = [None; 3];
    let mut claim = claim(&host, &above(), &mut slots).expect("valid");
    let whole = claim.usable().next().expect("one range");
    let part = |offset, len| whole.part(offset, len, PageSize::KIB_4).expect("inside");
    let (head, middle) = (part(0, 0x1000), part(0x5000, 0x1000));
    let tail = part(whole.len_bytes() - 0x1000, 0x1000);
    for range in [head, middle, tail] {
        claim.withdraw(range).expect("it lies in the claim");
        let again = claim.withdraw(range).expect_err("not any more");
        assert_eq!(again.kind(), ErrorKind::InvalidArgument);
    }
    assert_eq!(claim.ranges().count(), 2);
    claim.withdraw(part(0x3000, 0x1000)).expect("a third slot");
    let before = ranges(&claim);
    let error = claim.withdraw(part(0x9000, 0x1000)).expect_err("no fourth");
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert_eq!(ranges(&claim), before, "nothing changed");
    // SAFETY: no other code uses the claim.
    unsafe { claim.give_back() }.expect("all can go");
    assert_eq!(host.state.lock().reserved, 4 * 0x1000);
    for range in [head, middle, tail, part(0x3000, 0x1000)] {
        // SAFETY: withdrawn, and no other code uses it.
        unsafe { host.release(range) }.expect("it is still reserved");
    }
    assert!(host.used().is_empty());
}

#[test]
fn the_start_of_what_lies_above_a_guest_is_a_guard() {
    for page in PAGES {
        let host = Host::new(47, page).mapped(0x40_0000, 0x50_0000);
        let (got, report) = check(&host, &ClaimRequest::above(4 * GIB));
        let guard = 4 * GIB + (64 << 10);
        let expected = [
            (4 * GIB, guard, Purpose::Guard),
            (guard, 1 << 47, Purpose::Usable),
        ];
        assert_eq!(got, expected);
        assert!(report.is_complete());
        // Behind it a hole, and all of it in a hole, or a part.
        for (start, end) in [(guard, 8 * GIB), (8 * GIB, 9 * GIB)] {
            let request = ClaimRequest::above(4 * GIB).hole(span(start, end));
            let (got, _) = check(&host, &request);
            assert_eq!(got[0], (4 * GIB, guard, Purpose::Guard));
            assert!(got.contains(&(start, end, Purpose::Hole)));
        }
        let request = ClaimRequest::above(4 * GIB).hole(span(4 * GIB, 8 * GIB));
        let (got, _) = check(&host, &request);
        assert_eq!(got[0], (4 * GIB, 8 * GIB, Purpose::Hole));
        // A range of one's own has none unless asked.
        let request = ClaimRequest::range(span(4 * GIB, 8 * GIB));
        let (got, _) = check(&host, &request);
        assert_eq!(got, [(4 * GIB, 8 * GIB, Purpose::Usable)]);
        let (got, _) = check(&host, &request.guard(4 * GIB));
        assert_eq!(got, [(4 * GIB, 8 * GIB, Purpose::Guard)]);
    }
}
