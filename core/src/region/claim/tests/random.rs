//! Random hosts, against an array of pages.

extern crate std;
use super::super::*;
use super::host::*;
use crate::provider::MapFlags;
use std::vec;

/// SplitMix64, as in `sim`.
fn random(state: &mut u64) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((z ^ z >> 31) >> 1).expect("64 bits")
}

/// What a page of the window is, by the oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Free,
    Used,
    Hidden,
    Kept,
}

#[test]
fn random_hosts_are_claimed_as_a_page_array_says() {
    const PAGES: usize = 160;
    let base = 64 * GIB;
    for seed in 0..4000u64 {
        let mut state = seed;
        let mut below = |n: usize| random(&mut state) % n;
        let page = [PageSize::KIB_4, PageSize::KIB_16, PageSize::KIB_64][below(3)];
        let at = |n: usize| base + n * page.bytes();
        let seen = below(4) != 0;
        let mut host = Host::new(39, page);
        host.space.stack = Some(4 * GIB);
        if !seen {
            host.map = Err(ErrorKind::Denied.into());
        }
        let mut oracle = [Kind::Free; PAGES];
        for _ in 0..below(12) {
            let (start, len) = (below(PAGES), 1 + below(12));
            let end = (start + len).min(PAGES);
            if oracle[start..end].iter().any(|&kind| kind != Kind::Free) {
                continue;
            }
            let (kind, hidden) = [(Kind::Used, false), (Kind::Hidden, true)][below(5) / 4];
            oracle[start..end].fill(kind);
            host.map(at(start), at(end), MapFlags::READ, hidden);
        }
        let mut request = ClaimRequest::range(span(at(0), at(PAGES)))
            .spare(0)
            .stack_room(GIB);
        let part = |start: usize, len: usize| span(at(start), at((start + len).min(PAGES)));
        let in_part =
            |part: Option<AddressRange>, n: usize| part.is_some_and(|part| part.contains(at(n)));
        if below(2) == 0 {
            request.hole = Some(part(below(PAGES), 1 + below(40)));
        }
        if below(3) == 0 {
            request.leave = Some(part(below(PAGES), 1 + below(40)));
        }
        for (n, kind) in oracle.iter_mut().enumerate() {
            if in_part(request.leave, n) && *kind == Kind::Free {
                *kind = Kind::Kept;
            }
        }
        let mut slots = vec![None; PAGES];
        let mut claim = claim(&host, &request, &mut slots).expect("a valid request");
        let owner = |n: usize| claim.ranges().find(|c| c.range.contains(at(n)));
        for (n, kind) in oracle.iter().enumerate() {
            let expected = (*kind == Kind::Free).then_some({
                if in_part(request.hole, n) {
                    Purpose::Hole
                } else {
                    Purpose::Usable
                }
            });
            let got = owner(n).map(|claimed| claimed.purpose);
            assert_eq!(got, expected, "seed {seed}, page {n}: {kind:?}");
        }
        let missed = |kind: &&Kind| **kind == Kind::Hidden || (!seen && **kind == Kind::Used);
        let kept = |n: usize| in_part(request.leave, n);
        let missed = oracle
            .iter()
            .enumerate()
            .filter(|(n, kind)| missed(kind) && !kept(*n));
        let missed = missed.count() * page.bytes();
        assert_eq!(claim.report().missed.bytes, missed, "seed {seed}");
        assert_eq!(claim.report().settled, seen, "seed {seed}");
        // SAFETY: no other code uses the claim.
        unsafe { claim.give_back() }.expect("all can go");
        assert_eq!(host.state.lock().reserved, 0, "seed {seed}");
    }
}
